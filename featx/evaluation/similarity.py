"""Cosine similarity of the rows of a feature matrix: nearest rows, and pairs that are nearly the same picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["NEARLY_SAME", "NearPairs", "Pair", "UnitRows", "copies", "near_pairs", "nearest"]

NEARLY_SAME = 0.8
"""From which cosine on standardised features two rows count as nearly the same picture.

Of photos of flowers, insects and seven kinds of objects, hardly two unrelated ones come above 0.75 by MobileNetV2
or HOG (SqueezeNet puts two fields of sunflowers at 0.85). The same person photographed twice comes to 0.83, and the
same photo cropped by 5%, brightened by a quarter, or compressed to JPEG quality 50 to a median of 0.93, 0.95, 0.86.
"""

_ASKED_AT_ONCE = 256
_BLOCK_ROWS = 1024
_TILE_COLUMNS = 8192
_MOST_COMPARED = 100_000
_MOST_COMPUTED = 1_000_000_000
_KEPT = 1000


@dataclass(frozen=True, eq=False)
class UnitRows:
    """The rows of a matrix, each feature standardised and each row of length one; made block by block on request.

    Attributes
    ----------
    X : float array of shape (n_samples, n_features)
    mean, scale : float32 array of shape (n_features,)
        A feature that never varies has scale one, and is zero once centred.
    """

    X: NDArray[Any]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, X: NDArray[Any]) -> "UnitRows":
        """Take means and scales from all rows."""
        total = np.zeros(X.shape[1])
        for block in _blocks(np.arange(len(X))):
            total += X[block].sum(axis=0, dtype=np.float64)
        mean = total / len(X)
        squares = np.zeros(X.shape[1])
        for block in _blocks(np.arange(len(X))):
            squares += np.square(X[block] - mean).sum(axis=0)
        scale = np.sqrt(squares / len(X))
        # What varies by less than rounding does not vary.
        scale[scale <= 1e-6 * np.abs(mean)] = 1.0
        return cls(X, mean.astype(np.float32), np.where(scale > 0, scale, 1.0).astype(np.float32))

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return some rows, float32 of shape (n_rows, n_features); one at the very mean stays zero."""
        unit = (self.X[rows].astype(np.float32) - self.mean) / self.scale
        length = np.linalg.norm(unit, axis=1, keepdims=True)
        result: NDArray[np.float32] = np.divide(unit, length, out=np.zeros_like(unit), where=length > 0)
        return result


class Pair(NamedTuple):
    """Two rows, the lower number first, and their cosine similarity."""

    similarity: float
    first: int
    second: int


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows that are nearly the same, the most similar first.

    Attributes
    ----------
    pairs : list of Pair
    n_compared : int
        How many rows were compared with each other.
    complete : bool
        Whether every pair of these was ruled out or checked.
    """

    pairs: list[Pair]
    n_compared: int
    complete: bool


def nearest(
    unit: UnitRows, rows: NDArray[np.int64], among: list[NDArray[np.int64]], *, n_neighbours: int
) -> list[list[tuple[int, float]]]:
    """Return for each row the nearest of some others by cosine distance, nearest first.

    Parameters
    ----------
    unit : UnitRows
    rows : int64 array of shape (n,)
    among : list of int64 array, of length n
        The rows that each may have as neighbours.
    n_neighbours : int
        Fewer are returned where there are fewer.

    Returns
    -------
    list of list of (row, distance)
        Distances are 0 to 2.
    """
    found = []
    for start in range(0, len(rows), _ASKED_AT_ONCE):
        asked = unit.take(rows[start : start + _ASKED_AT_ONCE])
        similarity = np.empty((len(asked), len(unit)), np.float32)
        for block in _blocks(np.arange(len(unit))):
            similarity[:, block] = asked @ unit.take(block).T
        for row, candidates in zip(similarity, among[start : start + _ASKED_AT_ONCE], strict=True):
            distances = 1.0 - row[candidates].astype(np.float64)
            near = _nearest(distances, n_neighbours)
            found.append([(int(candidates[at]), max(0.0, float(distances[at]))) for at in near])
    return found


def copies(keys: NDArray[np.uint8]) -> list[Pair]:
    """Return each exact copy with the first row of its content.

    Parameters
    ----------
    keys : uint8 array of shape (n_samples, 32)
        Digests of the samples' content.
    """
    texts = np.ascontiguousarray(keys).view(f"S{keys.shape[1]}").ravel()
    _, first, content = np.unique(texts, return_index=True, return_inverse=True)
    original = first[content]
    return [
        Pair(1.0, int(original[row]), int(row)) for row in np.flatnonzero(original != np.arange(len(keys)))
    ]


def _nearest(distances: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return where so many of the smallest are, rising; of equals the first."""
    near = np.arange(len(distances))
    if len(near) > number:
        near = np.flatnonzero(distances <= np.partition(distances, number - 1)[number - 1])
    return near[np.argsort(distances[near], kind="stable")[:number]]


