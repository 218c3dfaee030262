"""Any bytes for a shard, any JSON for a spec.json: read within their bounds, or refused in one line."""

import io
import runpy
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.cache import fingerprint_of
from featx.cache.layout import read_spec
from featx.cache.reader import parse_shard
from featx.cache.shard import VECTOR, build_shard
from featx.errors import CacheError

cases = runpy.run_path(str(Path(__file__).with_name("cases.py")))
in_one_line, mutated, some_json = cases["in_one_line"], cases["mutated"], cases["some_json"]


def rotated(value, bits):
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def checksum(data):
    """HDF5's own: Bob Jenkins' lookup3."""
    a = b = c = (0xDEADBEEF + len(data)) & 0xFFFFFFFF
    words = struct.unpack(f"<{(len(data) + 11) // 12 * 3}I", data.ljust((len(data) + 11) // 12 * 12, b"\0"))
    for at in range(0, len(words) - 3, 3):
        a, b, c = (part + word & 0xFFFFFFFF for part, word in zip((a, b, c), words[at : at + 3], strict=True))
        for bits in (4, 6, 8, 16, 19, 4):
            a = (a - c) & 0xFFFFFFFF ^ rotated(c, bits)
            c = (c + b) & 0xFFFFFFFF
            a, b, c = b, c, a
    a, b, c = (part + word & 0xFFFFFFFF for part, word in zip((a, b, c), words[-3:], strict=True))
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - rotated(b, bits)) & 0xFFFFFFFF
        a, b, c = b, c, a
    return b


def checked_parts(image):
    """Where HDF5's checksums lie, each with the bytes before it that it is of: superblock and object headers."""
    parts = [(0, 44)]
    at = image.find(b"OHDR")
    while at >= 0:
        flags, begin = image[at + 5], at + 6
        begin += 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        parts.append((at, begin + width + int.from_bytes(image[begin : begin + width], "little")))
        at = image.find(b"OHDR", at + 4)
    for start, end in parts:
        assert int.from_bytes(image[end : end + 4], "little") == checksum(image[start:end])
    return parts


def old_image():
    """A shard in HDF5's oldest layout, which knows no checksums: featx writes none such, others may."""
    values = np.random.default_rng(0)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="earliest") as file:
        file.attrs["schema"], file.attrs["published"] = 1, 1.0
        for name, text in (("fingerprint", "f" * 64), ("decoder", "d"), ("provenance", '{"a":1}')):
            file.attrs[name] = np.bytes_(text.encode())
        file["keys"] = values.integers(0, 256, (3, 32), dtype=np.uint8)
        file["status"] = np.array([0, 0, 1], np.uint8)
        file["reasons"] = np.array([b"why"])
        file["features"] = values.normal(size=(3, 3)).astype("<f4")
    return buffer.getvalue()


def new_image():
    facts = {"fingerprint": "f" * 64, "decoder": "d", "provenance": '{"a":1}', "published": 1.0}
    values = np.random.default_rng(0)
    keys, vectors = values.integers(0, 256, (2, 32), dtype=np.uint8), values.normal(size=(2, 3)).astype("<f4")
    return build_shard(keys, vectors, failures=[(b"k" * 32, "why")], **facts)


@pytest.mark.parametrize("layout", ["as it is", "with checksums made right", "of old"])
def test_any_bytes_are_refused_as_a_shard_or_read_within_their_bounds(fuzz, layout):
    image = old_image() if layout == "of old" else new_image()
    parts = checked_parts(image) if layout == "with checksums made right" else []

    def one(chance):
        mutant = bytearray(mutated(image, chance))
        for start, end in parts:
            if end + 4 <= len(mutant):
                mutant[end : end + 4] = checksum(bytes(mutant[start:end])).to_bytes(4, "little")
        mutant = bytes(mutant)
        try:
            shard = parse_shard(mutant)
            rows = np.flatnonzero(shard.status == VECTOR)
            into = np.empty((len(rows), shard.n_features), shard.dtype)
            shard.read(rows, into)
        except CacheError as error:
            return in_one_line(error)
        width = shard.n_features * shard.dtype.itemsize
        assert 0 < shard.features_offset <= len(mutant) - len(shard.status) * width
        expected = b"".join(mutant[shard.features_offset + row * width :][:width] for row in rows.tolist())
        assert into.tobytes() == expected
        assert shard.keys.tobytes() in mutant
        assert len(shard.keys) == len(shard.status) > 0
        for row in np.flatnonzero(shard.status).tolist():
            assert len(shard.reason(row)) <= 500
        return "read"

    outcomes = fuzz(one, 1200)
    assert min(outcomes["read"], outcomes["DamagedError"]) > 30


def test_any_spec_is_the_one_that_was_written_or_is_refused_in_one_line(fuzz, tmp_path):
    identity = {
        "name": "hog",
        "schema": 1,
        "layer": ["a", "b"],
        "parameters": {"size": 128, "frequency": 0.5},
    }
    spec = {"schema": 1, "fingerprint": fingerprint_of(identity), "identity": identity}

    def one(chance):
        (tmp_path / "spec.json").write_bytes(some_json(spec, chance))
        try:
            found = read_spec(tmp_path)
        except CacheError as error:
            return in_one_line(error)
        assert found["fingerprint"] == fingerprint_of(found["identity"])
        return "read"

    outcomes = fuzz(one, 1000)
    assert min(outcomes["read"], outcomes["DamagedError"]) > 30
