import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.evaluation.folds import Fold, make_folds, whole_fold
from featx.evaluation.grid_search import Choice, choose, fit, fit_and_predict, notes
from featx.evaluation.heads import Head, load_head


@pytest.fixture(autouse=True)
def one_blas_thread():
    """As featx fits; two threads on matrices this small are many times slower on a busy machine."""
    with threadpool_limits(limits=1):
        yield


def noisy_classes(n=120, d=15, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], n // 3)
    return rng.normal(size=(n, d)) + 0.5 * y[:, None] * (np.arange(d) < 3), y


def one_fold(y, task="classification"):
    return [whole_fold(y, task=task, cv=5, groups=None, search=True, random_state=0)]


def searched(X, y, pipeline, grid, *, task="classification", n_jobs=None):
    head = Head("head", pipeline, grid, task)
    choices = choose(X, y, head, one_fold(y, task), n_jobs=n_jobs)
    return head, choices


@pytest.mark.parametrize("name", ["logreg", "svm", "knn", "ridge"])
def test_the_choice_is_that_of_grid_search_cv(name):
    X, y = noisy_classes()
    head = load_head(name)
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = GridSearchCV(head.pipeline, head.grid, cv=cv).fit(X, y)
    (choice,) = choose(X, y, head, one_fold(y), n_jobs=None)
    assert choice.params == expected.best_params_
    assert choice.score == pytest.approx(expected.best_score_)


def test_of_equal_candidates_the_first_wins_and_a_plateau_is_no_edge():
    X, y = noisy_classes()
    head, (choice,) = searched(X, y, SVC(kernel="linear"), {"gamma": [3.0, 2.0, 1.0]})
    assert choice.params == {"gamma": 3.0}
    assert notes(head, [choice], []) == []


@pytest.mark.parametrize(
    ("alphas", "said"),
    [
        ([0.1, 1.0, 10.0], ["the best alpha, 10, lies at the edge of the grid: a better one may lie beyond"]),
        ([1e9, 1e10, 1e11], []),  # the score has levelled
        ([0.1, 10.0], []),  # two values are no range
    ],
)
def test_a_best_value_at_the_edge_is_said_when_a_better_one_may_lie_beyond(alphas, said):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 60)), rng.normal(size=40)
    head, choices = searched(X, y, Ridge(), {"alpha": alphas}, task="regression")
    assert choices[0].params["alpha"] == alphas[-1]
    assert notes(head, choices, []) == said


def test_the_edge_of_a_natural_limit_is_not_said():
    rng = np.random.default_rng(0)
    # Pairs of twins among strangers: one neighbour is best and there are no fewer.
    centres = rng.normal(size=(10, 30))
    X = np.repeat(centres, 2, axis=0) + 0.01 * rng.normal(size=(20, 30))
    y = np.repeat(rng.permutation(np.repeat([0, 1], 5)), 2)
    head, (choice,) = searched(X, y, KNeighborsClassifier(), {"n_neighbors": [5, 3, 1]})
    assert choice.params == {"n_neighbors": 1}
    assert choice.score < 1
    assert notes(head, [choice], []) == []


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_fits_that_do_not_converge_are_counted_in_every_process_and_never_raised(n_jobs):
    X, y = noisy_classes()
    pipeline = LogisticRegression(C=1e3, tol=1e-12)
    head, choices = searched(X, y, pipeline, {"max_iter": [2000, 1]}, n_jobs=n_jobs)
    head = Head("head", pipeline, {}, "classification")
    _, log = fit(X, y, head, {"max_iter": 1}, np.arange(len(y)))
    (note,) = notes(head, choices, [log])
    assert note.startswith(
        "6 of 11 fits did not converge, 1 of them with the parameters chosen: lbfgs failed"
    )
    assert "\n" not in note


def test_candidates_that_cannot_be_fitted_are_passed_over_and_said():
    X, y = noisy_classes(30)
    head, (choice,) = searched(X, y, KNeighborsClassifier(), {"n_neighbors": [50, 5]})
    assert choice.params == {"n_neighbors": 5}
    (note,) = notes(head, [choice], [])
    assert note.startswith(
        "5 of 10 fits of head failed, so their parameters were passed over: Expected n_neigh"
    )


def test_the_reason_is_named_where_every_candidate_fails_in_some_fold_only():
    X, y = noisy_classes(30)
    fold = Fold(
        np.arange(30), np.arange(0), [(np.arange(20), np.arange(20, 30)), (np.arange(9), np.arange(9, 30))]
    )
    head = Head("head", KNeighborsClassifier(), {"n_neighbors": [10, 15]}, "classification")
    with pytest.raises(UsageError, match="its grid: Expected n_neighbors <= n_samples_fit"):
        choose(X, y, head, [fold], n_jobs=None)


def test_when_no_candidate_can_be_fitted_that_is_an_error():
    X, y = noisy_classes(30)
    with pytest.raises(UsageError, match="'head' cannot be fitted with any parameters of its grid: Expected"):
        searched(X, y, KNeighborsClassifier(), {"n_neighbors": [50, 60]})
    head = Head("head", KNeighborsClassifier(), {}, "classification")
    folds = one_fold(y)
    folds[0] = type(folds[0])(folds[0].train, np.arange(3), [])
    (choice,) = choose(X, y, head, folds, n_jobs=None)
    choice.params["n_neighbors"] = 99
    with pytest.raises(UsageError, match="'head' cannot be fitted with n_neighbors=99: Expected n_neighbors"):
        fit_and_predict(X, y, [head], folds, [choice], n_jobs=None)


