"""Filling stores with what is missing, in one pass over the rows that lack something; `run.py` says what came of it."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from featx.cache import FAILED, MISSING, Hints
from featx.engine.forward import Batch, ForwardThreads
from featx.engine.plan import Keys, Task, missing_rows
from featx.engine.progress import Progress
from featx.engine.settings import Settings
from featx.engine.stages import STAGES, Prepared, StageClock, prepare_rows
from featx.engine.station import Station, build_stations
from featx.engine.writer import Writer
from featx.errors import DecodeError, ExtractionError, FeatxError, SampleIOError
from featx.extractors.spec import ExtractorSpec
from featx.samples import SampleTable, pillow_warnings_ignored

__all__ = ["Work", "digest", "fill"]

_DIGESTED_AHEAD = 64
_NOTED_AT_ONCE = 1000


@dataclass
class Work:
    """What filling did.

    Attributes
    ----------
    computed : ndarray of shape (n_samples,), bool
        Rows that a vector was computed for.
    problems : dict of int to SampleIOError or DecodeError
        Rows that could not be read, and why.
    extracted : dict of str to int
        New vectors by fingerprint.
    seconds : float
        From the first read to the last publish, but for the building of the extractors; 0 where nothing was missing.
    first_published : float or None
        When the first shard was published, by `time.monotonic`.
    stages : dict of str to float
        Busy seconds by stage, summed over threads.
    workers, lanes : int
        Threads that read and decode, and those of the forward pass, in all processes.
    n_processes : int
        How many worked at it.
    runtimes : tuple of str
        What ran backbones; empty where none was run.
    """

    computed: np.ndarray
    problems: dict[int, SampleIOError | DecodeError] = field(default_factory=dict)
    extracted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    first_published: float | None = None
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    workers: int = 1
    lanes: int = 1
    n_processes: int = 1
    runtimes: tuple[str, ...] = ()


def fill(
    table: SampleTable,
    tasks: Sequence[Task],
    keys: Keys,
    hints: Hints,
    *,
    settings: Settings,
    progress: Callable[[Progress], None] | None,
    n_planned: int | None = None,
) -> Work:
    """Read the rows that lack a key or a vector, compute what is missing for them, publish it.

    Parameters
    ----------
    table : SampleTable
    tasks : sequence of Task
    keys : Keys
        Completed on the way.
    hints : Hints
        Where the digests of files are noted.
    settings : Settings
    progress : callable or None
        Called with a `Progress` after each row whose vectors were all handed to the writer, or that has none.
    n_planned : int, optional
        The number of samples that the runtime is chosen for; else that of the rows that lack something.

    Returns
    -------
    Work
    """
    filling = _Filling(table, tasks, keys, hints, settings, progress, n_planned)
    started = time.monotonic()
    if not keys.known[filling.todo].any():
        # Perhaps every vector is there, under names that were never seen: then no extractor has to be built.
        filling.digest_until_missing()
    if len(filling.todo):
        filling.compute()
        filling.work.seconds = time.monotonic() - started - filling.building_seconds
    return filling.work


def digest(table: SampleTable, keys: Keys, hints: Hints, *, settings: Settings) -> Work:
    """Read and digest the rows whose key is not known; return why some could not be read, and no vector."""
    work = Work(np.zeros(len(table), bool))
    rows = np.flatnonzero(~keys.known).tolist()
    for _ in _noted(
        table,
        rows,
        (),
        keys,
        work.problems,
        hints,
        settings=settings,
        ahead=_DIGESTED_AHEAD,
        clock=StageClock(),
    ):
        pass
    return work


@dataclass(frozen=True)
class _UnderWay:
    """Whose vectors a batch will give: the station's number and spec, rows and their keys."""

    station: int
    spec: ExtractorSpec
    rows: list[int]
    keys: list[bytes]


class _Filling:
    """One run's filling under way: which rows are left, and how it went so far."""

    def __init__(
        self,
        table: SampleTable,
        tasks: Sequence[Task],
        keys: Keys,
        hints: Hints,
        settings: Settings,
        progress: Callable[[Progress], None] | None,
        n_planned: int | None,
    ) -> None:
        self._table = table
        self._tasks = list({task.spec.fingerprint: task for task in tasks}.values())
        self._keys = keys
        self._hints = hints
        self._settings = settings
        self._progress = progress
        self._n_planned = n_planned
        self._clock = StageClock()
        self._under_way: deque[tuple[_UnderWay, Batch]] = deque()
        self.work = Work(np.zeros(len(table), bool), stages=self._clock.seconds, workers=settings.n_workers)
        self.todo = missing_rows(keys, tasks)
        self._total = len(self.todo)
        self._done = self._failed = 0
        self._awaited: dict[int, tuple[int, bool]] = {}
        self.building_seconds = 0.0
        # With on_error="raise" the first failure is all that will be said, so no row behind it is begun.
        self._last_row = len(table)
        for task in self._tasks if settings.on_error == "raise" else ():
            failed = np.flatnonzero(keys.positions(task.store) == FAILED)
            self._last_row = min([self._last_row, *failed[:1].tolist()])

    def digest_until_missing(self) -> None:
        """Digest rows until one lacks a vector; what is then left to do needs the extractors."""
        with closing(self._prepared((), ahead=_DIGESTED_AHEAD)) as rows:
            for prepared in rows:
                found = self._found(prepared)
                if MISSING in found:
                    break
                self._settle(prepared.row, failed=prepared.problem is not None or FAILED in found)
        todo = missing_rows(self._keys, self._tasks)
        self.todo = todo[~np.isin(todo, list(self.work.problems)) & (todo <= self._last_row)]

    def compute(self) -> None:
        """Build the extractors and run them over the rows that are left."""
        began = time.monotonic()
        stations, batch_size, provenance = build_stations(
            self._tasks, self._settings, n_samples=self._n_planned or len(self.todo)
        )
        self.building_seconds = time.monotonic() - began
        batches: list[list[tuple[int, bytes, np.ndarray]]] = [[] for _ in stations]
        sizes = [
            batch_size if len(self.todo) <= batch_size else station.first_batch(batch_size)
            for station in stations
        ]
        self._writer = Writer(
            stations,
            provenance=provenance,
            stall_seconds=self._settings.stall_seconds,
            clock=self._clock,
        )
        runtimes = [station.runtime for station in stations if station.runtime is not None]
        self.work.runtimes = tuple(dict.fromkeys(runtime.name for runtime in runtimes))
        self._forward = ForwardThreads(
            runtimes,
            stall_seconds=self._settings.stall_seconds,
            clock=self._clock,
        )
        self.work.lanes = max(1, self._forward.n_threads)
        try:
            try:
                with closing(self._prepared(stations, ahead=2 * batch_size)) as rows:
                    for prepared in rows:
                        # Written as soon as they are computed, also where reading and decoding are what takes long.
                        while self._under_way and self._under_way[0][1].ended:
                            self._finish_first()
                        failed = prepared.problem is not None or bool(prepared.failed)
                        if prepared.inputs:
                            self.work.computed[prepared.row] = True
                            self._expect(prepared.row, len(prepared.inputs), failed=failed)
                        if prepared.key is not None:
                            for index, inputs in prepared.inputs.items():
                                batches[index].append((prepared.row, prepared.key, inputs))
                                if len(batches[index]) >= sizes[index]:
                                    self._begin_batch(index, stations[index], batches[index])
                                    batches[index], sizes[index] = [], batch_size
                            for index, reason in prepared.failed.items():
                                self._writer.write_failure(index, prepared.key, reason)
                        if not prepared.inputs:
                            self._settle(prepared.row, failed=failed or FAILED in self._found(prepared))
                for index, station in enumerate(stations):
                    if batches[index]:
                        self._begin_batch(index, station, batches[index])
                while self._under_way:
                    self._finish_first()
            finally:
                self._forward.close()
                self._keep_computed()
        finally:
            # Also when the run is interrupted or fails: what was computed is published, not dropped.
            self._writer.close()
            self.work.first_published = self._writer.first_published

    def _begin_batch(self, index: int, station: Station, batch: list[tuple[int, bytes, np.ndarray]]) -> None:
        inputs = np.stack([inputs for _, _, inputs in batch])
        rows, keys = [row for row, _, _ in batch], [key for _, key, _ in batch]
        spec = station.extractor.spec
        if station.runtime is None:
            if (refused := self._write(_UnderWay(index, spec, rows, keys), inputs)) is not None:
                raise refused
            self._count_off(rows)
            return

        def part_name(start: int, stop: int) -> str:
            return f"{spec.text} on {stop - start} samples, '{self._table.id_at(rows[start])}' the first of them,"

        begun = self._forward.begin(station.runtime, inputs, part_name=part_name)
        self._under_way.append((_UnderWay(index, spec, rows, keys), begun))
        # What waits before this one keeps every lane at work until the next one comes.
        while (
            sum(batch.n_left for _, batch in islice(self._under_way, len(self._under_way) - 1))
            >= self.work.lanes
        ):
            self._finish_first()

    def _finish_first(self) -> None:
        under_way, batch = self._under_way[0]
        refused = self._write(under_way, self._forward.wait(batch))
        self._under_way.popleft()  # not before: an interrupt within writing would lose it
        if refused is not None:
            raise refused
        self._count_off(under_way.rows)

    def _keep_computed(self) -> None:
        """Write the batches that were computed when the run was interrupted, or another one failed."""
        for under_way, batch in self._under_way:
            for part, features in batch.computed():
                rows, keys = under_way.rows[part], under_way.keys[part]
                with suppress(FeatxError):  # why the run ends is being raised already
                    self._write(replace(under_way, rows=rows, keys=keys), features)

    def _write(self, under_way: "_UnderWay", features: np.ndarray) -> ExtractionError | None:
        """Hand over the vectors that are finite; return what is to be said of others."""
        spec, rows = under_way.spec, under_way.rows
        finite = np.isfinite(features).all(axis=1)
        keys = [key for key, sound in zip(under_way.keys, finite, strict=True) if sound]
        self._writer.write(under_way.station, keys, features[finite])
        self.work.extracted[spec.fingerprint] = self.work.extracted.get(spec.fingerprint, 0) + len(keys)
        if finite.all():
            return None
        row = rows[int(np.argmin(finite))]
        way_out = "Check its weights" if spec.precision == "float32" else "Use --precision float32"
        return ExtractionError(
            f"{spec.text}: {len(rows) - len(keys)} of {len(rows)} vectors of a batch hold values that are not "
            f"finite in {spec.precision}, that of '{self._table.id_at(row)}' among them. {way_out}."
        )

    def _prepared(self, stations: Sequence[Station], *, ahead: int) -> Generator[Prepared, None, None]:
        return _noted(
            self._table,
            self._rows(),
            stations,
            self._keys,
            self.work.problems,
            self._hints,
            settings=self._settings,
            ahead=ahead,
            clock=self._clock,
        )

    def _rows(self) -> Iterator[int]:
        for row in map(int, self.todo):  # no list of all of them: there may be millions
            if row > self._last_row:
                return
            yield row

    def _found(self, prepared: Prepared) -> list[int]:
        """Look a row's key up in every store; nothing for a row that has none."""
        if prepared.key is None:
            return []
        one = np.frombuffer(prepared.key, np.uint8)[None]
        return [int(task.store.lookup(one)[0]) for task in self._tasks]

    def _expect(self, row: int, n_vectors: int, *, failed: bool) -> None:
        """Await so many vectors of a row, which is done with the last of them."""
        self._awaited[row] = (n_vectors, failed)
        if failed:
            self._begin_none_behind(row)

    def _count_off(self, rows: Sequence[int]) -> None:
        for row in rows:
            n_vectors, failed = self._awaited.pop(row)
            if n_vectors > 1:
                self._awaited[row] = (n_vectors - 1, failed)
            else:
                self._settle(row, failed=failed)

    def _settle(self, row: int, *, failed: bool) -> None:
        self._done += 1
        if failed:
            self._failed += 1
            self._begin_none_behind(row)
        if self._progress is not None:
            self._progress(Progress(self._done, self._total, self._failed))

    def _begin_none_behind(self, row: int) -> None:
        if self._settings.on_error == "raise":
            self._last_row = min(self._last_row, row)


def _noted(
    table: SampleTable,
    rows: Iterable[int],
    stations: Sequence[Station],
    keys: Keys,
    problems: dict[int, SampleIOError | DecodeError],
    hints: Hints,
    *,
    settings: Settings,
    ahead: int,
    clock: StageClock,
) -> Generator[Prepared, None, None]:
    """Prepare rows, and note their keys and problems as they come."""
    stats: list[tuple[str, os.stat_result, bytes, float]] = []
    prepared_rows = prepare_rows(
        table,
        rows,
        stations,
        workers=settings.n_workers,
        ahead=ahead,
        stall_seconds=settings.stall_seconds,
        clock=clock,
    )
    with pillow_warnings_ignored(), closing(prepared_rows):
        try:
            for prepared in prepared_rows:
                row, key = prepared.row, prepared.key
                keys.known[row] = key is not None  # what was known of a file that is gone does not count
                if key is not None:
                    keys.values[row] = np.frombuffer(key, np.uint8)
                    if prepared.stat is not None:
                        stats.append((table.uri_at(row), prepared.stat, key, prepared.stat_at))
                if prepared.problem is not None:
                    problems[row] = prepared.problem
                if len(stats) >= _NOTED_AT_ONCE:
                    hints.remember_digests(stats)
                    stats.clear()
                yield prepared
        finally:
            hints.remember_digests(stats)
