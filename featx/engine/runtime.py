"""Where and how a backbone's forward pass runs: device, precision, and the runtimes behind one call."""

import functools
import importlib.util
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

import numpy as np

from featx.errors import ExtractionError, MissingDependencyError, UsageError
from featx.extractors.spec import Precision

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone

__all__ = [
    "PrecisionChoice",
    "Runtime",
    "RuntimeChoice",
    "TorchRuntime",
    "build_runtime",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "default_batch_size",
    "device_names",
    "first_line",
    "machine_facts",
    "padded_batch",
    "supports",
    "to_stored",
]

PrecisionChoice = Literal["auto", "float32", "float16", "bfloat16"]
RuntimeChoice = Literal["auto", "torch", "compile", "openvino"]

_log = logging.getLogger(__name__)

_MANY_SAMPLES = 500
"""From here on what a converted network saves is more than the seconds that converting takes."""
_BATCH_SIZE_CPU = 32
_BATCH_SIZE_CUDA = 128


class Runtime(Protocol):
    """What runs a backbone: called with uint8 batches, by as many threads at once as it has lanes.

    Attributes
    ----------
    name : str
        Of `RuntimeChoice`.
    lanes : int
        How many batches it works on side by side.
    """

    name: str
    lanes: int

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one batch.

        Parameters
        ----------
        pixels : ndarray of shape (n, 3, crop, crop), uint8
            From `Backbone.prepare`, stacked; at most as many as one batch holds.

        Returns
        -------
        ndarray of shape (n, n_features), float16 or float32
            In the spec's storage type; infinite where that is too small for a value.

        Raises
        ------
        ExtractionError
            If the device has too little memory for a single image.
        """


class TorchRuntime:
    """A backbone run by torch in inference mode, eagerly or compiled; see `Runtime`.

    On CUDA two batches are under way, each on a stream of its own: one is copied while the other is computed.

    Parameters
    ----------
    backbone : Backbone
        Is put in its precision, in place.
    device : str
        torch's name of the device.
    compiled_for : int, optional
        The number of images that ``torch.compile`` compiles for; smaller batches are padded. None runs eagerly.
    """

    def __init__(self, backbone: "Backbone", *, device: str, compiled_for: int | None = None) -> None:
        import torch

        self.spec = backbone.spec
        self.device = torch.device(device)
        self.name = "torch" if compiled_for is None else "compile"
        self.lanes = 2 if self.device.type == "cuda" else 1
        self._padded_to = compiled_for or 0
        self._most: int | None = None
        self._alone = threading.Lock()
        self._streams = threading.local()
        self._forward: Any = backbone.cast().to(self.device).to(memory_format=torch.channels_last)
        if self.device.type == "cuda":
            torch.cuda.synchronize(
                self.device
            )  # the lanes' streams do not wait for the one that copied the weights
        if compiled_for is not None:
            self._compile(backbone.preprocessing.crop)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one batch; see `Runtime`."""
        before = self._most or max(len(pixels), self._padded_to)
        features = self._try(pixels, before)
        if features is None:
            with self._alone:  # another lane's batch may be what the memory went to
                features = self._in_parts(pixels, before)
        return to_stored(features, self.spec.dtype)

    def _in_parts(self, pixels: np.ndarray, before: int) -> np.ndarray:
        """Run one batch in parts so small that the device has memory for them, and remember how small."""
        most = min(before, self._most or before)
        while (features := self._try(pixels, most)) is None:
            if most == 1:
                raise ExtractionError(
                    f"{self.spec.text}: {self.device} has too little memory for a single image. Close other "
                    "programs that use it, or use another --device."
                )
            most //= 2
        if most < before and most != self._most:
            self._most = most
            _log.warning(
                "%s: %s has too little memory for %d images at once; from here on it is given %d",
                self.spec.text,
                self.device,
                before,
                most,
            )
        return features

    def _try(self, pixels: np.ndarray, most: int) -> np.ndarray | None:
        """Run a batch in parts of at most so many images; None where the memory does not suffice."""
        try:
            return np.concatenate(
                [self._run(pixels[start : start + most], most) for start in range(0, len(pixels), most)]
            )
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        return None  # outside the handler, whose error keeps the tensors of its frames alive

    def _compile(self, crop: int) -> None:
        import torch

        options: Any = {"freezing": True} if self.device.type == "cpu" else None
        self._forward = torch.compile(self._forward, dynamic=False, options=options)
        _log.warning("%s: torch compiles it, which may take a minute", self.spec.text)
        try:
            self._run(np.zeros((1, 3, crop, crop), np.uint8), self._padded_to)
        except Exception as error:  # torch's compilers leak their own kinds, and those of what they call
            if _is_out_of_memory(error):
                return  # smaller batches are compiled for later
            raise UsageError(
                f"{self.spec.text}: torch.compile cannot compile this network here ({first_line(error)}). "
                "Use --runtime torch."
            ) from error

    def _run(self, pixels: np.ndarray, most: int) -> np.ndarray:
        import torch

        padded = padded_batch(pixels, min(self._padded_to, most))
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False), _plain_float32():
            if self.device.type != "cuda":
                batch = torch.from_numpy(padded).to(self.device)
                return self._features(batch)[: len(pixels)]
            with torch.cuda.stream(self._stream()):
                batch = torch.from_numpy(padded).pin_memory().to(self.device, non_blocking=True)
                return self._features(batch)[: len(pixels)]

    def _features(self, batch: Any) -> np.ndarray:
        import torch

        found: np.ndarray = (
            self._forward(batch.contiguous(memory_format=torch.channels_last)).float().cpu().numpy()
        )
        return found

    def _stream(self) -> Any:
        """Return this thread's own stream."""
        import torch

        if not hasattr(self._streams, "stream"):
            self._streams.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return self._streams.stream


