"""What a search of a head's grid costs: featx against scikit-learn's GridSearchCV on the same folds.

    python benchmarks/search.py [--rounds 5] [--jobs 2] [--out docs/performance.md]

Both run in turn, several rounds, in one process; the figure is the median of the rounds' ratios. The last fit,
on all rows, is left out: it is the same in both. The flowers are those of FEATX_ASSETS, or of ../shared/assets;
where they are not to be had, random features of their shape stand in, and the table says so.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from page import PAGE, write_section
from sklearn.model_selection import GridSearchCV

import featx
from featx.evaluation import Head, load_head
from featx.evaluation.folds import whole_fold
from featx.evaluation.grid_search import choose

TITLE = "A search of a head's grid"


@dataclass(frozen=True)
class Data:
    name: str
    X: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Case:
    """One head on one data set; `bound` is the least ratio that featx is to reach."""

    data: Data
    head: Head
    cv: int
    rounds: int
    bound: float


@dataclass(frozen=True)
class Figures:
    plain_seconds: float
    featx_seconds: float
    ratio: float
    best: float
    of_choice: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="on the flowers; one on the large matrix")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    rows = []
    for case in cases(options.rounds):
        rows.append(row(case, measure(case, options.jobs)))
        print(rows[-1], flush=True)
    write_section(options.out, TITLE, section(rows, options.jobs))


def cases(rounds: int) -> Iterator[Case]:
    flowers = flower_features()
    yield Case(flowers, load_head("logreg"), 5, rounds, 2.0)
    yield Case(flowers, load_head("linear_svm"), 5, rounds, 2.0)
    yield Case(flowers, load_head("svm"), 5, rounds, 3.0)
    yield Case(flowers, load_head("ridge"), 5, rounds, 3.0)
    large = random_features("random", 4000, 2048, n_classes=20)
    yield Case(large, load_head("logreg"), 3, 1, 1.0)
    yield Case(large, load_head("ridge"), 3, 1, 2.0)
    # The whole grid takes GridSearchCV minutes.
    svm = replace(load_head("svm"), grid={"svc__C": [0.1, 10.0]})
    yield Case(large, svm, 2, 1, 2.0)


def flower_features() -> Data:
    assets = Path(os.environ.get("FEATX_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
    if not assets.is_dir():
        return random_features("random, in the place of flowers", 300, 1280, n_classes=5)
    weights = assets / "weights" / "mobilenet_v2.pth"
    features = featx.extract(assets / "datasets" / "flowers", f"mobilenet_v2:weights={weights}", cache=None)
    return Data("flowers, MobileNetV2", features.X, np.asarray(features.y))


def random_features(name: str, n_samples: int, n_features: int, *, n_classes: int) -> Data:
    """Return noise around a centre for each class, so that some candidates are better than others."""
    random = np.random.default_rng(0)
    y = np.arange(n_samples) % n_classes
    centres = random.normal(size=(n_classes, n_features))
    X = random.normal(size=(n_samples, n_features)) + 0.08 * centres[y]
    return Data(name, X.astype(np.float32), y)


def measure(case: Case, n_jobs: int) -> Figures:
    """Return the medians, in seconds, of both searches and of their ratio, and the plain scores they end at."""
    X, y = case.data.X, case.data.y
    fold = whole_fold(y, task=case.head.task, cv=case.cv, groups=None, search=True, random_state=0)

    def by_featx() -> tuple[float, dict[str, object]]:
        began = time.perf_counter()
        (choice,) = choose(X, y, case.head, [fold], n_jobs=n_jobs)
        return time.perf_counter() - began, choice.params

    def plainly() -> tuple[float, GridSearchCV]:
        search = GridSearchCV(case.head.pipeline, case.head.grid, cv=fold.inner, n_jobs=n_jobs, refit=False)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            search.fit(X, y)
        return time.perf_counter() - began, search

    warm_up(n_jobs)
    rounds = [(by_featx(), plainly()) for _ in range(case.rounds)]
    (_, params), (_, search) = rounds[0]
    scores = search.cv_results_["mean_test_score"]
    return Figures(
        plain_seconds=statistics.median(plain for _, (plain, _) in rounds),
        featx_seconds=statistics.median(ours for (ours, _), _ in rounds),
        ratio=statistics.median(plain / ours for (ours, _), (plain, _) in rounds),
        best=scores.max(),
        of_choice=scores[search.cv_results_["params"].index(params)],
    )


def warm_up(n_jobs: int) -> None:
    """Start the workers and have them import: both sides share them."""
    small = random_features("", 100, 10, n_classes=2)
    head = load_head("ridge")
    fold = whole_fold(small.y, task="classification", cv=5, groups=None, search=True, random_state=0)
    choose(small.X, small.y, head, [fold], n_jobs=n_jobs)
    GridSearchCV(head.pipeline, head.grid, cv=fold.inner, n_jobs=n_jobs, refit=False).fit(small.X, small.y)


def row(case: Case, figures: Figures) -> str:
    n_samples, n_features = case.data.X.shape
    return (
        f"| {case.data.name}, {n_samples} x {n_features} | {case.head.name} "
        f"| {len(case.head.candidates)} x {case.cv} | {figures.plain_seconds:.2f} | {figures.featx_seconds:.2f} "
        f"| **{figures.ratio:.1f}** (at least {case.bound:g}) | {figures.of_choice:.4f} of {figures.best:.4f} |"
    )


def section(rows: list[str], n_jobs: int) -> str:
    lines = "\n".join(rows)
    return f"""
`GridSearchCV(pipeline, grid, cv=folds, refit=False)` against featx on the same folds, `n_jobs={n_jobs}`; medians of
interleaved rounds. The last column is scikit-learn's own cross-validation score of the candidate that featx chose,
and the best of its scores.

| features | head | candidates x folds | GridSearchCV, seconds | featx, seconds | ratio | score |
|---|---|---|---|---|---|---|
{lines}
"""


if __name__ == "__main__":
    main()
