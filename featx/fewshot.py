"""From labelled samples to few-shot accuracies and learning curves: extract once, draw once, score every contender."""

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Unpack

import numpy as np

from featx.contenders import Contender, check_distinct, read_contenders, specs_of
from featx.engine import Progress, SettingsKeywords
from featx.errors import UsageError
from featx.evaluation.data_checks import check_whole, unseen_notes
from featx.evaluation.few_shot.accuracy import check_support, episode_accuracies
from featx.evaluation.few_shot.episodes import Episodes, draw_episodes
from featx.evaluation.few_shot.learning_curve import check_sizes, draw_rows, held_out_fold, learning_curve
from featx.evaluation.few_shot.standings import EpisodeStanding, rank_episodes
from featx.evaluation.folds import Fold, inseparable_rows
from featx.evaluation.fusion import parts_matrix
from featx.evaluation.heads import Head, check_heads, head_records, load_head
from featx.evaluation.seeds import checked_seed
from featx.features import Features, extract
from featx.fewshot_results import FewShot
from featx.samples import read_labelled
from featx.tracking import SCHEMA, plain_json, provenance, source_of
from featx.wording import counted

__all__ = ["few_shot"]

_USUAL_EPISODES = 600
_USUAL_SIZES = (1, 2, 5, 10, 20, None)


