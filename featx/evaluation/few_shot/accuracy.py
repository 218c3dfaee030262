"""How accurate a head is in every episode; it draws none."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.evaluation import grid_search
from featx.evaluation.few_shot.episode_algebra import algebra_of, batched_accuracies
from featx.evaluation.few_shot.episodes import Episodes
from featx.evaluation.few_shot.fixed_fits import fixed_accuracies
from featx.evaluation.grid_search import FitLog
from featx.evaluation.heads import Head

__all__ = ["check_support", "episode_accuracies"]


def episode_accuracies(
    X: ArrayLike,
    y: ArrayLike,
    head: Head,
    episodes: Episodes,
    *,
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float64], list[str]]:
    """Fit a head on the support of every episode, with its parameters as they stand, and score its queries.

    A handful of rows is nothing to search on, so no grid is. All that is learnt, means and scales included, is
    learnt from the support: the inductive setting. ``centroid`` (SimpleShot, arXiv:1911.04623) and ``ridge``
    are computed for many episodes at once, in double precision; where rounding could decide a query, the episode
    is given to scikit-learn, so that the accuracies are always those of fitting the recipe in each. Any other
    head is fitted in each.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        Finite numbers.
    y : array of shape (n_samples,)
        Classes.
    head : Head
        A classifier.
    episodes : Episodes
        From `featx.evaluation.few_shot.episodes.draw_episodes`.
    n_jobs : int or None
        Processes that fit heads other than the two.
    progress : callable or None
        Called with how many episodes are done, and how many there are.

    Returns
    -------
    accuracies : float64 array of shape (n_episodes,)
    notes : list of str
        What the fits had to say.

    Raises
    ------
    UsageError
        For a regression head, or one that cannot be fitted on so few rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from featx.evaluation.few_shot.episodes import draw_episodes
    >>> from featx.evaluation.heads import load_head
    >>> X, y = load_iris(return_X_y=True)
    >>> accuracies, notes = episode_accuracies(X, y, load_head("ridge"), draw_episodes(y, ways=3, shots=5))
    >>> accuracies.shape, round(float(accuracies.mean()), 2), notes
    ((1000,), 0.79, [])
    """
    features, labels = np.asarray(X), np.asarray(y)
    if head.task != "classification":
        raise UsageError(
            f"episodes need a classification head; {head.name!r} is a regression head. Take one such as centroid."
        )
    algebra = algebra_of(head)
    if algebra is None:
        accuracies, doubtful = np.empty(len(episodes)), np.ones(len(episodes), bool)
    else:
        accuracies, doubtful = batched_accuracies(features, episodes, algebra)
        n_jobs = None  # what is left is less than starting processes
    pairs = [(episodes.support[at], episodes.query[at]) for at in np.flatnonzero(doubtful)]
    told = None if algebra is not None else progress
    accuracies[doubtful], logs = fixed_accuracies(
        features, labels, head, {}, pairs, n_jobs=n_jobs, progress=told
    )
    _check(head, episodes, logs)
    if algebra is not None and progress is not None:
        progress(len(episodes), len(episodes))
    return accuracies, grid_search.notes(head, [], logs)


def check_support(head: Head, *, ways: int, shots: int) -> None:
    """Refuse a head that asks for more neighbours than an episode has samples, before any feature is computed for it.

    Raises
    ------
    UsageError
    """
    for name, value in head.pipeline.get_params().items():
        if name.rpartition("__")[2] == "n_neighbors" and isinstance(value, int) and value > ways * shots:
            raise UsageError(
                f"head {head.name!r} asks {value} neighbours, more than the {ways * shots} samples of a {ways}-way"
                f" {shots}-shot episode. Take more shots or ways, or another head (centroid)."
            )


def _check(head: Head, episodes: Episodes, logs: list[FitLog]) -> None:
    failures = [log.failure for log in logs if log.failure is not None]
    if failures:
        raise UsageError(
            f"head {head.name!r} cannot be fitted in {len(failures)} of {len(episodes)} {episodes.ways}-way"
            f" {episodes.shots}-shot episodes, of {episodes.support.shape[1]} samples each: {failures[0]}. Take more"
            " shots or ways, or another head (centroid)."
        )
