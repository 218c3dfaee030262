"""Drawing N-way K-shot episodes from labelled rows, once for every contender; it fits and scores nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UsageError
from featx.evaluation.data_checks import check_whole

__all__ = ["Episodes", "draw_episodes"]

Rows = NDArray[np.int64]

_TRIES = 100
_CLASSES_NAMED = 5


@dataclass(frozen=True, eq=False)
class Episodes:
    """Small classification problems: a few rows to learn from, others to answer.

    Attributes
    ----------
    ways, shots, queries : int
        Classes of an episode, and rows of each that are learnt from and asked about.
    classes : array of shape (n_episodes, ways)
        Labels, sorted within each episode.
    support : int64 array of shape (n_episodes, ways * shots)
        Row numbers to learn from, class by class in the order of `classes`.
    query : int64 array of shape (n_episodes, ways * queries)
        Row numbers to predict, in the same order.
    notes : list of str
        What was decided because some classes have few rows, in sentences.
    """

    ways: int
    shots: int
    queries: int
    classes: NDArray[Any]
    support: Rows
    query: Rows
    notes: list[str]

    def __len__(self) -> int:
        return len(self.support)


def draw_episodes(
    y: ArrayLike,
    *,
    ways: int = 5,
    shots: int = 1,
    queries: int = 15,
    episodes: int = 1000,
    together: Rows | None = None,
    random_state: int | None = 0,
) -> Episodes:
    """Draw episodes as Vinyals et al. 2016 (arXiv:1606.04080) define them.

    Each draws its classes without replacement, evenly among those with enough rows, and of every class rows to
    learn from and rows to ask about. Rows that belong together, such as exact copies, count as one: at most one
    of them is in a class of an episode, and never do support and query share any. A class has enough rows
    with ``shots + queries`` of them; where fewer than `ways` classes have, every class is asked fewer queries, as
    many as leave `ways` classes. Episodes of the same seed have the same classes and queries for any number
    of shots, and their supports contain one another, as long as the same classes and queries are possible.

    Parameters
    ----------
    y : array of shape (n_samples,)
        Classes.
    ways : int
        Classes of an episode, at least 2.
    shots, queries : int
        Rows of each class to learn from and to ask about, at least 1.
    episodes : int
        How many, at least 2.
    together : int64 array of shape (n_samples,) or None
        Group numbers, as `featx.evaluation.folds.inseparable_rows` gives.
    random_state : int or None
        Seed.

    Raises
    ------
    UsageError
        For numbers too small, labels that are no classes, and where the classes or their rows are too few.

    Examples
    --------
    >>> drawn = draw_episodes(list("aaaabbbbcccc"), ways=2, shots=1, queries=3, episodes=10)
    >>> drawn.classes.shape, drawn.support.shape, drawn.query.shape
    ((10, 2), (10, 2), (10, 6))
    """
    for name, value, least in (
        ("ways", ways, 2),
        ("shots", shots, 1),
        ("queries", queries, 1),
        ("episodes", episodes, 2),
    ):
        check_whole(name, value, least=least)
    labels = np.asarray(y)
    if len(found := np.unique(labels)) < 2:
        raise UsageError(
            f"few-shot evaluation needs two classes or more; every label is {found[0].item()!r}. Add samples of others."
        )
    if labels.dtype.kind == "f" and (labels != np.floor(labels)).any():
        raise UsageError(
            f"few-shot evaluation needs classes as labels; got numbers such as"
            f" {labels[labels != np.floor(labels)][0]:g}. Give names, or whole numbers."
        )
    numbers = np.arange(len(labels)) if together is None else np.unique(together, return_inverse=True)[1]
    pools = _pools(labels, numbers)
    names = np.unique(labels)
    counts = np.array([len(pool.groups) for pool in pools])
    asked = _possible_queries(counts, ways, shots, queries, grouped=together is not None)
    eligible = np.flatnonzero(counts >= shots + asked)
    seeds = np.random.SeedSequence(random_state).spawn(episodes)
    drawn = [_episode(seed, [pools[at] for at in eligible], numbers, ways, shots, asked) for seed in seeds]
    chosen, support, query = (np.array(rows) for rows in zip(*drawn, strict=True))
    return Episodes(
        ways=ways,
        shots=shots,
        queries=asked,
        classes=names[eligible][chosen],
        support=support,
        query=query,
        notes=_notes(names, counts, eligible, shots, asked, queries),
    )


@dataclass(frozen=True, eq=False)
class _Pool:
    """The rows of one class, those of a group side by side: of each group where they begin and how many they are."""

    rows: Rows
    groups: Rows
    begins: Rows
    sizes: Rows


def _pools(labels: NDArray[Any], numbers: Rows) -> list[_Pool]:
    pools = []
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        rows = rows[np.argsort(numbers[rows], kind="stable")]
        groups, begins, sizes = np.unique(numbers[rows], return_index=True, return_counts=True)
        pools.append(_Pool(rows, groups, begins, sizes))
    return pools


def _possible_queries(counts: Rows, ways: int, shots: int, queries: int, *, grouped: bool) -> int:
    """Return how many queries a class is asked: those asked for, or as many as leave enough classes."""
    enough = int((counts > shots).sum())
    if enough < ways:
        ones = " (rows of a group, and exact copies, count as one)" if grouped else ""
        largest = np.sort(counts)[::-1]
        ways_out = [f"ways to {enough}"] if enough >= 2 else []
        if ways <= len(counts) and largest[ways - 1] >= 2:
            ways_out.append(f"shots to {largest[ways - 1] - 1}")
        both = min(ways, int((counts >= 2).sum()))
        if not ways_out and both >= 2:
            ways_out.append(f"ways to {both} and shots to {min(shots, largest[both - 1] - 1)}")
        more = "groups" if grouped else "samples"
        way = f"Lower {' or '.join(ways_out)}, or add {more}." if ways_out else f"Add {more}."
        raise UsageError(
            f"{ways}-way {shots}-shot episodes need {ways} classes with {shots + 1} samples or more{ones}, {shots} to"
            f" learn from and one to ask about; got {enough} such of {len(counts)} classes. {way}"
        )
    return min(queries, int(np.sort(counts)[-ways]) - shots)


def _episode(
    seed: np.random.SeedSequence, pools: Sequence[_Pool], numbers: Rows, ways: int, shots: int, queries: int
) -> tuple[Rows, Rows, Rows]:
    """Draw the classes, support and query of one episode.

    Every group gets one random number, whatever its classes: a class asks about the groups with the lowest, and
    learns from those with the highest. So a group that spans classes is almost always on one side by itself;
    an episode in which one is on both is drawn again.
    """
    random = np.random.default_rng(seed)
    n_groups = int(numbers.max()) + 1
    for _ in range(_TRIES):
        chosen = np.sort(random.choice(len(pools), ways, replace=False))
        place, within = random.random(n_groups), random.random(n_groups)
        asked, learnt = [], []
        rows: tuple[list[Rows], list[Rows]] = ([], [])
        for pool in (pools[at] for at in chosen):
            lowest, highest = _ends(place[pool.groups], queries, shots)
            asked.append(pool.groups[lowest])
            learnt.append(pool.groups[highest])
            for part, found in zip((highest, lowest), rows, strict=True):
                member = (within[pool.groups[part]] * pool.sizes[part]).astype(np.int64)
                found.append(pool.rows[pool.begins[part] + member])
        if np.intersect1d(np.concatenate(asked), np.concatenate(learnt)).size == 0:
            return chosen, np.concatenate(rows[0]), np.concatenate(rows[1])
    raise UsageError(
        f"the groups span the classes so much that {_TRIES} draws found no episode in which support and query share"
        " none. Lower queries, shots or ways, or leave groups out."
    )


def _ends(values: NDArray[np.float64], n_lowest: int, n_highest: int) -> tuple[Rows, Rows]:
    """Return where the lowest values are, rising, and the highest, falling."""
    order = np.argpartition(values, (n_lowest - 1, len(values) - n_highest))
    lowest, highest = order[:n_lowest], order[len(values) - n_highest :]
    return lowest[np.argsort(values[lowest])], highest[np.argsort(-values[highest])]


def _notes(
    names: NDArray[Any], counts: Rows, eligible: Rows, shots: int, asked: int, queries: int
) -> list[str]:
    notes = []
    if asked < queries:
        notes.append(
            f"{shots}-shot episodes ask {asked} queries per class, not {queries}: the classes have no more samples"
        )
    small = np.setdiff1d(np.arange(len(names)), eligible)
    if len(small):
        named = ", ".join(f"{names[at]} ({counts[at]})" for at in small[:_CLASSES_NAMED])
        more = f" and {len(small) - _CLASSES_NAMED} more" if len(small) > _CLASSES_NAMED else ""
        notes.append(
            f"{shots}-shot episodes never draw {len(small)} of {len(names)} classes, which have fewer than the"
            f" {shots + asked} samples it takes: {named}{more}; fewer queries would let them in"
        )
    return notes
