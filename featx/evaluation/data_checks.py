"""What must hold of a matrix, its labels, groups and splits before heads are judged on them; it judges none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.evaluation.folds import Fold, inseparable_rows, make_folds, predefined_fold
from featx.evaluation.heads import Head, Task

__all__ = ["check_whole", "checked_data", "checked_labels", "outer_folds", "split_notes", "unseen_notes"]


def check_whole(name: str, value: Any, *, least: int) -> None:
    """Raise UsageError unless the value is a whole number of at least so much."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name}: expected a whole number from {least}, got {value!r}.")


def checked_data(
    X: ArrayLike,
    y: ArrayLike,
    head: Head,
    *,
    cv: int,
    groups: ArrayLike | None,
    splits: Sequence[str] | NDArray[Any] | None,
    keys: NDArray[np.uint8] | None,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64] | None]:
    """Return X, y and the group number of every row (or None), or raise UsageError."""
    features = np.asarray(X)
    if features.ndim != 2 or features.dtype.kind not in "fiub":
        raise UsageError(
            f"X must be numbers of shape (n_samples, n_features); got {features.dtype} of shape"
            f" {features.shape}."
        )
    columns = {"y": y, "groups": groups, "splits": splits, "keys": keys}
    for name, column in columns.items():
        if column is not None and (got := len(np.asarray(column))) != len(features):
            raise UsageError(
                f"{name} must have one entry for each of the {len(features)} rows of X; got {got}."
            )
    # A sum is finite unless an entry is not, or the sum itself overflows: only then look at every entry.
    if not np.isfinite(features.sum(dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(features))
        if len(bad):
            row, column_number = bad[0]
            raise UsageError(
                f"X has {len(bad)} non-finite values, the first in row {row}, column {column_number}"
                f" ({features[row, column_number]}); extract these rows again or leave them out."
            )
    together = inseparable_rows(None if groups is None else np.asarray(groups), keys)
    return features, checked_labels(np.asarray(y), head, cv=cv), together


def checked_labels(y: NDArray[Any], head: Head, *, cv: int) -> NDArray[Any]:
    """Return labels that the head can learn, text as a str array, or raise UsageError."""
    check_whole("cv", cv, least=2)
    if y.dtype.kind == "O" and all(isinstance(label, str) for label in y):
        y = y.astype(str)
    if y.ndim != 1 or y.dtype.kind not in "Ufiub":
        raise UsageError(
            f"y must be strings or numbers of shape (n_samples,); got {y.dtype} of shape {y.shape}."
        )
    numeric = y.dtype.kind in "fiu"
    if numeric and not np.isfinite(y).all():
        raise UsageError(f"y has a label that is not finite in row {np.flatnonzero(~np.isfinite(y))[0]}.")
    if head.task == "regression":
        if not numeric:
            kind = "text" if y.dtype.kind == "U" else y.dtype
            raise UsageError(
                f"head {head.name!r} needs numeric labels; got {kind} such as {y[0].item()!r}."
                " Take a classification head (logreg, svm)."
            )
        return y
    if y.dtype.kind == "f" and (y != np.floor(y)).any():
        raise UsageError(
            f"head {head.name!r} needs classes; got continuous numbers such as {y[y != np.floor(y)][0]:g}."
            " Take a regression head (ridge_regression, svr)."
        )
    if len(classes := np.unique(y)) < 2:
        raise UsageError(f"a classifier needs two classes or more; every label is {classes[0].item()!r}.")
    return y


def split_notes(fold: Fold, y: NDArray[Any], together: NDArray[np.int64] | None, task: Task) -> list[str]:
    """Say what is wrong with the data's own split; it is the user's, so it is used as it is."""
    found = []
    if together is not None and (shared := int(np.isin(together[fold.test], together[fold.train]).sum())):
        found.append(
            f"{shared} of the {len(fold.test)} rows tested are exact copies of rows trained on, or of their"
            " group: the estimate flatters"
        )
    return found + (unseen_notes(y, fold.train, fold.test) if task == "classification" else [])


def unseen_notes(y: NDArray[Any], train: NDArray[np.int64], test: NDArray[np.int64]) -> list[str]:
    """Name the classes that are tested and that no training row has: every row of them is answered wrongly."""
    unseen = np.setdiff1d(y[test], y[train])
    return [f"classes tested that no training row has: {', '.join(map(str, unseen))}"] if len(unseen) else []


def outer_folds(
    labels: NDArray[Any],
    head: Head,
    *,
    cv: int,
    groups: NDArray[np.int64] | None,
    splits: Sequence[str] | NDArray[Any] | None,
    random_state: int | None,
) -> list[Fold]:
    """Return the folds to test on: shuffled ones or, with ``splits``, the one that the data itself defines.

    Raises
    ------
    UsageError
        When there are too few rows, groups or splits for that.
    """
    shared: dict[str, Any] = {
        "task": head.task,
        "cv": cv,
        "groups": groups,
        "search": len(head.candidates) > 1,
        "random_state": random_state,
    }
    return make_folds(labels, **shared) if splits is None else [predefined_fold(labels, splits, **shared)]
