"""Forward passes on a thread of their own, so that one that hangs is noticed; the runtimes are in `runtime.py`."""

import logging
import queue
import threading
import time

import numpy as np

from featx.engine.runtime import Runtime
from featx.engine.stages import POLL_SECONDS
from featx.errors import ExtractionError

__all__ = ["ForwardThread"]

_PATIENCE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class ForwardThread:
    """Runs batches one after another on one thread (each thread that calls torch gets worker threads of its own).

    Parameters
    ----------
    stall_seconds : float
        How long one batch may take.
    """

    def __init__(self, *, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._batches: queue.SimpleQueue[tuple[Runtime, np.ndarray] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[np.ndarray | BaseException] = queue.SimpleQueue()
        self._began = time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self, runtime: Runtime, inputs: np.ndarray, *, batch_name: str) -> np.ndarray:
        """Run one batch, and wait for it.

        Parameters
        ----------
        runtime : Runtime
        inputs : ndarray of shape (n, 3, crop, crop), uint8
        batch_name : str
            What the batch is, for the message of one that stalls.

        Returns
        -------
        ndarray of shape (n, n_features)

        Raises
        ------
        ExtractionError
            If the batch takes longer than `stall_seconds`, or whatever the runtime raises.
        """
        self._began = time.monotonic()
        self._batches.put((runtime, inputs))
        while True:
            try:
                result = self._results.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if self._stalled():
                    raise ExtractionError(
                        f"the forward pass of {batch_name} has taken more than {self._stall_seconds:g} s. Use a "
                        "smaller --batch-size, or raise --stall-seconds; what was computed is kept."
                    ) from None
                continue
            if isinstance(result, BaseException):
                raise result
            return result

    def close(self) -> None:
        """End the thread, after the batch that it is at, unless that one hangs."""
        self._batches.put(None)
        # A thread in the middle of a library's code may take the process with it when that exits.
        if not self._ended.wait(_PATIENCE_SECONDS) and not self._stalled():
            _log.warning("waiting for the batch under way; interrupt again to drop it")
        while not self._ended.wait(POLL_SECONDS) and not self._stalled():
            pass

    def _stalled(self) -> bool:
        return time.monotonic() - self._began > self._stall_seconds

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            runtime, inputs = batch
            try:
                self._results.put(runtime(inputs))
            except BaseException as error:  # raised to the caller by __call__
                self._results.put(error)
        self._ended.set()
