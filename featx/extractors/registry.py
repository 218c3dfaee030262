"""From the name a user writes to the source that knows it; sources are found by entry point, not by importing them."""

import difflib
import importlib.metadata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from featx.errors import FeatxError, MissingDependencyError, UsageError
from featx.extractors.spec import ExtractorSpec, Precision, Request

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone
    from featx.extractors.descriptor_source import DescriptorExtractor

__all__ = ["DEFAULT_SOURCES", "Source", "find_source", "load", "load_source", "source_names"]

GROUP = "featx.extractors"
DEFAULT_SOURCES = ("descriptor", "featx", "torchvision")
"""Where a name without a source is looked up, in this order; the first answers without importing torch."""
_SUGGESTED = 3


class Source(Protocol):
    """What an entry point in the group ``featx.extractors`` names: a class, called without arguments.

    Attributes
    ----------
    name : str
        What stands before the slash of the text form.
    on_device : bool
        Whether its extractors run on the device in the precision asked for, which is so where it is left out; else they
        run on the CPU in float32.
    """

    name: str
    on_device: bool

    def names(self) -> list[str]:
        """Return the names it can resolve."""

    def describe(self, name: str) -> dict[str, Any]:
        """Return ``weights``, ``on_disk`` and ``card`` of one name, for listings; what it does not know it leaves out.

        The card says what the backbone is, in some lines of text.
        """

    def count_features(self, name: str) -> int:
        """Return the length of a vector of one name, its keys left out; for listings, which remember it."""

    def weights_path(self, request: Request) -> Path | None:
        """Return the file the weights are in, or None; its stat tells when an identity must be found anew."""

    def fetch(self, request: Request, *, progress: Callable[[int, int], None] | None) -> None:
        """Bring to this machine what `weights_path` names and is not there; a source that is given all may lack this.

        `progress` is called with the bytes that have come, and those there will be (0 where unknown).
        """

    def resolve(self, request: Request, *, precision: Precision) -> ExtractorSpec:
        """Find the full identity of what the request names."""

    def load(self, request: Request, spec: ExtractorSpec) -> "Backbone | DescriptorExtractor":
        """Build what `resolve` identified, ready to run."""


def source_names() -> list[str]:
    """Return the names of all installed sources, without importing any.

    Raises
    ------
    FeatxError
        If two packages offer a source under one name.
    """
    return sorted(_entry_points())


def find_source(request: Request) -> Source:
    """Return the source of a request; without one, those of `DEFAULT_SOURCES` are asked in turn.

    Raises
    ------
    UsageError
        If no source has this name; the message offers close ones.
    MissingDependencyError
        If the source needs a package that is not installed.
    """
    if request.source is not None:
        source = load_source(request.source)
        known = source.names()
        if request.name not in known:
            raise _unknown(request, known)
        return source
    searched: list[str] = []
    for name in DEFAULT_SOURCES:
        source = load_source(name)
        known = source.names()
        if request.name in known:
            return source
        searched += known
    raise _unknown(request, searched)


def load(request: Request, spec: ExtractorSpec) -> "Backbone | DescriptorExtractor":
    """Build the extractor that `Source.resolve` identified; see `Source.load`."""
    return find_source(request).load(request, spec)


@cache
def load_source(name: str) -> Source:
    """Return the source of that name; it is imported at the first call.

    Raises
    ------
    UsageError
        If no installed package offers one; the message says what there is.
    MissingDependencyError
        If it needs a package that is not installed.
    """
    points = _entry_points()
    if name not in points:
        close = difflib.get_close_matches(name, points, n=3)
        hint = f"Did you mean {', '.join(close)}?" if close else "Install the package that offers it."
        raise UsageError(
            f"no source of extractors is called '{name}'; there are {', '.join(sorted(points))}. {hint}"
        )
    try:
        factory = cast(Callable[[], Source], points[name].load())
        return factory()
    except ImportError as error:
        point = points[name]
        package = point.dist.name if point.dist is not None else point.module
        wanted = f"'{package}[{','.join(point.extras)}]'" if point.extras else f"'{package}'"
        if package == "featx":  # is on no index; its extras are called as the packages they bring
            wanted = " ".join(point.extras)
        raise MissingDependencyError(
            f"source '{name}' of {package} cannot be imported ({error}). Try: pip install {wanted}"
        ) from error


@cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise FeatxError(
                f"two installed packages offer extractors as '{point.name}': {found[point.name].value} and "
                f"{point.value}. Uninstall one of them."
            )
        found[point.name] = point
    return found


def _unknown(request: Request, known: Sequence[str]) -> UsageError:
    prefix = f"{request.source}/" if request.source else ""
    close = [name for name in known if name.startswith(request.name.lower())]
    close = close[:_SUGGESTED] or difflib.get_close_matches(request.name, known, n=_SUGGESTED, cutoff=0.65)
    if close:
        hint = f"Did you mean {' or '.join(prefix + name for name in close)}?"
    elif request.source is None:
        hint = (
            "See: featx list backbones, featx list descriptors; "
            f"timm's models are written timm/{request.name} and need: pip install timm"
        )
    else:
        hint = "See: featx list descriptors"
        if request.source != "descriptor":
            hint = f"See: featx list backbones --source {request.source}"
    return UsageError(f"no extractor is called '{prefix}{request.name}'. {hint}")
