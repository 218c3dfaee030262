"""Weights files: what is read, what must fit, and what random means."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featx.errors import WeightsError
from featx.extractors.weights import (
    digest_file,
    digest_tensors,
    load_tensors,
    parameters_on_meta,
    read_tensors,
    require_random,
    seeded,
)


class Net(nn.Module):
    def __init__(self, classes=5, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, classes)


def net(classes=5, width=4):
    with seeded():
        return Net(classes, width).eval()


def loaded(tensors, *, into=None, ignored=r"fc(\.|$)"):
    with parameters_on_meta():
        module = Net() if into is None else into
    load_tensors(module, tensors, source="weights file 'x.pth'", ignored=ignored)
    return module


def read(path):
    return read_tensors(path, digest_file(path))


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def tensors():
    return dict(net().state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_state_dict_is_read_from_every_format(tmp_path, tensors, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    assert same(read(path), tensors)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_checkpoint_may_hold_the_state_dict_beside_other_things(tmp_path, tensors, key):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 7, key: tensors}, path)
    assert same(read(path), tensors)


def test_the_prefix_of_data_parallel_is_taken_off(tmp_path, tensors):
    path = tmp_path / "parallel.pth"
    torch.save({"state_dict": {f"module.{name}": value for name, value in tensors.items()}}, path)
    assert same(read(path), tensors)


def test_half_precision_files_are_read_as_float32_and_counters_stay_whole(tmp_path):
    path = tmp_path / "half.pth"
    torch.save({"weight": torch.tensor([1.5], dtype=torch.bfloat16), "steps": torch.tensor(3)}, path)
    found = read(path)
    assert found["weight"].dtype == torch.float32
    assert found["weight"].item() == 1.5
    assert found["steps"].dtype == torch.int64


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"abc")
    assert digest_file(path) == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_overwritten_or_cut_later_leaves_what_was_read_alone(tmp_path, tensors, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    found = read(path)
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert same(found, tensors)
    path.write_bytes(b"")
    assert same(found, tensors)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_parsed_from_the_bytes_that_were_digested(tmp_path, tensors, suffix, monkeypatch):
    path, other = tmp_path / f"weights{suffix}", tmp_path / f"other{suffix}"
    changed = {name: value + 1 for name, value in tensors.items()}
    for file, content in ((path, tensors), (other, changed)):
        save_file(content, file) if suffix == ".safetensors" else torch.save(content, file)
    expected = digest_file(path)
    real = hashlib.sha256

    def replaced_meanwhile(content):
        path.write_bytes(other.read_bytes())
        return real(content)

    monkeypatch.setattr("featx.extractors.weights.hashlib.sha256", replaced_meanwhile)
    assert same(read_tensors(path, expected), tensors)
    with pytest.raises(
        WeightsError, match=r"weights\.\w+' changed while featx was using it. Run the command again"
    ):
        read_tensors(path, expected)


def test_the_digest_of_tensors_sees_name_type_shape_and_value_and_no_order():
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digest = digest_tensors(tensors)
    assert digest == digest_tensors({"b": torch.ones(1), "a": torch.zeros(3, 2).T})
    for other in (
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.float64), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.full((2, 3), 1e-45), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3)},
    ):
        assert digest_tensors(other) != digest


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.bool, torch.int8])
def test_tensors_of_every_type_have_a_digest(dtype):
    one, none = (
        digest_tensors({"a": torch.ones(2, dtype=dtype)}),
        digest_tensors({"a": torch.zeros(0, dtype=dtype)}),
    )
    assert len(one) == len(none) == 64
    assert one != none


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_the_digest_of_quantised_tensors_sees_how_their_numbers_are_scaled():
    values = torch.tensor([[-1.0, 0.5], [0.25, 2.0]])

    def per_channel(scale, axis):
        return torch.quantize_per_channel(
            values, torch.tensor([0.1, scale]), torch.zeros(2), axis, torch.qint8
        )

    tensors = [
        *(torch.quantize_per_tensor(values, scale, 0, torch.qint8) for scale in (0.1, 0.2)),
        torch.quantize_per_tensor(values * 2, 0.2, 0, torch.qint8),
        torch.quantize_per_tensor(values, 0.1, 3, torch.qint8),
        *(per_channel(scale, axis) for scale in (0.1, 0.2) for axis in (0, 1)),
    ]
    assert len({digest_tensors({"a": one}) for one in tensors}) == len(tensors)
    assert digest_tensors({"a": tensors[0]}) == digest_tensors({"a": tensors[0].clone()})


def test_tensors_that_fit_are_put_in_place_of_the_placeholders(tensors):
    assert same(loaded(tensors).state_dict(), tensors)


def test_a_classifier_of_another_size_is_left_out(tensors):
    other = {**tensors, **{f"fc.{name}": value for name, value in nn.Linear(4, 1000).state_dict().items()}}
    module = loaded(other)
    assert torch.equal(module.conv.weight, tensors["conv.weight"])
    assert module.fc.weight.is_meta


def test_a_missing_classifier_and_one_of_another_name_are_left_out(tensors):
    other = {name: value for name, value in tensors.items() if not name.startswith("fc")}
    module = loaded({**other, "head.weight": torch.zeros(1)}, ignored=r"(fc|head)(\.|$)")
    assert torch.equal(module.conv.weight, tensors["conv.weight"])


def test_only_whole_names_are_ignored(tensors):
    with pytest.raises(WeightsError, match=r"also has fcx\.weight"):
        loaded({**tensors, "fcx.weight": torch.zeros(1)})


def test_a_missing_superfluous_or_misshapen_tensor_is_named(tensors):
    lacking = {name: value for name, value in tensors.items() if name != "conv.bias"}
    with pytest.raises(
        WeightsError, match=r"x.pth' does not fit the architecture: it lacks conv\.bias\. Name"
    ):
        loaded(lacking)
    with pytest.raises(WeightsError, match=r"it also has extra\.weight\. Name the architecture"):
        loaded({**tensors, "extra.weight": torch.zeros(1)})
    with pytest.raises(
        WeightsError, match=r"it has other shapes: size mismatch for conv\.weight.* and 4 more"
    ):
        loaded(dict(net(width=8).state_dict()))


def test_counters_of_training_steps_may_be_missing(tensors):
    lacking = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    module = loaded(lacking)
    assert torch.equal(module.norm.running_mean, tensors["norm.running_mean"])
    assert not module.norm.num_batches_tracked.is_meta


def test_modules_that_ask_for_the_version_of_a_file_load_from_files_without_one(tensors):
    from torchvision.models import mnasnet0_5

    with seeded():
        network = mnasnet0_5()
    with parameters_on_meta():
        module = mnasnet0_5()
    loaded(dict(network.state_dict()), into=module)
    assert same(module.state_dict(), network.state_dict())


def test_names_of_transformers_published_before_torchvision_0_13_are_read():
    from torchvision.models import VisionTransformer

    small = {"image_size": 4, "patch_size": 2, "num_layers": 1, "num_heads": 1, "hidden_dim": 4, "mlp_dim": 6}
    with seeded():
        network = VisionTransformer(**small)
    with parameters_on_meta():
        module = VisionTransformer(**small)
    legacy = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for name, value in network.state_dict().items()
    }
    assert legacy.keys() != network.state_dict().keys()
    loaded(legacy, into=module)
    assert same(module.state_dict(), network.state_dict())


def test_placeholders_need_no_memory_and_other_tensors_are_real():
    with parameters_on_meta():
        layer = nn.Linear(10**6, 10**6)
        number = torch.linspace(0, 1, 3)[1].item()
    assert layer.weight.is_meta
    assert number == 0.5
    assert not nn.Linear(2, 2).weight.is_meta


def test_random_weights_are_the_same_every_time_and_leave_the_callers_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = digest_tensors(net().state_dict())
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(8)
    assert digest_tensors(net().state_dict()) == first


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU whose generator could be disturbed")
def test_random_weights_leave_the_gpus_generator_alone():
    before = torch.cuda.get_rng_state()
    net()
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_networks_are_drawn_one_after_the_other_whatever_the_threads():
    expected = digest_tensors(net().state_dict())
    started = threading.Barrier(4)

    def drawn(_):
        started.wait()
        return {digest_tensors(net().state_dict()) for _ in range(50)}

    with ThreadPoolExecutor(4) as threads:
        assert set().union(*threads.map(drawn, range(4))) == {expected}


def test_random_weights_that_came_out_otherwise_are_refused():
    network = net()
    expected = digest_tensors(network.state_dict())
    require_random(network, expected, name="small:weights=none")
    network.conv.bias.data[0] += 1
    with pytest.raises(WeightsError, match=r"weights of small:weights=none are not those .*another thread"):
        require_random(network, expected, name="small:weights=none")
