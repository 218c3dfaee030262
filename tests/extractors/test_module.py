"""A module of the user's: it needs a name, stays as it is, and is refused once its tensors change."""

import copy
import pickle
import sys

import pytest
import torch
from torch import nn

from featx.errors import UsageError
from featx.extractors.module import ModuleExtractor
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.weights import seeded

PREPROCESSING = Preprocessing(18, 16)
PIXELS = torch.arange(2 * 3 * 16 * 16).remainder(256).to(torch.uint8).view(2, 3, 16, 16)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, images):
        return self.norm(self.conv(images)) * self.scale


@pytest.fixture
def net():
    with seeded():
        return Net()


def extractor(net, **options):
    return ModuleExtractor(net, **{"name": "net-v1", "preprocessing": PREPROCESSING, **options})


def features(one, precision="float32"):
    with torch.inference_mode():
        return one.load(one.resolve(precision=precision))(PIXELS)


def test_its_identity_is_its_name_and_its_tensors(net):
    spec = extractor(net).resolve(precision="float32")
    assert (spec.source, spec.name, spec.layer, spec.pool) == ("module", "net-v1", ("output",), "avg")
    assert spec.n_features == 4
    assert spec.fingerprint == extractor(copy.deepcopy(net)).resolve(precision="float32").fingerprint
    assert spec.fingerprint != extractor(net, name="net-v2").resolve(precision="float32").fingerprint
    for name in ("conv.weight", "norm.running_var", "scale"):
        other = copy.deepcopy(net)
        tensor = dict([*other.named_parameters(), *other.named_buffers()])[name]
        tensor.data += 1
        assert extractor(other).resolve(precision="float32").fingerprint != spec.fingerprint, name


@pytest.mark.parametrize(
    "options",
    [
        {"layer": "conv"},
        {"pool": "max"},
        {"pixels": "fast"},
        {"preprocessing": Preprocessing(18, 16, mean=(0.5, 0.5, 0.5))},
    ],
)
def test_every_option_is_part_of_the_identity(net, options):
    changed = extractor(net, **options).resolve(precision="float32")
    assert changed.fingerprint != extractor(net).resolve(precision="float32").fingerprint


def test_vectors_are_those_of_the_module_in_eval_mode(net):
    images = (PIXELS / 255 - torch.tensor(PREPROCESSING.mean).view(1, 3, 1, 1)) / torch.tensor(
        PREPROCESSING.std
    ).view(1, 3, 1, 1)
    expected = copy.deepcopy(net).eval()(images).mean((2, 3))
    torch.testing.assert_close(features(extractor(net)), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_users_module_stays_as_it_is(net, precision):
    net.double()
    before = copy.deepcopy(net.state_dict())
    features(extractor(net), precision)
    assert net.training
    assert net.norm.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(parameter.dtype == torch.float64 for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to put the module on")
def test_the_users_module_stays_where_it_is(net):
    features(extractor(net.cuda()))
    assert all(parameter.is_cuda for parameter in net.parameters())


def step(net):
    net(torch.ones(2, 3, 16, 16)).sum().backward()
    torch.optim.SGD([net.conv.weight], lr=0.1, fused=True).step()


CHANGES = {
    "a parameter": lambda net: net.conv.weight.detach().add_(1),
    "a buffer that is not persistent": lambda net: net.scale.add_(1),
    "one value, past torch's counters": lambda net: net.conv.weight.data[0, 0, 0].add_(1e-6),
    "in an array that shares the memory": lambda net: net.conv.bias.detach().numpy().sort(),
    "a fused optimiser": step,
    "the statistics of a forward pass": lambda net: net(torch.ones(2, 3, 16, 16)),
    "the type": lambda net: net.half(),
    "another layer": lambda net: setattr(net, "norm", nn.BatchNorm2d(4, affine=False)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_network_that_changed_afterwards_is_neither_identified_nor_run(net, change):
    given = extractor(net)
    spec = given.resolve(precision="float32")
    change(net)
    for asked in (lambda: given.resolve(precision="float32"), lambda: given.load(spec)):
        with pytest.raises(
            UsageError, match=r"tensors of module 'net-v1' changed .*Make a new ModuleExtractor"
        ):
            asked()
    assert extractor(net).resolve(precision="float32").fingerprint != spec.fingerprint


def test_a_network_that_changed_back_is_the_one_that_was_given(net):
    given = extractor(net)
    expected = features(given)
    state = copy.deepcopy(net.state_dict())
    net.conv.weight.data.add_(1)
    net.load_state_dict(state)
    assert torch.equal(features(given), expected)


def test_it_survives_pickle_with_all_its_weights(net):
    given = extractor(net, layer="conv", pool="max")
    expected = features(given)
    other = pickle.loads(pickle.dumps(given))
    assert other.module is not net
    assert other.resolve(precision="float32") == given.resolve(precision="float32")
    assert torch.equal(features(other), expected)


def test_a_network_that_changed_before_it_was_pickled_is_refused_behind_it(net):
    given = extractor(net)
    net.conv.weight.data.add_(1)
    other = pickle.loads(pickle.dumps(given))
    with pytest.raises(UsageError, match="changed after it was given"):
        other.resolve(precision="float32")


def test_it_is_never_copied_and_planned_only_once(net, monkeypatch):
    planned = []
    real = sys.modules["featx.extractors.module"].plan_layers
    monkeypatch.setattr(
        "featx.extractors.module.plan_layers",
        lambda *given, **named: planned.append(1) or real(*given, **named),
    )
    given = extractor(net, layer="conv")
    assert copy.deepcopy(given) is given
    features(given)
    for other in (given, given.with_pixels("fast"), pickle.loads(pickle.dumps(given))):
        for precision in ("float32", "bfloat16"):
            features(other, precision)
    assert len(planned) == 1


def test_its_pixels_and_precision_are_not_those_remembered_of_another(net):
    given = extractor(net)
    assert [given.resolve(precision=one).pixels for one in ("float32", "float16")] == ["exact", "fast"]
    fast = given.with_pixels("fast").resolve(precision="float32")
    assert (fast.pixels, fast.precision) == ("fast", "float32")
    assert given.resolve(precision="float32").pixels == "exact"


def test_several_layers_are_named_in_a_list(net):
    spec = extractor(net, layer=["conv", "norm"]).resolve(precision="float32")
    assert (spec.layer, spec.pool, spec.n_features) == (("conv", "norm"), "avg,avg", 8)
    assert spec.text == "module/net-v1:layer=conv,norm"


@pytest.mark.parametrize("name", ["", "my net", "a:b", "a+b", "../a", None, 3])
def test_a_module_without_a_usable_name_is_refused(net, name):
    with pytest.raises(UsageError, match=r"a module needs a name .* Pass name='my-net-v1'"):
        extractor(net, name=name)


def test_a_name_is_not_left_out_by_accident(net):
    with pytest.raises(TypeError, match="name"):
        ModuleExtractor(net, preprocessing=PREPROCESSING)


@pytest.mark.parametrize("given", [lambda images: images, Net, "resnet50"])
def test_what_is_no_module_is_refused(given):
    with pytest.raises(UsageError, match=r"expected an nn.Module, got (function|type|str)"):
        extractor(given)


def test_options_are_checked_when_it_is_made(net):
    with pytest.raises(UsageError, match=r"one of exact, fast, got 'raw'"):
        extractor(net, pixels="raw")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_norm_that_always_uses_its_batch_is_refused(norm):
    net = nn.Sequential(nn.Flatten(), norm(768, track_running_stats=False))
    with pytest.raises(UsageError, match=r"module 'net-v1': 1 keeps no running statistics"):
        extractor(net)
