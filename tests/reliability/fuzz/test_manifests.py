"""Any text or bytes for a manifest: a table, or refused in one line."""

import runpy
from pathlib import Path

import pytest
from PIL import Image

from featx.errors import FeatxError, UsageError
from featx.samples import SampleTable, read_samples

cases = runpy.run_path(str(Path(__file__).with_name("cases.py")))
in_one_line, mutated = cases["in_one_line"], cases["mutated"]


CELLS = [
    *("path", "label", "group", "split", "path", "label", "a.png", "b.png", "a.png#2", "/etc/passwd", "../x"),
    *(",", ",", ",", "\n", "\n", "\r\n", "\r", '"', '""', "\t", ";", "|", " ", "", "\0", "\\", "'", "#"),
    *("1", "2", "-0.5", "007", "1e999", "nan", "NaN", "NA", "null", "True", "9" * 30, "2024-01-01", "\uff11"),
    *("\ufeff", "é", "\udcff", "\udc80\udcbf", "\x1b[2J", "\u2028", "\x0c", "=1+1", "x" * 3000),
]


def some_table(chance, delimiter):
    if chance.random() < 0.6:  # near to what is meant
        header = chance.sample(["path", "label", "group", "split", "more"], chance.randrange(1, 6))
        rows = [[chance.choice(CELLS) for _ in header] for _ in range(chance.randrange(6))]
        text = "\n".join(delimiter.join(row) for row in [header, *rows])
        if chance.random() < 0.3:
            text = text.replace("\n", "\r\n")
    else:
        text = "".join(chance.choices(CELLS, k=chance.randrange(40)))
    content = text.encode("utf-8", "surrogateescape")
    return mutated(content, chance) if len(content) > 200 and chance.random() < 0.2 else content


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet"])
def test_any_manifest_is_a_table_or_is_refused_in_one_line(fuzz, tmp_path, suffix):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    delimiter = "\t" if suffix == ".tsv" else ","
    sound = b""
    if suffix == ".parquet":
        import pandas as pd

        rows = {
            "path": ["a.png", "b.png", "a.png"],
            "label": ["x", "y", None],
            "split": ["train", "test", ""],
        }
        pd.DataFrame(rows).to_parquet(tmp_path / "sound.parquet")
        sound = (tmp_path / "sound.parquet").read_bytes()

    def one(chance):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(mutated(sound, chance) if sound else some_table(chance, delimiter))
        try:
            table = read_samples(str(path))
        except UsageError as error:
            return in_one_line(error)
        assert isinstance(table, SampleTable)
        assert len(set(table.ids.tolist())) == len(table) > 0
        for column in (table.y, table.groups, table.splits):
            assert column is None or len(column) == len(table)
        assert len(table.classes) <= len(table)
        for row in range(len(table)):
            try:
                table.read(row)
            except FeatxError as error:
                in_one_line(error)
        return "read"

    outcomes = fuzz(one, 400)
    assert outcomes["read"] > 10
    assert outcomes["UsageError"] > 0
