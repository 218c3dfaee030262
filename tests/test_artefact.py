import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import sklearn
import skops.io
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, SVR

from featx.artefact import FORMAT, TRUSTED_TYPES, load_artefact, save_artefact
from featx.errors import ModelError
from featx.evaluation.heads import head_names, load_head

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6)).astype(np.float32)
NUMBERS = X[:, 0] * 2 + 1
CLASSES = {"texts": np.repeat(["ant", "bee", "\udcff 蜂"], 20), "integers": np.repeat([-1, 5, 7], 20)}


class Homemade(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture
def fitted():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, CLASSES["texts"])


@pytest.fixture
def saved(tmp_path, fitted):
    path = tmp_path / "model.featx"
    save_artefact(path, record={"classes": ["ant", "bee"]}, head=fitted)
    return path


def members(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def rewritten(path, **changes):
    """Replace members of the saved file; None drops one."""
    found = members(path.read_bytes()) | {name.replace("_", "."): data for name, data in changes.items()}
    path.write_bytes(zipped({name: data for name, data in found.items() if data is not None}))


def assert_same_predictions(head, again, X=X):
    assert head.predict(X).dtype == again.predict(X).dtype
    np.testing.assert_array_equal(head.predict(X), again.predict(X))
    if hasattr(head, "predict_proba"):
        np.testing.assert_array_equal(head.predict_proba(X), again.predict_proba(X))


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", head_names())
def test_every_shipped_head_comes_back_with_the_same_predictions(tmp_path, name, kind):
    head = load_head(name)
    y = CLASSES[kind] if head.task == "classification" else NUMBERS
    fitted = head.pipeline.fit(X, y)
    save_artefact(tmp_path / "m.featx", record={}, head=fitted)
    assert_same_predictions(fitted, load_artefact(tmp_path / "m.featx")[1])


@pytest.mark.parametrize(
    "estimator",
    [
        SVC(kernel="linear"),
        KNeighborsClassifier(algorithm="kd_tree"),
        KNeighborsClassifier(algorithm="ball_tree"),
        MLPClassifier((4,), solver="sgd", tol=0.1, random_state=0),
        MLPClassifier((4,), solver="lbfgs", tol=0.1, random_state=0),
        SGDClassifier(random_state=0),
    ],
)
def test_plain_estimators_come_back_too(tmp_path, estimator):
    fitted = estimator.fit(X, CLASSES["texts"])
    save_artefact(tmp_path / "m.featx", record={}, head=fitted)
    assert_same_predictions(fitted, load_artefact(tmp_path / "m.featx")[1])


def test_every_trusted_type_is_one_that_such_heads_hold():
    heads = [
        KNeighborsClassifier(algorithm="kd_tree").fit(X, NUMBERS > 1),
        KNeighborsClassifier(algorithm="ball_tree").fit(X, NUMBERS > 1),
        MLPClassifier((4,), solver="sgd", tol=0.1, random_state=0).fit(X, NUMBERS > 1),
        MLPClassifier((4,), solver="adam", tol=0.1, random_state=0).fit(X, NUMBERS > 1),
        StackingClassifier([("a", LogisticRegression()), ("b", SVC())]).fit(X, NUMBERS > 1),
    ]
    needed = {kind for head in heads for kind in skops.io.get_untrusted_types(data=skops.io.dumps(head))}
    assert needed == set(TRUSTED_TYPES)


def test_the_record_comes_back_with_the_format_number(tmp_path):
    record = {"classes": ["蜂", "\udcff"], "cv": {"accuracy": 0.5}, "scikit_learn": "1.9.1"}
    save_artefact(tmp_path / "m.featx", record=record, head=SVR().fit(X, NUMBERS))
    assert load_artefact(tmp_path / "m.featx")[0] == record | {"format": FORMAT}


def test_nothing_else_is_left_in_the_folder_and_an_older_model_is_replaced(saved, fitted):
    save_artefact(saved, record={"second": True}, head=fitted)
    assert [path.name for path in saved.parent.iterdir()] == ["model.featx"]
    assert load_artefact(saved)[0]["second"] is True


@pytest.mark.parametrize(
    ("head", "record", "message"),
    [
        (
            Homemade(),
            {},
            r"its head holds .*Homemade, which featx does not trust; build the head from linear models",
        ),
        (make_pipeline(FunctionTransformer(os.path.join), SVC()), {}, r"holds posixpath\.join, which featx"),
        (SVC(), {"X": np.ones(2)}, "its record is not plain JSON"),
        (SVC(), {"r2": float("nan")}, "its record is not plain JSON"),
        (make_pipeline(SVC()).set_params(svc__C=lambda: 1), {}, "cannot be stored by skops|does not trust"),
        (
            SVC().set_params(C=csr_array(np.eye(3))),
            {},
            "archive within an archive|csr_array, which featx does not",
        ),
    ],
)
def test_what_could_not_be_loaded_again_is_refused_at_save_and_the_old_file_stays(
    saved, head, record, message
):
    before = saved.read_bytes()
    with pytest.raises(ModelError, match=message):
        save_artefact(saved, record=record, head=head)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.featx"]


def test_a_file_that_cannot_be_written_says_so(tmp_path, fitted):
    with pytest.raises(
        ModelError, match=r"no/m\.featx' cannot be written: No such file or directory; name a"
    ):
        save_artefact(tmp_path / "no" / "m.featx", record={}, head=fitted)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"model '.*/m\.featx' cannot be read: No such file or directory"):
        load_artefact(tmp_path / "m.featx")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and so on", pickle.dumps({"a": 1})])
