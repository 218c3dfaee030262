import logging
import os
import subprocess
from pathlib import Path

import pytest

from featx.errors import SampleIOError, UsageError
from featx.samples import read_samples


def plant(root, *names):
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_the_first_folder_is_the_class_however_deep_the_file_lies(tmp_path):
    table = read_samples(plant(tmp_path, "cats/a.jpg", "cats/2020/may/b.png", "dogs/a.jpg"))
    assert table.ids.tolist() == ["cats/2020/may/b.png", "cats/a.jpg", "dogs/a.jpg"]
    assert table.y.tolist() == ["cats", "cats", "dogs"]
    assert table.uri_at(2) == str(tmp_path / "dogs/a.jpg")
    assert table.path_column is None


def test_rows_are_in_the_order_of_the_bytes_of_each_component(tmp_path):
    names = [
        "a/x.jpg",
        "a-b/x.jpg",
        "a.b/x.jpg",
        "B/10.jpg",
        "B/2.jpg",
        "é/x.jpg",
        "a/x/y.jpg",
        "z/\U00010000.jpg",
    ]
    table = read_samples(plant(tmp_path, *names, "z/\uffff.jpg"))
    expected = sorted([*names, "z/\uffff.jpg"], key=lambda name: [part.encode() for part in name.split("/")])
    assert table.ids.tolist() == expected
    assert expected[:2] == ["B/10.jpg", "B/2.jpg"]
    assert expected.index("a/x.jpg") < expected.index("a-b/x.jpg")  # "a" before "a-b", though "-" before "/"


def test_a_flat_folder_has_no_labels(tmp_path):
    (tmp_path / "empty").mkdir()
    table = read_samples(plant(tmp_path, "b.jpg", "a.jpg"))
    assert table.ids.tolist() == ["a.jpg", "b.jpg"]
    assert table.y is None
    assert table.skipped == {"empty folders": 1}


def test_files_beside_class_folders_have_no_label(tmp_path, caplog):
    table = read_samples(plant(tmp_path, "cats/a.jpg", "b.jpg"))
    assert table.ids.tolist() == ["b.jpg", "cats/a.jpg"]
    assert table.labelled.tolist() == [False, True]
    assert "1 image directly in it, beside class folders, without a label" in caplog.text


def test_extensions_count_in_any_case(tmp_path):
    names = ["a.JPG", "b.jpeg", "c.JPE", "d.jfif", "e.Png", "f.webp", "g.bmp", "h.gif", "i.tif", "j.TIFF"]
    names.append("k.mpo")
    assert read_samples(plant(tmp_path, *names)).ids.tolist() == names


def test_what_is_left_out_is_counted_and_said(tmp_path, caplog):
    plant(
        tmp_path,
        "cats/a.jpg",
        "cats/._a.jpg",
        ".hidden.jpg",
        ".git/b.jpg",
        "notes.txt",
        "cats/x.heic",
        "README",
    )
    (tmp_path / "empty/deeper").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        table = read_samples(tmp_path)
    assert table.ids.tolist() == ["cats/a.jpg"]
    assert table.skipped == {
        "hidden files": 2,
        "hidden folders": 1,
        "unknown extensions": 3,
        "empty folders": 1,
    }
    for words in ("2 hidden files", "3 unknown extensions", "1 empty folder (", "'.heic'"):
        assert words in caplog.text
    assert "WARNING" in caplog.text


def test_hidden_files_alone_are_no_reason_to_warn(tmp_path, caplog):
    read_samples(plant(tmp_path, "cats/a.jpg", ".DS_Store"))
    assert caplog.text == ""


def test_classes_named_like_splits_are_pointed_out(tmp_path, caplog):
    read_samples(plant(tmp_path, "train/a.jpg", "Val/b.jpg"))
    assert "these look like splits, not classes" in caplog.text
    caplog.clear()
    read_samples(plant(tmp_path, "cats/a.jpg"))
    assert "splits" not in caplog.text


