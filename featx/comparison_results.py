"""The results of a comparison as plain values, with what is worth knowing of its best contender; it ranks nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from featx.errors import UsageError
from featx.evaluation.comparison import HeadComparison
from featx.evaluation.few_shot.learning_curve import learning_curve
from featx.evaluation.folds import Fold
from featx.evaluation.fusion import component_notes, parts_matrix
from featx.evaluation.grid_search import Answer
from featx.evaluation.inspection import inspect_predictions, shown_rows
from featx.evaluation.ranking import Entry, Gain, Standing
from featx.evaluation.scores import scores_by_class
from featx.features import Features
from featx.samples import SampleTable
from featx.tracking import SCHEMA, plain_json, provenance, sample_records
from featx.wording import counted

__all__ = ["comparison_results"]

_CHOSEN_WITH_ALL = "its parameters were chosen with all labels of the fold, which flatters the small sizes"


def comparison_results(
    found: HeadComparison,
    features: Features,
    table: SampleTable,
    *,
    source: str,
    n_unlabelled: int,
    protocol: Mapping[str, Any],
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Return what ``results.json`` holds of a comparison, but for the command: see ``docs/comparing.md``.

    Parameters
    ----------
    found : HeadComparison
    features : Features
        Of all parts.
    table : SampleTable
        The samples that they were extracted from.
    source : str
        What the user called the data.
    n_unlabelled : int
        How many more samples had no label.
    protocol : mapping
        ``cv``, ``random_state``, ``n_components``, ``class_weight`` and ``heads`` of the comparison.
    n_jobs : int or None
        Processes to fit the learning curve in.
    progress : callable, optional
        Called with how many fits of the learning curve are done, and how many there are.
    """
    record = provenance(features, table, task=found.task, n_unlabelled=n_unlabelled, source=source)
    seed = protocol["random_state"]
    best, X = found.best, _columns(found.best, features)
    curve, notes = _curve(found, X, seed=seed, n_jobs=n_jobs, progress=progress)
    if n_unlabelled:
        notes.append(f"left out {counted(n_unlabelled, 'sample')} without a label")
    widths = [spec.n_features for spec in features.specs]
    notes += component_notes([one["label"] for one in record["extractors"]], widths, protocol["n_components"])
    plain = plain_json(
        {
            "schema": SCHEMA,
            "kind": "compare",
            "command": None,
            "directory": None,
            **record,
            "notes": [*found.notes, *notes],
            "protocol": {
                "task": found.task,
                "metric": found.metric,
                "cv": protocol["cv"],
                "repeats": found.n_repeats,
                "n_folds": len(found.folds),
                "grouped": features.groups is not None,
                "split": features.splits is not None,
                "random_state": seed,
                "n_components": protocol["n_components"],
                "class_weight": protocol["class_weight"],
                "heads": protocol["heads"],
                "n_train": round(float(np.mean([len(fold.train) for fold in found.folds]))),
                "n_test": round(float(np.mean([len(fold.test) for fold in found.folds]))),
            },
            "baseline": "most frequent class" if found.task == "classification" else "mean",
            "results": [_result(one, record["extractors"]) for one in found.ranking.standings],
            "best": _named(best),
            "fusion_gains": [_gain(one) for one in found.ranking.gains],
            "best_details": _details(found),
            "learning_curve": curve,
            "inspection": _inspection(found, X, features, table, seed=seed),
        }
    )
    assert isinstance(plain, dict)
    return plain


def _columns(entry: Entry, features: Features) -> NDArray[Any]:
    widths = [spec.n_features for spec in features.specs]
    return np.ascontiguousarray(parts_matrix(features.X, widths, entry.parts))


def _named(entry: Entry) -> dict[str, Any]:
    return {"extractor": entry.extractor, "head": entry.head, "fusion": entry.fusion}


