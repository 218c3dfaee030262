"""Several extractors with several heads, judged by nested cross-validation on the same folds; it extracts nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.evaluation.contest import Contest, baseline_of
from featx.evaluation.data_checks import check_whole, checked_data, checked_labels, outer_folds, split_notes
from featx.evaluation.folds import Fold, inseparable_rows
from featx.evaluation.fused_search import stacking_folds
from featx.evaluation.fusion import Fusion, check_fusion
from featx.evaluation.heads import Head, Task, check_heads
from featx.evaluation.ranking import Entry, Ranking, rank
from featx.evaluation.scores import check_folds_give, check_metric
from featx.evaluation.seeds import checked_seed, repeat_seed

__all__ = ["HeadComparison", "check_comparison", "compare_heads"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeadComparison:
    """What `compare_heads` found.

    Attributes
    ----------
    task : {"classification", "regression"}
    metric : str
        What the ranking goes by.
    labels : array of shape (n_samples,)
    folds : list of Fold
        Of all repeats, one repeat after the other.
    n_repeats : int
    together : int64 array of shape (n_samples,) or None
        Group numbers of the rows that are never on both sides of a fold.
    ranking : Ranking
    notes : list of str
        What a reader should know of the whole; each entry has notes of its own.
    """

    task: Task
    metric: str
    labels: NDArray[Any]
    folds: list[Fold]
    n_repeats: int
    together: Rows | None
    ranking: Ranking
    notes: list[str]

    @property
    def best(self) -> Entry:
        """The entry with the highest mean."""
        return self.ranking.standings[1].entry


def compare_heads(
    X: ArrayLike,
    y: ArrayLike,
    heads: Sequence[Head],
    *,
    extractors: Mapping[str, Sequence[int]],
    widths: Sequence[int],
    names: Sequence[str] | None = None,
    metric: str | None = None,
    cv: int = 5,
    repeats: int = 1,
    fusion: Fusion = "early",
    n_components: int | None = None,
    groups: ArrayLike | None = None,
    splits: Sequence[str] | NDArray[Any] | None = None,
    keys: NDArray[np.uint8] | None = None,
    n_jobs: int | None = None,
    random_state: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadComparison:
    """Judge every head on every extractor by nested cross-validation, all on the same folds, and rank them.

    All that is learnt of the data, scales, components, parameters and stacks included, is learnt in the
    training rows of a fold. A search that two entries have in common is done once.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Finite numbers: the features of all parts side by side.
    y : array of shape (n_samples,)
        Strings or whole numbers for classification, finite numbers for regression.
    heads : sequence of Head
        All of one task.
    extractors : mapping of str to sequence of int
        Which parts each one is made of, by position; several are fused.
    widths : sequence of int
        Columns of each part, in the order of X.
    names : sequence of str, optional
        What messages call the parts.
    metric : str, optional
        What to rank by, one of `featx.evaluation.scores.METRICS`; by default accuracy, or r2.
    cv : int
        Folds, outer and inner.
    repeats : int
        How many times the rows are shuffled afresh and folded.
    fusion : {"early", "late"}
        How extractors of several parts are fused: :mod:`featx.evaluation.fusion`.
    n_components : int, optional
        Components that PCA, fitted in each fold, keeps of every part that has more columns.
    groups, splits, keys, n_jobs
        As in :func:`featx.evaluation.cross_validation.cross_validate`.
    random_state : int
        Seed of the first repeat's folds; the others have seeds of their own, made from it.
    progress : callable, optional
        Called with how many fits are done, and how many there are in all.

    Returns
    -------
    HeadComparison

    Raises
    ------
    UsageError
        When the data cannot be used so; the message says what to do.
    """
    check_heads(heads)
    features, labels, together = checked_data(X, y, heads[0], cv=cv, groups=groups, splits=splits, keys=keys)
    name, rounds = _checked_protocol(
        labels,
        heads,
        together,
        metric=metric,
        cv=cv,
        repeats=repeats,
        splits=splits,
        n_parts=[len(parts) for parts in extractors.values()],
        fusion=fusion,
        n_components=n_components,
        random_state=random_state,
    )
    task = heads[0].task
    folds = [fold for one in rounds for fold in one]
    contest = Contest(
        X=features,
        y=labels,
        folds=folds,
        seeds=[repeat_seed(random_state, repeat) for repeat, one in enumerate(rounds) for _ in one],
        widths=widths,
        names=names,
        fusion=fusion,
        n_components=n_components,
        cv=cv,
        together=together,
        random_state=random_state,
        n_jobs=n_jobs,
    )
    entries = contest.run(heads, {name: tuple(parts) for name, parts in extractors.items()}, progress)
    ranking = rank(
        entries,
        baseline_of(labels, task, folds),
        labels,
        folds,
        task=task,
        metric=name,
        together=together,
        random_state=random_state,
    )
    data_notes = (
        _together_notes(groups, keys) if splits is None else split_notes(folds[0], labels, together, task)
    )
    notes = [*data_notes, *_inner_notes(folds, cv, splits), *ranking.notes]
    return HeadComparison(task, name, labels, folds, repeats, together, ranking, notes)


def check_comparison(
    y: ArrayLike,
    heads: Sequence[Head],
    *,
    n_parts: Sequence[int],
    metric: str | None = None,
    cv: int = 5,
    repeats: int = 1,
    fusion: Fusion = "early",
    n_components: int | None = None,
    groups: ArrayLike | None = None,
    splits: Sequence[str] | NDArray[Any] | None = None,
    random_state: int = 0,
) -> None:
    """Refuse what `compare_heads` could not do, before any feature is computed for it.

    The parameters are those of `compare_heads`; ``n_parts`` is of how many parts each extractor is made. Only exact
    copies, which the features' keys tell, and too many components are found later.

    Raises
    ------
    UsageError
        When the labels, groups, splits, heads or the protocol cannot be used so; the message says what to do.
    """
    check_heads(heads)
    labels = checked_labels(np.asarray(y), heads[0], cv=cv)
    _checked_protocol(
        labels,
        heads,
        inseparable_rows(None if groups is None else np.asarray(groups), None),
        metric=metric,
        cv=cv,
        repeats=repeats,
        splits=splits,
        n_parts=n_parts,
        fusion=fusion,
        n_components=n_components,
        random_state=random_state,
    )


def _checked_protocol(
    labels: NDArray[Any],
    heads: Sequence[Head],
    together: Rows | None,
    *,
    metric: str | None,
    cv: int,
    repeats: int,
    splits: Sequence[str] | NDArray[Any] | None,
    n_parts: Sequence[int],
    fusion: Fusion,
    n_components: int | None,
    random_state: int,
) -> tuple[str, list[list[Fold]]]:
    """Return the metric's name, and the folds of each repeat; or raise UsageError."""
    for head in heads[1:]:
        checked_labels(labels, head, cv=cv)
    checked_seed(random_state)
    check_whole("repeats", repeats, least=1)
    if splits is not None and repeats > 1:
        raise UsageError(
            f"the data has its own split, which cannot be shuffled afresh {repeats} times; leave repeats at 1,"
            " or take the split column out."
        )
    many = max(n_parts)
    for head in heads:
        check_fusion(head, fusion=fusion, n_parts=many, n_components=n_components)
    name = check_metric(metric, heads)
    searched = max(heads, key=lambda head: len(head.candidates))
    rounds = [
        outer_folds(
            labels,
            searched,
            cv=cv,
            groups=together,
            splits=splits,
            random_state=repeat_seed(random_state, repeat),
        )
        for repeat in range(repeats)
    ]
    check_folds_give(name, labels, [fold for folds in rounds for fold in folds])
    if fusion == "late":
        for repeat, folds in enumerate(rounds):
            for fold in folds:
                seed = repeat_seed(random_state, repeat)
                stacking_folds(labels, fold, task=heads[0].task, cv=cv, groups=together, random_state=seed)
    return name, rounds


def _together_notes(groups: ArrayLike | None, keys: NDArray[np.uint8] | None) -> list[str]:
    found = []
    if groups is not None:
        found.append("rows of one group are never on both sides of a fold")
    if keys is not None and (n_copies := len(keys) - len(np.unique(keys, axis=0))):
        found.append(
            f"{n_copies} samples are exact copies of others; copies are never on both sides of a fold"
        )
    return found


def _inner_notes(folds: Sequence[Fold], cv: int, splits: Any) -> list[str]:
    counts = [len(fold.inner) for fold in folds if fold.inner]
    of_split = splits is not None and counts == [1]  # the split's own val
    if not counts or of_split or min(counts) >= cv:
        return []
    return [
        f"parameters were chosen by {min(counts)} inner folds instead of {cv}, as many as the smallest class of"
        " the training rows allows"
    ]
