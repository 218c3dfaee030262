import copy
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "red": (200, 60, 40), "green": (60, 160, 60)}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Write 14 noisy pictures of each of three colours; return their paths and labels, one of which is wrong."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    paths, labels = [], []
    for name, colour in COLOURS.items():
        for number in range(14):
            pixels = (np.array(colour) + random.normal(0, 60, (24, 32, 3))).clip(0, 255).astype(np.uint8)
            paths.append(str(folder / f"{name}-{number}.png"))
            Image.fromarray(pixels).save(paths[-1])
            labels.append(name)
    labels[3] = "red"
    return paths, labels


@pytest.fixture(scope="session")
def compared(pictures, tmp_path_factory):
    """Return the results of a real comparison."""
    from featx import compare

    paths, labels = pictures
    found = compare(
        paths,
        ["pixels:size=2", "color_histogram", "pixels:size=2+color_histogram"],
        heads=["centroid", "ridge"],
        labels=labels,
        cv=3,
    )
    found.results.update(command="featx compare pictures -x pixels", directory="/somewhere")
    folder = tmp_path_factory.mktemp("compared")
    found.save(folder)
    return json.loads((folder / "results.json").read_bytes())


@pytest.fixture(scope="session")
def few_shots(pictures, tmp_path_factory):
    """Return the results of real few-shot episodes."""
    from featx import few_shot

    paths, labels = pictures
    extractors = ["pixels:size=2", "color_histogram"]
    found = few_shot(paths, extractors, ways=3, shots=(1, 3), queries=5, episodes=40, labels=labels)
    folder = tmp_path_factory.mktemp("few_shots")
    found.save(folder)
    return json.loads((folder / "results.json").read_bytes())


@pytest.fixture
def results(compared):
    """Return results of a comparison that the test may change."""
    return copy.deepcopy(compared)


@pytest.fixture
def few_shot_results(few_shots):
    """Return results of few-shot episodes that the test may change."""
    return copy.deepcopy(few_shots)


@pytest.fixture
def regression(compared):
    """Return the results of a comparison as if the labels were numbers."""
    return as_regression(copy.deepcopy(compared))


@pytest.fixture
def written(tmp_path):
    """Write results into a run's folder, and the page of them; return the page's path."""
    from featx.report import write_report

    def write(results, folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "results.json").write_text(json.dumps(results))
        return write_report(tmp_path / folder)

    return write


@pytest.fixture
def tree():
    """Return a function that reads a page as a list of elements."""
    return runpy.run_path(str(Path(__file__).with_name("tree.py")))["read"]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """Return a running browser, or skip."""
    browser = runpy.run_path(str(Path(__file__).with_name("browser.py")))
    if browser["found"]() is None:
        pytest.skip("no Chromium on this machine")
    running = browser["Browser"](tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def as_regression(results):
    """Turn a comparison of classes into one of numbers, of the same layout."""
    random = np.random.default_rng(0)
    results["protocol"].update(task="regression", metric="neg_root_mean_squared_error")
    results.update(baseline="mean", best_details=None, learning_curve=None)
    results["data"].update(classes=[], counts=[])
    for one in results["results"]:
        error = -10 * (1.1 - one["metrics"]["accuracy"]["mean"])
        scores = {**one["metrics"]["accuracy"], "mean": error, "ci95": [error - 0.5, error + 0.5]}
        one["metrics"] = {"neg_root_mean_squared_error": scores, "r2": one["metrics"]["accuracy"]}
    inspection = results["inspection"]
    for sample in inspection["samples"].values():
        sample["label"] = float(random.uniform(0, 100))
    label = {int(row): sample["label"] for row, sample in inspection["samples"].items()}
    inspection["map"]["predicted"] = [
        label[row] + float(random.normal(0, 8)) for row in inspection["map"]["rows"]
    ]
    rows = inspection["map"]["rows"][:3]
    inspection.update(suspects=[], suspects_by=None, confidence_is=None, near_duplicates=[])
    inspection["counts"]["wrong"] = None
    inspection["wrong"] = [
        {
            "row": row,
            "label": label[row],
            "predicted": label[row] - 30.5,
            "residual": -30.5,
            "confidence": None,
            "neighbours": [{"row": other, "label": label[other], "distance": 0.5} for other in rows],
        }
        for row in rows
    ]
    return results


@pytest.fixture
def elements(written, tree):
    """Return the elements of the page of some results."""
    return lambda results: tree(written(results))
