"""Choosing a head's parameters by inner folds, many searches in one parallel loop; it estimates no accuracy.

The result is that of :class:`~sklearn.model_selection.GridSearchCV`. The loop is written out for three
reasons: the fits of all outer folds share one pool of workers; each fit's warnings are caught in the
process where they are raised, which GridSearchCV loses when ``n_jobs`` is above one; and what the candidates of
a grid have in common is computed once where :mod:`featx.evaluation.shortcuts.shortcut` knows how.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.evaluation.fit_log import FitLog, logged
from featx.evaluation.folds import Fold
from featx.evaluation.heads import Head, score_method
from featx.evaluation.shortcuts.shortcut import Outcome, Shortcut, find_shortcut

__all__ = ["Answer", "Choice", "FitLog", "choose", "fit", "fit_and_predict", "notes"]


@dataclass(frozen=True)
class Choice:
    """The best candidate of one search.

    Attributes
    ----------
    params : dict
        The parameters chosen.
    score : float or None
        Their mean accuracy, or r2, over the inner folds; None where there was nothing to choose.
    at_edge : dict
        Those of them that lie at the edge of the grid with the score still rising towards it.
    logs : list of FitLog
        One for every fit of the search.
    """

    params: dict[str, Any]
    score: float | None
    at_edge: dict[str, Any]
    logs: list[FitLog]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a head, fitted on the training rows of a fold, says of the rows it tests.

    Attributes
    ----------
    predicted : array of shape (n_test,)
    classes : array of shape (n_classes,) or None
        The classes it was fitted on; None for regression.
    scores : float array of shape (n_test, n_classes) or None
        Probabilities by class or, where the head has none, its decision function (for two classes the
        negative of it stands in the first column); None where it has neither that belongs to its predictions.
    are_probabilities : bool
    fit_seconds, predict_seconds : float
        Wall-clock time of one process on one BLAS thread; the scores are not in it.
    log : FitLog
    """

    predicted: Any
    classes: NDArray[Any] | None
    scores: NDArray[Any] | None
    are_probabilities: bool
    fit_seconds: float
    predict_seconds: float
    log: FitLog


def choose(
    X: NDArray[Any],
    y: NDArray[Any],
    head: Head,
    folds: Sequence[Fold],
    *,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Choice]:
    """Return the best candidate of the head's grid for every fold, by its inner folds.

    Scored by accuracy, or r2 for regression; of equal candidates the first wins. A candidate that cannot
    be fitted (more neighbours than rows) is passed over, and its log says so. `progress` is called with how many
    fits are done, and how many there are.

    Workers map X from one file, which joblib writes once a call, or which is X's own where X is a
    :class:`numpy.memmap`: none holds more of it than the rows it is fitting.

    Raises
    ------
    UsageError
        When no candidate can be fitted.
    """
    candidates = head.candidates
    if len(candidates) == 1:
        return [Choice(candidates[0], None, {}, []) for _ in folds]
    shortcut = find_shortcut(head, X)
    # One by one, or as many together as leave work for every worker.
    n_fits = len(candidates) * sum(len(fold.inner) for fold in folds)
    size = 1 if shortcut is None else math.ceil(n_fits / effective_n_jobs(n_jobs))
    batches = [candidates[at : at + size] for at in range(0, len(candidates), size)]
    rounds = [(batch, *pair) for fold in folds for batch in batches for pair in fold.inner]
    outcomes = _told(
        Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_outcomes)(head.pipeline, shortcut, batch, X, y, train, validation)
            for batch, train, validation in rounds
        ),
        n_fits,
        progress,
    )
    score = accuracy_score if head.task == "classification" else r2_score
    choices = []
    for fold in folds:
        means: list[float] = []
        logs: list[FitLog] = []
        for batch in batches:
            scores = np.full((len(batch), len(fold.inner)), np.nan)
            for number, (_, validation) in enumerate(fold.inner):
                for candidate in range(len(batch)):
                    predicted, log = next(outcomes)
                    if predicted is not None:
                        scores[candidate, number] = score(y[validation], predicted)
                    logs.append(log)
            means += scores.mean(axis=1).tolist()
        choices.append(_best(head, candidates, means, logs))
    return choices


