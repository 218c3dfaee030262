"""Weights that somebody else made: nothing in them is run, and what is damaged or absurd is refused in one line."""

import io
import json
import pickle
import runpy
import struct
import tarfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

archives = runpy.run_path(str(Path(__file__).with_name("archives.py")))
zipped, unzipped, link_entry = archives["zipped"], archives["unzipped"], archives["link_entry"]


def torch_file(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def tar_file(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, str(content)
                archive.addfile(info)
    return buffer.getvalue()


def safetensors_file(header, data=b"\0" * 64, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def weights(tensors, payload, secret, canary):
    """Hostile weights files by name."""
    plain = unzipped(torch_file(tensors))
    root = next(iter(plain)).split("/")[0]
    one = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    return {
        "a pickle.pth": pickle.dumps(payload),
        "a payload.pth": torch_file({"features.0.weight": payload}),
        "a payload in a checkpoint.pth": torch_file({"state_dict": tensors, "optimizer": payload}),
        "a payload for data.pth": zipped(plain | {f"{root}/data.pkl": pickle.dumps(payload)}),
        "legacy.pth": b"".join(
            pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {}, payload, [])
        ),
        "legacy tar.pth": tar_file(
            {name: pickle.dumps(payload) for name in ("storages", "tensors", "pickle")}
        ),
        "a tar that leads up.pth": tar_file({"../canary": b"x", "storages": secret, "pickle": b"x"}),
        "torchscript.pt": zipped(
            plain | {f"{root}/constants.pkl": pickle.dumps(payload), f"{root}/code/m.py": b"1"}
        ),
        "names that lead up.pth": zipped({"../canary": b"x", str(canary): b"x", link_entry("link"): b"/"}),
        "a bomb.pth": zipped(
            {f"{root}/data.pkl": plain[f"{root}/data.pkl"], f"{root}/data/0": bytes(1 << 26)},
            zipfile.ZIP_DEFLATED,
        ),
        "no tensors.pth": torch_file({"a": 1}),
        "half.pth": torch_file(tensors)[:-1000],
        "a pickle.safetensors": pickle.dumps(payload),
        "an absurd header.safetensors": safetensors_file({"a": one}, length=2**63 + 5),
        "a header of 4 GB.safetensors": safetensors_file({"a": one}, length=2**32),
        "overlap.safetensors": safetensors_file({"a": one, "b": one}),
        "beyond.safetensors": safetensors_file({"a": {**one, "data_offsets": [0, 2**40], "shape": [2**38]}}),
        "backwards.safetensors": safetensors_file({"a": {**one, "data_offsets": [16, 0]}}),
        "an absurd shape.safetensors": safetensors_file({"a": {**one, "shape": [2**62, 4]}}),
        "no bottom.safetensors": safetensors_file(b'{"a":' * 100_000),
        "others.safetensors": save({"\x1b[2J\nfeatx: error: x": torch.zeros(1)}),
        "others.pth": torch_file({"\x1b[2J\nfeatx: error: x": torch.zeros(1)}),
    }


def test_foreign_weights_run_nothing(payload, secret, canary, pictures, featx, tmp_path, subtests):
    from torchvision.models import squeezenet1_1

    tensors = squeezenet1_1().state_dict()
    hostile = weights(tensors, payload, secret, canary)
    rest = ("--cache", "cache", "--device", "cpu", "--precision", "float32")
    for name, content in hostile.items():
        with subtests.test(name):
            (tmp_path / name).write_bytes(content)
            told = featx("extract", pictures, "-x", f"squeezenet1_1:size=64:weights={name}", *rest, code=1)
            assert name in told.err
    assert len(hostile) == 22
    (tmp_path / "good.pth").write_bytes(torch_file(tensors))
    (tmp_path / "good.safetensors").write_bytes(save(tensors))
    for name in ("good.pth", "good.safetensors"):
        done = featx("extract", pictures, "-x", f"squeezenet1_1:size=64:weights={name}", *rest, "--json")
        assert json.loads(done.out)["extracted"] == 4