def to_stored(features: np.ndarray, dtype: str) -> np.ndarray:
    """Return features in their storage type; what is too large for it becomes infinite, and is then refused."""
    with np.errstate(over="ignore"):
        stored: np.ndarray = features.astype(dtype)
    return stored


def padded_batch(pixels: np.ndarray, length: int) -> np.ndarray:
    """Return a batch of at least `length` images, black ones at its end."""
    if len(pixels) >= length:
        return pixels
    padded = np.zeros((length, *pixels.shape[1:]), pixels.dtype)
    padded[: len(pixels)] = pixels
    return padded


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # A CPU has no error of its own for that, nor have pinned memory and the libraries that torch calls on CUDA.
    said = str(error)
    return any(sign in said for sign in ("DefaultCPUAllocator", "CUDA error: out of memory", "ALLOC_FAILED"))


def first_line(error: Exception) -> str:
    """Return what another package's error says in its first line, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def build_runtime(
    runtime: str, backbone: "Backbone", *, device: str, batch_size: int, n_samples: int
) -> Runtime:
    """Return what runs a backbone.

    Parameters
    ----------
    runtime : str
        As the user gave it; ``auto`` is what `choose_runtime` says, and torch where OpenVINO cannot take the network.
    backbone : Backbone
        Fresh from its source.
    device : str
        From `choose_device`.
    batch_size : int
        How many images a batch holds.
    n_samples : int
        How many there are to do.

    Raises
    ------
    UsageError, MissingDependencyError
        If the runtime asked for cannot be used here, or not with this network.
    """
    chosen = choose_runtime(runtime, device=device, precision=backbone.spec.precision, n_samples=n_samples)
    if chosen == "openvino":
        from featx.engine.openvino import OpenVinoRuntime

        try:
            return OpenVinoRuntime(backbone, batch_size=batch_size)
        except (UsageError, MissingDependencyError) as error:
            if runtime != "auto":
                raise
            _log.warning("%s It is run by torch instead.", error)
    return TorchRuntime(backbone, device=device, compiled_for=batch_size if chosen == "compile" else None)


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
