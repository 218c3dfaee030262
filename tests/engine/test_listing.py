import pytest

from featx.engine import describe, listing
from featx.errors import UsageError
from featx.extractors.registry import load_source


@pytest.fixture
def counts(monkeypatch):
    """Return the list of names whose features had to be counted, as it grows."""
    source = load_source("descriptor")
    found, real = [], source.count_features
    monkeypatch.setattr(source, "count_features", lambda name: found.append(name) or real(name))
    return found


def described(cache, *names):
    return {name: one["n_features"] for name, one in describe("descriptor", names, cache=cache).items()}


def test_a_count_is_taken_once_for_a_cache(tmp_path, counts):
    assert described(tmp_path, "pixels") == {"pixels": 768}
    assert described(tmp_path, "pixels", "lbp") == {"pixels": 768, "lbp": 216}
    assert described(tmp_path, "lbp", "pixels") == {"lbp": 216, "pixels": 768}
    assert counts == ["pixels", "lbp"]


@pytest.mark.parametrize(
    ("fact", "other"), [("package_versions", {"torch": "99"}), ("rules", "other sources")]
)
def test_other_packages_and_other_rules_are_counted_anew(fact, other, tmp_path, counts, monkeypatch):
    described(tmp_path, "pixels")
    monkeypatch.setattr(listing, fact, lambda: other)
    described(tmp_path, "pixels")
    assert counts == ["pixels", "pixels"]


def test_a_listing_makes_no_cache(tmp_path, counts):
    assert described(tmp_path / "none", "pixels") == described(None, "pixels") == {"pixels": 768}
    assert not (tmp_path / "none").exists()


def test_what_was_counted_before_an_interruption_is_kept(tmp_path, counts, monkeypatch):
    source = load_source("descriptor")
    real = source.count_features

    def interrupted(name):
        if name == "lbp":
            raise KeyboardInterrupt
        return real(name)

    with monkeypatch.context() as patch:
        patch.setattr(source, "count_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            described(tmp_path, "pixels", "lbp")
    assert described(tmp_path, "pixels") == {"pixels": 768}
    assert counts == ["pixels"]


def test_one_that_cannot_be_counted_says_why_and_is_not_tried_again(tmp_path, monkeypatch):
    source = load_source("descriptor")
    real, tried = source.count_features, []

    def odd(name):
        tried.append(name)
        if name == "lbp":
            raise UsageError("lbp: odd. Choose another.")
        return real(name)

    monkeypatch.setattr(source, "count_features", odd)
    for _ in range(2):
        found = describe("descriptor", ["lbp", "pixels"], cache=tmp_path)
        assert (found["lbp"]["n_features"], found["lbp"]["reason"]) == (None, "lbp: odd. Choose another.")
        assert found["pixels"]["n_features"] == 768
        assert "reason" not in found["pixels"]
    assert tried == ["lbp", "pixels"]


def test_a_description_holds_what_the_source_says():
    assert describe("descriptor", ["pixels"], cache=None)["pixels"]["parameters"] == {"size": 16}
