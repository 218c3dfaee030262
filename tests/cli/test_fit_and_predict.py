import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from featx import load
from featx.errors import ModelError, UsageError


@pytest.fixture
def model(command, photos, tmp_path):
    command("fit", photos, "-x", "color_histogram", "--cv", "3", "--out", "m.featx", "--jobs", "1")
    return tmp_path / "m.featx"


def images(photos):
    """Return the photos relative to where commands run, in order."""
    return sorted(path.relative_to(photos.parent) for path in photos.rglob("*.png"))


def write_manifest(folder, header, rows):
    (folder / "m.csv").write_text("\n".join([header, *rows]) + "\n")


def test_fit_says_estimate_baseline_and_scores_by_class(command, photos):
    done = command("fit", photos, "-x", "color_histogram", "--cv", "4", "--jobs", "1")
    assert done["cv"]["accuracy"]["mean"] == 1.0
    assert len(done["cv"]["accuracy"]["folds"]) == 4
    assert done["baseline"]["accuracy"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert [one["class"] for one in done["per_class"]] == ["blue", "red"]
    assert done["classes"] == ["blue", "red"]
    assert list(done["best_params"]) == ["logisticregression__C"]
    assert done["out"] is None


def test_fit_shows_a_person_the_same(text, photos):
    shown = text("fit", photos, "-x", "color_histogram", "--cv", "5", "--jobs", "1", "--out", "m.featx").out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0].endswith(" features of 20 samples; estimated by 5-fold nested cross-validation")
    assert lines[2:4] == ["metric estimate majority", "accuracy 1.000 +- 0.000 0.500 +- 0.000"]
    assert "blue 1.000 1.000 1.000 10" in lines
    assert lines[-2].startswith("chosen for the final fit: logisticregression__C=")
    assert lines[-1] == "saved m.featx"


def test_a_split_of_the_data_s_own_is_said_and_its_one_score_has_no_spread(text, photos, tmp_path):
    write_manifest(
        tmp_path,
        "path,label,split",
        (f"{path},{path.parent.name},{'test' if path.stem in '12' else 'train'}" for path in images(photos)),
    )
    shown = text("fit", "m.csv", "-x", "pixels:size=2", "--head", "centroid", "--jobs", "1").out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == (
        "centroid on 12 features of 20 samples; "
        "scored on the 4 rows that the split column holds out, fitted on the others"
    )
    assert lines[3] == "accuracy 1.000 0.500"
    assert "chosen" not in shown


def test_fit_leaves_a_broken_file_out_and_says_so(command, text, photos, broken):
    arguments = ["fit", photos, "-x", "pixels:size=2", "--head", "centroid", "--cv", "2", "--jobs", "1"]
    assert [failure["id"] for failure in command(*arguments)["failures"]] == ["blue/3.png"]
    assert "\nleft out blue/3.png: " in text(*arguments).err


def test_fit_says_what_it_takes_for_classes(text, photos):
    arguments = ["-x", "pixels:size=2", "--cv", "2", "--jobs", "1"]
    assert "2 classes: blue (10), red (10)\n" in text("fit", photos, *arguments).err
    assert text("fit", photos, *arguments, "-q").err == ""


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        ("aaabbbcccdddeeefff", "6 classes: a (3), b (3), c (3), d (3), e (3); 1 more"),
        ("00011112222", "3 different labels: 0 (3), 1 (4), 2 (4)"),
    ],
)
def test_of_many_classes_five_are_named(text, photos, tmp_path, labels, line):
    rows = [f"{path},{label.strip()}" for path, label in zip(images(photos), labels.ljust(20), strict=True)]
    write_manifest(tmp_path, "path,label", rows)
    shown = text("fit", "m.csv", "-x", "pixels:size=2", "--head", "centroid", "--cv", "3", "--jobs", "1")
    assert shown.err.splitlines() == [
        line,
        f"note: left out {20 - len(labels)} samples without a label",
    ]


