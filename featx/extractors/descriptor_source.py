"""The hand-made descriptors as a source of extractors; the descriptors themselves are in `descriptor.py`."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featx.errors import UsageError
from featx.extractors.descriptor import DESCRIPTORS, compute, n_features, resolve
from featx.extractors.spec import ExtractorSpec, Precision, Request
from featx.samples import DECODE_POLICY

__all__ = ["DescriptorExtractor", "DescriptorSource"]


class DescriptorExtractor:
    """One descriptor with its parameters, ready to run on decoded pictures.

    Parameters
    ----------
    spec : ExtractorSpec
        Its identity, which holds the parameters.
    """

    def __init__(self, spec: ExtractorSpec) -> None:
        self.spec = spec
        self._parameters = {name: value for name, value in spec.parameters.items() if name != "version"}

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Return the vector of one decoded picture: float32 of shape (n_features,)."""
        return compute(self.spec.name, image, **self._parameters)


class DescriptorSource:
    """Every descriptor of `featx.extractors.descriptor`; its parameters are keys of the text form."""

    name = "descriptor"
    on_device = False

    def names(self) -> list[str]:
        """Return the descriptors' names."""
        return list(DESCRIPTORS)

    def describe(self, name: str) -> dict[str, Any]:
        """Return ``summary`` and the ``parameters`` with their defaults."""
        return {
            "summary": DESCRIPTORS[name].summary,
            "parameters": dict(DESCRIPTORS[name].parameters),
        }

    def count_features(self, name: str) -> int:
        """Return the length of the descriptor with its default parameters."""
        return n_features(name)

    def weights_path(self, request: Request) -> Path | None:
        """Return None: a descriptor has no weights."""
        return None

    def resolve(self, request: Request, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity; a descriptor is computed in float32 from exact pixels, whatever is asked.

        Raises
        ------
        UsageError
            For an unknown parameter, or a value that does not fit.
        """
        given = {key: _number(request.name, key, value) for key, value in request.options.items()}
        parameters = resolve(request.name, **given)
        return ExtractorSpec(
            source=self.name,
            name=request.name,
            kind="image",
            weights="",
            layer=(),
            pool="none",
            preprocessing={},
            decode=dict(DECODE_POLICY),
            pixels="exact",
            precision="float32",
            parameters={**parameters, "version": DESCRIPTORS[request.name].version},
            n_features=n_features(request.name, **parameters),
            text=request.text,
        )

    def load(self, request: Request, spec: ExtractorSpec) -> DescriptorExtractor:
        """Return what computes the descriptor that `spec` identifies."""
        return DescriptorExtractor(spec)


def _number(name: str, key: str, value: str) -> int | float:
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    raise UsageError(f"descriptor '{name}': expected a number for '{key}', got {value!r}.")
