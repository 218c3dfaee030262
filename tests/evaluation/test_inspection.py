import json

import numpy as np
import pytest

from featx.evaluation import inspection, similarity
from featx.evaluation.folds import Fold, make_folds
from featx.evaluation.inspection import inspect_predictions, shown_rows

CLASSES = np.array(["a", "b", "c"])


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    y = CLASSES[np.repeat(np.arange(3), 30)]
    X = random.normal(size=(3, 25))[np.repeat(np.arange(3), 30)] + random.normal(size=(90, 25))
    folds = make_folds(y, task="classification", cv=3, groups=None, search=False, random_state=0)
    scores = np.full((90, 3), 0.1)
    scores[np.arange(90), np.repeat(np.arange(3), 30)] = 0.8
    # Three errors: surely c, likely b, hardly c.
    scores[[5, 20, 40]] = [[0.0, 0.05, 0.95], [0.3, 0.6, 0.1], [0.3, 0.34, 0.36]]
    return {
        "X": X.astype(np.float32),
        "y": y,
        "folds": folds,
        "predicted": np.ma.MaskedArray(CLASSES[scores.argmax(axis=1)], mask=False),
        "scores": scores,
        "classes": CLASSES,
        "keys": None,
        "task": "classification",
        "random_state": 0,
    }


def test_errors_come_most_confident_first_with_neighbours_their_fold_was_fitted_on(data):
    found = inspect_predictions(**data, n_shown=2)
    assert [(one["row"], one["label"], one["predicted"], one["confidence"]) for one in found["wrong"]] == [
        (5, "a", "c", 0.95),
        (20, "a", "b", 0.6),
    ]
    for one in found["wrong"]:
        [fold] = [fold for fold in data["folds"] if one["row"] in fold.test]
        assert len(one["neighbours"]) == 4
        for neighbour in one["neighbours"]:
            assert neighbour["row"] in fold.train
            assert neighbour["label"] == data["y"][neighbour["row"]]
        distances = [neighbour["distance"] for neighbour in one["neighbours"]]
        assert distances == sorted(distances)
    assert found["counts"] == {"tested": 90, "wrong": 3, "suspects": 1, "exact_copies": 0}
    assert found["suspects"] == [{"row": 5, "label": "a", "suggested": "c", "score": pytest.approx(0.95)}]
    assert (found["confidence_is"], found["suspects_by"]) == ("probability", "probability")


def test_everything_is_plain_json_and_the_same_twice(data):
    first = json.dumps(inspect_predictions(**data), allow_nan=False)
    assert first == json.dumps(inspect_predictions(**data), allow_nan=False)
    numbers = {**data, "y": np.repeat(np.arange(3), 30), "classes": np.arange(3)}
    numbers["predicted"] = np.ma.MaskedArray(data["scores"].argmax(axis=1))
    found = json.loads(json.dumps(inspect_predictions(**numbers), allow_nan=False))
    assert found["wrong"][0]["label"] == 0


def test_without_probabilities_labels_are_judged_by_neighbours(data):
    found = inspect_predictions(**{**data, "scores": None, "classes": None})
    assert [one["row"] for one in found["wrong"]] == [5, 20, 40]
    assert {one["confidence"] for one in found["wrong"]} == {None}
    assert (found["confidence_is"], found["suspects_by"], found["suspects"]) == (None, "neighbours", [])
    decision = inspect_predictions(**data, are_probabilities=False)
    assert [one["confidence"] for one in decision["wrong"]] == [0.95, 0.6, 0.36]
    assert (decision["confidence_is"], decision["suspects_by"]) == ("decision value", "neighbours")


def test_rows_that_no_fold_tested_are_on_the_map_and_nowhere_else(data):
    fold = Fold(np.arange(0, 90, 2), np.array([5, 7, 31, 61]), [])
    mask = np.ones(90, bool)
    mask[fold.test] = False
    data["predicted"].mask = mask
    data["scores"][mask] = np.nan
    found = inspect_predictions(**{**data, "folds": [fold]})
    assert [one["row"] for one in found["wrong"]] == [5]
    assert found["counts"]["tested"] == 4
    assert [
        row for row, told in zip(found["map"]["rows"], found["map"]["predicted"], strict=True) if told
    ] == [
        5,
        7,
        31,
        61,
    ]


