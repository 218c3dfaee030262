"""Which of several entries, judged on the same folds, is best, and which are really worse; it fits nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from featx.errors import UsageError
from featx.evaluation.bootstrap import bootstrap_scores, swap_p_values
from featx.evaluation.folds import Fold
from featx.evaluation.fusion import Fusion
from featx.evaluation.grid_search import Answer, Choice
from featx.evaluation.heads import Head, Task
from featx.evaluation.scores import MetricScores
from featx.evaluation.significance import (
    LEVEL,
    Difference,
    Interval,
    Verdict,
    compare_draws,
    compare_folds,
    corrected,
    draws_interval,
    folds_interval,
    verdict_of,
)

__all__ = ["Entry", "Gain", "Ranking", "Standing", "rank"]

_N_DRAWS = 2000
_N_SWAPS = (10_000, 100_000)
_OF_A_SHARE = ("accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro", "roc_auc_ovr")


@dataclass(frozen=True, eq=False)
class Entry:
    """One head on one extractor, or fusion of several, and what it answered in every fold.

    Attributes
    ----------
    extractor : str or None
        As the user named it; None for the baseline.
    parts : tuple of int
        Which blocks of columns it saw.
    head : str
    fusion : {"early", "late"} or None
        None for one part.
    fitted : list of Head
        The head of every fold, with the fusion in it; empty for the baseline.
    choices : list of Choice
        The parameters of every fold; empty for the baseline.
    answers : list of Answer
        Of every fold.
    metrics : dict of str to MetricScores
    notes : list of str
    """

    extractor: str | None
    parts: tuple[int, ...]
    head: str
    fusion: Fusion | None
    fitted: list[Head]
    choices: list[Choice]
    answers: list[Answer]
    metrics: dict[str, MetricScores]
    notes: list[str]


@dataclass(frozen=True, eq=False)
class Standing:
    """An entry's place: its intervals by metric, its verdict, and its difference from the best, if it is another."""

    entry: Entry
    intervals: dict[str, Interval | None]
    verdict: Verdict
    difference: Difference | None


@dataclass(frozen=True)
class Gain:
    """What a fusion gains on the best of its parts that contends with the same head."""

    extractor: str
    head: str
    fusion: Fusion
    best_part: str
    difference: Difference


@dataclass(frozen=True, eq=False)
class Ranking:
    """The standings, the baseline first and then from best to worst; the gains of fusion; and sentences."""

    standings: list[Standing]
    gains: list[Gain]
    notes: list[str]


def rank(
    entries: Sequence[Entry],
    baseline: Entry,
    y: NDArray[Any],
    folds: Sequence[Fold],
    *,
    task: Task,
    metric: str,
    together: NDArray[np.int64] | None = None,
    random_state: int | None = 0,
) -> Ranking:
    """Rank entries by a metric, and compare each with the best and each fusion with its parts.

    Over several folds by the corrected resampled t-test (:mod:`featx.evaluation.significance`), on one fold by
    swapping the answers to its test rows (:mod:`featx.evaluation.bootstrap`), whole groups at a time. On one fold the
    p-values of all pairs of entries are corrected together (Holm), as if any pair could be the one looked at, for
    the best is picked by the same rows. Over folds those of the comparisons with the best are: that test is the
    more careful by itself, and with its few degrees of freedom a correction over all pairs would leave it blind.
    Those of the baseline with every entry are corrected by themselves, and so are those of the fusions. One that is
    below 0.05 makes an entry "worse"; the others are "as good as the best", as far as these rows can tell, or "not
    told" where they can tell nothing. A single entry is "the only one".

    Parameters
    ----------
    entries : sequence of Entry
    baseline : Entry
    y : array of shape (n_samples,)
        True labels.
    folds : sequence of Fold
        Of all repeats.
    task : {"classification", "regression"}
    metric : str
        One of `featx.evaluation.scores.METRICS`; greater is better.
    together : int64 array of shape (n_samples,) or None
        Group numbers.
    random_state : int or None
        Seed of the bootstrap and of the swaps.

    Raises
    ------
    UsageError
        When no fold gives the metric.
    """
    everyone = [baseline, *entries]
    if missing := [one for one in everyone if metric not in one.metrics]:
        raise UsageError(
            f"metric {metric!r} has no value in any fold for head {missing[0].head!r}: the rows tested lack a"
            " class, or have one that no training row has. Rank by another metric."
        )
    ranked = sorted(entries, key=lambda one: -one.metrics[metric].mean)
    gains, unmatched = _paired(entries, metric)
    pairs = list(combinations(ranked, 2)) if len(folds) == 1 else [(ranked[0], one) for one in ranked[1:]]
    compared = [*((baseline, one) for one in ranked), *((one, other) for other, one in pairs), *gains]
    if len(folds) > 1:
        intervals, found = _over_folds(compared, folds, metric)
    else:
        intervals, found = _over_draws(
            everyone, compared, y, folds[0], task, metric, together, len(pairs), random_state
        )
    against_baseline = corrected(found[: len(ranked)])
    # Pairs come in the order of the ranking, so the first are those with the best.
    among = corrected(found[len(ranked) : len(ranked) + len(pairs)])
    standings = [
        Standing(baseline, intervals(baseline), "baseline", against_baseline[0]),
        *(
            Standing(one, intervals(one), verdict_of(difference, n_contenders=len(ranked)), difference)
            for one, difference in zip(ranked, [None, *among[: len(ranked) - 1]], strict=True)
        ),
    ]
    notes = [
        *_baseline_notes(standings[0], folds),
        *_group_notes(folds, together, len(pairs)),
        *_resolution_notes(standings, metric, folds, len(pairs)),
        *unmatched,
    ]
    return Ranking(standings, _gains(gains, corrected(found[len(ranked) + len(pairs) :])), notes)


