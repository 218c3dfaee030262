"""Which rows are fitted on, chosen on and tested on, so that nothing tested was ever learnt from."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.errors import UsageError
from featx.evaluation.heads import Task

__all__ = ["Fold", "inseparable_rows", "make_folds", "predefined_fold", "whole_fold"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """The rows of one round: fit on ``train``, score on ``test``, choose parameters on ``inner``.

    Attributes
    ----------
    train, test : int64 array of shape (n,)
        Row numbers; ``test`` is empty for the final fit.
    inner : list of (train, validation) pairs
        Row numbers within ``train``; empty when nothing has to be chosen.
    """

    train: Rows
    test: Rows
    inner: list[tuple[Rows, Rows]]


def inseparable_rows(groups: NDArray[Any] | None, keys: NDArray[np.uint8] | None) -> Rows | None:
    """Return a group number for every row: rows of one group, and exact copies, belong together.

    Groups that share a copy become one group. None when every row stands for itself.

    Parameters
    ----------
    groups : array of shape (n_samples,) or None
        What the data says belongs together (a patient, a scene).
    keys : uint8 array of shape (n_samples, 32) or None
        Digest of every sample's content.
    """
    number = None if groups is None else _group_numbers(groups)
    if keys is None:
        return number
    # Fixed-width byte strings: what numpy strips of them, trailing zeros, it pads again when comparing.
    texts = np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").ravel()
    distinct, copy = np.unique(texts, return_inverse=True)
    if len(distinct) == len(texts):
        return number
    if number is None:
        return copy
    n_groups = int(number.max()) + 1
    n_nodes = n_groups + len(distinct)
    edges = coo_array((np.ones(len(copy), np.int8), (number, n_groups + copy)), shape=(n_nodes, n_nodes))
    component: Rows = connected_components(edges, directed=False)[1]
    return component[number]


def _group_numbers(groups: NDArray[Any]) -> Rows:
    """Number the groups; a row whose group is missing is a group of its own."""
    missing = np.array([group is None or group != group for group in groups.tolist()], bool)
    number = np.empty(len(groups), np.int64)
    number[~missing] = np.unique(groups[~missing], return_inverse=True)[1]
    number[missing] = number[~missing].max(initial=-1) + 1 + np.arange(missing.sum())
    return number


def make_folds(
    y: NDArray[Any], *, task: Task, cv: int, groups: Rows | None, search: bool, random_state: int | None
) -> list[Fold]:
    """Return ``cv`` folds over all rows, each with inner folds over its training rows when ``search``.

    Shuffled, stratified by class for classification, never splitting a group.

    Raises
    ------
    UsageError
        When a class, or the data, has too few rows or groups for that.
    """
    every_row = np.arange(len(y))
    _check_enough(y, task=task, cv=cv, groups=groups)
    return [
        Fold(train, test, _inner(y, train, task, cv, groups, random_state) if search else [])
        for train, test in _split(y, every_row, task, cv, groups, random_state)
    ]


def whole_fold(
    y: NDArray[Any], *, task: Task, cv: int, groups: Rows | None, search: bool, random_state: int | None
) -> Fold:
    """Return the final fit as a fold: all rows train, none test; parameters are chosen as in `make_folds`."""
    every_row = np.arange(len(y))
    inner = _inner(y, every_row, task, cv, groups, random_state) if search else []
    return Fold(every_row, every_row[:0], inner)


def predefined_fold(
    y: NDArray[Any],
    splits: Iterable[str],
    *,
    task: Task,
    cv: int,
    groups: Rows | None,
    search: bool,
    random_state: int | None,
) -> Fold:
    """Return the one fold that the data itself defines.

    With train, val and test rows: chosen on val, fitted on train and val, scored on test. With train and
    test, or train and val: chosen by inner folds of train, fitted on train, scored on the other.

    Raises
    ------
    UsageError
        When a split has an unknown name, or one that is needed has no rows.
    """
    names = np.array([_split_name(split) for split in splits])
    train, val, test = (np.flatnonzero(names == name) for name in ("train", "val", "test"))
    if not len(train) or not len(val) + len(test):
        raise UsageError(
            "the splits need rows to train on and rows to test on: train, and test or val; got"
            f" {len(train)} train, {len(val)} val, {len(test)} test."
        )
    if len(val) and len(test):
        both = np.sort(np.concatenate([train, val]))
        inner = [(train, val)] if search else []
        _check_usable(y, [(train, val), (both, test)], task)
        return Fold(both, test, inner)
    held_out = test if len(test) else val
    _check_usable(y, [(train, held_out)], task)
    return Fold(train, held_out, _inner(y, train, task, cv, groups, random_state) if search else [])


_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}


def _split_name(split: str) -> str:
    name = _SPLIT_NAMES.get(str(split).strip().lower())
    if name is None:
        raise UsageError(f"unknown split {_shown(split)}; expected one of {', '.join(_SPLIT_NAMES)}.")
    return name


def _split(
    y: NDArray[Any], rows: Rows, task: Task, n_folds: int, groups: Rows | None, random_state: int | None
) -> list[tuple[Rows, Rows]]:
    options = {"n_splits": n_folds, "shuffle": True, "random_state": random_state}
    if task == "classification":
        splitter = StratifiedKFold(**options) if groups is None else StratifiedGroupKFold(**options)
    else:
        splitter = KFold(**options) if groups is None else GroupKFold(**options)
    pairs = splitter.split(rows, y[rows], None if groups is None else groups[rows])
    found = [(rows[train], rows[test]) for train, test in pairs]
    _check_usable(y, found, task)
    return found


def _inner(
    y: NDArray[Any], rows: Rows, task: Task, cv: int, groups: Rows | None, random_state: int | None
) -> list[tuple[Rows, Rows]]:
    """Return at most ``cv`` folds of ``rows``, fewer where the smallest class asks for it, at least two."""
    labels, counts = _members(y[rows], task, None if groups is None else groups[rows])
    smallest = int(counts.argmin())
    if counts[smallest] < 2:
        whose = f"class {_shown(labels[smallest])} has" if task == "classification" else "the data has"
        what, more = ("row", "samples") if groups is None else ("group (exact copies count as one)", "groups")
        raise UsageError(
            f"{whose} 1 {what} in a training part, but the head's search needs 2 to choose its parameters;"
            f" add {more}, drop the class, or take a head that needs no search (centroid)."
        )
    n_folds = min(cv, int(counts[smallest]))
    if task == "regression":
        n_folds = max(2, min(n_folds, len(rows) // 2))
    return _split(y, rows, task, n_folds, groups, random_state)


def _members(y: NDArray[Any], task: Task, groups: Rows | None) -> tuple[NDArray[Any], Rows]:
    """Return how many rows, or groups, each class has; regression counts as one class."""
    labels, number = np.unique(y, return_inverse=True)
    if task == "regression":
        labels, number = labels[:1], np.zeros(len(y), np.int64)
    if groups is not None:
        number = np.unique(np.stack([number, groups], axis=1), axis=0)[:, 0]
    return labels, np.bincount(number)


def _check_enough(y: NDArray[Any], *, task: Task, cv: int, groups: Rows | None) -> None:
    if task == "regression" and cv > len(y):
        way = f"Lower cv to {len(y) // 2}, or add samples." if len(y) >= 4 else "Add samples."
        raise UsageError(f"{cv} folds need at least {cv} rows; got {len(y)}. {way}")
    n_groups = len(y) if groups is None else len(np.unique(groups))
    too_few = (
        f"{cv} folds need at least {cv} groups (exact copies count as one); got {n_groups}."
        f" {f'Lower cv to {n_groups}, or add' if n_groups > 1 else 'Add'} groups."
    )
    if task == "regression":
        if cv > n_groups:
            raise UsageError(too_few)
        return
    labels, counts = np.unique(y, return_counts=True)
    numbers = ""
    if y.dtype.kind in "iuf":
        numbers = " Where labels are no classes, take a regression head (ridge_regression, svr)."
    smallest = int(counts.argmin())
    label, count = _shown(labels[smallest]), int(counts[smallest])
    if count == 1:
        raise UsageError(
            f"class {label} has 1 row, which cannot be both fitted and tested; add samples or drop the class."
            + numbers
        )
    # Before the number of folds, which no class of one group gets any further with.
    _, members = _members(y, task, groups)
    if members.min() < 2:
        raise UsageError(
            f"all rows of class {_shown(labels[members.argmin()])} belong to one group (exact copies count as"
            " one), which cannot be both fitted and tested; add groups or drop the class."
        )
    if count < cv:
        raise UsageError(
            f"class {label} has {count} rows, fewer than the {cv} folds; lower cv to {min(count, n_groups)}, add"
            f" samples or drop the class.{numbers}"
        )
    if cv > n_groups:
        raise UsageError(too_few)


def _check_usable(y: NDArray[Any], pairs: list[tuple[Rows, Rows]], task: Task) -> None:
    for train, test in pairs:
        if not len(train) or not len(test):
            way = "Lower cv, or add groups" if len(pairs) > 2 else "Add groups"
            raise UsageError(f"the groups are too unequal for so many folds: one would be empty. {way}.")
        if task == "regression" and len(test) < 2:
            raise UsageError("a fold of one row has no r2. Lower cv, or test on two rows or more.")
        if task == "classification" and len(np.unique(y[train])) < 2:
            raise UsageError(
                f"a training part has the one class {_shown(y[train[0]])}; a classifier needs two. Lower cv,"
                " add samples, or spread the classes over groups and splits."
            )


def _shown(label: Any) -> str:
    """Return a label as a user wrote it: no numpy type name around it."""
    return repr(label.item() if isinstance(label, np.generic) else label)
