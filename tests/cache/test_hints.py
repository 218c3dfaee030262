import logging
import os
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from featx.cache import Hints
from featx.cache.hints import _checksum


@pytest.fixture
def old_file(tmp_path):
    """Return a file that last changed long before it is asked about."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"content")
    return os.fsencode(path), path.stat(), b"d" * 32, path.stat().st_ctime + 10


def test_a_digest_is_remembered_for_as_long_as_the_file_stays_the_same(tmp_path, old_file):
    path, stat, digest, _ = old_file
    with Hints(tmp_path / "hints.sqlite") as hints:
        assert hints.digests([(path, stat)]) == [None]
        hints.remember_digests([old_file])
        assert hints.digests([(b"/other", stat), (path, stat), (os.fsdecode(path), stat)]) == [
            None,
            digest,
            digest,
        ]
    with Hints(tmp_path / "hints.sqlite") as hints:
        assert hints.digests([(path, stat)]) == [digest]


@pytest.mark.parametrize("field", [1, 6, "st_mtime_ns", "st_ctime_ns"])
def test_a_file_of_another_inode_size_mtime_or_ctime_is_not_known(tmp_path, old_file, field):
    path, stat, _, _ = old_file
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        numbers, named = list(stat), {name: getattr(stat, name) for name in ("st_mtime_ns", "st_ctime_ns")}
        target = named if field in named else numbers
        target[field] += 1
        assert hints.digests([(path, os.stat_result(numbers, named))]) == [None]


@pytest.mark.parametrize(("age", "known"), [(-5.0, False), (0.0, False), (1.9, False), (2.1, True)])
def test_a_file_that_had_just_changed_when_it_was_read_is_not_trusted(tmp_path, old_file, age, known):
    path, stat, digest, _ = old_file
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([(path, stat, digest, stat.st_ctime + age)])
        assert hints.digests([(path, stat)]) == [digest if known else None]


def test_an_old_mtime_does_not_hide_a_young_ctime(tmp_path, old_file):
    path, _, digest, _ = old_file
    os.utime(path, (1.0, 1.0))
    stat = (tmp_path / "photo.jpg").stat()
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([(path, stat, digest, stat.st_ctime + 1)])
        assert hints.digests([(path, stat)]) == [None]


def test_identities_are_remembered_by_their_text(tmp_path):
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_identity("résnet\udcff", {"name": "resnet", "size": [1, 2]})
        assert hints.identity("résnet\udcff") == {"name": "resnet", "size": [1, 2]}
        assert hints.identity("resnet") is None


def test_nothing_is_created_before_there_is_something_to_remember(tmp_path, old_file, caplog):
    with Hints(tmp_path / "cache" / "hints.sqlite") as hints:
        assert hints.digests([old_file[:2]]) == [None]
        assert hints.identity("x") is None
        assert not (tmp_path / "cache").exists()
        hints.remember_digests([old_file])
    assert (tmp_path / "cache" / "hints.sqlite").exists()
    assert caplog.text == ""


def test_a_changed_row_is_forgotten_not_served(tmp_path, old_file):
    path, stat, _, _ = old_file
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        hints.remember_identity("x", {"a": 1})
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    with database:
        database.execute("UPDATE digests SET digest = ?", (b"e" * 32,))
        database.execute("UPDATE identities SET identity = ?", (b'{"a":2}',))
    database.close()
    with Hints(tmp_path / "hints.sqlite") as hints:
        assert hints.digests([(path, stat)]) == [None]
        assert hints.identity("x") is None


def test_no_flipped_byte_of_the_file_ever_serves_a_wrong_digest(tmp_path, old_file):
    path, stat, digest, _ = old_file
    database = tmp_path / "hints.sqlite"
    with Hints(database) as hints:
        hints.remember_digests([old_file])
    sound = database.read_bytes()
    answers = set()
    used = [position for position in range(len(sound)) if sound[position]]
    for position in used[:: max(1, len(used) // 250)]:
        database.write_bytes(sound[:position] + bytes([sound[position] ^ 4]) + sound[position + 1 :])
        with Hints(database) as hints:
            answers.add(hints.digests([(path, stat)])[0])
    assert answers <= {digest, None}


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_garbage_is_said_once_and_replaced(tmp_path, old_file, caplog, garbage):
    (tmp_path / "hints.sqlite").write_bytes(garbage)
    with Hints(tmp_path / "hints.sqlite") as hints:
        assert hints.digests([old_file[:2]]) == [None]
        hints.remember_digests([old_file])
        assert hints.digests([old_file[:2]]) == [old_file[2]]
    said = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert "only slower" in said[0].getMessage()


def test_a_database_of_another_shape_acts_as_absent(tmp_path, old_file, caplog):
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    database.execute("CREATE TABLE digests (something)")
    database.close()
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
    assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [None]
    assert "only slower" in caplog.text


def trap_journal(database, target):
    """Write the journal of a transaction that never ended, and that names `target` as its parent."""
    name, magic = os.fsencode(target), bytes.fromhex("d9d505f920a163d7")
    pages = database.stat().st_size // 4096
    header = magic + struct.pack(">5I", 0, 0, pages, 512, 4096)
    end = struct.pack(">2I", len(name), sum(struct.unpack(f"{len(name)}b", name)) % 2**32) + magic
    journal = database.with_name(database.name + "-journal")
    journal.write_bytes(header.ljust(512, b"\0") + struct.pack(">I", (1 << 30) // 4096 + 1) + name + end)


def test_a_journal_that_names_another_file_is_not_followed(tmp_path, old_file, caplog):
    database, precious = tmp_path / "hints.sqlite", tmp_path / "precious"
    with Hints(database) as hints:
        hints.remember_digests([old_file])
        for connected in (True, False):  # SQLite looks for a journal before every transaction
            precious.write_text("years of work")
            trap_journal(database, precious)
            asked = hints if connected else Hints(database)
            asked._recent_digests.clear()
            assert asked.digests([old_file[:2]]) == [None]
            asked.remember_digests([old_file])
            assert precious.exists()
    assert "its journal names another file" in caplog.text
    connection = sqlite3.connect(database)
    connection.execute("SELECT * FROM digests")
    connection.close()
    assert not precious.exists()  # so SQLite does delete it where it is let


def test_a_journal_of_a_writer_that_was_killed_is_rolled_back(tmp_path, old_file):
    database = tmp_path / "hints.sqlite"
    with Hints(database) as hints:
        hints.remember_digests([old_file])
    writing = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute('DELETE FROM digests')\n"
        "connection.executemany('INSERT INTO digests VALUES (?, 1, 1, 1)',"
        " ((bytes(1000) + bytes([n]),) for n in range(100)))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", writing, database])
    assert (tmp_path / "hints.sqlite-journal").exists()
    assert Hints(database).digests([old_file[:2]]) == [old_file[2]]


def test_a_link_is_not_followed(tmp_path, old_file, caplog):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "hints.sqlite").symlink_to(elsewhere)
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
    assert not elsewhere.exists()
    assert "it is a link" in caplog.text


@pytest.mark.parametrize(
    "trap",
    [
        "CREATE VIEW more AS SELECT 1",
        "CREATE TRIGGER more AFTER INSERT ON digests BEGIN DELETE FROM digests; END",
        "CREATE INDEX more ON digests (length(hex(digest)))",
        "DROP TABLE digests; CREATE VIEW digests AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n)"
        " SELECT i path, i state, i digest, i sum FROM n",
        "DROP TABLE identities; CREATE TABLE identities (spec, identity AS (zeroblob(1e9)), sum)",
    ],
)
def test_a_database_that_holds_more_than_our_tables_is_not_used(tmp_path, old_file, caplog, trap):
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    database.executescript(trap)
    database.close()
    before = (tmp_path / "hints.sqlite").read_bytes()
    with Hints(tmp_path / "hints.sqlite") as hints:
        assert hints.digests([old_file[:2]]) == [None]
        assert hints.identity("x") is None
        hints.remember_digests([old_file])
    assert "it holds other tables than featx makes" in caplog.text
    assert (tmp_path / "hints.sqlite").read_bytes() == before


@pytest.mark.parametrize("digest", [b"", b"d" * 31, b"d" * 33, bytes(20 << 20), "d" * 32, 1.5, None])
def test_a_digest_that_is_none_is_not_served_whatever_its_checksum(tmp_path, old_file, digest):
    path = old_file[0]
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    with database:
        state = database.execute("SELECT state FROM digests").fetchone()[0]
        row = (digest, _checksum(path, state, digest))
        database.execute("UPDATE digests SET digest = ?, sum = ?", row)
    database.close()
    assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [None]


@pytest.mark.parametrize("identity", [b"", b"{", b"[1]", b"[" * 100_000, "{}x", 5, None, bytes(20 << 20)])
def test_an_identity_that_is_none_is_not_served_whatever_its_checksum(tmp_path, identity):
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_identity("x", {})
    database = sqlite3.connect(tmp_path / "hints.sqlite")
    with database:
        row = (identity, _checksum(b"x", identity))
        database.execute("UPDATE identities SET identity = ?, sum = ?", row)
    database.close()
    assert Hints(tmp_path / "hints.sqlite").identity("x") is None


def test_a_file_that_disappears_or_is_truncated_meanwhile_costs_time_only(tmp_path, old_file):
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        (tmp_path / "hints.sqlite").unlink()
        assert hints.digests([old_file[:2]])[0] in (None, old_file[2])
        hints.remember_digests([old_file])
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        os.truncate(tmp_path / "hints.sqlite", 1000)
        assert hints.digests([old_file[:2]])[0] in (None, old_file[2])


def test_a_locked_file_is_passed_over(tmp_path, old_file, caplog, monkeypatch):
    monkeypatch.setattr("featx.cache.hints._TIMEOUT_SECONDS", 0.01)
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_identity("x", {})
    other = sqlite3.connect(tmp_path / "hints.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        hints.remember_digests([old_file])
        assert caplog.text.count("only slower") == 1
        assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [None]
        other.execute("COMMIT")
        hints.remember_digests([old_file])
    other.close()
    assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [old_file[2]]


def test_a_path_that_can_be_no_file_is_passed_over(tmp_path, old_file, caplog):
    (tmp_path / "hints.sqlite").mkdir()
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([old_file])
        hints.remember_digests([old_file])
    assert caplog.text.count("only slower") == 1
    assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [None]


def test_a_folder_that_cannot_be_made_is_passed_over_without_a_word(tmp_path, old_file, caplog):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "cache", Path("/proc/cache")):
        with Hints(folder / "hints.sqlite") as hints:
            hints.remember_digests([old_file])
            assert hints.digests([old_file[:2]]) == [old_file[2]]
        assert Hints(folder / "hints.sqlite").digests([old_file[:2]]) == [None]
    assert caplog.text == ""


def test_a_read_only_file_of_another_user_is_read(shared_folder, as_another_user, caplog):
    photo = shared_folder / "photo.jpg"
    photo.write_bytes(b"content")
    with Hints(shared_folder / "hints.sqlite") as hints:
        hints.remember_digests([(os.fsencode(photo), photo.stat(), b"d" * 32, time.time() + 10)])
    shared_folder.chmod(0o555)
    with as_another_user(), Hints(shared_folder / "hints.sqlite") as hints:
        assert hints.digests([(os.fsencode(photo), photo.stat())]) == [b"d" * 32]
        hints.remember_identity("x", {})
        hints.remember_identity("y", {})
        assert Hints(shared_folder / "hints.sqlite").identity("x") is None
    assert caplog.text.count("only slower") == 1


def test_more_files_than_fit_in_one_statement_or_in_memory_are_looked_up(tmp_path, old_file, monkeypatch):
    monkeypatch.setattr("featx.cache.hints._RECENT", 700)
    _, stat, digest, read_at = old_file
    names = [f"/data/photos/{number:06d}.jpg".encode() for number in range(2_000)]
    with Hints(tmp_path / "hints.sqlite") as hints:
        hints.remember_digests([(name, stat, digest, read_at) for name in names])
        assert hints.digests([(name, stat) for name in names]) == [digest] * len(names)
        assert hints.digests([(name, stat) for name in reversed(names)]) == [digest] * len(names)


def test_after_closing_the_file_is_opened_again_when_needed(tmp_path, old_file):
    hints = Hints(tmp_path / "hints.sqlite")
    hints.close()
    hints.remember_digests([old_file])
    hints.close()
    assert hints.digests([old_file[:2]]) == [old_file[2]]
    assert Hints(tmp_path / "hints.sqlite").digests([old_file[:2]]) == [old_file[2]]


def test_hints_without_a_file_are_kept_in_memory(old_file):
    hints = Hints(None)
    hints.remember_digests([old_file])
    assert hints.digests([old_file[:2]]) == [old_file[2]]
    path, stat, _, _ = old_file
    changed = os.stat_result([*stat[:6], stat.st_size + 1, *stat[7:]])
    assert hints.digests([(path, changed)]) == [None]
