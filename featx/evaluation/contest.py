"""The fits of a comparison: every head on every extractor in every fold, no search twice; it ranks nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.evaluation import grid_search
from featx.evaluation.folds import Fold
from featx.evaluation.fused_search import check_components, joint_choice, stacking_folds
from featx.evaluation.fusion import Fusion, early, late, parts_matrix
from featx.evaluation.grid_search import Choice
from featx.evaluation.heads import Head, Task
from featx.evaluation.ranking import Entry
from featx.evaluation.scores import baseline_answers, scores_by_metric, undefined_notes

__all__ = ["Contest", "baseline_of"]

Rows = NDArray[np.int64]
Parts = tuple[int, ...]
Search = tuple[Parts, int]
"""The parts searched on, and the number of the head."""


@dataclass(kw_only=True, eq=False)
class Contest:
    """What all entries share: the data, the folds, the way of fusing, and the searches done so far.

    Attributes
    ----------
    X : array of shape (n_samples, n_features)
    y : array of shape (n_samples,)
    folds : list of Fold
    seeds : list of int
        What each fold was shuffled with.
    widths : sequence of int
        Columns of each part of X.
    names : sequence of str or None
        What messages call the parts.
    fusion, n_components, cv, together, random_state, n_jobs
        As in :func:`featx.evaluation.comparison.compare_heads`.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    folds: list[Fold]
    seeds: list[int]
    widths: Sequence[int]
    names: Sequence[str] | None
    fusion: Fusion
    n_components: int | None
    cv: int
    together: Rows | None
    random_state: int
    n_jobs: int | None
    chosen: dict[Search, list[Choice]] = field(default_factory=dict)
    stacked: list[Fold] = field(default_factory=list)

    def run(
        self,
        heads: Sequence[Head],
        extractors: Mapping[str, Parts],
        progress: Callable[[int, int], None] | None,
    ) -> list[Entry]:
        """Return every head on every extractor, in this order.

        Raises
        ------
        UsageError
            When a head cannot be fitted, or there are too few rows for the components.
        """
        if any(self._is_late(parts) for parts in extractors.values()):
            self.stacked = [
                self._stacked(fold, seed, heads[0].task)
                for fold, seed in zip(self.folds, self.seeds, strict=True)
            ]
        for parts in extractors.values():
            folds = [*self.folds, *(self.stacked if self._is_late(parts) else [])]
            names = None if self.names is None else [self.names[part] for part in parts]
            check_components(self.n_components, self._widths(parts), folds, names=names)
        searches = {
            search: _count_fits(heads[search[1]], self.folds)
            for parts in extractors.values()
            for number in range(len(heads))
            for search in self._searches(parts, number)
        }
        total = sum(searches.values()) + len(extractors) * len(heads) * len(self.folds)
        done = 0
        entries = []
        for extractor, parts in extractors.items():
            X = self._block(parts)
            for number, head in enumerate(heads):
                for search in self._searches(parts, number):
                    if search not in self.chosen:
                        told = _shifted(progress, done, searches[search], total)
                        self.chosen[search] = self._search(head, search[0], told)
                        done += searches[search]
                entries.append(self._entry(X, extractor, parts, number, head))
                done += len(self.folds)
                if progress is not None:
                    progress(done, total)
        return entries

    def _searches(self, parts: Parts, number: int) -> list[Search]:
        """Return what has to be searched: a stack chooses for each part by itself."""
        return [((part,), number) for part in parts] if self.fusion == "late" else [(parts, number)]

    def _search(self, head: Head, parts: Parts, progress: Callable[[int, int], None] | None) -> list[Choice]:
        return grid_search.choose(
            self._block(parts),
            self.y,
            self._early(head, parts),
            self.folds,
            n_jobs=self.n_jobs,
            progress=progress,
        )

    def _entry(self, X: NDArray[Any], extractor: str, parts: Parts, number: int, head: Head) -> Entry:
        by_part = [self.chosen[search] for search in self._searches(parts, number)]
        if self._is_late(parts):
            of_fold = list(zip(*by_part, strict=True))
            fitted = [self._late(head, parts, at, of_fold[at]) for at in range(len(self.folds))]
            choices = [joint_choice(one) for one in of_fold]
            settled = [Choice({}, None, {}, [])] * len(self.folds)  # they are set on the parts' heads
        else:
            fitted = [self._early(head, parts)] * len(self.folds)
            choices = settled = by_part[0]
        answers = grid_search.fit_and_predict(X, self.y, fitted, self.folds, settled, n_jobs=self.n_jobs)
        metrics = scores_by_metric(self.y, head.task, self.folds, answers)
        logs = [answer.log for answer in answers]
        return Entry(
            extractor=extractor,
            parts=parts,
            head=head.name,
            fusion=self.fusion if len(parts) > 1 else None,
            fitted=fitted,
            choices=choices,
            answers=answers,
            metrics=metrics,
            notes=[*grid_search.notes(head, choices, logs), *undefined_notes(metrics)],
        )

    def _is_late(self, parts: Parts) -> bool:
        return self.fusion == "late" and len(parts) > 1

    def _stacked(self, fold: Fold, seed: int, task: Task) -> Fold:
        """Return a fold whose inner ones are those of a stack."""
        options: dict[str, Any] = {"cv": self.cv, "groups": self.together, "random_state": seed}
        return replace(fold, inner=stacking_folds(self.y, fold, task=task, **options))

    def _early(self, head: Head, parts: Parts) -> Head:
        return early(
            head, self._widths(parts), n_components=self.n_components, random_state=self.random_state
        )

    def _late(self, head: Head, parts: Parts, at: int, chosen: Sequence[Choice]) -> Head:
        return late(
            head,
            self._widths(parts),
            chosen,
            self.stacked[at].inner,
            n_components=self.n_components,
            random_state=self.random_state,
        )

    def _widths(self, parts: Parts) -> list[int]:
        return [self.widths[part] for part in parts]

    def _block(self, parts: Parts) -> NDArray[Any]:
        return np.ascontiguousarray(parts_matrix(self.X, self.widths, parts))


def baseline_of(y: NDArray[Any], task: Task, folds: Sequence[Fold]) -> Entry:
    """Return what knowing no feature answers, as an entry without an extractor."""
    answers = baseline_answers(y, task, folds)
    return Entry(
        extractor=None,
        parts=(),
        head="majority" if task == "classification" else "mean",
        fusion=None,
        fitted=[],
        choices=[],
        answers=answers,
        metrics=scores_by_metric(y, task, folds, answers),
        notes=[],
    )


def _count_fits(head: Head, folds: Sequence[Fold]) -> int:
    n_candidates = len(head.candidates)
    return n_candidates * sum(len(fold.inner) for fold in folds) if n_candidates > 1 else 0


def _shifted(
    progress: Callable[[int, int], None] | None, before: int, n_fits: int, total: int
) -> Callable[[int, int], None] | None:
    """Return a callback that counts one search's fits among those of all."""
    if progress is None:
        return None
    return lambda done, of: progress(before + done * n_fits // of, total)
