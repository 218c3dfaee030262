"""From labelled samples to a fitted model: extract, estimate, search, fit on all."""

import importlib.metadata
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Unpack

import numpy as np

from featx.engine import Progress, SettingsKeywords, read_extractors
from featx.evaluation import check_labels, cross_validate, load_head, search
from featx.evaluation.fusion import Fusion, check_fusion, component_notes
from featx.features import extract
from featx.model import Model
from featx.samples import read_labelled
from featx.wording import counted

__all__ = ["fit"]

_VERSIONS = ("featx", "scikit-learn", "skops", "numpy", "torch", "torchvision", "Pillow")


def fit(
    samples: Any,
    extractors: Any,
    *,
    head: Any = "logreg",
    cv: int = 5,
    cache: str | os.PathLike[str] | None = None,
    labels: Any = None,
    groups: Any = None,
    class_weight: Mapping[Any, float] | str | None = None,
    random_state: int | None = 0,
    n_jobs: int | None = None,
    fusion: Fusion = "early",
    n_components: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Model:
    """Extract features, estimate by nested cross-validation, search the head's grid, fit on all.

    Parameters
    ----------
    samples : SampleTable, path, list of paths, arrays, images, DataFrame or torch Dataset
        Everything that `featx.read_samples` takes, with labels; rows without one are left out.
    extractors : str, ModuleExtractor, or list of these
        ``"resnet50"``, ``"resnet50+hog"``.
    head : str, path or scikit-learn estimator, default="logreg"
        A recipe's name, the path of a user's own recipe, or an unfitted estimator.
    cv : int
        Folds of the outer and the inner cross-validation.
    cache : path, optional
        Folder that keeps the vectors; None keeps them in memory only.
    labels, groups : array-like of shape (n_samples,), optional
        Override what the samples bring.
    class_weight : mapping or "balanced", optional
        Given to the head.
    random_state : int or None
        Seed of folds and head.
    n_jobs : int, optional
        Processes of the search, as scikit-learn counts them.
    fusion : {"early", "late"}
        Of several extractors. Early: one head on the features of all, side by side. Late: one head each, its
        parameters searched for each, and a last one that weighs what they say (stacking).
    n_components : int, optional
        Components that PCA, fitted on training rows only, keeps of each extractor's standardised features; an
        extractor with no more features than that is left as it is. None keeps all features.
    progress : callable, optional
        Called with a `featx.engine.Progress` while features are extracted, and while heads are fitted.
    **settings
        Fields of `featx.engine.Settings`.

    Returns
    -------
    Model
        Where the samples come with a ``split`` column, rows marked ``test`` were scored and never fitted on.

    Raises
    ------
    UsageError
        For samples without usable labels, a head that does not suit them, late fusion of one extractor, or
        more components than rows to fit them on.
    FeatxError
        Whatever `featx.extract` raises.
    """
    table, n_unlabelled = read_labelled(samples, labels=labels, groups=groups)
    recipe = load_head(head, class_weight=class_weight, random_state=random_state)
    assert table.y is not None
    protocol: dict[str, Any] = {"cv": cv, "random_state": random_state}
    check_labels(table.y, recipe, groups=table.groups, splits=table.splits, **protocol)
    asked = read_extractors(extractors)
    check_fusion(recipe, fusion=fusion, n_parts=len(asked), n_components=n_components)
    features = extract(table, asked, cache=cache, progress=progress, **settings)
    assert features.y is not None
    shared: dict[str, Any] = {
        **protocol,
        "groups": features.groups,
        "splits": features.splits,
        "keys": features.keys,
        "n_jobs": n_jobs,
        "widths": [spec.n_features for spec in features.specs],
        "fusion": fusion,
        "n_components": n_components,
        "names": [spec.text for spec in features.specs],
    }
    if progress is not None:
        shared["progress"] = lambda done, total: progress(Progress(done, total, 0, work="fitting"))
    evaluation = cross_validate(features.X, features.y, recipe, **shared)
    found = search(features.X, features.y, recipe, **shared)
    notes = list(dict.fromkeys([*evaluation.notes, *found.notes]))
    if n_unlabelled:
        notes.append(f"left out {counted(n_unlabelled, 'sample')} without a label")
    notes += component_notes(shared["names"], shared["widths"], n_components)
    record = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "task": recipe.task,
        "head": recipe.name,
        "fusion": fusion if len(features.specs) > 1 else None,
        "n_components": None if n_components is None else int(n_components),
        "best_params": {name: _plain(value) for name, value in found.best_params.items()},
        # Of the fitted head, not of the evaluation: a class may be in the test rows only.
        "classes": np.asarray(getattr(found.estimator, "classes_", [])).tolist(),
        "extractors": [spec.to_json() | {"fingerprint": spec.fingerprint} for spec in features.specs],
        "n_samples": len(features.y),
        "n_features": features.X.shape[1],
        "failed": [{"id": failure.id, "reason": failure.reason} for failure in features.failures],
        "metrics": {name: asdict(scores) for name, scores in evaluation.metrics.items()},
        "baseline": {name: asdict(scores) for name, scores in evaluation.baseline.items()},
        "per_class": evaluation.per_class,
        "notes": notes,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }
    return Model(found.estimator, asked=asked, specs=features.specs, record=record, evaluation=evaluation)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
