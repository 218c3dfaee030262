import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

import featx
from featx.errors import UsageError
from featx.evaluation import load_head

HEADS = ("centroid", "RidgeClassifier")


@pytest.fixture(scope="module")
def images():
    """Return 36 small pictures of three classes, told by colour, and less well by one pixel; and their labels."""
    random = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])[np.arange(36) % 3]
    pixels = (
        colours[:, None, None] + random.normal(0, 60, (36, 16, 16, 3)) + random.normal(0, 90, (36, 1, 1, 3))
    )
    return pixels.clip(0, 255).astype(np.uint8), np.array(["r", "g", "b"])[np.arange(36) % 3]


@pytest.fixture(scope="module")
def found(images):
    pixels, labels = images
    return featx.compare(
        pixels,
        ["color_histogram", "pixels:size=1", ["color_histogram", "pixels:size=1"]],
        heads=["centroid", RidgeClassifier(1000.0)],
        labels=labels,
        cv=3,
        repeats=2,
    )


def test_the_table_has_the_baseline_first_and_then_every_contender_from_best_to_worst(found):
    table = found.table()
    assert len(table) == 7
    assert table["verdict"].tolist()[:2] == ["baseline", "best"]
    assert table["head"].tolist()[0] == "majority"
    assert table["accuracy"].tolist()[1:] == sorted(table["accuracy"].tolist()[1:], reverse=True)
    assert set(table["extractor"][1:]) == {
        "color_histogram",
        "pixels:size=1",
        "color_histogram+pixels:size=1",
    }
    widths = dict(zip(table["extractor"], table["n_features"], strict=True))
    assert widths["color_histogram+pixels:size=1"] == widths["color_histogram"] + 3
    assert (table["low"][1:] <= table["accuracy"][1:]).all()
    assert {"roc_auc_ovr", "neg_log_loss", "p_value", "fit_seconds"} <= set(table.columns)
    assert repr(found).startswith("Comparison(6 contenders, best ")


def test_the_folds_have_every_sample_once_a_repeat_for_every_contender(found, images):
    folds = found.folds()
    assert len(folds) == 6 * 2 * 36
    for _, rows in folds.groupby(["extractor", "head", "repeat"]):
        assert sorted(rows["id"].astype(int)) == list(range(36))
    same = folds.groupby(["id", "repeat"])["fold"].nunique()
    assert (same == 1).all()
    assert (folds["label"] == images[1][folds["id"].astype(int)]).all()
    first = folds.drop_duplicates(["id", "repeat"]).pivot(index="id", columns="repeat", values="fold")
    assert (first[0] != first[1]).any()
    # Accuracy in every fold is that of its rows.
    for one in found.results["results"][1:]:
        rows = folds[(folds["extractor"] == one["extractor"]) & (folds["head"] == one["head"])]
        right = (rows["label"] == rows["prediction"]).groupby([rows["repeat"], rows["fold"]]).mean()
        assert right.tolist() == pytest.approx(one["metrics"]["accuracy"]["folds"])


def test_confidence_is_the_probability_of_the_prediction_where_the_head_has_one(found, images):
    pixels, labels = images
    nearest = featx.compare(pixels, "color_histogram", heads=KNeighborsClassifier(3), labels=labels, cv=3)
    assert set(nearest.folds()["confidence"].round(2)) <= {0.33, 0.67, 1.0}
    assert nearest.folds()["confidence"].median() > 0.6
    assert found.folds()["confidence"].isna().all()


def test_a_nearest_centroid_is_judged_by_its_answers_alone(found):
    by_head = {head: [one for one in found.results["results"] if one["head"] == head] for head in HEADS}
    assert all("roc_auc_ovr" in one["metrics"] for one in by_head["RidgeClassifier"])
    for one in by_head["centroid"]:
        assert "accuracy" in one["metrics"]
        assert not {"roc_auc_ovr", "neg_log_loss"} & set(one["metrics"])


def test_the_inspection_of_a_nearest_centroid_has_no_confidence(images):
    pixels, labels = images
    inspection = featx.compare(pixels, "pixels:size=1", heads="centroid", labels=labels, cv=3).results[
        "inspection"
    ]
    assert {one["confidence"] for one in inspection["wrong"]} == {None}
    assert (inspection["confidence_is"], inspection["suspects_by"]) == (None, "neighbours")


