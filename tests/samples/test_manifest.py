import logging
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from featx.errors import UsageError
from featx.samples import read_samples


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_csv_gives_paths_labels_groups_splits_and_keeps_the_rest(tmp_path):
    text = "path,label,group,split,camera\na/1.jpg,cat,p1,train,3\nb/2.jpg,dog,p2,test,4\n"
    table = read_samples(write(tmp_path / "m.csv", text))
    assert table.ids.tolist() == ["a/1.jpg", "b/2.jpg"]
    assert table.uri_at(0) == str(tmp_path / "a/1.jpg")
    assert table.y.tolist() == ["cat", "dog"]
    assert table.groups.tolist() == ["p1", "p2"]
    assert table.splits.tolist() == ["train", "test"]
    assert {name: column.to_pylist() for name, column in table.columns.items()} == {"camera": [3, 4]}
    assert table.take([1]).columns["camera"].to_pylist() == [4]


def test_relative_paths_start_from_the_manifest_wherever_python_is(tmp_path, monkeypatch):
    write(tmp_path / "m.csv", "path\na.jpg\n")
    write(tmp_path / "a.jpg", b"content")
    monkeypatch.chdir(tmp_path)
    table = read_samples("m.csv")
    monkeypatch.chdir("/")
    assert table.read(0) == b"content"


@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_absolute_paths_inside_the_manifests_folder_get_relative_ids(tmp_path, kind):
    lines = [
        f"{tmp_path}/a/1.jpg",
        "/elsewhere/2.jpg",
        "a/3.jpg",
        f"{tmp_path}//etc/4.jpg",
        f"{tmp_path}x/5.jpg",
    ]
    header = "path\n" if kind == "csv" else ""
    table = read_samples(write(tmp_path / f"m.{kind}", header + "\n".join(lines)))
    assert table.ids.tolist() == ["a/1.jpg", *lines[1:]]
    # "//etc/4.jpg" must not become "/etc/4.jpg", another file
    assert Path(table.uri_at(3)) == tmp_path / "etc/4.jpg"
    assert table.uri_at(1) == "/elsewhere/2.jpg"
    assert table.path_column is None


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (b"\xef\xbb\xbfpath,label\r\na.jpg,x\r\n", ["a.jpg"]),
        (b'path,label\n"a\nb.jpg",x\n', ["a\nb.jpg"]),
        (b'path,label\n"a,""b"".jpg",x\n', ['a,"b".jpg']),
        (b"path,label\n\xff.jpg,x\n", ["\udcff.jpg"]),
        (b"label,path\nx,NA\n", ["NA"]),
        (b"path,label\n-a.jpg,x\n=cmd.jpg,y\n", ["-a.jpg", "=cmd.jpg"]),
    ],
)
def test_csv_paths_may_be_anything_that_csv_can_say(tmp_path, content, ids):
    assert read_samples(write(tmp_path / "m.csv", content)).ids.tolist() == ids


def test_tab_separated_values_work_alike(tmp_path):
    table = read_samples(write(tmp_path / "m.tsv", "path\tlabel\na,b.jpg\tcat\n"))
    assert (table.ids.tolist(), table.y.tolist()) == (["a,b.jpg"], ["cat"])


def labels_of(tmp_path, *cells):
    rows = "".join(f"{number}.jpg,{cell}\n" for number, cell in enumerate(cells))
    return read_samples(write(tmp_path / "m.csv", "path,label\n" + rows))


def test_csv_labels_are_numbers_only_where_all_are_canonical_numbers(tmp_path):
    assert labels_of(tmp_path, "1", "-2", "30").y.tolist() == [1, -2, 30]
    assert labels_of(tmp_path, "1", "-2").y.dtype == "int64"
    assert labels_of(tmp_path, "1", "0.5", "1e-3").y.tolist() == [1.0, 0.5, 0.001]
    for names in (
        ["1", "007"],
        ["1", "x"],
        ["+1", "2"],
        ["1.", "2"],
        ["12345678901234567890", "1"],
        ["0x1", "2"],
    ):
        assert labels_of(tmp_path, *names).y.tolist() == names


def test_an_empty_cell_is_missing_and_na_is_a_name(tmp_path):
    table = labels_of(tmp_path, "NA", "", "null", '""')
    assert table.labelled.tolist() == [True, False, True, False]
    assert table.classes == ["NA", "null"]
    assert labels_of(tmp_path, "", "").y is None


def test_nan_beside_numbers_is_a_missing_number(tmp_path):
    table = labels_of(tmp_path, "1.5", "NaN", "")
    assert table.labelled.tolist() == [True, False, False]
    assert labels_of(tmp_path, "nan", "roti").classes == ["nan", "roti"]  # bread
    assert labels_of(tmp_path, "nan", "nan").classes == ["nan"]


