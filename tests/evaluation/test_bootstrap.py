import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from featx.evaluation.bootstrap import bootstrap_scores, swap_p_values
from featx.evaluation.grid_search import Answer, FitLog
from featx.evaluation.scores import METRICS, score_answer

N_ROWS = 40


def made(task, n_classes=3, seed=0):
    """Return labels, one class of which is rare, and an answer to them with ties and a class never predicted."""
    random = np.random.default_rng(seed)
    log = FitLog(frozenset(), None)
    if task == "regression":
        y = random.normal(size=N_ROWS)
        return y, Answer(y + random.normal(size=N_ROWS), None, None, False, 0.0, 0.0, log)
    classes = np.array(["a", "b", "c"])[:n_classes]
    y = classes[random.integers(0, 2, N_ROWS)]
    y[0] = classes[-1]
    scores = random.dirichlet(np.ones(n_classes), N_ROWS).round(1)
    scores = (scores + 0.05) / (scores + 0.05).sum(axis=1, keepdims=True)
    return y, Answer(classes[-2:][random.integers(0, 2, N_ROWS)], classes, scores, True, 0.0, 0.0, log)


def drawn_rows(n_draws, random_state, groups=None):
    """Draw rows as they are documented to be drawn, one list of rows for each draw."""
    group = np.arange(N_ROWS) if groups is None else groups
    n_groups = len(np.unique(group))
    counts = np.random.default_rng(random_state).multinomial(
        n_groups, np.full(n_groups, 1 / n_groups), n_draws
    )
    return [np.repeat(np.arange(N_ROWS), count[group]) for count in counts]


@pytest.mark.parametrize(
    ("task", "n_classes"), [("classification", 3), ("classification", 2), ("regression", 0)]
)
def test_every_metric_of_a_draw_is_that_of_its_rows_taken_as_often(task, n_classes):
    y, answer = made(task, n_classes)
    found = bootstrap_scores(y, [answer], task=task, n_draws=8, random_state=3)[0]
    assert list(found) == list(METRICS[task])
    for draw, rows in enumerate(drawn_rows(8, 3)):
        scores = None if answer.scores is None else answer.scores[rows]
        one = Answer(answer.predicted[rows], answer.classes, scores, True, 0.0, 0.0, answer.log)
        expected = score_answer(y[rows], one, task=task)
        undefined = {name: np.nan for name, value in expected.items() if value is None}
        assert {name: values[draw] for name, values in found.items()} == pytest.approx(
            {**expected, **undefined}, nan_ok=True
        )


