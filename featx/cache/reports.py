"""What listing, verifying and pruning a cache find, as records; the work itself is in `maintenance.py`."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ExtractorInfo", "Problem", "PruneReport", "VerifyReport"]


@dataclass(frozen=True)
class ExtractorInfo:
    """What a cache holds of one extractor.

    Attributes
    ----------
    directory : Path
    name : str
        The folder's name without the fingerprint.
    fingerprint : str or None
        None when neither spec.json nor a shard tells.
    text : str
        The extractor as written on the command line: ``spec`` in the provenance of the newest shard, else
        ``name``.
    precision : str or None
        ``precision`` in the identity that spec.json holds; None without either.
    n_vectors, n_failures : int
        Distinct samples with a vector; distinct samples of which only a failure is remembered.
    n_shards, size_bytes : int
    n_features : int or None
    dtype : str or None
    last_published : float or None
        When the newest shard was published, here or where it was copied from, in seconds since the epoch.
    problem : str or None
        What is wrong with it, if anything is.
    """

    directory: Path
    name: str
    fingerprint: str | None
    text: str
    precision: str | None
    n_vectors: int
    n_failures: int
    n_shards: int
    size_bytes: int
    n_features: int | None
    dtype: str | None
    last_published: float | None
    problem: str | None


@dataclass(frozen=True)
class Problem:
    """One file that is not as it should be.

    Attributes
    ----------
    path : Path
    message : str
    removed : bool
        Whether it was removed; else it is still there.
    """

    path: Path
    message: str
    removed: bool


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Attributes
    ----------
    n_extractors, n_shards, n_rows : int
        What was looked at and found sound.
    problems : tuple of Problem
    notes : tuple of str
        What does no harm: foreign files, leftovers of writers that crashed or are still at work.
    """

    n_extractors: int
    n_shards: int
    n_rows: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing wrong is left."""
        return all(problem.removed for problem in self.problems)


@dataclass(frozen=True)
class PruneReport:
    """What `prune` did, or in a dry run would do.

    Attributes
    ----------
    n_merged, n_written : int
        Small shards that were merged, and the shards they became.
    removed : tuple of Path
        Files and folders that went for another reason.
    freed_bytes : int
        By removing; what merging saves is not counted.
    problems : tuple of Problem
        What was broken, and what could not be dealt with; extractors with such are not merged.
    """

    n_merged: int
    n_written: int
    removed: tuple[Path, ...]
    freed_bytes: int
    problems: tuple[Problem, ...]
