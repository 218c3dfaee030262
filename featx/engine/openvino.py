"""OpenVINO as a runtime: on a CPU it forwards several times as many images as torch does eagerly."""

import logging
import queue
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engine.hardware import n_cores
from featx.engine.runtime import first_line, padded_batch, to_stored, torch_log_off
from featx.errors import ExtractionError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import openvino
    import torch

    from featx.extractors.backbone import Backbone

__all__ = ["OpenVinoRuntime"]

_log = logging.getLogger(__name__)

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_TRACED_SOURCES = ("featx", "torchvision", "timm")
"""Whose networks branch on nothing that the pixels decide."""
_MOST_IMAGES = {"float32": 4, "bfloat16": 16}
"""In one request: more are not faster on a core. Half precision computes faster than it fetches weights from memory."""


@contextmanager
def _left_alone() -> Iterator[None]:
    """Keep both packages' warnings of their own insides from the user, and put the root logger's level back.

    `openvino.convert_model` sets it to errors only, for the whole process.
    """
    root = logging.getLogger()
    level = root.level
    try:
        with warnings.catch_warnings(), torch_log_off():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)


_converting = threading.Lock()
"""Which warnings count is the whole process's affair."""


def _converted(backbone: "Backbone", example: "torch.Tensor") -> "openvino.Model":
    """Convert a network.

    Tracing takes a third of the time that exporting does, but keeps only the path that the example took. So a network
    that a user brings is exported, which follows every path or refuses; so is any that tracing warns of.
    """
    import openvino
    import torch

    jit: Any = torch.jit  # which has no types
    with _converting, _left_alone(), torch.no_grad():
        if backbone.spec.source in _TRACED_SOURCES:
            warnings.simplefilter("error", jit.TracerWarning)
            try:
                traced = jit.trace(backbone, example, check_trace=False)
                model = openvino.convert_model(traced, example_input=example)
                model.reshape(list(example.shape))
                return model
            except Exception as error:  # both packages leak their own kinds
                _log.debug("%s: not traced, %s", backbone.spec.text, error)
        with redirect_stderr(StringIO()):  # where it prints the whole graph of what it refuses
            exported = torch.export.export(backbone, (example,))
        return openvino.convert_model(exported)


def _keep_biases(model: "openvino.Model") -> None:
    """Keep the biases of convolutions in float32, in place, where all else is rounded.

    The plugin rounds one that it adds within the convolution, which moves a feature more than anything else does. It
    adds them after it, as they are, where something stands between. That changes no finite value.
    """
    from openvino import opset8

    most = float(np.finfo(np.float32).max)
    for node in model.get_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            followers = node.output(0).get_target_inputs()
            between = opset8.clamp(node.output(0), -most, most)
            for follower in followers:
                follower.replace_source_output(between.output(0))


class OpenVinoRuntime:
    """A backbone converted for OpenVINO's CPU plugin; see `featx.engine.runtime.Runtime`.

    Each lane is a thread of the plugin's own: a network on one core loses nothing to waiting for the rest of a layer.

    Parameters
    ----------
    backbone : Backbone
        In float32; the plugin rounds to the spec's precision itself.
    batch_size : int
        The most images of a batch. Requests are of this size or smaller; the last one of a batch is padded.

    Raises
    ------
    UsageError
        If the network has operations that it cannot take.
    MissingDependencyError
        If OpenVINO cannot be imported.
    """

    name = "openvino"

    def __init__(self, backbone: "Backbone", *, batch_size: int) -> None:
        import torch

        # It would report its use over the network, from a forked process that may hang: featx talks to nobody unasked.
        # Where this import fails, OpenVINO goes on without.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what the import system provides
        try:
            import openvino
        except ImportError as error:
            raise MissingDependencyError(
                f"runtime: openvino cannot be imported ({first_line(error)}). "
                "Try: pip install --force-reinstall openvino"
            ) from error
        self.spec = backbone.spec
        self._size = min(batch_size, _MOST_IMAGES[backbone.spec.precision])
        self.most: int | None = self._size
        crop = backbone.preprocessing.crop
        example = torch.zeros((self._size, 3, crop, crop), dtype=torch.uint8)
        try:
            model = _converted(backbone, example)
            if backbone.spec.precision != "float32":
                _keep_biases(model)
            compiled = openvino.Core().compile_model(
                model,
                "CPU",
                {
                    "INFERENCE_PRECISION_HINT": _HINTS[backbone.spec.precision],
                    "NUM_STREAMS": str(n_cores()),
                    "INFERENCE_NUM_THREADS": str(n_cores()),
                    # Each network would tie its first thread to the first core, and several wait for the same one.
                    "ENABLE_CPU_PINNING": False,
                },
            )
            self.lanes = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        except Exception as error:  # both packages leak their own kinds
            raise UsageError(
                f"{self.spec.text}: OpenVINO cannot take this network ({first_line(error)}). Use --runtime torch."
            ) from error
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self.lanes):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Run one request; see `Runtime`."""
        request = self._requests.get()
        try:
            request.infer([padded_batch(pixels, self._size)], share_inputs=True)
            # A copy, for the request's own memory is written to again.
            return to_stored(request.get_output_tensor(0).data[: len(pixels)], self.spec.dtype)
        except RuntimeError as error:
            raise ExtractionError(
                f"{self.spec.text}: OpenVINO could not run {len(pixels)} images at once ({first_line(error)}). Use "
                "--runtime torch, or a smaller --batch-size."
            ) from error
        finally:
            self._requests.put(request)