def test_a_file_that_is_no_zip_is_refused(saved, content):
    saved.write_bytes(content)
    with pytest.raises(
        ModelError, match=r"model\.featx' is damaged or was not saved by featx: it is no zip"
    ) as caught:
        load_artefact(saved)
    assert str(caught.value).endswith("archive. Name a file that 'featx fit --out' wrote.")


def test_a_file_cut_short_or_with_a_flipped_bit_is_refused(saved):
    content = saved.read_bytes()
    saved.write_bytes(content[:-100])
    with pytest.raises(
        ModelError, match="is damaged or was not saved by featx: it does not begin with its first"
    ):
        load_artefact(saved)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    saved.write_bytes(flipped)
    with pytest.raises(ModelError, match="is damaged or was not saved by featx: Bad CRC-32"):
        load_artefact(saved)


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "model.pkl", "model.json/"])
def test_extra_members_are_refused_by_name(saved, name):
    saved.write_bytes(zipped(members(saved.read_bytes()) | {name: b""}))
    with pytest.raises(ModelError, match=f"must hold model.json and head.skops; it holds .*{name}"):
        load_artefact(saved)


def test_of_many_members_three_are_named_and_the_rest_counted(saved):
    saved.write_bytes(zipped({f"data/{number:03}" + "x" * 200: b"" for number in range(300)}))
    with pytest.raises(
        ModelError, match=r"it holds 'data/000x+, 'data/001x+, 'data/002x+ and 297 more\."
    ) as caught:
        load_artefact(saved)
    assert len(str(caught.value)) < 500


