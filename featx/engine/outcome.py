"""What a run found and did, as records; the work itself is in `run.py`."""

from dataclasses import dataclass

import numpy as np

from featx.engine.plan import Keys, Task
from featx.samples import SampleTable

__all__ = ["Failure", "Outcome", "Run"]


@dataclass(frozen=True)
class Failure:
    """A sample without a vector: its row, its id, and why."""

    row: int
    id: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What a run did for one extractor; ``samples = cached + extracted + failed``.

    Attributes
    ----------
    task : Task
    positions : ndarray of shape (n_samples,), int64
        Where each row's vector is in the task's store; negative where there is none.
    cached, extracted, failed : int
        Samples that had a vector (duplicates within the run count here), that got one, that have none.
    """

    task: Task
    positions: np.ndarray
    cached: int
    extracted: int
    failed: int


@dataclass(frozen=True)
class Run:
    """What a run found and did.

    Attributes
    ----------
    table : SampleTable
    keys : Keys
        Known for every row that could be read.
    outcomes : tuple of Outcome
        In the order the extractors were asked for.
    failures : tuple of Failure
        Samples that lack a vector of at least one extractor, in the order of the samples.
    seconds : float
        From start to last publish.
    starting_seconds : float or None
        From start to the first shard, of vectors or failures; None where none was published.
    extracting_seconds : float
        From the first read to the last publish, but for the building of the extractors; 0 where nothing was missing.
    computed : ndarray of shape (n_samples,), bool
        Rows that a vector was computed for in this run.
    stages : dict of str to float
        Busy seconds of ``read``, ``digest``, ``decode`` (also resizing and hand-made features), ``forward``
        and ``write``, summed over threads.
    threads : dict of str to int
        How many threads each stage had; reading, digesting and decoding share theirs.
    runtimes : tuple of str
        What ran backbones: ``torch``, ``compile``, ``openvino``; empty where none was run.
    """

    table: SampleTable
    keys: Keys
    outcomes: tuple[Outcome, ...]
    failures: tuple[Failure, ...]
    seconds: float
    starting_seconds: float | None
    extracting_seconds: float
    computed: np.ndarray
    stages: dict[str, float]
    threads: dict[str, int]
    runtimes: tuple[str, ...]

    @property
    def extracted(self) -> int:
        """Samples that got a vector in this run and lack none now."""
        return int(self.computed[self.good].sum())

    @property
    def cached(self) -> int:
        """Samples whose vectors were all there before, or were computed for another row with the same bytes."""
        return len(self.good) - self.extracted

    @property
    def good(self) -> np.ndarray:
        """Rows that have a vector of every extractor: int64, ascending."""
        good = np.ones(len(self.table), bool)
        for outcome in self.outcomes:
            good &= outcome.positions >= 0
        return np.flatnonzero(good)

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """Return features of shape (len(rows), n_features) as float32, the extractors side by side.

        Raises
        ------
        CacheError
            If a shard is gone or damaged.
        """
        parts = [
            outcome.task.store.read(outcome.positions[rows]).astype(np.float32, copy=False)
            for outcome in self.outcomes
        ]
        return parts[0] if len(parts) == 1 else np.hstack(parts)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the extracting time that each stage's threads were busy; all 0 where nothing ran."""
        seconds = self.extracting_seconds or np.inf
        return {stage: busy / (self.threads[stage] * seconds) for stage, busy in self.stages.items()}

    @property
    def bottleneck(self) -> str | None:
        """The stage that was busy for the largest share of the extracting time, or None where nothing ran."""
        shares = self.shares
        return max(shares, key=lambda stage: shares[stage]) if self.computed.any() else None
