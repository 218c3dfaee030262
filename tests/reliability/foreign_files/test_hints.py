"""Hints that somebody else wrote: they change no answer, and nothing beside them."""

import json
import os
import sqlite3
import struct

import h5py
import numpy as np
import pytest


def journal_that_names(database, target):
    """The journal of a transaction that never ended: SQLite rolls it back, and deletes the parent it names."""
    name, magic = os.fsencode(target), bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">5I", 0, 0, database.stat().st_size // 4096, 512, 4096)
    end = struct.pack(">2I", len(name), sum(struct.unpack(f"{len(name)}b", name)) % 2**32) + magic
    return header.ljust(512, b"\0") + struct.pack(">I", (1 << 30) // 4096 + 1) + name + end


VIEWS = """
DROP TABLE digests; DROP TABLE identities;
CREATE VIEW digests AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT i AS path, i AS state, i AS digest, i AS sum FROM n;
CREATE VIEW identities AS SELECT zeroblob(1000000000) AS spec, zeroblob(1000000000) AS identity, 1 AS sum;
"""
TRIGGERS = """
CREATE TRIGGER a AFTER INSERT ON digests BEGIN UPDATE digests SET digest = zeroblob(900000000); END;
CREATE TRIGGER b AFTER INSERT ON identities BEGIN SELECT load_extension('/tmp/evil.so'); END;
"""
GARBAGE = """
UPDATE digests SET state = 5, digest = 'text', sum = 1.5; UPDATE identities SET identity = 7, sum = NULL;
INSERT INTO digests VALUES (1, 2, 3, NULL), (zeroblob(1000000), 'a', 1.5, x'00');
"""
HUGE = "INSERT INTO digests SELECT path || 'x', zeroblob(100000000), zeroblob(100000000), sum FROM digests LIMIT 1"


@pytest.mark.parametrize("hostile", [VIEWS, TRIGGERS, GARBAGE, HUGE, "journal", "link", "of another program"])
def test_foreign_hints_change_nothing_but_the_time(hostile, cache, pictures, featx, tmp_path):
    hints, precious = cache.root / "hints.sqlite", tmp_path / "precious"
    precious.write_text("years of work")
    if hostile == "journal":
        (cache.root / "hints.sqlite-journal").write_bytes(journal_that_names(hints, precious))
    elif hostile == "link":
        hints.unlink()
        hints.symlink_to(tmp_path / "new")
    elif hostile == "of another program":
        hints.unlink()
        precious.unlink()
        database = sqlite3.connect(precious)
        database.execute("CREATE TABLE cookies (name, value)")
        database.close()
        hints.symlink_to(precious)
    else:
        database = sqlite3.connect(hints)
        database.executescript(hostile)
        database.close()
    before = precious.read_bytes()
    use = ("-x", "pixels:size=1", "--cache", "cache")
    done = featx("extract", pictures, *use, "--export", "f.h5", "--json")
    assert json.loads(done.out)["cached"] == 4
    with h5py.File(tmp_path / "f.h5") as file:
        expected = [(40 * number, 0, 7) for number in range(4)]
        np.testing.assert_allclose(file["features"][:] * 255, expected, atol=1e-3)
    told = done.err.splitlines()
    assert len(told) <= 1
    assert all("are not used" in line and "the same answers, only slower" in line for line in told)
    assert precious.read_bytes() == before
    assert not (tmp_path / "new").exists()
