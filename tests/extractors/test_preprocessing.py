"""Resizing and cropping against torchvision's official transforms, byte for byte, also where memory must be spared."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as official
from torchvision.transforms.v2 import functional as official_v2

from featx.errors import UsageError
from featx.extractors.preprocessing import Preprocessing, resize_and_crop

INTERPOLATIONS = ("bilinear", "bicubic")
SIDES = st.integers(1, 160)


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def tensor_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def moderate(width, height):
    return max(width, height) <= 16 * min(width, height)


@settings(deadline=None, max_examples=200)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 120), st.sampled_from(INTERPOLATIONS))
def test_exact_pixels_are_the_official_transforms_byte_for_byte(width, height, resize, crop, interpolation):
    if not moderate(width, height):
        return
    image = noise(width, height)
    resized = official.resize(image, [resize], interpolation=InterpolationMode(interpolation))
    expected = np.asarray(official.center_crop(resized, [crop, crop]))
    found = Preprocessing(resize, crop, interpolation=interpolation).apply(image)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(found, expected.transpose(2, 0, 1))


@settings(deadline=None, max_examples=100)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 120), st.sampled_from(INTERPOLATIONS))
def test_fast_pixels_are_torchvisions_antialiased_resize_of_tensors(
    width, height, resize, crop, interpolation
):
    if not moderate(width, height):
        return
    image = tensor_of(noise(width, height))
    resized = official_v2.resize(
        image, [resize], interpolation=InterpolationMode(interpolation), antialias=True
    )
    expected = official_v2.center_crop(resized, [crop, crop])
    found = Preprocessing(resize, crop, interpolation=interpolation).apply(image)
    assert torch.equal(torch.from_numpy(found), expected)


@pytest.mark.parametrize("shape", [(500, 333), (333, 500), (224, 224), (17, 1000)])
def test_the_whole_of_an_official_preset_is_reproduced(shape):
    from torchvision.models import ResNet50_Weights

    official_transform = ResNet50_Weights.IMAGENET1K_V1.transforms()
    image = noise(*shape)
    preprocessing = Preprocessing(256, 224)
    mean = torch.tensor(preprocessing.mean).view(3, 1, 1)
    std = torch.tensor(preprocessing.std).view(3, 1, 1)
    pixels = torch.from_numpy(preprocessing.apply(image)).float().div(255)
    difference = ((pixels - mean) / std - official_transform(image)).abs().max()
    # More than 16 times as long as wide, a channel value may be off by one.
    assert difference < 1e-6 if moderate(*shape) else difference < 1.01 / 255 / min(preprocessing.std)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", [64, 9])
@pytest.mark.parametrize(
    ("width", "height"), [(1, 17), (17, 1), (3, 400), (400, 3), (20, 1000), (1000, 20), (2, 5000)]
)
def test_a_strip_is_within_one_of_the_whole_resized_in_width_and_then_in_height(
    width, height, resize, interpolation
):
    image = noise(width, height)
    longer = int(resize * max(width, height) / min(width, height))
    size = (resize, longer) if width < height else (longer, resize)
    resampling = Image.Resampling[interpolation.upper()]
    resized = image.resize((size[0], height), resampling).resize(size, resampling)
    expected = np.asarray(official.center_crop(resized, [56, 56])).transpose(2, 0, 1).astype(int)
    preprocessing = Preprocessing(resize, 56, interpolation=interpolation)
    for found in (preprocessing.apply(image), preprocessing.apply(tensor_of(image))):
        assert np.abs(found - expected).max() <= 1


def test_a_strip_is_padded_where_the_crop_is_larger_than_it():
    image = noise(100, 5)
    resized = official.resize(image, [8])
    expected = np.asarray(official.center_crop(resized, [24, 24])).transpose(2, 0, 1).astype(int)
    found = Preprocessing(8, 24).apply(image)
    assert np.abs(found - expected).max() <= 1
    assert not found[:, :8].any()
    assert not found[:, 16:].any()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1)])
def test_the_longest_strip_needs_no_memory_for_what_is_cut_away(size):
    # The whole strip, resized, would be 256 x 1,280,000 pixels: more than a gigabyte.
    script = textwrap.dedent(f"""
        import resource
        import numpy as np
        from PIL import Image
        from featx.extractors.preprocessing import Preprocessing
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, {(*size[::-1], 3)}, dtype=np.uint8))
        assert Preprocessing(256, 224).apply(image).shape == (3, 224, 224)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 32 * 1024  # kilobytes


def test_a_crop_larger_than_the_picture_is_centred_on_black():
    image = Image.new("RGB", (4, 4), (255, 255, 255))
    found = Preprocessing(resize=4, crop=8).apply(image)
    assert not found[:, :2].any()
    assert not found[:, :, 6:].any()
    assert (found[:, 2:6, 2:6] == 255).all()


def test_squashing_gives_up_the_aspect_and_keeps_the_whole_picture():
    image = noise(300, 60)
    preprocessing = Preprocessing(32, 32, interpolation="bicubic", squash=True)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(preprocessing.apply(image), expected)
    fast = official_v2.resize(
        tensor_of(image), [32, 32], interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    assert np.array_equal(preprocessing.apply(tensor_of(image)), fast.numpy())


def test_a_tensor_is_left_as_it_was():
    image = tensor_of(noise(40, 30))
    before = image.clone()
    Preprocessing(20, 16).apply(image)
    assert torch.equal(image, before)


def test_another_size_scales_the_resize_along():
    sized = Preprocessing(232, 224, interpolation="bicubic", mean=(0.5, 0.5, 0.5)).with_size(112)
    assert sized == Preprocessing(116, 112, interpolation="bicubic", mean=(0.5, 0.5, 0.5))


def test_the_fields_are_plain_json_values_of_all_that_moves_a_pixel():
    assert Preprocessing(256, 224).fields == {
        "resize": 256,
        "crop": 224,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "squash": False,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": 0, "crop": 224}, r"resize: expected a whole number of at least 1 pixel, got 0"),
        ({"resize": 256, "crop": -1}, r"crop: expected a whole number of at least 1 pixel, got -1"),
        ({"resize": (256, 256), "crop": 224}, r"resize: expected a whole number .*got \(256, 256\)"),
        ({"resize": 256, "crop": 224, "interpolation": "cubic"}, r"one of bilinear, bicubic, got 'cubic'"),
        ({"resize": 256, "crop": 224, "mean": (0.5,)}, r"mean: expected three numbers.*got \(0.5,\)"),
        ({"resize": 256, "crop": 224, "std": (1, 0, 1)}, r"std above 0\), got \(1, 0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        Preprocessing(**arguments)


def test_the_function_alone_gives_a_picture():
    image = resize_and_crop(noise(50, 40), resize=20, crop=10, interpolation="bilinear")
    assert image.mode == "RGB"
    assert image.size == (10, 10)
