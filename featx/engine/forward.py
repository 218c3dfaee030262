"""Forward passes on threads of their own, so that one that hangs is noticed; the runtimes are in `runtime.py`."""

import logging
import queue
import threading
import time
from collections.abc import Iterable

import numpy as np

from featx.engine.runtime import Runtime
from featx.engine.stages import POLL_SECONDS, StageClock
from featx.errors import ExtractionError

__all__ = ["Batch", "ForwardThreads"]

_PATIENCE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Batch:
    """A batch on its way through a lane.

    Attributes
    ----------
    name : str
        What it is, for the message of one that stalls.
    features : ndarray of shape (n, n_features) or None
        None until they are computed.
    """

    def __init__(self, runtime: Runtime, inputs: np.ndarray, name: str) -> None:
        self.name = name
        self.features: np.ndarray | None = None
        self._work: tuple[Runtime, np.ndarray] | None = (runtime, inputs)
        self._error: BaseException | None = None
        self._began: float | None = None
        self._done = threading.Event()

    def seconds(self) -> float:
        """Return for how long it has been under way in its lane."""
        return 0.0 if self._began is None or self._done.is_set() else time.monotonic() - self._began

    def run(self) -> None:
        """Compute the features, on the calling thread; what the runtime raises is kept for `wait`."""
        assert self._work is not None
        runtime, inputs = self._work
        self._began = time.monotonic()
        try:
            self.features = runtime(inputs)
        except BaseException as error:  # raised to the caller by wait
            self._error = error
        self._end()

    def drop(self) -> None:
        """End it without features; whoever waits for it is told."""
        self._error = ExtractionError(f"{self.name} was dropped, as the run has ended. Run it again.")
        self._end()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; return whether it has come, or raise what the runtime raised."""
        if not self._done.wait(seconds):
            return False
        if self._error is not None:
            raise self._error
        return True

    def _end(self) -> None:
        self._work = None  # the inputs are many, and no longer needed
        self._done.set()


class ForwardThreads:
    """Runs batches in the order they are begun, each kind of runtime on as many threads as it has lanes.

    Each thread that calls torch gets worker threads of its own, so one lane is always the same thread.

    Parameters
    ----------
    runtimes : iterable of Runtime
        Those that batches will be begun with.
    stall_seconds : float
        How long one batch may take.
    clock : StageClock
        Where busy time is counted.

    Attributes
    ----------
    n_threads : int
    """

    def __init__(self, runtimes: Iterable[Runtime], *, stall_seconds: float, clock: StageClock) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        lanes = {runtime.name: runtime.lanes for runtime in runtimes}
        self._queues: dict[str, queue.SimpleQueue[Batch | None]] = {
            name: queue.SimpleQueue() for name in lanes
        }
        self._lanes = [
            _Lane(self._queues[name], clock) for name, number in lanes.items() for _ in range(number)
        ]
        self.n_threads = len(self._lanes)

    def begin(self, runtime: Runtime, inputs: np.ndarray, *, batch_name: str) -> Batch:
        """Put one batch of uint8 inputs, of shape (n, 3, crop, crop), in the queue of its runtime."""
        batch = Batch(runtime, inputs, batch_name)
        self._queues[runtime.name].put(batch)
        return batch

    def wait(self, batch: Batch) -> np.ndarray:
        """Return the features of a batch, of shape (n, n_features), once they are computed.

        Raises
        ------
        ExtractionError
            If a batch takes longer than `stall_seconds`; or whatever the runtime raises.
        """
        while not batch.wait(POLL_SECONDS):
            stalled = [
                lane.batch.name for lane in self._lanes if lane.batch is not None and self._stalls(lane)
            ]
            if stalled:
                raise ExtractionError(
                    f"the forward pass of {stalled[0]} has taken more than {self._stall_seconds:g} s. Use a "
                    "smaller --batch-size, or raise --stall-seconds; what was computed is kept."
                )
        assert batch.features is not None
        return batch.features

    def close(self) -> None:
        """End the threads after the batches that they are at, but for those that hang; the rest is dropped."""
        for batches in self._queues.values():
            try:
                while (batch := batches.get_nowait()) is not None:
                    batch.drop()
            except queue.Empty:
                pass
        for lane in self._lanes:
            lane.batches.put(None)
        # A thread in the middle of a library's code may take the process with it when that exits.
        impatient_at: float | None = time.monotonic() + _PATIENCE_SECONDS
        while waiting := [lane for lane in self._lanes if lane.thread.is_alive() and not self._stalls(lane)]:
            if impatient_at is not None and time.monotonic() > impatient_at:
                impatient_at = None
                _log.warning("waiting for the batch under way; interrupt again to drop it")
            waiting[0].ended.wait(POLL_SECONDS)

    def _stalls(self, lane: "_Lane") -> bool:
        batch = lane.batch
        return batch is not None and batch.seconds() > self._stall_seconds


class _Lane:
    """One thread that runs the batches of a queue, and the batch that it is at."""

    def __init__(self, batches: "queue.SimpleQueue[Batch | None]", clock: StageClock) -> None:
        self.batches = batches
        self.batch: Batch | None = None
        self.ended = threading.Event()
        self._clock = clock
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while (batch := self.batches.get()) is not None:
            self.batch = batch
            began = time.monotonic()
            batch.run()
            self._clock.add("forward", time.monotonic() - began)
            self.batch = None
            del batch  # with what it computed
        self.ended.set()
