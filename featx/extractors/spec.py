"""What an extractor is: the text a user writes for it, and the full identity behind its fingerprint."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from featx.errors import UsageError
from featx.samples import Pixels

__all__ = [
    "SCHEMA",
    "WEIGHTS_SUFFIXES",
    "ExtractorSpec",
    "Precision",
    "Request",
    "parse",
    "path_of",
]

SCHEMA = 1
"""Number of the identity's layout; a change of any rule that can move a vector raises it."""

WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors")
"""What the name of a weights file ends in."""

Precision = Literal["float32", "float16", "bfloat16"]

_JSON_TYPES = {
    **dict.fromkeys(("source", "name", "kind", "weights", "pool", "text"), str),
    **dict.fromkeys(("preprocessing", "decode", "parameters"), dict),
    **dict.fromkeys(("schema", "n_features"), int),
    "layer": list,
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Request:
    """One extractor as a user names it: not yet looked up, nothing resolved.

    Attributes
    ----------
    source : str or None
        Where the name is defined (``torchvision``, ``timm``, ``descriptor``); None where the text gives none.
    name : str
        Name within the source, such as ``resnet50``.
    keys : tuple of (str, str)
        The ``key=value`` pairs in alphabetical order, as text.
    """

    source: str | None
    name: str
    keys: tuple[tuple[str, str], ...] = ()

    @property
    def options(self) -> dict[str, str]:
        """The keys as a dictionary."""
        return dict(self.keys)

    def with_pixels(self, pixels: str) -> "Request":
        """Return the same with these pixels."""
        return Request(self.source, self.name, tuple(sorted({**self.options, "pixels": pixels}.items())))

    @property
    def text(self) -> str:
        """The text form that `parse` reads back."""
        head = self.name if self.source is None else f"{self.source}/{self.name}"
        return ":".join([head, *(f"{key}={_escape(value)}" for key, value in self.keys)])


@dataclass(frozen=True)
class ExtractorSpec:
    """The full identity of one extractor: everything that can change a vector beyond the promised tolerance.

    Attributes
    ----------
    source, name : str
        Where the extractor is defined, and its name there.
    kind : str
        The kind of sample it reads; ``image`` so far.
    weights : str
        SHA-256 (hexadecimal) of the weights file, or of the tensors where there is no file; empty for descriptors.
    layer : tuple of str
        The layers whose outputs are concatenated; ``input:fc`` stands for what enters the module ``fc``.
    pool : str
        How maps or tokens became a vector, one name for each layer, joined with commas.
    preprocessing : mapping
        Resize, crop, interpolation, mean and standard deviation: the geometry and scale of the input.
    decode : mapping
        The decode policy, see `featx.samples.DECODE_POLICY`.
    pixels : {"exact", "fast", "nvjpeg"}
        Which decoder and resize produced the pixels.
    precision : str
        Number format of the forward pass: ``float32``, ``float16`` or ``bfloat16``.
    parameters : mapping
        What else a source needs to tell its extractors apart (the options and version of a descriptor).
    schema : int
        Number of this layout.
    n_features : int
        Length of a vector. It follows from the rest and is recorded beside it, not part of the identity.
    text : str
        How the extractor was asked for; recorded, not part of the identity.

    Notes
    -----
    Runtime, device, batch size and library versions are left out on purpose: they move a vector only within
    the promised tolerance, and are recorded with every shard instead.
    """

    source: str
    name: str
    kind: str
    weights: str
    layer: tuple[str, ...]
    pool: str
    preprocessing: Mapping[str, Any]
    decode: Mapping[str, Any]
    pixels: Pixels
    precision: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA
    n_features: int = 0
    text: str = ""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The identity as plain JSON values."""
        recorded = asdict(self)
        del recorded["n_features"], recorded["text"]
        plain: dict[str, Any] = json.loads(_canonical(recorded))
        return plain

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the identity's canonical JSON."""
        return hashlib.sha256(_canonical(self.identity)).hexdigest()

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """How vectors are stored: float16 where they were computed in half precision."""
        return "float32" if self.precision == "float32" else "float16"

    def to_json(self) -> dict[str, Any]:
        """Return identity and recorded facts as plain JSON values, for `from_json`."""
        return {**self.identity, "n_features": self.n_features, "text": self.text}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ExtractorSpec":
        """Rebuild a spec from `to_json`'s values.

        Raises
        ------
        TypeError, KeyError
            If a field is missing, unknown or of another type.
        ValueError
            If it names pixels or a precision that this featx cannot produce, or no feature.
        """
        for name, kind in _JSON_TYPES.items():
            if not isinstance(values[name], kind):
                raise TypeError(f"{name}: expected {kind.__name__}, got {type(values[name]).__name__}")
        if not all(isinstance(layer, str) for layer in values["layer"]):
            raise TypeError(f"layer: expected names, got {values['layer']!r:.80}")
        if values["n_features"] < 1:
            raise ValueError(f"n_features: expected at least 1, got {values['n_features']}")
        for name, choices in (("pixels", get_args(Pixels)), ("precision", get_args(Precision))):
            if values[name] not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {values[name]!r:.80}")
        return cls(**{**values, "layer": tuple(values["layer"])})


def parse(text: str) -> tuple[Request, ...]:
    """Read the text form of one extractor, or of several fused with ``+``.

    Parameters
    ----------
    text : str
        ``NAME[:key=value]...``, NAME being ``resnet50`` or ``source/name``; ``%2B``, ``%3A`` and ``%25`` stand for
        ``+``, ``:`` and ``%`` in a value.

    Returns
    -------
    tuple of Request
        The parts in the order written.

    Raises
    ------
    UsageError
        If the text does not have this form.

    Examples
    --------
    >>> parse("resnet50:pool=max:layer=layer4+hog")[0].text
    'resnet50:layer=layer4:pool=max'
    >>> [request.name for request in parse("resnet50+hog")]
    ['resnet50', 'hog']
    """
    requests = tuple(_parse_one(part, text) for part in text.split("+"))
    weights = ""
    for request in requests:
        cut = "/" in weights and not weights.endswith(WEIGHTS_SUFFIXES)
        # Without a source no name looks like a file; with one it may, but not where a path breaks off before it.
        if weights and request.name.endswith(WEIGHTS_SUFFIXES) and (cut or request.source is None):
            raise UsageError(
                f"extractor {text!r}: expected a name after '+', got '{request.name}', which looks like the rest of "
                f"weights={weights!r}. In a path write %2B for '+'."
            )
        weights = request.options.get("weights", weights)
    return requests


def path_of(weights: str) -> Path | None:
    """Return the absolute path that the value of ``weights=`` names, or None where it is a name of another kind."""
    if os.sep not in weights and not weights.endswith(WEIGHTS_SUFFIXES):
        return None
    # Not Path.expanduser, which raises where there is no such user.
    return Path(os.path.expanduser(weights)).absolute()  # noqa: PTH111


def _parse_one(part: str, whole: str) -> Request:
    head, *pairs = part.strip().split(":")
    source, slash, name = head.partition("/")
    if not slash:
        source, name = "", head
    if not _NAME.fullmatch(name) or (slash and not _NAME.fullmatch(source)):
        raise UsageError(
            f"extractor {whole!r}: expected NAME[:key=value]... or source/NAME, fused with '+', got {part!r}. "
            "Write for example 'resnet50:layer=layer4:pool=max+hog'; in a value %2B stands for '+' and %3A for ':'."
        )
    keys: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.strip().partition("=")
        if not equals or not key or not value:
            raise UsageError(
                f"extractor {whole!r}: expected key=value after ':', got {pair!r}. "
                "Write for example ':layer=layer4'; in a value %2B stands for '+' and %3A for ':'."
            )
        if key in keys:
            raise UsageError(f"extractor {whole!r}: key {key!r} is given twice. Keep one.")
        keys[key] = _unescape(value)
    return Request(source or None, name, tuple(sorted(keys.items())))


def _escape(value: str) -> str:
    return value.replace("%", "%25").replace("+", "%2B").replace(":", "%3A")


def _unescape(value: str) -> str:
    # Only these three are escapes; any other "%" in a path stays what it is.
    return re.sub("%(2B|2b|3A|3a|25)", lambda match: bytes.fromhex(match[1]).decode(), value)


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")
