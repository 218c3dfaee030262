import json
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import featx
from featx.errors import DecodeError, ModelError, UsageError, WeightsError


@pytest.fixture
def images():
    """Draw twelve dark and twelve bright images, as arrays."""
    random = np.random.default_rng(0)
    dark = random.integers(0, 100, (12, 16, 16, 3), np.uint8)
    bright = random.integers(150, 255, (12, 16, 16, 3), np.uint8)
    return np.concatenate([dark, bright])


@pytest.fixture
def labels():
    return ["dark"] * 12 + ["bright"] * 12


@pytest.fixture
def model(images, labels):
    return featx.fit(images, "pixels", labels=labels, cv=3)


def test_a_model_predicts_scores_and_keeps_its_classes_by_name(model, images, labels):
    assert model.classes_.tolist() == ["bright", "dark"]
    assert model.predict(images[[0, -1]]).tolist() == ["dark", "bright"]
    assert model.predict_proba(images[:3]).shape == (3, 2)
    assert model.score(images, labels) == 1.0


def test_a_score_needs_a_label_for_every_sample(model, images, labels):
    with pytest.raises(UsageError, match=r"expected a label for each of 24 samples, got 0\. Pass y, or"):
        model.score(images)
    with pytest.raises(UsageError, match="expected a label for each of 24 samples, got 23"):
        model.score(images, [None, *labels[1:]])


def test_a_model_is_shown_in_one_line(model, images, labels):
    assert repr(model) == "Model(logreg on pixels, classes: bright, dark)"
    model.record["classes"] = list("abcdefgh")
    assert repr(model) == "Model(logreg on pixels, classes: a, b, c, d, e and 3 more)"
    numbers = featx.fit(
        images, "pixels+lbp", labels=images.mean(axis=(1, 2, 3)), head="ridge_regression", cv=3
    )
    assert repr(numbers) == "Model(ridge_regression on pixels+lbp, regression)"


def test_a_saved_model_is_the_same_after_loading(model, images, tmp_path):
    model.save(tmp_path / "m.featx")
    loaded = featx.load(tmp_path / "m.featx")
    np.testing.assert_array_equal(loaded.predict_proba(images), model.predict_proba(images))
    assert loaded.specs == model.specs
    assert loaded.record == json.loads(json.dumps(model.record)) | {"format": 1}
    assert isinstance(loaded.head_[-1], LogisticRegression)


def test_the_file_holds_a_json_record_and_a_skops_head_and_no_pickle(model, tmp_path):
    model.save(tmp_path / "m.featx")
    with zipfile.ZipFile(tmp_path / "m.featx") as archive:
        assert sorted(archive.namelist()) == ["head.skops", "model.json"]
        record = json.loads(archive.read("model.json"))
    assert record["classes"] == ["bright", "dark"]
    assert record["extractors"][0]["fingerprint"] == model.specs[0].fingerprint
    assert record["metrics"]["accuracy"]["mean"] == 1.0
    assert record["versions"]["scikit-learn"]


