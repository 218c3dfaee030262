"""Every architecture torchvision lists: the feature count that is promised, and one of each family run for real."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

from featx.extractors.spec import parse
from featx.extractors.torchvision import TorchvisionSource
from featx.extractors.weights import parameters_on_meta, seeded

NAMES = models.list_models(module=models)
SMALLEST = {
    "AlexNet": "alexnet",
    "ConvNeXt": "convnext_tiny",
    "DenseNet": "densenet121",
    "EfficientNet": "efficientnet_b0",
    "GoogLeNet": "googlenet",
    "Inception3": "inception_v3",
    "MNASNet": "mnasnet0_5",
    "MaxVit": "maxvit_t",
    "MobileNetV2": "mobilenet_v2",
    "MobileNetV3": "mobilenet_v3_small",
    "RegNet": "regnet_y_400mf",
    "ResNet": "resnet18",
    "ShuffleNetV2": "shufflenet_v2_x0_5",
    "SqueezeNet": "squeezenet1_1",
    "SwinTransformer": "swin_t",
    "VGG": "vgg11",
    "VisionTransformer": "vit_b_32",
}
VARIANTS = ("swin_v2_t",)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))

source = TorchvisionSource()


def build(name: str) -> nn.Module:
    """Build torchvision's own network as its published weights want it."""
    if name in ("googlenet", "inception_v3"):
        return models.get_model(name, transform_input=True, init_weights=False).eval()
    return models.get_model(name).eval()


def classifier_of(network: nn.Module) -> nn.Module:
    return next(
        getattr(network, name) for name in ("fc", "classifier", "head", "heads") if hasattr(network, name)
    )


def resolve(name: str, weights: object, **keys: str):
    text = ":".join([f"{name}:weights={weights}", *(f"{key}={value}" for key, value in keys.items())])
    return source.resolve(parse(text)[0], precision="float32")


@pytest.fixture
def any_file(tmp_path):
    """Give a file to name as weights: identifying a backbone digests it and does not read it."""
    (tmp_path / "any.pth").write_bytes(b"any")
    return tmp_path / "any.pth"


def test_torchvision_lists_eighty_architectures_or_more():
    assert len(NAMES) >= 80
    assert source.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_promised_feature_count_is_what_the_classifier_takes(name, any_file):
    with parameters_on_meta():
        network = build(name)
    assert type(network).__name__ in SMALLEST
    first = next(
        module for module in classifier_of(network).modules() if isinstance(module, nn.Linear | nn.Conv2d)
    )
    expected = first.in_features if isinstance(first, nn.Linear) else first.in_channels
    assert source.count_features(name) == expected
    assert resolve(name, any_file).n_features == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_member_of_every_enum_gives_its_own_transforms(name):
    from featx.extractors.torchvision import _preprocessing

    for member in models.get_model_weights(name):
        transforms, found = member.transforms(), _preprocessing(member)
        assert [found.resize] == transforms.resize_size
        assert [found.crop] == transforms.crop_size
        assert found.interpolation == transforms.interpolation.value
        assert list(found.mean) == transforms.mean
        assert list(found.std) == transforms.std
        assert transforms.antialias


@pytest.mark.parametrize(
    ("preset", "crop"), [("IMAGENET1K_SWAG_E2E_V1", 518), ("IMAGENET1K_SWAG_LINEAR_V1", 224)]
)
def test_presets_of_one_architecture_differ_in_size_and_not_in_length(preset, crop, any_file):
    spec = resolve("vit_h_14", any_file, preset=preset)
    assert spec.preprocessing["crop"] == crop
    assert spec.n_features == 1280


@pytest.mark.parametrize("name", [*SMALLEST.values(), *VARIANTS])
def test_vectors_are_what_enters_torchvisions_own_classifier(name, tmp_path):
    with seeded():
        network = build(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh statistics are 0 and 1, which would hide a mix-up
            module.running_mean.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
            module.running_var.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    inputs: list[torch.Tensor] = []
    classifier_of(network).register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    preset = next(iter(models.get_model_weights(name))).transforms()
    with torch.inference_mode():
        network(preset(PHOTO)[None])
    expected = inputs[0].mean((2, 3)) if inputs[0].dim() == 4 else inputs[0]

    spec = resolve(name, path)
    backbone = source.load(parse(f"{name}:weights={path}")[0], spec)
    path.unlink()
    with torch.inference_mode():
        found = backbone(torch.from_numpy(backbone.prepare(PHOTO))[None])
    assert found.shape == (1, spec.n_features)
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
