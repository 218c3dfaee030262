"""One fitted artefact: extractors, head and classes; saved, loaded, predicting. `fitting.py` makes it."""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from featx.artefact import load_artefact, save_artefact
from featx.engine import (
    Failure,
    OpenCache,
    Progress,
    Run,
    Settings,
    SettingsKeywords,
    read_extractors,
    run,
)
from featx.engine.hardware import choose_device, supports
from featx.engine.plan import open_tasks
from featx.errors import ModelError, UsageError, WeightsError
from featx.evaluation import Evaluation, score_predictions
from featx.evaluation.heads import score_method
from featx.extractors.spec import ExtractorSpec, Precision
from featx.predictions import Predictions
from featx.samples import read_samples

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor
    from featx.extractors.spec import Request

__all__ = ["Model", "load"]

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 4096
_CLASSES_SHOWN = 5


class Model:
    """Extractors and a fitted head; made by `featx.fit` or `featx.load`.

    Attributes
    ----------
    head_ : scikit-learn estimator
        Fitted on features; plain scikit-learn.
    classes_ : ndarray of shape (n_classes,) or None
        Class names in the order of the probabilities; None for regression.
    specs : tuple of ExtractorSpec
        What the head's columns are.
    record : dict
        All that is saved beside the head: specs, classes, metric values, versions, as JSON values.
    evaluation : Evaluation or None
        The cross-validation behind the metric values; None for a loaded model.
    """

    def __init__(
        self,
        head: Any,
        *,
        asked: "Sequence[Request | ModuleExtractor]",
        specs: Sequence[ExtractorSpec],
        record: Mapping[str, Any],
        evaluation: Evaluation | None = None,
    ) -> None:
        self.head_ = head
        self.specs = tuple(specs)
        self.record = dict(record)
        self.evaluation = evaluation
        self._asked = tuple(asked)

    @property
    def classes_(self) -> np.ndarray | None:
        """Class names in the order of the probabilities; None for regression."""
        classes = getattr(self.head_, "classes_", None)
        return None if classes is None else np.asarray(classes)

    @property
    def precision(self) -> Precision:
        """Number format of the features; where only some extractors compute in half precision, theirs."""
        half: list[Precision] = ["float16", "bfloat16"]
        return next((one for one in half if one in {spec.precision for spec in self.specs}), "float32")

    def __repr__(self) -> str:
        classes = [str(name) for name in self.record["classes"]]
        shown = ", ".join(classes[:_CLASSES_SHOWN])
        more = f" and {len(classes) - _CLASSES_SHOWN} more" if len(classes) > _CLASSES_SHOWN else ""
        task = f"classes: {shown}{more}" if classes else self.record["task"]
        return f"Model({self.record['head']} on {'+'.join(spec.name for spec in self.specs)}, {task})"

    def predict(
        self,
        samples: Any,
        *,
        cache: str | os.PathLike[str] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> np.ndarray:
        """Return the predicted label of every sample.

        Parameters
        ----------
        samples : SampleTable, path, list of paths, arrays, images, DataFrame or torch Dataset
            Everything that `featx.read_samples` takes.
        cache : path, optional
            Folder that keeps the vectors; None keeps them in memory only.
        **settings
            Fields of `featx.engine.Settings`; the precision is the model's own.

        Returns
        -------
        ndarray of shape (n_samples,)

        Raises
        ------
        SampleIOError, DecodeError
            For the first sample without a vector.
        ModelError
            If an extractor is not the one the head was fitted on.
        """
        return np.concatenate([part.labels for part in self._parts(samples, cache, settings)])

    def predict_proba(
        self,
        samples: Any,
        *,
        cache: str | os.PathLike[str] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes), in the order of `classes_`.

        Raises
        ------
        UsageError
            If the head has no probabilities.
        """
        parts = self._parts(samples, cache, settings, probabilities=True)
        return np.concatenate([part.probabilities for part in parts if part.probabilities is not None])

    def score(
        self,
        samples: Any,
        y: Any = None,
        *,
        cache: str | os.PathLike[str] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> float:
        """Return the accuracy, or R2 for numbers, against `y` or the samples' own labels.

        Raises
        ------
        UsageError
            If there are no labels.
        """
        table = read_samples(samples, labels=y)
        if not table.labelled.all():
            raise UsageError(
                f"score: expected a label for each of {len(table)} samples, got {int(table.labelled.sum())}. "
                "Pass y, or samples that have labels."
            )
        parts = list(self._parts(table, cache, settings))
        scores = score_predictions(
            np.concatenate([part.truth for part in parts if part.truth is not None]),
            np.concatenate([part.labels for part in parts]),
            task=self.record["task"],
        )
        return scores["accuracy" if self.record["task"] == "classification" else "r2"]

    def predict_stream(
        self,
        samples: Any,
        *,
        probabilities: bool = False,
        cache: str | os.PathLike[str] | None = None,
        progress: Callable[[Progress], None] | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> tuple[Iterator[Predictions], tuple[Failure, ...]]:
        """Predict data of any size: vectors go through the cache, and come back some thousand rows at a time.

        Parameters
        ----------
        samples, cache, **settings
            As for `predict`; with ``on_error="record"`` samples that fail are left out.
        probabilities : bool
            Whether to compute them too.
        progress : callable, optional
            Called with a `featx.engine.Progress` now and then.

        Returns
        -------
        parts : iterator of Predictions
            In the order of the samples.
        failures : tuple of Failure
            What was left out, and why.

        Raises
        ------
        UsageError
            If probabilities are asked of a head that has none.
        """
        if probabilities and score_method(self.head_) != "predict_proba":
            raise UsageError(
                f"the head {self.record['head']} has no probabilities. Ask for labels only, or fit a head that has "
                "them, such as logreg, knn or mlp."
            )
        if settings.get("precision", "auto") not in ("auto", self.precision):
            raise UsageError(
                f"precision: a model is applied in its own precision, here {self.precision}, got "
                f"{settings['precision']!r}. Leave it out, or fit again."
            )
        table = read_samples(samples)
        chosen = Settings.of(settings)
        asked, precision = self._applied(chosen.device)
        opened = OpenCache(None if cache is None else Path(cache))
        try:
            tasks = open_tasks(asked, opened, device=chosen.device, precision=precision, progress=progress)
        except WeightsError as error:
            if self._asked != read_extractors([spec.text for spec in self.specs]):
                raise  # these the user has named
            raise ModelError(
                f"{error} The model names them as they were when it was fitted; give another place with "
                "-x NAME:weights=PATH (in Python: featx.load(path, extractors=...))."
            ) from None
        self._check([task.spec for task in tasks])
        done = run(
            table, asked, cache=opened, settings=replace(chosen, precision=precision), progress=progress
        )
        return self._predicted(done, probabilities), done.failures

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, without pickle; see `featx.load`.

        Raises
        ------
        ModelError
            If the head holds a type that is not on the fixed list of trusted ones.
        """
        save_artefact(Path(path), record=self.record, head=self.head_)

    def _parts(
        self, samples: Any, cache: Any, settings: SettingsKeywords, *, probabilities: bool = False
    ) -> Iterator[Predictions]:
        if settings.get("on_error", "raise") != "raise":
            raise UsageError(
                "on_error: here every sample gets a row. Use predict_stream to leave failures out."
            )
        parts, _ = self.predict_stream(samples, probabilities=probabilities, cache=cache, **settings)
        return parts

    def _predicted(self, done: Run, probabilities: bool) -> Iterator[Predictions]:
        good = done.good
        for start in range(0, len(good), _ROWS_AT_ONCE):
            rows = good[start : start + _ROWS_AT_ONCE]
            table = done.table.take(rows)
            features = done.matrix(rows)
            n_classes = 0 if self.classes_ is None else len(self.classes_)
            yield Predictions(
                ids=table.ids,
                labels=self._apply("predict", features, shape=(len(rows),)),
                probabilities=self._apply("predict_proba", features, shape=(len(rows), n_classes))
                if probabilities
                else None,
                truth=table.y,
            )

    def _apply(self, method: str, features: np.ndarray, *, shape: tuple[int, ...]) -> np.ndarray:
        """Apply the head; its arrays may come from a file, and need not fit each other."""
        try:
            answer = np.asarray(getattr(self.head_, method)(features))
        except Exception as error:
            raise ModelError(
                f"the head cannot be applied: {type(error).__name__}: {error}. Fit it again."
            ) from error
        if answer.shape != shape or (answer.dtype.kind == "f" and not np.isfinite(answer).all()):
            raise ModelError(
                f"the head cannot be applied: expected finite answers of shape {shape}, got shape {answer.shape}. "
                "Fit it again."
            )
        return answer

    def _applied(self, device: str) -> "tuple[list[Request | ModuleExtractor], Precision]":
        """Return the extractors as they can run here, and in which precision."""
        own = self.precision
        if own == "float32" or supports(own, device=choose_device(device)):
            return list(self._asked), own
        _log.warning(
            "the model was fitted on features in %s, which this hardware does not compute; applying it in float32",
            own,
        )
        # The pixels stay those of the fit, whatever float32 would choose by default.
        return [
            asked.with_pixels(spec.pixels) if spec.precision == own else asked
            for asked, spec in zip(self._asked, self.specs, strict=True)
        ], "float32"

    def _check(self, specs: Sequence[ExtractorSpec]) -> None:
        for recorded, found in zip(self.specs, specs, strict=True):
            # Another precision is said in _applied.
            same = found.fingerprint == replace(recorded, precision=found.precision).fingerprint
            if same and found.n_features == recorded.n_features:
                continue
            facts = {**recorded.identity, "n_features": recorded.n_features}
            differing = [key for key, value in facts.items() if found.to_json()[key] != value]
            raise ModelError(
                f"the head was fitted on features of {recorded.text} with fingerprint {recorded.fingerprint[:12]}, "
                f"got {found.fingerprint[:12]}: {', '.join(differing)} differ. Use the original weights, or fit again."
            )


def load(path: str | os.PathLike[str], *, extractors: Any = None) -> Model:
    """Read a saved model; nothing in the file is executed.

    Parameters
    ----------
    path : path
        Written by `Model.save`.
    extractors : str, ModuleExtractor, or list of these, optional
        Stand in for the recorded ones: the same extractors with weights in another place, or modules of the
        user's own, which a file cannot hold. Their fingerprints must be the recorded ones.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        If the file is damaged, of another format, holds a type that is not trusted, or contradicts itself.
    """
    path = Path(path)
    record, head = load_artefact(path)
    try:
        specs = [
            ExtractorSpec.from_json({key: value for key, value in one.items() if key != "fingerprint"})
            for one in record["extractors"]
        ]
        fingerprints = [one["fingerprint"] for one in record["extractors"]]
        expected = sum(spec.n_features for spec in specs)
        texts = [spec.text for spec in specs]
        task, name = str(record["task"]), str(record["head"])
        classes = list(record["classes"])
        found = [spec.fingerprint for spec in specs]
        if task not in ("classification", "regression"):
            raise ValueError(f"task {task!r}")
        if not all(isinstance(one, str | int) or math.isfinite(one) for one in classes):
            raise ValueError(f"classes {classes!r:.80}")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"'{path}': its model.json is not what featx writes ({error}). Fit it again."
        ) from error
    if fingerprints != found:
        raise ModelError(f"'{path}': a recorded fingerprint is not that of its extractor. Fit it again.")
    try:
        taken = getattr(head, "n_features_in_", expected)
        known = list(np.asarray(getattr(head, "classes_", [])).tolist())
    except Exception as error:  # what its type computes from parts that may be anything
        raise ModelError(f"'{path}': its head is incomplete ({error}). Fit it again.") from error
    if not isinstance(taken, int | np.integer) or taken != expected:
        raise ModelError(
            f"'{path}': the head takes {taken} features, its extractors give {expected}. Fit it again."
        )
    if known != classes:
        raise ModelError(
            f"'{path}': the head's {len(known)} classes are not the {len(classes)} that its record names. Fit it again."
        )
    if (task == "classification") != bool(classes):
        raise ModelError(f"'{path}': a head for {task} with {len(classes)} classes. Fit it again.")
    asked: Any
    if extractors is not None:
        asked = read_extractors(extractors)
    elif any(spec.source == "module" for spec in specs):
        raise ModelError(
            f"'{path}' was fitted on a module of your own, which no file can hold. "
            "Pass it: featx.load(path, extractors=[ModuleExtractor(...)])"
        )
    else:
        try:
            asked = read_extractors(texts)
        except UsageError as error:
            raise ModelError(f"'{path}': its model.json names no extractors: {error}") from error
    if len(asked) != len(specs):
        raise ModelError(f"'{path}': expected {len(specs)} extractors, got {len(asked)}. Name the same ones.")
    _log.debug("loaded %s head %s from %s", task, name, path)
    return Model(head, asked=asked, specs=specs, record=record)
