import numpy as np
import pytest
from sklearn.base import clone

from featx.errors import UsageError
from featx.evaluation.few_shot.accuracy import episode_accuracies
from featx.evaluation.few_shot.episodes import draw_episodes
from featx.evaluation.heads import load_head

LABELS = np.repeat(np.arange(6), 20)
RANDOM = np.random.default_rng(0)
X = (RANDOM.standard_normal((6, 30))[LABELS] + 2 * RANDOM.standard_normal((120, 30))).astype(np.float32)


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("name", ["centroid", "ridge", "knn", "logreg"])
def test_every_head_scores_as_when_fitted_on_each_support(name):
    head = load_head(name)
    episodes = draw_episodes(LABELS, shots=1, queries=10, episodes=12)
    found, notes = episode_accuracies(X, LABELS, head, episodes)
    expected = [
        clone(head.pipeline).fit(X[support], LABELS[support]).score(X[query], LABELS[query])
        for support, query in zip(episodes.support, episodes.query, strict=True)
    ]
    assert found == pytest.approx(expected, abs=1e-6)
    assert notes == []


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
def test_ties_are_broken_as_scikit_learn_breaks_them():
    coarse = np.sign(X[:, :3]) + 2  # 8 different rows: ties all over
    episodes = draw_episodes(LABELS, ways=3, shots=1, queries=10, episodes=60)
    for name in ("centroid", "ridge"):
        head = load_head(name)
        drawn = [at for at in range(60) if len(np.unique(coarse[episodes.support[at]], axis=0)) > 1]
        possible = type(episodes)(
            **{
                **vars(episodes),
                **{side: getattr(episodes, side)[drawn] for side in ("classes", "support", "query")},
            }
        )
        found, _ = episode_accuracies(coarse, LABELS, head, possible)
        expected = [
            clone(head.pipeline).fit(coarse[support], LABELS[support]).score(coarse[query], LABELS[query])
            for support, query in zip(possible.support, possible.query, strict=True)
        ]
        assert found.tolist() == expected


@pytest.mark.parametrize("name", ["centroid", "ridge"])
def test_labels_that_say_nothing_are_guessed_at_chance(name):
    means = []
    for seed in range(8):
        labels = np.random.default_rng(seed).permutation(LABELS)
        episodes = draw_episodes(labels, shots=5, queries=10, episodes=40)
        means.append(episode_accuracies(X, labels, load_head(name), episodes)[0].mean())
    assert abs(np.mean(means) - 1 / 5) < 0.02
    true = draw_episodes(LABELS, shots=5, queries=10, episodes=200)
    assert episode_accuracies(X, LABELS, load_head(name), true)[0].mean() > 0.4


def test_more_processes_give_the_same_and_progress_is_told():
    episodes = draw_episodes(LABELS, ways=3, shots=1, queries=5, episodes=20)
    head = load_head("svm")
    steps = []
    alone, _ = episode_accuracies(X, LABELS, head, episodes, progress=lambda *step: steps.append(step))
    both, _ = episode_accuracies(X, LABELS, head, episodes, n_jobs=2)
    assert np.array_equal(alone, both)
    assert steps[-1] == (20, 20)
    steps.clear()
    episode_accuracies(X, LABELS, load_head("centroid"), episodes, progress=lambda *step: steps.append(step))
    assert steps == [(20, 20)]


def test_a_head_that_needs_more_rows_is_refused_with_the_way_out():
    episodes = draw_episodes(LABELS, ways=3, shots=1, episodes=4)
    with pytest.raises(
        UsageError,
        match=r"'knn' cannot be fitted in 4 of 4 3-way 1-shot episodes, of 3 samples each: Expected n_neighbors"
        r".*Take more shots or ways",
    ):
        episode_accuracies(X, LABELS, load_head("knn"), episodes)


def test_features_that_are_all_the_same_are_refused():
    episodes = draw_episodes(LABELS, episodes=4)
    with pytest.raises(UsageError, match=r"'centroid' cannot be fitted in 4 of 4 .* variance threshold"):
        episode_accuracies(np.ones_like(X), LABELS, load_head("centroid"), episodes)


def test_a_regression_head_is_refused():
    with pytest.raises(UsageError, match=r"'svr' is a regression head. Take one such as centroid"):
        episode_accuracies(X, LABELS, load_head("svr"), draw_episodes(LABELS, episodes=2))
