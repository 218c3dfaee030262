"""OpenVINO as a runtime: on a CPU it forwards several times as many images as torch does eagerly."""

import os
import queue
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engine.runtime import padded_batch, to_stored
from featx.errors import UsageError

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone

__all__ = ["OpenVinoRuntime"]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoRuntime:
    """A backbone converted for OpenVINO's CPU plugin; see `featx.engine.runtime.Runtime`.

    Each core has a lane of its own: a network on one thread loses nothing to waiting for the other half of a layer.

    Parameters
    ----------
    backbone : Backbone
        In float32; the plugin rounds to the spec's precision itself.
    batch_size : int
        The number of images converted for; smaller batches are padded.

    Raises
    ------
    UsageError
        If the network has operations that it cannot take.
    """

    name = "openvino"

    def __init__(self, backbone: "Backbone", *, batch_size: int) -> None:
        import openvino
        import torch

        self.spec = backbone.spec
        self.lanes = os.cpu_count() or 1
        self._batch_size = batch_size
        crop = backbone.preprocessing.crop
        example = torch.zeros((batch_size, 3, crop, crop), dtype=torch.uint8)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # of both packages, about their own insides
                model = openvino.convert_model(torch.export.export(backbone, (example,)))
            compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _HINTS[backbone.spec.precision],
                    "NUM_STREAMS": str(self.lanes),
                    "INFERENCE_NUM_THREADS": str(self.lanes),
                },
            )
        except Exception as error:  # both packages leak their own kinds
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UsageError(
                f"{self.spec.text}: OpenVINO cannot take this network ({reason:.200}). Use --runtime torch."
            ) from error
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.lanes):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one batch; see `Runtime`."""
        request = self._requests.get()
        try:
            request.infer([padded_batch(pixels, self._batch_size)], share_inputs=True)
            return to_stored(request.get_output_tensor(0).data[: len(pixels)], self.spec.dtype)
        finally:
            self._requests.put(request)