def test_the_results_are_strict_json_of_the_documented_form(found):
    results = found.results
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert {name: results[name] for name in ("schema", "kind", "command", "directory", "baseline")} == {
        "schema": 1,
        "kind": "compare",
        "command": None,
        "directory": None,
        "baseline": "most frequent class",
    }
    assert results["protocol"] == {
        "task": "classification",
        "metric": "accuracy",
        "cv": 3,
        "repeats": 2,
        "n_folds": 6,
        "grouped": False,
        "split": False,
        "random_state": 0,
        "n_components": None,
        "class_weight": None,
        "heads": [
            {"name": "centroid", "recipe": "built in"},
            {"name": "RidgeClassifier", "recipe": None},
        ],
        "n_train": 24,
        "n_test": 12,
    }
    baseline, best, *others = results["results"]
    assert (baseline["extractor"], baseline["label"], baseline["parts"]) == (None, None, [])
    assert {name: best[name] for name in ("extractor", "head", "fusion")} == results["best"]
    assert (best["difference"], best["difference_ci95"], best["p_value"]) == (0.0, None, None)
    assert all(one["difference"] <= 1e-12 and 0 <= one["p_value"] <= 1 for one in [baseline, *others])
    assert [one["label"] for one in results["extractors"]] == ["color_histogram", "pixels"]
    fused = next(one for one in [*others, best] if len(one["parts"]) == 2)
    assert (fused["label"], fused["fusion"]) == ("color_histogram+pixels", "early")
    assert [(gain["head"], gain["fusion"]) for gain in results["fusion_gains"]] == [
        ("centroid", "early"),
        ("RidgeClassifier", "early"),
    ]
    assert len(best["best_params"]) == 6


def test_the_best_is_told_in_detail_over_the_first_repeat(found):
    results = found.results
    details, inspection = results["best_details"], results["inspection"]
    assert details["classes"] == ["b", "g", "r"]
    assert np.sum(details["confusion"]) == 36
    folds = found.folds().query("repeat == 0")
    best = folds[
        (folds["extractor"] == results["best"]["extractor"]) & (folds["head"] == results["best"]["head"])
    ]
    wrong = best[best["label"] != best["prediction"]]
    assert {inspection["samples"][str(one["row"])]["id"] for one in inspection["wrong"]} == set(wrong["id"])
    assert inspection["counts"]["tested"] == 36
    assert set(inspection["samples"]["0"]) == {"id", "path", "label", "key"}
    curve = results["learning_curve"]
    assert curve["note"] is None  # these heads have nothing to choose
    assert curve["n_test"] == 12
    assert [point["labels_per_class"] for point in curve["points"]] == [1, 2, 5, None]
    assert curve["points"][-1]["n_labels"] == 24
    # All labels of the first fold are what the first fold was fitted on.
    first, second, *_ = results["results"][1]["metrics"]["accuracy"]["folds"]
    assert first != second
    assert curve["points"][-1]["mean"] == pytest.approx(first)


def test_a_run_is_saved_whole_and_the_same_again(found, tmp_path):
    found.save(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "folds.csv",
        "results.csv",
        "results.json",
    ]
    assert json.loads((tmp_path / "run/results.json").read_text()) == found.results
    assert len((tmp_path / "run/folds.csv").read_text().splitlines()) == 1 + 6 * 2 * 36
    assert len((tmp_path / "run/results.csv").read_text().splitlines()) == 1 + 7


def test_late_fusion_has_no_learning_curve_and_says_so(images):
    pixels, labels = images
    found = featx.compare(
        pixels, ["color_histogram+pixels:size=1"], heads="ridge", labels=labels, cv=2, fusion="late"
    )
    assert found.results["best"]["fusion"] == "late"
    assert found.results["learning_curve"] is None
    assert any(note.startswith("no learning curve: ") for note in found.results["notes"])


def test_numbers_are_ranked_by_r2_and_a_fresh_seed_is_recorded(images):
    pixels, labels = images
    brightness = pixels.mean((1, 2, 3)) / 255
    found = featx.compare(
        pixels,
        ["pixels:size=1", "lbp"],
        heads=["ridge_regression"],
        labels=brightness,
        cv=2,
        random_state=None,
    )
    results = found.results
    assert results["protocol"]["metric"] == "r2"
    assert results["best"]["extractor"] == "pixels:size=1"
    assert (results["best_details"], results["learning_curve"]) == (None, None)
    assert results["baseline"] == "mean"
    assert results["inspection"]["wrong"][0]["residual"] != 0
    seed = results["protocol"]["random_state"]
    other = featx.compare(pixels, "pixels:size=1", labels=labels, heads=["centroid"], cv=2, random_state=None)
    assert other.results["protocol"]["random_state"] != seed
    again = featx.compare(
        pixels,
        ["pixels:size=1", "lbp"],
        heads=["ridge_regression"],
        labels=brightness,
        cv=2,
        random_state=seed,
    )
    assert again.results["results"][1]["metrics"] == results["results"][1]["metrics"]


def test_a_split_of_the_datas_own_is_scored_on_its_test_rows_alone(tmp_path, images):
    pixels, labels = images
    rows = ["path,label,split"]
    for at, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{at}.png")
        rows.append(f"{at}.png,{label},{'test' if at >= 24 else 'train'}")
    (tmp_path / "data.csv").write_text("\n".join(rows))
    found = featx.compare(tmp_path / "data.csv", ["pixels:size=1"], heads=["centroid", "knn"])
    assert set(found.folds()["id"]) == {f"{at}.png" for at in range(24, 36)}
    assert (found.results["protocol"]["split"], found.results["protocol"]["n_test"]) == (True, 12)
    assert found.results["results"][2]["p_value"] is not None