def test_numbers_to_predict_are_told_by_their_range(text, photos, tmp_path):
    rows = [f"{path},{number / 4 or ''}" for number, path in enumerate(images(photos))]
    write_manifest(tmp_path, "path,label", rows)
    arguments = ["-x", "pixels:size=2", "--head", "ridge_regression", "--cv", "2", "--jobs", "1"]
    shown = text("fit", "m.csv", *arguments)
    assert shown.err.splitlines()[0] == "labels from 0.25 to 4.75"
    assert re.search(r"\nmetric +estimate +mean\nr2 ", shown.out)


def test_fit_without_labels_says_how_to_give_them(text, tmp_path):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "flat" / "a.png")
    with pytest.raises(UsageError, match=r"no labels.* a manifest with a column 'label', or"):
        text("fit", "flat", "-x", "pixels")
    (tmp_path / "m.csv").write_text("path,Label\nflat/a.png,x\n")
    with pytest.raises(UsageError, match=r"no labels.* rename the column 'Label' to 'label', or"):
        text("fit", "m.csv", "-x", "pixels")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cv", "1"], "cv: expected a whole number from 2, got 1"),
        (["--head", "svr"], "needs numeric labels"),
        (["--fusion", "late"], "late fusion needs two extractors or more"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_before_anything_is_computed(
    text, photos, tmp_path, arguments, message
):
    with pytest.raises(UsageError, match=message):
        text("fit", photos, "-x", "pixels", *arguments)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("header", "of", "message"),
    [
        ("path,label,group", lambda path: path.parent.name, "all rows of class 'blue' belong to one group"),
        ("path,label,split", lambda path: "holdout", "unknown split 'holdout'"),
        ("path,label,split", lambda path: "train", "got 20 train, 0 val, 0 test"),
    ],
)
def test_groups_and_splits_that_cannot_be_used_are_refused_before_anything_is_computed(
    text, photos, tmp_path, header, of, message
):
    write_manifest(tmp_path, header, (f"{path},{path.parent.name},{of(path)}" for path in images(photos)))
    with pytest.raises(UsageError, match=message):
        text("fit", "m.csv", "-x", "pixels", "--cv", "2")
    assert not (tmp_path / "cache").exists()


def test_extractors_are_fused_late_with_components_of_each(command, text, photos):
    arguments = ["fit", photos, "-x", "pixels:size=4+lbp", "--head", "ridge", "--cv", "2", "--jobs", "1"]
    fused = [*arguments, "--fusion", "late", "--pca", "2", "--out", "m.featx"]
    done = command(*fused)
    assert (done["fusion"], done["n_components"]) == ("late", 2)
    assert command("predict", "m.featx", photos)["scores"]["accuracy"] == 1.0
    assert "on 264 features (fused late, 2 principal components each) of 20 samples;" in text(*fused).out
    assert (command(*arguments)["fusion"], command(*arguments)["n_components"]) == ("early", None)
    assert "on 264 features of 20 samples;" in text(*arguments).out


def test_predict_labels_and_scores_a_folder(command, photos, model):
    done = command("predict", model, photos)
    assert len(done["predictions"]) == 20
    assert done["predictions"][0] == {"id": "blue/0.png", "label": "blue"}
    assert done["scores"]["accuracy"] == 1.0


def test_predict_in_another_process_agrees(featx, command, photos, model):
    here = command("predict", model, photos)
    there = json.loads(featx("predict", model, photos, "--json").stdout)
    assert there == here


def test_predict_takes_the_model_s_own_precision_and_no_other(command, text, photos, model):
    predictions = command("predict", model, photos)
    assert command("predict", model, photos, "--precision", "float32") == predictions
    assert command("predict", model, photos, "--precision", "auto") == predictions
    with pytest.raises(UsageError, match="applied in its own precision, here float32, got 'float16'"):
        text("predict", model, photos, "--precision", "float16")


