import csv
import hashlib
import json
import stat
import subprocess

import numpy as np
import pytest
from PIL import Image

from featx import extract, read_samples
from featx.errors import UsageError
from featx.samples import read_labelled
from featx.tracking import (
    check_run_folder,
    extractor_labels,
    plain_json,
    provenance,
    read_run,
    sample_records,
    source_of,
    write_run,
)

RESULTS = {"kind": "compare", "command": None, "directory": None, "results": []}


def test_a_run_that_was_written_is_read_again(tmp_path):
    folder = tmp_path / "runs" / "first"
    write_run(folder, results=RESULTS, tables={"results": (["a", "b"], [[1, "x"]])})
    assert read_run(folder) == {**RESULTS, "schema": 1}
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "results.json"]
    write_run(folder, results={**RESULTS, "results": [1]}, tables={})
    assert read_run(folder)["results"] == [1]
    check_run_folder(folder)


def test_nothing_of_an_earlier_run_stays_beside_the_results_of_another(tmp_path):
    tables = {name: (["a"], [[1]]) for name in ("results", "folds")}
    write_run(tmp_path, results={**RESULTS, "command": "featx compare x", "directory": "/"}, tables=tables)
    (tmp_path / "report.html").write_text("of the first run")
    (tmp_path / "notes.txt").write_text("the user's own")
    write_run(tmp_path, results=RESULTS, tables={"results": (["a"], [[2]])})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "results.csv", "results.json"]


def test_a_folder_with_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "results.csv").write_text("the user's own")
    with pytest.raises(UsageError, match=r"holds 'results\.csv' and no run of featx"):
        write_run(tmp_path, results=RESULTS, tables={"results": (["a"], [[1]])})
    assert (tmp_path / "results.csv").read_text() == "the user's own"


def test_a_run_of_another_kind_is_not_replaced(tmp_path):
    write_run(tmp_path, results=RESULTS, tables={})
    with pytest.raises(
        UsageError, match="holds a run of 'featx compare', which one of 'featx fewshot' would replace"
    ):
        write_run(tmp_path, results={**RESULTS, "kind": "fewshot"}, tables={})
    assert read_run(tmp_path)["kind"] == "compare"
    check_run_folder(tmp_path)
    check_run_folder(tmp_path, kind="compare")
    with pytest.raises(UsageError, match="Name another folder"):
        check_run_folder(tmp_path, kind="fewshot")


def test_rows_are_written_as_they_come(tmp_path):
    written = []

    def rows():
        for number in range(100_000):
            yield [number, "x" * 10]
        written.extend(path.stat().st_size for path in (tmp_path / "run").glob(".*.tmp"))

    write_run(tmp_path / "run", results=RESULTS, tables={"folds": (["a", "b"], rows())})
    assert max(written) > 1_000_000
    assert len((tmp_path / "run/folds.csv").read_text().splitlines()) == 100_001


def test_a_run_that_was_cut_short_may_be_written_again_where_nothing_else_is_lost(tmp_path):
    write_run(tmp_path, results=RESULTS, tables={"results": (["a"], [[1]])})
    (tmp_path / "results.json").write_text("{")
    check_run_folder(tmp_path)
    (tmp_path / "notes.txt").write_text("the user's own")
    with pytest.raises(UsageError, match="no run of featx"):
        check_run_folder(tmp_path)


def test_the_json_is_strict_and_holds_plain_values_only(tmp_path):
    values = {
        "mean": np.float32(0.5),
        "nan": np.nan,
        "list": (np.int64(1), np.array([1.0, np.inf])),
        3: tmp_path,
    }
    write_run(tmp_path / "run", results={**RESULTS, "values": values}, tables={})

    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads((tmp_path / "run/results.json").read_text(), parse_constant=refuse)
    assert read["values"] == {"mean": 0.5, "nan": None, "list": [1, [1.0, None]], "3": str(tmp_path)}
    assert plain_json(np.log) == repr(np.log)


