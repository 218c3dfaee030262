"""Pooling worked out by hand, cutting at names, several layers in one pass, and what cannot be cut."""

import pytest
import torch
from torch import nn
from torchvision import models

from featx.errors import UsageError
from featx.extractors.layers import Layer, Tapped, plan_layers, tap

MAPS = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -1.0], [-1.0, 5.0]]]])  # (1, 2, 2, 2)
TOKENS = torch.tensor([[[10.0, 20.0], [1.0, -1.0], [3.0, 5.0]]])  # (1, 3, 2), the first a class token
GEM_MAPS = [((1 + 8 + 27 + 216) / 4) ** (1 / 3), ((3e-18 + 125) / 4) ** (1 / 3)]
GEM_TOKENS = [((1 + 27) / 2) ** (1 / 3), (125 / 2) ** (1 / 3)]


def pooled(output, layout, pool, prefix_tokens=0):
    layer = Layer("output", None, layout, pool, prefix_tokens, 0)
    return Tapped(nn.Identity(), [layer])(output)


@pytest.mark.parametrize("layout", ["maps", "maps_last"])
@pytest.mark.parametrize(("pool", "expected"), [("avg", [3.0, 0.5]), ("max", [6.0, 5.0]), ("gem", GEM_MAPS)])
def test_maps_are_pooled_over_both_sides(layout, pool, expected):
    maps = MAPS if layout == "maps" else MAPS.permute(0, 2, 3, 1)
    torch.testing.assert_close(pooled(maps, layout, pool), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("pool", "prefix_tokens", "expected"),
    [
        ("avg", 1, [2.0, 2.0]),
        ("avg", 0, [14 / 3, 8.0]),
        ("max", 1, [3.0, 5.0]),
        ("max", 0, [10.0, 20.0]),
        ("gem", 1, GEM_TOKENS),
        ("cls", 1, [10.0, 20.0]),
        ("cls", 2, [10.0, 20.0]),
        ("avg", 2, [3.0, 5.0]),
    ],
)
def test_tokens_are_pooled_without_those_that_precede_the_patches(pool, prefix_tokens, expected):
    torch.testing.assert_close(pooled(TOKENS, "tokens", pool, prefix_tokens), torch.tensor([expected]))


def test_flattening_keeps_every_value_in_order():
    assert pooled(MAPS, "maps", "flatten").tolist() == [[1, 2, 3, 6, -1, -1, -1, 5]]
    assert pooled(TOKENS, "tokens", "flatten", 1).tolist() == [[10, 20, 1, -1, 3, 5]]


def test_a_vector_stays_as_it_is():
    assert pooled(torch.tensor([[1.0, 2.0]]), "vector", "none").tolist() == [[1, 2]]


def test_gem_sums_its_cubes_beyond_the_range_of_half_precision():
    maps = torch.full((1, 1, 4, 4), 100.0, dtype=torch.float16)  # 100 ** 3 is above 65504
    assert pooled(maps, "maps", "gem").dtype == torch.float16
    assert pooled(maps, "maps", "gem").item() == pytest.approx(100, rel=2e-3)


