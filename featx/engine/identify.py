"""From what a user asks for to a full identity, remembered so that a run with nothing to do needs no torch."""

import functools
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.cache import Hints, fingerprint_of
from featx.engine.hardware import choose_device, choose_precision, machine_facts
from featx.engine.progress import Progress
from featx.errors import UsageError
from featx.extractors import registry
from featx.extractors.spec import ExtractorSpec, Precision, Request, parse, path_of

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone
    from featx.extractors.descriptor_source import DescriptorExtractor
    from featx.extractors.module import ModuleExtractor

__all__ = ["identify", "load", "package_versions", "read_extractors", "rules"]

_RACY_SECONDS = 2.0
_EXPECTED = "a text such as 'resnet50' or 'resnet50+hog', a list of these, or a ModuleExtractor"

_GONE = [-1]
"""What stands for the stat of a file that is not there: like no file remembered."""

_PACKAGES = ("featx", "torch", "torchvision", "timm", "openvino", "scikit-image", "Pillow")


def read_extractors(extractors: Any, **keys: Any) -> "tuple[Request | ModuleExtractor, ...]":
    """Read everything an extractor may be given as: a text, a request, a module, or a list of these (a fusion).

    Parameters
    ----------
    extractors : str, Request, ModuleExtractor, or sequence of these
        What to fuse; a text may itself be a fusion.
    **keys : object, optional
        Keys of the text form as keywords (``layer="layer4"``); None stands for a key that is not given.

    Returns
    -------
    tuple of Request or ModuleExtractor
        Paths of weights are absolute.

    Raises
    ------
    UsageError
        If nothing, or something else, is given, one is given twice, or keywords meet a fusion.
    """
    given = {key: _as_text(value) for key, value in keys.items() if value is not None}
    parts: list[Any] = []
    for item in extractors if isinstance(extractors, list | tuple) else [extractors]:
        if isinstance(item, str):
            parts.extend(parse(item))
        elif isinstance(item, Request) or (hasattr(item, "resolve") and hasattr(item, "load")):
            parts.append(item)
        else:
            raise UsageError(f"extractor: expected {_EXPECTED}, got {type(item).__name__}.")
    if not parts:
        raise UsageError(f"extractor: expected {_EXPECTED}, got nothing.")
    if given:
        if len(parts) != 1 or not isinstance(parts[0], Request):
            raise UsageError(
                f"keywords {', '.join(given)} go with one extractor's name, got {len(parts)} extractors or a module. "
                "Write them into the text: 'resnet50:layer=layer4+hog'."
            )
        options = {**parts[0].options, **given}
        parts[0] = replace(parts[0], keys=tuple(sorted(options.items())))
    read = tuple(_absolute(part) if isinstance(part, Request) else part for part in parts)
    texts = [part.text if isinstance(part, Request) else part.request.text for part in read]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise UsageError(
            f"extractor {twice!r} is named twice, and its columns would have the same names. Name it once; two modules "
            "need two names."
        )
    return read


def identify(
    asked: "Request | ModuleExtractor",
    *,
    device: str,
    precision: str,
    hints: Hints,
    progress: Callable[[Progress], None] | None = None,
) -> ExtractorSpec:
    """Return the full identity of one extractor.

    Parameters
    ----------
    asked : Request or ModuleExtractor
        From `read_extractors`.
    device, precision : str
        As the user gave them, ``auto`` included.
    hints : Hints
        Where identities of unchanged weights under unchanged packages are remembered.
    progress : callable, optional
        Called with a `Progress` while weights are downloaded.

    Returns
    -------
    ExtractorSpec
    """
    if not isinstance(asked, Request):
        return asked.resolve(precision=choose_precision(precision, device=choose_device(device)))
    question = json.dumps(
        {
            "text": asked.text,
            "device": device,
            "precision": precision,
            "machine": machine_facts(),
            "packages": package_versions(),
            "rules": rules(),
        },
        sort_keys=True,
    )
    remembered = _remembered(hints.identity(question))
    if remembered is not None:
        return remembered
    source = registry.find_source(asked)
    found = source.weights_path(asked)
    path = None if found is None else str(found)
    before, looked_at = _stat(path), time.time()
    chosen: Precision = "float32"
    if getattr(source, "on_device", True):
        chosen = choose_precision(precision, device=choose_device(device))
    if path is not None and before == _GONE and hasattr(source, "fetch"):
        source.fetch(asked, progress=_in_mebibytes(progress))
    resolved = source.resolve(asked, precision=chosen)
    # A file that was replaced while it was digested, or so young that it may be, is digested again next time.
    settled = before is None or (len(before) > 1 and looked_at - max(before[2:]) / 1e9 >= _RACY_SECONDS)
    # Nor is what came with a download, for which there was no path to ask about before.
    if settled and _stat(path) == before and source.weights_path(asked) == found:
        hints.remember_identity(
            question,
            {"spec": json.dumps(resolved.to_json()), "weights_path": path, "weights_stat": before},
        )
    return resolved


def load(asked: "Request | ModuleExtractor", spec: ExtractorSpec) -> "Backbone | DescriptorExtractor":
    """Build the extractor behind an identity."""
    return registry.load(asked, spec) if isinstance(asked, Request) else asked.load(spec)


def _in_mebibytes(progress: Callable[[Progress], None] | None) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(Progress(done >> 20, total >> 20, 0, work="downloading"))


def _remembered(hint: dict[str, Any] | None) -> ExtractorSpec | None:
    """Return the identity that a hint holds, unless its weights have changed since, or it is no such hint."""
    try:
        if hint is None or _stat(hint["weights_path"]) != hint["weights_stat"]:
            return None
        spec = _spec(hint["spec"])
        return spec if fingerprint_of(spec.identity) == spec.fingerprint else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None  # whoever may write to the cache may have written anything


@functools.lru_cache(maxsize=256)
def _spec(text: str) -> ExtractorSpec:
    # Folds and clones ask for the same few again and again, and a fingerprint takes a while.
    return ExtractorSpec.from_json(json.loads(text))


def _as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list | tuple) else str(value)


def _absolute(request: Request) -> Request:
    path = path_of(request.options.get("weights", ""))
    if path is None:
        return request
    options = {**request.options, "weights": str(path)}
    return replace(request, keys=tuple(sorted(options.items())))


def _stat(path: str | None) -> list[int] | None:
    try:
        stat = Path(path).stat() if path is not None else None
    except (OSError, ValueError):  # which is what a name with a NUL in it gives
        return _GONE
    return None if stat is None else [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


@functools.cache
def rules() -> str:
    """Return what tells this featx's own rules from another's, also where its version stays the same."""
    rooms = [Path(__file__).parents[1] / room for room in ("extractors", "samples")]
    files = sorted(path for room in rooms for path in room.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


@functools.cache
def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that compute features; None for what is not installed."""
    sources = importlib.metadata.entry_points(group=registry.GROUP)
    versions: dict[str, str | None] = {}
    for package in (*_PACKAGES, *(source.dist.name for source in sources if source.dist is not None)):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions
