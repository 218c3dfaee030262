"""The centroid and ridge recipes over many episodes at once, as batched linear algebra; it fits no other head.

What the recipes compute is computed in double precision, centres and scales from the support alone. A query
whose two best classes are so close that scikit-learn, in the precision of the features, might name the other is
reported as such: whoever wants scikit-learn's very answer asks it.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.evaluation.few_shot.episodes import Episodes
from featx.evaluation.heads import Head, load_head

__all__ = ["Algebra", "algebra_of", "batched_accuracies"]

_CHUNK_BYTES = 8 * 2**20  # about what a core's cache holds
_WHOLE_BYTES = 64 * 2**20  # what is converted at once, not row by row

Floats = NDArray[np.float64]
# From support of shape (n_episodes, ways * shots, n_features), query of shape (n_episodes, ways * queries, n_features)
# and the ways: the score of every query for every class, and how far scikit-learn's may be from it.
Algebra = Callable[[Floats, Floats, int, float], tuple[Floats, Floats]]


def algebra_of(head: Head) -> Algebra | None:
    """Return how to compute a head over many episodes, or None where it has to be fitted in each.

    It is the pipeline that counts, not its name: the shipped ``centroid`` and ``ridge``, the latter with any alpha.
    """
    given = _description(head.pipeline)
    if given == _description(load_head("centroid").pipeline):
        return _centroid
    alpha = given.pop("ridgeclassifier__alpha", None)
    ridge = _description(load_head("ridge").pipeline)
    del ridge["ridgeclassifier__alpha"]
    if alpha is None or given != ridge:
        return None
    strength = float(head.pipeline.get_params()["ridgeclassifier__alpha"])
    return lambda support, query, ways, epsilon: _ridge(support, query, ways, epsilon, alpha=strength)


def batched_accuracies(
    X: NDArray[Any], episodes: Episodes, algebra: Algebra
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the accuracy of every episode, and where scikit-learn might answer some query otherwise.

    Parameters
    ----------
    X : float array of shape (n_samples, n_features)
    episodes : Episodes
    algebra : callable
        From `algebra_of`.

    Returns
    -------
    accuracies : float64 array of shape (n_episodes,)
    doubtful : bool array of shape (n_episodes,)
    """
    true = np.repeat(np.arange(episodes.ways), episodes.queries)
    epsilon = float(np.finfo(X.dtype if X.dtype.kind == "f" else np.float64).eps)
    if X.size * 8 <= _WHOLE_BYTES:
        X = X.astype(np.float64, copy=False)
    accuracies, doubtful = np.empty(len(episodes)), np.empty(len(episodes), bool)
    for part in _chunks(episodes, X.shape[1]):
        support, query = (
            X[rows].astype(np.float64, copy=False) for rows in (episodes.support[part], episodes.query[part])
        )
        # Where a query has no finite score the episode is degenerate, and doubtful.
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            scores, error = algebra(support, query, episodes.ways, epsilon)
            second, first = np.moveaxis(np.partition(scores, -2)[..., -2:], -1, 0)
            doubtful[part] = ~(first - second > error).all(axis=1)
        accuracies[part] = (scores.argmax(axis=2) == true).mean(axis=1)
    return accuracies, doubtful


def _description(pipeline: Any) -> dict[str, Any]:
    """Return every parameter of a pipeline as text, and of what is an estimator the class."""
    return {
        name: type(value) if hasattr(value, "get_params") else repr(value)
        for name, value in pipeline.get_params().items()
        if name != "steps"
    }


def _chunks(episodes: Episodes, n_features: int) -> Iterator[slice]:
    n_rows = episodes.support.shape[1] + episodes.query.shape[1]
    at_once = max(1, _CHUNK_BYTES // (8 * n_rows * n_features))
    return (slice(at, at + at_once) for at in range(0, len(episodes), at_once))


def _centroid(support: Floats, query: Floats, ways: int, epsilon: float) -> tuple[Floats, Floats]:
    """Score by the squared distance to the class means of centred rows of length one (arXiv:1911.04623, CL2N)."""
    _, n_support, n_features = support.shape
    mean = support.mean(axis=1, keepdims=True)
    varies = (support != support[:, :1]).any(axis=1, keepdims=True)
    centred = support - mean
    centred *= varies
    mean *= varies
    lengths = _lengths(centred)
    # One product scales the rows to length one and takes their means by class.
    member = np.repeat(np.eye(ways), n_support // ways, axis=1) / (n_support // ways)
    centroids = (member / np.where(lengths == 0, 1, lengths)[:, None]) @ centred
    # The query is centred and scaled after the product, not before: it is what there is most of.
    weights = np.concatenate([centroids, mean], axis=1)
    products = query @ weights.swapaxes(1, 2)
    shift = weights @ mean.swapaxes(1, 2)
    along = products - shift.swapaxes(1, 2)
    squared = np.einsum("eqf,eqf->eq", query, query) - products[..., -1] - along[..., -1]
    for episode in np.flatnonzero(~varies.all(axis=2)):
        gone = np.flatnonzero(~varies[episode, 0])
        squared[episode] -= np.square(query[episode].take(gone, axis=1)).sum(axis=1)
    query_lengths = np.sqrt(squared)
    scores = 2 * along[..., :-1] / query_lengths[..., None] - np.square(_lengths(centroids))[:, None]
    # Rounding shows the more, the shorter the centred rows are beside what was taken off them.
    mean_lengths = _lengths(mean)
    magnified = 1 + mean_lengths / query_lengths + mean_lengths / lengths.min(axis=1, keepdims=True)
    own = np.finfo(np.float64).eps * np.square(magnified)  # of the lengths, here
    return scores, _roundings(n_features) * (epsilon * magnified + own)


def _ridge(
    support: Floats, query: Floats, ways: int, epsilon: float, *, alpha: float
) -> tuple[Floats, Floats]:
    """Score by ridge regression on the class indicators of standardised rows, solved in the size of the support."""
    n_support = support.shape[1]
    mean = support.mean(axis=1, keepdims=True)
    standard = support - mean
    variance = np.square(standard).mean(axis=1, keepdims=True)
    # As scikit-learn tells a feature that never varies from one that does.
    rounding = np.finfo(np.float64).eps
    constant = variance <= n_support * rounding * variance + np.square(n_support * rounding * mean)
    scale = np.sqrt(np.where(constant, 1, variance))
    standard /= scale
    target = np.where(np.repeat(np.arange(ways), n_support // ways)[:, None] == np.arange(ways), 1.0, -1.0)
    intercept = target.mean(axis=0)
    kernel = standard @ standard.swapaxes(1, 2)
    kernel[:, np.arange(n_support), np.arange(n_support)] += alpha
    dual = np.linalg.solve(kernel, np.broadcast_to(target - intercept, (len(kernel), n_support, ways)))
    weights = (standard / scale).swapaxes(1, 2) @ dual
    scores = query @ weights - mean @ weights + intercept
    # Rounding is that of the terms which make up a score: the support's, and what a query may have beyond.
    terms = np.sqrt(np.square(support) @ np.square(weights)).max(axis=(1, 2))[:, None]
    return scores, 5 * _roundings(support.shape[2]) * epsilon * (terms + np.abs(scores).max(axis=2))


def _roundings(n_features: int) -> float:
    """Return a bound, in units in the last place: on features of real and made-up scales a third of it was seen."""
    return 6 * (1 + math.sqrt(n_features / 64))


def _lengths(rows: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("...f,...f->...", rows, rows))
    return lengths
