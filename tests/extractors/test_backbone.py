"""A frozen backbone: always in eval mode, the same vector whatever the batch, and its precision."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from featx.errors import UsageError
from featx.extractors.backbone import BackboneOptions, backbone_spec
from featx.extractors.layers import Layer
from featx.extractors.module import ModuleExtractor
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.spec import parse
from featx.extractors.weights import seeded
from featx.samples import DECODE_POLICY

CROP = 64
PIXELS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (19, 3, CROP, CROP), dtype=np.uint8))


class Trap(nn.Module):
    """Batch norm, dropout and a batch mean in train mode: each would mix images, or draw at random."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU())

    def forward(self, images):
        maps = self.body(images)
        return maps + maps.mean(0) if self.training else maps


def build(name):
    with seeded():
        if name == "resnet":
            network = resnet18()
        elif name == "transformer":
            network = VisionTransformer(
                image_size=CROP, patch_size=16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128
            )
            network.heads = nn.Identity()
        else:
            network = Trap()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -1, 1)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return network.train()


def backbone(name, precision="float32"):
    extractor = ModuleExtractor(build(name), name=name, preprocessing=Preprocessing(CROP, CROP))
    return extractor.load(extractor.resolve(precision=precision)).cast()


def features(frozen, pixels):
    with torch.inference_mode():
        return frozen(pixels)


@pytest.fixture(params=["resnet", "transformer", "trap"])
def frozen(request):
    return backbone(request.param)


def test_it_is_in_eval_mode_and_stays_there(frozen):
    assert not any(module.training for module in frozen.modules())
    assert frozen.train() is frozen
    assert frozen.train(True) is frozen
    assert not any(module.training for module in frozen.modules())


def test_no_parameter_asks_for_a_gradient(frozen):
    assert list(frozen.parameters())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize("batch_size", [1, 3, 8, 16])
def test_a_vector_is_within_1e_5_whatever_the_batch(frozen, batch_size):
    whole = features(frozen, PIXELS)
    assert whole.shape == (19, frozen.spec.n_features)
    parts = torch.cat(
        [features(frozen, batch) for batch in PIXELS.split(batch_size)]
    )  # the last one is partial
    largest = whole.abs().amax(dim=1, keepdim=True)
    assert ((parts - whole).abs() / largest).max() <= 1e-5


def test_a_vector_is_within_1e_5_whatever_the_company(frozen):
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    whole = features(frozen, PIXELS)
    shuffled = features(frozen, PIXELS[order])
    largest = whole.abs().amax(dim=1, keepdim=True)
    assert ((shuffled - whole[order]).abs() / largest[order]).max() <= 1e-5


def test_the_same_batch_gives_the_same_vectors(frozen):
    assert torch.equal(features(frozen, PIXELS[:4]), features(frozen, PIXELS[:4]))


def test_statistics_are_not_learnt_from_what_is_extracted(frozen):
    before = {name: buffer.clone() for name, buffer in frozen.named_buffers()}
    features(frozen.train(), PIXELS)
    assert all(torch.equal(buffer, before[name]) for name, buffer in frozen.named_buffers())


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet", "transformer", "trap"])
def test_half_precision_is_close_to_float32_whatever_the_batch(name, precision):
    whole, frozen = features(backbone(name), PIXELS), backbone(name, precision)
    for batch_size in (1, 3, 8, 16):
        half = torch.cat([features(frozen, batch) for batch in PIXELS.split(batch_size)])
        assert half.dtype == getattr(torch, precision)
        cosine = torch.cosine_similarity(whole, half.float())
        assert cosine.min() >= (0.999 if precision == "float16" else 0.995)
        assert cosine.median() >= 0.998


def test_batch_norm_keeps_its_statistics_in_float32_and_the_rest_is_cast():
    frozen = backbone("resnet", "bfloat16")
    original = dict(build("resnet").named_modules())
    norms = 0
    for name, module in frozen.network.body.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            norms += 1
            assert torch.equal(module.running_mean, original[name].running_mean)
            assert torch.equal(module.weight, original[name].weight)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            assert module.weight.dtype == torch.bfloat16
    assert norms == 20


def test_a_network_is_in_float32_until_it_is_cast():
    extractor = ModuleExtractor(build("resnet"), name="resnet", preprocessing=Preprocessing(CROP, CROP))
    fresh = extractor.load(extractor.resolve(precision="bfloat16"))
    assert {parameter.dtype for parameter in fresh.parameters()} == {torch.float32}
    assert torch.equal(features(fresh, PIXELS), features(backbone("resnet"), PIXELS))


def test_pixels_are_scaled_in_float32_before_they_are_rounded():
    frozen = backbone("trap", "bfloat16")
    seen = []
    frozen.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    features(frozen, PIXELS)
    mean = torch.tensor(Preprocessing.mean).view(1, 3, 1, 1)
    std = torch.tensor(Preprocessing.std).view(1, 3, 1, 1)
    assert torch.equal(seen[0], ((PIXELS / 255 - mean) / std).bfloat16())


def test_the_input_of_a_picture_is_what_its_preprocessing_gives():
    from PIL import Image

    frozen = backbone("trap")
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    assert np.array_equal(frozen.prepare(image), Preprocessing(CROP, CROP).apply(image))


def test_options_are_read_from_a_text():
    (request,) = parse("resnet50:weights=none:preset=X:layer=layer1,layer4:pool=gem:size=64:pixels=fast")
    assert BackboneOptions.from_request(request) == BackboneOptions(
        weights="none", preset="X", layers=("layer1", "layer4"), pool="gem", size=64, pixels="fast"
    )
    assert BackboneOptions.from_request(parse("resnet50")[0]) == BackboneOptions()


@pytest.mark.parametrize("size", ["0", "-1", "1.5", "4097", "²", "x"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(UsageError, match=rf"resnet50: expected size in pixels from 1 to 4096, got '{size}'"):
        BackboneOptions.from_request(parse(f"resnet50:size={size}")[0])


@pytest.mark.parametrize(
    ("asked", "precision", "expected"),
    [
        (None, "float32", "exact"),
        (None, "bfloat16", "fast"),
        (None, "float16", "fast"),
        ("fast", "float32", "fast"),
        ("exact", "bfloat16", "exact"),
    ],
)
def test_pixels_are_exact_in_float32_and_fast_in_half_precision_unless_told(asked, precision, expected):
    layers = (Layer("a", "a", "maps", "avg", 0, 3), Layer("b", "b", "vector", "none", 0, 4))
    spec = backbone_spec(
        parse("resnet50:pool=avg")[0],
        source="torchvision",
        weights="ab",
        layers=layers,
        preprocessing=Preprocessing(256, 224),
        pixels=asked,
        precision=precision,
    )
    assert spec.pixels == expected
    assert (spec.layer, spec.pool, spec.n_features) == (("a", "b"), "avg,none", 7)
    assert spec.decode == DECODE_POLICY
    assert spec.preprocessing == Preprocessing(256, 224).fields
    assert spec.text == "resnet50:pool=avg"
