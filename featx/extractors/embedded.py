"""`nano`, the backbone that comes with featx: its weights are in the package, so that it needs no network."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from featx.errors import UsageError
from featx.extractors.backbone import Backbone, BackboneOptions
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.spec import ExtractorSpec, Precision, Request
from featx.extractors.torchvision import Plan

__all__ = ["EmbeddedSource"]

_MEMBER = "EMBEDDED"
_ARCHITECTURE = "mobilenet_v3_small"
_PREPROCESSING = Preprocessing(resize=219, crop=192)
_LAYERS = ("features.8", "features.12")
"""The last maps at strides 16 and 32; better together than the last alone."""
_WEIGHTS = Path(__file__).with_name("nano.safetensors")
_CARD = """\
torchvision's mobilenet_v3_small at 192 pixels, in the package: 0.93 million weights, 1.9 MB. Made by featx from random
weights and 1,000 photos without labels, to give the feature maps that MobileNetV2 gives of their crops (training/).

accuracy of logistic regression (C=0.01)  hymenoptera  flowers
mobilenet_v2, its teacher                 0.948        0.837
squeezenet1_1                             0.908        0.790
nano                                      0.817        0.740
HOG + LBP + HSV histogram                 0.660        0.447

A bigger backbone is better: use nano where no weights can be had, for a first look, and for tests."""


class EmbeddedSource:
    """One of torchvision's architectures with weights of featx's own making, by the recipe in `training/`."""

    name = "featx"
    on_device = True

    def names(self) -> list[str]:
        """Return the one name."""
        return ["nano"]

    def describe(self, name: str) -> dict[str, Any]:
        """Return its ``weights``, which are always ``on_disk``, and its ``card``: what it is, and how good."""
        return {"weights": [_MEMBER], "on_disk": [_MEMBER], "card": _CARD}

    def count_features(self, name: str) -> int:
        """Return how many channels its layers have together."""
        return sum(layer.n_features for layer in _plan(Request(None, name, ())).layers)

    def weights_path(self, request: Request) -> Path:
        """Return the file in the package."""
        return _WEIGHTS

    def resolve(self, request: Request, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity.

        Raises
        ------
        UsageError
            For other weights or another preset, and for an unknown key, layer, pool or size.
        """
        return _plan(request).identify(self.name, precision)

    def load(self, request: Request, spec: ExtractorSpec) -> Backbone:
        """Build the backbone that `spec` identifies; see `featx.extractors.torchvision.Plan.load`."""
        return _plan(request).load(spec)


def _plan(request: Request) -> Plan:
    options = BackboneOptions.from_request(request)
    for key in ("weights", "preset"):
        if request.options.get(key, _MEMBER) != _MEMBER:
            raise UsageError(
                f"{request.name}: expected no {key}, or {key}={_MEMBER}, got {key}={request.options[key]}. For others "
                f"name the architecture: {_ARCHITECTURE}:{key}=..."
            )
    options = replace(options, layers=options.layers or _LAYERS)
    plan = Plan.of(request, options, architecture=_ARCHITECTURE, preprocessing=_PREPROCESSING)
    return replace(plan, path=_WEIGHTS)
