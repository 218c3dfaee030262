"""Names that attack whoever reads them, in a terminal or a spreadsheet: of files, of classes, and in a cache."""

import csv
import io
import json
import logging
import os
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from featx.cache import Store, extractor_directory, fingerprint_of
from featx.cli import main

NAMES = [
    "a\nfeatx: error: b.png",
    "=cmd|' calc'!A0.png",
    '=HYPERLINK("http:..evil","x").png',
    "+1+1.png",
    "-1+1.png",
    "@SUM(1).png",
    "\t=1+1.png",
    "\r=1+1.png",
    "\n=1+1.png",
    "\uff1d1+1.png",
    "\uff0b1.png",
    "\uff0d1.png",
    "\uff201.png",
    '"",=1+1,".png',
    "a,b;c|d.png",
    "<img src=x onerror=alert(1)>.png",
    "\x1b[2J\x1b]0;title\x07\x1b[31m.png",
    "\x9b31m.png",
    "\x08\x08\x08.png",
    "\u202egnp.exe.png",
    "\u2066\u2069\u200f.png",
    "\u2028\u2029\x85\x0b\x0c.png",
    "\ufeff=1+1.png",
    "\xa0=1+1.png",
    "\udcff\udc9b31m.png",
    "蜂é.png",
]
CLASSES = ["=1+1\x1b[31m", "\u202ered\nfeatx: error: x"]
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


@pytest.fixture(autouse=True)
def library_log():
    logger = logging.getLogger("featx")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture
def featx(tmp_path, monkeypatch, capsys):
    """Run a command line; return its output and its errors, each of printable lines only."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["featx", *map(str, arguments), "--cache", "cache"])
        with pytest.raises(SystemExit) as ended:
            main.main()
        shown = capsys.readouterr()
        assert (ended.value.code or 0) == code, shown.err
        for text in shown:
            text.encode()
            assert [line for line in text.split("\n") if not line.isprintable()] == []
        return shown

    return run


@pytest.fixture
def data(tmp_path):
    """Write one good picture and one that is none under every name, in two classes."""
    random = np.random.default_rng(0)
    for name, colour in zip(CLASSES, (50, 200), strict=True):
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in NAMES:
            Image.fromarray(random.integers(colour - 40, colour + 40, (8, 8, 3), np.uint8)).save(
                tmp_path / "data" / name / file, format="PNG"
            )
    (tmp_path / "broken").mkdir()
    for file in NAMES:
        (tmp_path / "broken" / file).write_bytes(b"nothing")
    return "data"


@pytest.fixture
def model(featx, data):
    shown = featx("fit", data, "-x", "pixels:size=2", "--cv", "2", "--jobs", "1", "--out", "m.featx")
    # One line for every class, and nothing that a class has forged.
    assert len(shown.out.splitlines()) == 17
    assert not any(line.startswith("featx: error") for line in shown.out.splitlines())
    return "m.featx"


def check_table(text, n_columns):
    """Read a table as Python and pandas do; no cell may begin like a formula, or break its row."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == len(text.splitlines()) == 1 + 2 * len(NAMES)
    for row in rows:
        assert len(row) == n_columns
        assert [cell for cell in row[:2] if cell.startswith(FORMULAS)] == []
        assert all(cell.isprintable() for cell in row)
    assert len({row[0] for row in rows}) == len(rows)
    assert len(pd.read_csv(io.StringIO(text))) == 2 * len(NAMES)
    return rows


def test_a_table_of_predictions_cannot_attack_its_reader(featx, data, model, tmp_path):
    featx("predict", model, data, "--out", "p.csv", "--proba")
    in_file = check_table((tmp_path / "p.csv").read_bytes().decode(), 4)
    assert not any(cell.startswith(FORMULAS) for cell in in_file[0])
    shown = featx("predict", model, data, "--proba")
    assert check_table(shown.out, 4) == in_file
    # The label of a row is one of the two classes, and told from the other.
    assert {row[1] for row in in_file[1:]} == set(in_file[0][2:])