def test_links_to_folders_are_followed_but_never_into_a_circle(tmp_path):
    plant(tmp_path, "data/cats/a.jpg", "outside/b.jpg", "c.jpg")
    (tmp_path / "data/dogs").symlink_to(tmp_path / "outside")
    (tmp_path / "data/cats/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/cats/self").symlink_to(tmp_path / "data/cats")
    (tmp_path / "data/above").symlink_to(tmp_path)
    table = read_samples(tmp_path / "data")
    assert table.ids.tolist() == ["cats/a.jpg", "dogs/b.jpg"]
    assert table.skipped == {"links that lead back up": 3}


def test_whatever_is_named_like_an_image_is_a_row_unless_it_is_a_folder(tmp_path):
    plant(tmp_path, "c/ok.jpg", "c/album.jpg/inside.png")
    os.mkfifo(tmp_path / "c/fifo.jpg")
    (tmp_path / "c/broken.jpg").symlink_to("nowhere")
    (tmp_path / "c/circle.jpg").symlink_to("circle.jpg")
    table = read_samples(tmp_path)
    names = ["c/album.jpg/inside.png", "c/broken.jpg", "c/circle.jpg", "c/fifo.jpg", "c/ok.jpg"]
    assert table.ids.tolist() == names
    for row in (1, 2, 3):
        with pytest.raises(SampleIOError):
            table.read(row)


def test_names_may_be_anything_that_a_file_system_takes(tmp_path):
    names = [
        b"\xff.jpg",
        "e\u0301.jpg".encode(),
        "é.jpg".encode(),
        "犬.jpg".encode(),
        b"a\nb.jpg",
        b"-x.jpg",
        b"=cmd.jpg",
    ]
    names.append(b"n" * 251 + b".jpg")
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / os.fsdecode(name)).write_bytes(b"%d" % number)
    table = read_samples(tmp_path)
    assert table.id_column.to_pylist() == sorted(b"caf\xe9/" + name for name in names)
    assert sorted(table.read(row) for row in range(len(table))) == [b"%d" % n for n in range(len(names))]
    assert table.classes == ["caf\\xe9"]


@pytest.fixture
def nested(tmp_path):
    """Make folders inside folders, and remove them: what cleans up after tests recurses too deeply."""

    def nest(name, depth):
        place = os.open(tmp_path, os.O_RDONLY)
        for _ in range(depth):
            os.mkdir(name, dir_fd=place)
            inner = os.open(name, os.O_RDONLY, dir_fd=place)
            os.close(place)
            place = inner
        os.close(os.open("a.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=place))
        os.close(place)
        return tmp_path

    yield nest
    subprocess.run(["rm", "-rf", tmp_path], check=True)


def test_folders_nest_deeper_than_python_calls_do(nested):
    assert read_samples(nested("d", 1500)).ids.tolist() == ["d/" * 1500 + "a.jpg"]


def test_a_folder_that_cannot_be_listed_stops_the_scan(nested):
    # A path of more than 4,096 bytes: the one obstacle that stops root too.
    with pytest.raises(SampleIOError, match=r"cannot list folder .*File name too long"):
        read_samples(nested("d" * 250, 20))


def test_a_folder_without_images_says_what_is_there_and_what_is_expected(tmp_path):
    with pytest.raises(
        UsageError, match=r"no images in .*: found nothing; expected folders named after classes"
    ):
        read_samples(tmp_path)
    plant(tmp_path, "a.heic", "b.txt", ".c.jpg", "cats/x")
    with pytest.raises(
        UsageError, match=r"found 3 unknown extensions, 1 hidden file, 1 empty folder .*'\.heic'"
    ):
        read_samples(tmp_path)


def test_the_table_does_not_depend_on_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(plant(tmp_path, "data/a.jpg"))
    table = read_samples("data/")
    monkeypatch.chdir("/")
    assert table.read(0) == b""