def test_cells_that_a_spreadsheet_would_run_are_text_and_numbers_stay_numbers(tmp_path):
    rows = [["=1+1", -0.5, "a,b"], ["@x", None, "line\nend"]]
    write_run(tmp_path / "run", results=RESULTS, tables={"folds": (["id", "score", "label"], rows)})
    with open(tmp_path / "run/folds.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "score", "label"],
            ["'=1+1", "-0.5", "a,b"],
            ["'@x", "", "line\\nend"],
        ]


def test_the_command_is_a_shell_script_that_starts_where_it_was_typed(tmp_path):
    place = tmp_path / "it's here"
    place.mkdir()
    write_run(place / "run", results={**RESULTS, "command": "pwd -P", "directory": str(place)}, tables={})
    done = subprocess.run(["sh", place / "run/command.txt"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{place.resolve()}\n"


def test_a_run_that_cannot_be_written_leaves_the_old_one_as_it_was(tmp_path):
    write_run(tmp_path / "run", results=RESULTS, tables={"folds": (["id"], [["old"]])})
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def rows():
        yield ["new"]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_run(tmp_path / "run", results={**RESULTS, "results": [1]}, tables={"folds": (["id"], rows())})
    (tmp_path / "run/folds.csv").unlink()
    (tmp_path / "run/folds.csv").mkdir()  # which nothing can be moved onto
    with pytest.raises(OSError, match=r"folds\.csv"):
        write_run(tmp_path / "run", results={**RESULTS, "results": [1]}, tables={"folds": (["id"], [])})
    assert (tmp_path / "run/results.json").read_bytes() == before["results.json"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["folds.csv", "results.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the run '.*results.json': No such file or directory. Name a folder that"),
        ("{", "is not JSON, so damaged or no run of featx"),
        ("[" * 100_000, "is not JSON, so damaged or no run of featx"),
        ("[]", r"is no run of featx: it lacks a schema\. Name"),
        ('{"schema": 1, "kind": "fit"}', "is no run of featx: kind 'fit'; expected compare or fewshot"),
        ('{"schema": 2, "kind": "fit"}', "of a newer featx"),
        ('{"schema": true, "kind": "compare"}', "is no run of featx"),
        (
            '{"schema": 2, "kind": "compare"}',
            "has schema 2, of a newer featx; this one reads up to 1. Upgrade",
        ),
    ],
)
def test_what_is_no_run_is_not_read_as_one(content, message, tmp_path):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match=message):
        read_run(tmp_path)


def test_a_run_is_read_by_its_folder(tmp_path):
    (tmp_path / "results.json").write_text('{"schema": 1, "kind": "compare"}')
    with pytest.raises(UsageError, match=f"results.json' is no folder.* Name the folder: '{tmp_path}'"):
        read_run(tmp_path / "results.json")
    with pytest.raises(UsageError, match=r"'nothere' is no folder, so no run of featx\. Name a folder that"):
        read_run("nothere")


