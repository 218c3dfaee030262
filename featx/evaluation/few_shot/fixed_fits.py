"""Fitting a head as it stands on many small sets of rows, and how accurate each fit is; it searches for nothing."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from featx.evaluation.fit_log import FitLog, logged
from featx.evaluation.heads import Head

__all__ = ["fixed_accuracies"]

_FITS_AT_ONCE = 16

Rows = NDArray[np.int64]


def fixed_accuracies(
    X: NDArray[Any],
    y: NDArray[Any],
    head: Head,
    params: Mapping[str, Any],
    pairs: Sequence[tuple[Rows, Rows]],
    *,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float64], list[FitLog]]:
    """Return the accuracy of the head for every pair of rows to fit on and rows to predict, and the logs.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
    y : array of shape (n_samples,)
    head : Head
        A classifier; each fit is of a clone of its pipeline.
    params : mapping
        Set on it.
    pairs : sequence of (int64 array, int64 array)
        Row numbers.
    n_jobs : int or None
        Processes to fit in, each on one BLAS thread.
    progress : callable or None
        Called with how many fits are done, and how many there are.

    Returns
    -------
    accuracies : float64 array of shape (n_pairs,)
        NaN where the head cannot be fitted; the log says why.
    logs : list of FitLog
    """
    chunks = [pairs[at : at + _FITS_AT_ONCE] for at in range(0, len(pairs), _FITS_AT_ONCE)]
    accuracies: list[float] = []
    logs: list[FitLog] = []
    for done in Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_fits)(head.pipeline, params, X, y, chunk) for chunk in chunks
    ):
        for accuracy, log in done:
            accuracies.append(accuracy)
            logs.append(log)
        if progress is not None:
            progress(len(logs), len(pairs))
    return np.array(accuracies), logs


def _fits(
    pipeline: Any, params: Mapping[str, Any], X: Any, y: Any, pairs: Sequence[tuple[Rows, Rows]]
) -> list[tuple[float, FitLog]]:
    with threadpool_limits(limits=1):
        return [_fit(pipeline, params, X, y, train, test) for train, test in pairs]


def _fit(
    pipeline: Any, params: Mapping[str, Any], X: Any, y: Any, train: Any, test: Any
) -> tuple[float, FitLog]:
    estimator = clone(pipeline).set_params(**clone(params, safe=False))

    def work() -> float:
        # With one row a class it divides nought by nought for a spread within classes, which only a shrunken
        # centroid or a probability would use. What is caught, and this filter, ends with the work.
        warnings.filterwarnings("ignore", module=r"sklearn\.neighbors\._nearest_centroid")
        return float(np.mean(estimator.fit(X[train], y[train]).predict(X[test]) == y[test]))

    accuracy, log = logged(work)
    return np.nan if accuracy is None else accuracy, log
