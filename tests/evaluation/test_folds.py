import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.errors import UsageError
from featx.evaluation.folds import inseparable_rows, make_folds, predefined_fold, whole_fold


def digests(*contents):
    return np.stack([np.frombuffer(int(content).to_bytes(32), np.uint8) for content in contents])


def folds_of(y, *, task="classification", cv=3, groups=None, search=True):
    return make_folds(np.array(list(y)), task=task, cv=cv, groups=groups, search=search, random_state=0)


def predefined(y, splits, *, task="classification", cv=2, search=True):
    return predefined_fold(
        np.array(list(y)), splits, task=task, cv=cv, groups=None, search=search, random_state=0
    )


def test_rows_without_groups_or_copies_stand_for_themselves():
    assert inseparable_rows(None, None) is None
    assert inseparable_rows(None, digests(1, 2, 3)) is None


def test_exact_copies_are_one_group():
    number = inseparable_rows(None, digests(1, 2, 1, 3))
    assert number[0] == number[2]
    assert len(set(number)) == 3


def test_digests_that_differ_only_in_a_last_zero_are_no_copies():
    assert inseparable_rows(None, digests(256, 257)) is None


def test_groups_that_share_a_copy_become_one_group_through_any_chain():
    groups = np.array(["a", "a", "b", "b", "c", "c", "d"])
    number = inseparable_rows(groups, digests(1, 2, 2, 3, 3, 4, 5))
    assert len(set(number[:6])) == 1
    assert number[6] != number[0]


def test_groups_without_copies_keep_their_order_so_folds_equal_scikit_learns():
    groups = np.array(["b", "a", "b", "c"])
    assert inseparable_rows(groups, digests(1, 2, 3, 4)).tolist() == [1, 0, 1, 2]
    assert inseparable_rows(groups, digests(1, 2, 1, 4)).tolist() == [1, 0, 1, 2]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_those_of_scikit_learns_shuffled_splitters(task, grouped):
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], 20))
    groups = rng.integers(0, 25, len(y)) if grouped else None
    splitter = {
        ("classification", False): StratifiedKFold,
        ("classification", True): StratifiedGroupKFold,
        ("regression", False): KFold,
        ("regression", True): GroupKFold,
    }[task, grouped](n_splits=3, shuffle=True, random_state=0)
    folds = folds_of(y, task=task, groups=groups)
    for fold, (train, test) in zip(folds, splitter.split(y, y, groups), strict=True):
        np.testing.assert_array_equal(fold.train, train)
        np.testing.assert_array_equal(fold.test, test)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(5))
def test_no_group_and_no_copy_is_ever_on_both_sides_inside_or_outside(task, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 120)
    together = inseparable_rows(rng.integers(0, 60, 120), digests(*rng.integers(0, 400, 120)))
    folds = folds_of(y, task=task, groups=together)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in folds])), np.arange(120))
    for fold in folds:
        assert set(fold.train).isdisjoint(fold.test)
        assert set(together[fold.train]).isdisjoint(together[fold.test])
        for train, validation in fold.inner:
            assert set(train) | set(validation) <= set(fold.train)
            assert set(together[train]).isdisjoint(together[validation])


def test_inner_folds_are_as_many_as_the_smallest_class_allows():
    folds = folds_of(["a"] * 12 + ["b"] * 3, cv=3)
    assert [len(fold.inner) for fold in folds] == [2, 2, 2]
    assert folds_of(["a"] * 12 + ["b"] * 3, cv=3, search=False)[0].inner == []


def test_the_final_fit_trains_on_every_row_and_tests_none():
    fold = whole_fold(
        np.repeat(["a", "b"], 5), task="classification", cv=5, groups=None, search=True, random_state=0
    )
    assert fold.train.tolist() == list(range(10))
    assert len(fold.test) == 0
    assert len(fold.inner) == 5