def near_pairs(
    unit: UnitRows, basis: NDArray[np.float32], *, random_state: int | None, at_least: float = NEARLY_SAME
) -> NearPairs:
    """Return the pairs of rows whose cosine similarity is highest, at most 1,000.

    Every row is compared with every other by an upper bound of their similarity, which misses no pair: with ``q``
    the coordinates of a row along an orthonormal basis and ``r`` the length of what the basis leaves of it, the
    similarity is at most ``q_i . q_j + r_i r_j`` (Cauchy and Schwarz). Only pairs whose bound is high enough are
    computed in full.

    The work is bounded: at most 100,000 rows are compared, drawn at random from more, and once 1,000,000,000
    similarities are computed in full, of every tile of 1,024 x 8,192 pairs only the 1,000 with the highest bounds
    are. The memory is bounded by such a tile.

    Parameters
    ----------
    unit : UnitRows
    basis : float32 array of shape (n_components, n_features)
        Orthonormal rows, the directions in which the data varies most.
    random_state : int or None
        Seed of the draw.
    at_least : float
        The lowest similarity of interest.
    """
    rows = np.arange(len(unit))
    if len(rows) > _MOST_COMPARED:
        rows = np.sort(np.random.default_rng(random_state).choice(rows, _MOST_COMPARED, replace=False))
    bounded = _bounding(unit, rows, basis)
    kept: list[Pair] = []
    computed = 0
    complete = True
    for start in range(0, len(rows), _BLOCK_ROWS):
        for tile in range(start, len(rows), _TILE_COLUMNS):
            # Rounding of float32 must not put a bound below the similarity it bounds.
            lowest = (kept[-1].similarity if len(kept) == _KEPT else at_least) - 1e-5
            bounds = bounded[start : start + _BLOCK_ROWS] @ bounded[tile : tile + _TILE_COLUMNS].T
            left, right = np.nonzero(bounds >= lowest)
            upper = start + left < tile + right
            left, right = left[upper], right[upper]
            if computed >= _MOST_COMPUTED and len(left) > _KEPT:
                complete = False
                best = np.argpartition(-bounds[left, right], _KEPT)[:_KEPT]
                left, right = left[best], right[best]
            if len(left):
                first, first_at = np.unique(left, return_inverse=True)
                second, second_at = np.unique(right, return_inverse=True)
                product = unit.take(rows[start + first]) @ unit.take(rows[tile + second]).T
                computed += product.size
                similarity = product[first_at, second_at]
                found = _pairs(rows[start + left], rows[tile + right], similarity, at_least)
                kept = sorted([*kept, *found], key=_most_similar_first)[:_KEPT]
    return NearPairs(kept, len(rows), complete)


def _bounding(unit: UnitRows, rows: NDArray[np.int64], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a vector for each row such that the product of two is at least the similarity of their rows."""
    bounding = np.empty((len(rows), len(basis) + 1), np.float32)
    for at in _blocks(np.arange(len(rows))):
        values = unit.take(rows[at])
        bounding[at, :-1] = values @ basis.T
        left = np.square(values).sum(axis=1) - np.square(bounding[at, :-1]).sum(axis=1)
        bounding[at, -1] = np.sqrt(np.maximum(left, 0.0))
    return bounding


def _pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], similarity: NDArray[np.float32], at_least: float
) -> Iterator[Pair]:
    found = np.flatnonzero(similarity >= at_least)
    if len(found) > _KEPT:
        found = found[np.argsort(-similarity[found], kind="stable")[:_KEPT]]
    for at in found:
        # A cosine is at most one, whatever float32 makes of it.
        yield Pair(min(1.0, float(similarity[at])), int(first[at]), int(second[at]))


def _most_similar_first(pair: Pair) -> tuple[float, int, int]:
    return -pair.similarity, pair.first, pair.second


def _blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), _BLOCK_ROWS):
        yield rows[start : start + _BLOCK_ROWS]
