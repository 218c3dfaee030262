"""How accurate a head is with how many labels: fits on a few rows of each class, tested on rows held out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.evaluation import grid_search
from featx.evaluation.few_shot.fixed_fits import fixed_accuracies
from featx.evaluation.folds import Fold, make_folds, predefined_fold
from featx.evaluation.grid_search import FitLog
from featx.evaluation.heads import Head
from featx.evaluation.intervals import mean_interval

__all__ = ["CurvePoint", "check_sizes", "draw_rows", "held_out_fold", "learning_curve"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy that so many labels give.

    Attributes
    ----------
    labels_per_class : int or None
        Rows of each class that were fitted on, each of another group; None for all training rows.
    n_labels : int
        Rows fitted on.
    mean, std : float or None
        Of the accuracy over the draws, ``std`` as the sample standard deviation (0 of a single fit); None where
        the head cannot be fitted on so few rows.
    ci95 : (float, float) or None
        The 95% interval of the mean, by Student's t over the draws: what drawing the rows again would change.
        How far other test rows would move it is not in it. None for all training rows, where nothing is drawn.
    n_draws : int
        How many times rows were drawn and fitted on.
    note : str or None
        Why there is no accuracy, or what the fits had to say.
    """

    labels_per_class: int | None
    n_labels: int
    mean: float | None
    std: float | None
    ci95: tuple[float, float] | None
    n_draws: int
    note: str | None


