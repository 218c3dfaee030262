import numpy as np

from featx.evaluation.few_shot.fixed_fits import fixed_accuracies
from featx.evaluation.heads import load_head

RANDOM = np.random.default_rng(0)
Y = np.arange(60) % 3
X = 2 * np.eye(4)[Y] + RANDOM.standard_normal((60, 4))
PAIRS = [(np.sort(RANDOM.choice(30, 12, replace=False)), np.arange(30, 60)) for _ in range(40)]


def test_accuracies_are_those_of_fitting_on_each_in_turn_with_any_number_of_processes():
    head = load_head("ridge")
    params = {"ridgeclassifier__alpha": 1.0}
    steps = []
    alone, logs = fixed_accuracies(
        X, Y, head, params, PAIRS, n_jobs=None, progress=lambda *step: steps.append(step)
    )
    plain = head.pipeline.set_params(**params)
    assert alone.tolist() == [plain.fit(X[fit], Y[fit]).score(X[test], Y[test]) for fit, test in PAIRS]
    assert fixed_accuracies(X, Y, head, params, PAIRS, n_jobs=2)[0].tolist() == alone.tolist()
    assert {log.failure for log in logs} == {None}
    assert steps == [(16, 40), (32, 40), (40, 40)]


def test_one_row_of_each_class_is_enough_for_a_centroid_and_nothing_is_said_of_it():
    found, (log,) = fixed_accuracies(
        X, Y, load_head("centroid"), {}, [(np.arange(3), np.arange(3, 60))], n_jobs=None
    )
    assert found[0] > 0.5
    assert (log.warned, log.failure) == (frozenset(), None)


def test_a_head_that_cannot_be_fitted_says_why():
    found, (log,) = fixed_accuracies(
        X, Y, load_head("knn"), {}, [(np.arange(3), np.arange(3, 60))], n_jobs=None
    )
    assert np.isnan(found[0])
    assert log.failure.startswith("Expected n_neighbors <= n_samples_fit, but n_neighbors = 5")
