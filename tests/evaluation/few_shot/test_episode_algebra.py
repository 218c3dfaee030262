import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.evaluation.few_shot.episode_algebra import algebra_of, batched_accuracies
from featx.evaluation.few_shot.episodes import Episodes, draw_episodes
from featx.evaluation.heads import load_head

LABELS = np.repeat(np.arange(6), 20)


def features(*, n_features=40, dtype=np.float32, offset=0.0):
    random = np.random.default_rng(0)
    means = random.standard_normal((6, n_features))
    X = np.maximum(means[LABELS] + 2 * random.standard_normal((120, n_features)), 0)  # zeros, as of a ReLU
    return (X + offset).astype(dtype)


def looped(X, head, episodes):
    return np.array(
        [
            clone(head.pipeline).fit(X[support], LABELS[support]).score(X[query], LABELS[query])
            for support, query in zip(episodes.support, episodes.query, strict=True)
        ]
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("name", ["centroid", "ridge"])
@pytest.mark.parametrize(("ways", "shots"), [(2, 1), (5, 1), (5, 5), (3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_accuracies_are_those_of_fitting_the_recipe_in_every_episode(name, ways, shots, dtype):
    X, head = features(dtype=dtype), load_head(name)
    episodes = draw_episodes(LABELS, ways=ways, shots=shots, queries=10, episodes=25)
    found, doubtful = batched_accuracies(X, episodes, algebra_of(head))
    assert doubtful.mean() < 0.1
    assert found[~doubtful] == pytest.approx(looped(X, head, episodes)[~doubtful], abs=1e-6)
    assert 1 / ways + 0.05 < found.mean() < 0.99


def test_ridge_is_computed_with_the_alpha_it_is_given():
    head = load_head(make_pipeline(StandardScaler(), RidgeClassifier(alpha=0.01)))
    X, episodes = features(n_features=15), draw_episodes(LABELS, shots=5, episodes=25)
    found, doubtful = batched_accuracies(X, episodes, algebra_of(head))
    assert found[~doubtful] == pytest.approx(looped(X, head, episodes)[~doubtful], abs=1e-6)
    assert not np.allclose(found, batched_accuracies(X, episodes, algebra_of(load_head("ridge")))[0])


def test_a_worked_episode():
    # Class 0 at (0, 0, 7), class 1 at (4, 0, 7): the mean is (2, 0, 7) and the third feature, which never varies, goes.
    # (1.9, 9, 0) less the mean is (-0.1, 9): nearer to (-1, 0) than to (1, 0). (2.1, 0, 0) is nearer to (1, 0).
    X = np.array([[0, 0, 7], [4, 0, 7], [1.9, 9, 0], [2.1, 0, 0]])
    episode = Episodes(2, 1, 1, np.array([[0, 1]]), np.array([[0, 1]]), np.array([[2, 3]]), [])
    assert batched_accuracies(X, episode, algebra_of(load_head("centroid")))[0].tolist() == [1.0]
    swapped = Episodes(2, 1, 1, np.array([[0, 1]]), np.array([[0, 1]]), np.array([[3, 2]]), [])
    assert batched_accuracies(X, swapped, algebra_of(load_head("centroid")))[0].tolist() == [0.0]


@pytest.mark.parametrize("name", ["centroid", "ridge"])
def test_what_a_query_is_answered_depends_on_no_other_query(name):
    algebra = algebra_of(load_head(name))
    X = features(dtype=np.float64)
    support, query = X[None, ::20], X[None, 1::20]
    scores, _ = algebra(support, query, 6, 1e-16)
    moved = query.copy()
    moved[:, 1:] += 100  # a mean that saw the queries would follow them
    assert algebra(support, moved, 6, 1e-16)[0][:, 0] == pytest.approx(scores[:, 0], rel=1e-9)
    alone, _ = algebra(support, query[:, :1], 6, 1e-16)
    assert alone[:, 0] == pytest.approx(scores[:, 0], rel=1e-9)


@pytest.mark.parametrize("name", ["centroid", "ridge"])
def test_where_rounding_could_decide_the_episode_is_doubtful(name):
    X = features()
    X[1::20] = X[0]  # the queries are all one, and half way between two classes for some
    tie = np.array([[0, 20, 1, 21]])
    X[1] = X[21] = (X[0] + X[20]) / 2
    episode = Episodes(2, 1, 1, np.array([[0, 1]]), tie[:, :2], tie[:, 2:], [])
    assert batched_accuracies(X, episode, algebra_of(load_head(name)))[1].tolist() == [True]
    constant = np.ones_like(X)
    assert batched_accuracies(constant, episode, algebra_of(load_head(name)))[1].tolist() == [True]


@pytest.mark.parametrize("name", ["centroid", "ridge"])
@pytest.mark.parametrize("offset", [0, 30, 3000])
def test_no_episode_that_is_not_doubtful_differs_however_far_off_the_features_lie(name, offset):
    X, head = features(offset=offset), load_head(name)
    episodes = draw_episodes(LABELS, ways=3, shots=2, queries=10, episodes=40)
    found, doubtful = batched_accuracies(X, episodes, algebra_of(head))
    assert np.array_equal(found[~doubtful], looped(X, head, episodes)[~doubtful])


def test_it_is_the_pipeline_that_counts_not_its_name():
    recipe = load_head("ridge").pipeline
    assert algebra_of(load_head(recipe)) is not None
    assert algebra_of(load_head(clone(recipe).set_params(ridgeclassifier__fit_intercept=False))) is None
    assert algebra_of(load_head(clone(recipe).set_params(standardscaler__with_std=False))) is None
    assert algebra_of(load_head(RidgeClassifier())) is None
    assert algebra_of(load_head("logreg")) is None
    assert algebra_of(load_head(load_head("centroid").pipeline.set_params(normalizer__norm="l1"))) is None


def test_chunks_make_no_difference(monkeypatch):
    X, episodes = features(), draw_episodes(LABELS, shots=2, episodes=7)
    for name in ("centroid", "ridge"):
        algebra = algebra_of(load_head(name))
        monkeypatch.setattr("featx.evaluation.few_shot.episode_algebra._CHUNK_BYTES", 1)
        one, _ = batched_accuracies(X, episodes, algebra)
        monkeypatch.setattr("featx.evaluation.few_shot.episode_algebra._CHUNK_BYTES", 2**30)
        assert np.array_equal(batched_accuracies(X, episodes, algebra)[0], one)
