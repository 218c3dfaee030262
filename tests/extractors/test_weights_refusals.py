"""Weights files that are refused: what is no file of tensors is named, and nothing in it is run."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featx.errors import UsageError, WeightsError
from featx.extractors.weights import digest_file, read_tensors

TENSORS = {"weight": torch.zeros(100), "bias": torch.zeros(1)}


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, plain):
    path, trace = tmp_path / "evil.pth", tmp_path / "it-ran"
    if plain:
        path.write_bytes(pickle.dumps(Payload(trace)))
    else:
        torch.save({"weight": Payload(trace)}, path)
    reason = (
        "cut short, damaged, or not written by torch.save" if plain else r"whole pickled model .*\.mkdir\)"
    )
    with pytest.raises(WeightsError, match=rf"evil.pth' is not a readable state dict .*{reason}\.") as caught:
        read_tensors(path, digest_file(path))
    assert str(caught.value).isprintable()
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists()  # so it does run where it is let in


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.pth", b"", "it is empty"),
        ("text.pth", b"<html>404</html>", r"begins with b'<html>404</html>'"),
        ("words.pth", b"hello\n", r"it was not written by torch\.save, and begins with b'hello\\n'"),
        ("empty.safetensors", b"", "it is empty"),
        ("text.safetensors", b"<html>404</html>", "header too large"),
    ],
)
def test_what_is_no_weights_file_is_named(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"{name}' is not a readable state dict of tensors: .*{reason}\. Save"
    ):
        read_tensors(path, digest_file(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_model_is_told_from_a_state_dict_in_one_sentence(tmp_path, zipped):
    path = tmp_path / "whole.pth"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        WeightsError, match=r"tensors: it holds a whole pickled model .*linear\.Linear\)\."
    ) as caught:
        read_tensors(path, digest_file(path))
    assert str(caught.value).endswith("Save it with torch.save(model.state_dict(), ...) or as .safetensors.")
    assert str(caught.value).isprintable()


def test_half_a_file_is_named(tmp_path):
    for suffix in (".pth", ".safetensors"):
        path = tmp_path / f"half{suffix}"
        save_file(TENSORS, path) if suffix == ".safetensors" else torch.save(TENSORS, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        reason = (
            "Error while deserializing"
            if suffix == ".safetensors"
            else "it is cut short, damaged, or not written by"
        )
        with pytest.raises(WeightsError, match=f"half{suffix}' is not .*({reason})"):
            read_tensors(path, digest_file(path))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {1: torch.zeros(1)}, torch.zeros(2)])
def test_a_file_without_named_tensors_is_named(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"expected a state dict of tensors, got"):
        read_tensors(path, digest_file(path))


def test_a_zip_that_is_no_checkpoint_is_named(tmp_path):
    path = tmp_path / "archive.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(WeightsError, match=r"archive.pth"):
        read_tensors(path, digest_file(path))


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.pth"
    torch.save(TENSORS, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match=r"bomb.pth' is not a readable .*compressed"):
        read_tensors(path, digest_file(path))


def test_an_unknown_suffix_lists_those_that_are_known(tmp_path):
    with pytest.raises(UsageError, match=r"ending in \.pth, \.pt, \.safetensors, got '\.bin'"):
        read_tensors(tmp_path / "weights.bin", "")
    os.mkfifo(tmp_path / "weights.bin")
    with pytest.raises(UsageError, match=r"got '\.bin'"):
        digest_file(tmp_path / "weights.bin")


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(WeightsError, match=r"none.pth' cannot be read \(No such file.*after 'weights='"):
        digest_file(tmp_path / "none.pth")


@pytest.mark.parametrize("name", ["zero.pth", "fifo.pth", "folder.pth", "nul\0.pth"])
def test_what_is_no_file_is_neither_read_nor_waited_for(tmp_path, name):
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match=r"cannot be read \((not a regular file|Is a dir|embedded null)"):
        digest_file(tmp_path / name)
