"""Metrics of predictions, fold by fold and class by class, and the baseline beside them; it fits no head."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    mean_absolute_error,
    precision_recall_fscore_support,
    r2_score,
    recall_score,
    root_mean_squared_error,
)

from featx.evaluation.folds import Fold
from featx.evaluation.heads import Task

__all__ = [
    "MetricScores",
    "baseline_predictions",
    "score_predictions",
    "scores_by_class",
    "scores_by_metric",
]


@dataclass(frozen=True)
class MetricScores:
    """One metric over the folds: its mean, its population standard deviation, and every fold's value."""

    mean: float
    std: float
    folds: list[float]


def scores_by_metric(
    y: NDArray[Any], task: Task, folds: Sequence[Fold], predicted: Sequence[NDArray[Any]]
) -> dict[str, MetricScores]:
    """Return the task's metrics of each fold's predictions for its test rows.

    Parameters
    ----------
    y : array of shape (n_samples,)
        True labels.
    task : {"classification", "regression"}
        Gives ``accuracy, balanced_accuracy, f1_macro``, or ``r2, neg_root_mean_squared_error, neg_mean_absolute_error``.
    folds : sequence of Fold
        Which rows each fold tested.
    predicted : sequence of array
        Each fold's predictions, in the order of its ``test`` rows.
    """
    rows = [
        score_predictions(y[fold.test], answer, task=task)
        for fold, answer in zip(folds, predicted, strict=True)
    ]
    result = {}
    for name in rows[0]:
        values = [float(row[name]) for row in rows]
        result[name] = MetricScores(float(np.mean(values)), float(np.std(values)), values)
    return result


def baseline_predictions(y: NDArray[Any], task: Task, folds: Sequence[Fold]) -> list[NDArray[Any]]:
    """Return for each fold what knowing no feature predicts: the most frequent class, or the mean label."""
    dummy = DummyClassifier(strategy="most_frequent") if task == "classification" else DummyRegressor()
    nothing = np.zeros((len(y), 1))
    return [dummy.fit(nothing[fold.train], y[fold.train]).predict(nothing[fold.test]) for fold in folds]


def scores_by_class(y: NDArray[Any], predicted: NDArray[Any], classes: NDArray[Any]) -> list[dict[str, Any]]:
    """Return ``class, precision, recall, f1, support`` of every class, 0 where undefined."""
    columns = precision_recall_fscore_support(y, predicted, labels=classes, zero_division=0)
    return [
        {"class": label, "precision": p, "recall": r, "f1": f, "support": int(n)}
        for label, p, r, f, n in zip(classes.tolist(), *(column.tolist() for column in columns), strict=True)
    ]


def score_predictions(y: NDArray[Any], predicted: NDArray[Any], *, task: Task) -> dict[str, float]:
    """Return the task's metrics of some predictions, by scikit-learn's scorer names: greater is better."""
    score = _classification_scores if task == "classification" else _regression_scores
    return {name: float(value) for name, value in score(y, predicted).items()}


def _classification_scores(y: NDArray[Any], predicted: NDArray[Any]) -> Mapping[str, float]:
    return {
        "accuracy": accuracy_score(y, predicted),
        # The mean recall of the classes present is what balanced_accuracy_score computes, with a warning
        # for every prediction of a class that this fold happens to lack.
        "balanced_accuracy": recall_score(
            y, predicted, labels=np.unique(y), average="macro", zero_division=0
        ),
        "f1_macro": f1_score(y, predicted, average="macro", zero_division=0),
    }


def _regression_scores(y: NDArray[Any], predicted: NDArray[Any]) -> Mapping[str, float]:
    return {
        "r2": r2_score(y, predicted),
        "neg_root_mean_squared_error": -root_mean_squared_error(y, predicted),
        "neg_mean_absolute_error": -mean_absolute_error(y, predicted),
    }
