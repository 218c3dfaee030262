"""Metrics of answers, fold by fold and class by class, and the baseline beside them; it fits no head.

They bear the names of scikit-learn's scorers, and greater is better, so the errors are negative.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    precision_recall_fscore_support,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)

from featx.errors import UsageError
from featx.evaluation import grid_search
from featx.evaluation.folds import Fold
from featx.evaluation.grid_search import Answer, Choice
from featx.evaluation.heads import Head, Task, score_method

__all__ = [
    "METRICS",
    "MetricScores",
    "baseline_answers",
    "check_folds_give",
    "check_metric",
    "score_answer",
    "score_predictions",
    "scores_by_class",
    "scores_by_metric",
    "undefined_notes",
]

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": (
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "precision_macro",
        "recall_macro",
        "roc_auc_ovr",
        "neg_log_loss",
    ),
    "regression": ("r2", "neg_root_mean_squared_error", "neg_mean_absolute_error"),
}
"""The metrics of each task; the first is what heads are searched and, unless said otherwise, ranked by.

``roc_auc_ovr`` is the name for two classes too, where it is scikit-learn's ``roc_auc``. It needs class
scores: probabilities, or a decision function. ``neg_log_loss`` needs probabilities.
"""


@dataclass(frozen=True)
class MetricScores:
    """One metric over the folds: its mean, its population standard deviation, and every fold's value.

    A fold in which the metric is undefined has None, and is left out of the mean.
    """

    mean: float
    std: float
    folds: list[float | None]


def check_metric(metric: str | None, heads: Sequence[Head]) -> str:
    """Return the metric to rank these heads by, the task's first where none is named.

    Raises
    ------
    UsageError
        When the heads' task has no such metric, or a head lacks the probabilities or scores that it needs.
    """
    known = METRICS[heads[0].task]
    if metric is None:
        return known[0]
    if metric not in known:
        close = difflib.get_close_matches(metric, known, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UsageError(
            f"unknown metric {metric!r} for {heads[0].task}.{hint} Metrics: {', '.join(known)}; greater is better."
        )
    for head in heads:
        gives = ["predict_proba"] if metric == "neg_log_loss" else ["predict_proba", "decision_function"]
        if metric in _OF_CLASS_SCORES and score_method(head.pipeline) not in gives:
            what = "probabilities" if metric == "neg_log_loss" else "class scores"
            raise UsageError(
                f"metric {metric!r} needs {what}, which head {head.name!r} lacks; leave the head out, or"
                f" rank by another metric ({known[0]})."
            )
    return metric


_OF_CLASS_SCORES = ("roc_auc_ovr", "neg_log_loss")


def check_folds_give(metric: str, y: NDArray[Any], folds: Sequence[Fold]) -> None:
    """Refuse a metric that has no value in any fold, whatever a head answers, before one is fitted.

    Raises
    ------
    UsageError
        When every fold has a class on one side only that the metric needs on both.
    """
    if metric not in _OF_CLASS_SCORES:
        return
    reasons = [_why_undefined(metric, np.unique(y[fold.train]), np.unique(y[fold.test])) for fold in folds]
    if all(reasons):
        where = "the data's own split" if len(folds) == 1 else f"any of the {len(folds)} folds"
        raise UsageError(
            f"metric {metric!r} has no value in {where}: {reasons[0]}. Rank by another metric (accuracy), or have"
            " every class on both sides."
        )


def _why_undefined(metric: str, fitted: NDArray[Any], tested: NDArray[Any]) -> str | None:
    unseen, lacking = np.setdiff1d(tested, fitted), np.setdiff1d(fitted, tested)
    if len(unseen):
        return f"no training row is of class {unseen[0].item()!r}, which is tested"
    if len(lacking) and metric == "roc_auc_ovr":
        return f"no row tested is of class {lacking[0].item()!r}"
    return None


def scores_by_metric(
    y: NDArray[Any], task: Task, folds: Sequence[Fold], answers: Sequence[Answer]
) -> dict[str, MetricScores]:
    """Return the task's metrics of each fold's answers for its test rows.

    Parameters
    ----------
    y : array of shape (n_samples,)
        True labels.
    task : {"classification", "regression"}
        Gives those of `METRICS` that the answers allow in at least one fold.
    folds : sequence of Fold
        Which rows each fold tested.
    answers : sequence of Answer
        Each fold's, in the order of its ``test`` rows.
    """
    rows = [
        score_answer(y[fold.test], answer, task=task) for fold, answer in zip(folds, answers, strict=True)
    ]
    result = {}
    for name in METRICS[task]:
        values = [row.get(name) for row in rows]
        defined = [value for value in values if value is not None]
        if defined:
            result[name] = MetricScores(float(np.mean(defined)), float(np.std(defined)), values)
    return result


def undefined_notes(metrics: Mapping[str, MetricScores]) -> list[str]:
    """Say which metrics have no value in some of the folds."""
    missing = {name: sum(value is None for value in scores.folds) for name, scores in metrics.items()}
    return [
        f"{name} has no value in {count} of {len(metrics[name].folds)} folds, which lack a class: it is the"
        " mean of the others"
        for name, count in missing.items()
        if count
    ]


def baseline_answers(y: NDArray[Any], task: Task, folds: Sequence[Fold]) -> list[Answer]:
    """Return for each fold what knowing no feature answers.

    The most frequent class of the training rows, with the classes' shares as probabilities; or their mean label.
    """
    dummy = DummyClassifier(strategy="prior") if task == "classification" else DummyRegressor()
    head = Head("majority" if task == "classification" else "mean", dummy, {}, task)
    n_folds = len(folds)
    nothing = np.zeros((len(y), 1))
    return grid_search.fit_and_predict(
        nothing, y, [head] * n_folds, folds, [Choice({}, None, {}, [])] * n_folds, n_jobs=None
    )


def scores_by_class(y: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> list[dict[str, Any]]:
    """Return ``class, precision, recall, f1, support`` of every class, 0 where undefined."""
    columns = precision_recall_fscore_support(y, predicted, labels=classes, zero_division=0)
    return [
        {"class": label, "precision": p, "recall": r, "f1": f, "support": int(n)}
        for label, p, r, f, n in zip(classes.tolist(), *(column.tolist() for column in columns), strict=True)
    ]


def score_answer(y: NDArray[Any], answer: Answer, *, task: Task) -> dict[str, float | None]:
    """Return the task's metrics of an answer; those that need class scores only where it has them.

    A metric that these rows leave undefined (an area under the curve where a class has no row) is None.
    """
    found: dict[str, float | None] = {**score_predictions(y, answer.predicted, task=task)}
    classes, scores = answer.classes, answer.scores
    if task == "regression" or classes is None or scores is None or scores.shape[1] != len(classes):
        return found
    tested = np.unique(y)
    known = bool(np.isin(tested, classes).all())
    found["roc_auc_ovr"] = None
    if known and len(tested) == len(classes):
        # Of two classes the second says it all. One class against the rest needs no probabilities, only an order.
        columns = [1] if len(classes) == 2 else range(len(classes))
        areas = [roc_auc_score(y == classes[column], scores[:, column]) for column in columns]
        found["roc_auc_ovr"] = float(np.mean(areas))
    if answer.are_probabilities:
        found["neg_log_loss"] = -float(log_loss(y, scores, labels=classes)) if known else None
    return found


def score_predictions(y: NDArray[Any], predicted: NDArray[Any], *, task: Task) -> dict[str, float]:
    """Return those of the task's metrics that need no class scores."""
    score = _classification_scores if task == "classification" else _regression_scores
    return {name: float(value) for name, value in score(y, predicted).items()}


def _classification_scores(y: NDArray[Any], predicted: NDArray[Any]) -> Mapping[str, float]:
    macro: dict[str, Any] = {"average": "macro", "zero_division": 0}
    return {
        "accuracy": accuracy_score(y, predicted),
        # The mean recall of the classes present is what balanced_accuracy_score computes, with a warning
        # for every prediction of a class that this fold happens to lack.
        "balanced_accuracy": recall_score(y, predicted, labels=np.unique(y), **macro),
        "f1_macro": f1_score(y, predicted, **macro),
        "precision_macro": precision_score(y, predicted, **macro),
        "recall_macro": recall_score(y, predicted, **macro),
    }


def _regression_scores(y: NDArray[Any], predicted: NDArray[Any]) -> Mapping[str, float]:
    return {
        "r2": r2_score(y, predicted),
        "neg_root_mean_squared_error": -root_mean_squared_error(y, predicted),
        "neg_mean_absolute_error": -mean_absolute_error(y, predicted),
    }
