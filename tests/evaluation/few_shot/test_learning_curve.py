import numpy as np
import pytest

from featx.errors import UsageError
from featx.evaluation.few_shot.learning_curve import draw_rows, held_out_fold, learning_curve
from featx.evaluation.folds import inseparable_rows
from featx.evaluation.heads import load_head

CLASSES = np.repeat(["a", "b", "c"], 20)
TRAIN, TEST = np.flatnonzero(np.arange(60) % 2 == 0), np.flatnonzero(np.arange(60) % 2)


def clusters(labels, *, noise=1.0, n_features=6):
    random = np.random.default_rng(0)
    number = np.unique(labels, return_inverse=True)[1]
    return 3 * np.eye(n_features)[number] + noise * random.standard_normal((len(labels), n_features))


def test_each_draw_has_so_many_rows_of_each_class_and_none_twice():
    drawn = draw_rows(CLASSES, train=TRAIN, test=TEST, labels_per_class=(1, 4, None), n_draws=3)
    assert list(drawn) == [1, 4, None]
    assert [len(draws) for draws in drawn.values()] == [3, 3, 1]
    for size in (1, 4):
        for rows in drawn[size]:
            assert np.unique(CLASSES[rows], return_counts=True)[1].tolist() == [size] * 3
            assert len(set(rows)) == 3 * size
            assert set(rows) <= set(TRAIN)
    assert drawn[None][0].tolist() == TRAIN.tolist()


def test_a_draw_holds_the_smaller_ones_whatever_other_sizes_are_asked_for():
    drawn = draw_rows(CLASSES, train=TRAIN, test=TEST, labels_per_class=(1, 2, 5), n_draws=4)
    for small, middle, large in zip(drawn[1], drawn[2], drawn[5], strict=True):
        assert set(small) < set(middle) < set(large)
    alone = draw_rows(CLASSES, train=TRAIN, test=TEST, labels_per_class=(5,), n_draws=4)
    assert np.array_equal(alone[5], drawn[5])