def few_shot(
    samples: Any,
    extractors: Any,
    *,
    ways: int = 5,
    shots: int | Iterable[int] = (1, 5),
    queries: int = 15,
    episodes: int = 1000,
    heads: Sequence[Any] = ("centroid",),
    labels_per_class: int | Iterable[int | None] = _USUAL_SIZES,
    cache: str | os.PathLike[str] | None = None,
    labels: Any = None,
    groups: Any = None,
    random_state: int | None = 0,
    n_jobs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> FewShot:
    """Evaluate extractors on N-way K-shot episodes, and on ever more labels of all classes.

    Every extractor and head gets the same episodes and the same draws, from one pass over the samples. Exact
    copies, and rows of one group, are never on both sides. Heads are fitted as they stand: a handful of rows is nothing
    to search on.

    Parameters
    ----------
    samples : SampleTable, path, list of paths, arrays, images, DataFrame or torch Dataset
        Everything that `featx.read_samples` takes, with classes as labels; rows without one are left out.
    extractors : str, ModuleExtractor, or list of these or of fusions
        What is compared: ``["resnet50", "resnet50+hog"]``. A fusion's features stand side by side.
    ways : int
        Classes of an episode.
    shots : int or iterable of int
        Samples of each class to learn from; each number is evaluated.
    queries : int
        Samples of each class to ask about; fewer where the classes have no more.
    episodes : int
        How many.
    heads : sequence of str, path or scikit-learn classifier
        Recipes' names, paths of a user's own, or unfitted estimators. ``centroid`` is SimpleShot (Wang et al. 2019,
        arXiv:1911.04623), and with ``ridge`` the fast one: these two are computed for many episodes at once.
    labels_per_class : int or iterable of int or None
        Sizes of the learning curve, None for all; nothing at all for no curve. It is tested on the data's own split,
        else on a third, stratified, that is held out.
    cache : path, optional
        Folder that keeps the vectors; None keeps them in memory only.
    labels, groups : array-like of shape (n_samples,), optional
        Override what the samples bring.
    random_state : int or None
        Seed of episodes, draws, held-out rows and heads; None for a fresh one, which the results name.
    n_jobs : int, optional
        Processes to fit in, as scikit-learn counts them.
    progress : callable, optional
        Called with a `featx.engine.Progress` while features are extracted, and while heads are fitted.
    **settings
        Fields of `featx.engine.Settings`.

    Returns
    -------
    FewShot

    Raises
    ------
    UsageError
        For samples without classes, or with too few of them or of their samples, and for heads that cannot be
        fitted on so few.
    FeatxError
        Whatever `featx.extract` raises.
    """
    contenders, parts = read_contenders(extractors)
    table, n_unlabelled = read_labelled(samples, labels=labels, groups=groups)
    seed = checked_seed(random_state)
    recipes = _read_heads(heads, seed)
    sizes = _listed("labels_per_class", labels_per_class, "(1, 5, None)")
    check_sizes(sizes)
    given_shots = _listed("shots", shots, "(1, 5)")
    if not given_shots:
        raise UsageError("shots: expected at least one number, such as 1, got none.")
    for number in given_shots:
        check_whole("shots", number, least=1)
    asked = sorted(set(given_shots))
    drawing: dict[str, Any] = {"ways": ways, "queries": queries, "random_state": seed}
    assert table.y is not None
    for number, recipe in itertools.product(asked, recipes):
        check_support(recipe, ways=ways, shots=number)
    # All but exact copies is known before anything is extracted; what the most shots can have, fewer can too.
    for number in reversed(asked):
        given = inseparable_rows(table.groups, None)
        draw_episodes(table.y, shots=number, episodes=min(episodes, 2), together=given, **drawing)
    features = extract(table, parts, cache=cache, progress=progress, **settings)
    check_distinct(contenders, features)
    source = provenance(
        features, table, task="classification", n_unlabelled=n_unlabelled, source=source_of(samples)
    )
    assert features.y is not None
    together = inseparable_rows(features.groups, features.keys)
    drawn = [
        draw_episodes(features.y, shots=number, episodes=episodes, together=together, **drawing)
        for number in asked
    ]
    notes = [note for one in drawn for note in one.notes]
    if episodes < _USUAL_EPISODES:
        notes.append(
            f"{episodes} episodes are few, so the intervals are wide; {_USUAL_EPISODES} or more are usual"
        )
    labels_of = [one["label"] for one in source["extractors"]]
    pairs = [
        _Pair(contender, "+".join(labels_of[part] for part in contender.parts), head)
        for contender in contenders
        for head in recipes
    ]
    options: dict[str, Any] = {"together": together, "labels_per_class": sizes, "random_state": seed}
    fold, of_curve = _curve_rows(features, notes, **options) if sizes else (None, 0)
    fits = _Fits(progress, len(pairs) * (len(drawn) * episodes + of_curve))
    accuracies = _accuracies(features, pairs, drawn, notes, n_jobs=n_jobs, fits=fits)
    curves = [] if fold is None else _curves(features, fold, pairs, fits, of_curve, n_jobs=n_jobs, **options)
    if n_unlabelled:
        notes.append(f"left out {counted(n_unlabelled, 'sample')} without a label")
    results, best = [], []
    for one in drawn:
        own = {pair: accuracies[pair.key(one.shots)] for pair in pairs}
        standings = rank_episodes(own, resolution=1 / (one.ways * one.queries))
        results += [_result(pair, one, features, standings[pair]) for pair in pairs]
        first = next(iter(standings))
        best.append({"shots": one.shots, "extractor": first.contender.name, "head": first.head.name})
    protocol = {
        "ways": ways,
        "shots": asked,
        "queries": queries,
        "episodes": episodes,
        "chance": 1 / ways,
        "random_state": seed,
        "heads": head_records(recipes),
    }
    found = {
        "schema": SCHEMA,
        "kind": "fewshot",
        "command": None,
        "directory": None,
        **source,
        "notes": list(dict.fromkeys(notes)),
        "protocol": protocol,
        "results": results,
        "best": best,
        "learning_curve": curves,
    }
    return FewShot(plain_json(found), accuracies)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A contender with a head, and the contender's short name."""

    contender: Contender
    label: str
    head: Head

    def key(self, shots: int) -> tuple[str, str, int]:
        return self.contender.name, self.head.name, shots


def _listed(name: str, given: Any, example: str) -> list[Any]:
    """Return what was given as a list: a number by itself is a list of one."""
    if isinstance(given, int | np.integer):
        return [given]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"{name}: expected a number or a list such as {example}, got {given!r}.")
    return list(given)


def _read_heads(heads: Any, random_state: int) -> list[Head]:
    given = list(heads) if isinstance(heads, list | tuple) else [heads]
    recipes = [load_head(head, random_state=random_state) for head in given]
    check_heads(recipes)
    if recipes[0].task != "classification":
        raise UsageError(
            f"few-shot evaluation needs classification heads; {recipes[0].name!r} is a regression head. Take one such"
            " as centroid."
        )
    return recipes


@dataclass
class _Fits:
    """Tells how many of all fits are done, from one piece of work to the next."""

    progress: Callable[[Progress], None] | None
    total: int
    before: int = 0

    def of(self, n_fits: int) -> Callable[[int, int], None] | None:
        """Return what the next piece of work, of so many fits, tells its progress to."""
        before, self.before = self.before, self.before + n_fits
        if (progress := self.progress) is None:
            return None
        return lambda done, _: progress(Progress(before + done, self.total, 0, work="fitting"))


