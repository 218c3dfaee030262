"""The metrics of one test part on thousands of draws of its rows, and of pairs of answers swapped; it decides nothing.

Where a data set has its own split there is one fold, and only the test rows tell how sure a score is. For an
interval they are drawn with replacement; for a p-value the answers of two are swapped by chance [1]_. Both take
whole groups at a time: copies of a picture are one observation.

References
----------
.. [1] Good 2005, "Permutation, parametric and bootstrap tests of hypotheses", chapter 3.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse import hstack as sparse_hstack

from featx.evaluation.grid_search import Answer
from featx.evaluation.heads import Task

__all__ = ["bootstrap_scores", "swap_p_values"]

Floats = NDArray[np.float64]

_CELLS_AT_ONCE = 4_000_000


def bootstrap_scores(
    y: NDArray[Any],
    answers: Sequence[Answer],
    *,
    task: Task,
    together: NDArray[np.int64] | None = None,
    n_draws: int = 2000,
    random_state: int | None = 0,
) -> list[dict[str, Floats]]:
    """Return every metric that :func:`featx.evaluation.scores.score_answer` gives, on the same draws for all answers.

    Parameters
    ----------
    y : array of shape (n_test,)
        True labels.
    answers : sequence of Answer
        For these rows.
    task : {"classification", "regression"}
    together : int64 array of shape (n_test,) or None
        Group numbers; rows of one group are drawn together.
    n_draws : int
    random_state : int or None

    Returns
    -------
    list of dict of str to float64 array of shape (n_draws,)
        One for each answer; NaN for a draw that leaves the metric undefined.
    """
    prepare = _classification if task == "classification" else _regression
    scorers = [prepare(y, answer) for answer in answers]
    blocks = [
        [score(weights) for score in scorers] for weights in _draws(len(y), together, n_draws, random_state)
    ]
    return [
        {name: np.concatenate([block[name] for block in of_one]) for name in of_one[0]}
        for of_one in zip(*blocks, strict=True)
    ]


def swap_p_values(
    y: NDArray[Any],
    answers: Sequence[Answer],
    pairs: Sequence[tuple[int, int]],
    *,
    metric: str,
    together: NDArray[np.int64] | None = None,
    n_swaps: int = 10_000,
    random_state: int | None = 0,
) -> list[float | None]:
    """Return the two-sided p-value of no difference in a metric, for pairs of answers to the same rows.

    If two are equally good, it is chance which of them gave which of the two answers to a row. So they are swapped
    by the toss of a coin, whole groups together, and the p-value is the share of swaps, themselves as they are
    among them, that differ as much. Every swap is the same for all pairs.

    The area under a curve is no sum over rows, and scores of two heads have no common scale. There each row's
    placement among the rows of the other side is swapped instead, which has the variance of [1]_.

    Parameters
    ----------
    y : array of shape (n_test,)
        True labels.
    answers : sequence of Answer
        For these rows; each has the metric.
    pairs : sequence of (int, int)
        Positions in `answers`.
    metric : str
        One of `featx.evaluation.scores.METRICS`.
    together : int64 array of shape (n_test,) or None
        Group numbers; rows of one group are swapped together.
    n_swaps : int
    random_state : int or None

    Returns
    -------
    list of float or None
        One for each pair, at least ``1 / (n_swaps + 1)``; None of fewer than two groups, which cannot tell.

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson 1988, "Comparing the areas under two or more correlated receiver
       operating characteristic curves: a nonparametric approach", Biometrics 44.
    """
    group = _groups(len(y), together)
    n_groups = int(group.max()) + 1
    if n_groups < 2:
        return [None] * len(pairs)
    gathered = csr_array((np.ones(len(y)), (group, np.arange(len(y)))), shape=(n_groups, len(y)))
    per_row, value = _sums(y, answers, metric)
    sums = [gathered @ rows for rows in per_row]
    totals = [np.ones((1, n_groups)) @ rows for rows in sums]
    differences = [abs((value(totals[one]) - value(totals[other])).item()) for one, other in pairs]
    if metric == "roc_auc_ovr":  # its sum holds the area twice: once by the rows of each side
        differences = [difference / 2 for difference in differences]
    as_large = np.zeros(len(pairs), np.int64)
    random = np.random.default_rng(random_state)
    at_once = max(1, _CELLS_AT_ONCE // max(n_groups, len(answers) * sums[0].shape[1]))
    for start in range(0, n_swaps, at_once):
        swapped = (random.random((min(at_once, n_swaps - start), n_groups)) < 0.5).astype(np.float64)
        given = [swapped @ rows for rows in sums]
        for at, (one, other) in enumerate(pairs):
            moved = given[other] - given[one]
            found = np.abs(value(totals[one] + moved) - value(totals[other] - moved))
            # Sums in another order differ by rounding, and what is equal counts.
            as_large[at] += (found >= differences[at] * (1 - 1e-9) - 1e-12).sum()
    return [(1 + int(count)) / (1 + n_swaps) for count in as_large]


def _sums(
    y: NDArray[Any], answers: Sequence[Answer], metric: str
) -> tuple[list[Any], Callable[[Floats], Floats]]:
    """Return what to sum over rows for every answer, of shape (n_test, n_sums), and the metric of such sums."""
    n_rows = len(y)
    if metric == "accuracy":
        return [(one.predicted == y)[:, None] / n_rows for one in answers], _only
    if metric == "neg_log_loss":
        losses = [_losses(y, one) for one in answers]
        return [-one[:, None] / n_rows for one in losses if one is not None], _only
    if metric == "roc_auc_ovr":
        return [_placements(y, one)[:, None] for one in answers], _only
    if metric == "neg_mean_absolute_error":
        return [-np.abs(y - one.predicted)[:, None] / n_rows for one in answers], _only
    if metric in ("r2", "neg_root_mean_squared_error"):
        squares = [(y.astype(np.float64) - one.predicted)[:, None] ** 2 / n_rows for one in answers]
        if metric == "r2":
            return [-one / np.var(y) for one in squares], _only
        return squares, lambda sums: -np.sqrt(np.maximum(sums[:, 0], 0))
    labels, number = np.unique(np.concatenate([y, *[one.predicted for one in answers]]), return_inverse=True)
    numbers = number.reshape(-1, n_rows)
    support = np.bincount(numbers[0], minlength=len(labels)).astype(np.float64)
    per_row = [
        sparse_hstack(
            [_indicator(predicted, len(labels), predicted == numbers[0]), _indicator(predicted, len(labels))],
            format="csr",
        )
        for predicted in numbers[1:]
    ]

    def value(sums: Floats) -> Floats:
        hits, named = np.split(sums, 2, axis=1)
        return _of_counts(hits, named, np.broadcast_to(support, hits.shape))[metric]

    return per_row, value


def _only(sums: Floats) -> Floats:
    return sums[:, 0]


def _placements(y: NDArray[Any], answer: Answer) -> Floats:
    """Return every row's share of the area, once by the rows of a class and once by the rest: twice the area in all."""
    assert answer.scores is not None
    assert answer.classes is not None
    columns = [1] if len(answer.classes) == 2 else range(len(answer.classes))
    total = np.zeros(len(y))
    for column in columns:
        scores, positive = answer.scores[:, column], y == answer.classes[column]
        above, below = np.sort(scores[positive]), np.sort(scores[~positive])
        won = np.searchsorted(below, scores, "left") + np.searchsorted(below, scores, "right")
        lost = (
            2 * len(above) - np.searchsorted(above, scores, "left") - np.searchsorted(above, scores, "right")
        )
        total += np.where(positive, won, lost) / (2 * len(above) * len(below))
    return total / len(columns)


