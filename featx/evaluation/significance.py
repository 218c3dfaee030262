"""Whether one mean over folds is really larger than another, and how sure each is; it scores nothing itself.

Folds share most of their training rows, so their scores are not independent, and the usual standard error
is far too small. [1]_ replaces the factor ``1 / J`` of the variance by ``1 / J + n_test / n_train``, and [2]_
shows that with it repeated cross-validation keeps the promised rate of false alarms.

References
----------
.. [1] Nadeau and Bengio 2003, "Inference for the generalization error", Machine Learning 52.
.. [2] Bouckaert and Frank 2004, "Evaluating the replicability of significance tests for comparing learning
   algorithms", PAKDD.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

__all__ = [
    "LEVEL",
    "Difference",
    "Interval",
    "Verdict",
    "compare_draws",
    "compare_episodes",
    "compare_folds",
    "corrected",
    "draws_interval",
    "folds_interval",
    "holm",
    "verdict_of",
]

Interval = tuple[float, float]
Verdict = Literal["the only one", "best", "as good as the best", "worse", "not told", "baseline"]

LEVEL = 0.05
"""The share of false alarms that a verdict may have: below this p-value a difference is real. Intervals are 95%."""


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95% interval, and the two-sided p-value of there being none.

    The interval and the p-value are None where one fold, or one group of test rows, alone tells of no spread.
    """

    mean: float
    ci95: Interval | None
    p_value: float | None


def folds_interval(
    values: ArrayLike, *, n_train: float, n_test: float, resolution: float = 0.0
) -> Interval | None:
    """Return the 95% interval of a mean over folds, by the corrected variance; None of fewer than two folds.

    Parameters
    ----------
    values : array of shape (n_folds,)
        The metric in every fold of every repeat.
    n_train, n_test : float
        Rows that a fold fits on, and rows that it tests.
    resolution : float
        As in `compare_folds`: equal values in all folds are no proof of an exact mean.

    Examples
    --------
    >>> low, high = folds_interval([0.7, 0.8, 0.9], n_train=20, n_test=10)
    >>> round(low, 3), round(high, 3)
    (0.407, 1.193)
    """
    numbers = np.asarray(values, np.float64)
    if len(numbers) < 2:
        return None
    half = _critical(len(numbers)) * _standard_error(numbers, n_train, n_test, resolution)
    return float(numbers.mean() - half), float(numbers.mean() + half)


def compare_folds(
    values: ArrayLike, others: ArrayLike, *, n_train: float, n_test: float, resolution: float = 0.0
) -> Difference:
    """Compare two means over the same folds: the corrected resampled t-test.

    Parameters
    ----------
    values, others : array of shape (n_folds,)
        A metric of the two, in the same folds.
    n_train, n_test : float
        Rows that a fold fits on, and rows that it tests.
    resolution : float
        The smallest step of the metric in one fold, such as one row of an accuracy. Where all differences are
        alike, their spread is taken to be that of rounding to such steps: two equal differences of one
        row each are no proof.

    Returns
    -------
    Difference
        Of ``values`` from ``others``. All differences zero have a p-value of 1.

    Examples
    --------
    >>> found = compare_folds([0.9, 0.8, 0.8], [0.7, 0.7, 0.6], n_train=20, n_test=10)
    >>> round(found.mean, 3), round(found.p_value, 3)
    (0.167, 0.087)
    """
    differences = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    mean = float(differences.mean())
    if not differences.any():
        return Difference(0.0, (0.0, 0.0) if len(differences) > 1 else None, 1.0)
    if len(differences) < 2:
        return Difference(mean, None, None)
    error = _standard_error(differences, n_train, n_test, resolution)
    half = _critical(len(differences)) * error
    statistic = abs(mean) / error if error else math.inf
    p_value = float(2 * student.sf(statistic, len(differences) - 1))
    return Difference(mean, (mean - half, mean + half), p_value)


def compare_episodes(values: ArrayLike, others: ArrayLike, *, resolution: float) -> Difference:
    """Compare two means over the same episodes, which are drawn independently of one another: the paired t-test.

    Parameters
    ----------
    values, others : array of shape (n_episodes,)
        The accuracy of the two in each.
    resolution : float
        The share of one query, as in `compare_folds`.

    Examples
    --------
    >>> found = compare_episodes([0.9, 0.8, 0.8], [0.7, 0.7, 0.6], resolution=0.1)
    >>> round(found.mean, 3), round(found.p_value, 3)
    (0.167, 0.038)
    """
    return compare_folds(values, others, n_train=1, n_test=0, resolution=resolution)


def draws_interval(draws: ArrayLike) -> Interval | None:
    """Return the 95% percentile interval of a metric over bootstrap draws of the test rows.

    Draws in which it is undefined (NaN) are left out; None where it is undefined in half of them or more.
    """
    numbers = np.asarray(draws, np.float64)
    defined = numbers[~np.isnan(numbers)]
    if 2 * len(defined) <= len(numbers):
        return None
    low, high = np.quantile(defined, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def compare_draws(
    value: float,
    other: float,
    draws: NDArray[np.float64],
    other_draws: NDArray[np.float64],
    *,
    p_value: float | None,
) -> Difference:
    """Compare two metrics of the same test rows: the interval is that of the same bootstrap draws of them.

    Parameters
    ----------
    value, other : float
        The metric of the two on the rows as they are.
    draws, other_draws : float64 array of shape (n_draws,)
        The metric of the two on the same draws.
    p_value : float or None
        By swapping answers, as :func:`featx.evaluation.bootstrap.swap_p_values` does: where few rows differ,
        draws find differences that are none. With None the rows cannot tell, and there is no interval.
    """
    interval = None if p_value is None else draws_interval(draws - other_draws)
    return Difference(value - other, interval, p_value)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for how many there are, so that one false alarm among them has the promised rate.

    The k-th smallest of m is multiplied by ``m - k + 1``, and none is smaller than one before it [1]_. None
    stays None, and does not count.

    References
    ----------
    .. [1] Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
       Statistics 6.

    Examples
    --------
    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    given = sorted((value, at) for at, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (value, at) in enumerate(given):
        largest = max(largest, min(1.0, value * (len(given) - rank)))
        corrected[at] = largest
    return corrected


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with their p-values corrected together by `holm`."""
    p_values = holm([difference.p_value for difference in differences])
    return [replace(one, p_value=p_value) for one, p_value in zip(differences, p_values, strict=True)]


def verdict_of(difference: Difference | None, *, n_contenders: int) -> Verdict:
    """Return what the corrected difference of a contender from the best says of it; the best itself has none."""
    if difference is None:
        return "best" if n_contenders > 1 else "the only one"
    if difference.p_value is None:
        return "not told"
    return "worse" if difference.p_value < LEVEL else "as good as the best"


def _critical(n_folds: int) -> float:
    return float(student.ppf(1 - LEVEL / 2, n_folds - 1))


def _standard_error(values: NDArray[np.float64], n_train: float, n_test: float, resolution: float) -> float:
    # Rounding to steps of one width has a variance of a twelfth of its square.
    variance = max(float(values.var(ddof=1)), resolution**2 / 12)
    return math.sqrt(variance * (1 / len(values) + n_test / n_train))
