import json
import os
import time

import pytest

from featx.cache import extractor_directory, fingerprint_of
from featx.cache.digest import DamagedError
from featx.cache.layout import check_spec, prepare, read_spec, remove_stale, shard_names
from featx.errors import CacheError, UsageError

IDENTITY = {"name": "tiny", "sizes": [1, 2], "nested": {"b": 1, "a": "é"}}


def test_a_fingerprint_is_the_digest_of_canonical_json():
    # printf '{"a":"é","b":[1,2]}' | sha256sum
    expected = "9cfb1f938a87f2b8f3b8cc429c7a09116d54f048322742d4c23d4767b85f85da"
    assert fingerprint_of({"b": [1, 2], "a": "é"}) == expected
    assert fingerprint_of({"b": [1, 2], "a": "é"}) == fingerprint_of({"a": "é", "b": (1, 2)})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_an_identity_that_json_cannot_say_is_refused(value):
    with pytest.raises(UsageError, match="must be plain JSON"):
        fingerprint_of({"value": value})


def test_names_of_folders_are_safe_on_any_file_system(tmp_path):
    for name in ("timm/vit", "../../etc", "..", "a b:c", "é" * 300, "-x", ".hidden"):
        folder = extractor_directory(tmp_path, name, "0123456789abcdef")
        folder.mkdir()
        assert folder.parent == tmp_path
        assert not folder.name.startswith(".")
        assert folder.name.isascii()
        assert folder.name.endswith("-0123456789ab")


def test_a_spec_is_written_once_and_read_back(tmp_path):
    directory, fingerprint = tmp_path / "tiny", fingerprint_of(IDENTITY)
    assert read_spec(directory) is None
    assert not check_spec(directory, fingerprint=fingerprint, identity=IDENTITY)
    prepare(directory, fingerprint=fingerprint, identity=IDENTITY)
    written = (directory / "spec.json").stat().st_ino
    prepare(directory, fingerprint=fingerprint, identity=IDENTITY | {"sizes": (1, 2)})
    assert (directory / "spec.json").stat().st_ino == written
    assert read_spec(directory) == {"schema": 1, "fingerprint": fingerprint, "identity": IDENTITY}


def test_a_folder_of_another_extractor_is_refused(tmp_path):
    prepare(tmp_path, fingerprint=fingerprint_of(IDENTITY), identity=IDENTITY)
    other = IDENTITY | {"name": "other"}
    with pytest.raises(CacheError, match=r"belongs to another extractor: its spec\.json has fingerprint"):
        check_spec(tmp_path, fingerprint=fingerprint_of(other), identity=other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "\udcff",
        "[" * 100_000,
        '{"schema": 1}',
        '{"schema": 0, "fingerprint": "x", "identity": {}}',
        '{"schema": 1, "fingerprint": "x", "identity": []}',
        '{"schema": 1, "fingerprint": "x", "identity": {}}',
        '{"schema": 1, "fingerprint": 5, "identity": {"a": NaN}}',
        '{"schema": 1, "fingerprint": 5, "identity": {"a": 1e999}}',
        '{"schema": 1, "fingerprint": 5, "identity": {"a": "\\ud800"}}',
    ],
)
def test_a_damaged_spec_is_refused_with_the_way_out(tmp_path, text):
    (tmp_path / "spec.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DamagedError, match=r"spec.json' is damaged.*cache verify --repair"):
        read_spec(tmp_path)


@pytest.mark.parametrize("depth", [10, *range(500, 1100, 7)])
def test_a_spec_without_bottom_is_refused_at_every_depth(tmp_path, depth):
    deep = "[" * depth + "]" * depth
    (tmp_path / "spec.json").write_text(f'{{"schema": 1, "fingerprint": 5, "identity": {{"a": {deep}}}}}')
    with pytest.raises(DamagedError, match=r"spec.json' is damaged"):
        read_spec(tmp_path)


def test_every_flipped_byte_of_a_spec_is_refused_or_harmless(tmp_path):
    prepare(tmp_path, fingerprint=fingerprint_of(IDENTITY), identity=IDENTITY)
    sound = (tmp_path / "spec.json").read_bytes()
    for position in range(len(sound)):
        changed = sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :]
        (tmp_path / "spec.json").write_bytes(changed)
        with pytest.raises(CacheError, match=r"spec.json' is damaged|has schema|belongs to another"):
            check_spec(tmp_path, fingerprint=fingerprint_of(IDENTITY), identity=IDENTITY)


def test_a_newer_spec_asks_for_a_newer_featx(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"schema": 3, "new": 1}))
    with pytest.raises(CacheError, match=r"has schema 3; this featx reads 1\. Upgrade featx\.") as caught:
        read_spec(tmp_path)
    assert not isinstance(caught.value, DamagedError)


def test_a_spec_that_is_no_regular_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "spec.json")
    with pytest.raises(DamagedError, match="not a regular file"):
        read_spec(tmp_path)


def test_only_files_named_by_a_digest_are_shards(tmp_path):
    (tmp_path / "shards").mkdir()
    for name in ("a" * 64 + ".h5", "A" * 64 + ".h5", "a" * 63 + ".h5", "x.h5", f".{'a' * 64}.h5.Xy12"):
        (tmp_path / "shards" / name).touch()
    assert shard_names(tmp_path) == {"a" * 64 + ".h5"}
    assert shard_names(tmp_path / "absent") == set()


@pytest.mark.parametrize("link", [".", "tmp", "shards"])
def test_nothing_is_removed_behind_a_link(tmp_path, link):
    precious, ours = tmp_path / "home" / "tmp" / "thesis.tex", tmp_path / "cache" / "tiny"
    precious.parent.mkdir(parents=True)
    precious.touch()
    os.utime(precious, (1.0, 1.0))
    ours.mkdir(parents=True)
    if link == ".":
        ours.rmdir()
        ours.symlink_to(tmp_path / "home")
    else:
        (ours / link).symlink_to(tmp_path / "home" / "tmp")
    remove_stale(ours)
    assert precious.exists()


def test_only_old_temporary_files_are_removed(tmp_path):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old.h5", 3700), ("young.h5", 3500)):
        (tmp_path / "tmp" / name).touch()
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    remove_stale(tmp_path)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["young.h5"]
