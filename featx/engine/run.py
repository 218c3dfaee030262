"""One run: find the vectors that are missing, have them computed, and say what was done."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.cache import FAILED, turn
from featx.engine.fill import Work, digest, fill
from featx.engine.hardware import device_names
from featx.engine.outcome import Failure, Outcome, Run
from featx.engine.plan import Keys, OpenCache, Task, known_keys, missing_rows, open_tasks
from featx.engine.progress import Progress
from featx.engine.settings import Settings
from featx.errors import DecodeError, ExtractionError
from featx.extractors.spec import Request
from featx.samples import SampleTable

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["look_up", "run"]

_JUDGED_FROM = 100
"""Samples from which on a share of failures is judged; among fewer, one broken file would already be too many."""


def run(
    table: SampleTable,
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | OpenCache | None,
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
    take_turns: bool = False,
    n_planned: int | None = None,
) -> Run:
    """Compute every vector that is missing, once, in one pass over the samples.

    Parameters
    ----------
    table : SampleTable
        What to extract from.
    asked : sequence of Request or ModuleExtractor
        From `featx.engine.read_extractors`.
    cache : Path, OpenCache or None
        Where vectors are kept: a folder, one that this process has open already, or None for memory.
    settings : Settings
    progress : callable, optional
        Called with a `Progress` now and then, from this thread.
    take_turns : bool
        Wait while another run that takes turns fills the same stores, and then look again what is missing.
    n_planned : int, optional
        The number of samples that ``--runtime auto`` is decided for, where these stand for more of them; for one
        device.

    Returns
    -------
    Run

    Raises
    ------
    SampleIOError, DecodeError
        With ``on_error="raise"``, for the first sample in their order that has no vector.
    ExtractionError
        For too many failures, values that are not finite, or a stalled sample. What was computed is kept.
    CacheError
        If the cache is damaged or cannot be written.
    """
    started = time.monotonic()
    opened = cache if isinstance(cache, OpenCache) else OpenCache(cache)
    with opened.hints as hints, ExitStack() as turns:
        tasks = open_tasks(
            asked, opened, device=settings.device, precision=settings.precision, progress=progress
        )
        keys = known_keys(table, hints)
        work = Work(np.zeros(len(table), bool))
        if len(missing_rows(keys, tasks)):
            if take_turns:
                _take_turns(tasks, opened, turns)
            if len(device_names(settings.device)) > 1:
                from featx.engine.devices import fill_on_devices

                work = fill_on_devices(
                    table, tasks, keys, cache=opened.directory, settings=settings, progress=progress
                )
            else:
                work = fill(
                    table, tasks, keys, hints, settings=settings, progress=progress, n_planned=n_planned
                )
            for task in tasks:
                # Others may have published some of these rows first: answer what is served from now on.
                task.store.refresh()
    done = _summarise(table, keys, tasks, work, started=started)
    _judge(done, work, settings)
    return done


def look_up(
    table: SampleTable,
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | None,
    settings: Settings,
) -> Run:
    """Find the vectors that are in the cache, and compute none; a row never computed is neither good nor a failure.

    Parameters
    ----------
    table, asked, cache, settings
        As for `run`.

    Returns
    -------
    Run
    """
    started = time.monotonic()
    opened = OpenCache(cache)
    with opened.hints as hints:
        tasks = open_tasks(asked, opened, device=settings.device, precision=settings.precision)
        keys = known_keys(table, hints)
        work = digest(table, keys, hints, settings=settings)
    return _summarise(table, keys, tasks, work, started=started)


def _take_turns(tasks: Sequence[Task], opened: OpenCache, turns: ExitStack) -> None:
    # In one order, so that two runs never wait for each other.
    for directory in sorted({task.store.directory for task in tasks if task.store.directory}):
        turns.enter_context(turn(directory))
    if opened.directory is None:
        turns.enter_context(opened.turn)
    for task in tasks:
        task.store.refresh()


def _summarise(
    table: SampleTable,
    keys: Keys,
    tasks: Sequence[Task],
    work: Work,
    *,
    started: float,
) -> Run:
    reasons = {row: str(problem) for row, problem in work.problems.items()}
    outcomes = []
    for task in tasks:
        positions = keys.positions(task.store)
        for row in np.flatnonzero(positions == FAILED).tolist():
            reasons.setdefault(row, task.store.reason(keys.values[row].tobytes()))
        n_good = int((positions >= 0).sum())
        n_extracted = work.extracted.get(task.spec.fingerprint, 0)
        outcomes.append(Outcome(task, positions, n_good - n_extracted, n_extracted, len(table) - n_good))
    threads = dict.fromkeys(("read", "digest", "decode"), work.workers)
    threads |= {"forward": work.lanes, "write": work.n_processes}
    failures = tuple(Failure(row, table.id_at(row), reasons[row]) for row in sorted(reasons))
    return Run(
        table=table,
        keys=keys,
        outcomes=tuple(outcomes),
        failures=failures,
        seconds=time.monotonic() - started,
        starting_seconds=None if work.first_published is None else work.first_published - started,
        extracting_seconds=work.seconds,
        computed=work.computed,
        stages=work.stages,
        threads=threads,
        runtimes=work.runtimes,
    )


def _judge(done: Run, work: Work, settings: Settings) -> None:
    n_lacking = len(done.table) - len(done.good)
    if n_lacking > len(done.failures) and not (done.failures and settings.on_error == "raise"):
        raise ExtractionError(
            f"{n_lacking - len(done.failures)} of {len(done.table)} samples have neither a vector nor a reason for "
            "having none: the cache or the weights changed during the run. Run again."
        )
    if not done.failures:
        return
    first = done.failures[0]
    if settings.on_error == "raise":
        kind = type(work.problems[first.row]) if first.row in work.problems else DecodeError
        raise kind(
            f"sample '{first.id}': {first.reason}. Remove or repair it, or record failures with "
            "on_error='record' (--on-error record)."
        )
    share = len(done.failures) / len(done.table)
    judged = len(done.table) >= _JUDGED_FROM or not len(done.good) or settings.max_error_rate == 0
    if judged and share > settings.max_error_rate:
        raise ExtractionError(
            f"{len(done.failures)} of {len(done.table)} samples failed ({share:.1%}), more than "
            f"--max-error-rate {settings.max_error_rate:g}; the first is '{first.id}': {first.reason}. "
            "What was computed is cached; repair the data or raise the rate.",
            run=done,
        )
