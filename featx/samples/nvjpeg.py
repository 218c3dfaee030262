"""JPEG decoding on a GPU by nvJPEG, of what the decoding threads have at hand at one time."""

import io
import logging
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import ExtractionError, UsageError
from featx.samples.decode import decode_fast, jpeg_header, turned
from featx.samples.table import RawSample

if TYPE_CHECKING:
    import torch

__all__ = ["check_nvjpeg", "decode_nvjpeg"]

_log = logging.getLogger(__name__)

_END_OF_IMAGE = b"\xff\xd9"


def check_nvjpeg(device: str) -> None:
    """Decode a small JPEG on a GPU, to see that it can be done.

    Raises
    ------
    UsageError
        If the device is no CUDA device, or nvJPEG does not work on it.
    """
    from PIL import Image

    if not device.startswith("cuda"):
        raise UsageError(
            f"pixels=nvjpeg are decoded on a CUDA device, and this run is on {device}. Use pixels=fast."
        )
    picture = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(picture, "JPEG")
    try:
        _decode_on_gpu([picture.getvalue()], device)
    except Exception as error:
        raise UsageError(
            f"pixels=nvjpeg: nvJPEG does not work on {device} ({_first_line(error)}). Use pixels=fast."
        ) from error


def decode_nvjpeg(raw: RawSample, device: str) -> "torch.Tensor":
    """Decode one sample on a GPU if it is an 8-bit grey or RGB JPEG that nvJPEG can read, else as `decode_fast` does.

    Header checks and orientation are those of `decode`. Calls of several threads are decoded together.

    Parameters
    ----------
    raw : bytes or uint8 ndarray of shape (height, width, 3)
        What `SampleTable.read` gave.
    device : str
        torch's name of a CUDA device, on which `check_nvjpeg` found nothing wrong.

    Returns
    -------
    torch.Tensor
        RGB pixels, uint8 of shape (3, height, width), on the device; on the CPU where `decode_fast` made them.

    Raises
    ------
    DecodeError
        As `decode`.
    ExtractionError
        If the GPU fails, and not the picture.
    """
    orientation = None if isinstance(raw, np.ndarray) else jpeg_header(raw)
    # A JPEG that was cut off is one for the decoder whose strictness is known.
    if isinstance(raw, np.ndarray) or orientation is None or raw.rstrip(b"\0")[-2:] != _END_OF_IMAGE:
        return decode_fast(raw)
    waiting = _Waiting(raw)
    _decoder(device).put(waiting)
    waiting.done.wait()
    if waiting.error is not None:
        raise ExtractionError(
            f"decoding on {device} failed ({_first_line(waiting.error)}). Use a smaller --batch-size, or pixels=fast."
        ) from waiting.error
    # What nvJPEG cannot read the CPU may, and if it cannot either, it says why.
    return decode_fast(raw) if waiting.planes is None else turned(waiting.planes, orientation)


@dataclass
class _Waiting:
    """A JPEG that a thread waits for: its bytes, then its pixels, None where nvJPEG refuses it, or what went wrong."""

    raw: bytes
    planes: "torch.Tensor | None" = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


def _decoder(device: str) -> "queue.SimpleQueue[_Waiting]":
    """Return the queue of the one thread that decodes on a device."""
    with _decoders_lock:
        if device not in _decoders:
            _decoders[device] = queue.SimpleQueue()
            threading.Thread(
                target=_work, args=(_decoders[device], device), daemon=True, name=f"nvJPEG on {device}"
            ).start()
        return _decoders[device]


def _work(inbox: "queue.SimpleQueue[_Waiting]", device: str) -> None:
    while True:
        batch = [inbox.get()]
        while not inbox.empty():  # as many as there are threads that wait
            batch.append(inbox.get())
        _decode(batch, device)
        for waiting in batch:
            waiting.done.set()
        del batch, waiting  # or the pixels would stay on the device until the next come


def _decode(batch: list[_Waiting], device: str) -> None:
    """Decode a batch; where it cannot be, each by itself."""
    try:
        planes = _decode_on_gpu([waiting.raw for waiting in batch], device)
    except BaseException as error:  # handed to the threads that wait
        if len(batch) > 1:
            for waiting in batch:
                _decode([waiting], device)
        elif _refuses_picture(error):
            global _refused
            if not _refused:
                _log.warning("nvJPEG does not read every JPEG here; those are decoded on the CPU")
            _refused = True
        else:
            batch[0].error = error
        return
    for waiting, decoded in zip(batch, planes, strict=True):
        waiting.planes = decoded


def _refuses_picture(error: BaseException) -> bool:
    """Tell whether nvJPEG does not take a picture; anything else, such as memory, is not the picture's matter."""
    import torch

    return isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)


def _decode_on_gpu(raws: list[bytes], device: str) -> "list[torch.Tensor]":
    import torch
    from torchvision.io import ImageReadMode

    encoded = [torch.frombuffer(bytearray(raw), dtype=torch.uint8) for raw in raws]
    planes: list[torch.Tensor] = torch.ops.image.decode_jpegs_cuda(
        encoded, ImageReadMode.RGB.value, torch.device(device)
    )
    return planes


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_decoders: "dict[str, queue.SimpleQueue[_Waiting]]" = {}
_decoders_lock = threading.Lock()
_refused = False
