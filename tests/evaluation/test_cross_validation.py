import re

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.evaluation.cross_validation import check_labels, cross_validate, search
from featx.evaluation.heads import Head, load_head


@pytest.fixture(autouse=True)
def one_blas_thread():
    """As featx fits; two threads on matrices this small are many times slower on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def digits(n=200):
    X, y = load_digits(return_X_y=True)
    return X[:n].astype(np.float32), np.array([f"digit {label}" for label in y[:n]])


def nearest_neighbour():
    return load_head(make_pipeline(StandardScaler(), KNeighborsClassifier(1)))


SEEN = []


class Spy(ClassifierMixin, BaseEstimator):
    """Answers the first class; writes down the rows it is fitted and asked on, known by their first column."""

    def __init__(self, C=1.0):
        self.C = C

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        SEEN.append(("fit", set(X[:, 0])))
        return self

    def predict(self, X):
        SEEN.append(("predict", set(X[:, 0])))
        return np.full(len(X), self.classes_[0])


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_the_estimate_is_that_of_a_plain_nested_scikit_learn_script(n_jobs):
    X, y = digits(150)
    head = load_head("logreg")
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_score(GridSearchCV(head.pipeline, head.grid, cv=cv), X, y, cv=cv)
    evaluation = cross_validate(X, y, head, cv=3, n_jobs=n_jobs)
    np.testing.assert_allclose(evaluation.metrics["accuracy"].folds, expected, atol=1 / 50 + 1e-9)
    assert evaluation.metrics["accuracy"].mean > 0.8
    assert evaluation.baseline["accuracy"].mean < 0.15
    assert evaluation.notes == []


def test_every_row_is_predicted_once_by_a_fit_that_never_saw_it():
    X = np.arange(30.0)[:, None]
    y = np.tile([0, 1], 15)
    SEEN.clear()
    evaluation = cross_validate(X, y, Head("spy", Spy(), {"C": [1, 2]}, "classification"), cv=3)
    folds = [set(np.flatnonzero(evaluation.fold_of_row == number).astype(float)) for number in range(3)]
    assert sorted(len(fold) for fold in folds) == [10, 10, 10]
    events = iter(SEEN)
    everything = set(X[:, 0])
    for (
        fold
    ) in folds:  # the search: two candidates by three inner folds, on nothing but the outer training part
        for _ in range(6):
            (_, fitted), (_, asked) = next(events), next(events)
            assert fitted | asked == everything - fold
            assert not fitted & asked
    for fold in folds:
        (_, fitted), (_, asked) = next(events), next(events)
        assert (fitted, asked) == (everything - fold, fold)
    assert not evaluation.predictions.mask.any()


def test_labels_without_meaning_are_predicted_at_chance():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(160, 300)), rng.permutation(np.repeat(["a", "b"], 80))
    for head in ("logreg", "centroid"):
        # Four standard deviations of a fair coin tossed 160 times.
        assert abs(cross_validate(X, y, load_head(head)).metrics["accuracy"].mean - 0.5) < 4 * 0.5 / 160**0.5


def test_exact_copies_do_not_leak_when_their_digests_are_known():
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 20)), 2, axis=0)
    y = np.repeat(rng.permutation(np.repeat([0, 1], 30)), 2)
    keys = np.repeat(rng.integers(0, 256, (60, 32), dtype=np.uint8), 2, axis=0)
    assert cross_validate(X, y, nearest_neighbour()).metrics["accuracy"].mean > 0.75
    honest = cross_validate(X, y, nearest_neighbour(), keys=keys)
    assert honest.metrics["accuracy"].mean < 0.7
    assert (honest.fold_of_row[::2] == honest.fold_of_row[1::2]).all()


def test_groups_are_never_split():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 100).astype(str)
    X, y = rng.normal(size=(100, 5)), np.tile(["a", "b"], 50)
    evaluation = cross_validate(X, y, load_head("centroid"), groups=groups)
    for group in np.unique(groups):
        assert len(set(evaluation.fold_of_row[groups == group])) == 1


def test_scaling_is_learnt_in_each_fold_alone():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.tile([0, 1], 30)
    X[:, 0] += y
    X[7, 1] = 50.0  # a scaler that sees this row squeezes the second feature of all others
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    inside = cross_val_score(nearest_neighbour().pipeline, X, y, cv=cv)
    outside = cross_val_score(KNeighborsClassifier(1), StandardScaler().fit_transform(X), y, cv=cv)
    assert inside.tolist() != outside.tolist()
    assert cross_validate(X, y, nearest_neighbour()).metrics["accuracy"].folds == inside.tolist()


def test_class_weights_are_those_of_the_training_rows():
    X, y = digits()
    X, y = X[np.argsort(y)][:60], np.sort(y)[:60]
    head = load_head("linear_svm", class_weight="balanced")
    cv = StratifiedKFold(3, shuffle=True, random_state=0)
    expected = cross_val_score(GridSearchCV(head.pipeline, head.grid, cv=cv), X, y, cv=cv)
    assert cross_validate(X, y, head, cv=3).metrics["accuracy"].folds == pytest.approx(expected.tolist())


def test_per_class_scores_and_confusion_are_those_of_the_predictions():
    X, y = digits()
    evaluation = cross_validate(X, y, load_head("centroid"))
    assert evaluation.classes == sorted(set(y))
    assert evaluation.primary == "accuracy"
    assert evaluation.confusion.sum() == len(y)
    recalls = np.diag(evaluation.confusion) / evaluation.confusion.sum(axis=1)
    np.testing.assert_allclose([row["recall"] for row in evaluation.per_class], recalls)
    assert [row["support"] for row in evaluation.per_class] == evaluation.confusion.sum(axis=1).tolist()
    weights = np.bincount(evaluation.fold_of_row) / len(y)
    assert evaluation.metrics["accuracy"].folds @ weights == pytest.approx(
        (evaluation.predictions == y).mean()
    )


def test_numeric_labels_are_cross_validated_by_r2():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 10))
    y = X @ rng.normal(size=10) + 0.1 * rng.normal(size=100)
    evaluation = cross_validate(X, y, load_head("ridge_regression"))
    assert set(evaluation.metrics) == {"r2", "neg_root_mean_squared_error", "neg_mean_absolute_error"}
    assert evaluation.primary == "r2"
    assert re.fullmatch(
        r"Evaluation\(regression, 5 folds: r2 0\.\d{3}, neg_root_mean_squared_error -\d\.\d{3},"
        r" neg_mean_absolute_error -\d\.\d{3}\)",
        repr(evaluation),
    )
    assert evaluation.metrics["r2"].mean > 0.9
    assert evaluation.baseline["r2"].mean < 0.05
    assert (evaluation.classes, evaluation.per_class, evaluation.confusion) == ([], [], None)


def test_the_datas_own_split_is_one_fold_and_the_rest_is_masked():
    X, y = digits()
    splits = np.array(["train"] * 120 + ["val"] * 30 + ["test"] * 50)
    evaluation = cross_validate(X, y, load_head("ridge"), splits=splits)
    assert len(evaluation.best_params) == 1
    assert evaluation.predictions.mask.tolist() == [True] * 150 + [False] * 50
    assert evaluation.fold_of_row.tolist() == [-1] * 150 + [0] * 50
    result = search(X, y, load_head("ridge"), splits=splits)
    assert [result.best_params] == evaluation.best_params
    np.testing.assert_array_equal(result.estimator.predict(X[150:]), evaluation.predictions[150:])
    moved = X.copy()
    moved[150:] += 100.0
    again = search(moved, y, load_head("ridge"), splits=splits)
    np.testing.assert_array_equal(result.estimator[-1].coef_, again.estimator[-1].coef_)


def test_copies_and_new_classes_in_the_datas_own_split_are_said():
    X, y = digits(40)
    keys = np.arange(40, dtype=np.uint8)[:, None].repeat(32, axis=1)
    keys[35] = keys[3]
    y[39] = "unknown"
    splits = ["train"] * 30 + ["test"] * 10
    evaluation = cross_validate(X, y, load_head("centroid"), splits=splits, keys=keys)
    assert evaluation.notes == [
        "1 of the 10 rows tested are exact copies of rows trained on, or of their group: the estimate flatters",
        "classes tested that no training row has: unknown",
    ]


def test_the_final_search_fits_on_all_rows_and_finds_what_grid_search_cv_finds():
    X, y = digits()
    head = load_head("svm")
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = GridSearchCV(head.pipeline, head.grid, cv=cv).fit(X, y)
    result = search(X, y, head)
    assert result.best_params == expected.best_params_
    assert result.best_score == pytest.approx(expected.best_score_)
    np.testing.assert_array_equal(result.estimator.predict(X), expected.predict(X))
    assert result.notes == []


def test_fits_that_do_not_converge_end_in_a_note_over_all_folds():
    X, y = digits(100)
    head = Head("head", LogisticRegression(max_iter=1), {"C": [1.0, 2.0]}, "classification")
    (note,) = cross_validate(X, y, head, cv=3).notes
    assert note.startswith("21 of 21 fits did not converge, 3 of them with the parameters chosen: ")


def test_a_recipe_of_the_users_own_runs_in_worker_processes(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from sklearn.neighbors import NearestCentroid\n"
        "class Mine(NearestCentroid):\n    pass\n"
        "def build():\n    return Mine(shrink_threshold=0.1)\n"
        "def grid():\n    return {'metric': ['euclidean', 'manhattan']}\n"
    )
    X, y = digits()
    X = X + np.random.default_rng(0).normal(size=X.shape)
    assert cross_validate(X, y, load_head(path), cv=3, n_jobs=2).metrics["accuracy"].mean > 0.5


def broken(row):
    X = np.ones((6, 3))
    X[row, 2] = np.inf
    return X


GOOD = np.arange(18.0).reshape(6, 3)
LABELS = list("aaabbb")


@pytest.mark.parametrize(
    ("X", "y", "head", "options", "message"),
    [
        (
            broken(4),
            LABELS,
            "centroid",
            {},
            r"X has 1 non-finite values, the first in row 4, column 2 \(inf\)",
        ),
        (
            GOOD[0],
            LABELS,
            "centroid",
            {},
            r"X must be numbers of shape \(n_samples, n_features\); got float64",
        ),
        (GOOD, LABELS[:5], "centroid", {}, "y must have one entry for each of the 6 rows of X; got 5"),
        (GOOD, LABELS, "centroid", {"groups": [1]}, "groups must have one entry for each of the 6 rows"),
        (GOOD, LABELS, "centroid", {"cv": 1}, "cv: expected a whole number from 2, got 1"),
        (GOOD, LABELS, "centroid", {"cv": "3"}, "cv: expected a whole number from 2, got '3'"),
        (GOOD, LABELS, "centroid", {"cv": 2.5}, "cv: expected a whole number from 2, got 2.5"),
        (GOOD, LABELS, "centroid", {"cv": 4}, "class 'a' has 3 rows, fewer than the 4 folds; lower cv to 3"),
        (GOOD, ["a"] * 6, "centroid", {}, r"needs two classes or more; every label is 'a'\.$"),
        (
            GOOD,
            [0.5, 1, 2, 1, 2, 1],
            "logreg",
            {},
            "'logreg' needs classes; got continuous numbers such as 0.5",
        ),
        (
            GOOD,
            LABELS,
            "svr",
            {},
            "'svr' needs numeric labels; got text such as 'a'.*Take a classification head",
        ),
        (GOOD, [True, False] * 3, "svr", {}, "'svr' needs numeric labels; got bool such as True"),
        (GOOD, [1, np.nan, 2, 1, 2, 1], "svr", {}, "y has a label that is not finite in row 1"),
        (GOOD, [None, *LABELS[1:]], "centroid", {}, "y must be strings or numbers"),
        (
            GOOD,
            [LABELS] * 6,
            "centroid",
            {},
            r"y must be strings .* \(n_samples,\); got <U1 of shape \(6, 6\)",
        ),
        (GOOD[:3], [1.0, 2.0, 3.0], "svr", {"cv": 5}, r"5 folds need at least 5 rows; got 3\. Add samples"),
    ],
)
def test_data_that_cannot_be_used_is_refused_in_one_line(X, y, head, options, message):
    with pytest.raises(UsageError, match=message) as caught:
        cross_validate(X, y, load_head(head), **{"cv": 3} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("y", "head", "options"),
    [
        (LABELS, "svr", {}),
        (LABELS, "centroid", {"cv": 4}),
        (LABELS, "centroid", {"groups": [0, 1, 2, 3, 3, 3]}),
        (LABELS, "centroid", {"splits": ["train"] * 6}),
        (LABELS, "centroid", {"splits": ["train"] * 5 + ["holdout"]}),
        (list("aaaabb"), "logreg", {"cv": 2}),
    ],
)
def test_labels_are_refused_without_features_in_the_words_they_are_refused_in_with_them(y, head, options):
    options = {"cv": 3} | options
    with pytest.raises(UsageError) as expected:
        cross_validate(GOOD, y, load_head(head), **options)
    with pytest.raises(UsageError, match=f"^{re.escape(str(expected.value))}$"):
        check_labels(y, load_head(head), **options)


def test_labels_that_can_be_used_are_not_refused():
    check_labels(LABELS, load_head("centroid"), cv=3, groups=[0, 1, 2, 3, 4, 5])
    check_labels(LABELS, load_head("centroid"), cv=3, splits=["train", "test", "train"] * 2)
    check_labels([0.5, 1, 2, 1] * 3, load_head("svr"), cv=2)


def test_text_labels_may_come_as_python_objects():
    X, y = digits()
    evaluation = cross_validate(X, y.astype(object), load_head(DummyClassifier()))
    assert evaluation.predictions.dtype.kind == "U"


def test_progress_counts_the_fits_of_the_search():
    random = np.random.default_rng(0)
    told = []
    cross_validate(
        random.normal(size=(40, 3)),
        np.repeat(["a", "b"], 20),
        load_head("ridge"),
        cv=2,
        progress=lambda done, total: told.append((done, total)),
    )
    total = 2 * len(load_head("ridge").candidates) * 2
    assert told == [(done, total) for done in range(1, total + 1)]
