"""compare: which extractor with which head is best on some data, by how much, and whether that is real."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from featx.comparison_results import comparison_results
from featx.contenders import check_distinct, read_contenders
from featx.engine import Progress, SettingsKeywords
from featx.evaluation.comparison import HeadComparison, check_comparison, compare_heads
from featx.evaluation.fusion import Fusion
from featx.evaluation.grid_search import Answer
from featx.evaluation.heads import head_records, load_head
from featx.evaluation.seeds import checked_seed
from featx.features import extract
from featx.printable import printable_line
from featx.samples import read_labelled
from featx.tracking import extractor_labels, source_of, write_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison", "compare"]

_FOLDS_HEADER = (
    "id",
    "label",
    "repeat",
    "fold",
    "extractor",
    "head",
    "fusion",
    "prediction",
    "confidence",
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found.

    Attributes
    ----------
    results : dict
        Plain values, as ``results.json`` holds them: see ``docs/comparing.md``.
    evaluation : HeadComparison
        The same as records: every fold, choice and answer.
    ids : array of shape (n_samples,)
        Of the rows that the folds count.
    """

    results: dict[str, Any]
    evaluation: HeadComparison
    ids: NDArray[Any]

    def __repr__(self) -> str:
        best = self.results["results"][1]
        metric = self.evaluation.metric
        n_contenders = len(self.results["results"]) - 1
        return (
            f"Comparison({n_contenders} contender{'s' * (n_contenders > 1)}, best {best['label']} with {best['head']}:"
            f" {metric} {best['metrics'][metric]['mean']:.3f})"
        )

    def table(self) -> "pd.DataFrame":
        """Return the leaderboard, the baseline first and then one line a contender from best to worst."""
        import pandas as pd

        header, rows = self._leaderboard()
        return pd.DataFrame(rows, columns=header)

    def folds(self) -> "pd.DataFrame":
        """Return what every contender predicted for every sample by the fold that did not see it."""
        import pandas as pd

        return pd.DataFrame(self._predictions(), columns=list(_FOLDS_HEADER))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``results.json``, ``results.csv``, ``folds.csv`` and, where there is a command, ``command.txt``.

        Parameters
        ----------
        folder : path
            Made where it is missing; a run of the same kind in it is replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        UsageError
            If the folder holds something else than a run of ``compare``, or cannot be written to.
        OSError
            If a file cannot be written.
        """
        write_run(
            folder,
            results=self.results,
            tables={"results": self._leaderboard(), "folds": (_FOLDS_HEADER, self._predictions())},
        )
        return Path(folder)

    def _leaderboard(self) -> tuple[list[str], list[list[Any]]]:
        metric = self.evaluation.metric
        others = [name for name in self.results["results"][0]["metrics"] if name != metric]
        header = ["extractor", "head", "fusion", "n_features", "verdict", metric, "std", "low", "high"]
        header += ["difference", "difference_low", "difference_high", "p_value"]
        header += ["fit_seconds", "predict_seconds", *others]
        rows = []
        for one in self.results["results"]:
            scores = one["metrics"][metric]
            rows.append(
                [
                    *(one[name] for name in ("extractor", "head", "fusion", "n_features", "verdict")),
                    scores["mean"],
                    scores["std"],
                    *(scores["ci95"] or (None, None)),
                    one["difference"],
                    *(one["difference_ci95"] or (None, None)),
                    one["p_value"],
                    one["fit_seconds"],
                    one["predict_seconds"],
                    *(one["metrics"][name]["mean"] if name in one["metrics"] else None for name in others),
                ]
            )
        return header, rows

    def _predictions(self) -> Iterator[list[Any]]:
        found = self.evaluation
        labels = found.labels.tolist()
        in_repeat = len(found.folds) // found.n_repeats
        for standing in found.ranking.standings:
            entry = standing.entry
            if entry.extractor is None:
                continue
            for number, (fold, answer) in enumerate(zip(found.folds, entry.answers, strict=True)):
                repeat, at = divmod(number, in_repeat)
                place = [repeat, at, entry.extractor, entry.head, entry.fusion]
                told = zip(fold.test.tolist(), answer.predicted.tolist(), _confidence(answer), strict=True)
                for row, predicted, confidence in told:
                    yield [printable_line(self.ids[row]), labels[row], *place, predicted, confidence]


def compare(
    samples: Any,
    extractors: Any,
    *,
    heads: Sequence[Any] = ("logreg",),
    cv: int = 5,
    repeats: int = 1,
    metric: str | None = None,
    fusion: Fusion = "early",
    n_components: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    labels: Any = None,
    groups: Any = None,
    class_weight: Mapping[Any, float] | str | None = None,
    random_state: int | None = 0,
    n_jobs: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Unpack[SettingsKeywords],
) -> Comparison:
    """Extract features in one pass, and judge every head on every extractor on the same folds.

    Parameters
    ----------
    samples : SampleTable, path, list of paths, arrays, images, DataFrame or torch Dataset
        Everything that `featx.read_samples` takes, with labels; rows without one are left out.
    extractors : list of str, ModuleExtractor, or list of these
        The contenders: ``["resnet50", "hog", "resnet50+hog"]``. An item that is a list is a fusion.
    heads : sequence of str, path or scikit-learn estimator
        As for `featx.fit`, all for one task.
    cv : int
        Folds of the outer and the inner cross-validation.
    repeats : int
        How many times the data is shuffled afresh and cross-validated.
    metric : str, optional
        What to rank by, by scikit-learn's name; by default ``"accuracy"``, or ``"r2"``. See
        `featx.evaluation.scores.METRICS`.
    fusion : {"early", "late"}
        One head on all features of a fusion, or one head an extractor and a last one that weighs them.
    n_components : int, optional
        Reduce every extractor's features to so many components, fitted in each fold; None for all features.
    cache : path, optional
        Folder that keeps the vectors; None keeps them in memory only.
    labels, groups : array-like of shape (n_samples,), optional
        Override what the samples bring.
    class_weight : mapping or "balanced", optional
        Given to the heads.
    random_state : int or None
        Seed of folds, heads and draws; None for a fresh one, which the results name.
    n_jobs : int, optional
        Processes of the search, as scikit-learn counts them.
    progress : callable, optional
        Called with a `featx.engine.Progress` while features are extracted, and while heads are fitted.
    **settings
        Fields of `featx.engine.Settings`.

    Returns
    -------
    Comparison

    Raises
    ------
    UsageError
        For samples without usable labels, heads that do not suit them, or contenders that are the same.
    FeatxError
        Whatever `featx.extract` raises.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 99, (20, 16, 16, 3), np.uint8)
    >>> images[10:] += 99
    >>> found = compare(images, ["color_histogram", "lbp"], heads=["centroid"], labels=["dim", "lit"] * 10)
    >>> found.table()["verdict"].tolist()
    ['baseline', 'best', 'as good as the best']
    """
    contenders, parts = read_contenders(extractors)
    table, n_unlabelled = read_labelled(samples, labels=labels, groups=groups)
    seed = checked_seed(random_state)
    recipes = [load_head(head, class_weight=class_weight, random_state=seed) for head in _listed(heads)]
    protocol: dict[str, Any] = {
        "metric": metric,
        "cv": cv,
        "repeats": repeats,
        "fusion": fusion,
        "n_components": n_components,
        "random_state": seed,
    }
    assert table.y is not None
    n_parts = [len(contender.parts) for contender in contenders]
    check_comparison(table.y, recipes, n_parts=n_parts, groups=table.groups, splits=table.splits, **protocol)
    features = extract(table, parts, cache=cache, progress=progress, **settings)
    check_distinct(contenders, features)
    assert features.y is not None
    fitting = None if progress is None else lambda done, total: progress(Progress(done, total, 0, "fitting"))
    found = compare_heads(
        features.X,
        features.y,
        recipes,
        extractors={contender.name: contender.parts for contender in contenders},
        widths=[spec.n_features for spec in features.specs],
        names=extractor_labels(features.specs),
        groups=features.groups,
        splits=features.splits,
        keys=features.keys,
        n_jobs=n_jobs,
        progress=fitting,
        **protocol,
    )
    results = comparison_results(
        found,
        features,
        table,
        source=source_of(samples),
        n_unlabelled=n_unlabelled,
        protocol={**protocol, "class_weight": class_weight, "heads": head_records(recipes)},
        n_jobs=n_jobs,
        progress=fitting,
    )
    return Comparison(results, found, features.ids)


def _listed(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, list | tuple) else [heads]


def _confidence(answer: Answer) -> list[float | None]:
    """Return the probability of every answer, or None where the head has none."""
    if not answer.are_probabilities or answer.scores is None or answer.classes is None:
        return [None] * len(answer.predicted)
    column = np.searchsorted(answer.classes, answer.predicted)
    return [float(value) for value in answer.scores[np.arange(len(column)), column]]