def _over_folds(
    pairs: Sequence[tuple[Entry, Entry]], folds: Sequence[Fold], metric: str
) -> tuple[Callable[[Entry], dict[str, Interval | None]], list[Difference]]:
    sizes: dict[str, float] = {
        "n_train": float(np.mean([len(fold.train) for fold in folds])),
        "n_test": float(np.mean([len(fold.test) for fold in folds])),
    }

    def intervals(one: Entry) -> dict[str, Interval | None]:
        return {
            name: _cut(
                name,
                folds_interval(
                    [value for value in scores.folds if value is not None],
                    **sizes,
                    resolution=_resolution(name, sizes["n_test"]),
                ),
            )
            for name, scores in one.metrics.items()
        }

    def compare(one: Entry, other: Entry) -> Difference:
        pairs = [
            pair
            for pair in zip(one.metrics[metric].folds, other.metrics[metric].folds, strict=True)
            if None not in pair
        ]
        if not pairs:  # such as a class that each of them has never met, in other folds
            return Difference(one.metrics[metric].mean - other.metrics[metric].mean, None, None)
        values, others = np.array(pairs, np.float64).T
        return compare_folds(values, others, **sizes, resolution=_resolution(metric, sizes["n_test"]))

    return intervals, [compare(one, other) for one, other in pairs]


def _over_draws(
    entries: Sequence[Entry],
    pairs: Sequence[tuple[Entry, Entry]],
    y: NDArray[Any],
    fold: Fold,
    task: Task,
    metric: str,
    together: NDArray[np.int64] | None,
    n_corrected: int,
    random_state: int | None,
) -> tuple[Callable[[Entry], dict[str, Interval | None]], list[Difference]]:
    truth, answers = y[fold.test], [one.answers[0] for one in entries]
    groups = None if together is None else together[fold.test]
    found = bootstrap_scores(
        truth, answers, task=task, together=groups, n_draws=_N_DRAWS, random_state=random_state
    )
    draws = {id(one): scores for one, scores in zip(entries, found, strict=True)}
    place = {id(one): at for at, one in enumerate(entries)}
    fewest, most = _N_SWAPS
    p_values = swap_p_values(
        truth,
        answers,
        [(place[id(one)], place[id(other)]) for one, other in pairs],
        metric=metric,
        together=groups,
        # The smallest p-value, one in so many, survives its correction: of up to 100 entries.
        n_swaps=min(most, max(fewest, 40 * n_corrected)),
        random_state=random_state,
    )

    def intervals(one: Entry) -> dict[str, Interval | None]:
        alone = _n_groups(fold, together) < 2
        return {name: None if alone else draws_interval(draws[id(one)][name]) for name in one.metrics}

    differences = [
        compare_draws(
            one.metrics[metric].mean,
            other.metrics[metric].mean,
            draws[id(one)][metric],
            draws[id(other)][metric],
            p_value=p_value,
        )
        for (one, other), p_value in zip(pairs, p_values, strict=True)
    ]
    return intervals, differences


def _n_groups(fold: Fold, together: NDArray[np.int64] | None) -> int:
    return len(fold.test) if together is None else len(np.unique(together[fold.test]))