def fit(
    X: NDArray[Any], y: NDArray[Any], head: Head, params: Mapping[str, Any], rows: NDArray[np.int64]
) -> tuple[Any, FitLog]:
    """Return the head fitted on these rows with these parameters, and its log.

    Raises
    ------
    UsageError
        When it cannot be fitted.
    """
    estimator, _, log, _ = _fit(head.pipeline, params, X, y, rows, rows[:0])
    return estimator, _checked(log, head, params)


def fit_and_predict(
    X: NDArray[Any],
    y: NDArray[Any],
    heads: Sequence[Head],
    folds: Sequence[Fold],
    choices: Sequence[Choice],
    *,
    n_jobs: int | None,
) -> list[Answer]:
    """Return what the head of each fold, fitted on its training rows as chosen, says of its test rows.

    Raises
    ------
    UsageError
        When a head cannot be fitted.
    """
    rounds = list(zip(heads, folds, choices, strict=True))
    answers = Parallel(n_jobs=n_jobs)(
        delayed(_answer)(head.pipeline, choice.params, X, y, fold.train, fold.test)
        for head, fold, choice in rounds
    )
    for answer, (head, _, choice) in zip(answers, rounds, strict=True):
        _checked(answer.log, head, choice.params)
    return list(answers)


def notes(head: Head, choices: Sequence[Choice], kept: Sequence[FitLog]) -> list[str]:
    """Return, in plain sentences, what a reader of the result should know about the fits behind it.

    Parameters
    ----------
    head : Head
        The head that was fitted.
    choices : sequence of Choice
        One for every fold.
    kept : sequence of FitLog
        The logs of the fits with the parameters chosen.
    """
    logs = [*itertools.chain.from_iterable(choice.logs for choice in choices), *kept]
    return [*_edge_notes(choices), *_warning_notes(logs, kept), *_failure_notes(head, logs)]


