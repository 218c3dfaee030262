import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from featx.errors import UsageError
from featx.evaluation.fusion import check_fusion, early, late, part_columns, part_heads, parts_matrix, plain
from featx.evaluation.grid_search import Choice
from featx.evaluation.heads import Head, head_names, load_head

WIDTHS = [8, 3, 5]
STACKABLE = [name for name in head_names() if name != "centroid"]
UNCHOSEN = [Choice({}, None, {}, [])] * len(WIDTHS)


@pytest.fixture
def data():
    """Return three parts side by side, the first of which tells three classes, and the classes."""
    random = np.random.default_rng(0)
    y = np.repeat(["ant", "bee", "cat"], 20)
    X = random.normal(size=(60, sum(WIDTHS))).astype(np.float32)
    X[:, 0] += 6 * (y == "ant")
    X[:, 1] += 6 * (y == "bee")
    X[:, 8:11] *= 1000
    return X, y


def thirds(n_rows):
    """Return three folds of so many rows, by position."""
    every = np.arange(n_rows)
    return [(every[every % 3 != k], every[every % 3 == k]) for k in range(3)]


def steps(head):
    return [name for name, _ in head.pipeline.steps]


@pytest.mark.parametrize("name", head_names())
def test_early_fusion_without_components_is_the_head_on_the_concatenation(data, name):
    X, y = data
    head = load_head(name)
    y = X[:, 0] if head.task == "regression" else y
    fused = early(head, WIDTHS)
    np.testing.assert_array_equal(fused.pipeline.fit(X, y).predict(X), head.pipeline.fit(X, y).predict(X))
    assert fused.candidates == head.candidates


def test_components_are_made_of_each_part_and_a_narrow_part_is_standardised_only(data):
    X, y = data
    parts = early(load_head("logreg"), WIDTHS, n_components=3).pipeline.fit(X, y)[0]
    found = parts.transform(X)
    assert found.shape == (60, 3 + 3 + 3)
    for columns, got in zip(part_columns(WIDTHS), np.split(found, 3, axis=1), strict=True):
        scaled = (X[:, columns] - X[:, columns].mean(0)) / X[:, columns].std(0)
        if scaled.shape[1] > 3:
            left, size, _ = np.linalg.svd(scaled, full_matrices=False)
            scaled = left[:, :3] * size[:3]
        np.testing.assert_allclose(np.abs(got), np.abs(scaled), atol=1e-4)


def test_components_keep_their_variance(data):
    X, y = data
    fused = early(load_head("logreg"), WIDTHS, n_components=4).pipeline.fit(X, y)
    spread = fused[:-1].transform(X).std(0)
    assert spread[0] > 1.2 * spread[3]


def test_all_components_tell_what_all_features_tell(data):
    X, y = data
    head = load_head("ridge")
    fused = early(head, [16], n_components=15).pipeline.set_params(ridgeclassifier__alpha=50)
    full = head.pipeline.set_params(ridgeclassifier__alpha=50)
    X[:, 15] = X[:, 14]  # rank 15
    np.testing.assert_allclose(
        fused.fit(X, y).decision_function(X), full.fit(X, y).decision_function(X), atol=1e-4
    )


@pytest.mark.parametrize(
    ("pipeline", "grid", "expected"),
    [
        (make_pipeline(StandardScaler(), GaussianNB()), {}, ["parts", "gaussiannb"]),
        (
            make_pipeline(StandardScaler(with_mean=False), GaussianNB()),
            {},
            ["parts", "standardscaler", "gaussiannb"],
        ),
        (make_pipeline(MinMaxScaler(), GaussianNB()), {}, ["parts", "minmaxscaler", "gaussiannb"]),
        (
            make_pipeline(StandardScaler(), GaussianNB()),
            {"standardscaler__with_std": [True, False]},
            ["parts", "standardscaler", "gaussiannb"],
        ),
        (
            make_pipeline(StandardScaler(), GaussianNB()),
            [{"standardscaler": ["passthrough"]}, {}],
            ["parts", "standardscaler", "gaussiannb"],
        ),
        (GaussianNB(), {"var_smoothing": [0.1]}, ["parts", "gaussiannb"]),
    ],
)
def test_of_the_head_only_a_plain_scaler_that_is_not_searched_is_left_out(pipeline, grid, expected, data):
    fused = early(Head("mine", pipeline, grid, "classification"), WIDTHS, n_components=2)
    assert steps(fused) == expected
    for candidate in fused.candidates:
        fused.pipeline.set_params(**candidate).fit(*data)