def learning_curve(
    X: ArrayLike,
    y: ArrayLike,
    head: Head,
    params: Mapping[str, Any],
    *,
    train: Rows,
    test: Rows,
    together: Rows | None = None,
    labels_per_class: Iterable[int | None] = (1, 2, 5, 10, 20, None),
    n_draws: int = 20,
    random_state: int | None = 0,
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[CurvePoint]:
    """Return a head's accuracy on the test rows, fitted on ever more of the training rows.

    The rows are those of `draw_rows`, so every head and every extractor is fitted on the same ones.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Finite numbers.
    y : array of shape (n_samples,)
        Classes.
    head : Head
        A classifier.
    params : mapping
        Set on it before every fit; nothing is searched for. Parameters that were chosen with more labels than a
        size has flatter it.
    train, test : int64 array of shape (n,)
        Row numbers: what may be fitted on, and what is predicted.
    together : int64 array of shape (n_samples,) or None
        Group numbers, as `featx.evaluation.folds.inseparable_rows` gives: training rows in a group with a test
        row, such as exact copies of one, are never fitted on, not even for the last point. Of the others a
        draw has one row of a group at most of each class: copies are one label.
    labels_per_class : iterable of int or None
        Sizes to fit on. Those that some class has too few rows, or groups, for and those that would take all rows
        are left out. None, for all training rows, is always the last point.
    n_draws : int
        How many times each size but the last is drawn, at least 2.
    random_state : int or None
        Seed of the draws.
    n_jobs : int or None
        Processes to fit in.
    progress : callable or None
        Called with how many fits are done, and how many there are.

    Returns
    -------
    list of CurvePoint
        By rising size.

    Raises
    ------
    UsageError
        For a regression head, impossible sizes, or fewer than two classes to fit on.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featx.evaluation.heads import load_head
    >>> X, y = load_iris(return_X_y=True)
    >>> rows = np.arange(150)
    >>> curve = learning_curve(X, y, load_head("ridge"), {}, train=rows[rows % 3 > 0], test=rows[rows % 3 == 0])
    >>> [(point.labels_per_class, point.n_labels) for point in curve]
    [(1, 3), (2, 6), (5, 15), (10, 30), (20, 60), (None, 100)]
    """
    features, labels = np.asarray(X), np.asarray(y)
    if head.task != "classification":
        raise UsageError(
            f"a learning curve counts labels per class, so it needs a classification head; {head.name!r} is a"
            " regression head. Leave the curve out, or take one such as logreg."
        )
    drawn = draw_rows(
        labels,
        train=train,
        test=test,
        together=together,
        labels_per_class=labels_per_class,
        n_draws=n_draws,
        random_state=random_state,
    )
    pairs = [(rows, test) for draws in drawn.values() for rows in draws]
    accuracies, logs = fixed_accuracies(
        features, labels, head, params, pairs, n_jobs=n_jobs, progress=progress
    )
    points, at = [], 0
    for size, draws in drawn.items():
        fits = slice(at, at := at + len(draws))
        points.append(_point(size, len(draws[0]), head, accuracies[fits], logs[fits]))
    return points


def draw_rows(
    y: NDArray[Any],
    *,
    train: Rows,
    test: Rows,
    together: Rows | None = None,
    labels_per_class: Iterable[int | None] = (1, 2, 5, 10, 20, None),
    n_draws: int = 20,
    random_state: int | None = 0,
) -> dict[int | None, list[Rows]]:
    """Draw the training rows of a learning curve: so many of each class, without replacement.

    Of each class no two rows are of a group; a group that spans classes may be drawn once for each of them.

    A draw shuffles every class once and takes its first rows, so that it holds the same draw of every smaller
    size: the curve of a draw then tells what labels add, not which rows were lucky. It depends on nothing but
    the labels, the rows, their groups and the seed. The parameters are those of `learning_curve`.

    Returns
    -------
    dict of int or None to list of int64 array
        Sorted row numbers, ``n_draws`` times for each size; once for None, all of them.

    Raises
    ------
    UsageError
        As `learning_curve`.
    """
    wanted = check_sizes(labels_per_class)
    if n_draws < 2:
        raise UsageError(f"a learning curve needs 2 draws or more for an interval; got {n_draws}.")
    usable = np.sort(train)
    if together is not None:
        usable = usable[~np.isin(together[usable], together[test])]
    classes, number = np.unique(y[usable], return_inverse=True)
    if len(classes) < 2:
        raise UsageError(
            f"a learning curve needs training rows of two classes, without copies of test rows or of their groups;"
            f" got {len(classes)}. Add samples, or hold others out."
        )
    pools = [usable[number == index] for index in range(len(classes))]
    smallest = min(len(pool if together is None else np.unique(together[pool])) for pool in pools)
    sizes = sorted(size for size in wanted if size <= smallest and size * len(classes) < len(usable))
    drawn: dict[int | None, list[Rows]] = {int(size): [] for size in sizes}
    random = np.random.default_rng(random_state)
    for _ in range(n_draws if sizes else 0):
        shuffled = [_first_of_groups(random.permutation(pool), together) for pool in pools]
        for size, draws in drawn.items():
            draws.append(np.sort(np.concatenate([rows[:size] for rows in shuffled])))
    drawn[None] = [usable]
    return drawn


def check_sizes(labels_per_class: Iterable[int | None]) -> set[int]:
    """Return the sizes other than None, or raise UsageError for what is no number of labels."""
    sizes = {size for size in labels_per_class if size is not None}
    if wrong := [size for size in sizes if not isinstance(size, int | np.integer) or size < 1]:
        raise UsageError(f"labels per class are whole numbers from 1, or None for all; got {wrong[0]!r}.")
    return sizes


def held_out_fold(
    y: NDArray[Any],
    *,
    splits: Iterable[str] | None = None,
    together: Rows | None = None,
    random_state: int | None = 0,
) -> Fold:
    """Return what a learning curve is fitted and tested on: the data's own split, else two parts in three and one.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Classes.
    splits : iterable of str or None
        As `featx.evaluation.folds.predefined_fold` takes them.
    together : int64 array of shape (n_samples,) or None
        Group numbers; without a split of the data's own no group is on both sides.
    random_state : int or None
        Seed of the shuffling, which keeps the shares of the classes.

    Raises
    ------
    UsageError
        When the split cannot be used, or a class has too few rows or groups to be on both sides.
    """
    shared: dict[str, Any] = {
        "task": "classification",
        "cv": 3,
        "groups": together,
        "search": False,
        "random_state": random_state,
    }
    return make_folds(y, **shared)[0] if splits is None else predefined_fold(y, splits, **shared)


def _first_of_groups(rows: Rows, together: Rows | None) -> Rows:
    return rows if together is None else rows[np.sort(np.unique(together[rows], return_index=True)[1])]


def _point(
    size: int | None, n_labels: int, head: Head, accuracies: NDArray[np.float64], logs: list[FitLog]
) -> CurvePoint:
    failures = [log.failure for log in logs if log.failure is not None]
    if failures:  # so few rows may be too few for a head: five neighbours of two rows
        note = f"head {head.name!r} cannot be fitted on {n_labels} rows: {failures[0]}"
        return CurvePoint(size, n_labels, None, None, None, len(logs), note)
    found = mean_interval(accuracies)
    note = "; ".join(grid_search.notes(head, [], logs))
    return CurvePoint(size, n_labels, found.mean, found.std, found.ci95, len(logs), note or None)
