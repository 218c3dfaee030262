"""What to look at after a cross-validation: errors, likely label errors, near-duplicates, a map; it shows nothing.

Arrays in, a plain dict out. All class scores are wanted, not only the confidence of each answer: what says that a
label is likely wrong is the probability of another class, measured against what that class usually gets.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.evaluation.folds import Fold
from featx.evaluation.heads import Task
from featx.evaluation.label_errors import suspects_by_neighbours, suspects_by_probability
from featx.evaluation.sample_map import map_samples
from featx.evaluation.similarity import Pair, UnitRows, copies, near_pairs, nearest

__all__ = ["inspect_predictions", "shown_rows"]

_MOST_PAIRS = 50
_DIGITS = 6


def inspect_predictions(
    X: NDArray[Any],
    y: NDArray[Any],
    *,
    folds: Sequence[Fold],
    predicted: "np.ma.MaskedArray[Any, Any]",
    scores: NDArray[Any] | None,
    classes: NDArray[Any] | None,
    are_probabilities: bool = True,
    keys: NDArray[np.uint8] | None,
    task: Task,
    random_state: int | None,
    n_shown: int = 12,
    n_neighbours: int = 4,
    n_map: int = 2000,
) -> dict[str, Any]:
    """Return the rows worth looking at, and why.

    Similarity is the cosine of standardised features everywhere. `featx.evaluation.similarity` says how pairs are
    found in bounded time and memory, `featx.evaluation.sample_map` how the map is made.

    Parameters
    ----------
    X : float array of shape (n_samples, n_features)
    y : array of shape (n_samples,)
        Labels.
    folds : sequence of Fold
        Of one repeat: each row is tested once at most.
    predicted : masked array of shape (n_samples,)
        The answer of the fold that tested the row; masked where none did.
    scores : float array of shape (n_samples, n_classes) or None
        Its class scores, as `featx.evaluation.grid_search.Answer` has them. NaN where no fold tested the row, and
        for classes that its fold did not know. None for regression, and for a head that has none: errors come in
        the order of the rows then.
    classes : array of shape (n_classes,) or None
        What the columns of `scores` stand for.
    are_probabilities : bool
        Else `scores` are values of a decision function.
    keys : uint8 array of shape (n_samples, 32) or None
        Digests of the samples' content; equal for exact copies.
    task : {"classification", "regression"}
    random_state : int or None
        Seed of everything drawn.
    n_shown, n_neighbours, n_map : int
        The most errors and suspects, neighbours of an error, and rows on the map.

    Returns
    -------
    dict
        Plain values; rows are ints.

        - ``wrong``: ``row, label, predicted, confidence, neighbours`` of errors, most confident first; confidence is
          the score of the class predicted, or None. The neighbours are the nearest of the rows that its fold was
          fitted on, each ``row, label, distance`` (one less the cosine). For regression the largest residuals, with
          ``residual``: predicted less label.
        - ``suspects``: ``row, label, suggested, score`` of likely label errors by confident learning
          (`featx.evaluation.label_errors`), by the head's probabilities or, where it has none, by the labels of
          neighbours; the score is the lead of the class suggested over the row's own, largest first.
        - ``near_duplicates``: ``rows, labels, similarity, exact``, most similar first and of equals those whose labels
          differ; 50 at most. Where pairs above it in the list already join two rows, a pair is left out.
        - ``map``: ``method, rows, x, y, predicted``.
        - ``confidence_is``: ``"probability"``, ``"decision value"`` or None.
        - ``suspects_by``: ``"probability"``, ``"neighbours"``, or None for regression.
        - ``counts``: ``tested, wrong, suspects, exact_copies`` in all; ``wrong`` is None for regression.
        - ``notes``: sentences on where the work was bounded.
    """
    unit = UnitRows.of(X)
    fold_of_row = _fold_of_row(len(y), folds)
    tested = np.flatnonzero(~np.ma.getmaskarray(predicted))
    answers = np.ma.getdata(predicted)
    confidence = _confidence(answers, scores, classes)

    if task == "regression":
        residuals = np.abs(answers[tested].astype(np.float64) - y[tested])
        wrong = tested[np.argsort(-residuals, kind="stable")]
        suspects, suspects_by = [], None
    else:
        wrong = tested[answers[tested] != y[tested]]
        wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
        if scores is not None and classes is not None and are_probabilities:
            suspects_by = "probability"
            suspects = suspects_by_probability(y, tested, scores, classes)
        else:
            suspects_by = "neighbours"
            suspects = suspects_by_neighbours(
                y, tested, wrong, unit, list(folds), fold_of_row, random_state=random_state
            )
    mapped = map_samples(unit, n_map=n_map, random_state=random_state)
    near = near_pairs(unit, mapped.basis, random_state=random_state)
    exact = [] if keys is None else copies(keys)

    shown = wrong[:n_shown]
    neighbours = nearest(
        unit, shown, [folds[fold_of_row[row]].train for row in shown], n_neighbours=n_neighbours
    )
    notes = []
    if near.n_compared < len(y):
        notes.append(
            f"near-duplicates were sought among {near.n_compared} of the {len(y)} samples, drawn at random"
        )
    if not near.complete:
        notes.append(
            "so many samples are alike that not every pair was compared: some near-duplicates are missing"
        )
    return {
        "wrong": [
            {
                "row": int(row),
                "label": _plain(y[row]),
                "predicted": _plain(answers[row]),
                "confidence": None if np.isnan(confidence[row]) else float(confidence[row]),
                **({"residual": float(answers[row] - y[row])} if task == "regression" else {}),
                "neighbours": [
                    {"row": near_row, "label": _plain(y[near_row]), "distance": round(distance, _DIGITS)}
                    for near_row, distance in found
                ],
            }
            for row, found in zip(shown, neighbours, strict=True)
        ],
        "suspects": [
            {"row": row, "label": _plain(y[row]), "suggested": _plain(suggested), "score": lead}
            for row, suggested, lead in suspects[:n_shown]
        ],
        "near_duplicates": list(_pair_records(exact, near.pairs, y)),
        "map": {
            "method": mapped.method,
            "rows": mapped.rows.tolist(),
            "x": np.round(mapped.positions[:, 0], 3).tolist(),
            "y": np.round(mapped.positions[:, 1], 3).tolist(),
            "predicted": [
                None if np.ma.getmaskarray(predicted)[row] else _plain(answers[row]) for row in mapped.rows
            ],
        },
        "confidence_is": None if scores is None else "probability" if are_probabilities else "decision value",
        "suspects_by": suspects_by,
        "counts": {
            "tested": len(tested),
            "wrong": None if task == "regression" else len(wrong),
            "suspects": len(suspects),
            "exact_copies": len(exact),
        },
        "notes": notes,
    }


def shown_rows(inspection: Mapping[str, Any]) -> list[int]:
    """Return every row that an inspection names, sorted."""
    rows = {one["row"] for one in (*inspection["wrong"], *inspection["suspects"])}
    rows.update(neighbour["row"] for one in inspection["wrong"] for neighbour in one["neighbours"])
    rows.update(row for pair in inspection["near_duplicates"] for row in pair["rows"])
    return sorted(rows.union(inspection["map"]["rows"]))


def _fold_of_row(n_rows: int, folds: Sequence[Fold]) -> NDArray[np.int64]:
    fold_of_row = np.full(n_rows, -1)
    for number, fold in enumerate(folds):
        fold_of_row[fold.test] = number
    return fold_of_row


def _confidence(
    answers: NDArray[Any], scores: NDArray[Any] | None, classes: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return the score of the class predicted, NaN where there is none."""
    if scores is None or classes is None:
        return np.full(len(answers), np.nan)
    column = {label: number for number, label in enumerate(classes.tolist())}
    at = np.array([column.get(answer, -1) for answer in answers.tolist()])
    return np.where(at >= 0, scores[np.arange(len(at)), at], np.nan).astype(np.float64)


def _pair_records(exact: list[Pair], near: list[Pair], y: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Yield the pairs to show; of a group that is all alike as few as join it."""
    same_content = {(pair.first, pair.second) for pair in exact}
    leader: dict[int, int] = {}

    def find(row: int) -> int:
        while row in leader:
            row = leader[row]
        return row

    def order(pair: Pair) -> tuple[float, bool, int, int]:
        # Rounded, for what differs by rounding alone is equal.
        return (
            -round(pair.similarity, _DIGITS),
            bool(y[pair.first] == y[pair.second]),
            pair.first,
            pair.second,
        )

    shown = 0
    for pair in [*sorted(exact, key=order), *sorted(near, key=order)]:
        first, second = find(pair.first), find(pair.second)
        if first == second:
            continue
        leader[second] = first
        yield {
            "rows": [pair.first, pair.second],
            "labels": [_plain(y[pair.first]), _plain(y[pair.second])],
            "similarity": round(pair.similarity, _DIGITS),
            "exact": (pair.first, pair.second) in same_content,
        }
        shown += 1
        if shown == _MOST_PAIRS:
            return


def _plain(label: Any) -> Any:
    return label.item() if isinstance(label, np.generic) else label
