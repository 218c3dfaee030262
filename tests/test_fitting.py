import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import featx
from featx.errors import UsageError


@pytest.fixture
def images():
    """Draw twelve dark and twelve bright images, as arrays."""
    random = np.random.default_rng(0)
    dark = random.integers(0, 150, (12, 16, 16, 3), np.uint8)
    bright = random.integers(100, 255, (12, 16, 16, 3), np.uint8)
    return np.concatenate([dark, bright])


LABELS = ["dark"] * 12 + ["bright"] * 12


@pytest.mark.parametrize(("fusion", "n_components"), [("early", 3), ("late", None), ("late", 3)])
def test_a_fused_model_is_the_same_after_loading(images, tmp_path, fusion, n_components):
    fitted = featx.fit(
        images,
        "pixels:size=4+lbp+pixels:size=1",
        labels=LABELS,
        head=LogisticRegression(),
        cv=2,
        fusion=fusion,
        n_components=n_components,
    )
    fitted.save(tmp_path / "m.featx")
    loaded = featx.load(tmp_path / "m.featx")
    np.testing.assert_array_equal(loaded.predict_proba(images), fitted.predict_proba(images))
    assert loaded.classes_.tolist() == ["bright", "dark"]
    assert loaded.record == json.loads(json.dumps(fitted.record)) | {"format": 1}
    assert (loaded.record["fusion"], loaded.record["n_components"]) == (fusion, n_components)
    assert fitted.score(images, LABELS) == 1.0
    assert (tmp_path / "m.featx").stat().st_size < 2 << 20


def test_late_fusion_of_numbers_comes_back_too(images, tmp_path):
    brightness = images.mean(axis=(1, 2, 3))
    fitted = featx.fit(images, "pixels:size=2+lbp", labels=brightness, head=Ridge(), cv=2, fusion="late")
    fitted.save(tmp_path / "m.featx")
    np.testing.assert_array_equal(featx.load(tmp_path / "m.featx").predict(images), fitted.predict(images))
    assert fitted.record["metrics"]["r2"]["mean"] > 0.9


def test_a_single_extractor_has_no_fusion_but_may_have_components(images):
    fitted = featx.fit(
        images, "pixels:size=4", labels=LABELS, head="centroid", cv=3, n_components=np.int64(2)
    )
    assert (fitted.record["fusion"], fitted.record["n_components"]) == (None, 2)
    assert json.dumps(fitted.record)
    assert fitted.head_[0].transform(featx.extract(images, "pixels:size=4").X).shape == (24, 2)
    assert featx.fit(images, "pixels", labels=LABELS, head="centroid", cv=3).record["n_components"] is None


def test_what_is_no_wider_than_its_components_is_told_to_be_left_as_it_is(images):
    fitted = featx.fit(
        images, "pixels:size=1+pixels:size=4", labels=LABELS, head="centroid", cv=3, n_components=3
    )
    assert [note for note in fitted.record["notes"] if "PCA" in note] == [
        "pixels:size=1 has 3 features, no more than the 3 components asked for: PCA leaves them as they are"
    ]


def test_more_components_than_rows_are_refused_by_the_name_of_the_extractor(images):
    with pytest.raises(UsageError, match="cannot make 99 components of pixels:size=8, 192 features wide"):
        featx.fit(images, "pixels:size=1+pixels:size=8", labels=LABELS, head="centroid", n_components=99)


@pytest.mark.parametrize(
    ("extractors", "options", "message"),
    [
        ("pixels", {"fusion": "late"}, "two extractors or more, got 1"),
        ("pixels", {"fusion": "both"}, "unknown fusion 'both'; expected one of early, late"),
        ("pixels", {"n_components": 0}, "n_components must be a whole number, at least 1"),
        ("pixels+lbp", {"fusion": "late", "class_weight": {"dark": 2, "bright": 1}}, "weigh classes by name"),
    ],
)
def test_what_cannot_be_fused_is_refused_before_anything_is_computed(
    images, tmp_path, extractors, options, message
):
    with pytest.raises(UsageError, match=message):
        featx.fit(images, extractors, labels=LABELS, cache=tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


def test_balanced_class_weights_may_be_fused_late(images):
    fitted = featx.fit(
        images, "pixels:size=1+lbp", labels=LABELS, cv=2, fusion="late", class_weight="balanced"
    )
    weights = [part[-1].class_weight for part in [*fitted.head_.estimators_, fitted.head_.final_estimator_]]
    assert weights == ["balanced"] * 3
