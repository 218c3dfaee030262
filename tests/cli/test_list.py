import pytest

from featx.errors import UsageError


def test_descriptors_are_listed_with_their_lengths_and_parameters(command):
    found = command("list", "descriptors")
    assert found["names"] == ["hog", "lbp", "color_histogram", "glcm", "gabor", "pixels"]
    assert found["descriptors"]["hog"]["n_features"] == 1764
    assert found["descriptors"]["pixels"]["parameters"] == {"size": 16}


def test_heads_are_listed_with_their_task(command):
    heads = command("list", "heads")["heads"]
    assert set(heads) == {
        "centroid", "knn", "linear_svm", "logreg", "mlp", "ridge", "ridge_regression", "svm", "svr",
    }  # fmt: skip
    assert heads["svr"]["task"] == "regression"
    assert heads["logreg"]["candidates"] == 12


def test_backbones_are_listed_with_feature_counts_and_weights(command, text, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    found = command("list", "backbones", "resnet1*")
    assert found["names"] == ["resnet101", "resnet152", "resnet18"]
    assert found["backbones"]["resnet18"] == {"n_features": 512, "weights": ["IMAGENET1K_V1"], "on_disk": []}
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"")
    assert command("list", "backbones", "resnet18")["backbones"]["resnet18"]["on_disk"] == ["IMAGENET1K_V1"]
    assert "IMAGENET1K_V1*" in text("list", "backbones", "resnet18").out


def test_feature_counts_are_remembered_in_a_cache_that_is_there_and_none_is_made(
    command, tmp_path, monkeypatch
):
    found = command("list", "descriptors", "pixels")
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").mkdir()
    assert command("list", "descriptors", "pixels") == found
    monkeypatch.setattr("featx.extractors.descriptor_source.n_features", None)  # calling it would fail
    assert command("list", "descriptors", "pixels") == found
    assert command("list", "heads", "svm", "--cache", "elsewhere")["names"] == ["linear_svm", "svm"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_of_a_name_is_a_pattern(command):
    assert command("list", "heads", "svm")["names"] == ["linear_svm", "svm"]


@pytest.mark.parametrize("what", ["backbones", "descriptors", "heads"])
def test_every_list_refuses_a_pattern_that_matches_nothing_and_a_cache_that_is_a_file(
    what, command, tmp_path
):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"no name matches 'zebra'\. Leave the pattern out to see all \d+\."):
        command("list", what, "zebra")
    with pytest.raises(UsageError, match="expected a folder, but 'file' is a file"):
        command("list", what, "--cache", "file")


def test_descriptors_are_no_backbones(command):
    with pytest.raises(
        UsageError, match=r"source 'descriptor' has no backbones. See: featx list descriptors"
    ):
        command("list", "backbones", "--source", "descriptor")


def test_a_source_may_leave_out_what_it_does_not_know_and_one_count(command, text, monkeypatch):
    class Acme:
        def names(self):
            return ["even", "odd"]

        def describe(self, name):
            return {}

        def count_features(self, name):
            if name == "odd":
                raise UsageError("odd: no such thing. Choose another.")
            return 8

    monkeypatch.setattr("featx.extractors.registry.load_source", lambda name: Acme())
    found = command("list", "backbones", "--source", "acme")["backbones"]
    assert found == {
        "acme/even": {"n_features": 8},
        "acme/odd": {"n_features": None, "reason": "odd: no such thing. Choose another."},
    }
    assert (
        "acme/odd   odd: no such thing. Choose another." in text("list", "backbones", "--source", "acme").out
    )
