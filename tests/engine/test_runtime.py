import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from featx.engine import hardware, runtime
from featx.engine.openvino import OpenVinoRuntime
from featx.engine.runtime import TorchRuntime, build_runtime, torch_log_off
from featx.errors import ExtractionError, MissingDependencyError, UsageError
from featx.extractors import registry
from featx.extractors.spec import parse

CPU = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a C++ compiler"
)


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


@pytest.mark.parametrize(("n_images", "most"), [(8, 2), (7, 3), (5, 2)])
def test_a_batch_too_large_for_the_device_is_halved_and_that_is_said_once(
    backbone, pixels, caplog, n_images, most
):
    import torch

    tried = []

    class Large(torch.nn.Module):
        def forward(self, images):
            tried.append(len(images))
            if len(images) > 3 and images.any():  # else it is only being measured
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images.mean((2, 3))

    run = TorchRuntime(backbone(Large(), crop=16), device="cpu")
    given = pixels[:n_images]
    tried.clear()
    for _ in range(2):
        np.testing.assert_allclose(run(given), given.mean((2, 3)) / 255, rtol=1e-5)
    too_many = [number for number in tried if number > 3]
    assert tried[: len(too_many)] == too_many  # what was too much is not tried again,
    assert too_many.count(n_images) == 2  # but for once alone: another batch may have had the memory
    assert [record.getMessage() for record in caplog.records] == [
        f"module/tiny: cpu has too little memory for {n_images} images at once; from here on it is given {most}"
    ]


def test_a_device_without_memory_for_one_image_is_named_with_the_way_out(backbone, pixels):
    import torch

    class Larger(torch.nn.Module):
        def forward(self, images):
            if images.any():
                raise torch.OutOfMemoryError("CUDA out of memory")
            return images.mean((2, 3))

    with pytest.raises(ExtractionError, match=r"cpu has too little memory for a single image.*--device"):
        TorchRuntime(backbone(Larger(), crop=16), device="cpu")(pixels)


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

    with pytest.raises(ExtractionError, match=r"cpu has too little memory for a single image"):
        TorchRuntime(backbone(Hungry()), device="cpu")(pixels[:, :, :4, :4].copy())


@pytest.fixture(scope="module")
def small():
    """Build a small pretrained-like network's backbone anew: maps, batch norm, a residual, pooling."""

    def built(text="resnet18:weights=none:size=64", precision="float32"):
        [request] = parse(text)
        source = registry.find_source(request)
        return source.load(request, source.resolve(request, precision=precision))

    return built


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(1).integers(0, 256, (11, 3, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "text"),
    [  # no ViT is compiled: that takes half a minute, and the ResNet shows what is to be shown
        pytest.param("compile", "resnet18:weights=none:size=64", marks=needs_compiler),
        ("openvino", "resnet18:weights=none:size=64"),
        ("openvino", "vit_b_32:weights=none:size=64"),
    ],
)
def test_every_runtime_computes_the_same_in_float32_whatever_the_batch(small, photos, name, text):
    expected = TorchRuntime(small(text), device="cpu")(photos)
    run = build_runtime(name, small(text), device="cpu", batch_size=4, n_samples=11)
    assert run.name == name
    features = np.concatenate([run(photos[start : start + 4]) for start in range(0, 11, 4)])
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    alone = run(photos[5:6])[0]
    assert np.abs(alone - features[5]).max() <= 1e-5 * np.abs(expected).max()


def test_openvino_rounds_to_bfloat16_itself(small, photos):
    expected = TorchRuntime(small(), device="cpu")(photos)
    features = OpenVinoRuntime(small(precision="bfloat16"), batch_size=11)(photos)
    assert features.dtype == np.float16
    cosines = (features * expected).sum(1) / np.linalg.norm(features.astype(float), axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1)).min() >= 0.995
    if "bf16" not in CPU:
        pytest.skip("this CPU has no bfloat16, and the plugin computes in float32 there")
    assert np.abs(features - expected).max() > 1e-3 * np.abs(expected).max()  # float16 alone moves it by 5e-4


def test_openvino_adds_biases_unrounded_in_bfloat16(backbone):
    import torch

    class Biased(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 1)
            torch.nn.init.constant_(self.conv.weight, 33.5)
            self.conv.bias.data = torch.tensor([-100.3, -100.7])  # either is 100.5 when rounded

        def forward(self, images):
            return self.conv(images).mean((2, 3))

    pixels = np.full((1, 3, 4, 4), 255, np.uint8)
    network = backbone(Biased(), crop=4, precision="bfloat16")
    plain = backbone(Biased(), crop=4)
    expected = TorchRuntime(plain, device="cpu")(pixels)
    features = OpenVinoRuntime(network, batch_size=1)(pixels)
    np.testing.assert_allclose(expected, [[0.2, -0.2]], rtol=1e-4)
    np.testing.assert_allclose(features, expected, rtol=4e-3)
    if "bf16" not in CPU:
        pytest.skip("this CPU has no bfloat16, and the plugin computes in float32 there")


