"""Choosing the parameters of a fused head by inner folds; for early fusion it is the plain search."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.evaluation import grid_search
from featx.evaluation.folds import Fold, whole_fold
from featx.evaluation.fusion import Fusion, check_fusion, early, late, part_heads, parts_matrix
from featx.evaluation.grid_search import Choice
from featx.evaluation.heads import Head, Task

__all__ = ["check_components", "choose_fused", "joint_choice", "stacking_folds"]

Rows = NDArray[np.int64]


def choose_fused(
    X: NDArray[Any],
    y: NDArray[Any],
    head: Head,
    folds: Sequence[Fold],
    *,
    widths: Sequence[int] | None,
    fusion: Fusion,
    n_components: int | None,
    cv: int,
    groups: Rows | None,
    random_state: int | None,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None = None,
    names: Sequence[str] | None = None,
) -> tuple[list[Head], list[Choice]]:
    """Return the head to fit in every fold, and the parameters chosen for it there.

    Late fusion searches the head's grid on each part by itself. Its choice holds the parameters of all
    parts (``part1__...``) and no score, as the stack itself is not searched.

    Parameters
    ----------
    X, y, head, folds, n_jobs, progress
        As in :func:`featx.evaluation.grid_search.choose`.
    widths : sequence of int or None
        Columns of each part of X; None for one part.
    fusion, n_components, random_state
        As in :mod:`featx.evaluation.fusion`.
    cv, groups
        What the folds were made with; the folds of a stack are made likewise.
    names : sequence of str or None
        What messages call the parts.

    Raises
    ------
    UsageError
        When no candidate can be fitted, the head cannot be fused so, or there are too few rows to stack or for the
        components.
    """
    widths = [X.shape[1]] if widths is None else list(widths)
    if sum(widths) != X.shape[1]:
        raise UsageError(f"widths must add up to the {X.shape[1]} columns of X; got {widths}.")
    check_fusion(head, fusion=fusion, n_parts=len(widths), n_components=n_components)
    stacked = [
        replace(
            fold,
            inner=stacking_folds(y, fold, task=head.task, cv=cv, groups=groups, random_state=random_state),
        )
        for fold in (folds if fusion == "late" else [])
    ]
    check_components(n_components, widths, [*folds, *stacked], names=names)
    if fusion == "early":
        fused = early(head, widths, n_components=n_components, random_state=random_state)
        choices = grid_search.choose(X, y, fused, folds, n_jobs=n_jobs, progress=progress)
        return [fused] * len(folds), choices
    by_part = []
    heads = part_heads(head, widths, n_components=n_components, random_state=random_state)
    for number, part in enumerate(heads):
        told = None if progress is None else _part_of(progress, number, len(widths))
        part_X = np.ascontiguousarray(parts_matrix(X, widths, [number]))
        by_part.append(grid_search.choose(part_X, y, part, folds, n_jobs=n_jobs, progress=told))
    stacks, choices = [], []
    for fold, chosen in zip(stacked, zip(*by_part, strict=True), strict=True):
        stacks.append(
            late(head, widths, chosen, fold.inner, n_components=n_components, random_state=random_state)
        )
        choices.append(joint_choice(chosen))
    return stacks, choices


def stacking_folds(
    y: NDArray[Any], fold: Fold, *, task: Task, cv: int, groups: Rows | None, random_state: int | None
) -> list[tuple[Rows, Rows]]:
    """Return folds of a fold's training rows, as positions among them, for :func:`featx.evaluation.fusion.late`.

    They are the inner folds that the search uses, but for a data set's own split of train, val and test:
    what is fitted on train and val needs every row of both tested once, so they are folded together.

    Raises
    ------
    UsageError
        When a class has too few rows, or groups, to be in every training part.
    """
    labels = y[fold.train]
    together = None if groups is None else groups[fold.train]
    _check_twice(labels, task=task, groups=together)
    inner = whole_fold(
        labels, task=task, cv=cv, groups=together, search=True, random_state=random_state
    ).inner
    if task == "classification":
        n_classes = len(np.unique(labels))
        if any(len(np.unique(labels[train])) < n_classes for train, _ in inner):
            raise UsageError(
                "late fusion needs every class in every training part, but the groups (exact copies count"
                " as one) leave one out; add groups of the rare classes, or take early fusion."
            )
    return inner


def check_components(
    n_components: int | None,
    widths: Sequence[int],
    folds: Sequence[Fold],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Refuse more components than the smallest training part of these folds has rows.

    The parts, which are `widths` columns wide, are called by their `names`, or numbered from 1.

    Raises
    ------
    UsageError
    """
    if n_components is None or max(widths) <= n_components:
        return
    n_rows = min(len(train) for fold in folds for train in [fold.train, *(train for train, _ in fold.inner)])
    if n_components > n_rows:
        at = next(at for at, width in enumerate(widths) if width > n_components)
        name = f"part {at + 1}" if names is None else names[at]
        raise UsageError(
            f"PCA cannot make {n_components} components of {name}, {widths[at]} features wide:"
            f" the smallest training part has {n_rows} rows. Ask for {n_rows} components or fewer."
        )


def joint_choice(choices: Sequence[Choice]) -> Choice:
    """Return the choices of the parts of a stack as one, without a score: ``part1__...``, ``part2__...``."""

    def named(values: dict[str, Any], number: int) -> dict[str, Any]:
        return {f"part{number}__{name}": value for name, value in values.items()}

    params: dict[str, Any] = {}
    at_edge: dict[str, Any] = {}
    for number, choice in enumerate(choices, start=1):
        params |= named(choice.params, number)
        at_edge |= named(choice.at_edge, number)
    return Choice(params, None, at_edge, [log for choice in choices for log in choice.logs])


def _check_twice(y: NDArray[Any], *, task: Task, groups: Rows | None) -> None:
    """Refuse a class of one row, or one group, which could not be both fitted and tested in a stack."""
    labels, codes = np.unique(y, return_inverse=True)
    if task == "regression":
        codes = np.zeros_like(codes)
    members = np.stack([codes, np.arange(len(y)) if groups is None else groups])
    counts = np.bincount(np.unique(members, axis=1)[0])
    if counts.min() < 2:
        whose = f"class {labels[counts.argmin()].item()!r}" if task == "classification" else "the data"
        raise UsageError(
            f"late fusion needs two rows or more of every class, and groups (exact copies count as one), in every"
            f" training part; one has a single one of {whose}. Add samples, or take early fusion."
        )


def _part_of(progress: Callable[[int, int], None], number: int, n_parts: int) -> Callable[[int, int], None]:
    return lambda done, total: progress(number * total + done, n_parts * total)
