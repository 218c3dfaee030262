"""The backbone in the package: its file, its identity, its vectors, and what it refuses."""

import hashlib
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

import featx
from featx.engine.identify import load
from featx.errors import UsageError
from featx.extractors.registry import find_source
from featx.extractors.spec import parse

TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module")
def weights():
    with resources.as_file(resources.files("featx.extractors") / "nano.safetensors") as path:
        yield path


def resolved(text):
    [request] = parse(text)
    return find_source(request).resolve(request, precision="float32")


def test_its_weights_are_float16_of_finite_size_and_small(weights):
    assert weights.stat().st_size <= 4 * 2**20
    state = load_file(weights)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16, torch.int64}
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert not [name for name in state if name.startswith("classifier")]


def test_its_weights_are_the_file_that_the_recipe_made(weights):
    told = re.search(r"\b[0-9a-f]{64}\b", (TRAINING / "README.md").read_text())
    assert told is not None
    assert told[0] == hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = [json.loads(line) for line in (TRAINING / "nano.log.jsonl").read_text().splitlines()]
    losses = [line["held_out_loss"] for line in lines]
    assert losses[-1] == min(losses) < losses[0]
    assert lines[-1]["step"] == lines[-1]["steps"]


def test_its_identity_is_that_of_its_weights_and_preprocessing(weights):
    spec = resolved("nano")
    assert (spec.text, spec.n_features) == ("nano", 624)
    assert spec.weights == hashlib.sha256(weights.read_bytes()).hexdigest()
    for same in ("featx/nano", "nano:weights=EMBEDDED"):
        assert spec.fingerprint == resolved(same).fingerprint
    assert len({resolved(text).fingerprint for text in ("nano", "nano:size=64", "nano:pool=max")}) == 3


def test_a_vector_is_what_torchvisions_own_network_and_transforms_give(weights, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 40, 3)).astype(np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).resize((300, 200), Image.Resampling.BILINEAR).save(path)
    network = torchvision.models.mobilenet_v3_small()
    network.classifier = torch.nn.Identity()
    network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
    transforms = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.transforms
    with Image.open(path) as image, torch.inference_mode():
        pixels = transforms(crop_size=192, resize_size=219)(image.convert("RGB"))[None]
        middle = network.eval().features[:9](pixels)
        expected = torch.cat([maps.mean((2, 3)) for maps in (middle, network.features[9:](middle))], dim=1)
    features = featx.extract(
        featx.read_samples(tmp_path), "nano", cache=None, device="cpu", precision="float32"
    )
    np.testing.assert_allclose(features.X, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_its_layers_can_be_named():
    [request] = parse("nano:layer=features.3,features.12:size=64")
    spec = resolved("nano:layer=features.3,features.12:size=64")
    assert spec.n_features == 24 + 576
    assert load(request, spec).spec == spec


@pytest.mark.parametrize("key", ["weights=none", "preset=IMAGENET1K_V1", "weights=mine.pth"])
def test_other_weights_are_refused_with_the_name_of_the_architecture(key):
    with pytest.raises(UsageError, match=rf"or \w+=EMBEDDED, got {key}\..*mobilenet_v3_small:") as caught:
        resolved(f"nano:{key}")
    assert "\n" not in str(caught.value)


def test_it_runs_where_nothing_can_be_connected_to(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    code = (
        "import socket, featx\n"
        "def refused(*args, **kwargs): raise AssertionError('a socket')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused\n"
        f"print(featx.extract(featx.read_samples({str(tmp_path)!r}), 'nano', cache=None).X.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1, 624)\n"
