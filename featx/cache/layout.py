"""The folder of one extractor: its name, its spec.json, its files; what shards hold is not looked at."""

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.cache.digest import DamagedError, way_out
from featx.cache.disk import publish_bytes, remove_file
from featx.cache.shard import SCHEMA
from featx.errors import CacheError, UsageError

__all__ = [
    "STALE_SECONDS",
    "check_spec",
    "extractor_directory",
    "fingerprint_of",
    "is_linked",
    "prepare",
    "read_spec",
    "remove_stale",
    "shard_names",
    "stale_files",
]

STALE_SECONDS = 3600.0  # far longer than writing one shard takes, on any disk
_SHARD_NAME = re.compile(r"[0-9a-f]{64}\.h5")
_MAX_SPEC_BYTES = 1 << 20
_MAX_NAME_LENGTH = 150  # a file name may have 255 bytes


def extractor_directory(root: Path, name: str, fingerprint: str) -> Path:
    """The folder of one extractor in a cache.

    Examples
    --------
    >>> extractor_directory(Path("cache"), "timm/vit_s:1", "0123456789abcdef").name
    'timm_vit_s_1-0123456789ab'
    """
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:_MAX_NAME_LENGTH]
    # A leading dot would hide the folder.
    return Path(root) / f"{re.sub(r'^[.]', '_', safe)}-{fingerprint[:12]}"


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of an identity's canonical JSON.

    Raises
    ------
    UsageError
        The identity holds what JSON cannot say exactly (NaN, an object).
    """
    return hashlib.sha256(_canonical_json(identity)).hexdigest()


def read_spec(directory: Path) -> dict[str, Any] | None:
    """Read and check spec.json; None when there is none.

    Returns
    -------
    dict with ``schema``, ``fingerprint`` and ``identity``, the fingerprint being that of the identity.

    Raises
    ------
    DamagedError
        It is no spec, or contradicts itself.
    CacheError
        It is of a newer schema, or cannot be read.
    """
    path = directory / "spec.json"

    def damaged(what: str) -> DamagedError:
        return DamagedError(f"'{path}' is damaged: {what}. {way_out(path)}; featx writes it anew.")

    try:
        if not path.is_file():
            if not path.exists():
                return None
            raise damaged("it is not a regular file")
        with path.open("rb") as file:
            spec = json.loads(file.read(_MAX_SPEC_BYTES), parse_constant=_refuse_constant)
    except FileNotFoundError:
        return None
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(f"cannot read '{path}': {error.strerror}. Check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise damaged("it is not JSON") from error
    schema = spec.get("schema") if isinstance(spec, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise CacheError(
            f"cache '{directory}' has schema {schema}; this featx reads {SCHEMA}. Upgrade featx."
        )
    if schema != SCHEMA or set(spec) != {"schema", "fingerprint", "identity"}:
        raise damaged("it does not hold schema, fingerprint and identity")
    try:
        right = isinstance(spec["identity"], dict) and fingerprint_of(spec["identity"]) == spec["fingerprint"]
    except (UsageError, RecursionError):
        right = False
    if not right:
        raise damaged("its fingerprint is not that of its identity")
    return dict(spec)


def check_spec(directory: Path, *, fingerprint: str, identity: Mapping[str, Any]) -> bool:
    """Compare spec.json with the extractor that wants the folder; False when there is no spec.json yet.

    Raises
    ------
    CacheError
        It is damaged, or the folder belongs to another extractor.
    """
    spec = read_spec(directory)
    if spec is None:
        return False
    if spec["fingerprint"] != fingerprint or spec["identity"] != json.loads(_canonical_json(identity)):
        raise CacheError(
            f"cache '{directory}' belongs to another extractor: its spec.json has fingerprint "
            f"{spec['fingerprint'][:12]}, expected {fingerprint[:12]}. Name another cache folder."
        )
    return True


def prepare(directory: Path, *, fingerprint: str, identity: Mapping[str, Any]) -> None:
    """Make the folder ready to be written to: spec.json is there and right before any shard is.

    Raises
    ------
    CacheError
        It belongs to another extractor, or cannot be written to.
    """
    if not check_spec(directory, fingerprint=fingerprint, identity=identity):
        spec = {"schema": SCHEMA, "fingerprint": fingerprint, "identity": dict(identity)}
        publish_bytes(_canonical_json(spec), directory / "spec.json", temporary_folder=directory / "tmp")


def is_linked(directory: Path) -> bool:
    """Whether an extractor's folder is, or has inside, a link to another folder: nothing is deleted there."""
    return any(path.is_symlink() for path in (directory, directory / "shards", directory / "tmp"))


def shard_names(directory: Path) -> set[str]:
    """Names of the files in ``shards/`` that are named like a shard; empty when there is no such folder.

    Raises
    ------
    CacheError
        The folder cannot be listed.
    """
    try:
        return {path.name for path in (directory / "shards").iterdir() if _SHARD_NAME.fullmatch(path.name)}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise CacheError(
            f"cannot list '{directory / 'shards'}': {error.strerror}. Check its permissions."
        ) from error


def stale_files(directory: Path) -> list[Path]:
    """Temporary files that no living writer can still be writing; none behind a link, where they may be anyone's."""
    found: list[Path] = []
    if is_linked(directory):
        return found
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((directory / "tmp").iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and time.time() - path.stat().st_mtime > STALE_SECONDS:
                    found.append(path)
    return found


def remove_stale(directory: Path) -> None:
    """Remove what crashed writers left in ``tmp/``."""
    for path in stale_files(directory):
        with contextlib.suppress(OSError):
            remove_file(path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _canonical_json(value: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"an extractor's identity must be plain JSON: {error}. Use text and finite numbers."
        ) from error