def test_draws_differ_and_are_those_of_the_seed():
    first, again, other = (
        np.array(draw_rows(CLASSES, train=TRAIN, test=TEST, random_state=seed)[5]) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({tuple(rows) for rows in first.tolist()}) == 20


def test_sizes_that_a_class_cannot_give_or_that_are_all_rows_are_left_out():
    assert list(draw_rows(CLASSES, train=TRAIN, test=TEST)) == [1, 2, 5, None]  # 10 of each: 10 would be all
    assert list(draw_rows(CLASSES, train=TRAIN[:-7], test=TEST)) == [1, 2, None]  # c has 3 rows


def test_copies_of_test_rows_and_their_groups_are_never_fitted_on():
    keys = np.zeros((60, 32), np.uint8)
    keys[:, 0] = np.arange(60)
    keys[0] = keys[1]  # the first training row copies the first test row
    groups = np.arange(60)
    groups[22] = groups[24] = groups[23]  # two training rows of a test row's scene
    together = inseparable_rows(groups, keys)
    drawn = draw_rows(CLASSES, train=TRAIN, test=TEST, together=together, labels_per_class=(7,), n_draws=50)
    assert {0, 22, 24}.isdisjoint(np.unique(drawn[7]))
    assert drawn[None][0].tolist() == [row for row in TRAIN.tolist() if row not in (0, 22, 24)]


def test_copies_and_rows_of_a_group_are_one_label():
    together = np.arange(60)
    together[0:20:2] = [60] * 7 + [61, 62, 63]  # of class a four pictures, one of them seven times
    drawn = draw_rows(
        CLASSES, train=TRAIN, test=TEST, together=together, labels_per_class=(1, 4, 5), n_draws=40
    )
    assert list(drawn) == [1, 4, None]
    for one, four in zip(drawn[1], drawn[4], strict=True):
        assert set(one) < set(four)
        assert np.unique(CLASSES[four], return_counts=True)[1].tolist() == [4] * 3
        assert len(set(together[four])) == 12
    assert len({int(row) for rows in drawn[4] for row in rows if row < 14}) == 7  # any of the copies
    assert drawn[None][0].tolist() == TRAIN.tolist()


def test_points_are_the_accuracies_of_the_head_fitted_on_the_draws():
    X = clusters(CLASSES)
    head = load_head("ridge")
    params = {"ridgeclassifier__alpha": 0.1}
    curve = learning_curve(X, CLASSES, head, params, train=TRAIN, test=TEST, labels_per_class=[2], n_draws=5)
    drawn = draw_rows(CLASSES, train=TRAIN, test=TEST, labels_per_class=[2], n_draws=5)
    plain = head.pipeline.set_params(**params)
    each = [plain.fit(X[rows], CLASSES[rows]).score(X[TEST], CLASSES[TEST]) for rows in drawn[2]]
    two, every = curve
    assert (two.labels_per_class, two.n_labels, two.n_draws, two.note) == (2, 6, 5, None)
    assert two.mean == pytest.approx(np.mean(each))
    assert two.std == pytest.approx(np.std(each, ddof=1))
    assert two.ci95[0] < two.mean < two.ci95[1]
    assert (every.labels_per_class, every.n_labels, every.n_draws, every.ci95) == (None, 30, 1, None)
    assert every.mean == plain.fit(X[TRAIN], CLASSES[TRAIN]).score(X[TEST], CLASSES[TEST])


def test_labels_that_say_nothing_stay_at_chance_and_true_ones_rise():
    X = clusters(CLASSES, noise=2.5)
    random = np.random.default_rng(1).permutation(CLASSES)
    rising = learning_curve(X, CLASSES, load_head("centroid"), {}, train=TRAIN, test=TEST)
    chance = learning_curve(X, random, load_head("centroid"), {}, train=TRAIN, test=TEST)
    assert rising[0].mean + 0.1 < rising[-1].mean
    assert all(abs(point.mean - 1 / 3) < 0.13 for point in chance)


def test_a_head_that_cannot_be_fitted_on_so_few_rows_says_so_at_that_point():
    one, *_, every = learning_curve(
        clusters(CLASSES), CLASSES, load_head("knn"), {}, train=TRAIN, test=TEST, labels_per_class=[1, 2]
    )
    assert (one.n_labels, one.mean, one.std, one.ci95) == (3, None, None, None)
    assert "head 'knn' cannot be fitted on 3 rows: Expected n_neighbors <= n_samples_fit" in one.note
    assert every.mean > 0.8
    assert every.note is None


def test_fits_that_did_not_converge_are_told_beside_the_accuracy():
    params = {"logisticregression__max_iter": 1}
    curve = learning_curve(
        clusters(CLASSES),
        CLASSES,
        load_head("logreg"),
        params,
        train=TRAIN,
        test=TEST,
        labels_per_class=[],
    )
    assert curve[0].mean > 0.5
    assert "1 of 1 fits did not converge" in curve[0].note


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels_per_class": [0]}, "whole numbers from 1, or None for all; got 0"),
        ({"labels_per_class": [2.5]}, "got 2.5"),
        ({"n_draws": 1}, "needs 2 draws or more for an interval; got 1"),
        ({"train": TRAIN[:5]}, "of two classes, without copies .* got 1. Add samples"),
        ({"together": np.zeros(60, int)}, "got 0"),
    ],
)
def test_what_gives_no_curve_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        draw_rows(CLASSES, **{"train": TRAIN, "test": TEST, **options})


def test_a_regression_head_is_refused():
    with pytest.raises(UsageError, match=r"'svr' is a regression head. Leave the curve out"):
        learning_curve(clusters(CLASSES), np.arange(60), load_head("svr"), {}, train=TRAIN, test=TEST)


def test_a_third_of_every_class_is_held_out_and_no_group_torn():
    groups = np.arange(60) // 2
    fold = held_out_fold(CLASSES, together=groups)
    assert np.unique(CLASSES[fold.test], return_counts=True)[1] == pytest.approx([20 / 3] * 3, abs=2)
    assert sorted([*fold.train, *fold.test]) == list(range(60))
    assert not set(groups[fold.train]) & set(groups[fold.test])
    assert not np.array_equal(fold.test, held_out_fold(CLASSES, together=groups, random_state=1).test)


def test_the_split_of_the_data_comes_first():
    splits = np.where(np.arange(60) % 5 == 0, "test", np.where(np.arange(60) % 5 == 1, "val", "train"))
    fold = held_out_fold(CLASSES, splits=splits)
    assert fold.test.tolist() == list(range(0, 60, 5))
    assert len(fold.train) == 48


def test_a_class_that_cannot_be_on_both_sides_is_refused():
    with pytest.raises(UsageError, match="class 'd' has 2 rows, fewer than the 3 folds"):
        held_out_fold(np.array([*CLASSES, "d", "d"]))
