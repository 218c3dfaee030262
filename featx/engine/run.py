"""One run: compute the vectors that are missing, keep them, and say what was done."""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.cache import FAILED, MISSING, Hints, turn
from featx.engine.identify import load, package_versions
from featx.engine.outcome import Failure, Outcome, Progress, Run
from featx.engine.plan import Keys, OpenCache, Task, known_keys, missing_rows, open_tasks
from featx.engine.runtime import TorchRuntime, choose_device, choose_runtime, default_batch_size
from featx.engine.settings import Settings
from featx.engine.stages import STAGES, StageClock, Station, Writer, prepare_rows
from featx.errors import DecodeError, ExtractionError, FeatxError, SampleIOError
from featx.extractors.descriptor_source import DescriptorExtractor
from featx.extractors.spec import Request
from featx.samples import SampleTable, key_of

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["look_up", "run"]

_JUDGED_FROM = 100
"""Samples from which on the share of failures is judged; among fewer, one broken file would already be too many."""


def run(
    table: SampleTable,
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | None,
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
    opened: OpenCache | None = None,
    take_turns: bool = False,
) -> Run:
    """Compute every vector that is missing, once, in one pass over the samples.

    Parameters
    ----------
    table : SampleTable
        What to extract from.
    asked : sequence of Request or ModuleExtractor
        From `featx.engine.read_extractors`.
    cache : Path or None
        Where vectors are kept; None for memory.
    settings : Settings
    progress : callable, optional
        Called with a `Progress` now and then, from this thread.
    opened : OpenCache, optional
        `cache`, where this process has it open already.
    take_turns : bool
        Wait while another process that takes turns fills the same store, and then look again what is missing.

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
    choose_runtime(settings.runtime)
    opened = opened or OpenCache(cache)
    with opened.hints as hints:
        tasks = open_tasks(asked, opened, device=settings.device, precision=settings.precision)
        keys = known_keys(table, hints)
        todo = missing_rows(keys, tasks)
        problems: dict[int, str] = {}
        work = _Work(np.zeros(len(table), bool))
        with ExitStack() as turns:
            if len(todo) and take_turns:
                for directory in sorted({task.store.directory for task in tasks if task.store.directory}):
                    turns.enter_context(turn(directory))
                for task in tasks:
                    task.store.refresh()
                todo = missing_rows(keys, tasks)
            if len(todo):
                work = _fill(table, todo, tasks, keys, problems, hints, settings=settings, progress=progress)
    done = _summarise(table, keys, tasks, problems, work, seconds=time.monotonic() - started)
    _judge(done, settings)
    return done


def look_up(
    table: SampleTable,
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | None,
    settings: Settings,
) -> Run:
    """Find the vectors that are in the cache, and compute none; rows without one have no position and no failure.

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
    _digest(table, keys, settings.workers or os.cpu_count() or 1)
    work = _Work(np.zeros(len(table), bool))
    return _summarise(table, keys, tasks, {}, work, seconds=time.monotonic() - started)


def _digest(table: SampleTable, keys: Keys, workers: int) -> None:
    def one(row: int) -> tuple[int, bytes | None]:
        try:
            return row, key_of(table.read(row))
        except (SampleIOError, DecodeError):
            return row, None

    with ThreadPoolExecutor(workers) as pool:
        for row, key in pool.map(one, np.flatnonzero(~keys.known).tolist()):
            if key is not None:
                keys.values[row] = np.frombuffer(key, np.uint8)
                keys.known[row] = True


