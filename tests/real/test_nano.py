"""How good the embedded backbone is, by the protocol that its card tells its scores by."""

import re

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import featx
from featx.extractors.registry import load_source


@pytest.fixture
def head():
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))


@pytest.fixture
def told():
    """Return the card's two scores of nano."""
    card = load_source("featx").describe("nano")["card"]
    [row] = re.findall(r"^nano +(0\.\d+) +(0\.\d+)", card, flags=re.MULTILINE)
    return tuple(map(float, row))


def vectors(folder):
    return featx.extract(featx.read_samples(folder), "nano", cache=None, device="cpu", precision="float32")


def test_ants_and_bees_are_told_apart_as_well_as_the_card_says(assets, head, told):
    train, val = (vectors(assets / "datasets/hymenoptera" / name) for name in ("train", "val"))
    score = head.fit(train.X, train.y).score(val.X, val.y)
    assert score >= 0.80
    assert score == pytest.approx(told[0], abs=0.01)


def test_flowers_are_told_apart_as_well_as_the_card_says(assets, head, told):
    flowers = vectors(assets / "datasets/flowers")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    score = cross_val_score(head, flowers.X, flowers.y, cv=folds).mean()
    assert score >= 0.62
    assert score == pytest.approx(told[1], abs=0.01)
