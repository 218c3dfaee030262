"""Anything at all where featx expects a file or a text of its own form: taken in whole, or refused in one line.

`FEATX_FUZZ=200 pytest tests/reliability/test_fuzz.py` tries 200 times as many cases as a plain run does.
"""

import collections
import io
import json
import logging
import mmap
import os
import random
import resource
import signal
import struct
import traceback
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.cache import Hints, fingerprint_of
from featx.cache.layout import read_spec
from featx.cache.reader import parse_shard
from featx.cache.shard import VECTOR, build_shard
from featx.engine import identify, read_extractors
from featx.errors import CacheError, FeatxError, ModelError, UsageError
from featx.extractors.spec import parse
from featx.samples import SampleTable, read_samples

TIMES = int(os.environ.get("FEATX_FUZZ", "1"))
SECONDS = 60
MEMORY = 8 << 30

NUMBERS = [0, 1, -1, 2, 3, 127, 128, 255, 256, 1024, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
TEXTS = [
    "",
    "x",
    "\0",
    "\n",
    "\x1b[2J",
    "\u202e",
    "\ud800",
    "\udcff",
    "=1+1",
    "../../etc/passwd",
    "%",
    "%2B",
    "a" * 5000,
]
VALUES = [
    *NUMBERS,
    *TEXTS,
    None,
    True,
    False,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    {"a": {}},
]


@pytest.fixture
def fuzz(request):
    """Try many cases in a process of its own, so that a crash, a case that never ends and greed fail the test too."""

    def tried(one, count):
        count *= TIMES
        seed = mmap.mmap(-1, 8)
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            outcomes = collections.Counter()
            try:
                for number in range(count):
                    seed[:] = struct.pack("<q", number)
                    signal.alarm(SECONDS)
                    outcomes[one(random.Random(number))] += 1
                text = json.dumps(outcomes)
            except BaseException:
                text = traceback.format_exc()
            os.write(tell, text.encode("utf-8", "backslashreplace")[-60_000:])
            os._exit(0)
        os.close(tell)
        with os.fdopen(told) as stream:
            text = stream.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        last = struct.unpack("<q", seed[:])[0]
        assert code == 0, (
            f"seed {last} ended the process ({signal.Signals(-code).name if code < 0 else code})"
        )
        assert text.startswith("{"), f"seed {last}: {text}"
        outcomes = json.loads(text)
        logging.getLogger(__name__).info("%s: %d cases: %s", request.node.name, count, outcomes)
        return outcomes

    return tried


def in_one_line(error):
    assert "\n" not in str(error), repr(str(error))
    return type(error).__name__


# Bytes


def mutated(image, chance):
    """Turn bits, write telling numbers, swap words, copy and cut: some of it, once or several times."""
    mutant = bytearray(image)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at, width = chance.randrange(len(mutant)), chance.choice([1, 2, 4, 8])
        at = min(at, len(mutant) - width)
        kind = chance.randrange(7)
        if kind == 0:
            mutant[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            mutant[at] = chance.randrange(256)
        elif kind == 2:
            mutant[at : at + width] = (chance.choice(NUMBERS) % 256**width).to_bytes(width, "little")
        elif kind == 3:
            found = int.from_bytes(mutant[at : at + width], "little") + chance.choice(
                [-256, -8, -1, 1, 8, 256]
            )
            mutant[at : at + width] = (found % 256**width).to_bytes(width, "little")
        elif kind == 4:
            one, other = (chance.randrange(len(mutant) // 8) * 8 for _ in range(2))
            mutant[one : one + 8], mutant[other : other + 8] = (
                mutant[other : other + 8],
                mutant[one : one + 8],
            )
        elif kind == 5:
            length = chance.randrange(1, min(100, len(mutant)))
            one, other = (chance.randrange(len(mutant) - length) for _ in range(2))
            mutant[other : other + length] = mutant[one : one + length]
        elif chance.random() < 0.2:
            del mutant[chance.randrange(100, len(mutant)) :]
            mutant.extend(bytes(16))
    return bytes(mutant)


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


# Texts


WORDS = [
    *(
        "hog",
        "lbp",
        "glcm",
        "gabor",
        "pixels",
        "color_histogram",
        "resnet18",
        "timm",
        "descriptor",
        "nowhere",
    ),
    *(":", ":", "=", "=", "+", "/", "%", "%2B", "%3A", "%25", " ", "\n", ",", "."),
    *(
        "size",
        "cell",
        "block",
        "orientations",
        "radii",
        "grid",
        "levels",
        "weights",
        "layer",
        "pool",
        "pixels",
    ),
    *(
        "0",
        "1",
        "2",
        "8",
        "16",
        "64",
        "1024",
        "-1",
        "1e3",
        "0.35",
        "nan",
        "inf",
        "1e999",
        "9" * 5000,
        "\uff11",
    ),
    *(
        "none",
        "/a/b.pth",
        "~/x.pth",
        "~nobody/x.pt",
        "a.safetensors",
        "IMAGENET1K_V1",
        "\0",
        "\udcff",
        "\ud800",
    ),
    *("\x1b[2J", "\u202e", "蜂", "é", "'", '"', "\\", "\t", "\xa0", "\x85"),
]


def some_text(chance):
    if chance.random() < 0.5:  # near to what is meant
        parts = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            keys = chance.choices(WORDS, k=2 * chance.randrange(4))
            pairs = [f":{key}={value}" for key, value in zip(keys[::2], keys[1::2], strict=True)]
            parts.append(chance.choice(WORDS[:10]) + "".join(pairs))
        return "+".join(parts)
    return "".join(chance.choices(WORDS, k=chance.randrange(1, 12)))


def test_any_text_names_extractors_that_are_written_back_or_is_refused_in_one_line(fuzz):
    def one(chance):
        text = some_text(chance)
        try:
            requests = parse(text)
            assert parse("+".join(request.text for request in requests)) == requests
            assert [parse(request.text) for request in requests] == [(request,) for request in requests]
            asked = read_extractors(text)
        except UsageError as error:
            return in_one_line(error)
        assert read_extractors("+".join(request.text for request in asked)) == asked
        return "read"

    outcomes = fuzz(one, 3000)
    assert min(outcomes.values()) > 300


def test_any_parameters_of_a_descriptor_identify_it_or_are_refused_in_one_line(fuzz):
    def one(chance):
        name = chance.choice(["hog", "lbp", "glcm", "gabor", "pixels", "color_histogram"])
        keys = {
            **dict.fromkeys(chance.choices(WORDS, k=chance.choice([0, 0, 0, 1])), "1"),
            **{key: chance.choice(WORDS) for key in chance.choices(list(KEYS), k=chance.randrange(3))},
            **{key: str(chance.choice(NUMBERS)) for key in chance.choices(list(KEYS), k=chance.randrange(3))},
        }
        text = name + "".join(f":{key}={value}" for key, value in keys.items())
        try:
            asked = read_extractors(text)[0]
            spec = identify(asked, device="cpu", precision="float32", hints=Hints(None))
        except UsageError as error:
            return in_one_line(error)
        assert spec.n_features > 0
        assert fingerprint_of(spec.identity) == spec.fingerprint
        return "identified"

    outcomes = fuzz(one, 250)
    assert min(outcomes["identified"], outcomes["UsageError"]) > 20


KEYS = ("size", "cell", "block", "orientations", "radii", "grid", "levels", "hue", "frequency", "scales")


# JSON


def changed(value, chance, rate):
    """A copy of a JSON value with some of its parts replaced, dropped, doubled or wrapped."""
    if chance.random() < rate:
        kind = chance.randrange(4)
        if kind == 0 and isinstance(value, str) and value:
            at = chance.randrange(len(value))
            return value[:at] + chance.choice(TEXTS) + value[at + chance.randrange(2) :]
        if kind == 1:
            for _ in range(chance.choice([1, 1, 1, 300, 700, 950])):
                value = [value] if chance.random() < 0.5 else {"a": value}
            return value
        if kind == 2 and isinstance(value, int | float):
            return -value if chance.random() < 0.3 else chance.choice(NUMBERS)
        return chance.choice(VALUES)
    if isinstance(value, dict):
        new = {key: changed(one, chance, rate) for key, one in value.items() if chance.random() > rate / 2}
        if chance.random() < rate:
            new[chance.choice(TEXTS)] = chance.choice(VALUES)
        return new
    if isinstance(value, list):
        new = [changed(one, chance, rate) for one in value if chance.random() > rate / 2]
        return new * 2 if chance.random() < rate else new
    return value


def some_json(value, chance, rates=(0.01, 0.05, 0.3)):
    """Mostly JSON, of something near to the value; sometimes its bytes with a few errors."""
    try:
        text = json.dumps(changed(value, chance, chance.choice(rates))).encode()
    except RecursionError:
        return b"[" * chance.randrange(100, 10_000)
    return mutated(text, chance) if len(text) > 200 and chance.random() < 0.3 else text


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


@pytest.fixture
def model(tmp_path):
    """Save a model; return its record, its head's members and its samples."""
    samples = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), np.uint8)
    head = make_pipeline(StandardScaler(), LogisticRegression())
    fitted = featx.fit(samples, "pixels:size=1+pixels:size=2", labels=list("aabb") * 2, head=head, cv=2)
    fitted.save(tmp_path / "m.featx")
    with zipfile.ZipFile(tmp_path / "m.featx") as archive:
        record = json.loads(archive.read("model.json"))
        with zipfile.ZipFile(io.BytesIO(archive.read("head.skops"))) as inner:
            return record, {name: inner.read(name) for name in inner.namelist()}, samples


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def applied(path, content, samples):
    """Load a model and apply it; what it is not able to do it says in one line."""
    path.write_bytes(content)
    try:
        found = featx.load(path)
        answers = found.predict(samples)
    except (ModelError, UsageError) as error:
        return in_one_line(error)
    assert answers.shape == (len(samples),)
    return "applied"


def test_any_record_of_a_model_is_applied_or_refused_in_one_line(fuzz, model, tmp_path):
    record, head, samples = model
    head = zipped(head)
    outcomes = fuzz(
        lambda chance: applied(
            tmp_path / "x.featx",
            zipped({"model.json": some_json(record, chance), "head.skops": head}),
            samples,
        ),
        150,
    )
    assert min(outcomes["applied"], outcomes["ModelError"]) > 10


TYPES = [
    ("builtins", "eval"),
    ("os", "system"),
    ("sklearn.feature_extraction.text", "CountVectorizer"),
    ("sklearn.linear_model._logistic", "LogisticRegression"),
    ("sklearn.preprocessing._data", "StandardScaler"),
    ("sklearn.pipeline", "Pipeline"),
    ("sklearn.dummy", "DummyClassifier"),
    ("sklearn.preprocessing._function_transformer", "FunctionTransformer"),
    ("numpy", "ndarray"),
    ("builtins", "dict"),
    ("builtins", "list"),
]


def some_head(head, chance):
    """A head with another type, other attributes or another array than it was saved with."""
    schema, kind = json.loads(head["schema.json"]), chance.randrange(4)
    if kind == 0:
        nodes, pending = [], [schema]
        while pending:
            value = pending.pop()
            pending.extend(
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
            )
            nodes += [value] if isinstance(value, dict) and "__class__" in value else []
        node = chance.choice(nodes)
        node["__module__"], node["__class__"] = chance.choice(TYPES)
        return zipped(head | {"schema.json": json.dumps(schema)})
    if kind == 1:
        return zipped(head | {"schema.json": some_json(schema, chance, (0.0005, 0.002, 0.01))})
    name = chance.choice([name for name in head if name.endswith(".npy")])
    if kind == 2:
        return zipped(head | {name: mutated(head[name], chance)})
    buffer = io.BytesIO()
    shape = tuple(chance.choice([0, 1, 2, 3, 15, 200]) for _ in range(chance.randrange(4)))
    np.save(buffer, np.full(shape, chance.choice([0, 1, -1, 2**40, np.nan, 1e308])))
    return zipped(head | {name: buffer.getvalue()})


def test_any_head_of_a_model_is_applied_or_refused_in_one_line(fuzz, model, tmp_path):
    record, head, samples = model
    record = json.dumps(record)
    outcomes = fuzz(
        lambda chance: applied(
            tmp_path / "x.featx",
            zipped({"model.json": record, "head.skops": some_head(head, chance)}),
            samples,
        ),
        150,
    )
    assert min(outcomes["applied"], outcomes["ModelError"]) > 10


# Manifests


CELLS = [
    *("path", "label", "group", "split", "path", "label", "a.png", "b.png", "a.png#2", "/etc/passwd", "../x"),
    *(",", ",", ",", "\n", "\n", "\r\n", "\r", '"', '""', "\t", ";", "|", " ", "", "\0", "\\", "'", "#"),
    *("1", "2", "-0.5", "007", "1e999", "nan", "NaN", "NA", "null", "True", "9" * 30, "2024-01-01", "\uff11"),
    *("\ufeff", "é", "\udcff", "\udc80\udcbf", "\x1b[2J", "\u2028", "\x0c", "=1+1", "x" * 3000),
]


def some_table(chance, delimiter):
    if chance.random() < 0.6:  # near to what is meant
        header = chance.sample(["path", "label", "group", "split", "more"], chance.randrange(1, 6))
        rows = [[chance.choice(CELLS) for _ in header] for _ in range(chance.randrange(6))]
        text = "\n".join(delimiter.join(row) for row in [header, *rows])
        if chance.random() < 0.3:
            text = text.replace("\n", "\r\n")
    else:
        text = "".join(chance.choices(CELLS, k=chance.randrange(40)))
    content = text.encode("utf-8", "surrogateescape")
    return mutated(content, chance) if len(content) > 200 and chance.random() < 0.2 else content


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet"])
def test_any_manifest_is_a_table_or_is_refused_in_one_line(fuzz, tmp_path, suffix):
    Image.new("RGB", (1, 1)).save(tmp_path / "a.png")
    delimiter = "\t" if suffix == ".tsv" else ","
    sound = b""
    if suffix == ".parquet":
        import pandas as pd

        rows = {
            "path": ["a.png", "b.png", "a.png"],
            "label": ["x", "y", None],
            "split": ["train", "test", ""],
        }
        pd.DataFrame(rows).to_parquet(tmp_path / "sound.parquet")
        sound = (tmp_path / "sound.parquet").read_bytes()

    def one(chance):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(mutated(sound, chance) if sound else some_table(chance, delimiter))
        try:
            table = read_samples(str(path))
        except UsageError as error:
            return in_one_line(error)
        assert isinstance(table, SampleTable)
        assert len(set(table.ids.tolist())) == len(table) > 0
        for column in (table.y, table.groups, table.splits):
            assert column is None or len(column) == len(table)
        assert len(table.classes) <= len(table)
        for row in range(len(table)):
            try:
                table.read(row)
            except FeatxError as error:
                in_one_line(error)
        return "read"

    outcomes = fuzz(one, 400)
    assert outcomes["read"] > 10
    assert outcomes["UsageError"] > 0