def _accuracies(
    features: Features,
    pairs: Sequence[_Pair],
    drawn: Sequence[Episodes],
    notes: list[str],
    *,
    n_jobs: int | None,
    fits: _Fits,
) -> dict[tuple[str, str, int], np.ndarray]:
    """Score every pair in all episodes, and note what the fits had to say."""
    assert features.y is not None
    accuracies = {}
    for pair in pairs:
        X = _matrix_of(pair, features)
        for episodes in drawn:
            accuracies[pair.key(episodes.shots)], said = episode_accuracies(
                X, features.y, pair.head, episodes, n_jobs=n_jobs, progress=fits.of(len(episodes))
            )
            notes += [
                f"{pair.label} with {pair.head.name}, {episodes.shots}-shot: {sentence}" for sentence in said
            ]
    return accuracies


def _curve_rows(
    features: Features,
    notes: list[str],
    *,
    together: np.ndarray | None,
    labels_per_class: Sequence[int | None],
    random_state: int,
) -> tuple[Fold | None, int]:
    """Return what every curve is fitted and tested on, and how many fits it takes; a note in their place."""
    assert features.y is not None
    shared: dict[str, Any] = {"together": together, "random_state": random_state}
    try:
        fold = held_out_fold(features.y, splits=features.splits, **shared)
    except UsageError as error:
        if features.splits is not None:
            raise
        notes.append(f"no learning curve, as no third of the samples can be held out for it: {error}")
        return None, 0
    try:
        drawn = draw_rows(
            features.y, train=fold.train, test=fold.test, labels_per_class=labels_per_class, **shared
        )
    except UsageError as error:  # a split of the data's own may leave no rows for it; the episodes stand
        notes.append(f"no learning curve: {error}")
        return None, 0
    missing = sorted({size for size in labels_per_class if size is not None and size not in drawn})
    # Of the usual sizes small data lacks some, which nobody asked for.
    if missing and tuple(labels_per_class) != _USUAL_SIZES:
        notes.append(
            f"the learning curve leaves out {' and '.join(map(str, missing))} labels per class: the smallest class has"
            " no more, or they would be all rows"
        )
    notes += [f"learning curve: {note}" for note in unseen_notes(features.y, drawn[None][0], fold.test)]
    return fold, sum(len(draws) for draws in drawn.values())


def _curves(
    features: Features, fold: Fold, pairs: Sequence[_Pair], fits: _Fits, n_fits: int, **options: Any
) -> list[dict[str, Any]]:
    """Return the learning curve of every pair, all on the same rows."""
    assert features.y is not None
    curves = []
    for pair in pairs:
        points = learning_curve(
            _matrix_of(pair, features),
            features.y,
            pair.head,
            {},
            train=fold.train,
            test=fold.test,
            progress=fits.of(n_fits),
            **options,
        )
        curves.append(
            {**_names(pair), "n_test": len(fold.test), "points": [asdict(point) for point in points]}
        )
    return curves


def _matrix_of(pair: _Pair, features: Features) -> np.ndarray:
    return parts_matrix(features.X, [spec.n_features for spec in features.specs], pair.contender.parts)


def _names(pair: _Pair) -> dict[str, Any]:
    return {"extractor": pair.contender.name, "label": pair.label, "head": pair.head.name}


def _result(pair: _Pair, episodes: Episodes, features: Features, standing: EpisodeStanding) -> dict[str, Any]:
    found, difference = standing.accuracy, standing.difference
    return {
        **_names(pair),
        "parts": list(pair.contender.parts),
        "ways": episodes.ways,
        "shots": episodes.shots,
        "queries": episodes.queries,
        "n_features": sum(spec.n_features for spec in specs_of(pair.contender, features)),
        "mean": found.mean,
        "std": found.std,
        "ci95": found.ci95,
        "episodes": len(episodes),
        # To the best, episode by episode.
        "difference": 0.0 if difference is None else difference.mean,
        "difference_ci95": None if difference is None else difference.ci95,
        "p_value": None if difference is None else difference.p_value,
        "verdict": standing.verdict,
    }
