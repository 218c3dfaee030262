"""What a person sees: results on standard output, everything else on standard error."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from featx.cli.progress import progress_bar, progress_lines
from featx.printable import printable_line

if TYPE_CHECKING:
    from featx.engine import Progress

__all__ = ["Screen", "columns", "printable", "shortened", "size_text"]

_NAMED = 5
_WORD_LENGTH = 200


class Screen:
    """Where a command shows its work.

    Parameters
    ----------
    as_json : bool
        One JSON object on standard output, and nothing else there.
    quiet : bool
        Neither progress nor remarks; notes on a result are shown all the same.
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

    def note(self, *notes: str) -> None:
        """Say what a result is to be read with. Being quiet hides it only where the result is JSON, which has it."""
        if not (self.quiet and self.as_json):
            for note in notes:
                print(shortened(printable_line(f"note: {note}")), file=sys.stderr)

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
    def progress(self, *opening: str) -> "Iterator[Callable[[Progress], None] | None]":
        """Show a run's progress: a bar on a terminal, now and then a line elsewhere, nothing when quiet.

        The opening is remarked once the run is on its way, and no more refused.
        """
        if self.quiet:
            yield None
            return
        waiting = [*opening]

        def begin() -> None:
            self.remark(*waiting)
            waiting.clear()

        with progress_bar() if sys.stderr.isatty() else nullcontext(progress_lines()) as shown:

            def callback(progress: "Progress") -> None:
                begin()
                shown(progress)

            yield callback
        begin()


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


def _plain(value: Any) -> Any:
    """Return what JSON can hold for numpy's scalars and arrays, and for paths."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
