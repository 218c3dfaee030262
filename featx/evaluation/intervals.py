"""The interval of a mean over draws or episodes; it compares nothing."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student

__all__ = ["MeanInterval", "mean_interval"]


@dataclass(frozen=True)
class MeanInterval:
    """The mean of some accuracies, their sample standard deviation, and the 95% interval of the mean.

    The interval is None where there is one value only.
    """

    mean: float
    std: float
    ci95: tuple[float, float] | None


def mean_interval(values: ArrayLike) -> MeanInterval:
    """Return the mean of accuracies with its 95% interval by Student's t, cut off at 0 and 1.

    It covers what would change if the values were drawn again, and nothing else.

    Parameters
    ----------
    values : array of shape (n_values,)
        Between 0 and 1, drawn independently of one another.

    Examples
    --------
    >>> found = mean_interval([0.5, 0.6, 0.7])
    >>> round(found.mean, 3), round(found.std, 3), [round(end, 3) for end in found.ci95]
    (0.6, 0.1, [0.352, 0.848])
    """
    numbers = np.asarray(values, np.float64)
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return MeanInterval(mean, 0.0, None)
    std = float(numbers.std(ddof=1))
    half = float(student.ppf(0.975, len(numbers) - 1)) * std / math.sqrt(len(numbers))
    return MeanInterval(mean, std, (max(0.0, mean - half), min(1.0, mean + half)))
