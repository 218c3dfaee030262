import json
import shutil
import subprocess

import h5py
import numpy as np
import pytest

import featx
from featx.engine import Settings, read_extractors, run
from featx.errors import DecodeError, UsageError
from featx.features import features_of, write_features
from featx.samples import read_samples

COLOUR = "pixels:size=1"


@pytest.fixture
def labelled(pictures):
    """Write a manifest of twelve pictures with labels, groups and splits, the fourth of which is broken."""
    folder = pictures(12)
    (folder / "003.png").write_bytes(b"broken")
    lines = ["path,label,group,split"]
    lines += [f"{n:03}.png,{'ab'[n % 2]},g{n // 3},{'test' if n > 8 else 'train'}" for n in range(12)]
    (folder / "all.csv").write_text("\n".join(lines))
    return folder / "all.csv"


@pytest.fixture
def done(labelled, tmp_path):
    return run(
        read_samples(labelled),
        read_extractors([COLOUR, "pixels:size=2"]),
        cache=tmp_path / "cache",
        settings=Settings(on_error="record"),
    )


def test_a_matrix_is_shown_in_one_line(done, pictures):
    assert repr(features_of(done)) == "Features(11 x 15 float32, 2 classes, 1 failure, pixels+pixels)"
    folder = str(pictures(3, "three"))
    assert repr(featx.extract(folder, COLOUR)) == "Features(3 x 3 float32, pixels)"
    numbered = featx.extract(folder, COLOUR, labels=[0, 7.5, 2])
    assert repr(numbered) == "Features(3 x 3 float32, labels 0 to 7.5, pixels)"
    partly = featx.extract(folder, COLOUR, labels=["a", None, "a"])
    assert repr(partly) == "Features(3 x 3 float32, 1 class, pixels)"
    sparsely = featx.extract(str(pictures(40, "forty")), COLOUR, labels=[100, *[None] * 39])
    assert repr(sparsely) == "Features(40 x 3 float32, labels 100 to 100, pixels)"


def test_a_failure_is_left_out_of_all_fields_together(done, colours):
    features = features_of(done)
    there = np.array([number for number in range(12) if number != 3])
    assert features.X.shape == (11, 3 + 12)
    assert features.X.dtype == np.float32
    np.testing.assert_allclose(features.X[:, :3], colours(12)[there] / 255, atol=1e-6)
    assert features.ids.tolist() == [f"{number:03}.png" for number in there]
    assert features.y.tolist() == ["ab"[number % 2] for number in there]
    assert features.groups.tolist() == [f"g{number // 3}" for number in there]
    assert features.splits.tolist() == ["test" if number > 8 else "train" for number in there]
    assert features.keys.shape == (11, 32)
    [failure] = features.failures
    assert (failure.row, failure.id) == (3, "003.png")
    assert len(features.feature_names) == len(set(features.feature_names)) == 15


def test_columns_are_named_by_extractor_and_by_its_text_where_names_meet(pictures):
    folder = pictures(1)
    assert featx.extract(folder, COLOUR).feature_names == ["pixels_0", "pixels_1", "pixels_2"]
    names = featx.extract(folder, f"{COLOUR}+glcm").feature_names
    assert (names[2], names[3]) == ("pixels_2", "glcm_0")
    names = featx.extract(folder, f"{COLOUR}+pixels:size=2").feature_names
    assert (names[2], names[3]) == ("pixels:size=1_2", "pixels:size=2_0")
    names = featx.extract(folder, f"{COLOUR}+descriptor/{COLOUR}").feature_names
    assert len(set(names)) == 6


def test_extract_takes_labels_and_groups_and_keeps_the_cache_where_it_is_told(
    pictures, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = pictures(4)
    features = featx.extract(folder, COLOUR, labels=[0.5, 1.5, 2.5, 3.5], groups=list("aabb"))
    assert features.y.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert features.groups.tolist() == ["a", "a", "b", "b"]
    assert features.splits is None
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]
    featx.extract(folder, COLOUR, cache="vectors")
    assert list((tmp_path / "vectors").rglob("*.h5"))


def test_extract_raises_by_default_and_records_when_told(labelled):
    with pytest.raises(DecodeError, match=r"sample '003\.png'"):
        featx.extract(labelled, COLOUR)
    assert len(featx.extract(labelled, COLOUR, on_error="record").ids) == 11
    with pytest.raises(UsageError, match="on_error: expected one of raise, record"):
        featx.extract(labelled, COLOUR, on_error="skip")


def test_progress_is_told(pictures):
    told = []
    featx.extract(pictures(3), COLOUR, progress=told.append)
    assert (told[-1].done, told[-1].total, told[-1].failed) == (3, 3, 0)


def test_an_export_is_readable_without_featx(done, tmp_path, colours):
    path = write_features(done, tmp_path / "out.h5")
    there = [number for number in range(12) if number != 3]
    with h5py.File(path) as file:
        assert file["features"].shape == (11, 15)
        np.testing.assert_allclose(file["features"][:, :3], colours(12)[there] / 255, atol=1e-6)
        assert file["ids"].asstr()[:].tolist() == [f"{number:03}.png" for number in there]
        assert file["labels"].asstr()[:].tolist() == ["ab"[number % 2] for number in there]
        assert file["groups"].asstr()[0] == "g0"
        assert file["splits"].asstr()[-1] == "test"
        attributes = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()
        }
    assert attributes["extractor"] == "pixels:size=1+pixels:size=2"
    assert attributes["fingerprint"] == "+".join(one.task.spec.fingerprint for one in done.outcomes)
    assert attributes["n_failed"] == 1
    assert [one["name"] for one in json.loads(attributes["identity"])] == ["pixels", "pixels"]


@pytest.mark.skipif(shutil.which("h5ls") is None, reason="h5ls is not installed")
def test_h5ls_lists_an_export(done, tmp_path):
    path = write_features(done, tmp_path / "out.h5")
    listed = subprocess.run(["h5ls", path], capture_output=True, text=True, check=True).stdout
    assert "features                 Dataset {11, 15}" in listed
    assert "ids                      Dataset {11}" in listed


def test_blocks_of_an_export_come_in_order(done, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.features._EXPORTED_AT_ONCE", 4)
    with h5py.File(write_features(done, tmp_path / "out.h5")) as file:
        np.testing.assert_array_equal(file["features"][:], features_of(done).X)


def test_an_export_keeps_half_precision_unless_it_is_fused_with_float32(pictures, tmp_path, counted):
    folder = pictures(3)

    def exported(extractors):
        settings = Settings(device="cpu", precision="bfloat16")
        done = run(read_samples(folder), read_extractors(extractors), cache=None, settings=settings)
        assert features_of(done).X.dtype == np.float32
        with h5py.File(write_features(done, tmp_path / "out.h5")) as file:
            return file["features"].dtype

    assert exported(counted[0]) == np.float16
    assert exported([counted[0], COLOUR]) == np.float32


def test_an_export_goes_into_a_folder_that_exists(done, tmp_path):
    with pytest.raises(UsageError, match="name a file in a folder that exists"):
        write_features(done, tmp_path / "no" / "out.h5")
