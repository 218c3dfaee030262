import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import balanced_accuracy_score, get_scorer
from sklearn.svm import LinearSVC

from featx.errors import UsageError
from featx.evaluation.folds import Fold
from featx.evaluation.grid_search import Answer, FitLog, fit_and_predict
from featx.evaluation.heads import load_head
from featx.evaluation.scores import (
    METRICS,
    baseline_answers,
    check_folds_give,
    check_metric,
    score_answer,
    scores_by_class,
    scores_by_metric,
    undefined_notes,
)


def fold(train, test):
    return Fold(np.array(train), np.array(test), [])


def answer(predicted, classes=None, scores=None, *, are_probabilities=True):
    return Answer(
        np.asarray(predicted),
        None if classes is None else np.asarray(classes),
        None if scores is None else np.asarray(scores),
        are_probabilities,
        0.0,
        0.0,
        FitLog(frozenset(), None),
    )


def answered(estimator, X, y, train, test):
    from featx.evaluation.grid_search import Choice

    head = load_head(estimator)
    (told,) = fit_and_predict(X, y, [head], [fold(train, test)], [Choice({}, None, {}, [])], n_jobs=None)
    return told


@pytest.mark.parametrize("n_classes", [2, 3])
def test_every_metric_of_classification_is_what_the_scorer_of_that_name_gives(n_classes):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes, :2], np.array(["a", "b", "c"])[y[y < n_classes]]
    rows = np.random.default_rng(0).permutation(len(y))
    train, test = rows[::2], rows[1::2]
    classifier = LogisticRegression()
    scores = score_answer(y[test], answered(classifier, X, y, train, test), task="classification")
    classifier.fit(X[train], y[train])
    expected = {name: get_scorer(name)(classifier, X[test], y[test]) for name in METRICS["classification"]}
    assert scores == pytest.approx(expected)
    assert list(scores) == list(METRICS["classification"])


def test_every_metric_of_regression_is_what_the_scorer_of_that_name_gives():
    X, y = load_iris(return_X_y=True)
    X, y = X[:, :3], X[:, 3]
    train, test = np.arange(0, 150, 2), np.arange(1, 150, 2)
    scores = score_answer(y[test], answered(LinearRegression(), X, y, train, test), task="regression")
    regressor = LinearRegression().fit(X[train], y[train])
    expected = {name: get_scorer(name)(regressor, X[test], y[test]) for name in METRICS["regression"]}
    assert scores == pytest.approx(expected)
    assert list(scores) == list(METRICS["regression"])


def test_a_decision_function_has_an_area_under_its_curves_but_no_log_loss():
    X, y = load_iris(return_X_y=True)
    rows = np.arange(150)
    for n_classes in (2, 3):
        kept = rows[y[rows] < n_classes]
        told = answered(LinearSVC(), X[:, :2], y, kept[::2], kept[1::2])
        scores = score_answer(y[kept[1::2]], told, task="classification")
        assert 0.8 < scores["roc_auc_ovr"] <= 1.0
        assert "neg_log_loss" not in scores
    binary = LinearSVC().fit(X[:100:2, :2], y[:100:2])
    told = answered(LinearSVC(), X[:, :2], y, rows[:100:2], rows[1:100:2])
    assert score_answer(y[1:100:2], told, task="classification")["roc_auc_ovr"] == pytest.approx(
        get_scorer("roc_auc")(binary, X[1:100:2, :2], y[1:100:2])
    )


def test_metrics_are_worked_out_for_each_fold_and_then_averaged():
    y = np.array(["a", "a", "b", "b"])
    folds = [fold([2, 3], [0, 1]), fold([0, 1], [2, 3])]
    scores = scores_by_metric(y, "classification", folds, [answer(["a", "a"]), answer(["b", "a"])])
    assert scores["accuracy"].folds == [1.0, 0.5]
    assert scores["accuracy"].mean == 0.75
    assert scores["accuracy"].std == 0.25
    assert "roc_auc_ovr" not in scores


