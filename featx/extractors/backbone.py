"""Backbone: a frozen network with its weights' own preprocessing; it runs on one batch and knows no files or caches."""

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featx.errors import UsageError
from featx.extractors.layers import Layer, Tapped
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.spec import ExtractorSpec, Precision, Request
from featx.samples import DECODE_POLICY, Pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Backbone", "BackboneOptions", "backbone_spec"]


class Backbone(nn.Module):
    """A frozen network in eval mode, from uint8 pixels to float features; in float32 until `cast`.

    Parameters
    ----------
    network : Tapped
        The network, cut at its layers.
    spec : ExtractorSpec
        Its identity.
    preprocessing : Preprocessing
        What its weights expect.

    Attributes
    ----------
    spec : ExtractorSpec
    preprocessing : Preprocessing
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Tapped, spec: ExtractorSpec, preprocessing: Preprocessing) -> None:
        super().__init__()
        self._dtype = torch.float32
        self.network = network
        self.spec = spec
        self.preprocessing = preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in eval mode: batch statistics and dropout have no place in a frozen backbone."""
        return super().train(False)

    def cast(self) -> "Backbone":
        """Put the network in the precision of its spec, in place; for runtimes that leave that to torch."""
        self._dtype = getattr(torch, self.spec.precision)
        for module in self.network.modules():
            # Batch norm takes half-precision input with float32 statistics. Rounding these would move whole channels,
            # the same way in every image: with MobileNetV2 in bfloat16 it triples the distance to float32.
            if not isinstance(module, _BatchNorm):
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if tensor.is_floating_point():
                        tensor.data = tensor.data.to(self._dtype)
        return self

    def prepare(self, image: "Image.Image | Tensor") -> np.ndarray:
        """Return the network's input for one decoded picture: uint8 of shape (3, crop, crop)."""
        return self.preprocessing.apply(image)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features of shape (n, n_features) for uint8 pixels of shape (n, 3, crop, crop).

        The scale to mean and standard deviation is taken in float32 whatever the network's precision.
        """
        images = (pixels.float().div(255) - self.mean) / self.std
        features: Tensor = self.network(images.to(self._dtype))
        return features


@dataclass(frozen=True)
class BackboneOptions:
    """The keys that every source of backbones understands, read and checked.

    Attributes
    ----------
    weights, preset, pool : str or None
        As given; None for the default.
    layers : tuple of str
        Empty for the default.
    size : int or None
        Side of the crop in pixels.
    pixels : {"exact", "fast", "nvjpeg"} or None
        None for ``exact`` in float32 and ``fast`` in half precision.
    """

    weights: str | None = None
    preset: str | None = None
    layers: tuple[str, ...] = ()
    pool: str | None = None
    size: int | None = None
    pixels: Pixels | None = None

    @classmethod
    def from_request(cls, request: Request) -> "BackboneOptions":
        """Read a request's keys.

        Raises
        ------
        UsageError
            For an unknown key, a size that is no positive whole number, or pixels that are none of the choices.
        """
        options = request.options
        known = ("weights", "preset", "layer", "pool", "size", "pixels")
        unknown = [key for key in options if key not in known]
        if unknown:
            close = difflib.get_close_matches(unknown[0], known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Remove it or correct its name."
            raise UsageError(f"{request.name}: expected keys {', '.join(known)}, got {unknown[0]!r}. {hint}")
        size = options.get("size")
        if size is not None and not (size.isascii() and size.isdigit() and 0 < int(size) <= 4096):
            raise UsageError(f"{request.name}: expected size in pixels from 1 to 4096, got {size!r}.")
        pixels = options.get("pixels")
        if pixels is not None and pixels not in get_args(Pixels):
            raise UsageError(
                f"{request.name}: expected pixels to be one of {', '.join(get_args(Pixels))}, got {pixels!r}."
            )
        return cls(
            weights=options.get("weights"),
            preset=options.get("preset"),
            layers=tuple(layer for layer in options.get("layer", "").split(",") if layer),
            pool=options.get("pool"),
            size=int(size) if size is not None else None,
            pixels=cast(Pixels | None, pixels),
        )


def backbone_spec(
    request: Request,
    *,
    source: str,
    weights: str,
    layers: tuple[Layer, ...],
    preprocessing: Preprocessing,
    pixels: Pixels | None,
    precision: Precision,
) -> ExtractorSpec:
    """Put together the identity of a backbone; the pixels default to ``exact`` in float32, else to ``fast``."""
    return ExtractorSpec(
        source=source,
        name=request.name,
        kind="image",
        weights=weights,
        layer=tuple(layer.name for layer in layers),
        pool=",".join(layer.pool for layer in layers),
        preprocessing=preprocessing.fields,
        decode=dict(DECODE_POLICY),
        pixels=pixels or ("exact" if precision == "float32" else "fast"),
        precision=precision,
        n_features=sum(layer.n_features for layer in layers),
        text=request.text,
    )
