import json
import os
import shutil
import time

import numpy as np
import pytest

from featx.cache import FAILED, MISSING, fingerprint_of
from featx.cache.digest import DamagedError
from featx.errors import CacheError, UsageError


@pytest.fixture(params=["on disk", "in memory"])
def store(request, tmp_path, open_store):
    """Return an empty store of either kind."""
    return open_store(tmp_path / "tiny" if request.param == "on disk" else None)


def shards(directory):
    return sorted((directory / "shards").iterdir())


def test_what_is_published_is_served_bit_for_bit(store, make_keys, make_vectors):
    keys, vectors = make_keys(6), make_vectors(6)
    assert store.lookup(keys).tolist() == [MISSING] * 6
    store.publish(keys[:4], vectors[:4])
    store.publish(keys[4:], vectors[4:], provenance={"device": "cpu"})
    order = [5, 0, 3, 3, 1]
    assert store.read(store.lookup(keys[order])).tobytes() == vectors[order].tobytes()
    assert store.lookup(make_keys(2, seed=1)).tolist() == [MISSING, MISSING]
    assert store.read([]).shape == (0, 3)
    assert store.lookup([]).shape == (0,)


def test_a_store_on_disk_equals_one_in_memory(tmp_path, open_store, make_keys, make_vectors, at_time):
    stores = [open_store(None), open_store(tmp_path / "tiny")]
    random = np.random.default_rng(0)
    keys = make_keys(60)
    for step, published in enumerate(random.permutation(12).tolist()):
        at_time(float(published))
        rows = random.integers(0, 60, 9)
        failed = [(keys[row].tobytes(), f"reason {step}") for row in random.integers(0, 60, 2)]
        for store in stores:
            store.publish(keys[rows], make_vectors(9, seed=step), failures=failed)
    stores.append(open_store(tmp_path / "tiny"))
    served = []
    for store in stores:
        found = store.lookup(keys)
        reasons = [store.reason(key.tobytes()) for key in keys[found == FAILED]]
        served.append((np.minimum(found, 0).tolist(), reasons, store.read(found[found >= 0]).tobytes()))
    assert served[0] == served[1] == served[2]


def test_another_process_reads_what_was_published(tmp_path, open_store, make_keys, make_vectors):
    path = open_store(tmp_path / "tiny").publish(make_keys(3), make_vectors(3))
    assert path.parent == tmp_path / "tiny" / "shards"
    reopened = open_store(tmp_path / "tiny")
    assert np.array_equal(reopened.read(reopened.lookup(make_keys(3))), make_vectors(3))


def test_opening_creates_nothing_and_publishing_nothing_neither(
    tmp_path, open_store, make_keys, make_vectors
):
    store = open_store(tmp_path / "a" / "tiny")
    assert not store.refresh()
    assert store.publish(make_keys(0), make_vectors(0)) is None
    assert list(tmp_path.iterdir()) == []


