import numpy as np
import pytest

from featx.errors import UsageError
from featx.evaluation.seeds import checked_seed, repeat_seed


def test_a_seed_is_itself_and_a_fresh_one_is_another_each_time():
    assert [checked_seed(seed) for seed in (0, np.int64(7), 2**32 - 1)] == [0, 7, 2**32 - 1]
    assert type(checked_seed(np.int64(7))) is int
    assert checked_seed(None) != checked_seed(None)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "0"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(UsageError, match=f"from 0 to 4294967295, or None for a fresh one; got {seed!r}"):
        checked_seed(seed)


def test_the_first_repeat_is_the_run_itself_and_no_two_repeats_of_any_runs_are_alike():
    assert [repeat_seed(seed, 0) for seed in range(20)] == list(range(20))
    assert len({repeat_seed(seed, repeat) for seed in range(20) for repeat in range(10)}) == 200
