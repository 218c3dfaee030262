import numpy as np
import pytest

from featx.cache.index import Index
from featx.cache.merge import merge, merge_groups
from featx.cache.reader import read_shard
from featx.errors import CacheError


@pytest.fixture
def reread():
    """Read every shard of a folder."""
    return lambda directory: [read_shard(path) for path in sorted((directory / "shards").iterdir())]


def served(shards, keys):
    index = Index("decoder 1").changed(added=shards)
    found = index.lookup(keys)
    rows = np.empty(((found >= 0).sum(), 3), np.float32)
    index.read(found[found >= 0], rows)
    return (
        np.minimum(found, 0).tolist(),
        [index.reason(key[None]) for key in keys[found == -2]],
        rows.tobytes(),
    )


@pytest.mark.parametrize("seed", range(5))
def test_what_serves_a_key_never_changes(
    tmp_path, open_store, make_keys, make_vectors, at_time, reread, monkeypatch, seed
):
    monkeypatch.setattr("featx.cache.merge.rows_per_shard", lambda *_: 20)
    random = np.random.default_rng(seed)
    keys = make_keys(50)
    stores = [open_store(tmp_path), open_store(tmp_path, decoder="decoder 2")]
    for step in range(25):
        at_time(float(random.integers(0, 4)))  # so that ties must be broken, too
        count = int(random.choice([0, 3, 8, 25]))
        rows = random.integers(0, 50, count)
        failed = [(keys[row].tobytes(), f"reason {step}") for row in random.integers(0, 50, 3)]
        stores[step % 2].publish(
            keys[rows],
            make_vectors(count, seed=step),
            failures=failed,
            provenance={"run": int(random.integers(2))},
        )
    before = served(reread(tmp_path), keys)
    for _ in range(3):
        groups = merge_groups(reread(tmp_path))
        for group in groups:
            merge(group, tmp_path)
            assert served(reread(tmp_path), keys) == before
    assert groups == []
    assert len(reread(tmp_path)) < 20


def test_full_shards_are_cut_at_their_limit_and_keep_the_oldest_time(
    tmp_path, open_store, make_keys, make_vectors, at_time, reread, monkeypatch
):
    monkeypatch.setattr("featx.cache.merge.rows_per_shard", lambda *_: 10)
    store = open_store(tmp_path)
    for part in range(5):
        at_time(100.0 + part)
        store.publish(make_keys(5, seed=part), make_vectors(5, seed=part))
    [group] = merge_groups(reread(tmp_path))
    merge(group, tmp_path)
    merged = reread(tmp_path)
    assert sorted(len(shard.status) for shard in merged) == [5, 10, 10]
    assert all(shard.published == np.nextafter(100.0, 0) for shard in merged)


def test_rows_that_are_not_served_and_nothing_else_are_left_out(
    tmp_path, open_store, make_keys, make_vectors, reread
):
    keys, store = make_keys(6), open_store(tmp_path)
    store.publish(keys[:4], make_vectors(4), failures=[(keys[5].tobytes(), "why")])
    store.publish(keys[2:5], make_vectors(3, seed=1), failures=[(keys[5].tobytes(), "later")])
    [group] = merge_groups(reread(tmp_path))
    merge(group, tmp_path)
    [merged] = reread(tmp_path)
    assert sorted(key.tobytes() for key in merged.keys) == sorted(key.tobytes() for key in keys)
    assert merged.reason(5) == "why"


def test_a_store_reads_on_while_its_shards_are_merged_by_another_process(
    tmp_path, open_store, make_keys, make_vectors, reread
):
    store = open_store(tmp_path)
    keys, vectors = make_keys(12), make_vectors(12)
    for start in range(0, 12, 4):
        store.publish(keys[start : start + 4], vectors[start : start + 4])
    positions = store.lookup(keys)
    [group] = merge_groups(reread(tmp_path))
    merge(group, tmp_path)
    assert np.array_equal(store.read(positions), vectors)
    assert np.array_equal(store.read(positions[::-1]), vectors[::-1])
    assert np.array_equal(store.read(store.lookup(keys)), vectors)


@pytest.mark.parametrize("step", ["write_all", "move_file", "sync_folder"])
def test_a_merge_that_cannot_write_loses_nothing(
    tmp_path, open_store, make_keys, make_vectors, reread, monkeypatch, step
):
    store = open_store(tmp_path)
    for part in range(3):
        store.publish(make_keys(2, seed=part), make_vectors(2, seed=part))
    keys = np.concatenate([make_keys(2, seed=part) for part in range(3)])
    before = served(reread(tmp_path), keys)
    [group] = merge_groups(reread(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"featx.cache.disk.{step}", full)
    with pytest.raises(CacheError, match="No space left"):
        merge(group, tmp_path)
    assert served(reread(tmp_path), keys) == before


def test_two_processes_that_merge_the_same_make_the_same_file(
    tmp_path, open_store, make_keys, make_vectors, reread
):
    store = open_store(tmp_path)
    for part in range(3):
        store.publish(make_keys(2, seed=part), make_vectors(2, seed=part))
    images = {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    [group] = merge_groups(reread(tmp_path))
    first = merge(group, tmp_path)
    for path, image in images.items():
        path.write_bytes(image)
    [again] = merge_groups([shard for shard in reread(tmp_path) if shard.path in images])
    assert merge(again, tmp_path) == first
    assert [shard.path for shard in reread(tmp_path)] == first
