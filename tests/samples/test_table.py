import os
import pickle
import socket
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from featx.errors import SampleIOError, UsageError
from featx.samples import SampleTable, key_of, read_samples


def table_of(*names, root="/data", labels=None):
    return SampleTable(
        id_column=pa.array([os.fsencode(name) for name in names], type=pa.large_binary()),
        root=str(root),
        label_column=None if labels is None else pa.array(labels).dictionary_encode(),
    )


def test_a_million_rows_cost_under_a_hundred_and_fifty_bytes_each():
    n = 1_000_000
    digits = pa.array(np.arange(n)).cast(pa.string())
    names = pa.compute.binary_join_element_wise("class/photo_", digits, ".jpg", "").cast(pa.large_binary())
    labels = pa.DictionaryArray.from_arrays(pa.array(np.arange(n) % 10, type=pa.int32()), list("abcdefghij"))
    tracemalloc.start()
    table = SampleTable(id_column=names, root="/data", label_column=labels)
    half = table.take(np.arange(0, n, 2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert names.nbytes + labels.nbytes < 150 * n
    assert peak < 20 * n  # row numbers, and no Python object a row
    assert half.id_at(1) == "class/photo_2.jpg"
    assert table.uri_at(n - 1) == "/data/class/photo_999999.jpg"
    assert table.classes == list("abcdefghij")


def test_ids_keep_bytes_that_are_no_text():
    table = table_of(b"a/\xff.jpg", "ü\n.jpg")
    assert table.ids.tolist() == ["a/\udcff.jpg", "ü\n.jpg"]
    assert table.id_at(0) == "a/\udcff.jpg"
    assert os.fsencode(table.uri_at(0)) == b"/data/a/\xff.jpg"


def test_an_absolute_path_does_not_start_from_the_root():
    assert table_of("/elsewhere/a.jpg").uri_at(0) == "/elsewhere/a.jpg"


def test_labels_and_classes_are_plain_strings():
    table = table_of("a", "b", "c", labels=["dog", "cat", "dog"])
    assert table.y.tolist() == ["dog", "cat", "dog"]
    assert table.y.dtype.kind == "U"
    assert table.classes == ["cat", "dog"]
    assert table.labelled.all()


def test_a_missing_label_cannot_pass_for_a_label():
    table = table_of("a", "b", "c", labels=["dog", None, "cat"])
    assert table.labelled.tolist() == [True, False, True]
    assert table.y.tolist() == ["dog", None, "cat"]
    assert table.take(table.labelled).y.tolist() == ["dog", "cat"]
    assert table.classes == ["cat", "dog"]


def test_a_table_without_labels_says_so():
    table = table_of("a", "b")
    assert (table.y, table.classes, table.groups, table.splits) == (None, [], None, None)
    assert table.labelled.tolist() == [False, False]


def test_take_gives_rows_of_every_column_in_the_order_asked_for():
    table = read_samples(["a.jpg", "b.jpg", "c.jpg"], labels=[3, 1, 2], groups=["x", "y", "z"])
    taken = table.take([2, 0, 2])
    assert taken.ids.tolist() == ["c.jpg", "a.jpg", "c.jpg"]
    assert taken.y.tolist() == [2, 3, 2]
    assert taken.groups.tolist() == ["z", "x", "z"]
    assert taken.classes == [2, 3]
    assert len(table.take([])) == 0


def test_take_reads_a_mask_as_a_mask():
    table = table_of("a", "b", "c")
    assert table.take(np.array([False, False, True])).ids.tolist() == ["c"]
    with pytest.raises(UsageError, match=r"expected a mask of shape \(3,\), got \(2,\)"):
        table.take([True, False])


@pytest.mark.parametrize("rows", [[3], [-1], [0.5], ["a"]])
def test_take_refuses_what_is_no_row_number(rows):
    with pytest.raises(UsageError, match="expected row numbers from 0 to 2"):
        table_of("a", "b", "c").take(rows)


def test_reading_gives_the_bytes_of_the_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"content")
    (tmp_path / "empty.jpg").touch()
    table = table_of("a.jpg", "empty.jpg", root=tmp_path)
    assert table.read(0) == b"content"
    assert table.read(1) == b""
    raw, stat = table.read_with_stat(0)
    assert (raw, stat.st_size, stat.st_ino) == (b"content", 7, (tmp_path / "a.jpg").stat().st_ino)


def test_what_is_no_regular_file_is_refused_with_the_reason(tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "nowhere.jpg").symlink_to("gone")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s.jpg"))
    listener.close()
    reasons = {
        "fifo.jpg": "it is a FIFO, not a regular file",
        "folder.jpg": "it is a folder, not a regular file",
        "/dev/null": "it is a device, not a regular file",
        "missing.jpg": "no such file",
        "nowhere.jpg": "no such file",
        "circle.jpg": "its links lead in a circle",
        "s.jpg": "no such device",
        "x" * 300: "file name too long",
        "a\0b": "null byte|null character",
        "fifo.jpg/x.jpg": "not a directory",
    }
    table = table_of(*reasons, root=tmp_path)
    for row, reason in enumerate(reasons.values()):
        with pytest.raises(SampleIOError, match=reason) as caught:
            table.read(row)
        assert str(caught.value).isprintable()


def test_reading_what_is_refused_leaves_no_file_open(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    table = table_of("folder.jpg", root=tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(SampleIOError):
            table.read(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch(mode=0o000)
    with pytest.raises(SampleIOError, match="permission denied"):
        table_of("a.jpg", root=tmp_path).read(0)


def test_the_same_content_has_the_same_key_under_every_name(tmp_path):
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_bytes(b"abc")
    table = table_of("a.jpg", "b.png", root=tmp_path)
    keys = {key_of(table.read(row)) for row in range(2)}
    # SHA-256 of "abc", from FIPS 180-2
    assert keys == {bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")}


def test_keys_of_arrays_tell_shape_and_content_apart():
    flat = np.arange(12, dtype=np.uint8)
    wide, tall = flat.reshape(1, 4, 3), flat.reshape(4, 1, 3)
    assert key_of(wide) != key_of(tall)
    assert key_of(wide) != key_of(wide + 1)
    assert key_of(wide) != key_of(wide.tobytes())
    assert key_of(tall[::2]) == key_of(tall[::2].copy())
    assert len(key_of(wide)) == 32


def test_a_picture_has_one_key_as_array_and_as_pil_image():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    table = read_samples([array, Image.fromarray(array)])
    assert key_of(table.read(0)) == key_of(table.read(1))


def test_a_table_survives_pickling(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"content")
    table = pickle.loads(pickle.dumps(table_of("a.jpg", root=tmp_path, labels=["x"])))
    assert table.read(0) == b"content"
    assert table.y.tolist() == ["x"]


def test_importing_samples_loads_no_heavy_package():
    heavy = {"torch", "torchvision", "PIL", "pandas", "h5py"}
    program = f"import sys, featx.samples; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr
