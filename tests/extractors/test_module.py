"""A module of the user's: it needs a name, stays as it is, and is refused once its tensors change."""

import copy
import functools
import pickle
import sys

import numpy as np
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


def quantised(seed):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning")
def test_packed_weights_of_quantised_layers_are_part_of_the_identity():
    ones = [extractor(quantised(seed)) for seed in (0, 0, 1)]
    fingerprints = [one.resolve(precision="float32").fingerprint for one in ones]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert torch.equal(features(ones[0]), features(ones[1]))
    assert not torch.equal(features(ones[0]), features(ones[2]))
    ones[0].module.load_state_dict(ones[2].module.state_dict())
    with pytest.raises(UsageError, match="changed after it was given"):
        ones[0].resolve(precision="float32")


class Holder:
    def __init__(self, value):
        self.value = value


KEPT = {
    "an attribute": lambda value: value,
    "an array": lambda value: value.numpy(),
    "an array of arrays": lambda value: np.array([value.numpy(), None], dtype=object),
    "a list": lambda value: [0, (value,)],
    "a dictionary": lambda value: {"a": {3: value}},
    "an object": Holder,
    "a bound argument": lambda value: functools.partial(torch.mul, other=value),
    "a method": lambda value: Holder(value).__init__,
    "a network in a list": lambda value: [nn.ParameterList([value])],
}


@pytest.mark.parametrize("kept", KEPT.values(), ids=KEPT)
def test_tensors_that_are_not_registered_are_part_of_the_identity(net, kept):
    value = torch.arange(4.0)
    net.kept = kept(value)
    given = extractor(net)
    spec = given.resolve(precision="float32")
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert extractor(copied).resolve(precision="float32").fingerprint == spec.fingerprint
    net.kept = kept(value + 1)
    assert extractor(net).resolve(precision="float32").fingerprint != spec.fingerprint
    with pytest.raises(UsageError, match="changed after it was given"):
        given.load(spec)


def test_which_tensor_is_kept_under_which_name_is_part_of_the_identity(net):
    one, other = torch.zeros(2), torch.ones(2)
    found = set()
    for kept in ({"a": one, "b": other}, {"a": other, "b": one}, [one, other], [other, one]):
        net.kept = kept
        found.add(extractor(net).resolve(precision="float32").fingerprint)
    assert len(found) == 4


class Stateful(Net):
    extra = None

    def get_extra_state(self):
        return self.extra


def test_extra_state_is_part_of_the_identity_where_it_can_be_read():
    with seeded():
        net = Stateful()
    found = set()
    for net.extra in (None, 1, 1.0, "1", {"a": 1}, {"b": 1}, torch.ones(1), [torch.zeros(1)], torch.float16):
        found.add(extractor(net).resolve(precision="float32").fingerprint)
    assert len(found) == 9
    for net.extra in (object(), {object(): 1}, {1, 2}):
        with pytest.raises(
            UsageError, match=r"'state\['_extra_state'\]' .* no stable identity.*register_buffer"
        ):
            extractor(net)


def test_a_network_of_registered_tensors_has_the_identity_it_always_had(net):
    """A change here makes every vector of such networks useless."""
    net.lstm = nn.LSTM(2, 2)  # which keeps lists of its parameters
    net.first = nn.utils.spectral_norm(nn.Linear(2, 2))  # which keeps what it worked out last
    net.self = [net]
    with torch.no_grad():
        for index, tensor in enumerate((*net.parameters(), *net.buffers())):
            tensor.fill_(index)
    assert extractor(net).weights == "2d8e65e867ae78a17f36469300bcac5c7a5b019fca9901556332a5155b1f037d"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_compiled_code_that_may_hold_anything_is_refused(net):
    scripted = torch.jit.script(net)
    net.kept = [scripted]
    for given in (scripted, nn.Sequential(scripted), net):
        with pytest.raises(
            UsageError, match=r"is TorchScript, which has no stable identity. Give the network itself"
        ):
            extractor(given)


def test_a_network_whose_shapes_are_not_known_yet_is_refused():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    with pytest.raises(
        UsageError, match=r"1\.weight has no shape yet. Run one batch through the module first"
    ):
        extractor(net)
    net(torch.zeros(1, 3, 16, 16))
    assert extractor(net).resolve(precision="float32").n_features == 4


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_network_that_cannot_be_copied_is_refused_with_the_way_out():
    net = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(768, 4)))
    with pytest.raises(UsageError, match=r"cannot be copied .*torch.nn.utils.remove_weight_norm"):
        extractor(net).resolve(precision="float32")
    nn.utils.remove_weight_norm(net[1])
    assert extractor(net).resolve(precision="float32").n_features == 4


@pytest.mark.parametrize("tensor", [torch.eye(2).to_sparse(), torch.zeros(2, device="meta")])
def test_tensors_that_cannot_be_read_are_refused(net, tensor):
    net.kept = tensor
    with pytest.raises(UsageError, match=r"module 'net-v1': its tensors cannot be read \(.*Keep them dense"):
        extractor(net)


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
    with pytest.raises(UsageError, match=r"one of exact, fast, nvjpeg, got 'raw'"):
        extractor(net, pixels="raw")


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_a_norm_that_always_uses_its_batch_is_refused(norm):
    net = nn.Sequential(nn.Flatten(), norm(768, track_running_stats=False))
    with pytest.raises(UsageError, match=r"module 'net-v1': 1 keeps no running statistics"):
        extractor(net)
