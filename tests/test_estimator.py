import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
)

import featx
from featx import Extractor
from featx.errors import DecodeError, UsageError, WeightsError

COLOUR = "pixels:size=1"
BACKBONE = "nano:size=32"


@pytest.fixture
def paths(pictures):
    return sorted(map(str, pictures(24).iterdir()))


@pytest.fixture
def labels():
    return np.array(["even", "odd"] * 12)


@pytest.fixture
def memory(monkeypatch):
    """Give the estimator a memory that no other test has filled."""
    from featx import estimator

    estimator._open_cache.cache_clear()
    yield
    estimator._open_cache.cache_clear()


def keys_in_shards(cache):
    import h5py

    keys = []
    for path in Path(cache).rglob("*.h5"):
        with h5py.File(path) as file:
            keys += [key.tobytes() for key in file["keys"][:]]
    return keys


def test_init_only_assigns():
    check_parameters_default_constructible("Extractor", Extractor())
    check_no_attributes_set_in_init("Extractor", Extractor())


def test_parameters_are_read_set_and_cloned(tmp_path):
    extractor = Extractor("resnet50", layer=["layer3"], cache=tmp_path, precision="float32")
    assert clone(extractor).get_params() == extractor.get_params()
    assert extractor.set_params(extractors=COLOUR, layer=None).get_params()["extractors"] == COLOUR
    with pytest.raises(ValueError, match="Invalid parameter 'layers'"):
        extractor.set_params(layers="x")


def test_it_gives_the_matrix_of_extract(paths, tmp_path):
    extractors = f"{COLOUR}+glcm"
    matrix = Extractor(extractors, cache=tmp_path / "a").fit_transform(paths)
    np.testing.assert_array_equal(matrix, featx.extract(paths, extractors, cache=tmp_path / "b").X)
    assert matrix.dtype == np.float32


def test_it_transforms_without_being_fitted_but_names_its_columns_only_then(paths, memory):
    extractor = Extractor("pixels", size=1)
    assert extractor.transform(paths).shape == (24, 3)
    with pytest.raises(NotFittedError):
        extractor.get_feature_names_out()
    assert extractor.fit(paths).get_feature_names_out().tolist() == ["pixels_0", "pixels_1", "pixels_2"]
    assert [spec.name for spec in extractor.specs_] == ["pixels"]


def test_pandas_output_has_a_column_for_each_feature(paths, memory):
    frame = Extractor(COLOUR).set_output(transform="pandas").fit_transform(paths)
    assert list(frame.columns) == ["pixels_0", "pixels_1", "pixels_2"]
    assert len(frame) == 24


def test_a_pickle_holds_no_weights(paths, tmp_path):
    extractor = Extractor(BACKBONE, cache=tmp_path, device="cpu").fit(paths)
    matrix = extractor.transform(paths)
    assert matrix.shape == (24, 624)
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickled).transform(paths), matrix)


@pytest.fixture
def module():
    """Return a network of our own as an extractor, and the network."""
    import torch

    net = torch.nn.Conv2d(3, 4, 3)
    return featx.ModuleExtractor(net, name="net", preprocessing=featx.Preprocessing(resize=8, crop=8)), net


def test_a_clone_shares_the_network_of_a_module_and_a_pickle_holds_its_weights(module):
    given, net = module
    for extractors in (given, ["hog", given]):
        copied = clone(Extractor(extractors)).extractors
        assert (copied if extractors is given else copied[1]) is given
    again = pickle.loads(pickle.dumps(Extractor(given))).extractors
    assert again.module.weight.equal(net.weight)


def test_the_vectors_of_a_network_are_not_served_once_it_has_changed(module, paths, tmp_path):
    given, net = module
    extractor = clone(Extractor(given, cache=tmp_path, device="cpu"))
    before = extractor.fit_transform(paths)
    net.weight.data.mul_(2)
    for asked in (extractor, clone(extractor)):
        for method in (asked.fit, asked.transform):
            with pytest.raises(UsageError, match=r"module 'net' changed .*Make a new ModuleExtractor"):
                method(paths)
    anew = featx.ModuleExtractor(net, name="net", preprocessing=given.preprocessing)
    assert not np.allclose(extractor.set_params(extractors=anew).fit_transform(paths), before)