def test_near_duplicates_are_exact_by_key_and_near_by_similarity(data):
    keys = np.random.default_rng(0).integers(0, 256, (90, 32), np.uint8)
    keys[70] = keys[3]
    keys[9] = keys[4]
    data["X"][70], data["X"][9] = data["X"][3], data["X"][4]
    data["X"][50] = data["X"][60] + 0.02
    found = inspect_predictions(**{**data, "keys": keys})["near_duplicates"]
    # Of equals the one whose labels differ comes first.
    assert [(pair["rows"], pair["labels"], pair["exact"]) for pair in found] == [
        ([3, 70], ["a", "c"], True),
        ([4, 9], ["a", "a"], True),
        ([50, 60], ["b", "c"], False),
    ]
    assert found[0]["similarity"] == found[1]["similarity"] == 1.0
    assert similarity.NEARLY_SAME < found[2]["similarity"] < 1.0


def test_a_group_of_samples_that_are_alike_is_joined_by_as_few_pairs_as_can(data):
    data["X"][10:20] = data["X"][10] + np.random.default_rng(0).normal(size=(10, 25)) * 0.05
    pairs = [tuple(pair["rows"]) for pair in inspect_predictions(**data)["near_duplicates"]]
    assert len(pairs) == 9
    assert {row for pair in pairs for row in pair} == set(range(10, 20))


def test_no_more_pairs_are_listed_than_a_person_looks_at(data, monkeypatch):
    data["X"][0:60] = data["X"][0] + np.random.default_rng(0).normal(size=(60, 25)) * 0.01
    assert len(inspect_predictions(**data)["near_duplicates"]) == 50
    monkeypatch.setattr(similarity, "_MOST_COMPARED", 40)
    monkeypatch.setattr(similarity, "_MOST_COMPUTED", 0)
    monkeypatch.setattr(similarity, "_KEPT", 30)
    cut = inspect_predictions(**data)["notes"]
    assert len(cut) == 2
    assert "among 40 of the 90 samples" in cut[0]
    assert "not every pair was compared" in cut[1]


def test_of_a_regression_the_largest_residuals_are_shown(data):
    y = np.arange(90) / 10
    predicted = np.ma.MaskedArray(y + 0.1, mask=False)
    predicted[[8, 80]] = [5.0, 1.0]
    found = inspect_predictions(
        **{**data, "y": y, "predicted": predicted, "scores": None, "classes": None, "task": "regression"}
    )
    assert [(one["row"], round(one["residual"], 6)) for one in found["wrong"][:2]] == [(80, -7.0), (8, 4.2)]
    assert len(found["wrong"]) == 12
    assert (found["suspects"], found["suspects_by"], found["counts"]["wrong"]) == ([], None, None)
    json.dumps(found, allow_nan=False)


def test_the_rows_shown_are_all_that_are_named(data):
    data["X"][50] = data["X"][60] + 0.02
    found = inspect_predictions(**data, n_map=10)
    rows = shown_rows(found)
    assert rows == sorted(set(rows))
    assert {5, 20, 40, 50, 60, *found["map"]["rows"]} <= set(rows)
    assert {n["row"] for one in found["wrong"] for n in one["neighbours"]} <= set(rows)
    assert len(found["map"]["rows"]) == len(found["map"]["x"]) == len(found["map"]["y"]) == 10


def test_a_pair_of_exact_copies_is_listed_once(data):
    keys = np.zeros((90, 32), np.uint8)
    keys[:, 0] = np.arange(90)
    keys[1] = keys[0]
    data["X"][1] = data["X"][0]
    [pair] = inspect_predictions(**{**data, "keys": keys})["near_duplicates"]
    assert (pair["rows"], pair["exact"]) == ([0, 1], True)
    assert inspection.shown_rows({**inspect_predictions(**data), "wrong": []})
