"""Hand-made features: values worked out by hand, invariances, lengths, and what wrong parameters answer."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.extractors.descriptor import DESCRIPTORS, compute, n_features, resolve

HALF = 64
SIDE = 2 * HALF


def grey(array):
    return Image.fromarray(np.asarray(array).astype(np.uint8)).convert("RGB")


def noise(height=SIDE, width=SIDE, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def stripes(frequency, angle):
    rows, columns = np.mgrid[:SIDE, :SIDE]
    phase = 2 * np.pi * frequency * (columns * np.cos(angle) + rows * np.sin(angle))
    return grey(np.round(127.5 + 127.5 * np.sin(phase)))


def test_the_six_descriptors_are_there_each_with_a_summary_and_numeric_parameters():
    assert list(DESCRIPTORS) == ["hog", "lbp", "color_histogram", "glcm", "gabor", "pixels"]
    for name, descriptor in DESCRIPTORS.items():
        assert descriptor.name == name
        assert descriptor.summary.endswith(".")
        assert descriptor.version >= 1
        assert "size" in descriptor.parameters
        assert {type(default) for default in descriptor.parameters.values()} <= {int, float}


@pytest.mark.parametrize("name", DESCRIPTORS)
@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.new("RGB", (40, 30), "black"), id="black"),
        pytest.param(Image.new("RGB", (40, 30), "white"), id="white"),
        pytest.param(Image.new("RGB", (40, 30), (200, 17, 90)), id="one colour"),
        pytest.param(Image.new("RGB", (1, 1), "red"), id="1x1"),
        pytest.param(noise(5000, 1), id="1x5000"),
        pytest.param(noise(1, 5000), id="5000x1"),
        pytest.param(noise(375, 500), id="random"),
    ],
)
def test_every_image_gives_finite_float32_values_of_the_same_length(name, image):
    features = compute(name, image)
    assert features.dtype == np.float32
    assert features.shape == (n_features(name),)
    assert np.isfinite(features).all()


@pytest.mark.parametrize(
    ("name", "parameters", "length"),
    [
        ("hog", {}, 7 * 7 * 4 * 9),
        ("hog", {"size": 60, "cell": 20, "block": 1, "orientations": 5}, 3 * 3 * 5),
        ("hog", {"size": 1, "cell": 1, "block": 1}, 9),
        ("lbp", {}, 4 * (10 + 18 + 26)),
        ("lbp", {"radii": 2, "grid": 4}, 16 * (10 + 18)),
        ("color_histogram", {}, 4 * 8 * 4 * 4),
        ("color_histogram", {"hue": 5, "saturation": 3, "value": 2, "grid": 1}, 30),
        ("glcm", {}, 9 * 3 * 4),
        ("glcm", {"distances": 1, "angles": 5, "levels": 256}, 9 * 5),
        ("gabor", {}, 2 * 4 * 6 * 4),
        ("gabor", {"size": 32, "scales": 2, "orientations": 3, "grid": 4}, 2 * 2 * 3 * 16),
        ("pixels", {}, 3 * 16 * 16),
        ("pixels", {"size": 7}, 3 * 7 * 7),
    ],
)
def test_the_length_follows_the_documented_formula(name, parameters, length):
    assert n_features(name, **parameters) == length
    assert compute(name, noise(30, 50), **parameters).shape == (length,)


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_threads_give_the_same_bytes_as_one_after_the_other(name):
    images = [noise(60, 80, seed) for seed in range(8)]
    expected = [compute(name, image).tobytes() for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda image: compute(name, image).tobytes(), images)) == expected


@pytest.mark.parametrize("name", DESCRIPTORS)
def test_ranges_are_as_documented(name):
    features = compute(name, noise(100, 100))
    lowest = -1 if name == "glcm" else 0
    assert features.min() >= lowest
    if name != "glcm":
        assert features.max() <= 1 + 1e-6


def test_the_picture_is_resized_and_centre_cropped_not_squashed():
    picture = Image.linear_gradient("L").resize((96, 32)).convert("RGB")
    picture.paste("red", (0, 0, 24, 32))
    official = picture.resize((48, 16), Image.Resampling.BILINEAR).crop((16, 0, 32, 16))
    features = compute("pixels", picture, size=16).reshape(16, 16, 3)
    np.testing.assert_allclose(features, np.asarray(official) / 255, atol=1.01 / 255)


# hog


def test_hog_of_an_upright_edge_is_all_in_the_first_orientation():
    edge = np.zeros((SIDE, SIDE))
    edge[:, HALF:] = 255
    blocks = compute("hog", grey(edge)).reshape(7, 7, 2, 2, 9)
    expected = np.zeros_like(blocks)
    # The two columns that see the edge lie in the cells 3 and 4: alone in a block, or both in block 3.
    expected[:, 2, :, 1, 0] = expected[:, 4, :, 0, 0] = np.sqrt(1 / 2)
    expected[:, 3, :, :, 0] = np.sqrt(1 / 4)
    np.testing.assert_allclose(blocks, expected, atol=1e-5)


def test_hog_of_a_level_edge_is_all_in_the_orientation_of_90_degrees():
    edge = np.zeros((SIDE, SIDE))
    edge[HALF:] = 255
    blocks = compute("hog", grey(edge)).reshape(7, 7, 2, 2, 9)
    assert np.flatnonzero(blocks.sum(axis=(0, 1, 2, 3))).tolist() == [4]  # 80 to 100 degrees


def test_hog_sees_an_edge_between_colours_of_equal_grey():
    halves = Image.new("RGB", (SIDE, SIDE), (255, 0, 0))
    halves.paste((0, 130, 0), (HALF, 0, SIDE, SIDE))
    assert len(set(np.asarray(halves.convert("L")).ravel().tolist())) == 1
    assert compute("hog", halves).max() > 0.4


# lbp


@pytest.mark.parametrize("level", [0, 77, 255])
def test_lbp_of_one_grey_is_the_flat_code_alone(level):
    features = compute("lbp", Image.new("RGB", (SIDE, SIDE), (level,) * 3))
    expected = np.concatenate([np.tile(np.eye(8 * r + 2)[8 * r], 4) for r in (1, 2, 3)])
    np.testing.assert_array_equal(features, expected)


def test_lbp_of_a_bright_point_counts_the_points_around_it():
    point = np.zeros((SIDE, SIDE))
    point[32, 32] = 255
    codes = compute("lbp", grey(point), radii=1, grid=1) ** 2 * SIDE**2
    # No neighbour of the point is as bright as it is: code 0. All others see no darker neighbour: code 8.
    np.testing.assert_allclose(codes, [1, 0, 0, 0, 0, 0, 0, 0, SIDE**2 - 1, 0], atol=1e-2)


def test_lbp_ignores_brightness_and_contrast():
    levels = np.random.default_rng(0).integers(0, 100, (SIDE, SIDE))
    np.testing.assert_array_equal(compute("lbp", grey(levels)), compute("lbp", grey(2 * levels + 20)))


def test_lbp_of_two_levels_ignores_which_levels_they_are():
    bright = np.random.default_rng(0).integers(0, 2, (SIDE, SIDE)).astype(bool)
    one, other = grey(np.where(bright, 255, 0)), grey(np.where(bright, 37, 10))
    np.testing.assert_array_equal(compute("lbp", one), compute("lbp", other))


def test_lbp_ignores_a_quarter_turn():
    image = noise()
    turned = image.transpose(Image.Transpose.ROTATE_90)
    np.testing.assert_allclose(
        compute("lbp", image, grid=1), compute("lbp", turned, grid=1), rtol=0, atol=1e-6
    )


# color_histogram


def test_color_histogram_of_pure_red_is_one_bin_in_every_cell():
    bins = compute("color_histogram", Image.new("RGB", (90, 70), "red")).reshape(2, 2, 8, 4, 4)
    expected = np.zeros_like(bins)
    expected[:, :, 0, 3, 3] = 1  # hue 0, full saturation, full value
    np.testing.assert_array_equal(bins, expected)


def test_color_histogram_of_two_halves_says_which_colour_is_where():
    halves = Image.new("RGB", (SIDE, SIDE), "red")
    halves.paste("blue", (HALF, 0, SIDE, SIDE))
    bins = compute("color_histogram", halves).reshape(2, 2, 8, 4, 4)[..., 3, 3]
    np.testing.assert_array_equal(bins[:, 0], np.tile(np.eye(8)[0], (2, 1)))
    np.testing.assert_array_equal(bins[:, 1], np.tile(np.eye(8)[5], (2, 1)))  # 240 of 360 degrees, 8 bins
    whole = compute("color_histogram", halves, grid=1).reshape(8, 4, 4)[:, 3, 3]
    np.testing.assert_allclose(whole, np.sqrt([0.5, 0, 0, 0, 0, 0.5, 0, 0]), rtol=1e-6)


def test_color_histogram_shares_add_up_to_one_in_each_cell():
    shares = compute("color_histogram", noise(), grid=4).reshape(16, -1) ** 2
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


# glcm


def haralick(image):
    names = (
        "contrast",
        "dissimilarity",
        "homogeneity",
        "moment",
        "energy",
        "correlation",
        "mean",
        "variance",
    )
    return dict(zip((*names, "entropy"), compute("glcm", image).reshape(9, 3, 4), strict=True))


def test_glcm_of_one_grey_varies_nowhere():
    statistics = haralick(Image.new("RGB", (50, 50), (80, 80, 80)))
    expected = {"homogeneity": 1, "moment": 1, "energy": 1, "correlation": 1, "mean": 80 * 32 // 256}
    for name, values in statistics.items():
        np.testing.assert_allclose(values, expected.get(name, 0), atol=1e-7, err_msg=name)


def test_glcm_of_a_checkerboard_flips_along_rows_and_never_on_diagonals():
    board = grey(255 * (np.indices((SIDE, SIDE)).sum(axis=0) % 2))
    statistics = haralick(board)
    along_rows = {name: values[:, 0] for name, values in statistics.items()}
    on_diagonals = {name: values[:, 1] for name, values in statistics.items()}
    step = 31  # from the lowest of 32 levels to the highest
    for values, flips in ((along_rows, 1), (on_diagonals, 0)):
        np.testing.assert_allclose(values["contrast"], flips * step**2)
        np.testing.assert_allclose(values["dissimilarity"], flips * step)
        np.testing.assert_allclose(values["homogeneity"], 1 / (1 + flips * step**2), rtol=1e-6)
        np.testing.assert_allclose(values["correlation"], 1 - 2 * flips, rtol=1e-6)
        # Half the pairs start on black; an odd number of pairs on diagonals, so not to the last digit.
        np.testing.assert_allclose(values["mean"], step / 2, rtol=1e-3)
        np.testing.assert_allclose(values["variance"], (step / 2) ** 2, rtol=1e-3)
        np.testing.assert_allclose(values["moment"], 1 / 2, rtol=1e-3)  # two of four pairs, half each
        np.testing.assert_allclose(values["energy"], np.sqrt(1 / 2), rtol=1e-3)
        np.testing.assert_allclose(values["entropy"], np.log(2), rtol=1e-3)


def test_glcm_distances_see_different_pixels_on_diagonals():
    contrast = haralick(noise())["contrast"][:, 1]
    assert len(set(contrast.tolist())) == 3


def test_glcm_ignores_a_half_turn():
    image = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    turned = image.transpose(Image.Transpose.ROTATE_180)
    np.testing.assert_allclose(compute("glcm", image), compute("glcm", turned), rtol=1e-6)


# gabor


@pytest.mark.parametrize("scale", [0, 1, 2])
@pytest.mark.parametrize("turn", range(6))
def test_gabor_answers_most_to_its_own_width_and_direction(scale, turn):
    features = compute("gabor", stripes(0.35 / 2**scale, np.pi * turn / 6))
    means = features.reshape(2, 4, 6, 4)[0].mean(axis=-1)
    assert np.unravel_index(means.argmax(), means.shape) == (scale, turn)


def test_gabor_of_its_own_stripes_is_half_their_amplitude():
    features = compute("gabor", stripes(0.125, 0), frequency=0.125, scales=1, grid=4)
    mean, deviation = features.reshape(2, 6, 4, 4)[:, 0, 1:3, 1:3]  # away from the border
    np.testing.assert_allclose(mean, 0.25, rtol=0.01)  # stripes of 0.5 about the mean, half each way
    np.testing.assert_allclose(deviation, 0, atol=0.005)


def test_gabor_of_one_grey_is_zero_and_brightness_does_not_matter():
    assert not compute("gabor", Image.new("RGB", (50, 50), (91, 91, 91))).any()
    levels = np.random.default_rng(0).integers(0, 200, (SIDE, SIDE))
    dark, bright = compute("gabor", grey(levels)), compute("gabor", grey(levels + 50))
    np.testing.assert_allclose(dark, bright, atol=1e-6)


def test_gabor_says_where_the_stripes_are():
    striped = stripes(0.175, 0)
    striped.paste((127, 127, 127), (HALF, 0, SIDE, SIDE))
    cells = compute("gabor", striped).reshape(2, 4, 6, 2, 2)[0, 1, 0]
    assert cells[:, 0].min() > 5 * cells[:, 1].max()


def test_gabor_of_the_mirror_image_is_mirrored():
    image = noise()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    cells, seen_in_mirror = (compute("gabor", side).reshape(2, 4, 6, 2, 2) for side in (image, mirrored))
    directions = [0, 5, 4, 3, 2, 1]  # those that lean right lean left in the mirror
    np.testing.assert_allclose(cells[..., ::-1], seen_in_mirror[:, :, directions], rtol=1e-3)


# pixels


def test_pixels_of_one_colour_are_that_colour():
    features = compute("pixels", Image.new("RGB", (33, 21), (255, 0, 51)))
    np.testing.assert_allclose(features.reshape(16, 16, 3), np.broadcast_to([1, 0, 0.2], (16, 16, 3)))


def test_pixels_at_their_own_size_are_the_image():
    image = noise(16, 16)
    np.testing.assert_array_equal(compute("pixels", image), np.asarray(image, np.float32).ravel() / 255)


# parameters


def test_equal_parameters_resolve_to_one_canonical_form():
    plain = resolve("gabor", frequency=0.5, scales=2)
    assert plain == {"size": 128, "frequency": 0.5, "scales": 2, "orientations": 6, "grid": 2}
    assert repr(resolve("gabor", scales=np.int64(2), frequency=np.float32(0.5))) == repr(plain)
    assert type(resolve("gabor", frequency=1)["frequency"]) is float


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "hogg",
            {},
            "unknown descriptor 'hogg'; expected one of: hog, lbp, color_histogram, glcm, gabor, pixels",
        ),
        (
            "hog",
            {"cells": 8},
            "'hog' has no parameter 'cells'; expected one of: size, .*, cell, block. Did you mean 'cell'",
        ),
        ("hog", {"name": 8}, "'hog' has no parameter 'name'"),
        ("hog", {"image": 8}, "'hog' has no parameter 'image'"),
        ("hog", {"size": 1024, "cell": 1, "orientations": 1024}, "take 4,294,967,296 numbers"),
        ("lbp", {"size": 1024, "radii": 1023}, "expected at most 16,777,216"),
        ("color_histogram", {"size": 1024, "grid": 1024}, "expected at most 16,777,216"),
        ("glcm", {"distances": 60, "angles": 1000}, "expected at most 16,777,216"),
        ("gabor", {"orientations": 1024, "scales": 5}, "expected at most 16,777,216"),
        ("hog", {"size": 0}, "'hog', parameter 'size': expected an integer from 1 to 1024, got 0"),
        ("hog", {"size": 100_000}, "expected an integer from 1 to 1024, got 100000"),
        ("hog", {"size": 64.0}, r"expected an integer from 1 to 1024, got 64\.0"),
        ("hog", {"size": "64"}, "expected an integer from 1 to 1024, got '64'"),
        ("hog", {"size": True}, "expected an integer from 1 to 1024, got True"),
        ("hog", {"cell": 15}, "'hog', parameter 'cell': expected a divisor of size=128, got 15"),
        ("hog", {"block": 9}, "parameter 'block': expected at most the 8 cells of a side, got 9"),
        ("lbp", {"grid": 3}, "'lbp', parameter 'grid': expected a divisor of size=128, got 3"),
        ("lbp", {"size": 4, "radii": 4}, "parameter 'radii': expected less than size=4, got 4"),
        ("color_histogram", {"grid": 5}, "parameter 'grid': expected a divisor of size=128, got 5"),
        (
            "color_histogram",
            {"hue": 256, "value": 256},
            r"'hue \* saturation \* value': expected at most 65536 bins, got 262144",
        ),
        ("glcm", {"levels": 1}, "parameter 'levels': expected from 2 to 256, got 1"),
        ("glcm", {"levels": 257}, "parameter 'levels': expected from 2 to 256, got 257"),
        ("glcm", {"size": 6, "distances": 4}, "parameter 'distances': expected at most 3 for size=6, got 4"),
        ("gabor", {"grid": 3}, "parameter 'grid': expected a divisor of size=128, got 3"),
        (
            "gabor",
            {"frequency": 0.6},
            r"parameter 'frequency': expected at most 0\.5 cycles per pixel, got 0\.6",
        ),
        ("gabor", {"frequency": float("nan")}, "parameter 'frequency': expected a positive number, got nan"),
        ("gabor", {"frequency": -1}, "parameter 'frequency': expected a positive number, got -1"),
        (
            "gabor",
            {"scales": 7},
            "parameter 'scales': expected few enough for one whole period in size=128, got 7",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_what_was_expected_and_got(name, parameters, message):
    with pytest.raises(UsageError, match=message):
        n_features(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("glcm", {"size": 6, "distances": 3}),
        ("gabor", {"scales": 6}),
        ("gabor", {"size": 2, "frequency": 0.5, "scales": 1}),
        ("lbp", {"size": 4, "radii": 3}),
        ("hog", {"block": 8}),
        ("color_histogram", {"size": 1, "grid": 1}),
    ],
)
def test_parameters_at_their_limits_work(name, parameters):
    assert np.isfinite(compute(name, noise(9, 9), **parameters)).all()


def test_an_image_that_is_not_rgb_is_refused():
    with pytest.raises(UsageError, match="expected an image of mode 'RGB', got 'L'"):
        compute("pixels", Image.new("L", (4, 4)))


def test_importing_the_module_does_not_import_scikit_image():
    code = "import sys, featx.extractors.descriptor; sys.exit('skimage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