def test_train_val_and_test_choose_on_val_fit_on_both_and_test_on_test():
    splits = ["Training", "dev", "test", "train", "valid", "test", "train", "validation", "train"]
    fold = predefined("abababaab", splits)
    assert fold.train.tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert fold.test.tolist() == [2, 5]
    ((train, validation),) = fold.inner
    assert train.tolist() == [0, 3, 6, 8]
    assert validation.tolist() == [1, 4, 7]


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_without_a_third_part_the_other_is_held_out_and_train_is_folded(held_out):
    fold = predefined("aabbab", ["train"] * 4 + [held_out] * 2)
    assert fold.train.tolist() == [0, 1, 2, 3]
    assert fold.test.tolist() == [4, 5]
    assert len(fold.inner) == 2
    for train, validation in fold.inner:
        assert sorted([*train, *validation]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train", "train", "holdout", "test"], "unknown split 'holdout'; expected one of train, training"),
        (["train"] * 4, "got 4 train, 0 val, 0 test"),
        (["test"] * 4, "got 0 train, 0 val, 4 test"),
        (["train", "test", "train", "test"], "a training part has the one class 'a'"),
    ],
)
def test_splits_that_cannot_be_used_say_why(splits, message):
    with pytest.raises(UsageError, match=message):
        predefined("abab", splits)
    with pytest.raises(UsageError, match=message):
        predefined("abab", np.array(splits))


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        ("ab", None, "class 'a' has 1 row, which cannot be both fitted and tested"),
        ("aaaaab", None, "class 'b' has 1 row, which cannot be both fitted and tested"),
        ("aaaabb", None, "class 'b' has 2 rows, fewer than the 3 folds; lower cv to 2"),
        (
            "aaabbb",
            [0, 1, 0, 1, 0, 1],
            r"3 folds need at least 3 groups \(exact copies count as one\); got 2\. Lower cv to 2, or add groups\.",
        ),
        ("aaabbb", [0, 1, 2, 3, 3, 3], "all rows of class 'b' belong to one group .*; add groups or drop"),
        ("aaabbb", [0, 0, 0, 3, 3, 3], "all rows of class 'a' belong to one group"),
        ("aaabb", [0, 1, 0, 1, 0], "class 'b' has 2 rows, fewer than the 3 folds; lower cv to 2,"),
    ],
)
def test_data_that_is_too_small_for_the_folds_is_refused_with_a_way_out(y, groups, message):
    with pytest.raises(UsageError, match=message):
        folds_of(list(y), groups=None if groups is None else np.array(groups))


def test_numbers_with_few_rows_each_are_answered_with_the_heads_for_numbers():
    for numbers in ([20, 21, 22, 23], [20, 20, 20, 21, 21]):
        with pytest.raises(UsageError, match=r"take a regression head \(ridge_regression, svr\)\.$"):
            folds_of(numbers)


def test_a_class_that_training_leaves_one_row_of_cannot_be_searched_but_can_be_fitted():
    with pytest.raises(UsageError, match=r"class 'b' has 1 row in a training part.*no search \(centroid\)"):
        folds_of("aaaabb", cv=2)
    assert (
        len(
            make_folds(
                np.array(list("aaaabb")),
                task="classification",
                cv=2,
                groups=None,
                search=False,
                random_state=0,
            )
        )
        == 2
    )


def test_a_regression_fold_of_one_row_has_no_r2():
    with pytest.raises(UsageError, match="a fold of one row has no r2"):
        folds_of([1.0, 2.0, 3.0, 4.0], task="regression", cv=4)


def test_numbers_of_one_group_need_groups_not_fewer_folds():
    with pytest.raises(UsageError, match=r"3 folds need at least 3 groups .*; got 1\. Add groups\.$"):
        folds_of([1.0, 2.0, 3.0, 4.0], task="regression", groups=np.zeros(4, int))


def test_a_row_whose_group_is_missing_stands_for_itself():
    groups = np.array(["a", None, "a", None], dtype=object)
    number = inseparable_rows(groups, None)
    assert number[0] == number[2]
    assert len(set(number.tolist())) == 3
