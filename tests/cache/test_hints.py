import logging
import os
import sqlite3
import time
from pathlib import Path

import pytest

from featx.cache import Hints


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
