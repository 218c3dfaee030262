"""A network of the user's own as an extractor, identified by a name and the digest of its tensors."""

import copy
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from featx.errors import UsageError
from featx.extractors.backbone import Backbone, BackboneOptions, backbone_spec
from featx.extractors.layers import Layer, plan_layers, tap
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.spec import ExtractorSpec, Precision, Request
from featx.extractors.state import state_of
from featx.extractors.weights import checksum_tensors, digest_tensors

__all__ = ["ModuleExtractor"]

_T = TypeVar("_T")


class ModuleExtractor:
    """An ``nn.Module`` of the user's, ready to be given wherever an extractor's name is taken.

    Parameters
    ----------
    module : nn.Module
        Takes float images of shape (n, 3, crop, crop) and returns maps, tokens or vectors.
    name : str
        Stands for the module's code in the identity: give code that computes something else another name. Letters,
        digits, ``.``, ``_`` and ``-``.
    preprocessing : Preprocessing
        What the module's weights expect.
    layer : str or sequence of str, optional
        Where to cut; by default the module's own output.
    pool : {"avg", "max", "cls", "gem", "flatten"}, optional
        Default ``avg`` for maps and tokens.
    pixels : {"exact", "fast", "nvjpeg"}, optional
        Default ``exact`` in float32, else ``fast``.

    Raises
    ------
    UsageError
        If the name or an option is not one featx can use, or something in the module has no stable identity.

    Notes
    -----
    The digest of the tensors is taken when the object is made: of parameters and buffers, of what else is in the state
    dict (packed weights, extra state), and of tensors and arrays that the module keeps without registering them. Plain
    numbers and functions are code, which the name stands for. A network that is changed later is refused wherever its
    vectors are asked for, also those in a cache: make a new object from it. What never changes needs no copies, so
    ``copy.deepcopy`` and scikit-learn's ``clone`` return the object itself. A pickle, such as each task of a search
    over processes (``n_jobs=2``) gets, holds the whole network with its weights.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        preprocessing: Preprocessing,
        layer: str | Sequence[str] = (),
        pool: str | None = None,
        pixels: str | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise UsageError(f"expected an nn.Module, got {type(module).__name__}. Pass the network itself.")
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise UsageError(
                f"a module needs a name of letters, digits, '.', '_' and '-' as its identity, got {name!r}. "
                "Pass name='my-net-v1'."
            )
        for path, part in module.named_modules():
            if isinstance(part, _BatchNorm) and part.running_mean is None:
                raise UsageError(
                    f"module '{name}': {path or 'it'} keeps no running statistics, so a vector would depend on "
                    "the rest of its batch. Train with track_running_stats=True, or use another normalisation."
                )
        layers = (layer,) if isinstance(layer, str) else tuple(layer)
        keys = {"layer": ",".join(layers), "pool": pool, "pixels": pixels}
        self.request = Request("module", name, tuple((key, value) for key, value in keys.items() if value))
        self.options = BackboneOptions.from_request(self.request)
        self.module = module
        self.preprocessing = preprocessing
        self.weights = self._of_tensors(digest_tensors)
        self._checksum = self._of_tensors(checksum_tensors)

    def with_pixels(self, pixels: str) -> "ModuleExtractor":
        """Return the same module, not a copy of it, with these pixels."""
        other = copy.copy(self)
        other.request = self.request.with_pixels(pixels)
        other.options = BackboneOptions.from_request(other.request)
        return other

    def resolve(self, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity.

        Raises
        ------
        UsageError
            If the module's tensors have changed since this object was made, or a layer, pool or size does not suit it.
        """
        self._require_unchanged()
        return backbone_spec(
            self.request,
            source="module",
            weights=self.weights,
            layers=self._layers,
            preprocessing=self.preprocessing,
            pixels=self.options.pixels,
            precision=precision,
        )

    def load(self, spec: ExtractorSpec) -> Backbone:
        """Build a backbone from a copy of the module, which itself stays as it is.

        Raises
        ------
        UsageError
            If the module's tensors have changed since this object was made.
        """
        network = tap(self._frozen(), self._layers)
        self._require_unchanged()  # after copying: else a change in between would go unnoticed
        return Backbone(network, spec, self.preprocessing)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ModuleExtractor":
        return self

    def _require_unchanged(self) -> None:
        if self._of_tensors(checksum_tensors) != self._checksum:
            raise UsageError(
                f"the tensors of module '{self.request.name}' changed after it was given to featx. "
                "Make a new ModuleExtractor from it."
            )

    def _of_tensors(self, take: Callable[[Mapping[str, Tensor]], _T]) -> _T:
        try:
            return take(state_of(self.module, self.request.name))
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"module '{self.request.name}': its tensors cannot be read ({_reason(error)}). Keep them dense, on the "
                "CPU or a GPU."
            ) from error

    def _frozen(self) -> nn.Module:
        try:
            return copy.deepcopy(self.module).cpu().float().eval()
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"module '{self.request.name}' cannot be copied ({_reason(error)}). Take off what forward passes "
                "leave in it: torch.nn.utils.remove_weight_norm, prune.remove, tensors kept with their gradients."
            ) from error

    @functools.cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return plan_layers(
            self._frozen(),
            name=self.request.name,
            layers=self.options.layers,
            pool=self.options.pool,
            crop=self.preprocessing.crop,
        )


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