def test_predictions_come_in_parts_with_failures_left_out(model, images, tmp_path):
    from PIL import Image

    for index in (0, 1):
        Image.fromarray(images[index]).save(tmp_path / f"{index}.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    paths = [str(tmp_path / name) for name in ("0.png", "bad.png", "1.png")]
    parts, failures = model.predict_stream(paths, on_error="record")
    (part,) = parts
    assert part.ids.tolist() == [paths[0], paths[2]]
    assert [failure.id for failure in failures] == [paths[1]]
    with pytest.raises(DecodeError, match="bad"):
        model.predict(paths)
    with pytest.raises(UsageError, match="predict_stream"):
        model.predict(paths, on_error="record")


def test_rows_without_a_label_are_left_out_and_counted(images, labels):
    fitted = featx.fit(images, "pixels", labels=[*labels[:-2], None, None], cv=3)
    assert fitted.record["n_samples"] == 22
    assert any("left out 2 samples without a label" in note for note in fitted.record["notes"])


def test_fitting_without_labels_is_refused(images):
    with pytest.raises(UsageError, match="no labels"):
        featx.fit(images, "pixels")


def test_rows_of_the_test_split_are_scored_and_never_fitted_on(images, labels, tmp_path):
    import pandas as pd
    from PIL import Image

    for index, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    split = ["train"] * 8 + ["test"] * 4 + ["train"] * 8 + ["test"] * 4
    frame = pd.DataFrame(
        {"path": [str(tmp_path / f"{index}.png") for index in range(24)], "label": labels, "split": split}
    )
    fitted = featx.fit(frame, "pixels", head=LogisticRegression())
    assert len(fitted.record["metrics"]["accuracy"]["folds"]) == 1
    train = [index for index, name in enumerate(split) if name == "train"]
    alone = LogisticRegression().fit(featx.extract(images[train], "pixels").X, np.array(labels)[train])
    np.testing.assert_allclose(fitted.head_.coef_, alone.coef_, rtol=1e-4, atol=1e-6)


def test_what_the_estimate_and_the_final_fit_both_have_to_note_is_noted_once(images, labels):
    table = replace(
        featx.read_samples(images, labels=labels),
        split_column=pa.array(["train", "train", "test"] * 8).dictionary_encode(),
    )
    (note,) = featx.fit(table, "pixels", head=LogisticRegression(max_iter=1)).record["notes"]
    assert "did not converge" in note


def test_a_head_that_does_not_match_its_features_is_refused(model, tmp_path):
    wide = featx.fit(np.zeros((4, 8, 8, 3), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None] * 60,
                     "pixels:size=2", labels=["a", "a", "b", "b"], head=LogisticRegression(), cv=2)  # fmt: skip
    model.head_ = wide.head_
    model.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match="takes 12 features, its extractors give 768"):
        featx.load(tmp_path / "m.featx")


def test_a_record_whose_fingerprint_is_not_its_extractor_s_is_refused(model, tmp_path):
    model.record["extractors"][0]["fingerprint"] = "0" * 64
    model.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match="fingerprint"):
        featx.load(tmp_path / "m.featx")


@pytest.mark.parametrize("classes", [["dark", "bright"], ["bright"], [], ["bright", 2]])
def test_a_record_whose_classes_are_not_the_head_s_is_refused(model, tmp_path, classes):
    model.record["classes"] = classes
    model.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match=rf"the head's 2 classes are not the {len(classes)} that its record"):
        featx.load(tmp_path / "m.featx")


@pytest.mark.parametrize("classes", [None, 2])
def test_a_record_without_a_list_of_classes_is_refused(model, tmp_path, classes):
    model.record["classes"] = classes
    model.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match=r"model.json is not what featx writes .* Fit it again"):
        featx.load(tmp_path / "m.featx")


def deep(depth):
    return [deep(depth - 1)] if depth else []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "regression"}, "a head for regression with 2 classes"),
        ({"task": "both"}, "task 'both'"),
        ({"classes": ["bright", float("inf")]}, "classes"),
        ({"classes": ["bright", {}]}, "must be real number, not dict"),
        ({"extractors": []}, "takes 768 features, its extractors give 0"),
        ({"extractors": [3]}, "'int' object has no attribute 'items'"),
        (
            {"extractors": {"text": "pixels:cell"}},
            "names no extractors: extractor 'pixels:cell': expected key=value",
        ),
        ({"extractors": {"text": 3}}, "text: expected str, got int"),
        ({"extractors": {"n_features": 1e9}}, "n_features: expected int, got float"),
        ({"extractors": {"layer": ["x", 3]}}, "layer: expected names"),
        ({"extractors": {"decode": deep(700)}}, "decode: expected dict, got list"),
        ({"extractors": {"decode": {"a": deep(400)}}}, "a recorded fingerprint is not|recursion depth"),
        ({"extractors": {"decode": {"a": deep(800)}}}, "a recorded fingerprint is not|recursion depth"),
    ],
)
def test_a_record_that_contradicts_its_head_or_itself_is_refused(model, tmp_path, changes, message):
    if isinstance(changes.get("extractors"), dict):
        changes = {"extractors": [model.record["extractors"][0] | changes["extractors"]]}
    model.save(tmp_path / "m.featx")
    with zipfile.ZipFile(tmp_path / "m.featx") as archive:
        head, record = archive.read("head.skops"), json.loads(archive.read("model.json"))
    with zipfile.ZipFile(tmp_path / "m.featx", "w") as archive:
        archive.writestr("model.json", json.dumps(record | changes))
        archive.writestr("head.skops", head)
    with pytest.raises(ModelError, match=message):
        featx.load(tmp_path / "m.featx")


