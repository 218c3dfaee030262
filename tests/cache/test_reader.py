import io
import json
import random

import h5py
import numpy as np
import pytest

from featx.cache.digest import DamagedError
from featx.cache.reader import parse_shard, read_shard
from featx.cache.shard import build_shard
from featx.errors import CacheError

ROWS, FEATURES = 4, 3


def good(file):
    """Write what featx writes; the variants below each change one thing."""
    file.attrs["schema"] = 1
    file.attrs["published"] = 1.0
    for name, text in (("fingerprint", b"f"), ("decoder", b"d"), ("provenance", b"{}")):
        file.attrs[name] = np.bytes_(text)
    file["features"] = np.ones((ROWS, FEATURES), "<f4")
    file["keys"] = np.zeros((ROWS, 32), np.uint8)
    file["status"] = np.array([0, 0, 0, 1], np.uint8)
    file["reasons"] = np.array([b"why"])


def replaced(name, make):
    def change(file):
        del file[name]
        make(file)

    return change


def virtual(file):
    layout = h5py.VirtualLayout((ROWS, FEATURES), "<f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "features", (ROWS, FEATURES))
    file.create_virtual_dataset("features", layout)


def unwritten(shape, dtype="<f4", name="features"):
    def make(file):
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space)

    return make


def by_link_inside(file):
    group = file.create_group("inner")
    group["features"] = np.ones((ROWS, FEATURES), "<f4")
    file["features"] = h5py.SoftLink("/inner/features")


VARIANTS = {
    "a soft link": replaced("features", lambda file: file.__setitem__("features", h5py.SoftLink("/keys"))),
    "a soft link through a group": replaced("features", by_link_inside),
    "an external link": replaced(
        "status", lambda f: f.__setitem__("status", h5py.ExternalLink("o.h5", "/status"))
    ),
    "external storage": replaced(
        "features",
        lambda f: f.create_dataset("features", (ROWS, FEATURES), "<f4", external=[("/etc/passwd", 0, 48)]),
    ),
    "a virtual data set": replaced("features", virtual),
    "a group": replaced("features", lambda f: f.create_group("features")),
    "the root under its own name": replaced("features", lambda f: f.__setitem__("features", f["/"])),
    "a named type": replaced("features", lambda f: f.__setitem__("features", np.dtype("<f4"))),
    "text of variable length": replaced(
        "reasons", lambda f: f.create_dataset("reasons", data=["why"], dtype=h5py.string_dtype())
    ),
    "arrays of variable length": replaced(
        "features", lambda f: f.create_dataset("features", (ROWS, FEATURES), h5py.vlen_dtype(np.float32))
    ),
    "object references": replaced(
        "reasons", lambda f: f.create_dataset("reasons", data=[f["keys"].ref], dtype=h5py.ref_dtype)
    ),
    "a compound type": replaced("status", lambda f: f.create_dataset("status", (ROWS,), [("a", "u1")])),
    "an opaque type": replaced("status", lambda f: f.create_dataset("status", data=np.zeros(ROWS, "V1"))),
    "big-endian features": replaced(
        "features", lambda f: f.create_dataset("features", data=np.ones((4, 3), ">f4"))
    ),
    "features of 64 bits": replaced("features", lambda f: f.create_dataset("features", data=np.ones((4, 3)))),
    "integer features": replaced(
        "features", lambda f: f.create_dataset("features", data=np.ones((4, 3), "<i4"))
    ),
    "signed keys": replaced("keys", lambda f: f.create_dataset("keys", data=np.zeros((4, 32), np.int8))),
    "chunks": replaced(
        "features", lambda f: f.create_dataset("features", data=np.ones((4, 3), "<f4"), chunks=(2, 3))
    ),
    "compression": replaced(
        "features", lambda f: f.create_dataset("features", data=np.ones((4, 3), "<f4"), compression="gzip")
    ),
    "features inside the header": replaced(
        "status",
        lambda f: h5py.h5d.create(
            f.id, b"status", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((ROWS,)), compact()
        ),
    ),
    "features never written": replaced("features", unwritten((ROWS, FEATURES))),
    "a trillion rows": replaced("features", unwritten((10**12, FEATURES))),
    "a product of 2 to the 64": replaced("features", unwritten((2**62, 4))),
    "an absurd width": replaced("features", unwritten((ROWS, 10**12))),
    "no rows": lambda f: [
        *(f.__delitem__(name) for name in ("features", "keys", "status", "reasons")),
        f.create_dataset("features", (0, 3), "<f4"),
        f.create_dataset("keys", (0, 32), "u1"),
        f.create_dataset("status", (0,), "u1"),
    ],
    "a scalar": replaced("status", lambda f: f.create_dataset("status", data=np.uint8(0))),
    "a null space": replaced("status", lambda f: f.create_dataset("status", data=h5py.Empty("u1"))),
    "features of one dimension": replaced(
        "features", lambda f: f.create_dataset("features", data=np.ones(4, "<f4"))
    ),
    "status of two dimensions": replaced(
        "status", lambda f: f.create_dataset("status", data=np.zeros((4, 1), "u1"))
    ),
    "short keys": replaced("keys", lambda f: f.create_dataset("keys", data=np.zeros((ROWS, 31), np.uint8))),
    "fewer keys": replaced("keys", lambda f: f.create_dataset("keys", data=np.zeros((3, 32), np.uint8))),
    "an unknown status": replaced(
        "status", lambda f: f.create_dataset("status", data=np.full(4, 2, np.uint8))
    ),
    "failures without reasons": lambda f: f.__delitem__("reasons"),
    "more reasons than failures": replaced(
        "reasons", lambda f: f.create_dataset("reasons", data=[b"a", b"b"])
    ),
    "huge reasons": replaced("reasons", lambda f: f.create_dataset("reasons", data=np.array([b"a" * 501]))),
    "no keys": lambda f: f.__delitem__("keys"),
    "another data set": lambda f: f.create_dataset("more", data=[1]),
    "thousands of names": lambda f: [f.create_group(f"g{number}") for number in range(2000)],
    "another attribute": lambda f: f.attrs.__setitem__("more", 1),
    "no fingerprint": lambda f: f.attrs.__delitem__("fingerprint"),
    "no schema": lambda f: f.attrs.__delitem__("schema"),
    "schema zero": lambda f: f.attrs.__setitem__("schema", 0),
    "a schema in words": lambda f: f.attrs.__setitem__("schema", np.bytes_(b"1")),
    "a fingerprint of variable length": lambda f: f.attrs.__setitem__("fingerprint", "f"),
    "several fingerprints": lambda f: f.attrs.__setitem__("fingerprint", np.array([b"f", b"g"])),
    "a fingerprint that is no text": lambda f: f.attrs.__setitem__("fingerprint", np.bytes_(b"\xff")),
    "a reference as attribute": lambda f: f.attrs.__setitem__("decoder", f["keys"].ref),
    "a time that is no number": lambda f: f.attrs.__setitem__("published", np.nan),
    "an infinite time": lambda f: f.attrs.__setitem__("published", -np.inf),
    "provenance that is no JSON": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"{")),
    "provenance that is a list": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"[]")),
    "provenance without bottom": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"[" * 60_000)),
}


