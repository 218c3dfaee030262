"""What a person sees: results on standard output, everything else on standard error."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from featx.printable import printable_line

if TYPE_CHECKING:
    from featx.engine import Progress

__all__ = ["Screen", "columns", "counted", "printable", "shortened", "size_text"]

_LINE_SECONDS = 10.0
_PACE_SECONDS = 3.0
_UNITS = {"extracting": "images", "fitting": "fits", "downloading": "MiB"}
_NAMED = 5
_WORD_LENGTH = 200


class Screen:
    """Where a command shows its work.

    Parameters
    ----------
    as_json : bool
        One JSON object on standard output, and nothing else there.
    quiet : bool
        Neither progress nor remarks.
    verbose : int
        How much of the library's log is shown.
    """

    def __init__(self, *, as_json: bool, quiet: bool = False, verbose: int = 0) -> None:
        self.as_json = as_json
        self.quiet = quiet
        level = logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine("featx: %(message)s"))
        logger = logging.getLogger("featx")
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False

    def remark(self, *lines: str) -> None:
        """Say something that is no result, each line on one line."""
        if not self.quiet:
            for line in lines:
                print(shortened(printable_line(line)), file=sys.stderr)

    def left_out(self, failures: Iterable[tuple[str, str]]) -> None:
        """Name the first samples without a vector, each an id and a reason."""
        named = list(failures)
        for name, reason in named[:_NAMED]:
            self.remark(f"left out {name}: {reason}")
        if len(named) > _NAMED:
            self.remark(f"left out {len(named) - _NAMED} more samples; --json lists all")

    def result(self, values: Mapping[str, Any], text: str) -> None:
        """Show a command's result: the values as JSON, or the text."""
        if self.as_json:
            print(json.dumps(values, ensure_ascii=True, allow_nan=False, default=_plain), flush=True)
        else:
            print(printable(text), flush=True)

    @contextmanager
    def progress(self) -> "Iterator[Callable[[Progress], None] | None]":
        """Show a run's progress: a bar on a terminal, now and then a line elsewhere, nothing when quiet."""
        if self.quiet:
            yield None
        elif sys.stderr.isatty():
            with _bar() as callback:
                yield callback
        else:
            yield _lines()


def columns(rows: Sequence[Sequence[object]], *, header: Sequence[str]) -> str:
    """Return rows as aligned text, each on one line, numbers to the right."""
    cells = [["" if cell is None else printable_line(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    )


def counted(number: int, noun: str) -> str:
    """Return a number and what there is of it.

    Examples
    --------
    >>> counted(1, "shard"), counted(0, "row")
    ('1 shard', '0 rows')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Return text that any terminal can print: undecodable bytes and control characters are escaped."""
    return "\n".join(map(printable_line, text.split("\n")))


def shortened(line: str) -> str:
    """Return a message in which no word, such as a path, is longer than 200 characters: its middle is left out.

    Examples
    --------
    >>> len(shortened("cannot read " + "a/" * 500)) == len("cannot read ") + 200
    True
    """
    return re.sub(rf"\S{{{_WORD_LENGTH + 1},}}", lambda found: f"{found[0][:98]}...{found[0][-99:]}", line)


def size_text(size_bytes: float) -> str:
    """Return a size with its unit.

    Examples
    --------
    >>> size_text(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


class _OneLine(logging.Formatter):
    """Keeps the names in a log from the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return shortened(printable_line(super().format(record)))


@contextmanager
def _bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.fields[failed]}"),
        console=Console(stderr=True),
        transient=True,
    )
    pace = _Pace()
    with bar:
        task = bar.add_task("extracting", total=None, pace="", failed="")

        def callback(progress: "Any") -> None:
            if pace.begins(progress):
                bar.reset(task, description=progress.work)
            failed = f"{progress.failed} failed" if progress.failed else ""
            told = pace.text(progress)
            bar.update(task, completed=progress.done, total=progress.total or None, pace=told, failed=failed)

        yield callback


def _lines() -> "Callable[[Progress], None]":
    pace = _Pace()
    last = time.monotonic()
    told = False

    def callback(progress: "Progress") -> None:
        nonlocal last, told
        if pace.begins(progress):
            told = False
        now = time.monotonic()
        ended = progress.done == progress.total
        if now - last < _LINE_SECONDS and not (ended and told):
            return
        last, told = now, not ended  # what has had a line gets one for its end
        of_all = f" of {progress.total}" if progress.total else ""
        parts = [f"{progress.done}{of_all}", pace.text(progress)]
        if progress.work == "extracting":
            parts.append(f"{progress.failed} failed")
        print(f"{progress.work}: {', '.join(filter(None, parts))}", file=sys.stderr)

    return callback


class _Pace:
    """How fast one piece of work goes, once it has gone on for long enough to tell."""

    def __init__(self) -> None:
        self._before: Progress | None = None
        self._began = (0.0, 0)

    def begins(self, progress: "Progress") -> bool:
        """Take in how far it is; whether this is another piece of work than before."""
        before, self._before = self._before, progress
        if before is not None and before.work == progress.work and before.done <= progress.done:
            return False
        self._began = (time.monotonic(), progress.done)
        return True

    def text(self, progress: "Progress") -> str:
        """Return the rate and the time that is left, or nothing."""
        began, done = self._began
        seconds = time.monotonic() - began
        if seconds < _PACE_SECONDS or progress.done == done:
            return ""
        rate = (progress.done - done) / seconds
        shown = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
        left = (progress.total - progress.done) / rate
        text = f"{shown} {_UNITS[progress.work]}/s"
        return f"{text}, about {left:.0f} s left" if left > 0 else text


def _plain(value: Any) -> Any:
    """Return what JSON can hold for numpy's scalars and arrays, and for paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