@pytest.mark.parametrize(
    ("extractors", "options", "message"),
    [
        ([], {}, "expected at least one, such as 'resnet50', got none"),
        (["counted", "counted"], {}, "is given twice"),
        (["counted"], {"heads": []}, "expected at least one head, got none"),
        (["counted"], {"heads": ["logregg"]}, "Did you mean logreg"),
        (["counted"], {"heads": ["mlp"], "class_weight": "balanced"}, "head 'mlp' has no class weights"),
        (["counted"], {"metric": "auc"}, r"unknown metric 'auc'.* Metrics: accuracy"),
        (["counted"], {"labels": ["a"] * 36}, "needs two classes or more"),
        (["counted"], {"labels": None}, "the samples have no labels"),
        (["counted"], {"random_state": -1}, "random_state: expected a whole number from 0 .* got -1"),
        (["counted"], {"cv": 20}, "has 12 rows, fewer than the 20 folds"),
        (["counted"], {"fusion": "late"}, "late fusion needs two extractors or more"),
        (["counted"], {"batchsize": 3}, "there is no option 'batchsize'. Did you mean 'batch_size'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_extracted(
    extractors, options, message, images, counted
):
    extractor, batches = counted
    pixels, labels = images
    given = [extractor if one == "counted" else one for one in extractors]
    with pytest.raises(UsageError, match=message):
        featx.compare(pixels, given, **{"labels": labels, **options})
    assert batches == []


def test_more_components_than_rows_are_refused_by_the_name_of_the_extractor(images):
    pixels, labels = images
    extractors = ["pixels:size=1", "pixels:size=1+color_histogram"]
    with pytest.raises(UsageError, match="cannot make 99 components of color_histogram, 512 features wide"):
        featx.compare(pixels, extractors, heads="centroid", labels=labels, n_components=99)


def test_two_names_of_one_extractor_are_refused(images):
    pixels, labels = images
    with pytest.raises(UsageError, match="'lbp' and 'descriptor/lbp' are the same: every vector is equal"):
        featx.compare(pixels, ["lbp", "descriptor/lbp"], labels=labels, heads=["centroid"])


def test_numbers_are_classes_where_they_are_taken_for_classes_and_else_are_not(images):
    pixels, _ = images
    labels = np.arange(36) % 3 / 1.0
    options = {"labels": labels, "cv": 3}
    data = featx.compare(pixels, "pixels:size=1", heads=["centroid"], **options).results["data"]
    assert (data["classes"], data["counts"]) == ([0, 1, 2], [12, 12, 12])
    for numbers in (labels, labels.astype(int)):
        found = featx.compare(pixels, "pixels:size=1", heads=[Ridge()], labels=numbers, cv=3)
        assert found.results["data"]["classes"] == []


def test_where_a_split_leaves_no_rows_for_a_curve_the_comparison_stands(images, tmp_path):
    pixels, labels = images
    rows = [f"{number}.png" for number in range(36)]
    for name, picture in zip(rows, pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / name)
    frame = pd.DataFrame({"path": [str(tmp_path / name) for name in rows], "label": labels})
    frame["split"] = np.where(np.arange(36) < 18, "train", "test")
    frame["group"] = (np.arange(36) % 9).astype(str)
    found = featx.compare(frame, "pixels:size=1", heads=["centroid"])
    assert found.results["learning_curve"] is None
    assert any(note.startswith("no learning curve: ") for note in found.results["notes"])
    assert found.results["results"][1]["verdict"] == "the only one"


def test_a_fresh_seed_is_that_of_the_heads_too(images, monkeypatch):
    pixels, labels = images
    seeds = []

    def recorded(head, **options):
        seeds.append(options["random_state"])
        return load_head(head, **options)

    monkeypatch.setattr("featx.comparing.load_head", recorded)
    found = featx.compare(pixels, "pixels:size=1", heads=["centroid"], labels=labels, cv=3, random_state=None)
    assert seeds == [found.results["protocol"]["random_state"]]


def test_the_weights_of_the_classes_are_part_of_the_protocol_and_a_searched_curve_says_so(images):
    pixels, labels = images
    options = {"heads": ["ridge"], "labels": labels, "cv": 3}
    for weight in ("balanced", {"r": 2.0, "g": 1.0, "b": 1.0}):
        found = featx.compare(pixels, "pixels:size=1", class_weight=weight, **options)
        assert found.results["protocol"]["class_weight"] == weight
        assert found.results["learning_curve"]["note"].startswith(
            "its parameters were chosen with all labels"
        )


def test_an_extractor_no_wider_than_the_components_is_noted(images):
    pixels, labels = images
    asked = ["pixels:size=1", "pixels:size=4"]
    found = featx.compare(pixels, asked, heads=["centroid"], labels=labels, cv=2, n_components=3)
    said = (
        "pixels:size=1 has 3 features, no more than the 3 components asked for: PCA leaves them as they are"
    )
    assert [note for note in found.results["notes"] if "components" in note] == [said]
