"""torchvision's classification zoo as a source of extractors, by its own weights enums."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from featx.errors import UsageError, WeightsError
from featx.extractors.backbone import Backbone, BackboneOptions, backbone_spec
from featx.extractors.download import download
from featx.extractors.layers import Layer, plan_layers, tap
from featx.extractors.preprocessing import Preprocessing
from featx.extractors.spec import ExtractorSpec, Precision, Request, path_of
from featx.extractors.weights import (
    digest_file,
    digest_tensors,
    load_tensors,
    parameters_on_meta,
    read_tensors,
    require_random,
    seeded,
)

__all__ = ["Plan", "TorchvisionSource"]

_log = logging.getLogger(__name__)

_CLASSIFIERS = ("fc", "classifier", "head", "heads")
_AUXILIARY = ("aux1", "aux2", "AuxLogits")
_CHANNELS_LAST = {
    "SwinTransformer": r"features\.(?!0\.0$)|norm$",
    "ConvNeXt": r".*(\.block\.[1-5]|\.permute|\.layer_norm)$",
    "MaxVit": r".*\.(window|grid)_attention\.(?!departition_op)",
}
"""The nodes of these networks that give maps as (n, h, w, c), or windows of them, instead of (n, c, h, w)."""


class TorchvisionSource:
    """Every classification architecture that torchvision lists, with the weights and transforms it publishes."""

    name = "torchvision"
    on_device = True

    def names(self) -> list[str]:
        """Return the architectures' names."""
        from torchvision import models

        names: list[str] = models.list_models(module=models)
        return names

    def describe(self, name: str) -> dict[str, Any]:
        """Return the ``weights`` that exist and those ``on_disk``."""
        members = _members(name)
        return {
            "weights": [member.name for member in members],
            "on_disk": [member.name for member in members if _download_path(member).exists()],
        }

    def count_features(self, name: str) -> int:
        """Return how many channels enter the classifier."""
        return _count_channels(name, _preprocessing(_members(name)[0]))

    def weights_path(self, request: Request) -> Path | None:
        """Return the file that the request's weights are, or would be, in; None for random weights."""
        weights = _choose_weights(request.name, BackboneOptions.from_request(request))
        return weights if isinstance(weights, Path) or weights is None else _download_path(weights)

    def fetch(self, request: Request, *, progress: Callable[[int, int], None] | None) -> None:
        """Download named weights that are not on this machine yet, once the rest of the request is known to be sound.

        Raises
        ------
        UsageError
            As `resolve` does.
        WeightsError
            If they cannot be fetched.
        """
        _resolve(request, progress)

    def resolve(self, request: Request, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity; downloads named weights that are not on this machine yet, builds no backbone.

        Raises
        ------
        UsageError
            For an unknown key, weights member, preset, layer, pool or size.
        WeightsError
            If weights cannot be read or fetched.
        """
        return _resolve(request).identify(self.name, precision)

    def load(self, request: Request, spec: ExtractorSpec) -> Backbone:
        """Build the backbone that `spec` identifies.

        Raises
        ------
        WeightsError
            If the weights do not fit the architecture, or are no longer the ones that were identified.
        """
        return _resolve(request).load(spec)


@dataclass(frozen=True)
class Plan:
    """One of torchvision's architectures as it will be run: with these weights, preprocessing and layers.

    Attributes
    ----------
    request : Request
    architecture : str
        torchvision's name.
    path : Path or None
        The weights; None for random ones.
    preprocessing : Preprocessing
    options : BackboneOptions
    layers : tuple of Layer
    """

    request: Request
    architecture: str
    path: Path | None
    preprocessing: Preprocessing
    options: BackboneOptions
    layers: tuple[Layer, ...]

    @classmethod
    def of(
        cls, request: Request, options: BackboneOptions, *, architecture: str, preprocessing: Preprocessing
    ) -> "Plan":
        """Plan the layers at the size asked for; the weights are named later, and may have to be fetched.

        Raises
        ------
        UsageError
            For a layer, pool or size that the architecture has not.
        """
        if options.size is not None:
            preprocessing = preprocessing.with_size(options.size)
        layers = _layers(request.text, architecture, options, preprocessing)
        return cls(request, architecture, None, preprocessing, options, layers)

    def identify(self, source: str, precision: Precision) -> ExtractorSpec:
        """Return the identity; builds nothing but random weights."""
        if self.path is None:
            _log.warning(
                "%s: weights=none, so the backbone is RANDOM (seed 0), not pretrained", self.request.name
            )
            weights = digest_tensors(_random(self.architecture, self.preprocessing).state_dict())
        else:
            weights = digest_file(self.path)
        return backbone_spec(
            self.request,
            source=source,
            weights=weights,
            layers=self.layers,
            preprocessing=self.preprocessing,
            pixels=self.options.pixels,
            precision=precision,
        )

    def load(self, spec: ExtractorSpec) -> Backbone:
        """Build the backbone that `identify` identified; see `TorchvisionSource.load`."""
        if self.path is None:
            module = _random(self.architecture, self.preprocessing)
            require_random(module, spec.weights, name=self.request.text)
        else:
            module = _build_on_meta(self.architecture, self.preprocessing)
            _fill(module, read_tensors(self.path, spec.weights), str(self.path), self.request.name)
        network = tap(module, self.layers)
        lacking = [name for name, tensor in network.named_parameters() if tensor.is_meta]
        if lacking:
            raise WeightsError(
                f"layer {', '.join(layer.name for layer in self.layers)} needs {lacking[0].removeprefix('body.')}, "
                f"which '{self.path}' lacks or has for another number of classes. Name an earlier layer."
            )
        return Backbone(network, spec, self.preprocessing)


def _count_channels(architecture: str, preprocessing: Preprocessing) -> int:
    """Return how many channels enter the classifier, which its first parameter tells without a forward pass."""
    module = _build_on_meta(architecture, preprocessing)
    first = next(module.get_submodule(_classifier(module)).parameters())
    return first.shape[:2][-1]  # (features,) of a norm; (outputs, features, ...) of a layer


def _resolve(request: Request, progress: Callable[[int, int], None] | None = None) -> Plan:
    options = BackboneOptions.from_request(request)
    weights = _choose_weights(request.name, options)
    if options.preset is not None:
        member = _member(request.name, options.preset, "preset")
    elif isinstance(weights, Path) or weights is None:
        member = _members(request.name)[0]
    else:
        member = weights
    plan = Plan.of(request, options, architecture=request.name, preprocessing=_preprocessing(member))
    path = weights if isinstance(weights, Path) or weights is None else _fetch(weights, progress)
    return replace(plan, path=path)


def _members(name: str) -> list[Any]:
    from torchvision.models import get_model_weights

    return list(get_model_weights(name))


def _member(name: str, member: str, key: str) -> Any:
    from torchvision.models import get_model_weights

    enum = get_model_weights(name)
    if member not in enum.__members__:
        path = ", a path ending in .pth, .pt or .safetensors, or none" if key == "weights" else ""
        raise UsageError(
            f"{name}: expected {key} to be one of {', '.join(enum.__members__)}{path}, got {member!r}."
        )
    return enum[member]


def _choose_weights(name: str, options: BackboneOptions) -> Any:
    """Return a member of the weights enum, a path, or None for random weights."""
    if options.weights is None:
        return _member(name, "DEFAULT", "weights")
    if options.weights == "none":
        return None
    return path_of(options.weights) or _member(name, options.weights, "weights")


def _preprocessing(member: Any) -> Preprocessing:
    transforms = member.transforms()
    return Preprocessing(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


@lru_cache(maxsize=64)  # asked for twice, to identify and to load, and half a second each time
def _layers(
    text: str, architecture: str, options: BackboneOptions, preprocessing: Preprocessing
) -> tuple[Layer, ...]:
    from torchvision.models import VisionTransformer

    module = _build_on_meta(architecture, preprocessing)
    transformer = isinstance(module, VisionTransformer)
    pattern = _CHANNELS_LAST.get(type(module).__name__)
    return plan_layers(
        module.to("meta"),
        name=text,
        layers=options.layers,
        pool=options.pool,
        crop=preprocessing.crop,
        classifier=_classifier(module),
        class_token=transformer,
        prefix_tokens=lambda node: int(transformer and node.split(".")[0] == "encoder"),
        channels_last=lambda node: pattern is not None and re.match(pattern, node) is not None,
    )


def _classifier(module: nn.Module) -> str:
    return next(name for name in _CLASSIFIERS if hasattr(module, name))


def _build_on_meta(name: str, preprocessing: Preprocessing) -> nn.Module:
    with parameters_on_meta():
        return _build(name, preprocessing)


def _random(name: str, preprocessing: Preprocessing) -> nn.Module:
    with seeded():
        return _build(name, preprocessing)


def _build(name: str, preprocessing: Preprocessing) -> nn.Module:
    from torchvision.models import get_model_builder

    arguments: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # As their builders do for published weights: these expect inputs on another scale, and the auxiliary
        # classifiers only matter in training.
        arguments = {"transform_input": True, "aux_logits": False, "init_weights": False}
    elif name.startswith("vit_"):
        arguments = {"image_size": preprocessing.crop}
    try:
        module: nn.Module = get_model_builder(name)(weights=None, **arguments)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UsageError(
            f"{name}: does not take images of {preprocessing.crop} pixels ({error}). Choose another size."
        ) from error
    return module.eval()


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str, name: str) -> None:
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    filled = dict(tensors)
    if isinstance(module, VisionTransformer) and "encoder.pos_embedding" in filled:
        # Position embeddings follow the input size; torchvision's own interpolation adapts them.
        filled = interpolate_embeddings(module.image_size, module.patch_size, filled)
    prefixes = "|".join((*_CLASSIFIERS, *_AUXILIARY))
    load_tensors(module, filled, source=f"weights file '{source}' for {name}", ignored=rf"({prefixes})(\.|$)")


def _download_path(member: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(member.url).path).name


def _fetch(member: Any, progress: Callable[[int, int], None] | None) -> Path:
    path = _download_path(member)
    if path.exists():
        return path
    _log.warning("downloading %s to %s", member.url, path)
    promised = re.search(
        r"-([0-9a-f]{8,})\.", path.name
    )  # torchvision names files by the beginning of their digest
    try:
        download(member.url, path, sha256=promised[1] if promised else "", progress=progress)
    except WeightsError as error:
        raise WeightsError(
            f"weights {member} are not on this machine and could not be downloaded from {member.url} ({error}). "
            f"Put the file at '{path}', name one with weights=PATH, or use nano, which needs none."
        ) from None  # sixty lines of sockets say no more
    return path
