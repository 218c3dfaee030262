from pathlib import Path

import pytest

from featx.engine import hardware
from featx.engine.hardware import choose_device, choose_precision, choose_runtime, supports
from featx.errors import MissingDependencyError, UsageError


@pytest.mark.parametrize(
    ("device", "precision", "n_samples", "expected"),
    [
        ("cpu", "float32", 200, "openvino"),
        ("cpu", "bfloat16", 200, "openvino"),
        ("cpu", "float32", 199, "torch"),
        ("cpu", "float16", 200, "torch"),
        ("cuda", "float16", 200, "torch"),
    ],
)
def test_auto_takes_openvino_where_it_is_able_and_pays(monkeypatch, device, precision, n_samples, expected):
    given = {"device": device, "precision": precision, "n_samples": n_samples}
    assert choose_runtime("auto", **given) == expected
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    assert choose_runtime("auto", **given) == "torch"
    with pytest.raises(
        (UsageError, MissingDependencyError), match=r"openvino (runs on the cpu|is not installed)"
    ):
        choose_runtime("openvino", **given)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in ("cpu", "cuda", "mps")
    with pytest.raises(UsageError, match="device: expected one that torch sees here, got 'cuda:99'"):
        choose_device("cuda:99")
    with pytest.raises(
        UsageError,
        match="device: expected auto, cpu, mps, cuda, cuda:N, or several as cuda:0,cuda:1, got 'cuda:x'",
    ):
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
    monkeypatch.setattr(hardware, "has_amx", lambda: amx)
    assert choose_precision("auto", device=device) == expected
    assert supports(expected, device=device)
    assert choose_precision("float16", device=device) == "float16"


def test_wrong_choices_are_refused_with_those_there_are(monkeypatch):
    with pytest.raises(
        UsageError, match="precision: expected one of auto, float32, float16, bfloat16, got 'int8'"
    ):
        choose_precision("int8", device="cpu")
    with pytest.raises(
        UsageError, match="runtime: expected one of auto, torch, compile, openvino, got 'onnx'"
    ):
        choose_runtime("onnx")
    monkeypatch.setattr(hardware, "has_amx", lambda: False)
    assert not supports("bfloat16", device="cpu")


def test_what_the_machine_has_is_told_without_torch():
    facts = hardware.machine_facts()
    assert facts["amx"] == (" amx_bf16" in Path("/proc/cpuinfo").read_text())
    assert facts.keys() == {"amx", "nvidia", "visible"}