def test_a_folder_that_is_not_there_or_empty_can_take_a_run(tmp_path):
    check_run_folder(None)
    check_run_folder(tmp_path)
    check_run_folder(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("x"), "'.*/run' is no folder. Name another"),
        (lambda path: path.symlink_to("nowhere"), "is no folder. Name another"),
        (
            lambda path: (path.mkdir(), (path / "thesis.tex").write_text("x")),
            "holds 'thesis.tex' and no run of featx. Name a new or an empty folder",
        ),
        (
            lambda path: (
                path.mkdir(),
                (path / "results.json").write_text('{"schema": 9, "kind": "compare"}'),
            ),
            "of a newer featx",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(prepare, message, tmp_path):
    prepare(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        check_run_folder(tmp_path / "run")


@pytest.fixture
def labelled(tmp_path):
    """Write four pictures, two of them the same, and one that is none; return their folder."""
    folder = tmp_path / "photos"
    for name, colours in {"blue": (10, 20), "red": (30, 30)}.items():
        (folder / name).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (8, 8), (colour, 0, 0)).save(folder / name / f"{number}.png")
    (folder / "blue" / "0broken.png").write_bytes(b"none")
    return folder


def features_of(folder):
    table, n_unlabelled = read_labelled(folder)
    features = extract(table, "pixels:size=4", on_error="record")
    return (
        features,
        table,
        provenance(features, table, task="classification", n_unlabelled=n_unlabelled, source="photos"),
    )


def test_the_same_data_elsewhere_has_the_same_digest(labelled, tmp_path):
    _, _, record = features_of(labelled)
    data = record["data"]
    assert (data["n_samples"], data["n_failed"], data["n_duplicates"]) == (4, 1, 1)
    assert (data["classes"], data["counts"]) == (["blue", "red"], [2, 2])
    assert (data["source"], data["root"]) == ("photos", str(labelled))
    assert len(data["digest"]) == 64
    (labelled / "blue" / "1.png").rename(labelled / "blue" / "zz.png")
    moved = labelled.rename(tmp_path / "elsewhere")
    assert features_of(moved)[2]["data"]["digest"] == data["digest"]
    (moved / "blue" / "zz.png").rename(moved / "red" / "zz.png")
    assert features_of(moved)[2]["data"]["digest"] != data["digest"]


def test_an_extractor_is_recorded_with_its_identity(labelled):
    features, _, record = features_of(labelled)
    (extractor,) = record["extractors"]
    (spec,) = features.specs
    assert extractor == {
        "text": "pixels:size=4",
        "label": "pixels",
        "fingerprint": spec.fingerprint,
        "identity": spec.identity,
        "n_features": 48,
    }
    assert json.dumps(record, allow_nan=False)
    assert set(record["versions"]) == {
        "featx",
        "scikit-learn",
        "numpy",
        "torch",
        "torchvision",
        "Pillow",
        "python",
    }


def test_rows_are_named_by_their_files_also_after_one_that_failed(labelled):
    features, table, _ = features_of(labelled)
    records = sample_records(features, table, np.array([0, 3]))
    paths = {"0": labelled / "blue/0.png", "3": labelled / "red/1.png"}
    keys = {row: hashlib.sha256(path.read_bytes()).hexdigest() for row, path in paths.items()}
    assert records == {
        "0": {"id": "blue/0.png", "path": str(paths["0"]), "label": "blue", "key": keys["0"]},
        "3": {"id": "red/1.png", "path": str(paths["3"]), "label": "red", "key": keys["3"]},
    }
    in_memory = read_samples(np.zeros((2, 8, 8, 3), np.uint8), labels=[1, 2])
    [record] = sample_records(extract(in_memory, "pixels"), in_memory, [1]).values()
    assert {**record, "key": None} == {"id": "1", "path": None, "label": 2, "key": None}


def test_a_label_is_as_short_as_tells_extractors_apart(labelled):
    table = read_samples(labelled / "red")
    texts = ["pixels:size=4", "pixels:size=8", "hog"]
    assert extractor_labels(extract(table, texts).specs) == ["pixels:size=4", "pixels:size=8", "hog"]
    assert extractor_labels(extract(table, texts[1:]).specs) == ["pixels", "hog"]


def test_data_is_called_what_its_user_calls_it(labelled):
    assert source_of("photos/") == "photos/"
    assert source_of(labelled) == str(labelled)
    assert source_of(read_samples(labelled)) == str(labelled)
    assert source_of(np.zeros((2, 8, 8, 3), np.uint8)) == "ndarray"
    assert source_of(read_samples(np.zeros((2, 8, 8, 3), np.uint8))) == "SampleTable"


def test_files_of_a_run_are_as_readable_as_any_file_of_the_user(tmp_path):
    write_run(tmp_path / "run", results=RESULTS, tables={})
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE((tmp_path / "run/results.json").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )
