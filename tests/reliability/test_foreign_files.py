"""Models, caches, weights and manifests that somebody else made: nothing in them is run, and nothing beside them read.

Every command line runs in a process of its own; the system itself says whether a file was opened.
"""

import ctypes
import io
import json
import os
import pickle
import shutil
import sqlite3
import struct
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import skops.io
import torch
from PIL import Image
from safetensors.torch import save
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, StandardScaler

import featx as library

SECRET = "the secret is 0123456789abcdef, and nobody may see it"
PIXELS = "pixels:size=1"
N_PICTURES = 4

# Forks a process for every command line, so that torch is imported once; a process that is stuck or greedy is ended.
NURSERY = """
import json, os, resource, signal, sys, traceback
import h5py, numpy, skops.io, sklearn.pipeline, torch, torchvision, safetensors.torch
import featx.cli.extract, featx.engine, featx.features, featx.model, featx.extractors.torchvision
import featx.extractors.descriptor_source
from featx.cli.main import main
sys.argv, sys.stdout = ["featx", "list", "heads"], open(os.devnull, "w")
try:
    main()  # what it imports need not be imported again
except SystemExit:
    sys.stdout = sys.__stdout__
for line in sys.stdin:
    arguments, folder = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(folder)
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
        signal.alarm(60)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["featx", *arguments]
        try:
            main()
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code or 0)  # torch takes a second to be torn down
        except BaseException:
            traceback.print_exc()
        os._exit(99)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def nursery():
    process = subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    yield process
    process.communicate(timeout=60)


class Watch:
    """Sees every opening of a file, by any process and in any language."""

    def __init__(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.descriptor >= 0
        assert libc.inotify_add_watch(self.descriptor, os.fsencode(path), 0x20) > 0  # IN_OPEN
        path.read_bytes()
        assert self.was_opened()

    def was_opened(self):
        try:
            return bool(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return False


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return path


@pytest.fixture
def canary(tmp_path):
    """What every payload would make."""
    return tmp_path / "canary"


@pytest.fixture
def featx(tmp_path, nursery, secret, canary):
    """Run a command line; whatever it does, no payload has run and no secret was opened or shown."""
    watch = Watch(secret)

    def run(*arguments, code=0, may_open=False):
        watch.was_opened()  # by the test itself
        nursery.stdin.write(json.dumps([[*map(str, arguments)], str(tmp_path)]) + "\n")
        nursery.stdin.flush()
        found = int(nursery.stdout.readline())
        done = SimpleNamespace(
            code=found, out=(tmp_path / "out").read_text(), err=(tmp_path / "err").read_text()
        )
        assert code is None or done.code == code, done
        assert not canary.exists()
        assert may_open or not watch.was_opened()
        for path in [*tmp_path.glob("*.csv"), *tmp_path.glob("*.h5")]:
            assert SECRET[:20].encode() not in path.read_bytes()
        assert SECRET[:20] not in done.out + done.err
        if code:
            assert done.out == ""
            [line] = done.err.splitlines()
            assert line.startswith("featx: error: ")
        return done

    yield run
    os.close(watch.descriptor)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(N_PICTURES):
        Image.new("RGB", (2, 2), (40 * number, 0, 7)).save(folder / f"{number}.png")
    return folder


class Payload:
    """Something that, where it is unpickled, makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def payload(canary):
    made = Payload(canary)
    pickle.loads(pickle.dumps(made))
    canary.rmdir()  # so it does run where it is let
    return made


# Models