def _told(
    rounds: Iterable[list[Outcome]], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[Outcome]:
    for done, outcome in enumerate(itertools.chain.from_iterable(rounds), start=1):
        if progress is not None:
            progress(done, total)
        yield outcome


def _outcomes(
    pipeline: Any,
    shortcut: Shortcut | None,
    candidates: list[dict[str, Any]],
    X: Any,
    y: Any,
    train: Any,
    validation: Any,
) -> list[Outcome]:
    """Return what every candidate, fitted on the same rows, predicts, in a worker; the estimators stay there.

    One BLAS thread, as joblib's processes have anyway: on matrices this small, threads that wait for one
    another cost up to twenty times the work, and their sums would depend on ``n_jobs``.
    """
    with threadpool_limits(limits=1):
        found: list[Outcome | None] = [None] * len(candidates)
        if shortcut is not None:
            found = shortcut.outcomes(candidates, X[train], y[train], X[validation])
        return [
            outcome or _fit(pipeline, params, X, y, train, validation)[1:3]
            for outcome, params in zip(found, candidates, strict=True)
        ]


def _answer(pipeline: Any, params: Mapping[str, Any], X: Any, y: Any, train: Any, test: Any) -> Answer:
    """Fit and answer in a worker, as `_outcomes` does."""
    with threadpool_limits(limits=1):
        estimator, predicted, log, seconds = _fit(pipeline, params, X, y, train, test)
        scores, are_probabilities = (
            _class_scores(estimator, X[test]) if log.failure is None else (None, False)
        )
    classes = getattr(estimator, "classes_", None)
    return Answer(predicted, classes, scores, are_probabilities, *seconds, log)


def _class_scores(estimator: Any, tested: NDArray[Any]) -> tuple[NDArray[Any] | None, bool]:
    """Return scores by class and whether they are probabilities; those that are no numbers count as none."""
    method = score_method(estimator)
    if method is None or not hasattr(estimator, "classes_"):
        return None, False
    with np.errstate(all="ignore"):
        scores = getattr(estimator, method)(tested)
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    return (scores, method == "predict_proba") if np.isfinite(scores).all() else (None, False)


def _fit(
    pipeline: Any, params: Mapping[str, Any], X: Any, y: Any, train: Any, test: Any
) -> tuple[Any, NDArray[Any] | None, FitLog, tuple[float, float]]:
    """Return the fitted estimator, its predictions, its log, and the seconds that fitting and predicting took."""
    estimator = clone(pipeline).set_params(**clone(params, safe=False))
    started = fitted = time.perf_counter()

    def work() -> NDArray[Any] | None:
        nonlocal fitted
        estimator.fit(X[train], y[train])
        fitted = time.perf_counter()
        return estimator.predict(X[test]) if len(test) else None

    predicted, log = logged(work)
    return estimator, predicted, log, (fitted - started, time.perf_counter() - fitted)


def _checked(log: FitLog, head: Head, params: Mapping[str, Any]) -> FitLog:
    if log.failure is not None:
        how = f" with {_text(params)}" if params else ""
        raise UsageError(f"head {head.name!r} cannot be fitted{how}: {log.failure}.")
    return log


def _best(head: Head, candidates: list[dict[str, Any]], means: list[float], logs: list[FitLog]) -> Choice:
    if np.isnan(means).all():
        why = next(log.failure for log in logs if log.failure is not None)
        raise UsageError(f"head {head.name!r} cannot be fitted with any parameters of its grid: {why}.")
    best = int(np.nanargmax(means))
    at_edge = {name: candidates[best][name] for name in _rising_at_edge(candidates, means, best)}
    return Choice(candidates[best], means[best], at_edge, logs)


def _rising_at_edge(candidates: list[dict[str, Any]], means: list[float], best: int) -> Iterator[str]:
    """Name the parameters whose best value is the last of three or more, and better than the one before.

    On a plateau, at a perfect score, and at a natural end (zero, one neighbour), nothing better lies beyond.
    """
    chosen = candidates[best]
    if means[best] >= 1.0:
        return
    for name, value in chosen.items():
        if not _is_number(value):
            continue
        line = {
            candidate[name]: mean
            for candidate, mean in zip(candidates, means, strict=True)
            if candidate.keys() == chosen.keys()
            and _is_number(candidate[name])
            and all(candidate[other] == chosen[other] for other in chosen if other != name)
        }
        values = sorted(line)
        natural_end = value == 0 or (value == 1 and isinstance(value, int))
        if len(values) >= 3 and (
            (value == values[0] and not natural_end and line[value] > line[values[1]] + _LEVEL)
            or (value == values[-1] and line[value] > line[values[-2]] + _LEVEL)
        ):
            yield name


# A smaller rise of accuracy or r2 is a plateau.
_LEVEL = 1e-4


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _edge_notes(choices: Sequence[Choice]) -> Iterator[str]:
    where = f" in {{}} of {len(choices)} folds" if len(choices) > 1 else ""
    for (name, value), count in sorted(Counter(edge for c in choices for edge in c.at_edge.items()).items()):
        yield (
            f"the best {name.rpartition('__')[2]}, {value:g}, lies at the edge of the grid"
            f"{where.format(count)}: a better one may lie beyond"
        )


def _warning_notes(logs: Sequence[FitLog], kept: Sequence[FitLog]) -> Iterator[str]:
    for category in sorted({category for log in logs for category, _ in log.warned}):
        said = [log for log in logs if any(category == name for name, _ in log.warned)]
        of_kept = sum(any(category == name for name, _ in log.warned) for log in kept)
        example = min(text for log in said for name, text in log.warned if name == category)
        what = "did not converge" if category == ConvergenceWarning.__name__ else f"gave a {category}"
        yield (
            f"{len(said)} of {len(logs)} fits {what}, {of_kept} of them with the parameters chosen: {example}"
        )


def _failure_notes(head: Head, logs: Sequence[FitLog]) -> Iterator[str]:
    failures = [log.failure for log in logs if log.failure is not None]
    if failures:
        yield (
            f"{len(failures)} of {len(logs)} fits of {head.name} failed, so their parameters were passed"
            f" over: {failures[0]}"
        )


def _text(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('__')[2]}={value}" for name, value in params.items())
