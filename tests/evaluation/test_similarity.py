import numpy as np
import pytest
from sklearn.decomposition import PCA

from featx.evaluation import similarity
from featx.evaluation.similarity import Pair, UnitRows, copies, near_pairs, nearest


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, 40))
    X = centres[random.integers(0, 8, 300)] + random.normal(size=(300, 40)) * 0.7
    X[:, 3] = 5.0  # never varies
    X[200:210] = X[:10] + random.normal(size=(10, 40)) * 0.05
    X[:, 3] = 5.0
    return X.astype(np.float32)


@pytest.fixture
def unit(rows):
    return UnitRows.of(rows)


def cosines(X):
    varying = X[:, X.std(axis=0) > 0].astype(np.float64)
    standard = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True)
    return standard @ standard.T


def basis_of(unit, n_components):
    return PCA(n_components).fit(unit.take(np.arange(len(unit)))).components_.astype(np.float32)


def test_rows_are_standardised_and_of_length_one_whatever_a_block_holds(rows, unit, monkeypatch):
    every = unit.take(np.arange(300))
    assert np.allclose(np.linalg.norm(every, axis=1), 1)
    assert np.allclose(every @ every.T, cosines(rows), atol=1e-5)
    monkeypatch.setattr(similarity, "_BLOCK_ROWS", 7)
    assert np.allclose(UnitRows.of(rows).take(np.array([5, 2])), every[[5, 2]], atol=1e-6)


def test_a_feature_far_from_zero_keeps_its_variation():
    X = np.array([[1e4 - 1, 0.0], [1e4, 0.0], [1e4 + 1, 3.0]], np.float32)
    assert np.allclose(UnitRows.of(X).scale, X.astype(np.float64).std(axis=0))


def test_what_varies_by_rounding_alone_does_not_count(rows, unit):
    wide = np.concatenate([rows, 1 + 2e-7 * np.random.default_rng(0).normal(size=(300, 1))], axis=1)
    assert np.allclose(UnitRows.of(wide).take(np.arange(300))[:, :-1], unit.take(np.arange(300)), atol=1e-6)


def test_rows_that_are_all_alike_have_no_direction():
    unit = UnitRows.of(np.full((4, 3), 0.1, np.float32))
    assert not unit.take(np.arange(4)).any()


@pytest.mark.parametrize("n_components", [1, 5, 39])
@pytest.mark.parametrize("sizes", [(1024, 8192), (64, 100), (7, 11)], ids=str)
def test_no_pair_is_missed_whatever_the_basis_and_the_tiles(rows, unit, monkeypatch, n_components, sizes):
    monkeypatch.setattr(similarity, "_KEPT", 100_000)
    monkeypatch.setattr(similarity, "_BLOCK_ROWS", sizes[0])
    monkeypatch.setattr(similarity, "_TILE_COLUMNS", sizes[1])
    expected = cosines(rows)
    found = near_pairs(unit, basis_of(unit, n_components), random_state=0, at_least=0.6)
    left, right = np.nonzero(np.triu(expected, 1) >= 0.6)
    assert len(left) > 100
    assert {pair[1:] for pair in found.pairs} == set(zip(left.tolist(), right.tolist(), strict=True))
    assert [pair.similarity for pair in found.pairs] == sorted(
        [p.similarity for p in found.pairs], reverse=True
    )
    for pair in found.pairs:
        assert pair.similarity == pytest.approx(expected[pair.first, pair.second], abs=1e-5)
    assert (found.n_compared, found.complete) == (300, True)


def test_the_pairs_kept_are_the_most_similar(rows, unit, monkeypatch):
    everything = near_pairs(unit, basis_of(unit, 5), random_state=0, at_least=0.3).pairs
    monkeypatch.setattr(similarity, "_KEPT", 20)
    monkeypatch.setattr(similarity, "_BLOCK_ROWS", 32)
    assert near_pairs(unit, basis_of(unit, 5), random_state=0, at_least=0.3).pairs == everything[:20]


def test_only_a_draw_of_very_many_rows_is_compared(unit, monkeypatch):
    monkeypatch.setattr(similarity, "_MOST_COMPARED", 120)
    first = near_pairs(unit, basis_of(unit, 5), random_state=0, at_least=0.6)
    assert first.n_compared == 120
    assert len({row for pair in first.pairs for row in pair[1:]}) <= 120
    assert first == near_pairs(unit, basis_of(unit, 5), random_state=0, at_least=0.6)
    assert first != near_pairs(unit, basis_of(unit, 5), random_state=1, at_least=0.6)


def test_a_search_that_was_cut_short_says_so_and_has_the_best(unit, monkeypatch):
    basis = basis_of(unit, 20)
    best = near_pairs(unit, basis, random_state=0, at_least=0.3).pairs[:10]
    monkeypatch.setattr(similarity, "_MOST_COMPUTED", 0)
    monkeypatch.setattr(similarity, "_KEPT", 50)
    monkeypatch.setattr(similarity, "_BLOCK_ROWS", 100)
    short = near_pairs(unit, basis, random_state=0, at_least=0.3)
    assert not short.complete
    assert {pair[1:] for pair in short.pairs[:10]} == {pair[1:] for pair in best}


def test_identical_rows_are_as_similar_as_can_be_and_no_more():
    X = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    X[1] = X[0]
    unit = UnitRows.of(X)
    [pair] = near_pairs(unit, basis_of(unit, 10), random_state=0).pairs
    assert pair[1:] == (0, 1)
    assert 1 - 1e-6 < pair.similarity <= 1.0


@pytest.mark.parametrize("at_once", [256, 2])
def test_neighbours_are_the_nearest_of_those_allowed(rows, unit, monkeypatch, at_once):
    monkeypatch.setattr(similarity, "_ASKED_AT_ONCE", at_once)
    asked = np.array([0, 5, 299])
    among = [np.arange(100, 300), np.arange(250), np.array([4, 7])]
    distances = 1 - cosines(rows)
    for row, allowed, found in zip(asked, among, nearest(unit, asked, among, n_neighbours=4), strict=True):
        expected = allowed[np.argsort(distances[row, allowed])][:4]
        assert [one for one, _ in found] == expected.tolist()
        assert [distance for _, distance in found] == pytest.approx(distances[row, expected], abs=1e-5)


def test_each_copy_is_paired_with_the_first_of_its_content():
    keys = np.zeros((6, 32), np.uint8)
    keys[:, 0] = [1, 2, 1, 3, 2, 1]
    assert sorted(copies(keys)) == [Pair(1.0, 0, 2), Pair(1.0, 0, 5), Pair(1.0, 1, 4)]


def test_of_rows_that_are_equally_near_the_first_are_named():
    X = np.random.default_rng(0).standard_normal((60, 4))
    X[7:57] = X[7]
    others = np.delete(np.arange(60), 7)
    (found,) = nearest(UnitRows.of(X), np.array([7]), [others], n_neighbours=5)
    assert [row for row, _ in found] == [8, 9, 10, 11, 12]
