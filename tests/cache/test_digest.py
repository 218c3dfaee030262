import os
import threading
from pathlib import Path

import pytest

from featx.cache.digest import DamagedError, check_digests, open_checked
from featx.cache.reader import read_shard
from featx.cache.shard import build_shard
from featx.errors import CacheError


@pytest.fixture
def image(make_keys, make_vectors):
    facts = {
        "fingerprint": "f" * 64,
        "decoder": "decoder 1",
        "provenance": '{"device": "cpu"}',
        "published": 1.0,
    }
    return build_shard(make_keys(6), make_vectors(6), failures=[(b"k" * 32, "why")], **facts)


def test_every_flipped_byte_of_a_shard_is_noticed(image, add_shard, tmp_path):
    path = add_shard(image, tmp_path)
    read_shard(path)
    for position in range(len(image)):
        path.write_bytes(image[:position] + bytes([image[position] ^ 0x10]) + image[position + 1 :])
        with pytest.raises(DamagedError, match=rf"{path.name}' is damaged.*cache verify --repair"):
            read_shard(path)
    path.write_bytes(image)
    read_shard(path)


@pytest.mark.parametrize("length", [0, 1, 100, -1])
def test_a_truncated_or_longer_shard_is_noticed(image, add_shard, tmp_path, length):
    path = add_shard(image, tmp_path)
    path.write_bytes(image[:length])
    with pytest.raises(DamagedError, match="is damaged"):
        read_shard(path)
    path.write_bytes(image + b"\0")
    with pytest.raises(DamagedError, match="is damaged"):
        read_shard(path)


def test_a_change_that_restores_size_and_mtime_is_noticed(image, add_shard, tmp_path):
    path = add_shard(image, tmp_path)
    open_checked(path).close()
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock of the file system has moved on
        path.write_bytes(image[:-1] + bytes([image[-1] ^ 1]))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedError, match="is damaged"):
        open_checked(path)


def test_a_file_is_digested_once_a_process_unless_asked_anew(image, add_shard, tmp_path, monkeypatch):
    path = add_shard(image, tmp_path)
    check_digests([path, path])
    monkeypatch.setattr("featx.cache.digest.hashlib.file_digest", lambda *_: pytest.fail("digested again"))
    open_checked(path).close()
    with pytest.raises(pytest.fail.Exception, match="digested again"):
        open_checked(path, anew=True)


def test_checking_many_says_nothing_and_leaves_the_error_to_the_opening(image, add_shard, tmp_path):
    path = add_shard(image, tmp_path)
    path.write_bytes(b"x")
    check_digests([path, tmp_path / "gone.h5"])
    with pytest.raises(DamagedError):
        open_checked(path)
    with pytest.raises(FileNotFoundError):
        open_checked(tmp_path / "gone.h5")


def test_what_is_no_regular_file_neither_hangs_nor_passes(tmp_path):
    os.mkfifo(tmp_path / "fifo.h5")
    (tmp_path / "folder.h5").mkdir()
    for name in ("fifo.h5", "folder.h5"):
        found = []
        thread = threading.Thread(
            target=lambda name=name, found=found: found.append(outcome(tmp_path / name)), daemon=True
        )
        thread.start()
        thread.join(timeout=5)
        assert found == ["DamagedError"]
    still_open = {entry.resolve().name for entry in Path("/proc/self/fd").iterdir()}
    assert not still_open & {"fifo.h5", "folder.h5"}


def outcome(path):
    try:
        open_checked(path)
    except CacheError as error:
        return type(error).__name__
    return "opened"