def _resolution(metric: str, n_test: float) -> float:
    """Return how much one test row moves a metric that is a share; one of continuous values has no steps.

    Of an accuracy that is the very step. A mean over classes moves by as much where these are alike, by more for
    a row of a rare class; an area in steps that are finer, but by as much when a row goes from last to first.
    """
    return 1 / n_test if metric in _OF_A_SHARE else 0.0


def _cut(name: str, interval: Interval | None) -> Interval | None:
    """Return the interval within what the metric can be."""
    if interval is None or name not in _OF_A_SHARE:
        return interval
    return max(0.0, interval[0]), min(1.0, interval[1])


def _paired(entries: Sequence[Entry], metric: str) -> tuple[list[tuple[Entry, Entry]], list[str]]:
    """Return every fusion with the best of its parts; say which parts do not contend."""
    found: list[tuple[Entry, Entry]] = []
    notes: list[str] = []
    alone = {(one.parts[0], one.head): one for one in entries if len(one.parts) == 1}
    for fused in entries:
        if fused.fusion is None:
            continue
        missing = [at for at, part in enumerate(fused.parts) if (part, fused.head) not in alone]
        parts = [alone[part, fused.head] for part in fused.parts if (part, fused.head) in alone]
        if parts:
            found.append((fused, max(parts, key=lambda one: one.metrics[metric].mean)))
        if missing:
            notes.append(_unmatched_note(fused, missing))
    return found, list(dict.fromkeys(notes))


def _unmatched_note(fused: Entry, missing: Sequence[int]) -> str:
    assert fused.extractor is not None
    names = fused.extractor.split("+")
    how = (
        f"add {' '.join(f'-x {names[at]}' for at in missing)}"
        if len(names) == len(fused.parts)
        else "name them too"  # a path with a plus in it
    )
    which = "no part" if len(missing) == len(fused.parts) else "not every part"
    return f"{which} of {fused.extractor} contends by itself: {how} to see what the fusion gains"


def _gains(pairs: Sequence[tuple[Entry, Entry]], differences: Sequence[Difference]) -> list[Gain]:
    gains = []
    for (fused, part), difference in zip(pairs, differences, strict=True):
        assert fused.extractor is not None
        assert part.extractor is not None
        assert fused.fusion is not None
        gains.append(Gain(fused.extractor, fused.head, fused.fusion, part.extractor, difference))
    return gains


def _baseline_notes(baseline: Standing, folds: Sequence[Fold]) -> list[str]:
    assert baseline.difference is not None
    p_value = baseline.difference.p_value
    if baseline.difference.mean < 0 and p_value is not None and p_value < LEVEL:
        return []
    what = "the most frequent class" if baseline.entry.head == "majority" else "the mean label"
    more = "more samples" if len(folds) == 1 else "more samples or repeats"
    return [f"the best is not told from always answering {what}, by {_rows_of(folds)}; {more} may tell"]


def _group_notes(folds: Sequence[Fold], together: NDArray[np.int64] | None, n_pairs: int) -> list[str]:
    """Say so where one fold has so few rows, or groups of them, that no difference at all could be told."""
    if len(folds) > 1 or not n_pairs:
        return []
    n_groups = _n_groups(folds[0], together)
    if n_groups >= 2 and 2.0 ** (1 - n_groups) * n_pairs < LEVEL:
        return []
    what = "rows" if together is None else "groups"
    return [f"too few test {what} to tell any of the contenders apart: {n_groups}"]


def _resolution_notes(
    standings: Sequence[Standing], metric: str, folds: Sequence[Fold], n_pairs: int
) -> list[str]:
    """Say how large a difference would have been told, where some were not."""
    halves = [
        (standing.difference.ci95[1] - standing.difference.ci95[0]) / 2
        for standing in standings
        if standing.verdict == "as good as the best"
        and standing.difference is not None
        and standing.difference.ci95 is not None
        and standing.difference.mean < 0
    ]
    if not halves:
        return []
    # Each interval is 95% by itself; what is told survives the correction.
    freedom = len(folds) - 1 if len(folds) > 1 else np.inf
    widened = student.isf(LEVEL / n_pairs / 2, freedom) / student.isf(LEVEL / 2, freedom)
    least = float(np.median(halves) * widened)
    if metric in _OF_A_SHARE and least > 1:
        return []
    way = "more repeats" if len(folds) > 1 else "more test rows"
    return [
        f"{metric} has to differ by about {least:.2g} to be told apart by {_rows_of(folds)};"
        f" {way} tell smaller ones"
    ]


def _rows_of(folds: Sequence[Fold]) -> str:
    return f"these {len(folds)} folds" if len(folds) > 1 else f"these {len(folds[0].test)} test rows"
