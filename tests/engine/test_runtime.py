from pathlib import Path

import numpy as np
import pytest

from featx.engine import runtime
from featx.engine.runtime import TorchRuntime, choose_device, choose_precision, choose_runtime, supports
from featx.errors import ExtractionError, UsageError


@pytest.fixture
def backbone():
    """Build the backbone of a network of the test's own."""

    def built(network, *, precision="float32", crop=4):
        from featx import ModuleExtractor, Preprocessing

        preprocessing = Preprocessing(resize=crop, crop=crop, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        extractor = ModuleExtractor(network, name="tiny", preprocessing=preprocessing)
        return extractor.load(extractor.resolve(precision=precision))

    return built


@pytest.fixture
def linear(backbone):
    import torch

    torch.manual_seed(0)
    return backbone(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 64)), crop=16)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 3, 16, 16), dtype=np.uint8)


def test_a_batch_gives_what_the_network_gives(linear, pixels):
    weight, bias = linear.network.body[1].weight.numpy(), linear.network.body[1].bias.numpy()
    expected = (pixels.reshape(8, -1) / 255.0) @ weight.T.astype(float) + bias
    features = TorchRuntime(linear, device="cpu")(pixels)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_a_vector_does_not_depend_on_its_batch(linear, pixels):
    at_once = TorchRuntime(linear, device="cpu")(pixels)
    alone = np.concatenate([TorchRuntime(linear, device="cpu")(one[None]) for one in pixels])
    assert np.abs(at_once - alone).max() <= 1e-5 * np.abs(at_once).max()


def test_float32_means_float32_whatever_the_process_has_set(linear, pixels):
    import torch

    plain = TorchRuntime(linear, device="cpu")(pixels)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = TorchRuntime(linear, device="cpu")(pixels)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")
    np.testing.assert_array_equal(features, plain)


def test_float32_means_float32_in_every_thread_until_the_last_has_left(linear):
    import torch

    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        first, second = runtime._plain_float32(), runtime._plain_float32()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"
        second.__exit__(None, None, None)
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def test_cudnn_stays_as_it_is(backbone, pixels):
    import torch

    seen = []

    class Looking(torch.nn.Module):
        def forward(self, images):
            seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.conv.fp32_precision))
            return images.mean((2, 3))

    TorchRuntime(backbone(Looking(), crop=16), device="cpu")(pixels)
    assert seen[-1] == (True, "ieee")
    assert torch.backends.cudnn.enabled


def test_half_precision_is_kept_as_float16(backbone, pixels):
    import torch

    features = TorchRuntime(backbone(torch.nn.Flatten(), precision="bfloat16", crop=16), device="cpu")(pixels)
    assert features.dtype == np.float16


def test_a_device_without_memory_is_named_with_the_way_out(backbone, pixels):
    import torch

    class Large(torch.nn.Module):
        def forward(self, images):
            if images.any():  # else it is only being measured
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images.mean((2, 3))

    with pytest.raises(
        ExtractionError, match=r"cpu has too little memory for 8 images at once.*--batch-size"
    ):
        TorchRuntime(backbone(Large(), crop=16), device="cpu")(pixels)


def test_a_cpu_without_memory_is_told_alike(backbone, pixels):
    import torch

    class Hungry(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            if images.any():
                torch.empty(2**55)
            return images.mean((2, 3)) * self.weight

    with pytest.raises(ExtractionError, match=r"cpu has too little memory for 8 images.*--batch-size"):
        TorchRuntime(backbone(Hungry()), device="cpu")(pixels[:, :, :4, :4].copy())


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="device: expected one that torch sees here, got 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(UsageError, match="device: expected auto, cpu, mps, cuda or cuda:N, got 'cuda:x'"):
        choose_device("cuda:x")


@pytest.mark.parametrize(
    ("device", "amx", "expected"),
    [
        ("cuda:1", False, "float16"),
        ("cpu", True, "bfloat16"),
        ("cpu", False, "float32"),
        ("mps", True, "float32"),
    ],
)
def test_auto_precision_is_half_where_the_hardware_has_it(monkeypatch, device, amx, expected):
    monkeypatch.setattr(runtime, "has_amx", lambda: amx)
    assert choose_precision("auto", device=device) == expected
    assert supports(expected, device=device)
    assert choose_precision("float16", device=device) == "float16"


def test_wrong_choices_are_refused_with_those_there_are(monkeypatch):
    with pytest.raises(
        UsageError, match="precision: expected one of auto, float32, float16, bfloat16, got 'int8'"
    ):
        choose_precision("int8", device="cpu")
    with pytest.raises(UsageError, match="runtime: expected one of auto, torch, got 'onnx'"):
        choose_runtime("onnx")
    monkeypatch.setattr(runtime, "has_amx", lambda: False)
    assert not supports("bfloat16", device="cpu")


def test_what_the_machine_has_is_told_without_torch():
    facts = runtime.machine_facts()
    assert facts["amx"] == (" amx_bf16" in Path("/proc/cpuinfo").read_text())
    assert facts.keys() == {"amx", "nvidia", "visible"}
