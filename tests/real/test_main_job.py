"""The main job on real photos with real weights, as a user types it, each command in a process of its own."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder whose cache all tests of this file share."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def mobilenet(assets):
    return f"mobilenet_v2:weights={assets / 'weights/mobilenet_v2.pth'}"


@pytest.fixture(scope="module")
def featx(home):
    """Run a command line with --json, and return its object."""

    def run(*arguments, expected=0, python=()):
        done = subprocess.run(
            [sys.executable, *python, "-m", "featx", *map(str, arguments), "--json"],
            cwd=home,
            env={**os.environ, "FEATX_CACHE": str(home / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expected, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(("head", "cv", "bar"), [("logreg", 5, 0.93), ("svm", 3, 0.92), ("mlp", 3, 0.92)])
def test_ants_and_bees_are_told_apart_by_a_model_applied_in_another_process(
    head, cv, bar, assets, featx, home, mobilenet
):
    train, val = (assets / "datasets/hymenoptera" / name for name in ("train", "val"))
    fitted = featx("fit", train, "-x", mobilenet, "--head", head, "--cv", cv, "--out", f"{head}.featx")
    assert fitted["cv"]["accuracy"]["mean"] > 0.93
    assert fitted["baseline"]["accuracy"]["mean"] < 0.6
    assert fitted["n_samples"] == 245  # the palette GIF among the ants is a row like any other
    predicted = featx("predict", f"{head}.featx", val)
    assert len(predicted["predictions"]) == 153
    assert predicted["scores"]["accuracy"] >= bar


def test_flowers_are_estimated_as_well_as_by_a_plain_script(assets, featx, mobilenet):
    fitted = featx("fit", assets / "datasets/flowers", "-x", mobilenet, "--head", "logreg")
    assert fitted["cv"]["accuracy"]["mean"] >= 0.81
    assert len(fitted["classes"]) == 5


def test_a_second_extraction_computes_nothing_also_over_a_copy_elsewhere(
    assets, featx, home, mobilenet, tmp_path
):
    flowers = assets / "datasets/flowers"
    featx("extract", flowers, "-x", mobilenet)
    # A backbone cannot be opened where importing torch fails.
    (tmp_path / "torch.py").write_text("raise RuntimeError('torch was imported')")
    without_torch = ("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy; "
                           "sys.argv[0] = 'featx'; runpy.run_module('featx', run_name='__main__')")  # fmt: skip
    for data in (flowers, shutil.copytree(flowers, tmp_path / "copy")):
        done = subprocess.run(
            [sys.executable, *without_torch, "extract", str(data), "-x", mobilenet, "--json"],
            env={**os.environ, "FEATX_CACHE": str(home / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        again = json.loads(done.stdout)
        assert (again["samples"], again["cached"], again["extracted"]) == (300, 300, 0)


def test_a_broken_photo_costs_one_row(assets, featx, mobilenet, tmp_path):
    photos = shutil.copytree(assets / "datasets/hymenoptera/val", tmp_path / "val")
    victim = sorted((photos / "bees").iterdir())[5]
    whole = featx("extract", photos, "-x", mobilenet, "--export", tmp_path / "whole.h5")
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    done = featx("extract", photos, "-x", mobilenet, "--export", tmp_path / "broken.h5")
    assert (whole["failed"], done["failed"], done["extracted"]) == (0, 1, 0)
    assert [failure["id"] for failure in done["failures"]] == [f"bees/{victim.name}"]
    with h5py.File(tmp_path / "whole.h5") as before, h5py.File(tmp_path / "broken.h5") as after:
        kept = before["ids"].asstr()[:] != f"bees/{victim.name}"
        np.testing.assert_array_equal(after["features"][:], before["features"][:][kept])
        np.testing.assert_array_equal(after["ids"][:], before["ids"][:][kept])


def test_on_error_raise_names_the_broken_photo(assets, home, mobilenet, tmp_path):
    import featx as library

    photos = shutil.copytree(assets / "datasets/flowers/daisy", tmp_path / "daisy")
    victim = sorted(photos.iterdir())[7]
    victim.write_bytes(victim.read_bytes()[:2000])
    with pytest.raises(library.FeatxError, match=victim.name):
        library.extract(photos, mobilenet, cache=home / "cache")
