"""Where and how a backbone's forward pass runs: device, precision, and the runtimes behind one call."""

import functools
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from featx.errors import ExtractionError, UsageError
from featx.extractors.spec import Precision

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone

__all__ = [
    "PrecisionChoice",
    "Runtime",
    "RuntimeChoice",
    "TorchRuntime",
    "check_device",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "default_batch_size",
    "machine_facts",
    "supports",
]

PrecisionChoice = Literal["auto", "float32", "float16", "bfloat16"]
RuntimeChoice = Literal["auto", "torch"]

_BATCH_SIZE_CPU = 32
_BATCH_SIZE_CUDA = 128


class TorchRuntime:
    """A backbone run eagerly by torch, in inference mode.

    Parameters
    ----------
    backbone : Backbone
        Already in its precision.
    device : str
        torch's name of the device.
    """

    name = "torch"

    def __init__(self, backbone: "Backbone", *, device: str) -> None:
        import torch

        self.spec = backbone.spec
        self.device = torch.device(device)
        self._backbone = backbone.to(self.device).to(memory_format=torch.channels_last)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one batch.

        Parameters
        ----------
        pixels : ndarray of shape (n, 3, crop, crop), uint8
            From `Backbone.prepare`, stacked.

        Returns
        -------
        ndarray of shape (n, n_features), float16 or float32
            In the spec's storage type; infinite where that is too small for a value.

        Raises
        ------
        ExtractionError
            If the device has too little memory for the batch.
        """
        import torch

        try:
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), _plain_float32():
                batch = torch.from_numpy(pixels).to(self.device)
                batch = batch.contiguous(memory_format=torch.channels_last)
                features = self._backbone(batch).float().cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            # On a CPU torch has no error of its own for that.
            if not isinstance(
                error, torch.OutOfMemoryError | MemoryError
            ) and "DefaultCPUAllocator" not in str(error):
                raise
            raise ExtractionError(
                f"{self.spec.text}: {self.device} has too little memory for {len(pixels)} images at once. "
                "Use a smaller --batch-size."
            ) from error
        # Half precision may compute larger values than float16 can keep: they become infinite, and are then refused.
        with np.errstate(over="ignore"):
            stored: np.ndarray = features.astype(self.spec.dtype)
        return stored


Runtime = TorchRuntime


def check_device(device: str) -> None:
    """Refuse what is not the name of a device, whether or not there is such a device here.

    Raises
    ------
    UsageError
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", device):
        raise UsageError(f"device: expected auto, cpu, mps, cuda or cuda:N, got {device!r}.")


def choose_device(device: str) -> str:
    """Return torch's name of the device to run on; ``auto`` takes CUDA, then MPS, then the CPU.

    Raises
    ------
    UsageError
        If it is not the name of a device, or there is none of that name here.
    """
    check_device(device)
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(index or 0) >= there[kind]:
        raise UsageError(
            f"device: expected one that torch sees here, got {device!r} with {there[kind]} {kind} devices. "
            "Use --device auto or cpu."
        )
    return device


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


def choose_runtime(runtime: str) -> str:
    """Return the runtime to use.

    Raises
    ------
    UsageError
        If it is none of the choices.
    """
    if runtime not in get_args(RuntimeChoice):
        raise UsageError(f"runtime: expected one of {', '.join(get_args(RuntimeChoice))}, got {runtime!r}.")
    return "torch"


def default_batch_size(device: str) -> int:
    """Return how many images one forward pass takes by default."""
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


@contextmanager
def _plain_float32() -> Iterator[None]:
    """Keep torch from rounding the inputs of float32 products, whatever the caller has set for the rest of the process.

    TF32 on CUDA keeps 10 bits, and ``torch.set_float32_matmul_precision("medium")`` 7 of them on a CPU too. The
    settings are the whole process's: the first of several threads saves the caller's, the last puts them back.
    """
    from torch import backends

    cudnn: Any = backends.cudnn  # some attributes of these two exist only when they run
    mkldnn: Any = backends.mkldnn
    places = (backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    global _n_inside
    with _precision_lock:
        if not _n_inside:
            _precision_before[:] = [place.fp32_precision for place in places]
        _n_inside += 1
        for place in places:
            place.fp32_precision = "ieee"
    try:
        yield
    finally:
        with _precision_lock:
            _n_inside -= 1
            if not _n_inside:
                for place, precision in zip(places, _precision_before, strict=True):
                    place.fp32_precision = precision


_precision_lock = threading.Lock()
_precision_before: list[str] = []
_n_inside = 0