class Small(nn.Module):
    """Maps of 4 and 6 channels, then a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=2)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 5)

    def forward(self, images):
        return self.fc(self.pool(self.body(self.stem(images))).flatten(1))


@pytest.fixture
def small():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def plan(module, *layers, pool=None, **options):
    return plan_layers(module, name="small", layers=layers, pool=pool, crop=16, **options)


def test_the_default_is_what_enters_the_classifier(small):
    (layer,) = planned = plan(small, classifier="fc")
    assert (layer.name, layer.layout, layer.pool, layer.n_features) == ("input:fc", "vector", "none", 6)
    expected = small.body(small.stem(IMAGES)).mean((2, 3))
    torch.testing.assert_close(tap(small, planned)(IMAGES), expected)


def test_without_a_classifier_the_default_is_the_networks_own_output(small):
    (layer,) = planned = plan(small)
    assert (layer.name, layer.node, layer.n_features) == ("output", None, 5)
    assert torch.equal(tap(small, planned)(IMAGES), small(IMAGES))


def test_maps_at_the_default_are_averaged(small):
    small.forward = lambda images: small.body(small.stem(images))
    (layer,) = planned = plan(small)
    assert (layer.layout, layer.pool, layer.n_features) == ("maps", "avg", 6)
    torch.testing.assert_close(tap(small, planned)(IMAGES), small(IMAGES).mean((2, 3)))


def test_a_container_stands_for_its_last_node(small):
    assert torch.equal(tap(small, plan(small, "body"))(IMAGES), tap(small, plan(small, "body.2"))(IMAGES))


def test_several_layers_come_side_by_side_in_the_order_asked_for_from_one_forward_pass(small):
    planned = plan(small, "body", "stem", pool="max")
    assert [layer.n_features for layer in planned] == [6, 4]
    tapped = tap(small, planned)
    calls = []
    small.stem.register_forward_hook(lambda *_: calls.append(1))
    found = tapped(IMAGES)
    assert calls == [1]
    stem = small.stem(IMAGES)
    expected = torch.cat([small.body(stem).amax((2, 3)), stem.amax((2, 3))], dim=1)
    torch.testing.assert_close(found, expected)


def test_what_lies_behind_the_last_layer_is_dropped(small):
    tapped = tap(small, plan(small, "body.0"))
    assert {name.split(".")[1] for name, _ in tapped.named_parameters()} == {"stem"}


def test_counting_features_computes_nothing_on_the_meta_device(small):
    (layer,) = plan(small.to("meta"), "body", pool="flatten")
    assert layer.n_features == 6 * 5 * 5


@pytest.mark.parametrize(("layer", "guess"), [("boddy.1", r"Did you mean .*body\.1"), ("stme", "stem")])
def test_an_unknown_layer_answers_with_close_matches(small, layer, guess):
    with pytest.raises(UsageError, match=rf"small: has no layer '{layer}'.*{guess}"):
        plan(small, layer)


@pytest.mark.parametrize(
    ("classifier", "hint"),
    [
        (None, r"the last are body\.0, body\.1, body\.2, pool, flatten, fc\.$"),
        ("fc", r"before fc come stem, body\.0, body\.1, body\.2, pool, flatten\.$"),
    ],
)
def test_an_unknown_layer_that_resembles_none_answers_with_what_there_is(small, classifier, hint):
    with pytest.raises(UsageError, match=rf"'zzzzzz'\. It consists of stem, body, pool, fc; {hint}"):
        plan(small, "zzzzzz", classifier=classifier)


@pytest.mark.parametrize(
    ("architecture", "classifier", "hint"),
    [
        ("mobilenet_v2", "classifier", r"before classifier come .*features\.17, features\.18, .*flatten\.$"),
        ("resnet18", "fc", r"layer3, layer4, avgpool, fc; before fc come .*layer4\.1, avgpool, flatten\.$"),
        (
            "densenet121",
            "classifier",
            r"before classifier come .*features\.denseblock4, features\.norm5, .*flatten\.$",
        ),
        (
            "vit_b_32",
            "heads",
            r"conv_proj, encoder, heads; before heads come .*encoder\.layers, encoder\.ln, ",
        ),
    ],
)
def test_a_layer_of_another_architecture_answers_with_the_stages_of_this_one(architecture, classifier, hint):
    network = models.get_model(architecture).eval().to("meta")
    wrong = "layer4" if architecture != "resnet18" else "features.18"
    with pytest.raises(UsageError, match=rf"has no layer '{wrong}'\. It consists of .*{hint}"):
        plan_layers(network, name="x", layers=[wrong], pool=None, crop=224, classifier=classifier)


def test_an_unknown_pool_lists_the_choices(small):
    with pytest.raises(UsageError, match=r"one of avg, max, cls, gem, flatten, got 'median'"):
        plan(small, pool="median")


@pytest.mark.parametrize("pool", ["max", "gem", "cls"])
def test_a_vector_has_nothing_to_pool(small, pool):
    with pytest.raises(UsageError, match=rf"pool={pool} needs maps or tokens, got a vector of 6 values"):
        plan(small, classifier="fc", pool=pool)


def test_a_pool_on_a_vector_is_answered_with_the_last_layer_that_has_something_to_pool():
    for architecture, options, hint in (
        (
            models.mobilenet_v2,
            {"classifier": "classifier"},
            r"values\. Leave .* a layer to pool: layer=features\.",
        ),
        (models.resnet18, {"classifier": "fc"}, "layer=layer4"),
        (
            models.vit_b_16,
            {
                "classifier": "heads",
                "class_token": True,
                "prefix_tokens": lambda node: node.startswith("encoder."),
            },
            r"It is the class token already\. Leave .* layer=encoder\.ln\.",
        ),
    ):
        with torch.device("meta"):
            module = architecture().eval()
        with pytest.raises(UsageError, match=hint):
            plan_layers(module, name="net", layers=(), pool="max", crop=224, **options)


@pytest.mark.parametrize("pool", ["avg", "flatten"])
def test_pools_that_leave_a_vector_alone_are_the_same_extractor(small, pool):
    assert plan(small, classifier="fc", pool=pool) == plan(small, classifier="fc")


def test_the_class_token_of_maps_is_refused(small):
    with pytest.raises(UsageError, match=r"layer 'body': pool=cls needs a transformer .*got maps"):
        plan(small, "body", pool="cls")


class Odd(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda images: (images, images), "tuple"),
        (lambda images: {"features": images}, "dict"),
        (lambda images: images.unsqueeze(0), r"a tensor of shape \(1, 2, 3, 16, 16\)"),
        (lambda images: images.mean(), r"a tensor of shape \(\)"),
        (lambda images: images.flatten(0, 1), r"a tensor of shape \(6, 16, 16\)"),
        (lambda images: images[:1], r"a tensor of shape \(1, 3, 16, 16\)"),
    ],
)
def test_an_output_that_is_no_vector_for_each_image_is_refused(answer, got):
    with pytest.raises(UsageError, match=rf"layer 'output': expected .* for 2 images, got {got}"):
        plan(Odd(answer))


def test_a_size_the_network_does_not_take_is_named():
    network = nn.Sequential(nn.Conv2d(3, 4, 20))
    with pytest.raises(UsageError, match=r"small: does not take images of 16 pixels \(.*\). Choose another"):
        plan(network)


def test_a_network_that_cannot_be_traced_still_has_its_own_output():
    def branching(images):
        return images.flatten(1) if images.sum() > -1 else images.flatten(2)

    assert plan(Odd(branching))[0].n_features == 3 * 16 * 16
    with pytest.raises(UsageError, match=r"tracing fails \(TraceError.*Leave 'layer' out"):
        plan(Odd(branching), "answer")


def test_a_layer_that_gives_a_tuple_says_so():
    network = models.vit_b_32(image_size=32).eval().to("meta")
    with pytest.raises(UsageError, match=r"self_attention': expected maps .*got tuple"):
        plan_layers(
            network, name="vit", layers=["encoder.layers.encoder_layer_0.self_attention"], pool=None, crop=32
        )
