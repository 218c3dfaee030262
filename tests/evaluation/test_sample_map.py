import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from featx.evaluation.sample_map import map_samples
from featx.evaluation.similarity import UnitRows


def test_groups_that_are_apart_in_the_features_are_apart_on_the_map():
    random = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 40)
    X = random.normal(size=(3, 60))[group] * 3 + random.normal(size=(120, 60))
    found = map_samples(UnitRows.of(X), n_map=2000, random_state=0)
    assert found.method == "t-SNE (perplexity 30) of 50 principal components"
    assert found.rows.tolist() == list(range(120))
    distances = np.linalg.norm(found.positions[:, None] - found.positions, axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()


def test_more_rows_than_fit_are_drawn_and_the_basis_is_orthonormal():
    X = np.random.default_rng(0).normal(size=(60, 20))
    first = map_samples(UnitRows.of(X), n_map=30, random_state=0)
    assert len(first.rows) == len(set(first.rows.tolist())) == 30
    assert first.rows.tolist() == sorted(first.rows.tolist())
    assert first.rows.tolist() != map_samples(UnitRows.of(X), n_map=30, random_state=1).rows.tolist()
    assert np.allclose(first.basis @ first.basis.T, np.eye(len(first.basis)), atol=1e-5)


def test_the_map_is_the_same_whatever_the_number_of_threads():
    # Of this size, sums by two threads do round differently.
    unit = UnitRows.of(np.random.default_rng(0).normal(size=(400, 600)).astype(np.float32))
    shown = set()
    for n_threads in (1, 2):
        with threadpool_limits(limits=n_threads):
            shown.add(map_samples(unit, n_map=2000, random_state=0).positions.tobytes())
    assert len(shown) == 1


@pytest.mark.parametrize(
    "X",
    [np.zeros((1, 3)), np.zeros((30, 3)), np.arange(20.0)[:, None], np.eye(4), np.eye(2)[np.arange(12) % 2]],
    ids=["one row", "all alike", "one feature", "four rows", "two places"],
)
def test_little_to_go_by_still_gives_every_row_a_place(X):
    found = map_samples(UnitRows.of(X), n_map=2000, random_state=0)
    assert found.positions.shape == (len(X), 2)
    assert np.isfinite(found.positions).all()
    assert np.isfinite(found.basis).all()


def test_one_feature_lies_on_a_line():
    positions = map_samples(UnitRows.of(np.arange(5.0)[:, None]), n_map=2000, random_state=0).positions
    assert not positions[:, 1].any()
    assert np.all(np.diff(positions[:, 0]) >= 0) or np.all(np.diff(positions[:, 0]) <= 0)
