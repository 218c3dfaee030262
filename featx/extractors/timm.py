"""timm's pretrained models as a source of extractors; needs the extra ``timm``."""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config

from featx.errors import UsageError, WeightsError
from featx.extractors.backbone import Backbone, BackboneOptions, backbone_spec
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

__all__ = ["TimmSource"]

_log = logging.getLogger(__name__)


class TimmSource:
    """Every model that timm has pretrained weights for, written ``timm/NAME[.TAG]``."""

    name = "timm"
    on_device = True

    def names(self) -> list[str]:
        """Return architectures, and architectures with the tags of their weights."""
        tagged = timm.list_models(pretrained=True)
        return sorted({*tagged, *(name.split(".")[0] for name in tagged)})

    def describe(self, name: str) -> dict[str, Any]:
        """Return the ``weights`` there are and those ``on_disk``."""
        architecture = name.split(".")[0]
        tags = timm.list_pretrained(architecture)
        return {
            "weights": [tag.partition(".")[2] for tag in tags],
            "on_disk": [tag.partition(".")[2] for tag in tags if _hub_file(tag, download=False) is not None],
        }

    def count_features(self, name: str) -> int:
        """Return how many features enter the classifier."""
        request, options, module = Request(self.name, name), BackboneOptions(), _build_on_meta(name)
        return sum(layer.n_features for layer in _layers(module, request, options, _crop(module, options)))

    def weights_path(self, request: Request) -> Path | None:
        """Return the file the weights are in; None where they are random or not on this machine yet."""
        options = BackboneOptions.from_request(request)
        if options.weights is None:
            return _hub_file(request.name, download=False)
        return path_of(options.weights)

    def resolve(self, request: Request, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity, under the name with the tag; downloads weights that are not on this machine yet."""
        options = _options(request)
        plan = _plan(request, options)
        if options.weights == "none":
            _log.warning("%s: weights=none, so the backbone is RANDOM (seed 0), not pretrained", request.name)
            weights = digest_tensors(_build(request.name).state_dict())
        else:
            weights = digest_file(_path(request, options))
        spec = backbone_spec(
            request,
            source=self.name,
            weights=weights,
            layers=plan.layers,
            preprocessing=plan.preprocessing,
            pixels=options.pixels,
            precision=precision,
        )
        return replace(spec, name=_tagged(request.name))

    def load(self, request: Request, spec: ExtractorSpec) -> Backbone:
        """Build the backbone that `spec` identifies."""
        options = _options(request)
        plan = _plan(request, options)
        module = _build(request.name)
        if options.weights == "none":
            require_random(module, spec.weights, name=request.text)
        else:
            path = _path(request, options)
            classifier = module.pretrained_cfg["classifier"] or "fc"
            names = (classifier,) if isinstance(classifier, str) else classifier
            load_tensors(
                module,
                read_tensors(path, spec.weights),
                source=f"weights file '{path}' for {request.name}",
                ignored=rf"({'|'.join(map(re.escape, names))})(\.|$)",
            )
        return Backbone(tap(_sized(module, request, options), plan.layers), spec, plan.preprocessing)


@dataclass(frozen=True)
class _Plan:
    preprocessing: Preprocessing
    layers: tuple[Layer, ...]


def _options(request: Request) -> BackboneOptions:
    options = BackboneOptions.from_request(request)
    if options.preset is not None:
        raise UsageError(f"timm/{request.name}: key 'preset' is torchvision's. Name the tag: timm/NAME.TAG")
    return options


def _tagged(name: str) -> str:
    """Return the name with the tag that timm takes where none is given: one network, one name."""
    config = timm.get_pretrained_cfg(name)
    return f"{config.architecture}.{config.tag}" if config is not None and config.tag else name


def _build(name: str) -> Any:  # an nn.Module with timm's further attributes
    with seeded():
        return timm.create_model(name, pretrained=False, num_classes=0).eval()


def _sized(module: Any, request: Request, options: BackboneOptions) -> Any:
    # Transformers adapt their position embeddings, after loading; other networks take any size as they are.
    if options.size is not None and hasattr(module, "set_input_size"):
        try:
            module.set_input_size(img_size=options.size)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"{request.text}: does not take images of {options.size} pixels ({error}). Choose another size."
            ) from error
    return module


def _crop(module: Any, options: BackboneOptions) -> int:
    return int(options.size or resolve_model_data_config(module)["input_size"][-1])


def _preprocessing(module: Any, options: BackboneOptions) -> Preprocessing:
    config = resolve_model_data_config(module)
    crop = _crop(module, options)
    if config["crop_mode"] not in ("center", "squash"):
        raise UsageError(
            f"crop mode '{config['crop_mode']}' of these weights is not supported. Choose another tag."
        )
    return Preprocessing(
        resize=int(crop / config["crop_pct"]),
        crop=crop,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        squash=config["crop_mode"] == "squash",
    )


def _plan(request: Request, options: BackboneOptions) -> _Plan:
    module = _build_on_meta(request.name)
    preprocessing = _preprocessing(module, options)
    return _Plan(preprocessing, _layers(module, request, options, preprocessing.crop))


def _build_on_meta(name: str) -> Any:
    try:
        with parameters_on_meta():
            module = _build(name)
    except RuntimeError:  # some constructors compute with their parameters
        module = _build(name)
    return module.to("meta")


def _layers(module: Any, request: Request, options: BackboneOptions, crop: int) -> tuple[Layer, ...]:
    channels_last = getattr(module, "output_fmt", "NCHW") == "NHWC"
    return plan_layers(
        _sized(module, request, options),
        name=request.text,
        layers=options.layers,
        pool=options.pool,
        crop=crop,
        class_token=getattr(module, "cls_token", None) is not None,
        prefix_tokens=lambda node: (
            0 if node.startswith("patch_embed.") else getattr(module, "num_prefix_tokens", 0)
        ),
        channels_last=lambda node: channels_last and node != "patch_embed.proj",
    )


def _path(request: Request, options: BackboneOptions) -> Path:
    if options.weights is None:
        path = _hub_file(request.name, download=True)
        assert path is not None
        return path
    path = path_of(options.weights)
    if path is None:
        raise UsageError(
            f"timm/{request.name}: expected weights to be a path ending in .pth, .pt or .safetensors, or none, got "
            f"{options.weights!r}. Name the tag of published weights as timm/NAME.TAG."
        )
    return path


def _hub_file(name: str, *, download: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        if not download:
            return None
        raise WeightsError(f"timm/{name}: timm names no file on its hub for these weights. Use weights=PATH.")
    if not download:
        found = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
        return Path(found) if isinstance(found, str) else None
    try:
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))
    except Exception as error:  # the hub's client leaks several families of errors
        raise WeightsError(
            f"weights of timm/{name} are not on this machine and could not be downloaded "
            f"({type(error).__name__}: {next(iter(str(error).splitlines()), '')}). Name a file with weights=PATH."
        ) from None
