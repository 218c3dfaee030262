import json

import h5py
import numpy as np
import pandas as pd
import pytest

from featx.cache import write_export
from featx.errors import CacheError, UsageError


@pytest.fixture
def export(tmp_path):
    """Export three samples of two features, with what a test changes, and open what was written."""
    opened = []

    def exported(**changes):
        facts = {
            "blocks": [np.array([[1, 2], [3, 4]], np.float32), np.array([[5, 6]], np.float32)],
            "n_samples": 3,
            "n_features": 2,
            "dtype": np.float32,
            "ids": ["a.jpg", "b/c.jpg", "d.jpg"],
            "provenance": {},
        }
        write_export(tmp_path / "out.h5", **(facts | changes))
        opened.append(h5py.File(tmp_path / "out.h5"))
        return opened[-1]

    yield exported
    for file in opened:
        file.close()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_out_in_order_whatever_the_blocks(export, dtype):
    file = export(
        blocks=iter([np.array([[1, 2]]), np.empty((0, 2)), np.array([[3, 4], [5, 6]])]), dtype=dtype
    )
    assert file["features"].dtype == dtype
    assert file["features"].chunks is None
    assert file["features"][:].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_a_pandas_user_needs_nothing_of_ours(export):
    file = export(
        labels=np.array(["ant", "bee", "ant"]), groups=np.array([7, 7, 8]), splits=["train", "val", ""]
    )
    frame = pd.DataFrame(file["features"][:], index=file["ids"].asstr()[:])
    frame["label"] = file["labels"].asstr()[:]
    assert frame.loc["b/c.jpg"].tolist() == [3.0, 4.0, "bee"]
    assert file["groups"][:].tolist() == [7, 7, 8]
    assert file["splits"].asstr()[:].tolist() == ["train", "val", ""]


def test_texts_are_utf8_of_a_fixed_length_and_undecodable_bytes_are_escaped(export):
    file = export(ids=["é.jpg", "a\udcff.jpg", "日本\n.jpg"])
    assert h5py.check_string_dtype(file["ids"].dtype) == ("utf-8", 11)
    assert file["ids"].asstr()[:].tolist() == ["é.jpg", "a\\xff.jpg", "日本\n.jpg"]


def test_names_of_any_length_and_none_at_all_are_kept(export):
    assert export(ids=["", "", ""])["ids"].asstr()[:].tolist() == ["", "", ""]
    assert export(ids=["x" * 70_000, "", "y"])["ids"].asstr()[0] == "x" * 70_000


@pytest.mark.parametrize(
    ("labels", "stored"),
    [
        (np.array([3, 1, 2]), [3, 1, 2]),
        (np.array([0.5, np.nan, 2]), [0.5, None, 2.0]),
        (np.array([True, False, True]), [1, 0, 1]),
        (np.array([3, None, 2], object), [3.0, None, 2.0]),
        (np.array(["a", None, float("nan")], object), ["a", "", ""]),
        (np.array(["a", 1, 2], object), ["a", "1", "2"]),
        (np.array([None, None, None], object), ["", "", ""]),
    ],
)
def test_numbers_stay_numbers_and_missing_labels_are_empty_or_nan(export, labels, stored):
    data = export(labels=labels)["labels"]
    found = (data.asstr()[:] if h5py.check_string_dtype(data.dtype) else data[:]).tolist()
    assert [None if value != value else value for value in found] == stored


def test_provenance_becomes_attributes(export):
    provenance = {
        "spec": "résnet",
        "batch_size": 8,
        "tolerance": 1e-4,
        "identity": {"a": [1]},
        "long": "x" * 70_000,
    }
    attributes = export(provenance=provenance).attrs
    assert attributes["spec"] == "résnet"
    assert (attributes["batch_size"], attributes["tolerance"]) == (8, 1e-4)
    assert json.loads(attributes["identity"]) == {"a": [1]}
    assert len(attributes["long"]) == 70_000


def test_an_export_of_nothing_is_a_file_without_rows(export):
    assert export(blocks=[], n_samples=0, ids=[])["features"].shape == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": [np.ones((2, 2))]}, "an export of 3 samples got 2 rows"),
        ({"blocks": [np.ones((2, 2))] * 2}, r"3 x 2 features got a block of shape \(2, 2\) after 2 rows"),
        ({"blocks": [np.ones((3, 5))]}, r"got a block of shape \(3, 5\) after 0 rows"),
        ({"ids": ["a"]}, r"needs as many ids; got shape \(1,\)"),
        ({"labels": ["a", "b"]}, r"needs as many labels; got shape \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_file_stays(export, tmp_path, changes, message):
    (tmp_path / "out.h5").write_bytes(b"old")
    with pytest.raises(UsageError, match=message):
        export(**changes)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]
    assert (tmp_path / "out.h5").read_bytes() == b"old"


def test_an_interrupted_export_leaves_nothing(export, tmp_path):
    def blocks():
        yield np.ones((2, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(blocks=blocks())
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_written(export, tmp_path):
    with pytest.raises(CacheError, match=r"needs 4,000,\d{3},\d{3},\d{3},\d{3} bytes, .* are free"):
        export(n_samples=1, n_features=10**15, ids=["a"])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_a_clean_error(export, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featx.cache.export.write_all", full)
    with pytest.raises(CacheError, match="No space left on device"):
        export()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="name a file in a folder that exists"):
        write_export(
            tmp_path / "no" / "out.h5",
            blocks=[],
            n_samples=0,
            n_features=1,
            dtype=np.float32,
            ids=[],
            provenance={},
        )
