"""Several devices in one run: a process for each, over rows of its own, all into one cache; computes nothing here."""

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cloudpickle
import numpy as np

from featx.engine.fill import Work, fill
from featx.engine.hardware import device_names
from featx.engine.plan import Keys, OpenCache, Task, missing_rows, open_tasks
from featx.engine.progress import Progress
from featx.engine.settings import Settings
from featx.engine.stages import POLL_SECONDS
from featx.errors import ExtractionError, FeatxError, UsageError, WeightsError
from featx.extractors.spec import Request
from featx.samples import SampleTable

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["fill_on_devices", "main"]

_TELL_SECONDS = 0.1
_TOLD = (FeatxError, MemoryError, OSError)
"""Errors that whoever started the run is told as if they had been raised there."""
_COMMAND = """
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is computed yet: no traceback from the midst of an import
sys.path[:] = pickle.load(sys.stdin.buffer)
from featx.engine.devices import main
main()
"""


_Started = tuple["subprocess.Popen[bytes]", threading.Thread]


@dataclass(frozen=True)
class _Share:
    """What one process has to do."""

    table: SampleTable
    keys: Keys
    asked: "Sequence[Request | ModuleExtractor]"
    fingerprints: Sequence[str]
    cache: Path
    settings: Settings
    log_level: int


@dataclass(frozen=True)
class _Done:
    """What one process did; the keys are complete."""

    work: Work
    keys: Keys


@dataclass(frozen=True)
class _Logged:
    """What a process logged."""

    logger: str
    level: int
    message: str


@dataclass(frozen=True)
class _Ended:
    """A process has said its last: the exit status, 0 also where it raised an error that it told."""

    status: int


