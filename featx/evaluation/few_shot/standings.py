"""Which contender is best on the same episodes, and which are really worse; it fits none."""

import itertools
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featx.evaluation.intervals import MeanInterval, mean_interval
from featx.evaluation.significance import Difference, Verdict, compare_episodes, corrected, verdict_of

__all__ = ["EpisodeStanding", "rank_episodes"]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class EpisodeStanding:
    """A contender's mean accuracy, its difference from the best if it is another, and the verdict."""

    accuracy: MeanInterval
    difference: Difference | None
    verdict: Verdict


def rank_episodes(
    accuracies: Mapping[K, NDArray[np.float64]], *, resolution: float
) -> dict[K, EpisodeStanding]:
    """Return how each contender stands, the best first; of equals the one that is named first.

    The best is picked by the same episodes, so the p-values of all pairs are corrected together, as if any pair could
    be the one looked at.

    Parameters
    ----------
    accuracies : mapping to float64 array of shape (n_episodes,)
        Of every contender, on the same episodes.
    resolution : float
        The share of one query of an episode.

    Examples
    --------
    >>> found = rank_episodes({"a": np.tile([0.4, 0.5], 50), "b": np.tile([0.6, 0.8], 50)}, resolution=0.1)
    >>> [(name, one.verdict) for name, one in found.items()]
    [('b', 'best'), ('a', 'worse')]
    """
    ranked = sorted(accuracies, key=lambda name: -float(accuracies[name].mean()))
    # Pairs come in the order of the ranking, so the first are those with the best.
    among = corrected(
        [
            compare_episodes(accuracies[other], accuracies[one], resolution=resolution)
            for one, other in itertools.combinations(ranked, 2)
        ]
    )
    return {
        name: EpisodeStanding(
            mean_interval(accuracies[name]), difference, verdict_of(difference, n_contenders=len(ranked))
        )
        for name, difference in zip(ranked, [None, *among[: len(ranked) - 1]], strict=True)
    }
