import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from featx.evaluation.folds import Fold
from featx.evaluation.scores import baseline_predictions, scores_by_class, scores_by_metric


def fold(train, test):
    return Fold(np.array(train), np.array(test), [])


def test_metrics_are_worked_out_for_each_fold_and_then_averaged():
    y = np.array(["a", "a", "b", "b"])
    folds = [fold([2, 3], [0, 1]), fold([0, 1], [2, 3])]
    predicted = [np.array(["a", "a"]), np.array(["b", "a"])]
    accuracy = scores_by_metric(y, "classification", folds, predicted)["accuracy"]
    assert accuracy.folds == [1.0, 0.5]
    assert accuracy.mean == 0.75
    assert accuracy.std == 0.25


def test_balanced_accuracy_is_scikit_learns_even_where_a_fold_lacks_a_class():
    y = np.array(["a", "a", "a", "b"])
    predicted = np.array(["a", "a", "c", "b"])
    scores = scores_by_metric(y, "classification", [fold([], [0, 1, 2, 3])], [predicted])
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        expected = balanced_accuracy_score(y, predicted)
    assert scores["balanced_accuracy"].mean == pytest.approx(expected) == pytest.approx(5 / 6)


def test_regression_metrics_by_hand():
    y = np.array([0.0, 2.0, 4.0])
    scores = scores_by_metric(y, "regression", [fold([], [0, 1, 2])], [np.array([0.0, 2.0, 1.0])])
    assert scores["neg_mean_absolute_error"].mean == pytest.approx(-1.0)
    assert scores["neg_root_mean_squared_error"].mean == pytest.approx(-(3**0.5))
    assert scores["r2"].mean == pytest.approx(1 - 9 / 8)


def test_the_baseline_knows_the_training_rows_of_each_fold_only():
    y = np.array(["a", "a", "b", "b", "b"])
    answers = baseline_predictions(y, "classification", [fold([0, 1, 2], [3, 4]), fold([2, 3, 4], [0, 1])])
    assert [answer.tolist() for answer in answers] == [["a", "a"], ["b", "b"]]
    (mean,) = baseline_predictions(np.array([1.0, 3.0, 100.0]), "regression", [fold([0, 1], [2])])
    assert mean.tolist() == [2.0]


def test_a_class_that_is_never_predicted_scores_zero():
    rows = scores_by_class(np.array([1, 1, 2]), np.array([1, 1, 1]), np.array([1, 2]))
    assert rows[0] == {"class": 1, "precision": pytest.approx(2 / 3), "recall": 1.0, "f1": 0.8, "support": 2}
    assert rows[1] == {"class": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
