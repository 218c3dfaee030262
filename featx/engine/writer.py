"""Collecting vectors and publishing them as shards, on a thread of its own; computing them is not its matter."""

import collections
import contextlib
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featx.cache import rows_per_shard
from featx.engine.plan import KEY_BYTES
from featx.engine.stages import POLL_SECONDS, StageClock
from featx.engine.station import Station
from featx.errors import ExtractionError, FeatxError
from featx.extractors.spec import ExtractorSpec

__all__ = ["Writer"]

PUBLISH_SECONDS = 30.0
"""How long vectors wait for others; the first of a run do not, so that a cache that takes none is known at once."""


class Writer:
    """Collects vectors of all stations and publishes them as shards, on a thread of its own.

    Parameters
    ----------
    stations : sequence of Station
        Where the vectors go.
    provenance : mapping
        Recorded with every shard, beside how the extractor was asked for.
    stall_seconds : float
        How long publishing one shard may take.
    clock : StageClock
        Where busy time is counted.

    Attributes
    ----------
    first_published : float or None
        When the first shard was published, by `time.monotonic`.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        *,
        provenance: Mapping[str, Any],
        stall_seconds: float,
        clock: StageClock,
    ) -> None:
        self.first_published: float | None = None
        self._stations = stations
        self._provenance = provenance
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._inbox: queue.Queue[Any] = queue.Queue(maxsize=16)
        self._buffers = [_Buffer(station.extractor.spec) for station in stations]
        self._error: BaseException | None = None
        self._publishing_since: float | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def write(self, station: int, keys: Sequence[bytes], features: np.ndarray) -> None:
        """Hand over vectors of one station; raises what went wrong with earlier ones."""
        self._put((station, keys, features, ()))

    def write_failure(self, station: int, key: bytes, reason: str) -> None:
        """Hand over why a key has no vector at one station; raises what went wrong with earlier vectors."""
        self._put((station, (), None, ((key, reason),)))

    def close(self) -> None:
        """Publish what is left and stop; raises what went wrong."""
        try:
            self._finish()
        except (KeyboardInterrupt, SystemExit):
            # What is on its way to the disk is finished first; whoever goes on asking does not wait.
            self._finish()
            raise

    def _finish(self) -> None:
        self._put(None)
        # Not join(): interrupted once, Python 3.11 takes the thread for finished.
        while not self._ended.wait(POLL_SECONDS):
            self._check_stall()
        if self._error is not None:
            raise self._error

    def _put(self, item: Any) -> None:
        while self._error is None:
            try:
                self._inbox.put(item, timeout=POLL_SECONDS)
                return
            except queue.Full:
                self._check_stall()
        raise self._error

    def _check_stall(self) -> None:
        since = self._publishing_since
        if since is not None and time.monotonic() - since > self._stall_seconds:
            raise ExtractionError(
                f"writing to the cache has taken more than {self._stall_seconds:g} s for one shard. Check the disk "
                "or network it is on, or raise --stall-seconds; what was published is kept."
            )

    def _run(self) -> None:
        try:
            while True:
                try:
                    item = self._inbox.get(timeout=1.0)
                except queue.Empty:
                    self._publish(due=True)
                    continue
                if item is None:
                    self._publish(due=False)
                    return
                station, keys, features, failures = item
                self._buffers[station].add(keys, features, failures)
                self._publish(due=True)
        except BaseException as error:  # raised to the caller by write and close
            # One extractor's trouble is no reason to drop another's vectors; the first error is the one to tell.
            with contextlib.suppress(BaseException):
                self._publish(due=False)
            self._error = error
        finally:
            self._ended.set()

    def _publish(self, *, due: bool) -> None:
        first_error: FeatxError | None = None
        for station, buffer in zip(self._stations, self._buffers, strict=True):
            try:
                self._publish_station(station, buffer, due=due)
            except FeatxError as error:
                first_error = first_error or error
        if first_error is not None:
            raise first_error

    def _publish_station(self, station: Station, buffer: "_Buffer", *, due: bool) -> None:
        spec = station.extractor.spec
        limit = rows_per_shard(spec.n_features, np.dtype(spec.dtype).itemsize)
        while buffer.rows and (
            not due
            or buffer.holds_first_vectors
            or buffer.rows >= limit
            or time.monotonic() - buffer.since > PUBLISH_SECONDS
        ):
            started = self._publishing_since = time.monotonic()
            keys, features, failures = buffer.take(limit)
            try:
                runtime = None if station.runtime is None else station.runtime.name
                provenance = {"spec": spec.text, "runtime": runtime, **self._provenance}
                station.store.publish(keys, features, failures=failures, provenance=provenance)
            finally:
                self._publishing_since = None
                self._clock.add("write", time.monotonic() - started)
            self.first_published = self.first_published or time.monotonic()
            station.release(map(bytes, keys))
            station.release(key for key, _ in failures)


class _Buffer:
    """Vectors and failures of one station that are not published yet."""

    def __init__(self, spec: ExtractorSpec) -> None:
        self.rows = 0
        self.since = 0.0
        self._taken = False
        self._nothing = np.empty((0, spec.n_features), spec.dtype)
        self._blocks: collections.deque[tuple[Sequence[bytes], np.ndarray]] = collections.deque()
        self._failures: list[tuple[bytes, str]] = []

    @property
    def holds_first_vectors(self) -> bool:
        """Whether vectors are here, and none went before."""
        return bool(self._blocks) and not self._taken

    def add(
        self, keys: Sequence[bytes], features: np.ndarray | None, failures: Sequence[tuple[bytes, str]]
    ) -> None:
        if not self.rows:
            self.since = time.monotonic()
        if features is not None:
            self._blocks.append((keys, features))
        self._failures.extend(failures)
        self.rows += len(keys) + len(failures)

    def take(self, limit: int) -> tuple[np.ndarray, np.ndarray, list[tuple[bytes, str]]]:
        """Take out at most `limit` vectors, and all failures."""
        keys: list[bytes] = []
        features = [self._nothing]
        while self._blocks and len(keys) < limit:
            block_keys, block = self._blocks.popleft()
            room = limit - len(keys)
            if len(block_keys) > room:
                self._blocks.appendleft((block_keys[room:], block[room:]))
                block_keys, block = block_keys[:room], block[:room]
            keys.extend(block_keys)
            features.append(block)
            self._taken = True
        failures, self._failures = self._failures, []
        self.rows -= len(keys) + len(failures)
        self.since = time.monotonic()
        return (
            np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES),
            np.concatenate(features),
            failures,
        )