def _fill(
    table: SampleTable,
    todo: np.ndarray,
    tasks: Sequence[Task],
    keys: Keys,
    problems: dict[int, str],
    hints: Hints,
    *,
    settings: Settings,
    progress: Callable[[Progress], None] | None,
) -> "_Work":
    """Read rows, compute what is missing for them, publish it; note digests and problems by row."""
    unique = list({task.spec.fingerprint: task for task in tasks}.values())
    lazy = _Loader(unique, settings)
    workers = settings.workers or os.cpu_count() or 1
    clock = StageClock()
    work = _Work(np.zeros(len(table), bool), stages=clock.seconds)
    first_read = time.monotonic()
    stations = lazy.stations
    writer = Writer(stations, provenance=lazy.provenance, clock=clock)
    batches: list[list[tuple[bytes, np.ndarray]]] = [[] for _ in stations]
    stats: list[tuple[str, Any, bytes, float]] = []
    done = failed = 0
    failed_row: int | None = None

    def flush(index: int) -> None:
        batch = batches[index]
        if not batch:
            return
        inputs = np.stack([pixels for _, pixels in batch])
        runtime = stations[index].runtime
        began = time.perf_counter()
        features = inputs if runtime is None else runtime(inputs)
        clock.add("forward", time.perf_counter() - began)
        writer.write(index, [key for key, _ in batch], features)
        fingerprint = stations[index].extractor.spec.fingerprint
        work.extracted[fingerprint] = work.extracted.get(fingerprint, 0) + len(batch)
        batch.clear()

    def rows() -> Any:
        # Rows are begun in order, so once one has failed no later row can be the first that did.
        for row in todo.tolist():
            if failed_row is not None and settings.on_error == "raise":
                return
            yield row

    # Pillow warns of large pictures before it refuses them; the decode policy's own limit says it better.
    with warnings.catch_warnings():
        from PIL import Image

        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Of damage that Pillow reads past (a corrupt EXIF block) nobody could say which sample it was in.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        try:
            for prepared in prepare_rows(
                table,
                rows(),
                stations,
                workers=workers,
                ahead=2 * lazy.batch_size,
                stall_seconds=settings.stall_seconds,
                clock=clock,
            ):
                done += 1
                row = prepared.row
                if prepared.problem is not None:
                    problems[row] = prepared.problem
                if prepared.key is not None:
                    keys.values[row] = np.frombuffer(prepared.key, np.uint8)
                    keys.known[row] = True
                    if prepared.stat is not None:
                        stats.append((table.uri_at(row), prepared.stat, prepared.key, prepared.stat_at))
                        if len(stats) >= 1000:
                            hints.remember_digests(stats)
                            stats.clear()
                work.computed[row] = bool(prepared.inputs)
                for index, pixels in prepared.inputs.items():
                    batches[index].append((prepared.key, pixels))  # type: ignore[arg-type]  # inputs need a key
                    if len(batches[index]) >= lazy.batch_size:
                        flush(index)
                for index, reason in prepared.failed.items():
                    spec = stations[index].extractor.spec
                    nothing = np.empty((0, spec.n_features), spec.dtype)
                    assert prepared.key is not None
                    writer.write(index, [], nothing, [(prepared.key, reason)])
                if prepared.problem is not None or prepared.failed:
                    failed += 1
                    failed_row = row if failed_row is None else min(row, failed_row)
                if progress is not None:
                    progress(Progress(done, len(todo), failed))
            for index in range(len(stations)):
                flush(index)
        finally:
            # Also when the run is interrupted: what was computed is published, not dropped.
            hints.remember_digests(stats)
            writer.close()
    work.seconds = time.monotonic() - first_read
    return work


@dataclass
class _Work:
    """What filling did: rows with a new vector, new vectors by fingerprint, wall and busy seconds."""

    computed: np.ndarray
    extracted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))


class _Loader:
    """The extractors of a run, built, on their device."""

    def __init__(self, tasks: Sequence[Task], settings: Settings) -> None:
        self.stations: list[Station] = []
        device = "cpu"
        for task in tasks:
            extractor = load(task.asked, task.spec)
            if isinstance(extractor, DescriptorExtractor):
                self.stations.append(Station(extractor, task.store, None))
            else:
                device = choose_device(settings.device)
                self.stations.append(Station(extractor, task.store, TorchRuntime(extractor, device=device)))
        self.batch_size = settings.batch_size or default_batch_size(device)
        self.provenance = {
            "device": device,
            "runtime": "torch",
            "batch_size": self.batch_size,
            "versions": package_versions(),
        }


def _summarise(
    table: SampleTable,
    keys: Keys,
    tasks: Sequence[Task],
    problems: dict[int, str],
    work: "_Work",
    *,
    seconds: float,
) -> Run:
    reasons = dict(problems)
    outcomes = []
    for task in tasks:
        positions = np.full(len(table), MISSING, np.int64)
        positions[keys.known] = task.store.lookup(keys.values[keys.known])
        for row in np.flatnonzero(positions == FAILED).tolist():
            reasons.setdefault(row, task.store.reason(keys.values[row].tobytes()))
        n_good = int((positions >= 0).sum())
        n_extracted = work.extracted.get(task.spec.fingerprint, 0)
        outcomes.append(Outcome(task, positions, n_good - n_extracted, n_extracted, len(table) - n_good))
    failures = tuple(Failure(row, table.id_at(row), reasons[row]) for row in sorted(reasons))
    return Run(
        table=table,
        keys=keys,
        outcomes=tuple(outcomes),
        failures=failures,
        seconds=seconds,
        extracting_seconds=work.seconds,
        computed=work.computed,
        stages=work.stages,
    )


def _judge(done: Run, settings: Settings) -> None:
    if not done.failures:
        return
    first = done.failures[0]
    if settings.on_error == "raise":
        readable = done.keys.known[first.row]
        kind: type[FeatxError] = DecodeError if readable else SampleIOError
        raise kind(
            f"sample '{first.id}': {first.reason}. Remove or repair it, or record failures with "
            "on_error='record' (--on-error record)."
        )
    share = len(done.failures) / len(done.table)
    if len(done.table) >= _JUDGED_FROM and share > settings.max_error_rate:
        raise ExtractionError(
            f"{len(done.failures)} of {len(done.table)} samples failed ({share:.1%}), more than "
            f"--max-error-rate {settings.max_error_rate:g}; the first is '{first.id}': {first.reason}. "
            "All others are cached; repair the data or raise the rate."
        )
