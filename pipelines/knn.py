"""The nearest neighbours by cosine distance on standardised features: no training, nothing learnt but scales.

Cosine is how neighbours of frozen features are usually found: the length of a feature vector says more of
contrast than of content. Standardising comes first because a cosine over fused extractors would otherwise
see only the one with the largest numbers. On rows of length one the Euclidean distance ranks as the cosine.
"""

from typing import Any, Literal

from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

__all__ = ["build", "grid"]


def build(*, n_neighbors: int = 5, weights: Literal["uniform", "distance"] = "distance") -> Pipeline:
    """Return the unfitted head; it is deterministic and has no class weights.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that vote.
    weights : {"uniform", "distance"}
        Whether a nearer neighbour counts for more.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, Normalizer, KNeighborsClassifier.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build(n_neighbors=3).fit(X, y).predict_proba(X[:1])
    array([[1., 0., 0.]])
    """
    return make_pipeline(
        StandardScaler(),
        Normalizer(),
        # Trees do not pay in hundreds of dimensions, and would be one more thing to store.
        KNeighborsClassifier(n_neighbors, weights=weights, algorithm="brute"),
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space: 50 to 1 neighbours, weighted or not."""
    return {
        "kneighborsclassifier__n_neighbors": [50, 20, 10, 5, 3, 1],
        "kneighborsclassifier__weights": ["uniform", "distance"],
    }