def test_predict_one_image_with_probabilities(command, photos, model):
    done = command("predict", model, photos / "red" / "0.png", "--proba")
    (row,) = done["predictions"]
    assert row["label"] == "red"
    assert sum(row["probabilities"].values()) == pytest.approx(1)
    assert row["probabilities"]["red"] > row["probabilities"]["blue"]
    assert done["scores"] == {}


def test_predict_writes_a_table(text, photos, model, tmp_path):
    shown = text("predict", model, photos, "--out", "p.csv", "--proba")
    assert shown.out.startswith("wrote 20 predictions to p.csv\nmetric ")
    assert not list(tmp_path.glob(".*.tmp"))
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["id", "prediction", "blue", "red"]
    assert len(rows) == 21
    assert rows[1][:2] == ["blue/0.png", "blue"]


def test_a_table_that_cannot_be_finished_is_not_written(text, photos, model, tmp_path):
    fitted = load(model)
    fitted.head_[-1].coef_ *= np.nan
    fitted.save(tmp_path / "nan.featx")
    (tmp_path / "p.csv").write_text("id,prediction\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ModelError, match="the head cannot be applied: expected finite answers"):
        text("predict", "nan.featx", photos, "--out", "p.csv", "--proba")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "p.csv").read_text() == "id,prediction\n"


def test_predict_prints_a_table_where_nothing_else_is_asked(text, photos, model):
    shown = text("predict", model, photos)
    lines = shown.out.splitlines()
    assert lines[0] == "id,prediction"
    assert lines[1] == "blue/0.png,blue"
    assert len(lines) == 21
    assert re.search(r"^accuracy +1\.000$", shown.err, re.MULTILINE)