def test_a_metric_that_a_fold_leaves_undefined_has_no_value_there_and_it_is_said():
    y = np.array(["a", "a", "a", "b", "c"])
    folds = [fold([], [0, 1]), fold([], [2, 3])]
    told = [
        answer(["a", "b"], ["a", "b"], [[0.9, 0.1], [0.4, 0.6]]),
        answer(["a", "b"], ["a", "b"], np.eye(2)),
    ]
    scores = scores_by_metric(y, "classification", folds, told)
    assert scores["roc_auc_ovr"].folds == [None, 1.0]
    assert (scores["roc_auc_ovr"].mean, scores["roc_auc_ovr"].std) == (1.0, 0.0)
    assert scores["neg_log_loss"].folds[0] == pytest.approx((np.log(0.9) + np.log(0.4)) / 2)
    assert undefined_notes(scores) == [
        "roc_auc_ovr has no value in 1 of 2 folds, which lack a class: it is the mean of the others"
    ]
    # A class that no training row had is given no probability at all.
    unknown = score_answer(y[3:], answer(["b", "b"], ["a", "b"], np.eye(2)), task="classification")
    assert (unknown["roc_auc_ovr"], unknown["neg_log_loss"], unknown["accuracy"]) == (None, None, 0.5)
    assert "roc_auc_ovr" not in scores_by_metric(y, "classification", folds[:1], told[:1])


def test_balanced_accuracy_is_scikit_learns_even_where_a_fold_lacks_a_class():
    y = np.array(["a", "a", "a", "b"])
    predicted = np.array(["a", "a", "c", "b"])
    scores = scores_by_metric(y, "classification", [fold([], [0, 1, 2, 3])], [answer(predicted)])
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(y, predicted)
    assert scores["balanced_accuracy"].mean == pytest.approx(expected) == pytest.approx(5 / 6)


def test_regression_metrics_by_hand():
    y = np.array([0.0, 2.0, 4.0])
    scores = scores_by_metric(y, "regression", [fold([], [0, 1, 2])], [answer([0.0, 2.0, 1.0])])
    assert scores["neg_mean_absolute_error"].mean == pytest.approx(-1.0)
    assert scores["neg_root_mean_squared_error"].mean == pytest.approx(-(3**0.5))
    assert scores["r2"].mean == pytest.approx(1 - 9 / 8)


def test_the_baseline_knows_the_training_rows_of_each_fold_only():
    y = np.array(["a", "a", "b", "b", "b"])
    first, second = baseline_answers(y, "classification", [fold([0, 1, 2], [3, 4]), fold([1, 2, 3], [0, 4])])
    assert first.predicted.tolist() == ["a", "a"]
    assert second.predicted.tolist() == ["b", "b"]
    np.testing.assert_allclose(first.scores, [[2 / 3, 1 / 3]] * 2)
    (mean,) = baseline_answers(np.array([1.0, 3.0, 100.0]), "regression", [fold([0, 1], [2])])
    assert mean.predicted.tolist() == [2.0]


def test_a_class_that_is_never_predicted_scores_zero():
    rows = scores_by_class(np.array([1, 1, 2]), np.array([1, 1, 1]), np.array([1, 2]))
    assert rows[0] == {"class": 1, "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": 0.8, "support": 2}
    assert rows[1] == {"class": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_a_metric_is_named_as_scikit_learn_names_it():
    heads = [load_head("logreg"), load_head("svm")]
    assert check_metric(None, heads) == "accuracy"
    assert check_metric(None, [load_head("svr")]) == "r2"
    assert check_metric("roc_auc_ovr", heads) == "roc_auc_ovr"
    with pytest.raises(
        UsageError, match=r"unknown metric 'f1' for classification. Did you mean f1_macro\? Metrics"
    ):
        check_metric("f1", heads)
    with pytest.raises(UsageError, match=r"unknown metric 'accuracy' for regression. Metrics: r2, neg_root"):
        check_metric("accuracy", [load_head("svr")])
    with pytest.raises(UsageError, match="'neg_log_loss' needs probabilities, which head 'svm' lacks"):
        check_metric("neg_log_loss", heads)
    with pytest.raises(UsageError, match="'roc_auc_ovr' needs class scores, which head 'centroid' lacks"):
        check_metric("roc_auc_ovr", [load_head("centroid")])


def test_a_metric_that_one_fold_gives_is_no_reason_to_refuse():
    y = np.array(["a", "b", "c"] * 4)
    lacking = Fold(np.arange(6, 12), np.array([0, 1, 3]), [])
    whole = Fold(np.arange(6, 12), np.arange(6), [])
    check_folds_give("roc_auc_ovr", y, [lacking, whole])
    with pytest.raises(UsageError, match="has no value in any of the 2 folds: no row tested is of class 'c'"):
        check_folds_give("roc_auc_ovr", y, [lacking, lacking])
    check_folds_give("neg_log_loss", y, [lacking])
