"""timm's models against timm's own forward pass and its own transform; names, sizes and weights that do not fit."""

import hashlib
import logging
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from featx.errors import UsageError, WeightsError
from featx.extractors import registry
from featx.extractors.backbone import BackboneOptions
from featx.extractors.spec import parse

timm = pytest.importorskip("timm")
ours = pytest.importorskip("featx.extractors.timm")

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8))
RESNET = "timm/test_resnet.r160_in1k"
VIT = "timm/test_vit.r160_in1k"

source = ours.TimmSource()


def resolve(text):
    return source.resolve(parse(text)[0], precision="float32")


def features(text):
    backbone = source.load(parse(text)[0], resolve(text))
    with torch.inference_mode():
        return backbone(torch.from_numpy(backbone.prepare(PHOTO))[None])[0]


@pytest.fixture
def saved(tmp_path):
    """Save timm's own network, classifier included, and return it with the path of its weights."""

    def save(text):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            network = timm.create_model(text.partition("/")[2]).eval()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        return network, tmp_path / "weights.pth"

    return save


def own_input(network):
    config = timm.data.resolve_model_data_config(network)
    return timm.data.create_transform(**config, is_training=False)(PHOTO)[None]


def planned(text):
    (request,) = parse(text)
    return ours._plan(request, BackboneOptions.from_request(request)).layers


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("text", [RESNET, VIT, "timm/test_efficientnet.r160_in1k"])
def test_features_are_those_of_timms_own_transform_and_forward_pass(saved, text):
    network, path = saved(text)
    spec = resolve(f"{text}:weights={path}")
    found = features(f"{text}:weights={path}")
    assert spec.weights == hashlib.sha256(path.read_bytes()).hexdigest()
    assert spec.n_features == len(found)
    with torch.inference_mode():
        images = own_input(network)
        network.reset_classifier(0)
        close(found, network(images)[0])


def test_named_layers_are_those_of_timms_own_intermediates(saved):
    network, path = saved(RESNET)
    found = features(f"{RESNET}:weights={path}:layer=layer1,layer3")
    with torch.inference_mode():
        maps = network.forward_intermediates(own_input(network), indices=[1, 3], intermediates_only=True)
    close(found, torch.cat([one.mean((2, 3)) for one in maps], dim=1)[0])


def test_a_network_that_cannot_be_traced_says_so_and_keeps_its_default():
    assert resolve(f"{VIT}:weights=none").n_features == 64
    with pytest.raises(
        UsageError, match=r"its layers cannot be named because tracing fails.*Leave 'layer' out"
    ):
        resolve(f"{VIT}:weights=none:layer=blocks.1")


def test_a_mean_over_patches_leaves_registers_out():
    (layer,) = planned("timm/vit_small_patch14_reg4_dinov2.lvd142m:weights=none:layer=blocks.0:size=28")
    assert (layer.layout, layer.pool, layer.prefix_tokens, layer.n_features) == ("tokens", "cls", 5, 384)


def test_swin_of_timm_keeps_its_channels_last():
    layers = planned("timm/swin_tiny_patch4_window7_224:weights=none:layer=layers.0,patch_embed.proj")
    assert [(layer.layout, layer.n_features) for layer in layers] == [("maps_last", 96), ("maps", 96)]


def test_another_size_adapts_the_position_embeddings_as_timm_does(saved):
    text = "timm/vit_tiny_patch16_224.augreg_in21k"  # takes images of 224 pixels and no others
    network, path = saved(text)
    assert resolve(f"{text}:weights={path}:size=80").preprocessing["crop"] == 80
    found = features(f"{text}:weights={path}:size=80")
    network.set_input_size(img_size=80)
    network.reset_classifier(0)
    config = {**timm.data.resolve_model_data_config(network), "input_size": (3, 80, 80)}
    images = timm.data.create_transform(**config, is_training=False)(PHOTO)[None]
    with torch.inference_mode():
        close(found, network(images)[0])


def test_a_description_says_weights_and_the_count_is_what_comes_out():
    assert source.count_features("mobilenetv3_small_050") == 1024
    described = source.describe("mobilenetv3_small_050")
    assert "lamb_in1k" in described["weights"]
    assert described["on_disk"] == []


def test_counting_needs_no_crop_that_featx_can_make():
    assert source.count_features("deepseek_vit_412m") == 1024
    with pytest.raises(UsageError, match="crop mode 'border' of these weights is not supported"):
        planned("timm/deepseek_vit_412m:weights=none")


