import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from featx.errors import UsageError
from featx.evaluation.cross_validation import cross_validate, search
from featx.evaluation.folds import Fold
from featx.evaluation.fused_search import check_components, stacking_folds
from featx.evaluation.heads import Head, load_head

ONE_NEAREST = Head("1-NN", KNeighborsClassifier(1), {}, "classification")


@pytest.fixture
def data():
    """Return a part of four columns and one of two, both of which tell something of two classes."""
    random = np.random.default_rng(0)
    y = np.tile(["ant", "bee"], 30)
    X = random.normal(size=(60, 6)) + 1.5 * (y == "ant")[:, None]
    return X, y


def copied(n_distinct):
    """Return noise and a weak signal, every row twice, with the group and the key of every row."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, n_distinct)
    X = np.hstack([random.normal(size=(n_distinct, 6)), 2 * y[:, None] + random.normal(size=(n_distinct, 1))])
    twice = np.repeat(np.arange(n_distinct), 2)
    keys = np.zeros((2 * n_distinct, 32), np.uint8)
    keys[:, 0], keys[:, 1] = twice % 256, twice // 256
    return X[twice], y[twice], {"groups": twice, "keys": keys}


@pytest.mark.parametrize("told_by", ["groups", "keys"])
def test_groups_and_exact_copies_stay_together_inside_a_stack(told_by):
    X, y, together = copied(300)
    stack = search(X, y, ONE_NEAREST, widths=[6, 1], fusion="late", **{told_by: together[told_by]}).estimator
    weight_of_noise, weight_of_signal = np.abs(stack.final_estimator_[-1].coef_[0])
    assert weight_of_noise < 0.5 * weight_of_signal


def test_the_folds_of_a_stack_are_positions_and_test_every_row_once():
    y = np.tile(["ant", "bee"], 30)
    groups = np.arange(60) // 4
    fold = Fold(np.random.default_rng(0).permutation(np.arange(20, 60)), np.arange(20), [])
    inner = stacking_folds(y, fold, task="classification", cv=4, groups=groups, random_state=0)
    assert len(inner) == 4
    assert np.sort(np.concatenate([test for _, test in inner])).tolist() == list(range(40))
    for train, test in inner:
        assert sorted([*train, *test]) == list(range(40))
        assert not set(groups[fold.train[train]]) & set(groups[fold.train[test]])


def test_a_class_that_the_groups_leave_out_of_a_training_part_is_told():
    counts = {"g": (30, 30, 30, 30, 0), "h": (10, 10, 10, 10, 1), "i": (10, 10, 10, 10, 1)}
    y = np.concatenate([np.repeat(list("abcde"), numbers) for numbers in counts.values()])
    groups = np.repeat([0, 1, 2], [120, 41, 41])
    fold = Fold(np.arange(len(y)), np.arange(0), [])
    with pytest.raises(UsageError, match="late fusion needs every class in every training part"):
        stacking_folds(y, fold, task="classification", cv=5, groups=groups, random_state=0)


def test_a_class_that_a_training_part_has_once_is_told(data):
    X, y = data
    y[:2] = "cat"
    with pytest.raises(UsageError, match=r"late fusion needs two rows .* a single one of class 'cat'"):
        cross_validate(X, y, ONE_NEAREST, cv=2, widths=[4, 2], fusion="late")
    numbers = load_head("ridge_regression")
    groups = np.arange(60) // 30
    with pytest.raises(UsageError, match="a single one of the data"):
        cross_validate(
            X, X[:, 0], load_head(numbers.pipeline), cv=2, groups=groups, widths=[4, 2], fusion="late"
        )


def test_late_fusion_is_estimated_searched_and_fitted_on_all(data):
    X, y = data
    head = load_head("ridge")
    evaluation = cross_validate(X, y, head, cv=3, widths=[4, 2], fusion="late")
    assert evaluation.metrics["accuracy"].mean > 0.9
    assert [sorted(params) for params in evaluation.best_params] == [
        ["part1__ridgeclassifier__alpha", "part2__ridgeclassifier__alpha"]
    ] * 3
    found = search(X, y, head, cv=3, widths=[4, 2], fusion="late")
    alone = search(X[:, 4:], y, head, cv=3)
    assert found.best_params["part2__ridgeclassifier__alpha"] == alone.best_params["ridgeclassifier__alpha"]
    assert found.estimator.cv == 3
    assert found.best_score is None
    np.testing.assert_array_equal(
        found.estimator.estimators_[1].decision_function(X), alone.estimator.decision_function(X[:, 4:])
    )


def test_late_fusion_works_for_numbers(data):
    X, _ = data
    y = X @ [1, 0, 0, 0, 2, 0]
    evaluation = cross_validate(X, y, load_head("ridge_regression"), cv=3, widths=[4, 2], fusion="late")
    alone = cross_validate(X[:, 4:], y, load_head("ridge_regression"), cv=3)
    assert evaluation.metrics["r2"].mean > alone.metrics["r2"].mean > 0.5


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "test"), ("train", "val")])
@pytest.mark.parametrize("head", [load_head("ridge"), ONE_NEAREST], ids=["ridge", "1-NN"])
def test_late_fusion_works_on_the_data_s_own_split(data, splits, head):
    X, y = data
    given = np.repeat(splits, 60 // len(splits))
    shared = {"splits": given, "widths": [4, 2], "fusion": "late"}
    evaluation = cross_validate(X, y, head, **shared)
    assert evaluation.metrics["accuracy"].mean > 0.75
    tested = evaluation.fold_of_row >= 0
    found = search(X, y, head, **shared)
    np.testing.assert_array_equal(found.estimator.predict(X[tested]), evaluation.predictions[tested])


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_a_tested_row_moves_neither_scales_nor_components(data, fusion):
    X, _ = data
    y = X @ [1, 0, 0, 0, 2, 0]
    splits = np.repeat(["train", "test"], 30)
    shared = {"splits": splits, "widths": [4, 2], "n_components": 2, "fusion": fusion}
    before = cross_validate(X, y, load_head("ridge_regression"), **shared).predictions
    X[40] *= 1e6
    after = cross_validate(X, y, load_head("ridge_regression"), **shared).predictions
    others = np.r_[30:40, 41:60]
    assert after[40] != before[40]
    np.testing.assert_array_equal(after[others], before[others])


def test_early_fusion_without_components_is_the_plain_search(data):
    X, y = data
    fused = cross_validate(X, y, load_head("ridge"), cv=3, widths=[4, 2])
    plain = cross_validate(X, y, load_head("ridge"), cv=3)
    assert fused.best_params == plain.best_params
    np.testing.assert_array_equal(fused.predictions, plain.predictions)


def test_more_components_than_a_training_part_has_rows_are_refused_by_part(data):
    X, y = data
    X = np.hstack([X, X, X, X, X, X])
    with pytest.raises(
        UsageError,
        match=r"30 components of part 2, 34 features wide: the smallest training part has 26 rows.* 26 components or",
    ):
        cross_validate(X, y, load_head("logreg"), cv=3, widths=[2, 34], n_components=30)
    fold = Fold(np.arange(20), np.arange(0), [(np.arange(15), np.arange(15, 20))])
    check_components(15, [40], [fold])
    check_components(16, [16, 3], [fold])
    with pytest.raises(UsageError, match="16 components of part 1"):
        check_components(16, [40], [fold])


def test_components_that_only_a_stack_has_too_few_rows_for_are_refused_before_anything_is_fitted(data):
    X, y = data
    X = np.hstack([X] * 8)
    told = []
    splits = ["train"] * 40 + ["val"] * 4 + ["test"] * 16
    with pytest.raises(UsageError, match=r"PCA cannot make 24 components of part 2.* has 22 rows"):
        cross_validate(
            X, y, load_head("ridge"), cv=2, splits=splits, widths=[8, 40], fusion="late", n_components=24,
            progress=lambda *counts: told.append(counts),
        )  # fmt: skip
    assert not told


def test_widths_that_are_not_those_of_the_columns_are_refused(data):
    X, y = data
    with pytest.raises(UsageError, match=r"widths must add up to the 6 columns of X; got \[4, 1\]"):
        cross_validate(X, y, load_head("logreg"), widths=[4, 1])


def test_what_cannot_be_fused_is_refused_before_anything_is_fitted(data):
    X, y = data
    told = []
    head, progress = load_head("ridge"), lambda *counts: told.append(counts)
    with pytest.raises(UsageError, match="two extractors or more, got 1"):
        cross_validate(X, y, head, fusion="late", progress=progress)
    with pytest.raises(UsageError, match="n_components must be a whole number"):
        search(X, y, head, widths=[4, 2], n_components=0, progress=progress)
    assert not told


def test_progress_of_late_fusion_counts_the_fits_of_all_parts(data):
    X, y = data
    told = []
    cross_validate(
        X,
        y,
        load_head("ridge"),
        cv=2,
        widths=[4, 2],
        fusion="late",
        progress=lambda *counts: told.append(counts),
    )
    n_fits = 9 * 2 * 2 * 2
    assert told == [(done, n_fits) for done in range(1, n_fits + 1)]