def test_missing_members_are_refused(saved):
    rewritten(saved, head_skops=None)
    with pytest.raises(
        ModelError, match=r"it holds 'model\.json'\. Name a file that 'featx fit --out' wrote"
    ):
        load_artefact(saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_given_twice_is_refused(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("model.json", "{}")
    with pytest.raises(ModelError, match="holds a member twice"):
        load_artefact(saved)


def test_a_compression_bomb_is_refused_before_it_is_unpacked(saved):
    bomb = bytes(8 << 20)
    saved.write_bytes(zipped({"model.json": b"{}", "head.skops": bomb}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match=r"model\.featx' holds '(model.json|head.skops)' compressed"):
        load_artefact(saved)


def test_a_compression_bomb_in_the_head_is_refused_before_it_is_unpacked(saved):
    inner = members(members(saved.read_bytes())["head.skops"])
    rewritten(saved, head_skops=zipped(inner | {"bomb.npy": bytes(8 << 20)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(ModelError, match=r"head\.skops of model '.*' holds '.*' compressed"):
        load_artefact(saved)


def test_a_compressed_sparse_matrix_in_the_head_is_refused(saved):
    inner = members(members(saved.read_bytes())["head.skops"])
    rewritten(saved, head_skops=zipped(inner | {"bomb.npz": zipped({"data": b""}, zipfile.ZIP_DEFLATED)}))
    with pytest.raises(ModelError, match="holds an archive within an archive"):
        load_artefact(saved)


def test_members_that_overlap_are_refused(saved):
    content = zipped({"model.json": bytes(1 << 16), "head.skops": b""})
    # Point the second directory entry, too, at the first member's bytes and sizes.
    entry = content.rindex(b"PK\x01\x02")
    first = content.index(b"PK\x01\x02")
    forged = bytearray(content)
    forged[entry + 16 : entry + 28] = content[first + 16 : first + 28]
    forged[entry + 42 : entry + 46] = content[first + 42 : first + 46]
    saved.write_bytes(forged)
    with pytest.raises(ModelError, match="declares 131,072 bytes within a file of"):
        load_artefact(saved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", r"model\.json is not JSON"),
        (b"\xff\xfe\x00", r"model\.json is not JSON"),
        (b"[" * 100_000, r"model\.json is not JSON"),
        (b"[1]", "has no format number"),
        (b"{}", "has no format number"),
        (b'{"format": true}', "has no format number"),
        (b'{"format": 3}', r"model\.featx' has format 3; this featx reads 1\. Upgrade featx\."),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(saved, text, message):
    rewritten(saved, model_json=text)
    with pytest.raises(ModelError, match=message):
        load_artefact(saved)


@pytest.mark.parametrize("data", [pickle.dumps(SVC()), b"", b"hello"])
def test_a_head_that_is_a_pickle_or_nothing_is_refused(saved, data):
    rewritten(saved, head_skops=data)
    with pytest.raises(
        ModelError, match=r"head\.skops of model '.*model\.featx' is damaged or was not saved by featx"
    ):
        load_artefact(saved)


def forged_head(saved, change):
    inner = members(members(saved.read_bytes())["head.skops"])
    schema = json.loads(inner["schema.json"])
    change(schema, inner)
    rewritten(saved, head_skops=zipped(inner | {"schema.json": json.dumps(schema).encode()}))


def test_a_type_off_the_list_is_refused_and_named_and_never_constructed(saved, tmp_path):
    def change(schema, inner):
        schema["__module__"], schema["__class__"] = "os", "system"

    forged_head(saved, change)
    with pytest.raises(
        ModelError, match=r"holds os\.system, which featx does not trust; it was made or changed"
    ):
        load_artefact(saved)


def test_a_head_of_a_type_of_the_users_own_is_refused_whatever_the_file_says(saved):
    rewritten(saved, head_skops=skops.io.dumps(Homemade().fit(X, NUMBERS)))
    with pytest.raises(ModelError, match=r"holds .*Homemade, which featx does not trust"):
        load_artefact(saved)


@pytest.mark.parametrize("vectorizer", [CountVectorizer, HashingVectorizer, TfidfVectorizer])
def test_a_head_that_opens_files_is_refused_although_skops_trusts_its_types(saved, vectorizer):
    head = make_pipeline(ColumnTransformer([("read", vectorizer(input="filename"), 0)]), LogisticRegression())
    inner = members(skops.io.dumps(head))
    escaped = inner["schema.json"].replace(b"sklearn.feature", b"sklear\\u006e.feature")
    for schema in (inner["schema.json"], escaped):
        rewritten(saved, head_skops=zipped(inner | {"schema.json": schema}))
        with pytest.raises(
            ModelError, match=r"holds sklearn\.feature_extraction\.text, which featx does not"
        ):
            load_artefact(saved)


def test_a_head_of_another_version_of_scikit_learn_is_said_once_by_the_log(saved, caplog):
    def change(schema, inner):
        version = json.dumps(json.dumps(sklearn.__version__))
        schema.update(json.loads(json.dumps(schema).replace(version, json.dumps('"9.9"'))))

    forged_head(saved, change)
    load_artefact(saved)
    [said] = caplog.records
    assert "head.skops of model" in said.getMessage()
    assert "from version 9.9" in said.getMessage()


@pytest.mark.parametrize("steps", [[], [("a", 3)], 3])
def test_a_head_without_parts_is_refused(saved, steps):
    pipeline = make_pipeline(SVC())
    pipeline.steps = steps
    rewritten(saved, head_skops=skops.io.dumps(pipeline))
    with pytest.raises(
        ModelError, match=r"head\.skops of model '.*' (is damaged|holds Pipeline, which predicts)"
    ):
        load_artefact(saved)


def test_a_pickle_inside_an_array_is_refused(saved, tmp_path):
    class Canary:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    def change(schema, inner):
        for name in inner:
            if name.endswith(".npy"):
                buffer = io.BytesIO()
                np.save(buffer, np.array([Canary()], dtype=object), allow_pickle=True)
                inner[name] = buffer.getvalue()

    forged_head(saved, change)
    with pytest.raises(ModelError, match=r"head\.skops of model '.*' is damaged: ValueError: .*allow_pickle"):
        load_artefact(saved)
    assert not (tmp_path / "sprung").exists()


def test_an_array_that_declares_more_than_it_holds_is_refused(saved):
    def change(schema, inner):
        for name in inner:
            if name.endswith(".npy"):
                buffer = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 10**3)}
                )
                inner[name] = buffer.getvalue()

    forged_head(saved, change)
    with pytest.raises(ModelError, match=r"head\.skops of model '.*' is damaged"):
        load_artefact(saved)


def test_a_head_that_predicts_nothing_is_refused(saved):
    rewritten(saved, head_skops=skops.io.dumps({"a": 1}))
    with pytest.raises(ModelError, match="holds dict, which predicts nothing"):
        load_artefact(saved)