def test_a_record_of_another_count_of_features_is_refused_before_the_head_sees_any(model, images, tmp_path):
    small = featx.fit(images, "pixels:size=2", labels=["a", "b"] * 12, head=LogisticRegression(), cv=2)
    model.head_ = small.head_.set_params()
    model.record |= {"classes": ["a", "b"]}
    model.record["extractors"][0]["n_features"] = 12
    model.save(tmp_path / "m.featx")
    loaded = featx.load(tmp_path / "m.featx")
    with pytest.raises(ModelError, match=r"pixels with fingerprint .*: n_features differ"):
        loaded.predict(images)


def narrow(head):
    head[-1].coef_ = head[-1].coef_[:, :5]


def of_three(head):
    head[-1].coef_, head[-1].intercept_ = head[-1].coef_.repeat(3, axis=0), head[-1].intercept_.repeat(3)


def infinite(head):
    head[-1].coef_ = head[-1].coef_ * np.nan


def unfitted(head):
    del head[-1].coef_


def test_a_nearest_centroid_has_no_probabilities_to_ask_for(images, labels):
    centroid = featx.fit(images, "pixels", labels=labels, cv=3, head="centroid")
    assert centroid.predict(images[:1]).tolist() == ["dark"]
    with pytest.raises(UsageError, match=r"head centroid has no probabilities\. .* logreg, knn or mlp\.$"):
        centroid.predict_proba(images)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (narrow, "ValueError: X has 768 features, but LogisticRegression is expecting 5|ValueError"),
        (of_three, r"expected finite answers of shape \(24, 2\), got shape \(24, 3\)"),
        (infinite, "expected finite answers of shape"),
        (unfitted, "coef_"),
    ],
)
def test_a_head_that_cannot_be_applied_is_one_error(model, images, harm, message):
    harm(model.head_)
    with pytest.raises(ModelError, match=f"the head cannot be applied: .*{message}.* Fit it again"):
        model.predict_proba(images)


@pytest.mark.parametrize("kind", [str, int, float])
def test_a_class_that_only_test_rows_have_is_none_of_a_saved_model(images, kind, tmp_path):
    names = [*[1] * 10, 3, 3, *[2] * 10, 3, 3]
    split = ["train"] * 10 + ["test"] * 2 + ["train"] * 10 + ["test"] * 2
    table = replace(
        featx.read_samples(images, labels=[kind(name) for name in names]),
        split_column=pa.array(split).dictionary_encode(),
    )
    fitted = featx.fit(table, "pixels", head=LogisticRegression())
    fitted.save(tmp_path / "m.featx")
    loaded = featx.load(tmp_path / "m.featx")
    assert loaded.record["classes"] == loaded.classes_.tolist() == fitted.classes_.tolist()
    assert len(loaded.classes_) == 2


@pytest.mark.parametrize("pixels", ["gpu", ["exact"], 3])
def test_a_record_of_pixels_that_are_none_is_refused(model, tmp_path, pixels):
    model.record["extractors"][0]["pixels"] = pixels
    model.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match=r"pixels: expected one of exact, fast, nvjpeg, got .* Fit it again"):
        featx.load(tmp_path / "m.featx")


def test_other_extractors_are_refused_when_applied(model, images, tmp_path):
    model.save(tmp_path / "m.featx")
    other = featx.load(tmp_path / "m.featx", extractors="color_histogram")
    with pytest.raises(ModelError, match="fingerprint"):
        other.predict(images)
    with pytest.raises(ModelError, match="expected 1 extractors, got 2"):
        featx.load(tmp_path / "m.featx", extractors="pixels+hog")


def test_a_model_on_a_module_needs_the_module_again(images, labels, tmp_path):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 4, 3)
    extractor = featx.ModuleExtractor(net, name="net", preprocessing=featx.Preprocessing(resize=16, crop=16))
    fitted = featx.fit(images, extractor, labels=labels, cv=3)
    fitted.save(tmp_path / "m.featx")
    with pytest.raises(ModelError, match="extractors="):
        featx.load(tmp_path / "m.featx")
    loaded = featx.load(tmp_path / "m.featx", extractors=extractor)
    assert loaded.predict(images).tolist() == fitted.predict(images).tolist()


