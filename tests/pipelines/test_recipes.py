import importlib
import inspect

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits, make_regression
from sklearn.model_selection import ParameterGrid, train_test_split
from sklearn.pipeline import Pipeline

CLASSIFICATION = ["centroid", "knn", "linear_svm", "logreg", "mlp", "ridge", "svm"]
REGRESSION = ["ridge_regression", "svr"]


def recipe(name):
    return importlib.import_module(f"featx.pipelines.{name}")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X[:500].astype(np.float32), y[:500], random_state=0, stratify=y[:500])


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_a_classification_recipe_learns_digits_without_a_warning(name, digits):
    X_train, X_test, y_train, y_test = digits
    pipeline = recipe(name).build()
    assert isinstance(pipeline, Pipeline)
    assert is_classifier(pipeline)
    assert pipeline.fit(X_train, y_train).score(X_test, y_test) > 0.8


@pytest.mark.parametrize("name", REGRESSION)
def test_a_regression_recipe_learns_labels_of_any_unit_without_a_warning(name):
    X, y = make_regression(300, 20, noise=1.0, random_state=0)
    fitted = {}
    for unit in (1e-3, 1e3):
        pipeline = recipe(name).build()
        assert is_regressor(pipeline)
        (key,) = recipe(name).grid()
        pipeline.set_params(**{key: 1.0})
        fitted[unit] = pipeline.fit(X[:200], y[:200] * unit).score(X[200:], y[200:] * unit)
        assert fitted[unit] > 0.4
    assert fitted[1e-3] == pytest.approx(fitted[1e3], abs=1e-6)


@pytest.mark.parametrize("name", CLASSIFICATION + REGRESSION)
def test_scaling_happens_inside_the_pipeline_so_units_do_not_matter(name):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12))
    y = np.repeat([0, 1], 30) if name in CLASSIFICATION else X[:, 0] + 1.0
    X[:30, 1] += 3
    pipeline = recipe(name).build()
    before, after = pipeline.fit(X, y).predict(X), clone(pipeline).fit(X * 64 + 5, y).predict(X * 64 + 5)
    np.testing.assert_allclose(before, after, atol=1e-4)


@pytest.mark.parametrize("name", CLASSIFICATION + REGRESSION)
def test_every_candidate_of_a_grid_can_be_set_and_starts_with_the_most_regularised(name):
    grid, pipeline = recipe(name).grid(), recipe(name).build()
    for candidate in ParameterGrid(grid):
        clone(pipeline).set_params(**candidate)
    for key, values in grid.items():
        if key.endswith("__C"):
            assert values == sorted(values)
        elif key.endswith(("alpha", "n_neighbors")):
            assert values == sorted(values, reverse=True)


def test_logreg_searches_every_decade_from_a_millionth_to_a_hundred_thousand():
    (values,) = recipe("logreg").grid().values()
    np.testing.assert_allclose(values, np.logspace(-6, 5, 12))


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_class_weights_reach_the_estimator_where_the_recipe_takes_them(name):
    build = recipe(name).build
    if "class_weight" in inspect.signature(build).parameters:
        assert build(class_weight="balanced")[-1].class_weight == "balanced"
    else:
        assert not hasattr(build()[-1], "class_weight")


@pytest.mark.parametrize("name", ["linear_svm", "logreg", "mlp"])
def test_the_seed_reaches_the_estimator(name):
    assert recipe(name).build(random_state=7)[-1].random_state == 7


def test_knn_ranks_neighbours_by_the_angle_between_standardised_rows():
    X = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    neighbours = recipe("knn").build(n_neighbors=1).fit(X, ["east", "west", "north", "south"])
    # Far along the diagonal, a little to the north: by distance any would do, by angle it is north.
    assert neighbours.predict([[40.0, 41.0], [0.02, 0.01]]).tolist() == ["north", "east"]


def test_centroid_accepts_a_feature_that_never_varies():
    X = np.array([[1.0, 0.0, 5.0], [1.1, 0.1, 5.0], [0.0, 1.0, 5.0], [0.1, 1.1, 5.0]])
    head = recipe("centroid").build().fit(X, ["a", "a", "b", "b"])
    assert head.predict(X).tolist() == ["a", "a", "b", "b"]