def test_rows_of_a_group_are_drawn_together():
    y, answer = made("regression")
    groups = np.repeat(np.arange(5), N_ROWS // 5)
    errors = np.abs(y - answer.predicted)
    found = bootstrap_scores(y, [answer], task="regression", together=groups * 7, n_draws=50)[0]
    rows = drawn_rows(50, 0, groups)
    expected = [-errors[drawn].mean() for drawn in rows]
    np.testing.assert_allclose(found["neg_mean_absolute_error"], expected)
    # Every draw is made of whole groups.
    assert all(set(np.bincount(groups[drawn], minlength=5) % 8) == {0} for drawn in rows)


def test_the_same_seed_draws_the_same_rows_for_every_answer():
    y, answer = made("classification")
    first, again = bootstrap_scores(y, [answer, answer], task="classification", n_draws=100, random_state=1)
    other = bootstrap_scores(y, [answer], task="classification", n_draws=100, random_state=2)[0]
    np.testing.assert_array_equal(first["accuracy"], again["accuracy"])
    assert (first["accuracy"] != other["accuracy"]).any()


def test_blocks_of_draws_are_the_draws_of_one_block(monkeypatch):
    y, answer = made("classification")
    whole = bootstrap_scores(y, [answer], task="classification", n_draws=25)[0]
    monkeypatch.setattr("featx.evaluation.bootstrap._CELLS_AT_ONCE", 7 * N_ROWS)
    parts = bootstrap_scores(y, [answer], task="classification", n_draws=25)[0]
    for name, values in whole.items():
        np.testing.assert_allclose(values, parts[name], rtol=1e-12)


def test_a_draw_without_a_class_has_no_area_under_its_curves():
    y = np.array(["a"] * 6 + ["b"])
    scores = np.stack([np.linspace(1, 0, 7), np.linspace(0, 1, 7)], axis=1)
    answer = Answer(y, np.array(["a", "b"]), scores, True, 0.0, 0.0, FitLog(frozenset(), None))
    areas = bootstrap_scores(y, [answer], task="classification", n_draws=200)[0]["roc_auc_ovr"]
    assert set(areas[~np.isnan(areas)]) == {1.0}
    assert 0.2 < np.isnan(areas).mean() < 0.5  # (6/7)^7 is 0.34


def test_a_class_that_the_head_does_not_know_leaves_no_metric_of_scores():
    y, answer = made("classification")
    found = bootstrap_scores(np.where(y == "a", "z", y), [answer], task="classification", n_draws=3)[0]
    assert set(found) == {"accuracy", "balanced_accuracy", "f1_macro", "precision_macro", "recall_macro"}


def test_the_spread_of_the_draws_is_that_of_a_proportion():
    y = np.repeat(["a", "b"], [70, 30])
    answer = Answer(np.repeat("a", 100), None, None, False, 0.0, 0.0, FitLog(frozenset(), None))
    draws = bootstrap_scores(y, [answer], task="classification", n_draws=2000)[0]["accuracy"]
    assert draws.mean() == pytest.approx(0.7, abs=0.005)
    assert draws.std() == pytest.approx((0.7 * 0.3 / 100) ** 0.5, rel=0.1)


def called(predicted):
    return Answer(np.asarray(predicted), None, None, False, 0.0, 0.0, FitLog(frozenset(), None))


@pytest.mark.parametrize(("won", "lost"), [(6, 0), (5, 1), (12, 3), (4, 4)])
def test_the_p_value_of_an_accuracy_is_that_of_the_sign_test_of_the_rows_that_differ(won, lost):
    y = np.zeros(20, int)
    first, second = np.zeros((2, 20), int)
    second[:won] = 1
    first[won : won + lost] = 1
    (found,) = swap_p_values(y, [called(first), called(second)], [(0, 1)], metric="accuracy", n_swaps=20_000)
    assert found == pytest.approx(binomtest(won, won + lost).pvalue, abs=0.01)


def test_few_rows_that_differ_raise_no_more_false_alarms_than_promised():
    # Six of twenty rows differ: only 6 to 0 is below 0.05, with a chance of 2 / 64.
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        first = np.zeros(20, int)
        first[:6] = random.integers(0, 2, 6)
        second = np.zeros(20, int)
        second[:6] = 1 - first[:6]
        (p_value,) = swap_p_values(
            np.zeros(20, int), [called(first), called(second)], [(0, 1)], metric="accuracy", n_swaps=500
        )
        alarms += p_value < 0.05
    assert alarms <= binom.ppf(0.999, 300, 2 / 64)


@pytest.mark.parametrize(
    ("task", "metric"),
    [("classification", name) for name in METRICS["classification"] if name != "roc_auc_ovr"]
    + [("regression", name) for name in METRICS["regression"]],
)
def test_every_metric_is_that_of_the_answers_swapped(task, metric):
    y, first = made(task)
    _, second = made(task, seed=5)
    (found,) = swap_p_values(y, [first, second], [(0, 1)], metric=metric, n_swaps=60, random_state=3)

    def difference(swap):
        both = []
        for one, other in ((first, second), (second, first)):
            predicted = np.where(swap, other.predicted, one.predicted)
            scores = None if one.scores is None else np.where(swap[:, None], other.scores, one.scores)
            mixed = Answer(predicted, one.classes, scores, True, 0.0, 0.0, one.log)
            both.append(score_answer(y, mixed, task=task)[metric])
        return abs(both[0] - both[1])

    observed = difference(np.zeros(N_ROWS, bool)) - 1e-9
    swaps = np.random.default_rng(3).random((60, N_ROWS)) < 0.5
    assert found == pytest.approx((1 + sum(difference(swap) >= observed for swap in swaps)) / 61)


def test_the_p_value_of_an_area_is_near_that_of_its_variance_and_needs_no_common_scale():
    # Two scores of 200 rows; the second is worse. A monotone change of its scale changes nothing.
    random = np.random.default_rng(1)
    log = FitLog(frozenset(), None)
    y = np.arange(200) % 2
    good, bad = y + random.normal(size=(2, 200)) * [[1.0], [1.5]]

    def answer(score):
        return Answer(y, np.array([0, 1]), np.stack([-score, score], 1), False, 0.0, 0.0, log)

    answers = [answer(good), answer(bad), answer(1000 * bad + 7)]
    told, scaled, same = swap_p_values(y, answers, [(0, 1), (0, 2), (1, 2)], metric="roc_auc_ovr")
    assert told == scaled
    assert same == 1.0
    areas = bootstrap_scores(y, answers[:2], task="classification", n_draws=4000)
    differences = areas[0]["roc_auc_ovr"] - areas[1]["roc_auc_ovr"]
    normal = 2 * norm.sf(abs(differences.mean()) / differences.std())
    assert told == pytest.approx(normal, rel=0.7)


def test_rows_of_a_group_are_swapped_together_and_one_group_cannot_tell():
    y = np.zeros(40, int)
    answers = [called(y), called(y + 1)]
    pairs = [(0, 1)]
    halves = np.repeat([3, 8], 20)
    # Of two groups, half of the swaps leave the difference as large; of one group nothing is known.
    (found,) = swap_p_values(y, answers, pairs, metric="accuracy", together=halves)
    assert found == pytest.approx(0.5, abs=0.02)
    assert swap_p_values(y, answers, pairs, metric="accuracy", together=y) == [None]
    assert swap_p_values(y, answers, pairs, metric="accuracy")[0] == pytest.approx(1 / 10_001)


def test_blocks_of_swaps_are_the_swaps_of_one_block(monkeypatch):
    y, first = made("classification")
    shared = {"pairs": [(0, 1)], "metric": "f1_macro", "n_swaps": 100}
    whole = swap_p_values(y, [first, made("classification", seed=5)[1]], **shared)
    monkeypatch.setattr("featx.evaluation.bootstrap._CELLS_AT_ONCE", 7 * N_ROWS)
    assert swap_p_values(y, [first, made("classification", seed=5)[1]], **shared) == whole