def test_cells_that_a_spreadsheet_would_run_are_escaped(text, tmp_path, model):
    (tmp_path / "new").mkdir()
    for name in ("=cmd.png", "+1.png", "-x.png", "@a.png", 'new\nline".png', "plain.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "new" / name)
    text("predict", model, "new", "--out", "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        ids = [row[0] for row in csv.reader(file)][1:]
    assert sorted(ids) == sorted(
        ["'=cmd.png", "'+1.png", "'-x.png", "'@a.png", 'new\\nline".png', "plain.png"]
    )


def test_predict_leaves_a_broken_file_out_and_says_so(command, text, photos, model, broken):
    done = command("predict", model, photos)
    assert len(done["predictions"]) == 19
    assert [failure["id"] for failure in done["failures"]] == ["blue/3.png"]
    assert text("predict", model, photos).err.startswith("left out blue/3.png: ")


def test_labels_that_are_no_classes_of_the_model_are_not_scored(command, text, model, photos):
    (photos / "blue").rename(photos / "azure")
    (photos / "red").rename(photos / "scarlet")
    assert command("predict", model, photos)["scores"] == {}
    note = "note: not scored, because no label of the data (azure, ...) is a class of the model (blue, red)\n"
    assert text("predict", model, photos).err == note


def test_only_rows_with_a_label_are_scored(command, model, photos, tmp_path):
    rows = [f"{path},{path.parent.name}" for path in images(photos)]
    rows[0], rows[1] = "photos/blue/0.png,", "photos/blue/1.png,red"
    write_manifest(tmp_path, "path,label", rows)
    done = command("predict", model, "m.csv", "--out", "p.csv")
    assert done["scores"]["accuracy"] == pytest.approx(18 / 19)
    assert len(done["predictions"]) == 20
    assert done["out"] == "p.csv"


def test_numeric_labels_are_fitted_and_scored_as_numbers(command, text, tmp_path):
    lines = ["path,label"]
    for index in range(24):
        Image.new("RGB", (8, 8), (10 * index, 0, 0)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{index * 0.5}")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    done = command(
        "fit",
        "m.csv",
        "-x",
        "pixels",
        "--head",
        "ridge_regression",
        "--cv",
        "3",
        "--out",
        "r.featx",
        "--jobs",
        "1",
    )
    assert done["cv"]["r2"]["mean"] > 0.9
    assert done["out"] == "r.featx"
    assert done["classes"] == []
    predicted = command("predict", "r.featx", "m.csv")
    assert predicted["scores"]["neg_root_mean_squared_error"] > -0.5
    assert isinstance(predicted["predictions"][0]["label"], float)
    write_manifest(tmp_path, "path,label", ["0.png,", *lines[2:]])
    assert command("predict", "r.featx", "m.csv")["scores"]["neg_root_mean_squared_error"] > -0.5
    write_manifest(tmp_path, "path,label", ["0.png,dark", "1.png,bright"])
    shown = text("predict", "r.featx", "m.csv")
    assert shown.err == "note: not scored, because the data's labels (dark, ...) are not numbers\n"


def test_a_head_without_probabilities_says_so(command, text, photos):
    command(
        "fit",
        photos,
        "-x",
        "color_histogram",
        "--head",
        "svm",
        "--cv",
        "3",
        "--out",
        "s.featx",
        "--jobs",
        "1",
    )
    with pytest.raises(UsageError, match="no probabilities"):
        text("predict", "s.featx", photos, "--proba")


def test_a_user_s_own_recipe_is_taken_by_path(command, photos, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler\n"
        "from sklearn.naive_bayes import GaussianNB\n"
        "def build():\n"
        "    return make_pipeline(StandardScaler(), GaussianNB())\n"
        "def grid():\n"
        "    return {'gaussiannb__var_smoothing': [1e-9, 1e-3]}\n"
    )
    done = command(
        "fit",
        photos,
        "-x",
        "color_histogram",
        "--head",
        "mine.py",
        "--cv",
        "3",
        "--out",
        "t.featx",
        "--jobs",
        "1",
    )
    assert done["head"] == "mine"
    assert command("predict", "t.featx", photos)["scores"]["accuracy"] == 1.0


def test_predict_refuses_another_extractor(text, photos, model):
    with pytest.raises(ModelError, match="fingerprint"):
        text("predict", model, photos, "-x", "color_histogram:hue=4")


def test_predict_takes_more_rows_than_it_holds_at_once(command, photos, model, monkeypatch):
    import featx.model

    whole = command("predict", model, photos, "--proba")
    monkeypatch.setattr(featx.model, "_ROWS_AT_ONCE", 3)
    parts = command("predict", model, photos, "--proba")
    assert [row["id"] for row in parts["predictions"]] == [row["id"] for row in whole["predictions"]]
    for part, row in zip(parts["predictions"], whole["predictions"], strict=True):
        assert part["label"] == row["label"]
        assert part["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)


def test_a_head_that_cannot_be_saved_still_shows_its_estimate(text, capsys, photos, tmp_path):
    (tmp_path / "forest.py").write_text(
        "from sklearn.tree import DecisionTreeClassifier\n"
        "def build():\n    return DecisionTreeClassifier(random_state=0)\n"
        "def grid():\n    return {}\n"
    )
    with pytest.raises(ModelError, match="does not trust"):
        text(
            "fit",
            photos,
            "-x",
            "color_histogram",
            "--head",
            "forest.py",
            "--cv",
            "3",
            "--out",
            "f.featx",
            "--jobs",
            "1",
        )
    shown = capsys.readouterr().out
    assert "accuracy" in shown
    assert "saved" not in shown
    assert not (tmp_path / "f.featx").exists()


def test_another_extractor_is_refused_before_anything_is_computed(text, photos, model, tmp_path):
    with pytest.raises(ModelError, match="fingerprint"):
        text("predict", model, photos, "-x", "color_histogram:hue=4", "--cache", tmp_path / "other")
    assert not list((tmp_path / "other").rglob("*.h5"))