def test_a_constructor_that_computes_with_its_parameters_is_planned_all_the_same():
    (layer,) = planned("timm/vit_tiny_r_s16_p8_224:weights=none")
    assert layer.n_features == source.count_features("vit_tiny_r_s16_p8_224") == 192


def test_names_are_architectures_with_and_without_the_tags_of_their_weights():
    names = source.names()
    assert {"resnet18", "resnet18.a1_in1k"} <= set(names)
    assert names == sorted(set(names))


def test_a_name_with_and_without_its_default_tag_is_one_identity(saved):
    architecture, _, tag = RESNET.partition("/")[2].partition(".")
    for weights in ("none", saved(RESNET)[1]):
        given, tagged = (
            resolve(f"timm/{name}:weights={weights}") for name in (architecture, f"{architecture}.{tag}")
        )
        assert given.fingerprint == tagged.fingerprint
        assert given.name == tagged.name == f"{architecture}.{tag}"
        assert given.text == f"timm/{architecture}:weights={weights}"


def test_another_tag_is_another_identity():
    tags = timm.list_pretrained("resnet18")
    assert "resnet18.a1_in1k" in tags
    names = {resolve(f"timm/{name}:weights=none").name for name in ("resnet18", *tags[:3])}
    assert names == {"resnet18.a1_in1k", *tags[:3]}


def test_published_weights_are_one_identity_with_and_without_the_tag(saved, monkeypatch, tmp_path):
    from huggingface_hub import constants
    from safetensors.torch import save_file

    network, _ = saved(RESNET)
    snapshot = tmp_path / "models--timm--test_resnet.r160_in1k"  # as the hub's client leaves it
    (snapshot / "refs").mkdir(parents=True)
    (snapshot / "refs/main").write_text("0" * 40)
    (snapshot / "snapshots" / ("0" * 40)).mkdir(parents=True)
    file = snapshot / "snapshots" / ("0" * 40) / "model.safetensors"
    save_file(network.state_dict(), file)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    texts = ("timm/test_resnet", RESNET, f"timm/test_resnet:weights={file}")
    assert len({resolve(text).fingerprint for text in texts}) == 1


def test_random_weights_are_said_loudly_and_are_the_same_every_time(caplog):
    with caplog.at_level(logging.WARNING):
        fingerprint = resolve(f"{RESNET}:weights=none").fingerprint
    assert "RANDOM" in caplog.text
    torch.manual_seed(9)
    assert resolve(f"{RESNET}:weights=none").fingerprint == fingerprint
    assert torch.equal(features(f"{RESNET}:weights=none"), features(f"{RESNET}:weights=none"))


def test_a_close_name_is_offered():
    with pytest.raises(
        UsageError, match=r"no extractor is called 'timm/resnet18b'\. Did you mean timm/resnet18"
    ):
        registry.find_source(parse("timm/resnet18b")[0])


def test_weights_that_are_not_those_identified_are_not_loaded(saved):
    for text, message in (
        (f"{RESNET}:weights=none", "random weights of .* are not those that were identified"),
        (f"{RESNET}:weights={saved(RESNET)[1]}", "changed while featx was using it"),
    ):
        with pytest.raises(WeightsError, match=message):
            source.load(parse(text)[0], replace(resolve(text), weights="0" * 64))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("preset=x:weights=none", r"key 'preset' is torchvision's. Name the tag: timm/NAME.TAG"),
        ("weights=a1_in1k", r"weights to be a path ending in .*or none, got 'a1_in1k'"),
        ("weights=none:size=7", r"does not take images of 7 pixels"),
    ],
)
def test_keys_that_do_not_fit_are_refused(keys, message):
    with pytest.raises(UsageError, match=message):
        resolve(f"{VIT}:{keys}")


def test_a_file_of_another_architecture_is_refused(saved):
    _, path = saved(RESNET)
    with pytest.raises(WeightsError, match=r"for test_vit.r160_in1k does not fit the architecture"):
        features(f"{VIT}:weights={path}")


def test_weights_that_cannot_be_fetched_name_the_way_out(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        WeightsError, match=r"could not be downloaded \(LocalEntryNotFoundError: .*connection.*weights=PATH"
    ) as caught:
        resolve(RESNET)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1
