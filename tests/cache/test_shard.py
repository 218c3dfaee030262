import h5py
import numpy as np
import pytest

from featx.cache.digest import DamagedError
from featx.cache.reader import parse_shard
from featx.cache.shard import build_shard, rows_per_shard
from featx.errors import UsageError


def build(keys, vectors, failures=(), **changes):
    facts = {"fingerprint": "f" * 64, "decoder": "decoder 1", "provenance": "{}", "published": 12.5} | changes
    return build_shard(keys, vectors, failures=failures, **facts)


def read(shard, rows):
    found = np.empty((len(rows), shard.n_features), shard.dtype)
    shard.read(rows, found)
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_built_is_read_back_bit_for_bit(make_keys, make_vectors, dtype):
    keys, vectors = make_keys(5), make_vectors(5, 7, dtype=dtype)
    shard = parse_shard(build(keys, vectors, provenance='{"device":"cpu é"}'))
    assert read(shard, np.arange(5)).tobytes() == vectors.tobytes()
    assert shard.keys.tobytes() == keys.tobytes()
    assert (shard.n_features, shard.dtype, shard.published) == (7, np.dtype(dtype), 12.5)
    assert (shard.fingerprint, shard.decoder, shard.provenance) == (
        "f" * 64,
        "decoder 1",
        '{"device":"cpu é"}',
    )


def test_rows_are_read_with_gaps_and_more_than_once(make_keys, make_vectors):
    vectors = make_vectors(9)
    shard = parse_shard(build(make_keys(9), vectors))
    for rows in ([0, 4, 8], [2, 3, 3, 3, 4, 5], [], [7]):
        assert np.array_equal(read(shard, np.array(rows, np.int64)), vectors[rows].reshape(-1, 3))


def test_the_same_arguments_give_the_same_bytes(make_keys, make_vectors):
    assert build(make_keys(3), make_vectors(3)) == build(make_keys(3), make_vectors(3))


def test_failures_are_stored_with_their_reasons_as_rows_of_nan(make_keys, make_vectors):
    keys = make_keys(4)
    failures = [(keys[2].tobytes(), "no picture"), (keys[3].tobytes(), "")]
    shard = parse_shard(build(keys[:2], make_vectors(2), failures))
    assert shard.status.tolist() == [0, 0, 1, 1]
    assert [shard.reason(2), shard.reason(3)] == ["no picture", "unknown"]
    with pytest.raises(DamagedError, match="a vector in it is not finite"):  # they are never served
        read(shard, np.array([2, 3]))


def test_a_long_reason_is_cut_between_characters_and_an_undecodable_one_is_escaped(make_keys, make_vectors):
    key = make_keys(1)[0].tobytes()
    shard = parse_shard(build(make_keys(0), make_vectors(0), [(key, "x" + "é" * 400), (key, "a\udcffb\0c")]))
    assert shard.reason(0) == "x" + "é" * 249
    assert shard.reason(1) == "a\\udcffb\\0c"


def test_a_shard_is_a_plain_hdf5_file(make_keys, make_vectors, tmp_path):
    (tmp_path / "shard.h5").write_bytes(build(make_keys(2), make_vectors(2), [(b"k" * 32, "why")]))
    with h5py.File(tmp_path / "shard.h5") as file:
        assert {name: data.shape for name, data in file.items()} == {
            "features": (3, 3),
            "keys": (3, 32),
            "reasons": (1,),
            "status": (3,),
        }
        assert all(data.chunks is None and not data.compression for data in file.values())
        assert dict(file.attrs) == {
            "schema": 1,
            "published": 12.5,
            "fingerprint": b"f" * 64,
            "decoder": b"decoder 1",
            "provenance": b"{}",
        }


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused(make_keys, value, dtype):
    largest = np.finfo(dtype).max
    parse_shard(build(make_keys(1), np.array([[largest, -largest]], dtype)))
    with pytest.raises(UsageError, match="non-finite"):
        build(make_keys(1), np.array([[1.0, value]], dtype))


def test_a_text_without_bounds_is_refused(make_keys, make_vectors):
    with pytest.raises(UsageError, match="the provenance of a shard is at most"):
        build(make_keys(1), make_vectors(1), provenance="x" * (1 << 20) + "x")
    assert len(parse_shard(build(make_keys(1), make_vectors(1), decoder="x" * 100_000)).decoder) == 100_000


def test_a_full_shard_has_4096_rows_or_64_mebibytes():
    assert rows_per_shard(1, 2) == 4096
    assert rows_per_shard(8192, 2) == 4096
    assert rows_per_shard(8192, 4) == 2048
    assert rows_per_shard(10**9, 4) == 1
