"""What a thousand few-shot episodes cost: featx's batched algebra against loops over the same episodes.

    python benchmarks/few_shot.py [--episodes 1000] [--rounds 3] [--out docs/performance.md]

All run in turn, several rounds, in one process on one thread; the figures are medians of the rounds' ratios. The
photos are those of FEATX_ASSETS, or of ../shared/assets; where they are not to be had, random features of their
shape stand in, and the table says so.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from page import PAGE, write_section
from sklearn.base import clone
from sklearn.neighbors import NearestCentroid
from threadpoolctl import threadpool_limits

import featx
from featx.evaluation import load_head
from featx.evaluation.few_shot.accuracy import episode_accuracies
from featx.evaluation.few_shot.episodes import Episodes, draw_episodes
from featx.evaluation.folds import inseparable_rows

TITLE = "A thousand few-shot episodes"
BOUND = 10
HEAD = load_head("centroid")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    rows = []
    for name, X, y, together in data():
        for shots in (1, 5):
            episodes = draw_episodes(y, shots=shots, episodes=options.episodes, together=together)
            rows.append(row(name, X, y, episodes, options.rounds))
            print(rows[-1], flush=True)
    write_section(options.out, TITLE, section(rows, options.episodes, options.rounds))


def data() -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    assets = Path(os.environ.get("FEATX_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))
    if not assets.is_dir():
        random = np.random.default_rng(0)
        y = np.arange(300) % 5
        X = np.maximum(random.normal(size=(5, 1280))[y] + 4 * random.normal(size=(300, 1280)), 0)
        return [("random", X.astype(np.float32), y, None)]
    found = []
    for name in ("pacs/photo", "flowers"):
        extractor = f"mobilenet_v2:weights={assets / 'weights' / 'mobilenet_v2.pth'}"
        features = featx.extract(assets / "datasets" / name, extractor, precision="float32")
        together = inseparable_rows(features.groups, features.keys)
        found.append((f"{name}, MobileNetV2", features.X, np.asarray(features.y), together))
    return found


def row(name: str, X: np.ndarray, y: np.ndarray, episodes: Episodes, n_rounds: int) -> str:
    """Return a row of the table: medians in seconds, and of the ratios to featx in each round."""
    seconds: dict[str, list[float]] = {loop.__name__: [] for loop in (batched, recipe, steps, by_hand)}
    with (
        threadpool_limits(limits=1),
        warnings.catch_warnings(),
        np.errstate(invalid="ignore", divide="ignore"),
    ):
        warnings.simplefilter("ignore")
        for _ in range(n_rounds):
            found = {}
            for loop in (batched, recipe, steps, by_hand):
                began = time.perf_counter()
                found[loop.__name__] = loop(X, y, episodes)
                seconds[loop.__name__].append(time.perf_counter() - began)
    far = float(np.abs(found["batched"] - found["recipe"]).max())
    if far > 1e-6:
        raise SystemExit(f"{name}: accuracies differ by {far}")
    cells = [f"{statistics.median(seconds['batched']):.2f}"]
    for loop in (recipe, steps, by_hand):
        ratios = [
            loop / batch for loop, batch in zip(seconds[loop.__name__], seconds["batched"], strict=True)
        ]
        ratio = statistics.median(ratios)
        told = f"**{ratio:.1f}** (at least {BOUND})" if loop is recipe else f"{ratio:.1f}"
        cells += [f"{statistics.median(seconds[loop.__name__]):.2f}", told]
    return f"| {name} | {episodes.shots} | {found['batched'].mean():.4f} | {' | '.join(cells)} | {far:.0e} |"


def batched(X: np.ndarray, y: np.ndarray, episodes: Episodes) -> np.ndarray:
    return episode_accuracies(X, y, HEAD, episodes)[0]


def recipe(X: np.ndarray, y: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Clone, fit and predict, as scikit-learn is used."""
    return looped(lambda S, labels, Q: clone(HEAD.pipeline).fit(S, labels).predict(Q), X, y, episodes)


def steps(X: np.ndarray, y: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Centre and normalise by hand, and leave the rest to one NearestCentroid that checks nothing."""
    head = NearestCentroid()
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return looped(
            lambda S, labels, Q: head.fit(*centred(S, S), labels).predict(*centred(S, Q)), X, y, episodes
        )


def by_hand(X: np.ndarray, y: np.ndarray, episodes: Episodes) -> np.ndarray:
    """Do it all in NumPy: what is asked of an episode, and nothing else."""

    def predicted(S: np.ndarray, labels: np.ndarray, Q: np.ndarray) -> np.ndarray:
        classes = labels[:: episodes.shots]
        means = centred(S, S)[0].reshape(episodes.ways, episodes.shots, -1).mean(axis=1)
        distances = np.square(means).sum(axis=1) - 2 * centred(S, Q)[0] @ means.T
        return classes[distances.argmin(axis=1)]

    return looped(predicted, X, y, episodes)


def centred(support: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray]:
    kept = (support != support[0]).any(axis=0)
    left = rows[:, kept] - support[:, kept].mean(axis=0)
    return (left / np.linalg.norm(left, axis=1, keepdims=True),)


def looped(
    predict: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    X: np.ndarray,
    y: np.ndarray,
    episodes: Episodes,
) -> np.ndarray:
    return np.array(
        [
            np.mean(predict(X[support], y[support], X[query]) == y[query])
            for support, query in zip(episodes.support, episodes.query, strict=True)
        ]
    )


def section(rows: list[str], n_episodes: int, n_rounds: int) -> str:
    lines = "\n".join(rows)
    return f"""
{n_episodes} episodes, 5-way with 15 queries a class, head `centroid`, on one thread; medians of {n_rounds} interleaved
rounds. The loops: the recipe cloned, fitted and asked in every episode; its steps by hand with one `NearestCentroid`
that checks nothing; all of it in NumPy. The last column is how far the accuracy of any episode is from the recipe's.

| features | shots | accuracy | featx, s | recipe, s | ratio | steps, s | ratio | NumPy, s | ratio | difference |
|---|---|---|---|---|---|---|---|---|---|---|
{lines}
"""


if __name__ == "__main__":
    main()
