import json
import os
import shutil
import time

import h5py
import numpy as np
import pytest

from featx.cache import MISSING, digest, extractor_directory, fingerprint_of, list_extractors, prune, verify
from featx.cache.shard import build_shard
from featx.errors import CacheError


@pytest.fixture
def cache(tmp_path, open_store, make_keys, make_vectors):
    """Return a cache with two extractors: one of three small shards, one of one."""
    root = tmp_path / "cache"
    for name, parts in (("tiny", 3), ("other", 1)):
        identity = {"name": name}
        store = open_store(extractor_directory(root, name, fingerprint_of(identity)), identity=identity)
        for part in range(parts):
            failures = [(make_keys(1, seed=99)[0].tobytes(), "why")] if part == 0 else []
            store.publish(
                make_keys(4, seed=part),
                make_vectors(4, seed=part),
                failures=failures,
                provenance={"spec": f"{name}:a=1"},
            )
    return root


@pytest.fixture
def folder(cache):
    return next(path for path in cache.iterdir() if path.name.startswith("tiny"))


def first_shard(folder):
    return min((folder / "shards").iterdir())


def make_old(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def snapshot(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def damage(path):
    image = bytearray(path.read_bytes())
    image[-1] ^= 1
    path.write_bytes(image)


def test_a_cache_is_listed_by_extractor(cache, folder):
    other, tiny = list_extractors(cache)
    assert (other.name, tiny.name) == ("other", "tiny")
    assert other.precision is tiny.precision is None  # their identities name none
    assert (tiny.directory, tiny.fingerprint, tiny.text) == (
        folder,
        fingerprint_of({"name": "tiny"}),
        "tiny:a=1",
    )
    assert (tiny.n_vectors, tiny.n_failures, tiny.n_shards) == (12, 1, 3)
    assert (tiny.n_features, tiny.dtype, tiny.problem) == (3, "float32", None)
    assert tiny.size_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert tiny.last_published == pytest.approx(time.time(), abs=60)


def test_samples_are_counted_once_however_many_shards_hold_them(
    cache, folder, open_store, make_keys, make_vectors
):
    store = open_store(folder, identity={"name": "tiny"})
    store.publish(
        make_keys(4, seed=1), make_vectors(4), failures=[(make_keys(1, seed=99)[0].tobytes(), "again")]
    )
    tiny = list_extractors(cache)[1]
    assert (tiny.n_vectors, tiny.n_failures, tiny.n_shards) == (12, 1, 4)
    store.publish(make_keys(1, seed=99), make_vectors(1))
    assert (list_extractors(cache)[1].n_vectors, list_extractors(cache)[1].n_failures) == (13, 0)


def test_an_unreadable_extractor_is_listed_with_its_problem(cache, folder):
    damage(first_shard(folder))
    (folder / "spec.json").write_text("{")
    other, tiny = list_extractors(cache)
    assert other.problem is None
    assert "spec.json' is damaged" in tiny.problem
    assert f"{first_shard(folder).name}' is damaged" in tiny.problem
    assert (tiny.n_vectors, tiny.fingerprint) == (8, fingerprint_of({"name": "tiny"}))


def test_an_absent_or_empty_cache_is_clean(tmp_path):
    for root in (tmp_path / "absent", tmp_path):
        assert list_extractors(root) == []
        assert verify(root).ok
        assert verify(root).notes == ()
        assert prune(root).removed == ()
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="cannot list cache"):
        verify(tmp_path / "file")


def test_a_sound_cache_is_clean_and_left_as_it_is(cache):
    before = snapshot(cache)
    report = verify(cache, repair=True)
    assert (report.ok, report.problems, report.notes) == (True, (), ())
    assert (report.n_extractors, report.n_shards, report.n_rows) == (2, 4, 18)
    assert snapshot(cache) == before


def test_verify_digests_every_byte_again(cache, folder):
    assert verify(cache).ok
    path = first_shard(folder)
    state = path.stat()
    damage(path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    report = verify(cache)
    assert not report.ok
    assert [(problem.path, problem.removed) for problem in report.problems] == [(path, False)]


def test_verify_notices_rot_that_left_no_trace_in_the_state_of_the_file(
    cache, folder, open_store, monkeypatch
):
    path = first_shard(folder)
    damage(path)
    found = path.stat()
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    monkeypatch.setitem(
        digest._checked, str(path), state
    )  # as if it had rotted since this process checked it
    open_store(folder, identity={"name": "tiny"})
    assert [problem.path for problem in verify(cache).problems] == [path]
    with pytest.raises(CacheError, match="is damaged"):
        open_store(folder, identity={"name": "tiny"})


def test_repair_deletes_what_is_broken_and_nothing_else(cache, folder, open_store, make_keys):
    path = first_shard(folder)
    damage(path)
    assert verify(cache).problems[0].message.startswith(f"shard '{path}' is damaged")
    before = snapshot(cache)
    report = verify(cache, repair=True)
    assert report.ok
    assert [(problem.path, problem.removed) for problem in report.problems] == [(path, True)]
    assert snapshot(cache) == {one: content for one, content in before.items() if one != path}
    assert verify(cache).problems == ()
    store = open_store(folder, identity={"name": "tiny"})
    assert sum((store.lookup(make_keys(4, seed=part)) == MISSING).sum() for part in range(3)) == 4


def test_repair_drops_a_shard_that_was_put_among_anothers(cache, folder):
    other = next(path for path in cache.iterdir() if path.name.startswith("other"))
    foreign = first_shard(other)
    shutil.copy(foreign, folder / "shards")
    report = verify(cache, repair=True)
    assert [problem.path for problem in report.problems] == [folder / "shards" / foreign.name]
    assert "belongs to another extractor" in report.problems[0].message
    assert foreign.exists()
    assert verify(cache).ok


def test_repair_drops_a_damaged_spec_and_the_rows_are_still_served(
    cache, folder, open_store, make_keys, make_vectors
):
    (folder / "spec.json").write_text(
        json.dumps({"schema": 1, "fingerprint": "0" * 64, "identity": {"name": "tiny"}})
    )
    with pytest.raises(CacheError, match="fingerprint is not that of its identity"):
        open_store(folder, identity={"name": "tiny"})
    assert verify(cache, repair=True).ok
    make_old(folder, 10**6)
    prune(cache)
    store = open_store(folder, identity={"name": "tiny"})
    assert np.array_equal(store.read(store.lookup(make_keys(4))), make_vectors(4))
    store.publish(make_keys(1, seed=5), make_vectors(1))
    assert (folder / "spec.json").exists()


def test_repair_without_a_spec_keeps_what_the_folder_is_named_after(cache, folder):
    other = next(path for path in cache.iterdir() if path.name.startswith("other"))
    (other / "spec.json").unlink()
    ours = first_shard(other)
    for theirs in (folder / "shards").iterdir():
        shutil.copy(theirs, other / "shards")
    assert len(verify(cache, repair=True).problems) == 3
    assert list((other / "shards").iterdir()) == [ours]


def test_what_is_of_a_newer_schema_is_reported_but_never_deleted(cache, folder, add_shard, tmp_path):
    shutil.copy(first_shard(folder), tmp_path / "copy.h5")
    with h5py.File(tmp_path / "copy.h5", "r+") as file:
        file.attrs.modify("schema", 3)
    newer = add_shard((tmp_path / "copy.h5").read_bytes(), folder)
    for report in (verify(cache, repair=True), prune(cache)):
        assert [(problem.path, problem.removed) for problem in report.problems] == [(newer, False)]
        assert "this featx reads 1. Upgrade featx." in report.problems[0].message
    assert len(list((folder / "shards").iterdir())) == 4


def test_foreign_files_and_leftovers_are_noted_and_do_no_harm(cache, folder):
    (cache / "README.md").touch()
    (cache / "hints.sqlite").touch()
    (folder / "turn").touch()
    (cache / "photos").mkdir()
    (folder / "notes.txt").touch()
    (folder / "shards" / "mine.h5").touch()
    (folder / "tmp" / "half.h5").touch()
    report = verify(cache, repair=True)
    assert report.ok
    assert len(report.notes) == 4
    for name in ("photos", "notes.txt", "mine.h5", "half.h5"):
        assert any(f"{name}'" in note for note in report.notes)


def test_pruning_merges_small_shards_and_serves_the_same(cache, folder, open_store, make_keys, make_vectors):
    report = prune(cache)
    assert (report.n_merged, report.n_written, report.removed) == (3, 1, ())
    assert len(list((folder / "shards").iterdir())) == 1
    store = open_store(folder, identity={"name": "tiny"})
    for part in range(3):
        assert np.array_equal(store.read(store.lookup(make_keys(4, seed=part))), make_vectors(4, seed=part))
    assert store.reason(make_keys(1, seed=99)[0].tobytes()) == "why"
    assert verify(cache).ok
    after = snapshot(cache)
    assert prune(cache).n_merged == 0
    assert snapshot(cache) == after


@pytest.mark.parametrize("link", [".", "shards", "tmp"])
def test_nothing_behind_a_link_is_repaired_or_pruned(cache, folder, tmp_path, link):
    damage(first_shard(folder))
    (folder / "tmp" / "half.h5").write_bytes(b"half")
    make_old(folder / "tmp" / "half.h5", 7200)
    linked = folder if link == "." else folder / link
    linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(tmp_path / "elsewhere")
    for path in tmp_path.rglob("*"):
        make_old(path, 10**7)
    before = snapshot(tmp_path)
    assert not verify(cache, repair=True).ok
    [problem] = [one for one in prune(cache, older_than_days=1).problems if not one.removed]
    assert problem.path == folder
    assert "a link to another folder: left alone" in problem.message
    after = snapshot(tmp_path)
    assert {path: after.get(path) for path in before if "other-" not in str(path)} == {
        path: content for path, content in before.items() if "other-" not in str(path)
    }


def test_a_vector_that_is_not_finite_is_never_served_and_is_repaired_away(
    cache, folder, add_shard, open_store, make_keys, make_vectors
):
    facts = {"fingerprint": fingerprint_of({"name": "tiny"}), "decoder": "", "provenance": "{}"}
    image = build_shard(make_keys(4, seed=7), make_vectors(4), failures=[], **facts, published=1.0)
    forged = add_shard(
        image.replace(make_vectors(4)[2].tobytes(), np.float32([1, np.nan, 1]).tobytes()), folder
    )
    store = open_store(folder, identity={"name": "tiny"})
    with pytest.raises(
        CacheError, match=rf"{forged.name}' is not one that featx wrote: .*not finite.*--repair"
    ):
        store.read(store.lookup(make_keys(4, seed=7)))
    assert [problem.path for problem in verify(cache).problems] == [forged]
    assert verify(cache, repair=True).ok
    assert not forged.exists()


def test_a_dry_run_says_the_same_and_touches_nothing(cache, folder):
    damage(first_shard(folder))
    (folder / "tmp" / "half.h5").write_bytes(b"half")
    make_old(folder / "tmp" / "half.h5", 7200)
    before = snapshot(cache)
    dry = prune(cache, dry_run=True)
    assert snapshot(cache) == before
    real = prune(cache)
    assert (dry.n_merged, dry.n_written, dry.removed, dry.freed_bytes) == (
        real.n_merged,
        real.n_written,
        real.removed,
        real.freed_bytes,
    )
    assert (dry.problems[0].removed, real.problems[0].removed) == (False, True)


def test_pruning_removes_broken_shards_and_old_leftovers(cache, folder):
    broken = first_shard(folder)
    damage(broken)
    for name, age in (("old.h5", 7200), ("young.h5", 60)):
        (folder / "tmp" / name).write_bytes(b"half")
        make_old(folder / "tmp" / name, age)
    size = broken.stat().st_size
    report = prune(cache)
    assert set(report.removed) == {broken, folder / "tmp" / "old.h5"}
    assert report.freed_bytes == size + 4
    assert [path.name for path in (folder / "tmp").iterdir()] == ["young.h5"]
    assert verify(cache).ok


@pytest.fixture
def old_folder(tmp_path, cache, open_store, make_keys, make_vectors, at_time):
    """Add to the cache an extractor of two shards, the newer one published 31 days ago."""
    identity = {"name": "old"}
    folder = extractor_directory(cache, "old", fingerprint_of(identity))
    now = time.time()
    for days in (40, 31):
        at_time(now - days * 86400)
        store = open_store(folder, identity=identity)
        store.publish(make_keys(4, seed=days), make_vectors(4, seed=days), provenance={"spec": "old"})
    at_time(now)
    return folder


def test_extractors_that_were_not_written_to_for_long_go_on_request_only(cache, folder, old_folder):
    # Neither merging nor copying makes them younger.
    assert prune(cache, older_than_days=32).removed == ()
    for path in (old_folder / "shards").iterdir():
        shutil.copy(path, folder.parent / "copy")
        (folder.parent / "copy").replace(path)
    report = prune(cache, older_than_days=30)
    assert report.removed == (old_folder,)
    assert not old_folder.exists()
    assert [info.name for info in list_extractors(cache)] == ["other", "tiny"]


def test_only_old_folders_of_ours_without_spec_and_shards_are_orphans(cache):
    orphan, young, photos = (cache / f"{name}-0123456789ab" for name in ("orphan", "young", "photos"))
    for one in (orphan, young):
        (one / "shards").mkdir(parents=True)
        (one / "tmp").mkdir()
        (one / "turn").touch()
    photos.mkdir()
    (photos / "cat.jpg").touch()
    for path in (orphan / "shards", orphan / "tmp", orphan / "turn", orphan, photos):
        make_old(path, 7200)
    assert prune(cache).removed == (orphan,)
    assert not orphan.exists()
    assert young.exists()
    assert (photos / "cat.jpg").exists()


def test_removing_an_extractor_spares_what_is_not_the_caches_own(cache, old_folder):
    (old_folder / "thesis.tex").write_text("years of work")
    prune(cache, older_than_days=1)
    assert [path.name for path in old_folder.iterdir()] == ["thesis.tex"]
