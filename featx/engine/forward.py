"""Forward passes on threads of their own, so that one that hangs is noticed; the runtimes are in `runtime.py`."""

import logging
import queue
import threading
import time
from collections.abc import Callable

import numpy as np

from featx.engine.runtime import Runtime
from featx.engine.stages import POLL_SECONDS, StageClock
from featx.errors import ExtractionError

__all__ = ["ForwardThreads"]

_PATIENCE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class ForwardThreads:
    """Runs batches in the order they are begun, on as many threads as the runtimes have lanes.

    Each thread that calls torch gets worker threads of its own, so one lane is always the same thread.

    Parameters
    ----------
    lanes : int
        Of the runtime that has most.
    stall_seconds : float
        How long one batch may take.
    clock : StageClock
        Where busy time is counted.
    """

    def __init__(self, lanes: int, *, stall_seconds: float, clock: StageClock) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._begun: list[_Batch | None] = [None] * lanes
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in range(lanes)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, runtime: Runtime, inputs: np.ndarray, *, batch_name: str) -> Callable[[], np.ndarray]:
        """Put one batch in the queue; what is returned waits for its features.

        Parameters
        ----------
        runtime : Runtime
        inputs : ndarray of shape (n, 3, crop, crop), uint8
        batch_name : str
            What the batch is, for the message of one that stalls.

        Returns
        -------
        callable
            Gives the features, an ndarray of shape (n, n_features), or raises an ExtractionError if a batch takes
            longer than `stall_seconds`, or whatever the runtime raises.
        """
        batch = _Batch(runtime, inputs, batch_name)
        self._batches.put(batch)
        return lambda: self._wait(batch)

    def close(self) -> None:
        """End the threads after the batches that they are at, unless these hang; what is in the queue is dropped."""
        while True:
            try:
                self._batches.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._batches.put(None)
        # A thread in the middle of a library's code may take the process with it when that exits.
        patient_until = time.monotonic() + _PATIENCE_SECONDS
        told = False
        while any(thread.is_alive() for thread in self._threads) and self._stalled() is None:
            if not told and time.monotonic() > patient_until:
                told = True
                _log.warning("waiting for the batch under way; interrupt again to drop it")
            for thread in self._threads:
                thread.join(POLL_SECONDS / len(self._threads))

    def _wait(self, batch: "_Batch") -> np.ndarray:
        while not batch.done.wait(POLL_SECONDS):
            stalled = self._stalled()
            if stalled is not None:
                raise ExtractionError(
                    f"the forward pass of {stalled.name} has taken more than {self._stall_seconds:g} s. Use a "
                    "smaller --batch-size, or raise --stall-seconds; what was computed is kept."
                )
        if isinstance(batch.result, BaseException):
            raise batch.result
        return batch.result

    def _stalled(self) -> "_Batch | None":
        now = time.monotonic()
        under_way = [batch for batch in self._begun if batch is not None]
        return next((batch for batch in under_way if now - batch.began > self._stall_seconds), None)

    def _run(self, lane: int) -> None:
        while (batch := self._batches.get()) is not None:
            batch.began = time.monotonic()
            self._begun[lane] = batch
            try:
                batch.result = batch.runtime(batch.inputs)
            except BaseException as error:  # raised to the caller by _wait
                batch.result = error
            self._begun[lane] = None
            self._clock.add("forward", time.monotonic() - batch.began)
            batch.done.set()


class _Batch:
    """A batch on its way through a lane."""

    def __init__(self, runtime: Runtime, inputs: np.ndarray, name: str) -> None:
        self.runtime = runtime
        self.inputs = inputs
        self.name = name
        self.began = 0.0
        self.result: np.ndarray | BaseException = np.empty(0)
        self.done = threading.Event()