def test_half_precision_that_the_hardware_lacks_becomes_float32_and_is_said(
    images, labels, tmp_path, monkeypatch, caplog
):
    torch.manual_seed(0)
    extractor = "nano:size=64"
    fitted = featx.fit(images, extractor, labels=labels, cv=3, device="cpu", precision="bfloat16")
    assert fitted.specs[0].pixels == "fast"
    fitted.save(tmp_path / "m.featx")
    monkeypatch.setattr("featx.model.supports", lambda precision, *, device: precision == "float32")
    applied = featx.load(tmp_path / "m.featx")
    assert applied.predict(images).tolist() == labels
    assert "applying it in float32" in caplog.text
    changed = [replace(fitted.specs[0], weights="0" * 64)]
    applied.specs = tuple(changed)
    with pytest.raises(ModelError, match="weights"):
        applied.predict(images)


def test_precision_is_the_model_s_own(model, images):
    assert model.precision == "float32"
    expected = model.predict(images).tolist()
    assert model.predict(images, precision="float32").tolist() == expected
    with pytest.raises(UsageError, match="applied in its own precision, here float32, got 'bfloat16'"):
        model.predict(images, precision="bfloat16")


def test_the_precision_of_a_descriptor_beside_a_backbone_is_the_backbone_s(images, labels):
    torch.manual_seed(0)
    extractors = "pixels:size=4+nano:size=64"
    fitted = featx.fit(
        images, extractors, labels=labels, head="centroid", cv=2, device="cpu", precision="bfloat16"
    )
    assert [spec.precision for spec in fitted.specs] == ["float32", "bfloat16"]
    assert fitted.precision == "bfloat16"
    assert fitted.predict(images, device="cpu", precision="bfloat16").tolist() == labels


def test_regression_predicts_numbers(images):
    numbers = images.mean(axis=(1, 2, 3))
    fitted = featx.fit(images, "pixels", labels=numbers, head="ridge_regression", cv=3)
    assert fitted.classes_ is None
    assert fitted.record["classes"] == []
    assert fitted.score(images, numbers) > 0.9


def test_a_module_s_model_in_half_precision_is_applied_in_float32_where_need_be(images, labels, monkeypatch):
    torch.manual_seed(0)
    extractor = featx.ModuleExtractor(
        nn.Conv2d(3, 4, 3), name="net", preprocessing=featx.Preprocessing(resize=16, crop=16)
    )
    fitted = featx.fit(images, extractor, labels=labels, cv=3, device="cpu", precision="bfloat16")
    monkeypatch.setattr("featx.model.supports", lambda precision, *, device: precision == "float32")
    assert fitted.predict(images).tolist() == labels


def test_weights_that_moved_are_named_with_the_way_out(images, labels, tmp_path):
    torch.manual_seed(0)
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1().state_dict(), tmp_path / "w.pth")
    text = f"squeezenet1_1:size=64:weights={tmp_path / 'w.pth'}"
    fitted = featx.fit(images, text, labels=labels, cv=3, device="cpu", precision="float32")
    fitted.save(tmp_path / "m.featx")
    expected = fitted.predict(images).tolist()
    (tmp_path / "w.pth").rename(tmp_path / "moved.pth")
    with pytest.raises(ModelError, match="-x NAME:weights=PATH") as caught:
        featx.load(tmp_path / "m.featx").predict(images)
    assert caught.value.exit_code == 1
    nowhere = featx.load(tmp_path / "m.featx", extractors=text.replace("w.pth", "nowhere.pth"))
    with pytest.raises(WeightsError, match=r"nowhere\.pth' cannot be read .* Check the path") as caught:
        nowhere.predict(images)
    assert caught.value.exit_code == 2
    moved = featx.load(tmp_path / "m.featx", extractors=text.replace("w.pth", "moved.pth"))
    assert moved.predict(images).tolist() == expected


def test_options_are_checked_by_name_wherever_they_are_taken(model, images, labels):
    for call in (
        lambda: featx.extract(images, "pixels", batchsize=3),
        lambda: featx.fit(images, "pixels", labels=labels, batchsize=3),
        lambda: model.predict(images, batchsize=3),
    ):
        with pytest.raises(UsageError, match="Did you mean 'batch_size'"):
            call()
