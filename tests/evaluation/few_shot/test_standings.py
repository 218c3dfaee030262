import numpy as np
import pytest
from scipy.stats import ttest_rel

from featx.evaluation.few_shot.standings import rank_episodes
from featx.evaluation.significance import holm


def test_the_best_is_first_and_the_others_are_told_from_it_or_not_corrected_for_all_pairs():
    random = np.random.default_rng(0)
    episodes = random.normal(0, 0.1, 100)
    shifts = {"far": 0.56, "near": 0.594, "best": 0.6, "between": 0.57}
    own = {name: shift + episodes + random.normal(0, 0.04, 100) for name, shift in shifts.items()}
    found = rank_episodes(own, resolution=0.01)
    assert list(found) == ["best", "near", "between", "far"]
    assert [one.verdict for one in found.values()] == ["best", "as good as the best", "worse", "worse"]
    names = list(found)
    pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
    p_values = holm([ttest_rel(own[one], own[other]).pvalue for one, other in pairs])
    told = [one.difference.p_value for one in list(found.values())[1:]]
    assert told == pytest.approx(p_values[:3], rel=1e-9, abs=0)
    assert found["far"].difference.mean == pytest.approx((own["far"] - own["best"]).mean())
    assert (found["best"].difference, found["far"].accuracy.mean) == (None, pytest.approx(own["far"].mean()))


def test_of_equals_the_first_is_the_best_and_two_episodes_prove_nothing():
    found = rank_episodes({"a": np.array([0.5, 0.7]), "b": np.array([0.5, 0.7])}, resolution=0.1)
    assert [(name, one.verdict) for name, one in found.items()] == [
        ("a", "best"),
        ("b", "as good as the best"),
    ]
    found = rank_episodes({"a": np.array([0.5, 0.7]), "b": np.array([0.6, 0.8])}, resolution=0.1)
    assert [(name, one.verdict) for name, one in found.items()] == [
        ("b", "best"),
        ("a", "as good as the best"),
    ]
    assert rank_episodes({"a": np.ones(3)}, resolution=0.1)["a"].verdict == "the only one"