def test_names_that_begin_a_formula_are_quoted_wherever_they_lie(featx, data, model, tmp_path):
    """Of a flat folder, where nothing stands before the name."""
    featx("predict", model, os.path.join(data, CLASSES[0]), "--out", "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        ids = [row[0] for row in csv.reader(file)][1:]
    assert len(ids) == len(NAMES)
    assert [cell for cell in ids if cell.startswith(FORMULAS) or not cell.isprintable()] == []
    assert "'+1+1.png" in ids


def test_json_of_predictions_is_one_line_of_ascii_and_tells_names_apart(featx, data, model):
    shown = featx("predict", model, data, "--json")
    assert shown.out.isascii()
    assert shown.out.count("\n") == 1
    rows = json.loads(shown.out)["predictions"]
    assert len({row["id"] for row in rows}) == 2 * len(NAMES)
    assert {row["label"] for row in rows} == set(CLASSES)


@pytest.mark.parametrize(
    "words", [["extract", "-x", "pixels:size=2"], ["predict", "m.featx"]], ids=lambda w: w[0]
)
def test_what_failed_is_told_on_one_line_each(featx, model, words):
    shown = featx(*words, "broken", "--max-error-rate", "1", "--json", "-vv")
    told = [line for line in shown.err.splitlines() if line.startswith("left out")]
    assert len(told) == 6
    others = [line for line in shown.err.splitlines() if line not in told]
    assert [line for line in others if not line.startswith("featx: ") or "error" in line] == []
    failures = json.loads(shown.out)["failures"]
    assert len({one["id"] for one in failures}) == len(NAMES)
    assert all((one["id"] + one["reason"]).isprintable() for one in failures)


@pytest.mark.parametrize("name", NAMES)
def test_an_error_names_a_hostile_name_on_one_line(featx, data, name):
    weights = name.replace("+", "%2B")
    for arguments, code in (
        (["extract", f"./{name}", "-x", "pixels"], 2),
        (["extract", f"broken/{name}", "-x", "pixels", "--on-error", "raise"], 1),
        (["extract", data, f"--extractor={name}"], 2),
        (["extract", data, f"--extractor=pixels:{name}=1"], 2),
        (["extract", data, f"--extractor=squeezenet1_1:weights=./{weights}.pth"], 2),
        (["extract", data, "-x", "pixels", f"--export=nowhere/{name}"], 2),
        (["predict", f"./{name}", data], 2),
    ):
        shown = featx(*arguments, code=code)
        assert shown.out == ""
        [line] = shown.err.splitlines()
        assert line.startswith("featx: error: ")


TEXTS = [
    "\x1b[31mred\nfeatx: error: x",
    "\u202e\u2028\x9b31m",
    "\udcff\ud800\ud800x",
    {"a": "\x1b"},
    ["\ud800"],
    None,
    float("1e300"),
    "x" * 100_000,
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text)[:12])
def test_a_cache_that_lies_of_itself_is_listed_in_its_own_row(featx, tmp_path, text):
    identity = {"name": "tiny", "precision": "x" if "\\ud800" in json.dumps(text) else text}
    folder = extractor_directory(tmp_path / "cache", "tiny", fingerprint_of(identity))
    store = Store(
        folder,
        identity=identity,
        fingerprint=fingerprint_of(identity),
        n_features=3,
        dtype=np.dtype("float32"),
        decoder="d",
    )
    provenance = {"spec": text}
    store.publish(np.zeros((1, 32), np.uint8), np.ones((1, 3)), provenance=provenance)
    (folder / "\x1b[2J\nfeatx: error: note").touch()
    (tmp_path / "cache" / "\u202e\nfeatx: error: note").touch()
    listed = featx("cache", "list")
    assert len(listed.out.splitlines()) == 2
    assert listed.err == ""
    [one] = json.loads(featx("cache", "list", "--json").out)["extractors"]
    assert one["extractor"] == (text if isinstance(text, str) else str(text))
    checked = featx("cache", "verify")
    assert len(checked.err.splitlines()) == 2
    assert all(line.startswith("note: ") for line in checked.err.splitlines())
