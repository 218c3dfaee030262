"""The bounded stages before the forward pass: read, digest and decode on threads; writing is in `writer.py`."""

import os
import queue
import threading
import time
from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featx.engine.station import Station
from featx.errors import DecodeError, ExtractionError, SampleIOError
from featx.samples import SampleTable, decode, decode_fast, decode_nvjpeg, key_of

__all__ = ["POLL_SECONDS", "STAGES", "Prepared", "StageClock", "prepare_rows"]

STAGES = ("read", "digest", "decode", "forward", "write")
POLL_SECONDS = 0.2
"""How often a thread that waits looks up, to see whether it still should."""

_JOIN_SECONDS = 2.0


@dataclass
class StageClock:
    """Seconds that each stage was busy, summed over its threads."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` of work at `stage`."""
        with self._lock:
            self.seconds[stage] += seconds


@dataclass(frozen=True)
class Prepared:
    """What came of one row: inputs for the stations that lack its key, or the reason why there are none.

    Attributes
    ----------
    row : int
    key : bytes or None
        None where the sample could not be read.
    inputs : dict of int to ndarray
        By station; empty where every station has the key, or another row with the same bytes is under way.
    failed : dict of int to str
        By station: why the content has no vector there.
    problem : SampleIOError, DecodeError or None
        Why the sample could not be read, or was no picture to begin with.
    stat : os.stat_result or None
        Of the very file that was read, taken before.
    stat_at : float
        When that was, in seconds since the epoch.
    """

    row: int
    key: bytes | None
    inputs: dict[int, np.ndarray] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    problem: SampleIOError | DecodeError | None = None
    stat: os.stat_result | None = None
    stat_at: float = 0.0


def prepare_rows(
    table: SampleTable,
    rows: Iterable[int],
    stations: Sequence[Station],
    *,
    workers: int,
    ahead: int,
    stall_seconds: float,
    clock: StageClock,
) -> Generator[Prepared, None, None]:
    """Read, digest and decode rows on threads, at most `ahead` of them before the caller.

    Parameters
    ----------
    table : SampleTable
        Where the rows are.
    rows : iterable of int
        In the order they are begun.
    stations : sequence of Station
        What to prepare inputs for; with none, rows are only read and digested.
    workers : int
        Number of threads.
    ahead : int
        How many rows may wait for the caller.
    stall_seconds : float
        How long one sample may take.
    clock : StageClock
        Where busy time is counted.

    Yields
    ------
    Prepared
        One for each row, in the order in which they are done. Close the iterator to end the threads early.

    Raises
    ------
    ExtractionError
        If a sample takes longer than `stall_seconds`.
    """
    ready: queue.Queue[Prepared | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()
    begun: list[tuple[int, float] | None] = [None] * workers
    left, taking = iter(rows), threading.Lock()

    def put(item: Prepared | BaseException | None) -> None:
        while not stop.is_set():
            with suppress(queue.Full):
                ready.put(item, timeout=POLL_SECONDS)
                return

    def work(worker: int) -> None:
        try:
            while not stop.is_set():
                with taking:
                    row = next(left, None)
                if row is None:
                    break
                begun[worker] = (row, time.monotonic())
                done = _prepare(table, row, stations, clock)
                begun[worker] = None
                put(done)
            put(None)
        except BaseException as error:  # handed to the caller's thread, which raises it
            begun[worker] = None
            put(error)

    # Plain daemon threads: an executor would wait at exit for a thread that hangs in a dead file system.
    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in range(workers)]
    try:
        for thread in threads:
            thread.start()
        working = workers
        while working:
            _check_stall(table, begun, stall_seconds)
            try:
                done = ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if done is None:
                working -= 1
            elif isinstance(done, BaseException):
                raise done
            else:
                yield done
    finally:
        stop.set()
        with suppress(queue.Empty):  # who waits for room goes on at once, and sees the end of the run
            while True:
                ready.get_nowait()
        # A thread in the middle of a library's code may take the process with it when that exits. One that hangs
        # is not waited for long.
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in filter(threading.Thread.is_alive, threads):
            thread.join(max(0.0, deadline - time.monotonic()))


def _prepare(table: SampleTable, row: int, stations: Sequence[Station], clock: StageClock) -> Prepared:
    started = time.perf_counter()
    stat_at = time.time()
    try:
        raw, stat = table.read_with_stat(row)
    except (SampleIOError, DecodeError) as error:
        clock.add("read", time.perf_counter() - started)
        return Prepared(row, None, problem=error)
    was_read = time.perf_counter()
    clock.add("read", was_read - started)
    key = key_of(raw)
    lacking = [index for index, station in enumerate(stations) if station.claim(key)]
    digested = time.perf_counter()
    clock.add("digest", digested - was_read)
    inputs: dict[int, np.ndarray] = {}
    failed: dict[int, str] = {}
    decoded: dict[str, Any] = {}
    resized: dict[Hashable, np.ndarray] = {}
    for index in lacking:
        station = stations[index]
        pixels = station.extractor.spec.pixels
        try:
            if pixels not in decoded:
                decoded[pixels] = _decoded(raw, pixels, station.device)
            if isinstance(decoded[pixels], DecodeError):
                raise decoded[pixels]
            if station.geometry is None:
                inputs[index] = station.extractor.prepare(decoded[pixels])
                continue
            way = (pixels, station.geometry)
            if way not in resized:
                resized[way] = station.extractor.prepare(decoded[pixels])
            inputs[index] = resized[way]
        except DecodeError as error:
            failed[index] = str(error)
    clock.add("decode", time.perf_counter() - digested)
    return Prepared(row, key, inputs, failed, stat=stat, stat_at=stat_at)


def _decoded(raw: Any, pixels: str, device: str) -> Any:
    try:
        if pixels == "nvjpeg":
            return decode_nvjpeg(raw, device)
        return decode(raw) if pixels == "exact" else decode_fast(raw)
    except DecodeError as error:
        return error


def _check_stall(table: SampleTable, begun: Sequence[tuple[int, float] | None], stall_seconds: float) -> None:
    now = time.monotonic()
    for under_way in begun:
        if under_way is None:
            continue
        row, since = under_way
        if now - since > stall_seconds:
            raise ExtractionError(
                f"reading '{table.uri_at(row)}' has taken more than {stall_seconds:g} s. Check the disk or network "
                "it is on, or raise --stall-seconds; what was computed is kept."
            )