def fill_on_devices(
    table: SampleTable,
    tasks: Sequence[Task],
    keys: Keys,
    *,
    cache: Path | None,
    settings: Settings,
    progress: Callable[[Progress], None] | None,
) -> Work:
    """Fill as `featx.engine.fill.fill` does, by one process for each device that the settings name.

    Each has every n-th row of those that lack something. Of equal contents two of them may compute a vector each, of
    which one is served. An error in one process ends the others; what they computed is kept. With ``on_error="raise"``
    each goes on to the first failure among its own rows.

    Parameters
    ----------
    table, tasks, keys, settings, progress
        As for `fill`.
    cache : Path or None
        The folder that the processes share.

    Returns
    -------
    Work

    Raises
    ------
    UsageError
        If there is no folder to share, or samples or an extractor cannot be handed to another process.
    ExtractionError
        If a process dies.
    FeatxError, MemoryError, OSError
        What `fill` raised in one of them.
    """
    devices = device_names(settings.device)
    if cache is None:
        raise UsageError(
            f"device: {settings.device} take a process each, which share a cache folder; got none. "
            "Name a cache, or one device."
        )
    todo = missing_rows(keys, tasks)
    devices = devices[: len(todo)]
    parts = [todo[start :: len(devices)] for start in range(len(devices))]
    n_workers = settings.workers or max(1, settings.n_workers // len(parts))
    inbox: queue.Queue[tuple[int, Any]] = queue.Queue()
    processes: list[_Started] = []
    try:
        for number, (device, rows) in enumerate(zip(devices, parts, strict=True)):
            share = _Share(
                table.take(rows),
                Keys(keys.values[rows], keys.known[rows]),
                [task.asked for task in tasks],
                [task.spec.fingerprint for task in tasks],
                cache.absolute(),
                replace(settings, device=device, workers=n_workers),
                logging.getLogger("featx").getEffectiveLevel(),
            )
            processes.append(_start(_pickled(share), number, inbox))
        done = _follow(inbox, devices, len(todo), progress)
    finally:
        _end(processes)
    work = Work(np.zeros(len(table), bool), n_processes=len(parts), workers=0, lanes=0)
    for rows, one in zip(parts, done, strict=True):
        keys.values[rows], keys.known[rows] = one.keys.values, one.keys.known
        work.computed[rows] = one.work.computed
        work.problems |= {int(rows[row]): problem for row, problem in one.work.problems.items()}
        for fingerprint, count in one.work.extracted.items():
            work.extracted[fingerprint] = work.extracted.get(fingerprint, 0) + count
        for stage, seconds in one.work.stages.items():
            work.stages[stage] += seconds
        work.first_published = min(
            filter(None, (work.first_published, one.work.first_published)), default=None
        )
        work.seconds = max(work.seconds, one.work.seconds)
        work.workers += one.work.workers
        work.lanes += one.work.lanes
        work.runtimes = tuple(dict.fromkeys((*work.runtimes, *one.work.runtimes)))
    return work


def _pickled(share: _Share) -> bytes:
    try:
        pickled: bytes = cloudpickle.dumps(share)
    except Exception as error:  # whatever an object of the user's own raises
        reason = " ".join(str(error).split())
        raise UsageError(
            f"device: several take a process each, and the samples or an extractor cannot be handed to another process "
            f"({type(error).__name__}: {reason}). Name one device."
        ) from error
    return pickle.dumps(sys.path) + pickled


def _start(share: bytes, number: int, inbox: "queue.Queue[tuple[int, Any]]") -> _Started:
    """Start a process, hand it its share, and have a thread pass on what it says."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND],  # -P: nothing of the current folder is imported
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C reaches this process alone, which passes it on once: a second one would cut the publishing short.
        start_new_session=True,
    )

    def listen() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError), process.stdin as stdin:  # that it died is told below
                stdin.write(share)
            with (
                suppress(EOFError, pickle.UnpicklingError),
                process.stdout as stdout,
            ):  # it died in the midst of a word
                while True:
                    inbox.put((number, pickle.load(stdout)))
        finally:
            inbox.put((number, _Ended(process.wait())))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return process, listener


def _follow(
    inbox: "queue.Queue[tuple[int, Any]]",
    devices: Sequence[str],
    total: int,
    progress: Callable[[Progress], None] | None,
) -> list[_Done]:
    """Pass on what the processes say until all have ended well; raise the first error."""
    done: dict[int, _Done] = {}
    so_far: dict[int, Progress] = {}
    running = len(devices)
    while running:
        try:
            number, said = inbox.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
        if isinstance(said, Progress):
            so_far[number] = said
            if progress is not None:
                counts = [(one.done, one.failed) for one in so_far.values()]
                progress(Progress(sum(one for one, _ in counts), total, sum(one for _, one in counts)))
        elif isinstance(said, _Done):
            done[number] = said
        elif isinstance(said, _Logged):
            logging.getLogger(said.logger).log(said.level, "%s", said.message)
        elif isinstance(said, _TOLD):
            raise said
        else:
            running -= 1
            if number not in done:
                raise ExtractionError(
                    f"the process for {devices[number]} ended with status {said.status} before its work was done. "
                    "What it published is kept; run again, or leave that device out."
                )
    return [done[number] for number in range(len(devices))]


def _end(started: Sequence[_Started]) -> None:
    """Interrupt the processes that still run, and wait until they have published what they computed."""
    for process, _ in started:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
    for process, listener in started:
        process.wait()
        listener.join()


def main() -> None:
    """Do the share that comes on standard input, and say on standard output how it goes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    words: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no word
    speaking = threading.Lock()

    def say(word: object) -> None:
        with speaking:
            pickle.dump(word, words)
            words.flush()

    try:
        with suppress(KeyboardInterrupt):
            say(_fill_share(pickle.load(sys.stdin.buffer), say))
    except BrokenPipeError:  # nobody listens any more; what was computed is published
        os._exit(1)
    except _TOLD as error:
        say(error)


class _Telling(logging.Handler):
    def __init__(self, say: Callable[[object], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say the text alone: what else belongs to a record need not be picklable."""
        self._say(_Logged(record.name, record.levelno, record.getMessage()))


def _fill_share(share: _Share, say: Callable[[object], None]) -> _Done:
    told_at = -_TELL_SECONDS

    def tell(progress: Progress) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= _TELL_SECONDS or progress.done == progress.total:
            told_at = time.monotonic()
            say(progress)

    logger = logging.getLogger("featx")
    logger.handlers[:], logger.propagate = [logging.NullHandler()], False
    opened = OpenCache(share.cache)
    with opened.hints as hints:
        tasks = open_tasks(
            share.asked, opened, device=share.settings.device, precision=share.settings.precision
        )
        if [task.spec.fingerprint for task in tasks] != list(share.fingerprints):
            raise WeightsError(
                "weights or packages changed while featx was using them. Run the command again."
            )
        # What identifying says was said where the run was started.
        logger.handlers[:] = [_Telling(say)]
        logger.setLevel(share.log_level)
        work = fill(share.table, tasks, share.keys, hints, settings=share.settings, progress=tell)
    return _Done(work, share.keys)