def _groups(n_rows: int, together: NDArray[np.int64] | None) -> NDArray[np.int64]:
    return np.arange(n_rows) if together is None else np.unique(together, return_inverse=True)[1]


def _draws(
    n_rows: int, together: NDArray[np.int64] | None, n_draws: int, random_state: int | None
) -> Iterator[Floats]:
    """Give how often every row is in every draw, some draws at a time."""
    group = _groups(n_rows, together)
    n_groups = int(group.max()) + 1
    shares = np.full(n_groups, 1 / n_groups)
    random = np.random.default_rng(random_state)
    at_once = max(1, _CELLS_AT_ONCE // n_rows)
    for start in range(0, n_draws, at_once):
        counts = random.multinomial(n_groups, shares, size=min(at_once, n_draws - start))
        yield counts[:, group].astype(np.float64)


def _classification(y: NDArray[Any], answer: Answer) -> Any:
    labels, number = np.unique(np.concatenate([y, answer.predicted]), return_inverse=True)
    true, predicted = number[: len(y)], number[len(y) :]
    of_class, called = _indicator(true, len(labels)), _indicator(predicted, len(labels))
    hit = _indicator(true, len(labels), true == predicted)
    area, losses = _area(y, answer), _losses(y, answer)

    def score(weights: Floats) -> dict[str, Floats]:
        support, named, hits = weights @ of_class, weights @ called, weights @ hit
        n_drawn = weights.sum(axis=1)
        found = {"accuracy": hits.sum(axis=1) / n_drawn, **_of_counts(hits, named, support)}
        if area is not None:
            found["roc_auc_ovr"] = area(weights)
        if losses is not None:
            found["neg_log_loss"] = -(weights @ losses) / n_drawn
        return found

    return score


def _of_counts(hits: Floats, named: Floats, support: Floats) -> dict[str, Floats]:
    """Return the metrics of how often each class was hit, named and there; each of shape (n_draws, n_classes)."""
    recall, precision = _ratio(hits, support), _ratio(hits, named)
    return {
        "balanced_accuracy": _mean_where(recall, support > 0),
        "f1_macro": _mean_where(_ratio(2 * hits, support + named), support + named > 0),
        "precision_macro": _mean_where(precision, support + named > 0),
        "recall_macro": _mean_where(recall, support + named > 0),
    }


def _regression(y: NDArray[Any], answer: Answer) -> Any:
    errors = y.astype(np.float64) - answer.predicted
    truth = y - y.mean()  # the spread of years is that of years since 2000, which rounds less

    def score(weights: Floats) -> dict[str, Floats]:
        n_drawn = weights.sum(axis=1)
        squares = weights @ errors**2
        spread = weights @ truth**2 - (weights @ truth) ** 2 / n_drawn
        return {
            "r2": 1 - squares / np.where(spread > 0, spread, np.nan),
            "neg_root_mean_squared_error": -np.sqrt(squares / n_drawn),
            "neg_mean_absolute_error": -(weights @ np.abs(errors)) / n_drawn,
        }

    return score


def _indicator(number: NDArray[np.int64], n_classes: int, kept: Any = None) -> Any:
    values = np.ones(len(number)) if kept is None else kept.astype(np.float64)
    return csr_array((values, (np.arange(len(number)), number)), shape=(len(number), n_classes))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean_where(values: Floats, defined: NDArray[np.bool_]) -> Floats:
    return np.asarray((values * defined).sum(axis=1) / defined.sum(axis=1))


def _losses(y: NDArray[Any], answer: Answer) -> Floats | None:
    """Return minus the logarithm of the probability of the true class, for every row."""
    if not answer.are_probabilities or not _knows_all(y, answer):
        return None
    assert answer.scores is not None
    assert answer.classes is not None
    column = np.searchsorted(answer.classes, y)
    smallest = np.finfo(answer.scores.dtype).eps
    losses: Floats = -np.log(
        np.clip(answer.scores[np.arange(len(y)), column], smallest, 1).astype(np.float64)
    )
    return losses


def _area(y: NDArray[Any], answer: Answer) -> Any:
    """Return a function from draws to the mean area under the curve of each class against the rest."""
    if not _knows_all(y, answer) or len(np.unique(y)) < len(answer.classes):  # type: ignore[arg-type]
        return None
    assert answer.scores is not None
    assert answer.classes is not None
    columns = [1] if len(answer.classes) == 2 else range(len(answer.classes))
    curves = [_curve(answer.scores[:, column], y == answer.classes[column]) for column in columns]

    def area(weights: Floats) -> Floats:
        of_row = np.ascontiguousarray(
            weights.T
        )  # sums over rows that lie side by side are several times as fast
        total = np.zeros(len(weights))
        for order, steps, positive, begins, at in curves:
            above = np.add.reduceat(of_row[positive], begins, axis=0)
            below = np.add.reduceat(of_row[order], steps, axis=0)
            below[at] -= above
            won = (above * (below.cumsum(axis=0)[at] - below[at] / 2)).sum(axis=0)
            pairs = above.sum(axis=0) * below.sum(axis=0)
            total += np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        return total / len(curves)

    return area


def _curve(scores: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Return the rows by rising score and where steps begin, then the positive rows, where theirs begin, and which.

    Rows of the same score are one step of the curve, and so are all between two steps with positive rows.
    """
    order = np.argsort(scores, kind="stable")
    ranked, hits = scores[order], positive[order]
    first = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    with_positive = np.logical_or.reduceat(hits, first)
    steps = first[with_positive | np.concatenate([[True], with_positive[:-1]])]
    step_of = np.searchsorted(steps, np.flatnonzero(hits), "right") - 1
    at, begins = np.unique(step_of, return_index=True)
    return order, steps, order[hits], begins, at


def _knows_all(y: NDArray[Any], answer: Answer) -> bool:
    return (
        answer.scores is not None
        and answer.classes is not None
        and answer.scores.shape[1] == len(answer.classes)
        and bool(np.isin(y, answer.classes).all())
    )
