"""Shards that somebody else wrote, under the digest of their bytes: nothing beside them is read, and no row served."""

import io
import json
from hashlib import sha256

import h5py
import numpy as np

SHAPE = (4, 3)
"""Of the features: a row for each of the pictures."""


def shard(cache, pictures, change=lambda file: None, libver=("v110", "v110")):
    """The bytes of a shard with a wrong vector for every picture: were it let in, these would be served."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver) as file:
        file.attrs["schema"] = 1
        file.attrs["published"] = 1.0
        for name, text in (
            ("fingerprint", cache.spec["fingerprint"]),
            ("decoder", "d"),
            ("provenance", "{}"),
        ):
            file.attrs[name] = np.bytes_(text.encode())
        keys = [sha256(path.read_bytes()).digest() for path in sorted(pictures.iterdir())]
        file["features"] = np.full(SHAPE, 7, "<f4")
        file["keys"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        file["status"] = np.zeros(len(keys), np.uint8)
        change(file)
    return buffer.getvalue()


def instead(name, make):
    def change(file):
        del file[name]
        make(file)

    return change


def virtual(source):
    def make(file):
        layout = h5py.VirtualLayout(SHAPE, "<f4")
        layout[:] = h5py.VirtualSource(source, "features", SHAPE)
        file.create_virtual_dataset("features", layout)

    return make


def unwritten(shape):
    def make(file):
        h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(shape))

    return make


def linked_inside(link):
    def make(file):
        file.create_group("inner")["features"] = link
        file["features"] = h5py.SoftLink("/inner/features")

    return make


def shards(secret):
    """What may be wrong with a shard whose name is its digest."""
    size = 4 * SHAPE[0] * SHAPE[1]
    there = str(secret.with_name("other") / "given.h5")
    with h5py.File(there, "w") as file:
        file["features"] = np.frombuffer(secret.read_bytes()[:size], "<f4").reshape(SHAPE)
        file["group/features"] = file["features"]
    return {
        "external storage": instead(
            "features",
            lambda f: f.create_dataset("features", SHAPE, "<f4", external=[(str(secret), 0, size)]),
        ),
        "an external link": instead(
            "features", lambda f: f.__setitem__("features", h5py.ExternalLink(there, "/features"))
        ),
        "an external link to a group": instead(
            "features", lambda f: f.__setitem__("features", h5py.ExternalLink(there, "/group"))
        ),
        "an external link in between": instead(
            "features", linked_inside(h5py.ExternalLink(there, "/features"))
        ),
        "a soft link": instead(
            "features",
            lambda f: (f.__setitem__("x", f["keys"]), f.__setitem__("features", h5py.SoftLink("/x"))),
        ),
        "a soft link in between": instead("features", linked_inside(h5py.SoftLink("/keys"))),
        "a group": instead("features", lambda f: f.create_group("features/features")),
        "a virtual data set": instead("features", virtual(there)),
        "a virtual data set of the secret": instead("features", virtual(str(secret))),
        "arrays of variable length": instead(
            "features", lambda f: f.create_dataset("features", SHAPE, h5py.vlen_dtype(np.float32))
        ),
        "texts of variable length": lambda f: f.create_dataset(
            "reasons", data=["x"], dtype=h5py.string_dtype()
        ),
        "references": instead(
            "features", lambda f: f.create_dataset("features", data=[f["keys"].ref], dtype=h5py.ref_dtype)
        ),
        "a trillion rows": instead("features", unwritten((10**12, 3))),
        "2 to the 64 numbers": instead("features", unwritten((2**62, 4))),
        "an absurd width": instead("features", unwritten((SHAPE[0], 10**12))),
        "a filter": instead(
            "features",
            lambda f: f.create_dataset("features", data=np.ones(SHAPE, "<f4"), compression="gzip"),
        ),
        "a bomb": lambda f: f.create_dataset(
            "more", data=np.zeros(1 << 22, np.uint8), compression="gzip", chunks=(1 << 22,)
        ),
        "an attribute of variable length": lambda f: f.attrs.__setitem__("decoder", "d"),
        "a huge attribute": lambda f: f.attrs.__setitem__("decoder", np.bytes_(b"d" * (2 << 20))),
        "vectors that are none": instead(
            "features", lambda f: f.__setitem__("features", np.full(SHAPE, np.nan, "<f4"))
        ),
        "another extractor": lambda f: f.attrs.__setitem__("fingerprint", np.bytes_(b"f" * 64)),
        "provenance without bottom": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"[" * 60_000)),
    }


def test_a_foreign_shard_with_a_right_digest_reads_nothing_and_serves_nothing(
    cache, pictures, secret, watch, featx, tmp_path, subtests
):
    [ours] = (cache.folder / "shards").iterdir()
    use = ("-x", "pixels:size=1", "--cache", "cache")
    (tmp_path / "other").mkdir()
    hostile = shards(secret)
    beside = watch(tmp_path / "other" / "given.h5")
    for number, (name, change) in enumerate(hostile.items()):
        for libver in (("v110", "v110"), ("earliest", "v110")):  # without checksums of HDF5's own
            if libver[0] == "earliest" and name == "a huge attribute":
                continue  # which that cannot write
            with subtests.test(name, libver=libver):
                image = shard(cache, pictures, change, libver)
                evil = ours.with_name(f"{sha256(image).hexdigest()}.h5")
                evil.write_bytes(image)
                beside.was_opened()  # by the test itself
                told = featx("cache", "export", pictures, *use, "--out", "f.h5", code=1)
                assert evil.name in told.err
                if libver[0] == "v110" and name != "vectors that are none":  # which nobody needs here
                    assert evil.name in featx("extract", pictures, *use, code=1).err
                if number % 5 == 0:
                    listed = featx("cache", "list", "--cache", "cache", "--json")
                    assert evil.name in json.loads(listed.out)["extractors"][0]["problem"]
                checked = featx("cache", "verify", "--cache", "cache", "--json", "--repair")
                [problem] = json.loads(checked.out)["problems"]
                assert problem["path"].endswith(evil.name)
                assert not evil.exists()
                assert not beside.was_opened()
    assert len(hostile) == 22
    assert not (tmp_path / "f.h5").exists()
    # A sound one in the same place is let in, and serves: it says that it is the oldest.
    image = shard(cache, pictures)
    ours.with_name(f"{sha256(image).hexdigest()}.h5").write_bytes(image)
    featx("cache", "export", pictures, *use, "--out", "f.h5")
    with h5py.File(tmp_path / "f.h5") as file:
        assert (file["features"][:] == 7).all()
