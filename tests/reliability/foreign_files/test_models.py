"""Models that somebody else made: nothing in them is run, and nothing beside them read."""

import io
import json
import os
import pickle
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, StandardScaler

import featx as library
from featx.extractors.spec import ExtractorSpec

archives = runpy.run_path(str(Path(__file__).with_name("archives.py")))
zipped, unzipped, link_entry = archives["zipped"], archives["unzipped"], archives["link_entry"]


@pytest.fixture
def model(tmp_path, pictures):
    """Fit a sound model, save it as ``good.featx``, and return its members."""
    fitted = library.fit(
        sorted(pictures.iterdir()),
        "pixels:size=1",
        labels=["a", "a", "b", "b"],
        head=LogisticRegression(),
        cv=2,
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
    found = json.loads(model["model.json"])
    [one] = found["extractors"]
    one |= changes.pop("extractor", {})
    spec = ExtractorSpec.from_json({key: value for key, value in one.items() if key != "fingerprint"})
    one["fingerprint"] = spec.fingerprint
    return zipped(model | {"model.json": json.dumps(found | changes).encode()})


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