def test_a_module_goes_to_two_processes_with_its_weights(module, paths, labels, tmp_path):
    pipeline = make_pipeline(Extractor(module[0], cache=tmp_path, device="cpu"), LogisticRegression())
    alone = cross_val_score(pipeline, paths[:12], labels[:12], cv=3)
    scores = cross_val_score(clone(pipeline).set_params(extractor__cache=tmp_path / "b"), paths[:12], labels[:12],
                             cv=3, n_jobs=2)  # fmt: skip
    np.testing.assert_array_equal(scores, alone)
    assert sorted(set(keys_in_shards(tmp_path / "b"))) == sorted(keys_in_shards(tmp_path / "b"))


def test_it_joins_a_union_and_takes_a_column_of_a_frame(paths, memory):
    colour, pair = Extractor(COLOUR), Extractor("pixels:size=2")
    union = FeatureUnion([("one", colour), ("two", pair)]).fit_transform(paths)
    assert union.shape == (24, 3 + 12)
    frame = pd.DataFrame({"number": np.arange(24.0), "photo": paths})
    for column in ("photo", ["photo"]):
        columns = ColumnTransformer([("photo", colour, column), ("number", "passthrough", ["number"])])
        np.testing.assert_allclose(columns.fit_transform(frame)[:, :3], union[:, :3])


def test_a_grid_search_over_two_processes_computes_each_picture_once(paths, labels, tmp_path):
    repeated, answers = [*paths, *paths[:6]], np.concatenate([labels, labels[:6]])
    grid = {"logisticregression__C": [0.01, 1.0]}
    pipeline = make_pipeline(
        Extractor(f"{COLOUR}+glcm", cache=tmp_path / "cache"), StandardScaler(), LogisticRegression()
    )
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(repeated, answers)

    keys = keys_in_shards(tmp_path / "cache")
    assert len(keys) == 2 * 24
    assert len(set(keys)) == 24

    X = featx.extract(repeated, f"{COLOUR}+glcm").X
    plain = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()), grid, cv=3).fit(X, answers)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.predict(paths), plain.predict(X[:24]))


@pytest.mark.parametrize("backend", [None, "threading"])
def test_memory_serves_all_folds_clones_and_threads_of_a_process(paths, labels, memory, backend):
    import torch
    from joblib import parallel_config

    class Mean(torch.nn.Module):
        seen = 0

        def forward(self, images):
            if images.any():  # else it is only being measured
                Mean.seen += len(images)
            return images.mean((2, 3))

    preprocessing = featx.Preprocessing(resize=4, crop=4)
    module = featx.ModuleExtractor(Mean(), name="mean", preprocessing=preprocessing)
    pipeline = make_pipeline(Extractor(module, device="cpu"), LogisticRegression())
    if backend is None:
        cross_val_score(pipeline, paths, labels, cv=4)
    else:
        with parallel_config(backend, n_jobs=4):
            cross_val_score(pipeline, paths, labels, cv=4)
    assert Mean.seen == 24


def test_a_broken_file_is_named(paths, tmp_path):
    Path(paths[5]).write_bytes(b"broken")
    with pytest.raises(DecodeError, match=r"005\.png'"):
        Extractor(COLOUR, cache=tmp_path).fit_transform(paths)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"extractors": "hogg"}, UsageError, "no extractor is called 'hogg'"),
        ({"extractors": COLOUR, "precision": "half"}, UsageError, "precision: expected one of"),
        ({"extractors": COLOUR, "workers": 0}, UsageError, "workers: expected"),
        ({"extractors": "hog+lbp", "size": 3}, UsageError, "keywords size go with one extractor's name"),
        ({"extractors": "resnet18", "weights": "/no/such.pth"}, WeightsError, r"/no/such\.pth"),
    ],
)
def test_fit_refuses_what_transform_could_not_do(paths, parameters, error, message, memory):
    with pytest.raises(error, match=message):
        Extractor(**parameters).fit(paths)