def compact():
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.COMPACT)
    return creation


def image_of(change=lambda file: None):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
        good(file)
        change(file)
    return buffer.getvalue()


def test_the_unchanged_file_is_accepted(add_shard, tmp_path):
    shard = read_shard(add_shard(image_of(), tmp_path))
    assert (shard.n_features, shard.keys.shape, shard.reason(3)) == (FEATURES, (ROWS, 32), "why")


# Each guard by the reason it gives, so that none hides behind another.
REASONS = {
    "a soft link": "is a link to somewhere else",
    "an external link": "is a link to somewhere else",
    "external storage": "not stored plainly",
    "a virtual data set": "not stored plainly",
    "chunks": "not stored plainly",
    "compression": "not stored plainly",
    "features inside the header": "not stored plainly",
    "a group": "is not a data set",
    "features never written": "declares shape",
    "a trillion rows": "declares shape",
    "a product of 2 to the 64": "declares shape",
    "text of variable length": "has a type that featx never writes",
    "object references": "has a type that featx never writes",
    "a fingerprint of variable length": "'fingerprint' is not one text",
    "several fingerprints": "'fingerprint' is not one text",
    "an unknown status": "neither 0 nor 1",
    "failures without reasons": "1 rows failed, but 0 reasons",
    "thousands of names": "its root does not hold",
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_file_with_a_right_digest_is_refused_for(add_shard, tmp_path, variant):
    path = add_shard(image_of(VARIANTS[variant]), tmp_path)
    reason = REASONS.get(variant, "")
    with pytest.raises(
        DamagedError, match=rf"{path.name}' is not one that featx wrote.*{reason}.*verify --repair"
    ):
        read_shard(path)


@pytest.mark.parametrize("cut", [1, 24, 47])
def test_data_that_reaches_beyond_the_file_is_refused(cut):
    image = image_of()
    shard = parse_shard(image)
    end = shard.features_offset + ROWS * FEATURES * 4
    moved = image[: shard.features_offset] + image[end:]
    offset = shard.features_offset.to_bytes(8, "little")
    assert image.count(offset) == 1
    beyond = image.replace(offset, (len(image) - cut).to_bytes(8, "little"))
    for mutant in (moved, beyond):
        with pytest.raises(DamagedError):
            parse_shard(mutant)


def test_a_newer_schema_asks_for_a_newer_featx_and_is_not_called_damaged(add_shard, tmp_path):
    path = add_shard(image_of(lambda file: file.attrs.__setitem__("schema", 3)), tmp_path)
    with pytest.raises(CacheError, match=r"has schema 3; this featx reads 1\. Upgrade featx\.") as caught:
        read_shard(path)
    assert not isinstance(caught.value, DamagedError)


@pytest.mark.parametrize(
    "content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\xff" * 500]
)
def test_what_is_no_hdf5_file_is_refused(content):
    with pytest.raises(DamagedError, match="HDF5 cannot make sense of it"):
        parse_shard(content)


def test_mutated_shards_with_right_digests_are_refused_or_read_within_their_bounds(make_keys, make_vectors):
    facts = {"fingerprint": "f" * 64, "decoder": "d", "provenance": json.dumps({"a": 1}), "published": 1.0}
    image = build_shard(make_keys(2), make_vectors(2), failures=[(b"k" * 32, "why")], **facts)
    random_source = random.Random(0)
    outcomes = {"refused": 0, "read": 0}
    for _ in range(600):
        mutant = bytearray(image)
        for _ in range(random_source.choice([1, 1, 2, 8])):
            mutant[random_source.randrange(len(mutant))] = random_source.randrange(256)
        try:
            shard = parse_shard(bytes(mutant))
            rows = np.flatnonzero(shard.status == 0)
            shard.read(rows, np.empty((len(rows), shard.n_features), shard.dtype))
            outcomes["read"] += 1
        except CacheError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10
