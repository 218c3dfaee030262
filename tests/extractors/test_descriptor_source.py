"""Descriptors as a source: their parameters in the text, in the identity, and in the vector."""

import numpy as np
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.extractors.descriptor import DESCRIPTORS, compute
from featx.extractors.descriptor_source import DescriptorSource
from featx.extractors.spec import parse
from featx.samples import DECODE_POLICY

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))

source = DescriptorSource()


def resolve(text, precision="float32"):
    return source.resolve(parse(text)[0], precision=precision)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_each_descriptor_gives_the_vector_its_identity_promises(name):
    spec = resolve(name)
    extractor = source.load(parse(name)[0], spec)
    vector = extractor.prepare(PHOTO)
    assert vector.dtype == np.float32
    assert vector.shape == (spec.n_features,) == (source.count_features(name),)
    assert np.array_equal(vector, compute(name, PHOTO))


def test_the_identity_holds_parameters_version_and_decode_policy():
    spec = resolve("hog:size=64")
    assert spec.parameters == {
        **DESCRIPTORS["hog"].parameters,
        "size": 64,
        "version": DESCRIPTORS["hog"].version,
    }
    assert spec.decode == DECODE_POLICY
    assert (spec.source, spec.weights, spec.layer, spec.preprocessing) == ("descriptor", "", (), {})


def test_a_default_that_is_written_out_is_the_same_extractor():
    default = DESCRIPTORS["hog"].parameters["size"]
    assert resolve(f"hog:size={default}").fingerprint == resolve("hog").fingerprint
    assert resolve(f"hog:size={default * 2}").fingerprint != resolve("hog").fingerprint


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_descriptor_is_float32_from_exact_pixels_whatever_is_asked(precision):
    spec = resolve("lbp", precision)
    assert (spec.precision, spec.pixels, spec.dtype) == ("float32", "exact", "float32")
    assert spec.fingerprint == resolve("lbp").fingerprint


def test_parameters_of_the_text_reach_the_vector():
    spec = resolve("pixels:size=4")
    vector = source.load(parse("pixels:size=4")[0], spec).prepare(PHOTO)
    assert np.array_equal(vector, compute("pixels", PHOTO, size=4))


def test_a_descriptor_has_no_weights():
    assert source.weights_path(parse("hog")[0]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hog:size=big", r"descriptor 'hog': expected a number for 'size', got 'big'"),
        ("hog:colour=1", r"hog.*colour"),
        ("hog:size=1.5", r"hog.*size"),
        ("hog:size=nan", r"hog.*size"),
        ("hog:size=-3", r"hog.*size"),
        ("hog:weights=none", r"hog.*"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_in_one_line(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(text)
    assert "\n" not in str(caught.value)
