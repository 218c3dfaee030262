"""`Extractor`: frozen extractors as a scikit-learn transformer."""

import functools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from featx.engine import OpenCache, Settings, identify, read_extractors, run
from featx.engine.hardware import PrecisionChoice, RuntimeChoice
from featx.features import feature_names
from featx.samples import read_samples

__all__ = ["Extractor"]


class Extractor(TransformerMixin, BaseEstimator):
    """Frozen extractors as a scikit-learn transformer: samples in, matrix of features out.

    The backbone runs at most once per distinct image, whatever the folds, clones and processes that share the
    cache. Weights are loaded only when a vector is missing. They enter no pickle, but for those of a ModuleExtractor.

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
        settings = self._settings()
        with _opened(self.cache).hints as hints:
            self.specs_ = tuple(
                identify(one, device=settings.device, precision=settings.precision, hints=hints)
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
            cache=_opened(self.cache),
            settings=self._settings(),
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
        return np.asarray(feature_names(self.specs_), dtype=object)

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

    def _settings(self) -> Settings:
        return Settings(
            device=self.device,
            runtime=self.runtime,
            precision=self.precision,
            batch_size=self.batch_size,
            workers=self.workers,
            stall_seconds=self.stall_seconds,
        )

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


def _opened(cache: str | os.PathLike[str] | None) -> OpenCache:
    """Return the cache as this process has it open, so that folds and clones read its shards once.

    Without a folder this is where the vectors themselves live, until the process ends.
    """
    with _opening:
        return _open_cache(None if cache is None else Path(cache).absolute())


_open_cache = functools.cache(OpenCache)
_opening = threading.Lock()
