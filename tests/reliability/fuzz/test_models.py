"""Any record, any head of a model: it is applied, or refused in one line."""

import io
import json
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.errors import ModelError, UsageError

cases = runpy.run_path(str(Path(__file__).with_name("cases.py")))
in_one_line, mutated, some_json = cases["in_one_line"], cases["mutated"], cases["some_json"]


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