def test_lanes_of_openvino_do_not_mix_their_batches(small, photos):
    run = OpenVinoRuntime(small(), batch_size=1)
    one_by_one = [run(photo[None]) for photo in photos]
    with ThreadPoolExecutor(3) as threads:
        at_once = list(threads.map(lambda photo: run(photo[None]), photos))
    np.testing.assert_array_equal(at_once, one_by_one)


# What OpenVINO does beside its work, told by a process in which neither CI nor a home folder keeps it from reporting.
ALONE = """
import json, os, sys
from pathlib import Path
import featx
featx.extract(featx.read_samples(sys.argv[1]), "nano:size=32", cache=None, device="cpu", runtime="openvino")
children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
print(json.dumps([children, os.listdir(os.environ["HOME"]), bool(sys.modules.get("openvino_telemetry"))]))
"""


def test_openvino_reports_to_nobody(pictures, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")
    }
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(pictures(2))],
        env=kept | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [[], [], False]


def test_a_network_that_openvino_cannot_take_runs_in_torch_unless_it_was_asked_for(backbone, caplog):
    import torch

    class Odd(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.svdvals(images.float()).flatten(1)  # which OpenVINO has not

    options = {"device": "cpu", "batch_size": 4, "n_samples": 10_000}
    odd = backbone(Odd(), crop=16)
    with pytest.raises(UsageError, match=r"module/tiny: OpenVINO cannot take this network .*--runtime torch"):
        build_runtime("openvino", odd, **options)
    assert build_runtime("auto", odd, **options).name == "torch"
    assert "It is run by torch instead" in caplog.text
    assert "--runtime" not in caplog.text


@pytest.mark.parametrize("told", ["item", "equal", "allclose", "is_nonzero"])
def test_a_network_whose_path_depends_on_the_pixels_is_never_converted_by_one_of_its_paths(
    backbone, told, capfd
):
    import torch

    class Forked(torch.nn.Module):
        def forward(self, images):
            black = {
                "item": lambda: images.sum().item() == 0,
                "equal": lambda: torch.equal(images, torch.zeros_like(images)),
                "allclose": lambda: torch.allclose(images, torch.zeros_like(images)),
                "is_nonzero": lambda: not torch.is_nonzero(images.sum()),
            }
            return images.sum((2, 3)) - 1 if black[told]() else images.mean((2, 3))

    options = {"device": "cpu", "batch_size": 4, "n_samples": 10_000}
    with pytest.raises(UsageError, match="OpenVINO cannot take this network"):
        build_runtime("openvino", backbone(Forked(), crop=16), **options)
    assert build_runtime("auto", backbone(Forked(), crop=16), **options).name == "torch"
    assert "def forward" not in capfd.readouterr().err  # torch prints the graph of what it does not export


def test_the_log_of_torch_is_off_for_a_while_only():
    log = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = log.getEffectiveLevel()
    with torch_log_off():
        assert not log.isEnabledFor(logging.ERROR)
    assert log.getEffectiveLevel() == before


@pytest.mark.parametrize("name", ["torch", "openvino"])
@pytest.mark.parametrize(
    ("weight", "value"),
    [("0.weight", float("nan")), ("0.weight", float("inf")), ("1.running_mean", float("nan"))],
)
def test_weights_that_are_not_finite_are_refused_even_where_an_activation_would_hide_them(
    backbone, name, weight, value
):
    import torch

    layers = (torch.nn.Conv2d(3, 2, 1), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten())
    network = torch.nn.Sequential(*layers)
    network.state_dict()[weight].flatten()[0] = value  # the tensor itself, not a copy
    with pytest.raises(
        ExtractionError, match=rf"module/tiny: the weights of '.*{weight}' hold values that are not finite"
    ):
        build_runtime(name, backbone(network), device="cpu", batch_size=4, n_samples=10_000)


def test_what_cannot_be_compiled_is_one_line(small, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(
        UsageError, match=r"torch\.compile cannot compile this network here \(.*--runtime torch"
    ):
        build_runtime("compile", small(), device="cpu", batch_size=3, n_samples=11)


def test_openvino_that_cannot_be_imported_is_said_and_auto_goes_on_without(small, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: object())
    options = {"device": "cpu", "batch_size": 4, "n_samples": 10_000}
    with pytest.raises(MissingDependencyError, match=r"openvino cannot be imported \(.*pip install"):
        build_runtime("openvino", small(), **options)
    assert build_runtime("auto", small(), **options).name == "torch"
    assert "It is run by torch instead" in caplog.text
