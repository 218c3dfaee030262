import numpy as np
import pytest

from featx.errors import UsageError
from featx.evaluation.few_shot.episodes import draw_episodes
from featx.evaluation.folds import inseparable_rows

LABELS = np.random.default_rng(0).permutation(np.repeat(list("abcdefg"), 25))


def test_an_episode_is_so_many_rows_of_so_many_classes_and_none_twice():
    drawn = draw_episodes(LABELS, ways=4, shots=3, queries=6, episodes=50)
    assert (len(drawn), drawn.ways, drawn.shots, drawn.queries, drawn.notes) == (50, 4, 3, 6, [])
    for classes, support, query in zip(drawn.classes, drawn.support, drawn.query, strict=True):
        assert sorted(set(classes)) == classes.tolist()
        assert LABELS[support].tolist() == np.repeat(classes, 3).tolist()
        assert LABELS[query].tolist() == np.repeat(classes, 6).tolist()
        assert len({*support, *query}) == 4 * (3 + 6)


def test_classes_and_rows_are_drawn_evenly():
    drawn = draw_episodes(LABELS, ways=2, shots=1, queries=1, episodes=4000)
    of_class = np.unique(drawn.classes, return_counts=True)[1]
    assert np.abs(of_class / 4000 - 2 / 7).max() < 0.03  # four standard errors are 0.029
    for side in (drawn.support, drawn.query):
        # 8000 rows drawn, 45.7 of each of 175 on average
        assert np.bincount(side.ravel(), minlength=175).min() > 18
        assert np.bincount(side.ravel(), minlength=175).max() < 80


def test_episodes_are_those_of_the_seed_and_differ_from_one_another():
    first, again, other = (
        draw_episodes(LABELS, shots=2, episodes=20, random_state=seed) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.support, again.support)
    assert np.array_equal(first.query, again.query)
    assert not np.array_equal(first.query, other.query)
    assert len({tuple(rows) for rows in first.support.tolist()}) == 20


def test_more_shots_add_to_the_support_of_the_same_episodes():
    one, five = (draw_episodes(LABELS, shots=shots, episodes=20) for shots in (1, 5))
    assert np.array_equal(one.classes, five.classes)
    assert np.array_equal(one.query, five.query)
    assert np.array_equal(one.support.reshape(20, 5, 1), five.support.reshape(20, 5, 5)[:, :, :1])


def test_no_copy_and_no_group_is_on_both_sides_or_twice_in_a_class():
    keys = np.zeros((175, 32), np.uint8)
    keys[:, 0] = np.random.default_rng(1).integers(0, 120, 175)  # copies, also under another label
    together = inseparable_rows(None, keys)
    drawn = draw_episodes(LABELS, ways=3, shots=4, queries=5, episodes=200, together=together)
    for support, query in zip(together[drawn.support], together[drawn.query], strict=True):
        assert not set(support) & set(query)
        assert all(len(set(rows)) == 4 for rows in support.reshape(3, 4).tolist())
        assert all(len(set(rows)) == 5 for rows in query.reshape(3, 5).tolist())


def test_groups_that_all_classes_share_are_on_one_side_too():
    groups = np.tile(np.arange(25), 7)  # 25 patients, each with a picture of every class
    labels = np.repeat(list("abcdefg"), 25)
    drawn = draw_episodes(labels, ways=7, shots=5, queries=15, episodes=30, together=groups)
    for support, query in zip(groups[drawn.support], groups[drawn.query], strict=True):
        assert not set(support) & set(query)


def test_any_row_of_a_group_may_be_drawn():
    labels, groups = np.repeat(["a", "b"], 12), np.repeat(np.arange(6), 4)
    drawn = draw_episodes(labels, ways=2, shots=1, queries=2, episodes=300, together=groups)
    assert set(drawn.support.ravel()) == set(range(24))


def test_a_class_with_too_few_rows_is_never_drawn_and_named():
    labels = np.repeat(["a", "b", "c", "rare"], [20, 20, 20, 5])
    drawn = draw_episodes(labels, ways=2, shots=5, queries=15, episodes=100)
    assert drawn.queries == 15
    assert set(drawn.classes.ravel()) == {"a", "b", "c"}
    assert drawn.notes == [
        "5-shot episodes never draw 1 of 4 classes, which have fewer than the 20 samples it takes: rare (5); fewer"
        " queries would let them in"
    ]


def test_every_class_is_asked_less_where_too_few_classes_have_the_rows():
    labels = np.repeat(["a", "b", "c"], [20, 12, 6])
    drawn = draw_episodes(labels, ways=2, shots=5, queries=15, episodes=10)
    assert drawn.queries == 7  # b has 12
    assert drawn.query.shape == (10, 14)
    assert (
        drawn.notes[0] == "5-shot episodes ask 7 queries per class, not 15: the classes have no more samples"
    )
    assert "never draw 1 of 3 classes" in drawn.notes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "ways: expected a whole number from 2, got 1"),
        ({"shots": 0}, "shots: expected a whole number from 1, got 0"),
        ({"shots": 1.5}, r"shots: expected a whole number from 1, got 1\.5"),
        ({"queries": 0}, "queries: expected a whole number from 1, got 0"),
        ({"episodes": 1}, "episodes: expected a whole number from 2, got 1"),
        (
            {"ways": 8},
            r"need 8 classes with 2 samples or more, .* got 7 such of 7 classes. Lower ways to 7, or add",
        ),
        (
            {"shots": 25},
            r"classes with 26 samples or more, .* got 0 such of 7 classes. Lower shots to 24, or add",
        ),
        (
            {"ways": 8, "shots": 25},
            r"got 0 such of 7 classes. Lower ways to 7 and shots to 24, or add samples\.",
        ),
        (
            {"together": np.zeros(175, int)},
            r"\(rows of a group, and exact copies, count as one\).* Add groups\.",
        ),
    ],
)
def test_what_gives_no_episodes_is_refused_with_the_way_out(options, message):
    with pytest.raises(UsageError, match=message):
        draw_episodes(LABELS, **options)


def test_one_class_is_too_few_whatever_the_numbers():
    with pytest.raises(
        UsageError, match=r"two classes or more; every label is 'a'\. Add samples of others\."
    ):
        draw_episodes(["a"] * 30)


def test_groups_that_leave_no_episode_are_refused():
    # Each class has two groups, and shares one with each of the others: one group would be on both sides.
    labels = np.array(list("aabbcc"))
    groups = np.array([0, 1, 1, 2, 2, 0])
    with pytest.raises(UsageError, match="the groups span the classes so much"):
        draw_episodes(labels, ways=3, shots=1, queries=1, episodes=2, together=groups)
