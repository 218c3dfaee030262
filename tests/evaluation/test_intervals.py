import pytest

from featx.evaluation.intervals import mean_interval


def test_interval_is_the_worked_one():
    # mean 0.5; squared deviations 0.01 + 0.01 + 0.04 + 0.04, over 3: std 0.182574; t(0.975, 3) = 3.182446;
    # half = 3.182446 * 0.182574 / 2 = 0.290516
    found = mean_interval([0.4, 0.6, 0.3, 0.7])
    assert found.mean == pytest.approx(0.5)
    assert found.std == pytest.approx(0.182574, abs=1e-6)
    assert found.ci95 == pytest.approx((0.209484, 0.790516), abs=1e-6)


def test_interval_ends_where_accuracies_do():
    assert mean_interval([1.0, 0.9]).ci95 == (pytest.approx(0.314690, abs=1e-6), 1.0)  # t(0.975, 1) = 12.7062
    assert mean_interval([0.0, 0.1]).ci95[0] == 0.0


def test_a_single_value_has_no_interval():
    assert (mean_interval([0.7]).std, mean_interval([0.7]).ci95) == (0.0, None)
