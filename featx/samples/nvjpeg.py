"""JPEG decoding on a GPU by nvJPEG, in batches of what the decoding threads have at hand at one time."""

import queue
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from featx.samples.decode import decode_fast, jpeg_header, turned
from featx.samples.table import RawSample

if TYPE_CHECKING:
    import torch

__all__ = ["decode_nvjpeg"]

_MOST_AT_ONCE = 64


def decode_nvjpeg(raw: RawSample, device: str) -> "torch.Tensor":
    """Decode one sample on a GPU if it is an 8-bit grey or RGB JPEG that nvJPEG can read, else as `decode_fast` does.

    Header checks and orientation are those of `decode`. Calls of several threads are decoded together.

    Parameters
    ----------
    raw : bytes or uint8 ndarray of shape (height, width, 3)
        What `SampleTable.read` gave.
    device : str
        torch's name of a CUDA device.

    Returns
    -------
    torch.Tensor
        RGB pixels, uint8 of shape (3, height, width), on the device; on the CPU where `decode_fast` made them.

    Raises
    ------
    DecodeError
        As `decode`.
    """
    header = None if isinstance(raw, np.ndarray) else jpeg_header(raw)
    if header is None:
        return decode_fast(raw)
    waiting = _Waiting(bytes(raw))
    _decoder(device).put(waiting)
    waiting.done.wait()
    # What nvJPEG cannot read the CPU may, and if it cannot either, it says why.
    return decode_fast(raw) if waiting.planes is None else turned(waiting.planes, header)


@dataclass
class _Waiting:
    """A JPEG that a thread waits for: its bytes, then its pixels, or None where nvJPEG does not take it."""

    raw: bytes
    planes: "torch.Tensor | None" = None
    done: threading.Event = field(default_factory=threading.Event)


@cache
def _decoder(device: str) -> "queue.SimpleQueue[_Waiting]":
    """Return the queue of the one thread that decodes on a device."""
    inbox: queue.SimpleQueue[_Waiting] = queue.SimpleQueue()

    def work() -> None:
        while True:
            batch = [inbox.get()]
            while len(batch) < _MOST_AT_ONCE and not inbox.empty():
                batch.append(inbox.get())
            try:
                _decode(batch, device)
            finally:
                for waiting in batch:
                    waiting.done.set()

    threading.Thread(target=work, daemon=True, name=f"nvJPEG on {device}").start()
    return inbox


def _decode(batch: list[_Waiting], device: str) -> None:
    """Decode a batch; where one of it cannot be, each by itself."""
    try:
        planes = _decode_on_gpu([waiting.raw for waiting in batch], device)
    except Exception:  # whatever it is, the CPU has the last word
        if len(batch) > 1:
            for waiting in batch:
                _decode([waiting], device)
        return
    for waiting, decoded in zip(batch, planes, strict=True):
        waiting.planes = decoded


def _decode_on_gpu(raws: list[bytes], device: str) -> "list[torch.Tensor]":
    import torch
    from torchvision.io import ImageReadMode

    encoded = [torch.frombuffer(bytearray(raw), dtype=torch.uint8) for raw in raws]
    planes: list[torch.Tensor] = torch.ops.image.decode_jpegs_cuda(
        encoded, ImageReadMode.RGB.value, torch.device(device)
    )
    return planes
