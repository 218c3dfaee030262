"""Nested cross-validation of a head on features, and the final search; it extracts no features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix

from featx.evaluation import grid_search
from featx.evaluation.data_checks import checked_data, checked_labels, outer_folds, split_notes
from featx.evaluation.folds import inseparable_rows, predefined_fold, whole_fold
from featx.evaluation.fused_search import choose_fused
from featx.evaluation.fusion import Fusion, plain
from featx.evaluation.heads import Head, Task
from featx.evaluation.scores import (
    METRICS,
    MetricScores,
    baseline_answers,
    scores_by_class,
    scores_by_metric,
    undefined_notes,
)

__all__ = ["Evaluation", "SearchResult", "check_labels", "cross_validate", "search"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What nested cross-validation found.

    Attributes
    ----------
    task : {"classification", "regression"}
        What was learnt.
    primary : str
        The metric that the search used and that a summary should show: ``"accuracy"`` or ``"r2"``.
    metrics : dict of str to MetricScores
        Those of `featx.evaluation.scores.METRICS` that the head can be judged by; greater is better.
    baseline : dict of str to MetricScores
        The same for always answering the most frequent class, or the mean, of the training rows.
    classes : list
        The classes, sorted; empty for regression.
    per_class : list of dict
        ``class, precision, recall, f1, support`` over all rows tested; empty for regression.
    confusion : int64 array of shape (n_classes, n_classes) or None
        Rows tested, by true class (row) and predicted class (column); None for regression.
    predictions : masked array of shape (n_samples,)
        The prediction for every row by the fold that tested it; masked where no fold did.
    fold_of_row : int64 array of shape (n_samples,)
        Which fold tested the row; -1 where none did.
    best_params : list of dict
        The parameters chosen in each fold.
    notes : list of str
        What a reader should know besides, in sentences: fits that did not converge, a best value at the
        edge of its grid, copies on both sides of the data's own split.
    """

    task: Task
    primary: str
    metrics: dict[str, MetricScores]
    baseline: dict[str, MetricScores]
    classes: list[Any]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64] | None
    predictions: np.ma.MaskedArray[Any, Any]
    fold_of_row: NDArray[np.int64]
    best_params: list[dict[str, Any]]
    notes: list[str]

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {scores.mean:.3f}" for name, scores in self.metrics.items())
        n_folds = len(self.metrics[self.primary].folds)
        return f"Evaluation({self.task}, {n_folds} fold{'s' * (n_folds > 1)}: {scores})"


@dataclass(frozen=True, eq=False)
class SearchResult:
    """A head fitted with the best parameters of its grid.

    Attributes
    ----------
    estimator : sklearn.base.BaseEstimator
        The fitted head.
    best_params : dict
        The parameters chosen; empty where the grid is.
    best_score : float or None
        Their mean accuracy, or r2, over the inner folds. It is the best of many, so it flatters:
        `cross_validate` gives the estimate. None where there was nothing to choose, and of a stack,
        whose parts are chosen one by one.
    notes : list of str
        As in `Evaluation`.
    """

    estimator: Any
    best_params: dict[str, Any]
    best_score: float | None
    notes: list[str]


