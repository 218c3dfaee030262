import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.model_selection import StratifiedKFold

from featx.evaluation.significance import (
    Difference,
    compare_draws,
    compare_episodes,
    compare_folds,
    corrected,
    draws_interval,
    folds_interval,
    holm,
    verdict_of,
)

SIZES = {"n_train": 20, "n_test": 10}


def test_the_corrected_t_test_worked_out_by_hand():
    found = compare_folds([0.6, 0.8, 1.0], [0.5, 0.6, 0.7], **SIZES)
    # Differences .1 .2 .3: mean .2, variance .01; times 1/3 + 10/20 that is .05/6, so t = .2 / sqrt(.05/6) = sqrt(4.8).
    # With two degrees of freedom p = 1 - t / sqrt(2 + t^2), and 95% lie within 4.3027 standard errors.
    assert found.mean == pytest.approx(0.2)
    assert found.p_value == pytest.approx(1 - (4.8 / 6.8) ** 0.5)
    half = 4.302652729911275 * (0.05 / 6) ** 0.5
    assert found.ci95 == pytest.approx((0.2 - half, 0.2 + half))


def test_the_interval_of_a_mean_is_that_of_its_difference_from_nothing():
    values = [0.6, 0.8, 1.0]
    assert folds_interval(values, **SIZES) == pytest.approx(compare_folds(values, [0, 0, 0], **SIZES).ci95)
    assert folds_interval([0.5], **SIZES) is None


def test_without_shared_rows_it_is_the_paired_t_test():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 8))
    assert compare_folds(a, b, n_train=1e12, n_test=1).p_value == pytest.approx(ttest_rel(a, b).pvalue)
    episodes = compare_episodes(a, b, resolution=0.1)
    assert episodes.p_value == pytest.approx(ttest_rel(a, b).pvalue)
    assert episodes.ci95 == pytest.approx(tuple(ttest_rel(a, b).confidence_interval(0.95)))


def test_two_episodes_that_differ_alike_are_no_proof():
    assert compare_episodes([0.5, 0.5], [0.4, 0.4], resolution=0.1).p_value > 0.1
    assert compare_episodes([0.5] * 100, [0.4] * 100, resolution=0.1).p_value < 1e-6


def test_what_is_the_same_is_no_different():
    values = [0.9, 0.7, 0.8]
    found = compare_folds(values, values, **SIZES)
    assert (found.mean, found.ci95, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    draws = np.random.default_rng(0).random(100)
    found = compare_draws(0.5, 0.5, draws, draws, p_value=1.0)
    assert (found.mean, found.ci95, found.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_differences_all_alike_are_judged_by_the_rounding_of_a_fold():
    # One row of ten better in each of two folds: no proof. Variance (1/10)^2 / 12 times 1/2 + 1/2.
    one_row = compare_folds([0.5, 0.5], [0.4, 0.4], n_train=20, n_test=10, resolution=0.1)
    error = (0.01 / 12) ** 0.5
    assert one_row.p_value == pytest.approx(
        2 * np.arctan(error / 0.1) / np.pi
    )  # one degree of freedom: Cauchy
    assert one_row.p_value > 0.1
    # All rows better in each of five folds is.
    assert compare_folds([1.0] * 5, [0.5] * 5, n_train=16, n_test=4, resolution=0.25).p_value < 0.001
    # Nor is a mean exact because all folds have it.
    low, high = folds_interval([1.0, 1.0], n_train=20, n_test=10, resolution=0.1)
    half = 12.706204736 * error
    assert (low, high) == pytest.approx((1 - half, 1 + half))
    # A metric without steps has no rounding to excuse it.
    assert compare_folds([1.0] * 5, [0.5] * 5, n_train=16, n_test=4).p_value == 0.0


def test_one_fold_tells_of_no_spread():
    found = compare_folds([0.9], [0.8], **SIZES)
    assert found.mean == pytest.approx(0.1)
    assert (found.ci95, found.p_value) == (None, None)
    assert compare_folds([0.9], [0.9], **SIZES).p_value == 1.0


def test_false_alarms_are_as_rare_as_promised_where_the_plain_t_test_raises_many():
    # Ten times five folds over 40 coin tosses, and two "classifiers" that guess: the means differ by luck alone.
    random = np.random.default_rng(0)
    alarms = {"corrected": 0, "plain": 0}
    for experiment in range(150):
        y, first, second = random.integers(0, 2, (3, 40))
        folds = [
            test
            for repeat in range(10)
            for _, test in StratifiedKFold(5, shuffle=True, random_state=1000 * experiment + repeat).split(
                y, y
            )
        ]
        a = [(first[fold] == y[fold]).mean() for fold in folds]
        b = [(second[fold] == y[fold]).mean() for fold in folds]
        alarms["corrected"] += compare_folds(a, b, n_train=32, n_test=8).p_value < 0.05
        alarms["plain"] += ttest_rel(a, b).pvalue < 0.05
    assert alarms["corrected"] < 0.1 * 150
    assert alarms["plain"] > 0.3 * 150


def test_the_interval_of_draws_holds_the_middle_95_of_100():
    assert draws_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert draws_interval([*np.arange(1001.0), *[np.nan] * 900]) == pytest.approx((25.0, 975.0))
    assert draws_interval([1.0, np.nan]) is None


def test_the_interval_of_a_difference_is_that_of_its_draws():
    draws = np.arange(1000.0)
    found = compare_draws(500.0, 9.5, draws, np.full(1000, 9.5), p_value=0.02)
    assert (found.mean, found.p_value) == (490.5, 0.02)
    assert found.ci95 == pytest.approx((999 * 0.025 - 9.5, 999 * 0.975 - 9.5))
    undefined = compare_draws(1.0, 0.0, draws, np.full(1000, np.nan), p_value=0.02)
    assert (undefined.ci95, undefined.p_value) == (None, 0.02)
    cannot_tell = compare_draws(1.0, 0.0, draws, draws - 1, p_value=None)
    assert (cannot_tell.ci95, cannot_tell.p_value) == (None, None)


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.02]) == pytest.approx([0.5, 0.04])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.04]) == [None, 0.04]
    assert holm([]) == []


def test_a_verdict_is_that_of_the_corrected_difference_and_none_where_nothing_is_told():
    found = corrected([Difference(-0.1, None, p_value) for p_value in (0.04, 0.01, None)])
    assert [one.p_value for one in found] == [0.04, 0.02, None]
    assert [verdict_of(one, n_contenders=3) for one in found] == ["worse", "worse", "not told"]
    assert verdict_of(Difference(-0.1, None, 0.05), n_contenders=3) == "as good as the best"
    assert (verdict_of(None, n_contenders=3), verdict_of(None, n_contenders=1)) == ("best", "the only one")
