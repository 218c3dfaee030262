"""How far a run is, as a bar on a terminal or as lines in a log, and how fast it goes."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.engine import Progress

__all__ = ["progress_bar", "progress_lines"]

_LINE_SECONDS = 10.0
_PACE_SECONDS = 3.0
_UNITS = {"extracting": "images", "fitting": "fits", "downloading": "MiB"}


@contextmanager
def progress_bar() -> Iterator[Callable[["Progress"], None]]:
    """Show a bar, and give what moves it."""
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


def progress_lines() -> Callable[["Progress"], None]:
    """Return what prints a line every 10 seconds at most, and one at the end of what has had one."""
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
