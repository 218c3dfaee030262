"""Which labels are likely wrong, by confident learning on scores that were given without knowing the label.

Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset labels", JAIR 70. It corrects
no label: a suspect is a row to look at.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.evaluation.folds import Fold
from featx.evaluation.similarity import UnitRows, nearest

__all__ = ["Suspect", "suspects_by_neighbours", "suspects_by_probability"]

_N_NEIGHBOURS = 20
_MOST_ASKED = 2000


class Suspect(NamedTuple):
    """A row, the label that is more likely, and by how much that is scored above the row's own, 0 to 1."""

    row: int
    suggested: Any
    lead: float


def suspects_by_probability(
    y: NDArray[Any], tested: NDArray[np.int64], probabilities: NDArray[np.float64], classes: NDArray[Any]
) -> list[Suspect]:
    """Return the rows whose label is likely wrong, the largest lead first.

    A class has a threshold: the probability that it gets on average on rows that have its label. A row is suspected
    where another class comes to its threshold, is the most probable of those that do, and leads the row's own class.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Labels.
    tested : int64 array of shape (n_tested,)
        Rows with probabilities.
    probabilities : float array of shape (n_samples, n_classes)
        By a head that was not fitted on the row. NaN for a class that it did not know: such a class is not suggested,
        and a row of such a class not suspected.
    classes : array of shape (n_classes,)
        Sorted.
    """
    own = np.searchsorted(classes, y[tested])
    found = probabilities[tested]
    return _suspects(tested, own, found, _thresholds(own, found), classes)


def suspects_by_neighbours(
    y: NDArray[Any],
    tested: NDArray[np.int64],
    wrong: NDArray[np.int64],
    unit: UnitRows,
    folds: list[Fold],
    fold_of_row: NDArray[np.int64],
    *,
    random_state: int | None,
) -> list[Suspect]:
    """Return the rows whose label is likely wrong, where a head gives no probabilities: by their neighbours' labels.

    What stands for a class's probability is its share of the row's 20 nearest training rows. The work is bounded:
    the first 2,000 rows of `wrong` are judged, by thresholds from at most 2,000 tested rows.

    Parameters
    ----------
    y : array of shape (n_samples,)
    tested, wrong : int64 array
        Rows that a fold tested, and those of them that it answered wrongly.
    unit : UnitRows
    folds : list of Fold
    fold_of_row : int64 array of shape (n_samples,)
        Which fold tested the row.
    random_state : int or None
        Seed of the draw of tested rows.
    """
    if not len(wrong):
        return []
    classes, number = np.unique(y, return_inverse=True)
    judged = wrong[:_MOST_ASKED]
    typical = tested
    if len(tested) > _MOST_ASKED:
        typical = np.random.default_rng(random_state).choice(tested, _MOST_ASKED, replace=False)
    asked = np.union1d(typical, judged)
    trained = [folds[fold_of_row[row]].train for row in asked]
    shares = np.zeros((len(asked), len(classes)))
    for at, found in enumerate(nearest(unit, asked, trained, n_neighbours=_N_NEIGHBOURS)):
        labels = number[[row for row, _ in found]]
        shares[at] = np.bincount(labels, minlength=len(classes)) / len(found)
    of_typical = np.searchsorted(asked, typical)
    of_judged = np.searchsorted(asked, judged)
    thresholds = _thresholds(number[typical], shares[of_typical])
    return _suspects(judged, number[judged], shares[of_judged], thresholds, classes)


def _thresholds(own: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean score of every class on rows of its own, infinite for a class without any."""
    of_own = scores[np.arange(len(own)), own]
    thresholds = np.full(scores.shape[1], np.inf)
    for number in np.unique(own[~np.isnan(of_own)]):
        thresholds[number] = np.nanmean(of_own[own == number])
    return thresholds


def _suspects(
    rows: NDArray[np.int64],
    own: NDArray[np.int64],
    scores: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    classes: NDArray[Any],
) -> list[Suspect]:
    every = np.arange(len(rows))
    # Comparisons with NaN are false: a class that was not known comes to no threshold.
    confident = np.where(scores >= thresholds, scores, -np.inf)
    suggested = confident.argmax(axis=1)
    leads = confident[every, suggested] - scores[every, own]
    found = np.flatnonzero(leads > 0)
    return [
        Suspect(int(rows[at]), classes[suggested[at]], float(leads[at]))
        for at in found[np.argsort(-leads[found], kind="stable")]
    ]
