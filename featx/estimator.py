"""Samples in, matrix out: `extract` for data sets and `Extractor` for scikit-learn pipelines."""

import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from featx.engine import Failure, OnError, Progress, Run, Settings, identify, read_extractors, run
from featx.engine.runtime import PrecisionChoice, RuntimeChoice
from featx.samples import read_samples

if TYPE_CHECKING:
    from featx.cache import Store
    from featx.extractors.spec import ExtractorSpec

__all__ = ["Extractor", "Features", "SettingsKeywords", "extract", "features_of", "write_features"]

_STORES: "dict[str, Store]" = {}
"""Stores that this process has open, so that folds and clones read the shards once. With ``cache=None`` they are
where the vectors themselves live until the process ends."""


_EXPORTED_AT_ONCE = 4096


class SettingsKeywords(TypedDict, total=False):
    """The fields of `featx.engine.Settings` as keywords."""

    device: str
    runtime: RuntimeChoice
    precision: PrecisionChoice
    batch_size: int | None
    workers: int | None
    on_error: OnError
    max_error_rate: float
    stall_seconds: float


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
        return _feature_names(self.specs)


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
        settings=Settings(**settings),
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
    CacheError
        If the file cannot be written.
    """
    from featx.cache import write_export

    rows = done.good
    table = done.table.take(rows)
    specs = [outcome.task.spec for outcome in done.outcomes]
    write_export(
        Path(path),
        blocks=(done.matrix(rows[at : at + _EXPORTED_AT_ONCE]) for at in range(0, len(rows), _EXPORTED_AT_ONCE)),
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


class Extractor(TransformerMixin, BaseEstimator):
    """Frozen extractors as a scikit-learn transformer: samples in, matrix of features out.

    The backbone runs at most once per distinct image, whatever the folds, clones and processes that share the
    cache. Weights are loaded only when a vector is missing and never enter a pickle.

    Parameters
    ----------
    extractors : str, ModuleExtractor, or list of these, default="resnet50"
        What to run; a list, or names joined with ``+``, are fused side by side.
    weights, preset, layer, pool, size, pixels : optional
        The keys of the text form as keywords, for a single extractor.
    cache : path, optional
        Folder that keeps the vectors and shares them between processes. None keeps them in the memory of each
        process until it ends.
    device, runtime, precision, batch_size, workers, stall_seconds
        See `featx.engine.Settings`.

    Attributes
    ----------
    specs_ : tuple of ExtractorSpec
        Identities of what runs, in the order of the columns.

    Notes
    -----
    A sample without a vector raises: leaving rows out would tear features and labels apart. Use
    `featx.extract(..., on_error="record")` for data that has broken files.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import Extractor
    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> Extractor("color_histogram").fit_transform(images).shape[0]
    2
    """

    def __init__(
        self,
        extractors: Any = "resnet50",
        *,
        weights: str | os.PathLike[str] | None = None,
        preset: str | None = None,
        layer: str | Sequence[str] | None = None,
        pool: str | None = None,
        size: int | None = None,
        pixels: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        device: str = "auto",
        runtime: RuntimeChoice = "auto",
        precision: PrecisionChoice = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        stall_seconds: float = 300.0,
    ) -> None:
        self.extractors = extractors
        self.weights = weights
        self.preset = preset
        self.layer = layer
        self.pool = pool
        self.size = size
        self.pixels = pixels
        self.cache = cache
        self.device = device
        self.runtime = runtime
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers
        self.stall_seconds = stall_seconds

    def fit(self, X: Any, y: Any = None) -> "Extractor":
        """Identify the extractors; nothing is learnt from the samples.

        Parameters
        ----------
        X : samples
            Not looked at.
        y : ignored

        Returns
        -------
        Extractor
            This object.

        Raises
        ------
        UsageError, WeightsError
            If a name, option or weights file is not usable.
        """
        from featx.cache import Hints

        with Hints(None if self.cache is None else Path(self.cache) / "hints.sqlite") as hints:
            self.specs_ = tuple(
                identify(one, device=self.device, precision=self.precision, hints=hints)
                for one in self._asked()
            )
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features of samples.

        Parameters
        ----------
        X : samples
            Everything that `featx.read_samples` takes: paths, images, arrays, a column of a DataFrame.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32

        Raises
        ------
        SampleIOError, DecodeError
            For the first sample that has no vector.
        """
        done = run(
            read_samples(X),
            self._asked(),
            cache=None if self.cache is None else Path(self.cache),
            settings=Settings(
                device=self.device,
                runtime=self.runtime,
                precision=self.precision,
                batch_size=self.batch_size,
                workers=self.workers,
                stall_seconds=self.stall_seconds,
            ),
            stores=_STORES,
            take_turns=True,
        )
        return done.matrix(done.good)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return a name for each column, such as ``resnet50_0``.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of str
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "specs_")
        return np.asarray(_feature_names(self.specs_), dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        # Nothing is learnt: a pipeline may transform with an extractor that was never fitted.
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def _asked(self) -> Any:
        weights = None if self.weights is None else os.fspath(self.weights)
        return read_extractors(
            self.extractors,
            weights=weights,
            preset=self.preset,
            layer=self.layer,
            pool=self.pool,
            size=self.size,
            pixels=self.pixels,
        )


def _feature_names(specs: "Sequence[ExtractorSpec]") -> list[str]:
    names = [spec.name for spec in specs]
    prefixes = names if len(set(names)) == len(names) else [spec.text for spec in specs]
    return [
        f"{prefix}_{column}"
        for prefix, spec in zip(prefixes, specs, strict=True)
        for column in range(spec.n_features)
    ]
