"""Forward passes on threads of their own, so that one that hangs is noticed; the runtimes are in `runtime.py`."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from featx.engine.runtime import Runtime
from featx.engine.stages import POLL_SECONDS, StageClock
from featx.errors import ExtractionError

__all__ = ["Batch", "ForwardThreads"]

_PATIENCE_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Batch:
    """A batch on its way through the lanes, in parts of as many images as its runtime takes at once.

    Attributes
    ----------
    n_left : int
        Parts that no lane has begun.
    """

    def __init__(self, runtime: Runtime, inputs: np.ndarray, part_name: Callable[[int, int], str]) -> None:
        size = runtime.most or len(inputs)
        self._work: tuple[Runtime, np.ndarray] | None = (runtime, inputs)
        self._slices = [slice(start, min(start + size, len(inputs))) for start in range(0, len(inputs), size)]
        self._part_name = part_name
        self._features: list[np.ndarray | None] = [None] * len(self._slices)
        self.n_left = self._unfinished = len(self._slices)
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether `wait` answers at once."""
        return self._done.is_set()

    def name(self, part: int) -> str:
        """Return what a part is, for the message of one that stalls."""
        return self._part_name(self._slices[part].start, self._slices[part].stop)

    def next_part(self) -> int:
        """Return the number of a part that no lane has begun; the caller has then to run it."""
        self.n_left -= 1
        return len(self._slices) - self.n_left - 1

    def run(self, part: int) -> None:
        """Compute a part's features, on the calling thread; what the runtime raises is kept for `wait`."""
        assert self._work is not None
        runtime, inputs = self._work
        try:
            if self._error is None:
                self._features[part] = runtime(inputs[self._slices[part]])
        except BaseException as error:  # raised to the caller by wait
            self._error = self._error or error
        self._count_off(1)

    def drop(self) -> None:
        """Leave the parts that no lane has begun; whoever waits for the batch is told."""
        self._error = self._error or ExtractionError(
            f"{self.name(0)} was dropped, as the run has ended. Run it again."
        )
        n_left, self.n_left = self.n_left, 0
        self._count_off(n_left)

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most so long; return whether it has come, or raise what the runtime raised."""
        if not self._done.wait(seconds):
            return False
        if self._error is not None:
            raise self._error
        return True

    def computed(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield the rows of each part that is done, and their features: of all parts, where nothing went wrong."""
        for rows, features in zip(self._slices, self._features, strict=True):
            if features is not None:
                yield rows, features

    def _count_off(self, parts: int) -> None:
        with self._lock:
            self._unfinished -= parts
            ended = not self._unfinished
        if ended:
            self._work = None  # the inputs are many, and no longer needed
            self._done.set()


class _Line:
    """Batches that wait for the lanes of one kind of runtime.

    All lanes work at the oldest: the network's weights are then in the cache that cores share, and what the first of
    several networks computes is not kept waiting by the others.
    """

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, batch: Batch) -> None:
        with self._changed:
            self._batches.append(batch)
            self._changed.notify_all()

    def take(self) -> tuple[Batch, int] | None:
        """Wait for a part to run, and return its batch and number; None after the end."""
        with self._changed:
            while not self._batches:
                if self._closed:
                    return None
                self._changed.wait()
            batch = self._batches[0]
            part = batch.next_part()
            if not batch.n_left:
                self._batches.popleft()
            return batch, part

    def close(self) -> None:
        """Drop what was not begun; the lanes end after the rest."""
        with self._changed:
            self._closed = True
            while self._batches:
                self._batches.popleft().drop()
            self._changed.notify_all()


class ForwardThreads:
    """Runs batches in the order they were given, each kind of runtime on as many threads as it has lanes.

    Each thread that calls torch gets worker threads of its own, so one lane is always the same thread.

    Parameters
    ----------
    runtimes : iterable of Runtime
        Those that batches will be begun with.
    stall_seconds : float
        How long a runtime may take over what it is given at once.
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
        self._lines = {name: _Line() for name in lanes}
        self._lanes = [
            _Lane(self._lines[name], clock) for name, number in lanes.items() for _ in range(number)
        ]
        self.n_threads = len(self._lanes)

    def begin(self, runtime: Runtime, inputs: np.ndarray, *, part_name: Callable[[int, int], str]) -> Batch:
        """Put one batch of uint8 inputs, of shape (n, 3, crop, crop), in the line of its runtime.

        What stalls is named by `part_name`, from the first row and the one behind the last.
        """
        batch = Batch(runtime, inputs, part_name)
        self._lines[runtime.name].put(batch)
        return batch

    def wait(self, batch: Batch) -> np.ndarray:
        """Return the features of a batch, of shape (n, n_features), once they are computed.

        Raises
        ------
        ExtractionError
            If a lane takes longer than `stall_seconds` over a part; or whatever the runtime raises.
        """
        while not batch.wait(POLL_SECONDS):
            stalled = next(filter(self._stalls, self._lanes), None)
            if stalled is not None:
                raise ExtractionError(
                    f"the forward pass of {stalled.name()} has taken more than {self._stall_seconds:g} s. Use a "
                    "smaller --batch-size, or raise --stall-seconds; what was computed is kept."
                )
        return np.concatenate([features for _, features in batch.computed()])

    def close(self) -> None:
        """End the threads after what they are at, but for those that hang; the rest is dropped."""
        for line in self._lines.values():
            line.close()
        # A thread in the middle of a library's code may take the process with it when that exits.
        impatient_at: float | None = time.monotonic() + _PATIENCE_SECONDS
        while waiting := [lane for lane in self._lanes if lane.thread.is_alive() and not self._stalls(lane)]:
            if impatient_at is not None and time.monotonic() > impatient_at:
                impatient_at = None
                _log.warning("waiting for the batch under way; interrupt again to drop it")
            waiting[0].ended.wait(POLL_SECONDS)

    def _stalls(self, lane: "_Lane") -> bool:
        since = lane.since
        return since is not None and time.monotonic() - since > self._stall_seconds


class _Lane:
    """One thread that runs the batches of a line, what it is at, and since when."""

    def __init__(self, line: _Line, clock: StageClock) -> None:
        self.since: float | None = None
        self.ended = threading.Event()
        self._at: tuple[Batch, int] | None = None
        self._line = line
        self._clock = clock
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def name(self) -> str:
        """Return what it is at, for the message that it stalls."""
        at = self._at
        return "a batch" if at is None else at[0].name(at[1])

    def _run(self) -> None:
        while (taken := self._line.take()) is not None:
            batch, part = self._at = taken
            self.since = time.monotonic()
            batch.run(part)
            self._clock.add("forward", time.monotonic() - self.since)
            self.since = self._at = None
            del batch, taken  # with what it computed
        self.ended.set()
