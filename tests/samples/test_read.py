from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.samples import read_samples


@pytest.mark.parametrize(
    "wrap",
    [
        list,
        tuple,
        np.array,
        pd.Series,
        pd.Index,
        lambda paths: np.array(paths, dtype=object),
        lambda paths: np.array(paths, dtype=object).reshape(-1, 1),
        lambda paths: np.array(paths).reshape(-1, 1),
        lambda paths: [path.encode() for path in paths],
        lambda paths: [Path(path) for path in paths],
        lambda paths: pd.Series(paths, index=[7, 3]),
        lambda paths: pd.DataFrame({"path": paths}),
        lambda paths: pd.DataFrame({"photo": paths}, index=[7, 3]),
    ],
)
def test_paths_of_every_form_start_from_the_current_directory(tmp_path, monkeypatch, wrap):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.jpg").write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    table = read_samples(wrap(["b/1.jpg", "/a/2.jpg"]))
    monkeypatch.chdir("/")
    assert table.ids.tolist() == ["b/1.jpg", "/a/2.jpg"]
    assert table.read(0) == b"one"
    assert table.uri_at(1) == "/a/2.jpg"


def test_an_absolute_path_in_a_list_keeps_its_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_samples([f"{tmp_path}/a.jpg"]).ids.tolist() == [f"{tmp_path}/a.jpg"]


def test_a_data_frame_gives_all_that_a_manifest_gives():
    frame = pd.DataFrame(
        {
            "path": ["a.jpg", "b.jpg"],
            "label": [1.5, np.nan],
            "group": [1, 2],
            "split": ["x", None],
            "age": [3, 4],
        }
    )
    table = read_samples(frame)
    assert table.labelled.tolist() == [True, False]
    assert table.groups.tolist() == ["1", "2"]
    assert table.splits.tolist() == ["x", None]
    assert table.columns["age"].to_pylist() == [3, 4]


def test_one_image_is_a_table_of_one_row(tmp_path, monkeypatch):
    (tmp_path / "a.JPG").write_bytes(b"content")
    monkeypatch.chdir(tmp_path)
    for path in ("a.JPG", Path("a.JPG"), b"a.JPG", str(tmp_path / "a.JPG")):
        table = read_samples(path)
        assert (table.ids.tolist(), table.read(0), table.y) == (["a.JPG"], b"content", None)


def test_a_table_is_returned_as_it_is():
    table = read_samples(["a.jpg"])
    assert read_samples(table) is table


def test_labels_and_groups_given_take_the_place_of_those_in_the_data(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/a.jpg").touch()
    table = read_samples(tmp_path, labels=["dog"], groups=pd.Series([4]))
    assert (table.y.tolist(), table.groups.tolist()) == (["dog"], ["4"])
    assert read_samples(table, labels=[2]).y.tolist() == [2]


def test_labels_of_another_length_are_refused():
    with pytest.raises(UsageError, match="labels: expected one for each of 2 samples, got 1"):
        read_samples(["a.jpg", "b.jpg"], labels=["x"])
    with pytest.raises(UsageError, match="groups: expected one for each of 1 samples, got 2"):
        read_samples(["a.jpg"], groups=[1, 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("gone.jpg", "'gone.jpg': no such file or folder"),
        ("gone", "no such file or folder"),
        ([], "no samples: list is empty"),
        (np.array([], dtype=object), "no samples"),
        (pd.DataFrame({"path": []}), "is empty"),
        (pd.DataFrame({"file": ["a"], "label": ["b"]}), "no column 'path'; its columns are 'file', 'label'"),
        (["a.jpg", 3], "list of paths, row 2: expected a path, got 3"),
        (["a.jpg", None], "row 2: expected a path, got None"),
        (["a.jpg", ""], "row 2: the path is empty"),
        (["\ud800.jpg"], "row 1: expected a path"),
        (np.array([["a", "b"]]), r"expected shape \(n,\) or \(n, 1\), got \(1, 2\)"),
        (np.zeros((2, 8, 8, 3)), "expected uint8, got float64; drop normalisation"),
        (np.zeros((8, 8, 3), np.uint8), r"got \(8, 8, 3\); put a single image in a list"),
        (np.zeros((2, 8), np.uint8), r"expected shape \(n, h, w\)"),
        ({"a.jpg": 1}, "cannot read samples from dict"),
        (3, "cannot read samples from int"),
        ((path for path in ["a.jpg"]), "cannot read samples from generator"),
        (Image.new("RGB", (2, 2)), "cannot read samples from Image"),
        ([3, 4], "item 0 of list: expected a PIL image"),
    ],
)
def test_what_cannot_be_samples_is_refused_with_the_reason(data, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=reason):
        read_samples(data)


def test_a_file_of_an_unknown_kind_names_what_can_be_read(tmp_path):
    (tmp_path / "a.xyz").touch()
    with pytest.raises(UsageError, match=r"expected a folder, a manifest \(\.csv .*\) or an image \(\.jpg "):
        read_samples(tmp_path / "a.xyz")