def zipped(members, compression=zipfile.ZIP_STORED):
    """Zip bytes by name, or by a ZipInfo."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def unzipped(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def model(tmp_path, pictures):
    """Fit a sound model, save it as ``good.featx``, and return its members."""
    fitted = library.fit(
        sorted(pictures.iterdir()), PIXELS, labels=["a", "a", "b", "b"], head=LogisticRegression(), cv=2
    )
    fitted.save(tmp_path / "good.featx")
    return unzipped((tmp_path / "good.featx").read_bytes())


def reads_a_file(path):
    """A head of nothing but types that skops trusts, whose labels depend on what is in a file."""
    X, names = np.eye(4, 3), [str(path), __file__] * 2
    named = DummyClassifier(strategy="constant", constant=str(path)).fit(X, names)
    reading = Pipeline(
        [
            ("read", ColumnTransformer([("v", CountVectorizer(input="filename", vocabulary=["secret"]), 0)])),
            ("says", LogisticRegression()),
        ]
    ).fit(np.array(names)[:, None], [0, 1] * 2)
    head = StackingClassifier(
        [("named", named)], final_estimator=reading, stack_method="predict", cv="prefit"
    )
    head.estimators_, head.named_estimators_, head.final_estimator_ = [named], {"named": named}, reading
    head.stack_method_, head._label_encoder = ["predict"], LabelEncoder().fit(["a", "b"])
    head.classes_ = head._label_encoder.classes_
    assert head.predict(X).tolist()[0] in "ab"
    return head


class Homemade(LogisticRegression):
    pass


def forged(model, module, name, loader="ObjectNode"):
    """A head whose outermost type is another."""
    inner = unzipped(model["head.skops"])
    schema = json.loads(inner["schema.json"])
    schema |= {"__module__": module, "__class__": name, "__loader__": loader}
    return zipped(inner | {"schema.json": json.dumps(schema).encode()})


def operator_head(model, canary):
    """A head with a call of a method of its input in it: ``X.tofile(canary)``."""
    inner = unzipped(skops.io.dumps(make_pipeline(FunctionTransformer(np.exp), LogisticRegression())))
    call = {
        "__class__": "methodcaller",
        "__module__": "operator",
        "__loader__": "OperatorFuncNode",
        "attrs": {
            "__class__": "tuple",
            "__module__": "builtins",
            "__loader__": "TupleNode",
            "content": [
                {
                    "__class__": "str",
                    "__module__": "builtins",
                    "__loader__": "JsonNode",
                    "content": json.dumps(text),
                    "is_json": True,
                    "__id__": 10 + number,
                }
                for number, text in enumerate(("tofile", str(canary)))
            ],
            "__id__": 2,
        },
        "__id__": 3,
    }
    text = inner["schema.json"].decode()
    schema = json.loads(text)

    def replace(value):
        if isinstance(value, dict):
            if value.get("__loader__") == "FunctionNode":
                return call
            return {key: replace(one) for key, one in value.items()}
        return [replace(one) for one in value] if isinstance(value, list) else value

    changed = replace(schema)
    assert changed != schema
    return zipped(inner | {"schema.json": json.dumps(changed).encode()})


def pickled_array(model, payload):
    inner = unzipped(model["head.skops"])
    buffer = io.BytesIO()
    np.save(buffer, np.array([payload], dtype=object), allow_pickle=True)
    return zipped(
        {name: buffer.getvalue() if name.endswith(".npy") else data for name, data in inner.items()}
    )


def huge_array(model):
    inner = unzipped(model["head.skops"])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**3)}
    )
    return zipped(
        {name: buffer.getvalue() if name.endswith(".npy") else data for name, data in inner.items()}
    )


def record(model, **changes):
    """The model with another record; ``extractor`` changes that of its only extractor, fingerprint and all."""
    from featx.extractors.spec import ExtractorSpec

    found = json.loads(model["model.json"])
    [one] = found["extractors"]
    one |= changes.pop("extractor", {})
    spec = ExtractorSpec.from_json({key: value for key, value in one.items() if key != "fingerprint"})
    one["fingerprint"] = spec.fingerprint
    return zipped(model | {"model.json": json.dumps(found | changes).encode()})


def link_entry(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def overlapping(model):
    """Let the second member lie where the first does, and declare as much again."""
    content = bytearray(zipped({"model.json": bytes(1 << 16), "head.skops": b""}))
    first, second = content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02")
    content[second + 16 : second + 28] = content[first + 16 : first + 28]
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return bytes(content)


def models(model, payload, secret, canary, tmp_path):
    """Hostile models by what is wrong with them."""
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    wide = make_pipeline(StandardScaler(), LogisticRegression()).fit(np.eye(4), list("aabb"))
    here = str(canary)
    deep = b"[" * 100_000
    return {
        "a pickle": pickle.dumps(payload),
        "a pickle among the members": zipped(model | {"head.pkl": pickle.dumps(payload)}),
        "a pickle for a head": zipped(model | {"head.skops": pickle.dumps(payload)}),
        "a pickle for a record": zipped(model | {"model.json": pickle.dumps(payload)}),
        "a pickle in an array": zipped(model | {"head.skops": pickled_array(model, payload)}),
        "a function of the system": zipped(model | {"head.skops": forged(model, "os", "mkdir")}),
        "eval": zipped(model | {"head.skops": forged(model, "builtins", "eval", "TypeNode")}),
        "a type of somebody's own": zipped(
            model | {"head.skops": skops.io.dumps(Homemade().fit(np.eye(4, 3), list("aabb")))}
        ),
        "a call of a method": zipped(model | {"head.skops": operator_head(model, canary)}),
        "a head that reads files": zipped(model | {"head.skops": skops.io.dumps(reads_a_file(secret))}),
        "a head for more features": zipped(model | {"head.skops": skops.io.dumps(wide)}),
        "a record of more features": zipped(
            unzipped(record(model, extractor={"n_features": 4})) | {"head.skops": skops.io.dumps(wide)}
        ),
        "a head that predicts nothing": zipped(model | {"head.skops": skops.io.dumps({"a": 1})}),
        "a name that leads up": zipped(model | {"../canary": b""}),
        "a name from the root": zipped(model | {here: b""}),
        "a link in the zip": zipped(model | {link_entry("link"): str(secret).encode()}),
        "a link for a head": zipped(
            {"model.json": model["model.json"], link_entry("head.skops"): str(secret).encode()}
        ),
        "a bomb": zipped(model | {"head.skops": bytes(1 << 26)}, zipfile.ZIP_DEFLATED),
        "a bomb in the head": zipped(
            model | {"head.skops": zipped({"schema.json": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)}
        ),
        "members that overlap": overlapping(model),
        "an absurd array": zipped(model | {"head.skops": huge_array(model)}),
        "a record without bottom": zipped(model | {"model.json": deep}),
        "a head without bottom": zipped(model | {"head.skops": zipped({"schema.json": deep})}),
        "weights that are a secret": record(
            model, extractor={"source": "torchvision", "text": f"squeezenet1_1:weights={secret}"}
        ),
        "weights that never end": record(
            model,
            extractor={"source": "torchvision", "text": f"squeezenet1_1:weights={tmp_path / 'zero.pth'}"},
        ),
        "weights that are a FIFO": record(
            model,
            extractor={"source": "torchvision", "text": f"squeezenet1_1:weights={tmp_path / 'fifo.pth'}"},
        ),
        "another extractor under its name": record(model, extractor={"text": "pixels:size=2"}),
        "a name that is none": record(model, extractor={"text": "../../etc/passwd"}),
        "a name with an escape": record(model, extractor={"text": "\x1b[2J\n\u202e"}),
        "a head with a name that is an escape": record(model, head="\x1b[2J\nfeatx: error: x", task="\x1b"),
    }


def test_a_foreign_model_runs_nothing_and_reads_nothing(
    model, payload, secret, canary, tmp_path, pictures, featx, subtests
):
    hostile = models(model, payload, secret, canary, tmp_path)
    for name, content in hostile.items():
        with subtests.test(name):
            (tmp_path / "evil.featx").write_bytes(content)
            code = 2 if name == "weights that are a secret" else 1
            featx("predict", "evil.featx", pictures, "--out", "p.csv", code=code)
            assert not (tmp_path / "p.csv").exists()
    assert len(hostile) == 30
    for extra in ([], ["--proba", "--json", "-vv"], ["--cache", "other"]):
        featx("predict", "good.featx", pictures, *extra)
    # What only is called strangely is applied, and said in a way that does no harm.
    (tmp_path / "strange.featx").write_bytes(record(model, head="\x1b[2J\nfeatx: error: x"))
    done = featx("predict", "strange.featx", pictures, "-vv")
    assert all(line.isprintable() for line in (done.out + done.err).splitlines())
    assert not any(line.startswith("featx: error") for line in done.err.splitlines())


# Caches


@pytest.fixture
def cache(tmp_path, pictures, featx):
    """A cache that another run filled, and the facts a shard of it must state."""
    featx("extract", pictures, "-x", PIXELS, "--cache", "cache")
    [folder] = (tmp_path / "cache").glob("pixels-*")
    return SimpleNamespace(
        root=tmp_path / "cache", folder=folder, spec=json.loads((folder / "spec.json").read_text())
    )


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
        file["features"] = np.full((N_PICTURES, 3), 7, "<f4")
        file["keys"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
        file["status"] = np.zeros(N_PICTURES, np.uint8)
        change(file)
    return buffer.getvalue()


def instead(name, make):
    def change(file):
        del file[name]
        make(file)

    return change


def virtual(source):
    def make(file):
        layout = h5py.VirtualLayout((N_PICTURES, 3), "<f4")
        layout[:] = h5py.VirtualSource(source, "features", (N_PICTURES, 3))
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
    size = N_PICTURES * 12
    there = str(secret.with_name("other") / "given.h5")
    with h5py.File(there, "w") as file:
        file["features"] = np.frombuffer(SECRET[:size].encode(), "<f4").reshape(N_PICTURES, 3)
        file["group/features"] = file["features"]
    return {
        "external storage": instead(
            "features",
            lambda f: f.create_dataset("features", (N_PICTURES, 3), "<f4", external=[(str(secret), 0, size)]),
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
            "features", lambda f: f.create_dataset("features", (N_PICTURES, 3), h5py.vlen_dtype(np.float32))
        ),
        "texts of variable length": lambda f: f.create_dataset(
            "reasons", data=["x"], dtype=h5py.string_dtype()
        ),
        "references": instead(
            "features", lambda f: f.create_dataset("features", data=[f["keys"].ref], dtype=h5py.ref_dtype)
        ),
        "a trillion rows": instead("features", unwritten((10**12, 3))),
        "2 to the 64 numbers": instead("features", unwritten((2**62, 4))),
        "an absurd width": instead("features", unwritten((N_PICTURES, 10**12))),
        "a filter": instead(
            "features",
            lambda f: f.create_dataset("features", data=np.ones((N_PICTURES, 3), "<f4"), compression="gzip"),
        ),
        "a bomb": lambda f: f.create_dataset(
            "more", data=np.zeros(1 << 22, np.uint8), compression="gzip", chunks=(1 << 22,)
        ),
        "an attribute of variable length": lambda f: f.attrs.__setitem__("decoder", "d"),
        "a huge attribute": lambda f: f.attrs.__setitem__("decoder", np.bytes_(b"d" * (2 << 20))),
        "vectors that are none": instead(
            "features", lambda f: f.__setitem__("features", np.full((N_PICTURES, 3), np.nan, "<f4"))
        ),
        "another extractor": lambda f: f.attrs.__setitem__("fingerprint", np.bytes_(b"f" * 64)),
        "provenance without bottom": lambda f: f.attrs.__setitem__("provenance", np.bytes_(b"[" * 60_000)),
    }


def test_a_foreign_shard_with_a_right_digest_reads_nothing_and_serves_nothing(
    cache, pictures, secret, featx, tmp_path, subtests
):
    [ours] = (cache.folder / "shards").iterdir()
    use = ("-x", PIXELS, "--cache", "cache")
    (tmp_path / "other").mkdir()
    hostile = shards(secret)
    beside = Watch(tmp_path / "other" / "given.h5")
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
    os.close(beside.descriptor)


def specs(spec, secret, tmp_path):
    """What may stand in for a spec.json: bytes, or a path to link to."""
    os.mkfifo(tmp_path / "fifo")

    def changed(**changes):
        return json.dumps(spec | changes).encode()

    return {
        "nothing": b"",
        "no JSON": b"\x80\x04" * 100,
        "20 MB of nothing": b" " * (20 << 20) + b"{}",
        "2 million lists": b'{"identity":[' + b"[]," * 2_000_000 + b"[]]}",
        "no bottom": b'{"identity":' + b"[" * 100_000,
        "hardly a bottom": changed(identity={"a": eval("[" * 90 + "]" * 90)}),
        "a number of a million digits": b'{"schema": ' + b"1" * 1_000_000 + b"}",
        "an infinite number": changed(identity={**spec["identity"], "a": 1}).replace(
            b'"a": 1', b'"a": 1e999'
        ),
        "not a number": changed(identity={**spec["identity"], "a": 1}).replace(b'"a": 1', b'"a": NaN'),
        "half a character": changed(identity={**spec["identity"], "name": "\ud800"}),
        "a list": b"[1, 2]",
        "schema in words": changed(schema="1"),
        "no schema": changed(schema=None),
        "a fingerprint that is a list": changed(fingerprint=[spec["fingerprint"]]),
        "an identity in words": changed(identity="pixels"),
        "more than is known": changed(evil="\x1b[2J"),
        "another extractor": changed(fingerprint="f" * 64),
        "a link to the secret": secret,
        "a link to a FIFO": tmp_path / "fifo",
        "a link to what never ends": "/dev/zero",
    }


def test_a_foreign_spec_is_refused_and_repaired_away(cache, pictures, secret, featx, tmp_path, subtests):
    path = cache.folder / "spec.json"
    hostile = specs(cache.spec, secret, tmp_path)
    for name, content in hostile.items():
        with subtests.test(name):
            path.unlink(missing_ok=True)
            path.write_bytes(content) if isinstance(content, bytes) else path.symlink_to(content)
            may_open = name == "a link to the secret"  # which is looked at as JSON, and that is all
            told = featx("extract", pictures, "-x", PIXELS, "--cache", "cache", code=1, may_open=may_open)
            assert "spec.json' is damaged" in told.err
            assert "Run `featx cache verify --repair" in told.err
            if name.startswith("a "):
                featx("cache", "list", "--cache", "cache", may_open=may_open)
            checked = featx("cache", "verify", "--repair", "--cache", "cache", "--json", may_open=may_open)
            [problem] = json.loads(checked.out)["problems"]
            assert problem["path"].endswith("spec.json")
            assert not os.path.lexists(path)
    assert len(hostile) == 20
    assert secret.read_text() == SECRET
    done = featx("extract", pictures, "-x", PIXELS, "--cache", "cache", "--json", may_open=True)
    assert json.loads(done.out)["cached"] == N_PICTURES


def test_a_foreign_cache_deletes_nothing_behind_its_links(cache, pictures, featx, tmp_path, subtests):
    home = tmp_path / "home"
    for folder in (home, home / "tmp", home / "shards"):
        folder.mkdir()
        for name in ("thesis.tex", "turn", f"{'a' * 64}.h5"):
            (folder / name).write_text("years of work")
            os.utime(folder / name, (1e9, 1e9))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for part, target in (
        (".", home),
        ("tmp", home),
        ("shards", home),
        ("spec.json", home / "thesis.tex"),
        ("turn", home / "thesis.tex"),
        (f"shards/{'a' * 64}.h5", home / "thesis.tex"),
    ):
        with subtests.test(part):
            root = tmp_path / "copies" / part.replace("/", " ")
            shutil.copytree(cache.root, root)
            linked = root / cache.folder.name / part
            if linked.is_dir():
                shutil.rmtree(linked)
            else:
                linked.unlink(missing_ok=True)
            linked.symlink_to(target)
            Image.new("RGB", (2, 2), (9, 9, len(part))).save(pictures / "new.png")
            for command in (
                ["extract", pictures, "-x", PIXELS],
                ["cache", "verify", "--repair"],
                ["cache", "prune"],
                ["cache", "prune", "--older-than", "0"],
            ):
                featx(*command, "--cache", root, code=None)
            assert {path: path.read_bytes() for path in before if path.exists()} == before


# Hints


def journal_that_names(database, target):
    """The journal of a transaction that never ended: SQLite rolls it back, and deletes the parent it names."""
    name, magic = os.fsencode(target), bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">5I", 0, 0, database.stat().st_size // 4096, 512, 4096)
    end = struct.pack(">2I", len(name), sum(struct.unpack(f"{len(name)}b", name)) % 2**32) + magic
    return header.ljust(512, b"\0") + struct.pack(">I", (1 << 30) // 4096 + 1) + name + end


VIEWS = """
DROP TABLE digests; DROP TABLE identities;
CREATE VIEW digests AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
    SELECT i AS path, i AS state, i AS digest, i AS sum FROM n;
