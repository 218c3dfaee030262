"""Real photos compared as a user types it, and again as a plain scikit-learn script would."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import featx

DESCRIPTOR = "color_histogram"


@pytest.fixture(scope="module")
def mobilenet(assets):
    return f"mobilenet_v2:weights={assets / 'weights/mobilenet_v2.pth'}"


@pytest.fixture(scope="module")
def home(assets, mobilenet, tmp_path_factory):
    """Compare twice, in two processes with one cache, and return the folder with both runs."""
    home = tmp_path_factory.mktemp("home")
    arguments = [
        assets / "datasets/flowers",
        "-x",
        DESCRIPTOR,
        "-x",
        mobilenet,
        "--head",
        "logreg",
        "--head",
        "svm",
    ]
    for run in ("first", "second"):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "featx",
                "compare",
                *map(str, arguments),
                "--out",
                run,
                "--precision",
                "float32",
            ],
            cwd=home,
            env={**os.environ, "FEATX_CACHE": str(home / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    return home


@pytest.fixture(scope="module")
def results(home):
    return json.loads((home / "first/results.json").read_text())


@pytest.fixture(scope="module")
def folds(home):
    return pd.read_csv(home / "first/folds.csv", keep_default_na=False)


def test_a_backbone_beats_a_descriptor_and_it_is_no_luck(results, mobilenet):
    baseline, best, *_ = results["results"]
    assert best["extractor"] == mobilenet
    assert best["metrics"]["accuracy"]["mean"] >= 0.81
    assert baseline["metrics"]["accuracy"]["mean"] == pytest.approx(0.2)
    verdicts = {(one["extractor"], one["head"]): one["verdict"] for one in results["results"]}
    assert {verdicts[DESCRIPTOR, head] for head in ("logreg", "svm")} == {"worse"}
    assert {verdicts[mobilenet, head] for head in ("logreg", "svm")} == {"best", "as good as the best"}
    curve = [point["mean"] for point in results["learning_curve"]["points"]]
    assert len(curve) == 6
    assert curve[0] < curve[2] < curve[-1]


def test_every_photo_is_predicted_once_by_every_contender(results, folds, assets):
    photos = {
        f"{path.parent.name}/{path.name}"
        for path in (assets / "datasets/flowers").rglob("*")
        if path.is_file()
    }
    assert len(photos) == results["data"]["n_samples"] == 300
    for _, rows in folds.groupby(["extractor", "head"]):
        assert set(rows["id"]) == photos
        assert len(rows) == 300
        assert (rows["label"] == rows["id"].str.partition("/")[0]).all()


def test_a_plain_script_on_the_same_folds_with_the_same_parameters_finds_the_same(
    results, folds, assets, mobilenet, home
):
    heads = {
        "logreg": lambda params: LogisticRegression(C=params["logisticregression__C"], max_iter=1000),
        "svm": lambda params: SVC(C=params["svc__C"]),
    }
    for extractor in (DESCRIPTOR, mobilenet):
        features = featx.extract(
            assets / "datasets/flowers", extractor, cache=home / "cache", precision="float32"
        )
        for head, build in heads.items():
            of_one = folds[(folds["extractor"] == extractor) & (folds["head"] == head)]
            fold_of = of_one.set_index("id")["fold"].loc[features.ids].to_numpy()
            (found,) = (
                one for one in results["results"] if (one["extractor"], one["head"]) == (extractor, head)
            )
            for number, params in enumerate(found["best_params"]):
                train, test = fold_of != number, fold_of == number
                plain = make_pipeline(StandardScaler(), build(params)).fit(
                    features.X[train], features.y[train]
                )
                predicted = plain.predict(features.X[test])
                assert found["metrics"]["accuracy"]["folds"][number] == pytest.approx(
                    (predicted == features.y[test]).mean(), abs=1 / test.sum() + 1e-9
                )
                assert found["metrics"]["f1_macro"]["folds"][number] == pytest.approx(
                    f1_score(features.y[test], predicted, average="macro"), abs=0.05
                )


def test_the_same_command_gives_the_same_numbers_and_a_page_to_look_at(home, results):
    assert (home / "first/folds.csv").read_bytes() == (home / "second/folds.csv").read_bytes()
    again = json.loads((home / "second/results.json").read_text())
    for one, other in zip(results["results"], again["results"], strict=True):
        assert one["metrics"] == other["metrics"]
        assert (one["verdict"], one["p_value"]) == (other["verdict"], other["p_value"])
    assert results["inspection"] == again["inspection"]
    assert results["learning_curve"] == again["learning_curve"]
    assert (home / "first/report.html").stat().st_size > 10_000


def test_among_many_contenders_a_backbone_still_beats_both_descriptors(assets, mobilenet, tmp_path):
    squeezenet = f"squeezenet1_1:weights={assets / 'weights/squeezenet1_1.pth'}"
    found = featx.compare(
        assets / "datasets/flowers",
        ["hog", DESCRIPTOR, squeezenet, f"{mobilenet}+{DESCRIPTOR}", mobilenet],
        heads=["logreg", "svm", "ridge"],
        cache=tmp_path,
        precision="float32",
    )
    ranked = found.results["results"][1:]
    by_label = {
        label: {one["verdict"] for one in ranked if one["label"] == label} for label in ("hog", DESCRIPTOR)
    }
    assert by_label == {"hog": {"worse"}, DESCRIPTOR: {"worse"}}
    assert "mobilenet_v2" in ranked[0]["label"]
