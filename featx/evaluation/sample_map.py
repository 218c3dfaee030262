"""A map of samples: rows of a feature matrix as points of a plane, alike ones near each other; it draws nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from featx.evaluation.similarity import UnitRows

__all__ = ["SampleMap", "map_samples"]

_N_COMPONENTS = 50
_PERPLEXITY = 30.0
_FEWEST_FOR_TSNE = 10


@dataclass(frozen=True, eq=False)
class SampleMap:
    """Rows in the plane.

    Attributes
    ----------
    method : str
        How it was made, in words.
    rows : int64 array of shape (n_mapped,)
        Sorted.
    positions : float64 array of shape (n_mapped, 2)
    basis : float32 array of shape (n_components, n_features)
        The principal components: orthonormal directions in which the standardised rows of length one vary most.
    """

    method: str
    rows: NDArray[np.int64]
    positions: NDArray[np.float64]
    basis: NDArray[np.float32]


def map_samples(unit: UnitRows, *, n_map: int, random_state: int | None) -> SampleMap:
    """Return the rows, or as many of them drawn at random, in the plane.

    Principal components first, then t-SNE on these (van der Maaten and Hinton 2008, "Visualizing data using
    t-SNE"), begun at the first two components so that the large order is kept. Neighbourhoods on it mean something;
    distances between groups far apart, and their sizes, do not. One thread does the work: sums of several would round
    differently, and the map of the same data would be another on another machine.

    Parameters
    ----------
    unit : UnitRows
        Of at least one row.
    n_map : int
        The most rows on the map.
    random_state : int or None
        Seed of the draw and of t-SNE.
    """
    rows = np.arange(len(unit))
    if len(rows) > n_map:
        rows = np.sort(np.random.default_rng(random_state).choice(rows, n_map, replace=False))
    with threadpool_limits(limits=1):
        values = unit.take(rows)
        n_components = min(_N_COMPONENTS, *values.shape)
        # Rows that are all alike have no directions to vary in; scikit-learn divides by their variance, zero.
        with np.errstate(invalid="ignore", divide="ignore"):
            pca = PCA(
                n_components, svd_solver="covariance_eigh" if len(values) > values.shape[1] else "full"
            ).fit(values)
        coordinates = (values - pca.mean_) @ pca.components_.T
        plane = np.zeros((len(rows), 2))
        plane[:, : min(2, n_components)] = coordinates[:, :2]
        method = "principal components 1 and 2"
        spread = float(plane[:, 0].std())
        if len(rows) >= _FEWEST_FOR_TSNE and spread > 1e-6:
            perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
            plane = TSNE(
                perplexity=perplexity,
                # As scikit-learn's own init="pca" scales it, which wants two components where there may be one.
                init=(plane / spread * 1e-4).astype(np.float32),
                learning_rate="auto",
                random_state=random_state,
                n_jobs=1,
            ).fit_transform(coordinates)
            method = f"t-SNE (perplexity {perplexity:g}) of {n_components} principal components"
    return SampleMap(method, rows, np.asarray(plane, np.float64), pca.components_.astype(np.float32))
