"""What a warm cache costs inside a grid search: paths through featx.Extractor against the matrix itself.

    python benchmarks/grid_search.py [--samples 300] [--rounds 5] [--out docs/performance.md]

Both searches run in turn, several rounds, in one process; the figure is the median of the rounds' ratios.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from page import PAGE, write_section
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx

EXTRACTOR = "resnet50:weights=none"  # what the vectors hold plays no part in the time of a search
BOUND = 1.15
TITLE = "A grid search over `make_pipeline(Extractor(...), StandardScaler(), LogisticRegression())` on a warm cache"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.samples, options.rounds, options.jobs)
    print(json.dumps(figures))
    write_section(options.out, TITLE, section(figures))


def measure(folder: Path, n_samples: int, n_rounds: int, n_jobs: int) -> dict[str, object]:
    """Return medians, in seconds, of both searches, and the ratio."""
    paths, labels = write_images(folder / "images", n_samples)
    cache = folder / "cache"
    matrix = featx.extract(paths, EXTRACTOR, cache=cache, labels=labels).X

    def search(steps: list[object], data: object) -> float:
        grid = {"logisticregression__C": np.logspace(-6, 5, 12)}
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            GridSearchCV(make_pipeline(*steps), grid, cv=5, n_jobs=n_jobs).fit(data, labels)
        return time.perf_counter() - began

    def on_paths() -> float:
        return search(
            [featx.Extractor(EXTRACTOR, cache=cache), StandardScaler(), LogisticRegression()], paths
        )

    def on_matrix() -> float:
        return search([StandardScaler(), LogisticRegression()], matrix)

    on_paths(), on_matrix()  # worker processes start, and import, once
    rounds = [(on_paths(), on_matrix()) for _ in range(n_rounds)]
    return {
        "samples": n_samples,
        "features": matrix.shape[1],
        "rounds": n_rounds,
        "jobs": n_jobs,
        "paths_seconds": statistics.median(first for first, _ in rounds),
        "matrix_seconds": statistics.median(second for _, second in rounds),
        "ratio": statistics.median(first / second for first, second in rounds),
        "bound": BOUND,
    }


def write_images(folder: Path, n_samples: int) -> tuple[list[str], list[str]]:
    """Write noise around a class's own colour: what is in the pictures plays no part in the time of a search."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    paths, labels = [], []
    for index in range(n_samples):
        label = index % 5
        pixels = random.normal(60 + 30 * label, 60, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        path = folder / f"{index:05d}.jpg"
        Image.fromarray(pixels).save(path)
        paths.append(str(path))
        labels.append(f"class {label}")
    return paths, labels


def section(figures: dict[str, object]) -> str:
    return f"""
{figures["samples"]} images, {figures["features"]} features, 12 values of C, 5 folds,
`n_jobs={figures["jobs"]}`; medians of {figures["rounds"]} interleaved rounds.

| search on | seconds |
|---|---|
| paths, through `featx.Extractor` with a warm cache | {figures["paths_seconds"]:.2f} |
| the matrix itself | {figures["matrix_seconds"]:.2f} |
| ratio (bound: {BOUND}) | **{figures["ratio"]:.2f}** |
"""


if __name__ == "__main__":
    main()
