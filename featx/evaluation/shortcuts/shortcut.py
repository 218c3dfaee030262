"""Which heads have a faster way to the same predictions for a whole grid; anything unfamiliar has none.

The fits of a search differ in one parameter only, and most of their work does not depend on it: the standardised
rows, their kernel, their Gram matrix. Such work is done once for all candidates where a head is, exactly, a
StandardScaler and one of the estimators named here, and its grid varies that one parameter. What is reported and
kept is never fitted this way: :mod:`featx.evaluation.grid_search` fits the chosen candidate as scikit-learn does.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from featx.evaluation.fit_log import FitLog, logged
from featx.evaluation.heads import Head
from featx.evaluation.shortcuts.kernel_path import MOST_ROWS, kernel_path
from featx.evaluation.shortcuts.linear_path import linear_path
from featx.evaluation.shortcuts.logistic_path import logistic_path
from featx.evaluation.shortcuts.ridge_path import ridge_path

__all__ = ["Outcome", "Shortcut", "find_shortcut"]

# What a candidate predicts, None where it cannot be fitted, and its log.
Outcome = tuple[NDArray[Any] | None, FitLog]

# The final step, standardised training rows, their labels, standardised rows to predict
# -> the predictions by the value of the one parameter.
Prepare = Callable[[Any, NDArray[Any], NDArray[Any], NDArray[Any]], Callable[[float], NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Shortcut:
    """A way to the predictions of all candidates of a head at once.

    Attributes
    ----------
    scaler, final : sklearn.base.BaseEstimator
        The unfitted steps of the head.
    parameter : str
        The one name in its grid.
    path : callable
        From the standardised rows to the predictions by the value of that parameter.
    """

    scaler: StandardScaler
    final: BaseEstimator
    parameter: str
    path: Prepare

    def outcomes(
        self,
        candidates: Sequence[Mapping[str, Any]],
        train: NDArray[Any],
        y: NDArray[Any],
        validation: NDArray[Any],
    ) -> list[Outcome | None]:
        """Return the predictions of the validation rows by every candidate, and the log of each.

        None for a candidate that the shortcut cannot fit: a plain fit may do it yet (ridge regression of a singular
        matrix), or else says why it cannot in scikit-learn's own words.

        Parameters
        ----------
        candidates : sequence of mapping
            As in the head's grid.
        train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
            Rows to fit on and to predict.
        y : array of shape (n_train,)
        """
        predict, shared = logged(lambda: self._started(train, y, validation))
        if predict is None:
            return [None] * len(candidates)
        found: list[Outcome | None] = []
        for params in candidates:
            predicted, log = logged(partial(predict, params[self.parameter]))
            failed = log.failure is not None
            found.append(None if failed else (predicted, FitLog(shared.warned | log.warned, None)))
        return found

    def _started(
        self, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
    ) -> Callable[[float], NDArray[Any]]:
        """Do what all candidates share."""
        scaler = clone(self.scaler)
        rows, asked = np.asarray(scaler.fit_transform(train)), np.asarray(scaler.transform(validation))
        if not (np.isfinite(rows).all() and np.isfinite(asked).all()):
            raise ValueError("standardised features are not finite")
        return self.path(self.final, rows, y, asked)


def find_shortcut(head: Head, X: NDArray[Any]) -> Shortcut | None:
    """Return the shortcut of a head on a matrix, or None where it has none.

    A head has one when every parameter of its steps that could change what is computed is scikit-learn's default.

    Parameters
    ----------
    head : Head
    X : array of shape (n_samples, n_features)
        All rows of which a search fits some.

    Examples
    --------
    >>> from featx.evaluation.heads import load_head
    >>> X = np.zeros((100, 5), np.float32)
    >>> [name for name in ("logreg", "svm", "ridge", "knn", "mlp") if find_shortcut(load_head(name), X)]
    ['logreg', 'svm', 'ridge']
    """
    pipeline = head.pipeline
    if X.dtype not in (np.float32, np.float64) or not _as_made(pipeline, Pipeline([]), free={"steps"}):
        return None
    if len(pipeline.steps) != 2 or not _as_made(pipeline.steps[0][1], StandardScaler(), free={"copy"}):
        return None
    name, final = pipeline.steps[1]
    for default, parameter, free, path in _KINDS:
        varied = f"{name}__{parameter}"
        if _as_made(final, default, free={parameter, *free}) and _varies_only(head, varied):
            if path is kernel_path and len(X) > MOST_ROWS:
                return None
            return Shortcut(pipeline.steps[0][1], final, varied, path)
    return None


_PASSED_ON = ("class_weight", "tol", "max_iter", "random_state")

# The estimator as it is made by default, the parameter that its grid varies, those that may be anything, the path.
_KINDS: tuple[tuple[BaseEstimator, str, Collection[str], Prepare], ...] = (
    (SVC(), "C", (*_PASSED_ON, "cache_size"), kernel_path),
    (LinearSVC(), "C", _PASSED_ON, linear_path),
    (LogisticRegression(), "C", _PASSED_ON, logistic_path),
    (RidgeClassifier(), "alpha", ("class_weight",), ridge_path),
    (Ridge(), "alpha", (), ridge_path),
)


def _as_made(estimator: Any, default: BaseEstimator, *, free: Collection[str]) -> bool:
    """Tell whether an estimator is of the very type of another and like it in all but the parameters named.

    What else was set on it (an output format, metadata requests, callbacks) is among its attributes too.
    """
    if type(estimator) is not type(default):
        return False
    given, expected = vars(estimator), vars(default)
    return given.keys() == expected.keys() and all(
        type(given[name]) is type(expected[name]) and given[name] == expected[name]
        for name in expected.keys() - set(free)
    )


def _varies_only(head: Head, parameter: str) -> bool:
    """Tell whether every candidate is one positive finite number for the parameter, and nothing else."""
    return all(
        candidate.keys() == {parameter} and _is_positive(candidate[parameter])
        for candidate in head.candidates
    )


def _is_positive(value: Any) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and 0 < value < math.inf