@pytest.mark.parametrize("name", STACKABLE)
def test_the_grid_of_every_shipped_head_works_with_components_and_on_a_part_of_a_stack(name):
    head = load_head(name)
    fused = early(head, WIDTHS, n_components=2)
    fused.pipeline.set_params(**fused.candidates[-1])
    part = part_heads(head, WIDTHS, n_components=2)
    choices = [Choice(one.candidates[-1], None, {}, []) for one in part]
    stack = late(head, WIDTHS, choices, thirds(60), n_components=2)
    assert stack.candidates == [{}]
    for key, value in choices[0].params.items():
        assert stack.pipeline.get_params()[f"part1__{key}"] == value


def test_components_of_other_rows_are_not_moved_by_a_row_that_is_only_tested(data):
    X, y = data
    parts = early(load_head("logreg"), WIDTHS, n_components=3).pipeline
    before = parts.fit(X[:50], y[:50])[:-1].transform(X[:50])
    X[55] = 1e9
    np.testing.assert_array_equal(parts.fit(X[:50], y[:50])[:-1].transform(X[:50]), before)


@pytest.mark.parametrize("name", STACKABLE)
def test_every_shipped_head_with_class_scores_can_be_stacked(data, name):
    X, y = data
    head = load_head(name)
    y = X[:, 0] * 2 + 1 if head.task == "regression" else y
    fitted, new = np.arange(60) % 5 > 0, np.arange(60) % 5 == 0
    short = [Choice({"mlpclassifier__tol": 0.01}, None, {}, [])] * len(WIDTHS)
    stack = late(head, WIDTHS, short if name == "mlp" else UNCHOSEN, thirds(48)).pipeline.fit(
        X[fitted], y[fitted]
    )
    told, X, y = stack.predict(X[new]), X[new], y[new]
    if head.task == "classification":
        assert stack.classes_.tolist() == ["ant", "bee", "cat"]
        assert (told == y).mean() > 0.8
        assert stack.predict_proba(X).shape == (12, 3)
    else:
        assert stack.n_features_in_ == 16
        assert np.corrcoef(told, y)[0, 1] > 0.8


def test_each_part_of_a_stack_sees_its_own_columns_and_parameters(data):
    X, y = data
    choices = [Choice({"logisticregression__C": 10.0**number}, None, {}, []) for number in range(3)]
    stack = late(load_head("logreg"), WIDTHS, choices, thirds(60)).pipeline.fit(X, y)
    for number, (part, columns) in enumerate(zip(stack.estimators_, part_columns(WIDTHS), strict=True)):
        alone = load_head("logreg").pipeline.set_params(logisticregression__C=10.0**number)
        codes = np.unique(y, return_inverse=True)[1]
        np.testing.assert_array_equal(
            part.predict_proba(X), alone.fit(X[:, columns], codes).predict_proba(X[:, columns])
        )


def test_a_part_that_knows_its_training_rows_by_heart_does_not_rule_the_stack():
    random = np.random.default_rng(0)
    y = np.arange(600) % 2
    noise = random.normal(size=(600, 6))
    signal = y[:, None] + random.normal(size=(600, 1))
    X = np.hstack([noise, signal])
    one_nearest = Head("1-NN", KNeighborsClassifier(1), {}, "classification")
    stack = late(one_nearest, [6, 1], UNCHOSEN[:2], thirds(600)).pipeline.fit(X, y)
    assert all((part.predict(X) == y).all() for part in stack.estimators_)
    weight_of_noise, weight_of_signal = np.abs(stack.final_estimator_[-1].coef_[0])
    assert weight_of_noise < 0.25 * weight_of_signal


def test_the_last_head_sees_only_what_was_said_of_rows_that_were_not_fitted_on(data):
    X, y = data
    folds = thirds(60)
    stack = late(load_head("logreg"), WIDTHS, UNCHOSEN, folds).pipeline.fit(X, y)
    told = []
    for columns in part_columns(WIDTHS):
        out_of_fold = np.empty((60, 3))
        for train, validation in folds:
            part = load_head("logreg").pipeline.fit(X[train, columns], y[train])
            out_of_fold[validation] = part.predict_proba(X[validation, columns])
        told.append(out_of_fold)
    by_hand = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(np.hstack(told), y)
    np.testing.assert_allclose(stack.final_estimator_[-1].coef_, by_hand[-1].coef_, atol=1e-6)