def test_an_extractors_folder_holds_its_spec_its_shards_and_an_empty_tmp(
    tmp_path, open_store, make_keys, make_vectors
):
    store = open_store(tmp_path)
    store.publish(make_keys(1), make_vectors(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shards", "spec.json", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
    spec = json.loads((tmp_path / "spec.json").read_text())
    assert spec == {"schema": 1, "fingerprint": store.fingerprint, "identity": store.identity}


def test_failures_are_remembered_with_their_reason_by_the_same_decoder(store, make_keys, make_vectors):
    keys = make_keys(2)
    store.publish(keys[:0], make_vectors(0), failures=[(keys[0].tobytes(), "half a JPEG")])
    assert store.lookup(keys).tolist() == [FAILED, MISSING]
    assert store.reason(keys[0].tobytes()) == "half a JPEG"
    with pytest.raises(UsageError, match="no failure is remembered"):
        store.reason(keys[1].tobytes())
    store.publish(keys[:1], make_vectors(1))
    assert np.array_equal(store.read(store.lookup(keys[:1])), make_vectors(1))


def test_another_decoder_tries_a_failed_sample_again(tmp_path, open_store, make_keys, make_vectors):
    keys = make_keys(1)
    open_store(tmp_path).publish(keys[:0], make_vectors(0), failures=[(keys[0].tobytes(), "half a JPEG")])
    assert open_store(tmp_path).lookup(keys).tolist() == [FAILED]
    assert open_store(tmp_path, decoder="decoder 2").lookup(keys).tolist() == [MISSING]


def test_the_older_shard_serves_a_key_that_two_hold(tmp_path, open_store, make_keys, make_vectors, at_time):
    keys = make_keys(1)
    first, second = open_store(tmp_path), open_store(tmp_path)
    at_time(20.0)
    first.publish(keys, make_vectors(1, seed=20))
    at_time(10.0)
    second.publish(keys, make_vectors(1, seed=10))
    first.refresh()
    for store in (first, second, open_store(tmp_path)):
        assert np.array_equal(store.read(store.lookup(keys)), make_vectors(1, seed=10))


def test_publishing_the_same_bytes_twice_changes_nothing(
    tmp_path, open_store, make_keys, make_vectors, at_time
):
    at_time(1.0)
    store = open_store(tmp_path)
    assert store.publish(make_keys(2), make_vectors(2)) == store.publish(make_keys(2), make_vectors(2))
    assert len(shards(tmp_path)) == 1
    assert store.lookup(make_keys(2)).tolist() == [0, 1]


def test_copying_shards_into_another_cache_merges_them(tmp_path, open_store, make_keys, make_vectors):
    keys, vectors = make_keys(8), make_vectors(8)
    open_store(tmp_path / "here").publish(keys[:5], vectors[:5])
    there = open_store(tmp_path / "there")
    there.publish(keys[3:], vectors[3:])
    for path in shards(tmp_path / "here"):
        shutil.copy(path, tmp_path / "there" / "shards")
    assert there.refresh()
    for store in (there, open_store(tmp_path / "there")):
        assert store.read(store.lookup(keys)).tobytes() == vectors.tobytes()


def test_refreshing_reads_only_what_is_new(tmp_path, open_store, make_keys, make_vectors, monkeypatch):
    writer, reader = open_store(tmp_path), open_store(tmp_path)
    writer.publish(make_keys(2), make_vectors(2))
    assert reader.refresh()
    assert not reader.refresh()
    assert not writer.refresh()
    read = []
    real = __import__("featx.cache.store", fromlist=["read_shard"]).read_shard
    monkeypatch.setattr("featx.cache.store.read_shard", lambda path: (read.append(path), real(path))[1])
    new = writer.publish(make_keys(2, seed=1), make_vectors(2))
    assert reader.refresh()
    assert read == [new]


def test_the_rows_of_a_deleted_shard_are_missing_not_filled_in(tmp_path, open_store, make_keys, make_vectors):
    store = open_store(tmp_path)
    gone = store.publish(make_keys(2), make_vectors(2))
    store.publish(make_keys(2, seed=1), make_vectors(2, seed=1))
    found = store.lookup(make_keys(2))
    gone.unlink()
    with pytest.raises(CacheError, match=r"were removed while they were read\. Run again"):
        store.read(found)
    store.refresh()
    assert store.lookup(make_keys(2)).tolist() == [MISSING, MISSING]
    assert open_store(tmp_path).lookup(make_keys(2)).tolist() == [MISSING, MISSING]


def test_a_shard_that_vanishes_while_it_is_opened_is_looked_for_again(
    tmp_path, open_store, make_keys, make_vectors, monkeypatch
):
    writer, reader = open_store(tmp_path), open_store(tmp_path)
    vanishing = writer.publish(make_keys(2), make_vectors(2))
    writer.publish(make_keys(2, seed=1), make_vectors(2, seed=1))
    monkeypatch.setattr("featx.cache.store.check_digests", lambda paths: vanishing.unlink(missing_ok=True))
    assert reader.refresh()
    assert reader.lookup(make_keys(2)).tolist() == [MISSING, MISSING]
    assert (reader.lookup(make_keys(2, seed=1)) >= 0).all()


def test_a_shard_that_is_a_broken_link_is_named(tmp_path, open_store):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / f"{'a' * 64}.h5").symlink_to("nowhere")
    with pytest.raises(CacheError, match=r"aaa\.h5' is listed but cannot be opened"):
        open_store(tmp_path)


def damage_in_place(path):
    image = bytearray(path.read_bytes())
    image[-1] ^= 1
    path.write_bytes(image)


def swap_names(path):
    other = next(one for one in path.parent.iterdir() if one != path)
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


@pytest.mark.parametrize("harm", [damage_in_place, swap_names, lambda path: os.truncate(path, 100)])
def test_a_harmed_shard_is_named_and_never_served(tmp_path, open_store, make_keys, make_vectors, harm):
    store = open_store(tmp_path)
    path = store.publish(make_keys(2), make_vectors(2))
    store.publish(make_keys(2, seed=1), make_vectors(2, seed=1))
    harm(path)
    with pytest.raises(CacheError, match=r"\.h5' is damaged.*featx cache verify --repair"):
        open_store(tmp_path)
    with pytest.raises(CacheError, match=rf"{path.name}' is damaged"):
        store.read(store.lookup(make_keys(2)))


@pytest.mark.parametrize(
    "other",
    [{"identity": {"name": "other"}}, {"n_features": 4}, {"dtype": "float16"}],
    ids=lambda other: next(iter(other)),
)
def test_a_shard_of_another_extractor_is_refused(tmp_path, open_store, make_keys, make_vectors, other):
    open_store(tmp_path / "tiny").publish(make_keys(1), make_vectors(1))
    foreign = open_store(tmp_path / "other", **other).publish(
        make_keys(1), make_vectors(1, other.get("n_features", 3))
    )
    shutil.copy(foreign, tmp_path / "tiny" / "shards")
    with pytest.raises(DamagedError, match=rf"{foreign.name}' belongs to another extractor.*its own folder"):
        open_store(tmp_path / "tiny")


def test_a_folder_of_another_extractor_is_refused_for_reading_and_writing(
    tmp_path, open_store, make_keys, make_vectors
):
    late = open_store(tmp_path, identity={"name": "late"})
    open_store(tmp_path).publish(make_keys(1), make_vectors(1))
    with pytest.raises(CacheError, match=r"belongs to another extractor: its spec\.json"):
        open_store(tmp_path, identity={"name": "other"})
    with pytest.raises(CacheError, match=r"belongs to another extractor: its spec\.json"):
        late.publish(make_keys(1), make_vectors(1))
    assert len(shards(tmp_path)) == 1


def test_of_a_spec_no_more_is_read_than_any_of_ours_is_long(tmp_path, open_store, make_keys, make_vectors):
    open_store(tmp_path).publish(make_keys(1), make_vectors(1))
    spec = tmp_path / "spec.json"
    spec.write_bytes(b" " * (1 << 20) + spec.read_bytes())  # the same to any other reader
    with pytest.raises(DamagedError, match=r"spec\.json' is damaged"):
        open_store(tmp_path)


def test_the_arguments_must_fit_each_other(open_store, make_keys, make_vectors):
    with pytest.raises(UsageError, match="is not that of the identity"):
        type(open_store(None))(
            None, identity={"a": 1}, fingerprint="f" * 64, n_features=1, dtype=np.float32, decoder=""
        )
    with pytest.raises(UsageError, match="got 3 of float64"):
        open_store(None, dtype="float64")
    store = open_store(None)
    with pytest.raises(UsageError, match=r"features of shape \(2, 3\) expected, got \(2, 4\)"):
        store.publish(make_keys(2), make_vectors(2, 4))
    with pytest.raises(UsageError, match=r"keys of shape \(m, 32\) and dtype uint8 expected, got \(2, 31\)"):
        store.publish(make_keys(2)[:, :31], make_vectors(2))
    with pytest.raises(UsageError, match="the key of a failure is a SHA-256"):
        store.publish(make_keys(0), make_vectors(0), failures=[(b"short", "why")])
    with pytest.raises(UsageError, match="non-finite"):
        store.publish(make_keys(1), np.array([[1, np.nan, 1]]))
    store.publish(make_keys(2), make_vectors(2))
    for positions in ([-1], [2], [FAILED]):
        with pytest.raises(UsageError, match=r"positions come from `lookup`, here 0 to 1"):
            store.read(positions)


def test_provenance_may_name_a_path_that_is_no_text(tmp_path, open_store, make_keys, make_vectors):
    open_store(tmp_path).publish(make_keys(1), make_vectors(1), provenance={"spec": "/\udcff/\ud800/ü.pth"})
    [shard] = open_store(tmp_path)._index.shards
    assert json.loads(shard.provenance) == {"spec": "/\udcff/\ud800/ü.pth"}


def test_half_precision_is_stored_as_such_and_its_overflow_refused(tmp_path, open_store, make_keys):
    store = open_store(tmp_path, dtype="float16")
    store.publish(make_keys(1), np.array([[0.1, 2, 65504]], np.float32))
    assert store.read([0]).dtype == np.float16
    assert store.read([0]).tolist() == [[float(np.float16(0.1)), 2.0, 65504.0]]
    with pytest.raises(UsageError, match="non-finite"):
        store.publish(make_keys(1), np.array([[0, 0, 1e6]], np.float32))


def test_a_full_disk_is_a_clean_error_and_publishing_can_go_on(
    tmp_path, open_store, make_keys, make_vectors, monkeypatch
):
    store = open_store(tmp_path)
    store.publish(make_keys(1), make_vectors(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("featx.cache.disk.write_all", full)
        with pytest.raises(CacheError, match="No space left on device"):
            store.publish(make_keys(1, seed=1), make_vectors(1))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert store.lookup(make_keys(1, seed=1)).tolist() == [MISSING]
    store.publish(make_keys(1, seed=1), make_vectors(1))
    assert len(shards(tmp_path)) == 2


def test_leftovers_of_crashed_writers_are_removed_once_they_are_old(
    tmp_path, open_store, make_keys, make_vectors
):
    (tmp_path / "tmp").mkdir()
    for name, age in (("old.h5", 7200), ("young.h5", 60)):
        (tmp_path / "tmp" / name).write_bytes(b"half a shard")
        os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    store = open_store(tmp_path)
    assert len(list((tmp_path / "tmp").iterdir())) == 2
    store.publish(make_keys(1), make_vectors(1))
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["young.h5"]


def test_a_folder_that_was_removed_meanwhile_is_made_again(tmp_path, open_store, make_keys, make_vectors):
    store = open_store(tmp_path / "tiny")
    store.publish(make_keys(1), make_vectors(1))
    shutil.rmtree(tmp_path / "tiny")
    store.publish(make_keys(1, seed=1), make_vectors(1, seed=1))
    reopened = open_store(tmp_path / "tiny")
    assert reopened.lookup(make_keys(1, seed=1)).tolist() == [0]
    assert (tmp_path / "tiny" / "spec.json").exists()


def test_a_read_only_cache_of_another_user_is_read(
    shared_folder, open_store, make_keys, make_vectors, as_another_user
):
    open_store(shared_folder / "tiny").publish(make_keys(3), make_vectors(3))
    for folder in (shared_folder, *(path for path in shared_folder.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    with as_another_user():
        store = open_store(shared_folder / "tiny")
        assert np.array_equal(store.read(store.lookup(make_keys(3))), make_vectors(3))
        with pytest.raises(CacheError, match="Permission denied"):
            store.publish(make_keys(1, seed=1), make_vectors(1))
    for path in shared_folder.rglob("*"):
        path.chmod(0o755)


def test_a_cache_below_a_folder_that_may_not_be_read_is_written(
    shared_folder, open_store, make_keys, make_vectors, as_another_user
):
    (shared_folder / "closed" / "open").mkdir(parents=True)
    (shared_folder / "closed" / "open").chmod(0o777)
    (shared_folder / "closed").chmod(0o111)
    with as_another_user():
        open_store(shared_folder / "closed" / "open" / "tiny").publish(make_keys(1), make_vectors(1))
    (shared_folder / "closed").chmod(0o755)
    assert open_store(shared_folder / "closed" / "open" / "tiny").lookup(make_keys(1)).tolist() == [0]


def test_a_shard_that_may_not_be_read_is_named_and_not_called_damaged(
    shared_folder, open_store, make_keys, make_vectors, as_another_user
):
    path = open_store(shared_folder / "tiny").publish(make_keys(1), make_vectors(1))
    path.chmod(0o000)
    with as_another_user(), pytest.raises(CacheError, match=rf"{path.name}': Permission denied") as caught:
        open_store(shared_folder / "tiny")
    assert not isinstance(caught.value, DamagedError)


def test_a_fingerprint_that_json_shares_is_one_extractor(open_store):
    assert open_store(None, identity={"size": (1, 2)}).fingerprint == fingerprint_of({"size": [1, 2]})
