"""The nearest class mean after centring and L2 normalisation: the few-shot baseline SimpleShot, CL2N.

Wang et al. 2019, "SimpleShot: revisiting nearest-neighbor classification for few-shot learning"
(arXiv:1911.04623). Nothing in it needs choosing, so it works from two samples a class.
It answers with classes alone: scikit-learn's probabilities and decision function of a nearest centroid follow
another rule than its predictions, so featx uses neither.
"""

from typing import Any

from sklearn.feature_selection import VarianceThreshold
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

__all__ = ["build", "grid"]


def build() -> Pipeline:
    """Return the unfitted head; it is deterministic and has no class weights.

    Returns
    -------
    sklearn.pipeline.Pipeline
        VarianceThreshold, StandardScaler (centring only), Normalizer, NearestCentroid.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build().fit(X, y).predict(X[:1])
    array([0])
    """
    return make_pipeline(
        # A feature that never varies is zero once centred; NearestCentroid warns of it on every fit.
        VarianceThreshold(),
        StandardScaler(with_std=False),
        Normalizer(),
        NearestCentroid(),
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space, which is empty."""
    return {}
