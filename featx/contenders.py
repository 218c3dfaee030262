"""What is compared: extractors and their fusions, and which columns of one extraction are whose."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.engine import read_extractors
from featx.errors import UsageError

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor
    from featx.extractors.spec import ExtractorSpec, Request
    from featx.features import Features

__all__ = ["Contender", "check_distinct", "read_contenders", "specs_of"]


@dataclass(frozen=True)
class Contender:
    """An extractor, or a fusion of several, that is compared with others.

    Attributes
    ----------
    name : str
        As the user wrote it.
    parts : tuple of int
        Its extractors, by their position among those of all contenders.
    """

    name: str
    parts: tuple[int, ...]


def read_contenders(extractors: Any) -> "tuple[list[Contender], list[Request | ModuleExtractor]]":
    """Read what is to be compared.

    Parameters
    ----------
    extractors : str, ModuleExtractor, or list of these or of fusions
        Each item of a list is a contender: ``"resnet50"``, ``"resnet50+hog"``, a module, or a list or tuple of these,
        which is a fusion.

    Returns
    -------
    contenders : list of Contender
        In their order.
    parts : list of Request or ModuleExtractor
        The extractors of all, each once: to be extracted in one pass.

    Raises
    ------
    UsageError
        If one is no extractor, or two are the same.

    Examples
    --------
    >>> contenders, parts = read_contenders(["resnet50", "hog", "resnet50+hog"])
    >>> [contender.parts for contender in contenders], len(parts)
    ([(0,), (1,), (0, 1)], 2)
    """
    given = list(extractors) if isinstance(extractors, list | tuple) else [extractors]
    if not given:
        raise UsageError("extractors: expected at least one, such as 'resnet50', got none.")
    read = [read_extractors(one) for one in given]
    distinct = list(dict.fromkeys(part for parts in read for part in parts))
    # Modules of one name are told from one another by nothing that a result could show.
    read_extractors(distinct)
    contenders: list[Contender] = []
    for one, parts in zip(given, read, strict=True):
        name = one if isinstance(one, str) else "+".join(map(_text, parts))
        numbers = tuple(distinct.index(part) for part in parts)
        same = next((other for other in contenders if set(other.parts) == set(numbers)), None)
        if same is not None:
            also = "" if same.name == name else f" (as {same.name!r})"
            raise UsageError(f"extractor {name!r} is given twice{also}. Name it once.")
        contenders.append(Contender(name, numbers))
    return contenders, distinct


def check_distinct(contenders: Sequence[Contender], features: "Features") -> None:
    """Refuse contenders that are written differently and turn out to be the same, such as a name with its defaults.

    Raises
    ------
    UsageError
    """
    seen: dict[frozenset[str], str] = {}
    for contender in contenders:
        same = frozenset(spec.fingerprint for spec in specs_of(contender, features))
        if same in seen:
            raise UsageError(
                f"extractors {seen[same]!r} and {contender.name!r} are the same: every vector is equal. Name one."
            )
        seen[same] = contender.name


def specs_of(contender: Contender, features: "Features") -> "list[ExtractorSpec]":
    """Return the specs of a contender's parts, in its order: how wide each block of its columns is, say."""
    return [features.specs[part] for part in contender.parts]


def _text(part: "Request | ModuleExtractor") -> str:
    return part.text if hasattr(part, "text") else part.request.text