def test_balanced_classes_stay_balanced_in_the_last_head():
    balanced = load_head("logreg", class_weight="balanced")
    assert late(balanced, WIDTHS, UNCHOSEN, thirds(9)).pipeline.final_estimator[-1].class_weight == "balanced"
    assert (
        late(load_head("knn"), WIDTHS, UNCHOSEN, thirds(9)).pipeline.final_estimator[-1].class_weight is None
    )


@pytest.mark.parametrize(
    "folds",
    [
        [(np.arange(5, 10), np.arange(5))],
        [(np.arange(5, 10), np.arange(5)), (np.arange(5), np.arange(4, 10))],
        [(np.arange(4, 10), np.arange(5)), (np.arange(5), np.arange(5, 10))],
        [(np.arange(15, 20), np.arange(10, 15)), (np.arange(10, 15), np.arange(15, 20))],
    ],
)
def test_folds_that_are_no_partition_of_the_rows_fitted_on_are_refused(folds):
    with pytest.raises(UsageError, match="each row it is fitted on once, by its position"):
        late(load_head("logreg"), WIDTHS, UNCHOSEN, folds)


def test_what_cannot_be_fused_is_refused_in_one_line():
    head = load_head("logreg")
    with pytest.raises(UsageError, match="unknown fusion 'middle'; expected one of early, late"):
        check_fusion(head, fusion="middle", n_parts=2)
    with pytest.raises(UsageError, match="two extractors or more, got 1"):
        check_fusion(head, fusion="late", n_parts=1)
    for wrong in (0, -1, 0.5, "mle", True):
        with pytest.raises(UsageError, match="whole number, at least 1, or None for no PCA; got"):
            check_fusion(head, n_parts=1, n_components=wrong)
    by_name = load_head("logreg", class_weight={"ant": 2})
    check_fusion(by_name, fusion="early", n_parts=2)
    with pytest.raises(UsageError, match="cannot weigh classes by name, as head 'logreg' does"):
        check_fusion(by_name, fusion="late", n_parts=2)
    with pytest.raises(UsageError, match="weighs the class scores of its heads, which head 'centroid' lacks"):
        check_fusion(load_head("centroid"), fusion="late", n_parts=2)
    check_fusion(load_head("centroid"), fusion="early", n_parts=2)
    searched = Head("mine", LogisticRegression(), {"class_weight": [None, {"ant": 2}]}, "classification")
    with pytest.raises(UsageError, match="cannot weigh classes by name"):
        check_fusion(searched, fusion="late", n_parts=2)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_fitted_head_answers_the_same_when_saved_and_without_its_folds(fusion):
    random = np.random.default_rng(0)
    X, y = random.normal(size=(30, 90)), np.arange(30) % 2
    head, widths = load_head("logreg"), [60, 30]
    fused = (
        early(head, widths, n_components=2)
        if fusion == "early"
        else late(head, widths, UNCHOSEN[:2], thirds(30), n_components=2)
    )
    fitted = fused.pipeline.fit(X, y)
    before = fitted.predict_proba(X)
    assert plain(fitted) is fitted
    assert fusion == "early" or fitted.cv == 3
    data = skops.io.dumps(fitted)
    again = skops.io.loads(data, trusted=["sklearn.utils._bunch.Bunch"])
    np.testing.assert_array_equal(again.predict_proba(X), before)


def test_a_plain_regressor_is_stacked_too(data):
    X, _ = data
    linear = load_head(LinearRegression())
    y = X[:, 0] + X[:, 9] / 1000
    stack = late(linear, WIDTHS, UNCHOSEN, thirds(60)).pipeline.fit(X, y)
    assert stack.score(X, y) > 0.9


def test_parts_have_their_own_columns_in_the_order_asked_for_and_neighbours_are_not_copied():
    X = np.arange(12).reshape(2, 6)
    assert parts_matrix(X, [1, 2, 3], [1]).tolist() == [[1, 2], [7, 8]]
    assert parts_matrix(X, [1, 2, 3], [2, 0]).tolist() == [[3, 4, 5, 0], [9, 10, 11, 6]]
    assert parts_matrix(X, [1, 2, 3], [1, 0]).tolist() == [[1, 2, 0], [7, 8, 6]]
    neighbours = parts_matrix(X, [1, 2, 3], [0, 1])
    assert neighbours.tolist() == [[0, 1, 2], [6, 7, 8]]
    assert np.shares_memory(neighbours, X)