def _result(standing: Standing, extractors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entry, difference = standing.entry, standing.difference
    return {
        **_named(entry),
        "label": "+".join(extractors[part]["label"] for part in entry.parts) or None,
        "parts": entry.parts,
        "n_features": sum(extractors[part]["n_features"] for part in entry.parts),
        "metrics": {
            name: {**asdict(scores), "ci95": standing.intervals[name]}
            for name, scores in entry.metrics.items()
        },
        "verdict": standing.verdict,
        "difference": 0.0 if difference is None else difference.mean,
        "difference_ci95": None if difference is None else difference.ci95,
        "p_value": None if difference is None else difference.p_value,
        "fit_seconds": float(np.mean([answer.fit_seconds for answer in entry.answers])),
        "predict_seconds": float(np.mean([answer.predict_seconds for answer in entry.answers])),
        "best_params": [choice.params for choice in entry.choices],
        "notes": entry.notes,
    }


def _details(found: HeadComparison) -> dict[str, Any] | None:
    """Return the best contender's confusion and scores by class, over the first repeat."""
    if found.task == "regression":
        return None
    predicted = _first_repeat(found)
    tested = ~np.ma.getmaskarray(predicted)
    truth, answers = found.labels[tested], np.ma.getdata(predicted)[tested]
    classes = np.unique(found.labels)
    return {
        "classes": classes,
        "confusion": confusion_matrix(truth, answers, labels=classes),
        "per_class": scores_by_class(truth, answers, classes),
    }


def _first_repeat(found: HeadComparison) -> "np.ma.MaskedArray[Any, Any]":
    """Return the best contender's prediction for every row in the first repeat, masked where no fold tested it."""
    n_folds = len(found.folds) // found.n_repeats
    answers = found.best.answers[:n_folds]
    values = np.empty(len(found.labels), dtype=np.result_type(*[answer.predicted for answer in answers]))
    untested = np.ones(len(values), bool)
    for fold, answer in zip(found.folds[:n_folds], answers, strict=True):
        values[fold.test], untested[fold.test] = answer.predicted, False
    return np.ma.MaskedArray(values, mask=untested)


def _curve(
    found: HeadComparison,
    X: NDArray[Any],
    *,
    seed: int,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the best contender's accuracy by labels per class in the first fold, and why there is none."""
    best = found.best
    if found.task == "regression":
        return None, []
    if best.fusion == "late":
        return None, ["no learning curve: the folds of a late fusion do not fit into few labels"]
    fold = found.folds[0]
    try:
        points = learning_curve(
            X,
            found.labels,
            best.fitted[0],
            best.choices[0].params,
            train=fold.train,
            test=fold.test,
            together=found.together,
            random_state=seed,
            n_jobs=n_jobs,
            progress=progress,
        )
    except UsageError as error:  # a split of the data's own may leave no rows for it; the comparison stands
        return None, [f"no learning curve: {error}"]
    return {
        "extractor": best.extractor,
        "head": best.head,
        "metric": "accuracy",
        "n_test": len(fold.test),
        "points": [asdict(point) for point in points],
        "note": _CHOSEN_WITH_ALL if best.choices[0].params else None,
    }, []


def _inspection(
    found: HeadComparison, X: NDArray[Any], features: Features, table: SampleTable, *, seed: int
) -> dict[str, Any]:
    """Return what to look at in the best contender's answers of the first repeat."""
    n_folds = len(found.folds) // found.n_repeats
    folds, answers = found.folds[:n_folds], found.best.answers[:n_folds]
    classes, scores = _class_scores(found.labels, folds, answers)
    inspection = inspect_predictions(
        X,
        found.labels,
        folds=folds,
        predicted=_first_repeat(found),
        scores=scores,
        classes=classes,
        are_probabilities=all(answer.are_probabilities for answer in answers),
        keys=features.keys,
        task=found.task,
        random_state=seed,
    )
    return {
        "extractor": found.best.extractor,
        "head": found.best.head,
        **inspection,
        "samples": sample_records(features, table, shown_rows(inspection)),
    }


def _class_scores(
    labels: NDArray[Any], folds: Sequence[Fold], answers: Sequence[Answer]
) -> tuple[NDArray[Any] | None, NDArray[np.float64] | None]:
    """Return the classes and every row's scores by class; None where a head has none, or not one a class."""
    classes = np.unique(labels)
    scores = np.full((len(labels), len(classes)), np.nan)
    for fold, answer in zip(folds, answers, strict=True):
        if answer.scores is None or answer.classes is None or answer.scores.shape[1] != len(answer.classes):
            return None, None
        scores[np.ix_(fold.test, np.searchsorted(classes, answer.classes))] = answer.scores
    return classes, scores


def _gain(gain: Gain) -> dict[str, Any]:
    return {
        "extractor": gain.extractor,
        "head": gain.head,
        "fusion": gain.fusion,
        "best_part": gain.best_part,
        "gain": gain.difference.mean,
        "ci95": gain.difference.ci95,
        "p_value": gain.difference.p_value,
    }
