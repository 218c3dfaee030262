"""What runs a backbone's forward pass: torch, torch.compile and OpenVINO behind one call."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featx.engine.hardware import choose_runtime
from featx.errors import ExtractionError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone

__all__ = [
    "Runtime",
    "TorchRuntime",
    "build_runtime",
    "first_line",
    "padded_batch",
    "to_stored",
    "torch_log_off",
]

_log = logging.getLogger(__name__)


class Runtime(Protocol):
    """What runs a backbone: called with uint8 batches, by as many threads at once as it has lanes.

    Attributes
    ----------
    name : str
        Of `RuntimeChoice`.
    lanes : int
        How many calls it works on side by side.
    most : int or None
        The most images of a call, where that is less than a batch.
    """

    name: str
    lanes: int
    most: int | None

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one batch, or a part of it.

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
        self.most: int | None = None
        self._padded_to = compiled_for or 0
        self._at_once: int | None = None
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
        before = self._at_once or max(len(pixels), self._padded_to)
        features = self._try(pixels, before)
        if features is None:
            with self._alone:  # another lane's batch may be what the memory went to
                features = self._in_parts(pixels, before)
        return to_stored(features, self.spec.dtype)

    def _in_parts(self, pixels: np.ndarray, before: int) -> np.ndarray:
        """Run one batch in parts so small that the device has memory for them, and remember how small."""
        most = min(before, self._at_once or before)
        while (features := self._try(pixels, most)) is None:
            if most == 1:
                raise ExtractionError(
                    f"{self.spec.text}: {self.device} has too little memory for a single image. Close other "
                    "programs that use it, or use another --device."
                )
            most //= 2
        if most < before and most != self._at_once:
            self._at_once = most
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
            with torch_log_off():
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


@contextmanager
def torch_log_off() -> Iterator[None]:
    """Keep torch's own log, of the insides of its compilers, from the user: what matters of them featx says."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


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


def _check_finite(backbone: "Backbone") -> None:
    """Refuse weights that are not finite: an activation may turn what comes of them into numbers like any other."""
    broken = [name for name, weight in backbone.named_parameters() if not weight.isfinite().all()]
    # A buffer may be a mask of infinities; no buffer is one of NaN.
    broken += [name for name, buffer in backbone.named_buffers() if buffer.isnan().any()]
    if broken:
        raise ExtractionError(
            f"{backbone.spec.text}: the weights of '{broken[0]}' hold values that are not finite. Check the file that "
            "they are from."
        )


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
    ExtractionError
        If a weight is not finite.
    """
    _check_finite(backbone)
    chosen = choose_runtime(runtime, device=device, precision=backbone.spec.precision, n_samples=n_samples)
    if chosen == "openvino":
        from featx.engine.openvino import OpenVinoRuntime

        try:
            return OpenVinoRuntime(backbone, batch_size=batch_size)
        except (UsageError, MissingDependencyError) as error:
            if runtime != "auto":
                raise
            _log.warning("%s It is run by torch instead.", str(error).removesuffix(" Use --runtime torch."))
    return TorchRuntime(backbone, device=device, compiled_for=batch_size if chosen == "compile" else None)


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
