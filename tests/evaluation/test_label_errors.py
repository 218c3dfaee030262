import numpy as np
import pytest

from featx.evaluation import label_errors
from featx.evaluation.folds import make_folds
from featx.evaluation.label_errors import suspects_by_neighbours, suspects_by_probability
from featx.evaluation.similarity import UnitRows

CLASSES = np.array(["a", "b", "c"])


def test_a_row_is_suspected_where_another_class_comes_to_its_own_average():
    y = np.array(["a", "a", "b", "b", "c", "c"])
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.1, 0.8, 0.1],  # b comes to its threshold, (0.9 + 0.5) / 2 = 0.7: suspected
            [0.1, 0.9, 0.0],
            [0.45, 0.5, 0.05],
            [0.3, 0.0, 0.7],
            [0.4, 0.35, 0.25],  # a, though it leads, stays below its threshold, (0.9 + 0.1) / 2 = 0.5
        ]
    )
    [suspect] = suspects_by_probability(y, np.arange(6), probabilities, CLASSES)
    assert suspect[:2] == (1, "b")
    assert suspect.lead == pytest.approx(0.7)


def test_suspects_come_by_their_lead_and_the_average_itself_is_enough():
    y = np.array(["a", "a", "a", "b", "b"])
    probabilities = np.array([[0.25, 0.75], [0.125, 0.875], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    found = suspects_by_probability(y, np.arange(5), probabilities, CLASSES[:2])  # b's threshold is 0.75
    assert [(suspect.row, suspect.lead) for suspect in found] == [(1, 0.75), (0, 0.5)]


def test_of_classes_that_come_to_their_thresholds_the_most_probable_is_suggested():
    y = np.array(["a", "b", "c", "c"])
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.4, 0.5]])
    # Thresholds 0.9, 0.3, 0.4. Row 2 comes to none; row 3 to those of b and c, its own.
    assert suspects_by_probability(y, np.arange(4), probabilities, CLASSES) == []
    probabilities[3] = [0.0, 0.5, 0.3]  # now c's threshold is 0.3
    [suspect] = suspects_by_probability(y, np.arange(4), probabilities, CLASSES)
    assert suspect[:2] == (3, "b")


def test_a_class_that_a_fold_did_not_know_is_neither_suggested_nor_suspected():
    y = np.array(["a", "b", "c", "c"])
    probabilities = np.array([[0.6, 0.4, np.nan], [0.4, 0.6, np.nan], [0.9, 0.1, np.nan], [0.9, 0.0, 0.1]])
    [suspect] = suspects_by_probability(y, np.arange(4), probabilities, CLASSES)
    assert suspect[:2] == (3, "a")
    # A class that no fold knew has no threshold to come to.
    assert suspects_by_probability(y[:3], np.arange(3), probabilities[:3], CLASSES) == []


@pytest.fixture
def mislabelled():
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 40)
    X = random.normal(size=(3, 30))[group] * 2 + random.normal(size=(120, 30))
    y = CLASSES[group]
    flipped = np.array([3, 17, 44, 90])
    y[flipped] = CLASSES[(group[flipped] + 1) % 3]
    return X, y, flipped, CLASSES[group]


def test_by_neighbours_wrong_labels_are_found_and_the_right_one_is_suggested(mislabelled):
    X, y, flipped, true = mislabelled
    folds = make_folds(y, task="classification", cv=4, groups=None, search=False, random_state=0)
    fold_of_row = np.empty(120, int)
    for number, fold in enumerate(folds):
        fold_of_row[fold.test] = number
    wrong = np.flatnonzero(y != true)
    found = suspects_by_neighbours(
        y, np.arange(120), wrong, UnitRows.of(X), folds, fold_of_row, random_state=0
    )
    assert sorted(suspect.row for suspect in found) == flipped.tolist()
    assert all(suspect.suggested == true[suspect.row] for suspect in found)
    assert all(0 < suspect.lead <= 1 for suspect in found)
    assert (
        suspects_by_neighbours(y, wrong, wrong[:0], UnitRows.of(X), folds, fold_of_row, random_state=0) == []
    )


def test_of_very_many_errors_the_first_are_judged(mislabelled, monkeypatch):
    X, y, flipped, _ = mislabelled
    folds = make_folds(y, task="classification", cv=2, groups=None, search=False, random_state=0)
    fold_of_row = np.empty(120, int)
    for number, fold in enumerate(folds):
        fold_of_row[fold.test] = number
    monkeypatch.setattr(label_errors, "_MOST_ASKED", 50)
    others = np.setdiff1d(np.arange(120), flipped)
    wrong = np.concatenate([flipped[:2], others, flipped[2:]])
    found = suspects_by_neighbours(
        y, np.arange(120), wrong, UnitRows.of(X), folds, fold_of_row, random_state=0
    )
    assert {suspect.row for suspect in found} == set(flipped[:2].tolist())
