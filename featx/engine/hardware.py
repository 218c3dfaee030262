"""What a run is computed on: device, precision and runtime, as asked for or by what this machine has."""

import functools
import importlib.util
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

from featx.errors import MissingDependencyError, UsageError
from featx.extractors.spec import Precision

__all__ = [
    "PrecisionChoice",
    "RuntimeChoice",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "default_batch_size",
    "device_names",
    "has_amx",
    "machine_facts",
    "n_cores",
    "supports",
]

PrecisionChoice = Literal["auto", "float32", "float16", "bfloat16"]
RuntimeChoice = Literal["auto", "torch", "compile", "openvino"]

_MANY_SAMPLES = 200
"""From here on what a converted network saves is more than the seconds that converting takes."""
_BATCH_SIZE_CPU = 32
_BATCH_SIZE_CUDA = 128


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_names(device: str) -> list[str]:
    """Return the names in what a user gave, without looking whether there are such devices here.

    Several are CUDA devices, or the CPU as often as there shall be processes.

    Raises
    ------
    UsageError
        If one is not the name of a device, or a CUDA device stands twice.

    Examples
    --------
    >>> device_names("cuda:0,cuda:1")
    ['cuda:0', 'cuda:1']
    """
    names = device.split(",")
    one = re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", device)
    several = all(re.fullmatch(r"cuda:[0-9]+", name) for name in names) and len(set(names)) == len(names)
    if not (one or several or set(names) == {"cpu"}):
        raise UsageError(
            f"device: expected auto, cpu, mps, cuda, cuda:N, or several as cuda:0,cuda:1, got {device!r}. "
            "See: featx doctor"
        )
    return names


def choose_device(device: str) -> str:
    """Return torch's name of the device to run on; ``auto`` takes CUDA, then MPS, then the CPU, several the first.

    Raises
    ------
    UsageError
        If it is not the name of a device, or there is none of that name here.
    """
    names = device_names(device)
    if names[0] == "cpu":
        return "cpu"
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    for name in names:
        kind, _, index = name.partition(":")
        if int(index or 0) >= there[kind]:
            raise UsageError(
                f"device: expected one that torch sees here, got {name!r} with {there[kind]} {kind} devices. "
                "Use --device auto or cpu."
            )
    return names[0]


def choose_precision(precision: str, *, device: str) -> Precision:
    """Return the number format of the forward pass; ``auto`` is half precision where the hardware has it.

    Parameters
    ----------
    precision : {"auto", "float32", "float16", "bfloat16"}
        ``auto`` is float16 on CUDA, bfloat16 on a CPU with AMX, else float32.
    device : str
        From `choose_device`.

    Raises
    ------
    UsageError
        If it is none of the choices.
    """
    if precision not in get_args(PrecisionChoice):
        raise UsageError(
            f"precision: expected one of {', '.join(get_args(PrecisionChoice))}, got {precision!r}."
        )
    if precision != "auto":
        return precision  # type: ignore[return-value]  # narrowed by the check above
    if device.startswith("cuda"):
        return "float16"
    return "bfloat16" if device == "cpu" and has_amx() else "float32"


def supports(precision: str, *, device: str) -> bool:
    """Tell whether the hardware computes in this precision at speed."""
    if precision == "float32" or device.startswith("cuda"):
        return True
    return precision == "bfloat16" and device == "cpu" and has_amx()


def choose_runtime(
    runtime: str, *, device: str = "cpu", precision: str = "float32", n_samples: int = _MANY_SAMPLES
) -> str:
    """Return the runtime to use; ``auto`` takes OpenVINO on a CPU where it is installed and there is much to do.

    Parameters
    ----------
    runtime : {"auto", "torch", "compile", "openvino"}
    device, precision : str
        From `choose_device` and `choose_precision`.
    n_samples : int
        How many images there are; converting a network takes as long as some hundred of them.

    Raises
    ------
    UsageError
        If it is none of the choices, or cannot run on this device or in this precision.
    MissingDependencyError
        If it is not installed.
    """
    if runtime not in get_args(RuntimeChoice):
        raise UsageError(f"runtime: expected one of {', '.join(get_args(RuntimeChoice))}, got {runtime!r}.")
    able = device == "cpu" and precision in ("float32", "bfloat16")
    installed = importlib.util.find_spec("openvino") is not None
    if runtime == "openvino" and not able:
        raise UsageError(
            f"runtime: openvino runs on the cpu in float32 or bfloat16, got {device} in {precision}. "
            "Use --runtime torch."
        )
    if runtime == "openvino" and not installed:
        raise MissingDependencyError("runtime: openvino is not installed. Try: pip install openvino")
    if runtime != "auto":
        return runtime
    return "openvino" if able and installed and n_samples >= _MANY_SAMPLES else "torch"


def default_batch_size(device: str) -> int:
    """Return how many images a batch holds by default."""
    return _BATCH_SIZE_CUDA if device.startswith("cuda") else _BATCH_SIZE_CPU


@functools.cache
def has_amx() -> bool:
    """Tell whether this CPU multiplies bfloat16 tiles (AMX), without importing torch."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return any(line.startswith("flags") and " amx_bf16" in line for line in file)
    except OSError:
        return False


def machine_facts() -> dict[str, Any]:
    """Return what decides device and precision under ``auto``, read without importing torch."""
    return {
        "amx": has_amx(),
        "nvidia": Path("/dev/nvidiactl").exists(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