@pytest.mark.parametrize(
    ("name", "n_classes", "are_probabilities"),
    [("logreg", 3, True), ("svm", 3, False), ("svm", 2, False), ("ridge", 2, False), ("knn", 2, True)],
)
def test_an_answer_has_a_score_for_every_class_that_agrees_with_its_prediction(
    name, n_classes, are_probabilities
):
    X, y = noisy_classes()
    X, y = X[y < n_classes], np.array(["a", "b", "c"])[y[y < n_classes]]
    head = load_head(name)
    folds = make_folds(y, task="classification", cv=3, groups=None, search=False, random_state=0)
    params = {} if name == "knn" else head.candidates[0]
    chosen = [Choice(params, None, {}, [])] * 3
    for answer, fold in zip(
        fit_and_predict(X, y, [head] * 3, folds, chosen, n_jobs=None), folds, strict=True
    ):
        assert answer.are_probabilities is are_probabilities
        assert answer.scores.shape == (len(fold.test), n_classes)
        if are_probabilities:
            np.testing.assert_allclose(answer.scores.sum(axis=1), 1)
        np.testing.assert_array_equal(answer.classes[answer.scores.argmax(axis=1)], answer.predicted)
        assert answer.fit_seconds > 0
        assert answer.predict_seconds > 0


def test_a_nearest_centroid_has_no_scores_as_those_it_computes_are_of_another_rule():
    X, y = noisy_classes()
    fold = make_folds(y, task="classification", cv=3, groups=None, search=False, random_state=0)[0]
    heads = [load_head("centroid"), load_head(NearestCentroid())]
    chosen = [Choice({}, None, {}, [])] * 2
    for answer in fit_and_predict(X, y, heads, [fold] * 2, chosen, n_jobs=None):
        assert (len(answer.predicted), answer.scores, answer.are_probabilities) == (40, None, False)


class WithoutNumbers(LogisticRegression):
    def predict_proba(self, X):
        return np.full((len(X), len(self.classes_)), np.nan)


def test_probabilities_that_are_no_numbers_count_as_none():
    X, y = noisy_classes(30)
    head = Head("mine", WithoutNumbers(), {}, "classification")
    fold = make_folds(y, task="classification", cv=2, groups=None, search=False, random_state=0)[0]
    (answer,) = fit_and_predict(X, y, [head], [fold], [Choice({}, None, {}, [])], n_jobs=None)
    assert (answer.scores, answer.are_probabilities) == (None, False)


def test_regression_has_no_class_scores():
    X, _ = noisy_classes()
    head = load_head("ridge_regression")
    folds = make_folds(X[:, 0], task="regression", cv=3, groups=None, search=False, random_state=0)
    chosen = [Choice({}, None, {}, [])] * 3
    answer = fit_and_predict(X, X[:, 0], [head] * 3, folds, chosen, n_jobs=None)[0]
    assert answer.classes is None
    assert answer.scores is None


def test_a_head_without_a_grid_is_not_searched():
    X, y = noisy_classes()
    (choice,) = choose(X, y, load_head("centroid"), one_fold(y), n_jobs=None)
    assert (choice.params, choice.score, choice.logs) == ({}, None, [])


def witness():
    """Return a classifier that writes down which files its process has mapped and how much memory is its own.

    It is defined in here so that worker processes, which cannot import this file, get it by value.
    """

    class Witness(ClassifierMixin, BaseEstimator):
        def __init__(self, folder=None, turn=0):
            self.folder = folder
            self.turn = turn

        def fit(self, X, y):
            mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
            (own,) = [
                int(line.split()[1]) * 1024
                for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith("RssAnon")
            ]
            seen = {"mapped": sorted(mapped), "own": own, "total": float(X.sum())}
            (Path(self.folder) / f"{self.turn}-{int(X[0, 0]):02}.json").write_text(json.dumps(seen))
            self.classes_ = np.unique(y)
            return self

        def predict(self, X):
            return np.full(len(X), self.classes_[0])

    return Witness


def seen_by_workers(X, y, folder):
    """Search two candidates on four pairs of eight rows each, and return what the fits saw."""
    folder.mkdir()
    inner = [(np.arange(start, start + 4), np.arange(start + 4, start + 8)) for start in range(0, 32, 8)]
    head = Head("witness", witness()(str(folder)), {"turn": [1, 2]}, "classification")
    choose(X, y, head, [Fold(np.arange(32), np.arange(0), inner)], n_jobs=2)
    seen = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    assert [fit["total"] for fit in seen] == [float(X[rows].sum()) for _ in range(2) for rows, _ in inner]
    return seen


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="tells what a process has mapped by Linux's /proc"
)
def test_workers_map_the_features_from_one_file_and_hold_no_copy_of_them(tmp_path):
    X = np.zeros((4000, 4000), np.float32)
    X[:32, 0] = np.arange(32)
    y = np.arange(len(X)) % 2
    few = seen_by_workers(X[:32, :10].copy(), y[:32], tmp_path / "few")
    before = max(fit["own"] for fit in few)

    seen = seen_by_workers(X, y, tmp_path / "all")
    written = {name for fit in seen for name in fit["mapped"] if "joblib_memmapping_folder" in name}
    assert len(written) == 1
    assert max(fit["own"] for fit in seen) - before < X.nbytes / 2

    on_disk = np.memmap(tmp_path / "X.bin", np.float32, "w+", shape=X.shape)
    on_disk[:32] = X[:32]
    for number, features in enumerate([on_disk, np.asarray(on_disk), on_disk[:, :3000]]):
        seen = seen_by_workers(features, y, tmp_path / f"mapped {number}")
        assert all(str(tmp_path / "X.bin") in fit["mapped"] for fit in seen)
        assert max(fit["own"] for fit in seen) - before < X.nbytes / 2
