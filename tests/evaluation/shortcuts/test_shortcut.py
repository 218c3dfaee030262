"""A shortcut is held against the plain scikit-learn fit of every candidate, on data where rounding could show."""

import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.evaluation import grid_search
from featx.evaluation.fit_log import FitLog
from featx.evaluation.folds import Fold, make_folds, whole_fold
from featx.evaluation.grid_search import choose, notes
from featx.evaluation.heads import Head, load_head
from featx.evaluation.shortcuts.kernel_path import MOST_ROWS
from featx.evaluation.shortcuts.shortcut import find_shortcut

CLASSIFIERS = ["logreg", "linear_svm", "svm", "ridge"]


@pytest.fixture(autouse=True)
def one_blas_thread():
    """As featx fits; two threads on matrices this small are many times slower on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def overlapping_classes(n, d, n_classes, *, dtype=np.float32, seed=0):
    """Return classes of unequal sizes that cannot be told apart entirely, with scales and constants as of backbones."""
    rng = np.random.default_rng(seed)
    shares = np.arange(2, n_classes + 2) / np.arange(2, n_classes + 2).sum()
    y = np.sort(rng.choice(n_classes, size=n, p=shares))
    X = rng.normal(size=(n, d)) + 0.6 * (np.arange(d) % n_classes == y[:, None]) * (np.arange(d) < 30)
    X = np.maximum(X, 0) * rng.uniform(0.01, 10, size=d)
    X[:, 3], X[:, 7] = 0, 2.5
    return X.astype(dtype), np.array([f"class {label}" for label in y])


def plainly(head, params, X, y, train, validation):
    return clone(head.pipeline).set_params(**params).fit(X[train], y[train]).predict(X[validation])


def steps(final, *, scaler=None, **options):
    return Pipeline([("scaler", scaler or StandardScaler()), ("final", final)], **options)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(("n", "d"), [(90, 400), (90, 100), (150, 40)])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_every_candidate_predicts_what_a_plain_fit_does(name, n, d, n_classes, class_weight):
    X, y = overlapping_classes(n, d, n_classes, dtype=np.float64)
    head = load_head(name, class_weight=class_weight)
    (train, validation), *_ = whole_fold(
        y, task="classification", cv=3, groups=None, search=True, random_state=0
    ).inner
    outcomes = find_shortcut(head, X).outcomes(head.candidates, X[train], y[train], X[validation])
    for params, (predicted, log) in zip(head.candidates, outcomes, strict=True):
        np.testing.assert_array_equal(
            predicted, plainly(head, params, X, y, train, validation), err_msg=params
        )
        assert log == FitLog(frozenset(), None)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(("n", "d"), [(120, 200), (150, 40)])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_no_candidate_has_a_plain_score_better_by_more_than_a_row_than_the_one_chosen(name, n, d, n_classes):
    X, y = overlapping_classes(n, d, n_classes, seed=1)
    groups = np.arange(n) // 2
    head = load_head(name, class_weight="balanced")
    for fold in make_folds(y, task="classification", cv=2, groups=groups, search=True, random_state=0):
        assert all(not set(groups[rows]) & set(groups[others]) for rows, others in fold.inner)
        plain = GridSearchCV(head.pipeline, head.grid, cv=fold.inner, refit=False).fit(X, y)
        (choice,) = choose(X, y, head, [fold], n_jobs=None)
        scores = plain.cv_results_["mean_test_score"]
        a_row = 1 / len(fold.train)
        of_chosen = scores[plain.cv_results_["params"].index(choice.params)]
        assert of_chosen >= scores.max() - 1.5 * a_row
        assert choice.score == pytest.approx(of_chosen, abs=1.5 * a_row)


@pytest.mark.parametrize(("n", "d"), [(60, 150), (150, 60)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ridge_regression_answers_as_a_plain_fit_does(n, d, dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(dtype)
    X[:, 3] = 1
    y = X[:, :5].sum(axis=1) + rng.normal(size=n)
    head = load_head("ridge_regression")
    train, validation = np.arange(n - 20), np.arange(n - 20, n)
    outcomes = find_shortcut(head, X).outcomes(head.candidates, X[train], y[train], X[validation])
    for params, (predicted, log) in zip(head.candidates, outcomes, strict=True):
        expected = plainly(head, params, X, y, train, validation)
        assert (predicted.dtype, predicted.shape, log.failure) == (expected.dtype, expected.shape, None)
        np.testing.assert_allclose(predicted, expected, atol=1e-3 if dtype == np.float32 else 1e-9)


@pytest.mark.parametrize("class_weight", [{"class 0": 5.0, "class 1": 0.2}, {}])
def test_ridge_weighs_classes_by_name(class_weight):
    X, y = overlapping_classes(100, 20, 3, dtype=np.float64)
    head = load_head("ridge", class_weight=class_weight)
    train, validation = np.arange(0, 100, 2), np.arange(1, 100, 2)
    outcomes = find_shortcut(head, X).outcomes(head.candidates, X[train], y[train], X[validation])
    for params, (predicted, _) in zip(head.candidates, outcomes, strict=True):
        np.testing.assert_array_equal(predicted, plainly(head, params, X, y, train, validation))


@pytest.mark.parametrize(
    ("name", "n_workers", "n_times"),
    [*((name, 1, 1) for name in [*CLASSIFIERS, "ridge_regression"]), ("svm", 12, 4)],
)
def test_what_candidates_share_is_computed_once_or_once_for_every_worker_at_hand(
    name, n_workers, n_times, monkeypatch
):
    X, y = overlapping_classes(60, 150, 2)
    head = load_head(name)
    labels = X[:, 0] if head.task == "regression" else y
    fold = whole_fold(labels, task=head.task, cv=3, groups=None, search=True, random_state=0)
    fitted = []
    fit = StandardScaler.fit
    monkeypatch.setattr(StandardScaler, "fit", lambda self, *given: fitted.append(1) or fit(self, *given))
    monkeypatch.setattr(grid_search, "effective_n_jobs", lambda n_jobs: n_workers)
    (choice,) = choose(X, labels, head, [fold], n_jobs=None)
    assert len(fitted) == 3 * n_times
    assert len(choice.logs) == 3 * len(head.candidates)


@pytest.mark.parametrize(
    ("pipeline", "grid"),
    [
        (steps(type("Mine", (SVC,), {})()), {"final__C": [1, 10]}),
        (steps(SVC(), scaler=type("Mine", (StandardScaler,), {})()), {"final__C": [1, 10]}),
        (steps(SVC(kernel="linear")), {"final__C": [1, 10]}),
        (steps(SVC(gamma="auto")), {"final__C": [1, 10]}),
        (steps(SVC(gamma=0.1)), {"final__C": [1, 10]}),
        (steps(SVC()), {"final__gamma": [0.1, 1]}),
        (steps(SVC()), {"final__C": [1, 10], "final__gamma": [0.1, "scale"]}),
        (steps(SVC()), [{"final__C": [1, 10]}, {"final__tol": [0.1]}]),
        (steps(SVC()), {"final__C": [1, -1]}),
        (steps(SVC()), {"final": [SVC(), LinearSVC()]}),
        (steps(LogisticRegression(solver="saga")), {"final__C": [1, 10]}),
        (steps(LogisticRegression(warm_start=True)), {"final__C": [1, 10]}),
        (steps(LogisticRegression(fit_intercept=False)), {"final__C": [1, 10]}),
        (steps(LogisticRegression()), {"final__C": [1, np.inf]}),
        (steps(LinearSVC(penalty="l1")), {"final__C": [1, 10]}),
        (steps(LinearSVC(dual=False)), {"final__C": [1, 10]}),
        (steps(RidgeClassifier(positive=True)), {"final__alpha": [1, 10]}),
        (steps(RidgeClassifier(solver="svd")), {"final__alpha": [1, 10]}),
        (steps(Ridge()), {"final__alpha": [0, 10]}),
        (steps(Ridge()), {"final__alpha": [[1.0], [10.0]]}),
        (steps(SVC(), scaler=StandardScaler(with_mean=False)), {"final__C": [1, 10]}),
        (steps(SVC(), scaler=StandardScaler().set_output(transform="pandas")), {"final__C": [1, 10]}),
        (steps(SVC(), scaler=MinMaxScaler()), {"final__C": [1, 10]}),
        (steps(SVC(), scaler="passthrough"), {"final__C": [1, 10]}),
        (steps(SVC(), memory="somewhere"), {"final__C": [1, 10]}),
        (make_pipeline(StandardScaler(), StandardScaler(), SVC()), {"svc__C": [1, 10]}),
        (SVC(), {"C": [1, 10]}),
    ],
)
def test_a_head_that_is_not_known_in_every_part_has_no_shortcut(pipeline, grid):
    assert find_shortcut(Head("head", clone(pipeline), grid, "classification"), np.zeros((9, 2))) is None
    known = Head(
        "head", steps(SVC(tol=0.1, class_weight="balanced")), {"final__C": [1, 10]}, "classification"
    )
    assert find_shortcut(known, np.zeros((9, 2))) is not None


def test_whole_and_half_precision_numbers_and_kernels_too_large_have_no_shortcut():
    for dtype in (np.float16, np.uint8, np.int64):
        assert find_shortcut(load_head("ridge"), np.zeros((9, 2), dtype)) is None
    assert find_shortcut(load_head("svm"), np.zeros((MOST_ROWS, 1))) is not None
    assert find_shortcut(load_head("svm"), np.zeros((MOST_ROWS + 1, 1))) is None
    assert find_shortcut(load_head("ridge"), np.zeros((MOST_ROWS + 1, 1))) is not None


@pytest.mark.parametrize(("n_jobs", "d"), [(None, 30), (None, 200), (2, 200)])
def test_fits_that_do_not_converge_are_counted_by_candidate(n_jobs, d):
    X, y = overlapping_classes(90, d, 3)
    fold = whole_fold(y, task="classification", cv=3, groups=None, search=True, random_state=0)
    # The first candidate starts within the tolerance; the second takes many iterations.
    final = LogisticRegression(max_iter=3)
    grid = {"final__C": [1e-9, 1.0]}
    head = Head("logreg", steps(final), grid, "classification")
    assert find_shortcut(head, X) is not None
    (choice,) = choose(X, y, head, [fold], n_jobs=n_jobs)
    assert [bool(log.warned) for log in choice.logs] == [False, True] * 3
    (note,) = notes(head, [choice], [])
    assert note.startswith("3 of 6 fits did not converge, 0 of them with the parameters chosen: lbfgs failed")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_what_a_shortcut_cannot_fit_is_refused_in_the_words_of_a_plain_fit(name):
    X, y = overlapping_classes(60, 150, 2)
    head = load_head(name, class_weight={"another class": 2.0})
    fold = whole_fold(y, task="classification", cv=3, groups=None, search=True, random_state=0)
    with pytest.raises(ValueError) as plain:
        plainly(head, {}, X, y, *fold.inner[0])
    with pytest.raises(UsageError, match="cannot be fitted with any parameters of its grid") as caught:
        choose(X, y, head, [fold], n_jobs=None)
    assert str(plain.value).splitlines()[0].rstrip(".") in str(caught.value)


def test_a_singular_ridge_is_left_to_a_plain_fit():
    X, y = overlapping_classes(60, 20, 2)  # one column is nought, and single precision takes 1e-50 for nought
    head = Head("ridge", steps(RidgeClassifier()), {"final__alpha": [1e-50, 10.0]}, "classification")
    train, validation = np.arange(0, 60, 2), np.arange(1, 60, 2)
    singular, regular = find_shortcut(head, X).outcomes(head.candidates, X[train], y[train], X[validation])
    assert singular is None
    assert regular is not None
    fold = Fold(np.arange(60), np.arange(0), [(train, validation)])
    (choice,) = choose(X, y, head, [fold], n_jobs=None)
    plain = GridSearchCV(head.pipeline, head.grid, cv=fold.inner).fit(X, y)
    assert (choice.params, choice.score) == (plain.best_params_, plain.best_score_)
    assert [log.failure for log in choice.logs] == [None, None]


@pytest.mark.parametrize("final", [SVC(), LogisticRegression(), RidgeClassifier()])
def test_a_warning_of_what_is_shared_is_one_of_every_candidate(final, monkeypatch):
    X, y = overlapping_classes(60, 20, 2)
    fit = StandardScaler.fit
    monkeypatch.setattr(
        StandardScaler, "fit", lambda *given: warnings.warn("odd", stacklevel=1) or fit(*given)
    )
    fold = whole_fold(y, task="classification", cv=3, groups=None, search=True, random_state=0)
    grid = {"final__alpha" if isinstance(final, RidgeClassifier) else "final__C": [0.1, 1.0]}
    unknown = type("Unknown", (type(final),), {})(**final.get_params())
    heads = [Head("head", steps(estimator), grid, "classification") for estimator in (final, unknown)]
    assert [find_shortcut(head, X) is None for head in heads] == [False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        (shared,), (plain,) = (choose(X, y, head, [fold], n_jobs=None) for head in heads)
    assert plain.logs[0].warned
    assert shared.logs == plain.logs
    assert shared.score == plain.score


def test_features_that_overflow_once_standardised_are_left_to_a_plain_fit():
    X, y = overlapping_classes(60, 20, 2)
    train, validation = np.arange(0, 60, 2), np.arange(1, 60, 2)
    X[train, 5] *= np.float32(1e-30)
    X[validation, 5] = np.float32(1e30)
    head = load_head("ridge")
    with np.errstate(over="ignore"):
        outcomes = find_shortcut(head, X).outcomes(head.candidates, X[train], y[train], X[validation])
    assert outcomes == [None] * len(head.candidates)