def cross_validate(
    X: ArrayLike,
    y: ArrayLike,
    head: Head,
    *,
    cv: int = 5,
    groups: ArrayLike | None = None,
    splits: Sequence[str] | NDArray[Any] | None = None,
    keys: NDArray[np.uint8] | None = None,
    n_jobs: int | None = None,
    random_state: int | None = 0,
    progress: Callable[[int, int], None] | None = None,
    widths: Sequence[int] | None = None,
    fusion: Fusion = "early",
    n_components: int | None = None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Estimate how well a head does on rows it has not seen, its parameters chosen without them.

    Each outer fold searches the head's grid by inner folds of its training rows, fits the best on all of
    them, and predicts its test rows. All that is learnt, scales and class weights included, is learnt there.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Finite numbers.
    y : array of shape (n_samples,)
        Strings or whole numbers for classification, finite numbers for regression.
    head : Head
        From :func:`featx.evaluation.heads.load_head`.
    cv : int
        Folds, at least 2; shuffled, and stratified by class. The search uses as many inside, or as many as
        the smallest class of the training rows allows.
    groups : array of shape (n_samples,) or None
        Rows of one group are never on both sides of a fold.
    splits : sequence of str of length n_samples, or None
        The data's own split, used instead of folds: ``train`` (``training``), ``val`` (``valid``,
        ``validation``, ``dev``) and ``test``. With all three, parameters are chosen on val, the head is
        fitted on train and val, and test is scored; without test, val is scored and never fitted.
    keys : uint8 array of shape (n_samples, 32) or None
        Digests of the samples' content: exact copies count as one group.
    n_jobs : int or None
        Processes to fit in; None is one, which is best for a few hundred rows.
    random_state : int or None
        Seed of the shuffling.
    progress : callable or None
        Called after each fit of the search with how many are done, and how many there are.
    widths : sequence of int or None
        Columns of each extractor in X, side by side; None for one extractor.
    fusion : {"early", "late"}
        One head on all extractors, or one head each and a last one that weighs them: :mod:`featx.evaluation.fusion`.
    n_components : int or None
        Components that PCA keeps of each extractor; None for all features.
    names : sequence of str or None
        What messages call the extractors.

    Returns
    -------
    Evaluation

    Raises
    ------
    UsageError
        When the data cannot be used so; the message says what to do.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featx.evaluation.heads import load_head
    >>> X, y = load_iris(return_X_y=True)
    >>> evaluation = cross_validate(X, y, load_head("centroid"))
    >>> round(evaluation.metrics["accuracy"].mean, 2), round(evaluation.baseline["accuracy"].mean, 2)
    (0.78, 0.33)
    """
    features, labels, together = checked_data(X, y, head, cv=cv, groups=groups, splits=splits, keys=keys)
    folds = outer_folds(labels, head, cv=cv, groups=together, splits=splits, random_state=random_state)
    notes = [] if splits is None else split_notes(folds[0], labels, together, head.task)
    heads, choices = choose_fused(
        features,
        labels,
        head,
        folds,
        widths=widths,
        fusion=fusion,
        n_components=n_components,
        cv=cv,
        groups=together,
        random_state=random_state,
        n_jobs=n_jobs,
        progress=progress,
        names=names,
    )
    told = grid_search.fit_and_predict(features, labels, heads, folds, choices, n_jobs=n_jobs)
    predicted = [answer.predicted for answer in told]
    metrics = scores_by_metric(labels, head.task, folds, told)
    notes += [*grid_search.notes(head, choices, [answer.log for answer in told]), *undefined_notes(metrics)]

    fold_of_row = np.full(len(labels), -1)
    answers = np.empty(len(labels), dtype=np.result_type(*predicted))
    for number, (fold, answer) in enumerate(zip(folds, predicted, strict=True)):
        fold_of_row[fold.test] = number
        answers[fold.test] = answer
    tested = fold_of_row >= 0
    classes: list[Any] = []
    per_class: list[dict[str, Any]] = []
    confusion = None
    if head.task == "classification":
        distinct = np.unique(labels)
        classes = distinct.tolist()
        per_class = scores_by_class(labels[tested], answers[tested], distinct)
        confusion = confusion_matrix(labels[tested], answers[tested], labels=distinct)
    return Evaluation(
        task=head.task,
        primary=METRICS[head.task][0],
        metrics=metrics,
        baseline=scores_by_metric(labels, head.task, folds, baseline_answers(labels, head.task, folds)),
        classes=classes,
        per_class=per_class,
        confusion=confusion,
        predictions=np.ma.MaskedArray(answers, mask=~tested),
        fold_of_row=fold_of_row,
        best_params=[choice.params for choice in choices],
        notes=notes,
    )


def check_labels(
    y: ArrayLike,
    head: Head,
    *,
    cv: int = 5,
    groups: ArrayLike | None = None,
    splits: Sequence[str] | NDArray[Any] | None = None,
    random_state: int | None = 0,
) -> None:
    """Refuse labels that `cross_validate` could not use, before any feature is computed for them.

    The parameters are those of `cross_validate`. Only exact copies, which the features' keys tell, are found later.

    Raises
    ------
    UsageError
        When the labels, the groups or the splits cannot be used so; the message says what to do.
    """
    labels = checked_labels(np.asarray(y), head, cv=cv)
    together = inseparable_rows(None if groups is None else np.asarray(groups), None)
    outer_folds(labels, head, cv=cv, groups=together, splits=splits, random_state=random_state)


def search(
    X: ArrayLike,
    y: ArrayLike,
    head: Head,
    *,
    cv: int = 5,
    groups: ArrayLike | None = None,
    splits: Sequence[str] | NDArray[Any] | None = None,
    keys: NDArray[np.uint8] | None = None,
    n_jobs: int | None = None,
    random_state: int | None = 0,
    progress: Callable[[int, int], None] | None = None,
    widths: Sequence[int] | None = None,
    fusion: Fusion = "early",
    n_components: int | None = None,
    names: Sequence[str] | None = None,
) -> SearchResult:
    """Choose a head's parameters and fit it: on all rows, or with ``splits`` on those that are not scored.

    What `cross_validate` does in each fold, done once more for the head that is kept. The parameters and
    errors are those of `cross_validate`; with ``splits`` the head is the very one that it scored.

    Returns
    -------
    SearchResult
    """
    features, labels, together = checked_data(X, y, head, cv=cv, groups=groups, splits=splits, keys=keys)
    many = len(head.candidates) > 1
    if splits is None:
        fold = whole_fold(
            labels, task=head.task, cv=cv, groups=together, search=many, random_state=random_state
        )
    else:
        fold = predefined_fold(
            labels, splits, task=head.task, cv=cv, groups=together, search=many, random_state=random_state
        )
    (fused,), (choice,) = choose_fused(
        features,
        labels,
        head,
        [fold],
        widths=widths,
        fusion=fusion,
        n_components=n_components,
        cv=cv,
        groups=together,
        random_state=random_state,
        n_jobs=n_jobs,
        progress=progress,
        names=names,
    )
    estimator, log = grid_search.fit(features, labels, fused, choice.params, fold.train)
    return SearchResult(
        plain(estimator), choice.params, choice.score, grid_search.notes(head, [choice], [log])
    )