CREATE VIEW identities AS SELECT zeroblob(1000000000) AS spec, zeroblob(1000000000) AS identity, 1 AS sum;
"""
TRIGGERS = """
CREATE TRIGGER a AFTER INSERT ON digests BEGIN UPDATE digests SET digest = zeroblob(900000000); END;
CREATE TRIGGER b AFTER INSERT ON identities BEGIN SELECT load_extension('/tmp/evil.so'); END;
"""
GARBAGE = """
UPDATE digests SET state = 5, digest = 'text', sum = 1.5; UPDATE identities SET identity = 7, sum = NULL;
INSERT INTO digests VALUES (1, 2, 3, NULL), (zeroblob(1000000), 'a', 1.5, x'00');
"""
HUGE = "INSERT INTO digests SELECT path || 'x', zeroblob(100000000), zeroblob(100000000), sum FROM digests LIMIT 1"


@pytest.mark.parametrize("hostile", [VIEWS, TRIGGERS, GARBAGE, HUGE, "journal", "link", "of another program"])
def test_foreign_hints_change_nothing_but_the_time(hostile, cache, pictures, featx, tmp_path):
    hints, precious = cache.root / "hints.sqlite", tmp_path / "precious"
    precious.write_text("years of work")
    if hostile == "journal":
        (cache.root / "hints.sqlite-journal").write_bytes(journal_that_names(hints, precious))
    elif hostile == "link":
        hints.unlink()
        hints.symlink_to(tmp_path / "new")
    elif hostile == "of another program":
        hints.unlink()
        precious.unlink()
        database = sqlite3.connect(precious)
        database.execute("CREATE TABLE cookies (name, value)")
        database.close()
        hints.symlink_to(precious)
    else:
        database = sqlite3.connect(hints)
        database.executescript(hostile)
        database.close()
    before = precious.read_bytes()
    use = ("-x", PIXELS, "--cache", "cache")
    done = featx("extract", pictures, *use, "--export", "f.h5", "--json")
    assert json.loads(done.out)["cached"] == N_PICTURES
    with h5py.File(tmp_path / "f.h5") as file:
        expected = [(40 * number, 0, 7) for number in range(N_PICTURES)]
        np.testing.assert_allclose(file["features"][:] * 255, expected, atol=1e-3)
    told = done.err.splitlines()
    assert len(told) <= 1
    assert all("are not used" in line and "the same answers, only slower" in line for line in told)
    assert precious.read_bytes() == before
    assert not (tmp_path / "new").exists()


# Weights


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def tar_file(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                archive.addfile(info)
    return buffer.getvalue()


def safetensors_file(header, data=b"\0" * 64, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def weights(tensors, payload, secret, canary):
    """Hostile weights files by name."""
    plain = unzipped(torch_file(tensors))
    root = next(iter(plain)).split("/")[0]
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return {
        "a pickle.pth": pickle.dumps(payload),
        "a payload.pth": torch_file({"features.0.weight": payload}),
        "a payload in a checkpoint.pth": torch_file({"state_dict": tensors, "optimizer": payload}),
        "a payload for data.pth": zipped(plain | {f"{root}/data.pkl": pickle.dumps(payload)}),
        "legacy.pth": b"".join(
            pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, payload, [])
        ),
        "legacy tar.pth": tar_file(
            {name: pickle.dumps(payload) for name in ("storages", "tensors", "pickle")}
        ),
        "a tar that leads up.pth": tar_file({"../canary": b"x", "storages": secret, "pickle": b"x"}),
        "torchscript.pt": zipped(
            plain | {f"{root}/constants.pkl": pickle.dumps(payload), f"{root}/code/m.py": b"1"}
        ),
        "names that lead up.pth": zipped({"../canary": b"x", str(canary): b"x", link_entry("link"): b"/"}),
        "a bomb.pth": zipped(
            {f"{root}/data.pkl": plain[f"{root}/data.pkl"], f"{root}/data/0": bytes(1 << 26)},
            zipfile.ZIP_DEFLATED,
        ),
        "no tensors.pth": torch_file({"a": 1}),
        "half.pth": torch_file(tensors)[:-1000],
        "a pickle.safetensors": pickle.dumps(payload),
        "an absurd header.safetensors": safetensors_file({"a": one}, length=2**63 + 5),
        "a header of 4 GB.safetensors": safetensors_file({"a": one}, length=2**32),
        "overlap.safetensors": safetensors_file({"a": one, "b": one}),
        "beyond.safetensors": safetensors_file({"a": {**one, "data_offsets": [0, 2**40], "shape": [2**38]}}),
        "backwards.safetensors": safetensors_file({"a": {**one, "data_offsets": [16, 0]}}),
        "an absurd shape.safetensors": safetensors_file({"a": {**one, "shape": [2**62, 4]}}),
        "no bottom.safetensors": safetensors_file(b'{"a":' * 100_000),
        "others.safetensors": save({"\x1b[2J\nfeatx: error: x": torch.zeros(1)}),
        "others.pth": torch_file({"\x1b[2J\nfeatx: error: x": torch.zeros(1)}),
    }


def test_foreign_weights_run_nothing(payload, secret, canary, pictures, featx, tmp_path, subtests):
    from torchvision.models import squeezenet1_1

    tensors = squeezenet1_1().state_dict()
    hostile = weights(tensors, payload, secret, canary)
    rest = ("--cache", "cache", "--device", "cpu", "--precision", "float32")
    for name, content in hostile.items():
        with subtests.test(name):
            (tmp_path / name).write_bytes(content)
            told = featx("extract", pictures, "-x", f"squeezenet1_1:size=64:weights={name}", *rest, code=1)
            assert name in told.err
    assert len(hostile) == 22
    (tmp_path / "good.pth").write_bytes(torch_file(tensors))
    (tmp_path / "good.safetensors").write_bytes(save(tensors))
    for name in ("good.pth", "good.safetensors"):
        done = featx("extract", pictures, "-x", f"squeezenet1_1:size=64:weights={name}", *rest, "--json")
        assert json.loads(done.out)["extracted"] == N_PICTURES


# Manifests


@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.txt", "m.lst"])
def test_a_manifest_may_name_any_file_and_shows_none(name, secret, pictures, featx, tmp_path):
    fifo = tmp_path / "fifo.png"
    os.mkfifo(fifo)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    paths = ["../../secret", str(secret), "../../../../../../../../etc/passwd", "/dev/zero", str(fifo), "."]
    header = [] if name in ("m.txt", "m.lst") else ["path"]
    (inner / name).write_text("\n".join([*header, *paths, str(pictures / "0.png")]) + "\n")
    for more in (["--json"], []):
        done = featx("extract", inner / name, "-x", PIXELS, "--cache", "cache", *more, may_open=True)
        told = done.err.splitlines()
        assert len(told) == 6
        assert all(line.startswith("left out ") for line in told)
        assert "root:" not in done.out + done.err
        if more:
            reasons = [one["reason"] for one in json.loads(done.out)["failures"]]
            assert reasons[:3] == ["not an image (starts like text)"] * 3
            assert [reason.split("it is ")[1].split(",")[0] for reason in reasons[3:]] == [
                "a device",
                "a FIFO",
                "a folder",
            ]