def parquet_of(tmp_path, **columns):
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    return read_samples(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("labels", "y"),
    [
        (pa.array(["1", "007"]), ["1", "007"]),
        (pa.array([1, 2], pa.int8()), [1, 2]),
        (pa.array([1, 2], pa.float32()), [1.0, 2.0]),
        (pa.array([True, False]), ["True", "False"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (pa.array(["b", "a"], pa.large_string()), ["b", "a"]),
    ],
)
def test_parquet_labels_keep_their_type(tmp_path, labels, y):
    assert parquet_of(tmp_path, path=["a.jpg", "b.jpg"], label=labels).y.tolist() == y


def test_parquet_keeps_groups_splits_and_other_columns(tmp_path):
    table = parquet_of(
        tmp_path, path=pa.array([b"\xff.jpg", b"b.jpg"]), group=[7, 8], split=["a", None], extra=[[1], [2]]
    )
    assert table.ids.tolist() == ["\udcff.jpg", "b.jpg"]
    assert table.groups.tolist() == ["7", "8"]
    assert table.splits.tolist() == ["a", None]
    assert table.columns["extra"].to_pylist() == [[1], [2]]
    assert table.labelled.tolist() == [False, False]


def test_nan_labels_of_parquet_are_missing(tmp_path):
    table = parquet_of(tmp_path, path=["a", "b"], label=[1.5, float("nan")])
    assert table.labelled.tolist() == [True, False]


def test_a_text_file_has_a_path_on_each_line(tmp_path):
    content = "\ufeffa.jpg\r\n\n  \nb c.jpg\nd\x85e.jpg\nf\x0cg\u2028h.jpg\ni.jpg".encode() + b"\n\xff.jpg\n"
    table = read_samples(write(tmp_path / "m.lst", content))
    assert table.ids.tolist() == [
        "a.jpg",
        "b c.jpg",
        "d\x85e.jpg",
        "f\x0cg\u2028h.jpg",
        "i.jpg",
        "\udcff.jpg",
    ]
    assert table.y is None


def test_a_path_named_again_keeps_its_own_id(tmp_path, caplog):
    lines = ["a.jpg", "b.jpg", "a.jpg", "a.jpg#2", "a.jpg", "b.jpg"]
    with caplog.at_level(logging.WARNING):
        table = read_samples(write(tmp_path / "m.txt", "\n".join(lines)))
    assert table.ids.tolist() == ["a.jpg", "b.jpg", "a.jpg#3", "a.jpg#2", "a.jpg#4", "b.jpg#2"]
    assert [table.uri_at(row) for row in range(6)] == [str(tmp_path / line) for line in lines]
    assert "3 rows name a path again" in caplog.text
    assert table.take([4]).uri_at(0) == str(tmp_path / "a.jpg")


def test_new_ids_do_not_collide_with_each_other(tmp_path):
    lines = ["a", "a", "a#2", "a#2", "a", "a#2#2"]
    ids = read_samples(write(tmp_path / "m.txt", "\n".join(lines))).ids.tolist()
    assert len(set(ids)) == len(lines)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "file,label\na.jpg,x\n", "no column 'path'; its columns are 'file', 'label'"),
        ("m.csv", "path,label\na.jpg,x\n,y\n", "row 2: the path is empty"),
        ("m.csv", "path,label\n", "is empty"),
        ("m.csv", "", "is empty; expected a first line that names columns: path,label"),
        ("m.csv", "path;label\na.jpg;x\n", "They are separated by ';'; expected ',' in .csv"),
        ("m.csv", "path\tlabel\na.jpg\tx\n", r"They are separated by '\\t'; expected ',' in .csv"),
        ("m.tsv", "path,label\na.jpg,x\n", "They are separated by ','; expected .* a tab in .tsv"),
        ("m.csv", "Path,label\na.jpg,x\n", r"are 'Path', 'label'\. Rename 'Path' to 'path'\."),
        ("m.csv", "a.jpg,x\nb.jpg,y\n", "the first line of a CSV names its columns"),
        ("m.csv", ",".join(map(str, range(20))) + "\n", "are '0', .*, '7' and 12 more"),
        ("m.csv", b"\x89PNG\0\0,\n", "holds NUL bytes; expected text in UTF-8. Save it so, or name another"),
        ("m.csv", "path,label\n".encode("utf-16"), "holds NUL bytes"),
        ("m.tsv", b"path\tlabel\0\n", "holds NUL bytes"),
        ("m.txt", b"a.jpg\n" * 9000 + b"\0\n", "holds NUL bytes"),
        ("m.csv", "path,label\na.jpg\n", "cannot read manifest .*Expected 2 columns, got 1"),
        ("m.csv", "path,path\na.jpg,b.jpg\n", "column 'path' appears twice"),
        ("m.csv", b"path,label\na.jpg,\xff\n", "invalid UTF8"),
        ("m.txt", "\n \n", "is empty"),
        ("m.parquet", "no parquet at all", "cannot read manifest"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(tmp_path, name, content, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        read_samples(write(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_a_column_whose_name_is_no_text_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read manifest .*m\.csv': 'utf-8' codec can't decode"):
        read_samples(write(tmp_path / "m.csv", b"path,\xff\na.jpg,1\n"))


def test_parquet_columns_of_a_wrong_type_are_refused(tmp_path):
    with pytest.raises(UsageError, match="column 'path': expected text, got int64"):
        parquet_of(tmp_path, path=[1, 2])
    with pytest.raises(UsageError, match="column 'label': expected text or numbers, got list"):
        parquet_of(tmp_path, path=["a"], label=[[1]])
    with pytest.raises(UsageError, match="row 1: the path is empty"):
        parquet_of(tmp_path, path=pa.array([None], pa.string()))


@pytest.mark.parametrize(("written", "meant"), [("Split", "split"), ("groups", "group")])
def test_a_column_that_is_almost_a_split_or_a_group_is_said_to_be_unused(tmp_path, caplog, written, meant):
    table = read_samples(write(tmp_path / "m.csv", f"path,{written}\na.jpg,x\n"))
    assert f"column '{written}' is not used as '{meant}'; rename it" in caplog.text
    assert list(table.columns) == [written]


def test_a_column_beside_the_one_that_is_used_is_no_matter(tmp_path, caplog):
    read_samples(write(tmp_path / "m.csv", "path,split,Split\na.jpg,train,x\n"))
    assert caplog.text == ""


def test_the_manifest_itself_may_have_any_name(tmp_path):
    path = tmp_path / (os.fsdecode(b"\xff") + ".CSV")
    assert read_samples(write(path, "path\na.jpg\n")).ids.tolist() == ["a.jpg"]
