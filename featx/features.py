"""Samples in, matrix out: a data set's features in memory, or in one plain HDF5 file."""

import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featx.engine import Failure, Progress, Run, Settings, SettingsKeywords, read_extractors, run
from featx.samples import read_samples

if TYPE_CHECKING:
    from featx.extractors.spec import ExtractorSpec

__all__ = ["Features", "extract", "feature_names", "features_of", "write_features"]

_EXPORTED_AT_ONCE = 4096


@dataclass(frozen=True)
class Features:
    """The vectors of a data set, rows in the order of the samples.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Without the samples that failed.
    y : ndarray of shape (n_samples,) or None
        Labels: names as text, numbers as numbers.
    ids : ndarray of shape (n_samples,)
        Ids as str.
    groups, splits : ndarray of shape (n_samples,) or None
    keys : ndarray of shape (n_samples, 32), uint8
        SHA-256 of each sample's bytes; equal for exact duplicates.
    failures : tuple of Failure
        What was left out and why, by its row in the samples.
    specs : tuple of ExtractorSpec
        What the columns are, in their order.
    """

    X: np.ndarray
    y: np.ndarray | None
    ids: np.ndarray
    groups: np.ndarray | None
    splits: np.ndarray | None
    keys: np.ndarray
    failures: tuple[Failure, ...]
    specs: "tuple[ExtractorSpec, ...]"

    @property
    def feature_names(self) -> list[str]:
        """A name for each column, such as ``resnet50_0``."""
        return feature_names(self.specs)

    def __repr__(self) -> str:
        rows, columns = self.X.shape
        parts = [f"{rows} x {columns} {self.X.dtype}"]
        given = [] if self.y is None else self.y.tolist()
        labels = {label for label in given if label is not None and label == label}
        if any(isinstance(label, str) for label in labels):
            parts.append(f"{len(labels)} class{'es' * (len(labels) > 1)}")
        elif labels:
            parts.append(f"labels {min(labels):g} to {max(labels):g}")
        if self.failures:
            parts.append(f"{len(self.failures)} failure{'s' * (len(self.failures) > 1)}")
        return f"Features({', '.join([*parts, '+'.join(spec.name for spec in self.specs)])})"


def extract(
    samples: Any,
    extractors: Any,
    *,
    cache: str | os.PathLike[str] | None = None,
    labels: Any = None,
    groups: Any = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Features:
    """Run frozen extractors once over samples and return the matrix of their features.

    Parameters
    ----------
    samples : SampleTable, path, list of paths, arrays, images, DataFrame or torch Dataset
        Everything that `featx.read_samples` takes.
    extractors : str, ModuleExtractor, or list of these
        ``"resnet50"``, ``"resnet50:layer=layer4+hog"``, ``["resnet50", "hog"]``.
    cache : path, optional
        Folder that keeps the vectors; None keeps them in memory only.
    labels, groups : array-like of shape (n_samples,), optional
        Override what the samples bring.
    progress : callable, optional
        Called with a `featx.engine.Progress` now and then.
    **settings
        Fields of `featx.engine.Settings`: ``device``, ``runtime``, ``precision``, ``batch_size``, ``workers``,
        ``on_error``, ``max_error_rate``, ``stall_seconds``.

    Returns
    -------
    Features

    Raises
    ------
    UsageError
        For samples, extractors or settings featx cannot work with.
    SampleIOError, DecodeError
        With ``on_error="raise"`` (the default), for the first sample without a vector.
    ExtractionError, WeightsError, CacheError
        If the run cannot do its work; what was computed is kept in `cache`.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import extract
    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> extract(images, "color_histogram").X.dtype
    dtype('float32')
    """
    done = run(
        read_samples(samples, labels=labels, groups=groups),
        read_extractors(extractors),
        cache=None if cache is None else Path(cache),
        settings=Settings.of(settings),
        progress=progress,
    )
    return features_of(done)


def features_of(done: Run) -> Features:
    """Gather the vectors of a run, in the order of its samples, without those that failed."""
    rows = done.good
    table = done.table if len(rows) == len(done.table) else done.table.take(rows)
    return Features(
        X=done.matrix(rows),
        y=table.y,
        ids=table.ids,
        groups=table.groups,
        splits=table.splits,
        keys=done.keys.values[rows],
        failures=done.failures,
        specs=tuple(outcome.task.spec for outcome in done.outcomes),
    )


def write_features(done: Run, path: str | os.PathLike[str]) -> Path:
    """Write the vectors of a run to one plain HDF5 file, in the order of its samples, without those that failed.

    Parameters
    ----------
    done : Run
        Of one extractor or a fusion.
    path : path
        A file of that name is replaced.

    Returns
    -------
    Path

    Raises
    ------
    UsageError
        If there is no such folder.
    CacheError
        If the file cannot be written.
    """
    from featx.cache import write_export

    rows = done.good
    table = done.table.take(rows)
    specs = [outcome.task.spec for outcome in done.outcomes]
    write_export(
        Path(path),
        blocks=(
            done.matrix(rows[at : at + _EXPORTED_AT_ONCE]) for at in range(0, len(rows), _EXPORTED_AT_ONCE)
        ),
        n_samples=len(rows),
        n_features=sum(spec.n_features for spec in specs),
        dtype=np.result_type(*[np.dtype(spec.dtype) for spec in specs]),
        ids=table.ids,
        labels=table.y,
        groups=table.groups,
        splits=table.splits,
        provenance={
            "extractor": "+".join(spec.text for spec in specs),
            "fingerprint": "+".join(spec.fingerprint for spec in specs),
            "identity": [spec.identity for spec in specs],
            "featx": importlib.metadata.version("featx"),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "n_failed": len(done.failures),
        },
    )
    return Path(path)


def feature_names(specs: "Sequence[ExtractorSpec]") -> list[str]:
    """Return a name for each column: the extractor's, or its whole text where two share a name, and a number."""
    names = [spec.name for spec in specs]
    prefixes = names if len(set(names)) == len(names) else [spec.text for spec in specs]
    return [
        f"{prefix}_{column}"
        for prefix, spec in zip(prefixes, specs, strict=True)
        for column in range(spec.n_features)
    ]
