"""Looks after a whole cache folder: lists, verifies and prunes it; no vector is computed or served here."""

import contextlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.cache.digest import DamagedError, check_digests
from featx.cache.disk import remove_file
from featx.cache.layout import STALE_SECONDS, is_linked, read_spec, shard_names, stale_files
from featx.cache.merge import merge, merge_groups
from featx.cache.reader import read_shard
from featx.cache.reports import ExtractorInfo, Problem, PruneReport, VerifyReport
from featx.cache.shard import FAILURE, KEY_BYTES, VECTOR, Shard, rows_per_shard
from featx.cache.store import check_belongs
from featx.errors import CacheError

__all__ = ["list_extractors", "prune", "verify"]

_FOLDER_NAME = re.compile(r"(.+)-([0-9a-f]{12})")
_DAY_SECONDS = 86400.0
_ROWS_AT_ONCE = 4096
_PARTS = ("spec.json", "shards", "tmp", "turn")


def list_extractors(root: Path) -> list[ExtractorInfo]:
    """List what a cache holds, by folder name; an absent cache holds nothing.

    Raises
    ------
    CacheError
        The folder cannot be listed.
    """
    return [_info(_examine(directory)) for directory in _extractor_directories(Path(root))]


def verify(root: Path, *, repair: bool = False) -> VerifyReport:
    """Digest and validate every byte of a cache; an empty or absent one is clean.

    Parameters
    ----------
    root : Path
    repair : bool
        Delete what is broken, and nothing else: the next run computes its rows again. Files that merely
        cannot be read, are of a newer schema, or lie behind a link to another folder are left alone.

    Raises
    ------
    CacheError
        The folder cannot be listed.
    """
    root = Path(root)
    folders = [_examine(directory, anew=True) for directory in _extractor_directories(root)]
    problems = []
    for folder in folders:
        may_remove = repair and not is_linked(folder.directory)
        problems += [Problem(path, text, may_remove and _removed(path)) for path, text in folder.broken]
        problems += [Problem(path, text, False) for path, text in folder.unusable]
    return VerifyReport(
        n_extractors=len(folders),
        n_shards=sum(len(folder.shards) for folder in folders),
        n_rows=sum(len(shard.status) for folder in folders for shard in folder.shards),
        problems=tuple(problems),
        notes=tuple(_notes(root, folders)),
    )


def prune(root: Path, *, older_than_days: float | None = None, dry_run: bool = False) -> PruneReport:
    """Merge small shards and remove what nobody needs; which vector serves a key never changes.

    Removed are broken shards, temporary files older than an hour, and folders of ours that for an hour have
    held neither spec.json nor a shard. What lies behind a link to another folder is left alone.

    Parameters
    ----------
    root : Path
    older_than_days : float, optional
        Remove also every extractor whose newest shard was published longer ago than this, here or where it came from.
    dry_run : bool
        Only say what would be done.

    Raises
    ------
    CacheError
        The folder cannot be listed, or a merged shard cannot be written; nothing is lost then.
    """
    n_merged = n_written = freed_bytes = 0
    removed: list[Path] = []
    problems: list[Problem] = []
    for directory in _extractor_directories(Path(root)):
        if is_linked(directory):
            text = f"'{directory}' is or holds a link to another folder: left alone. Prune the cache it leads to."
            problems.append(Problem(directory, text, False))
            continue
        folder = _examine(directory)
        too_old = older_than_days is not None and _age_seconds(folder) > older_than_days * _DAY_SECONDS
        if too_old or (folder.orphaned and _age_seconds(folder) > STALE_SECONDS):
            freed_bytes += _size_bytes(directory)
            removed.append(directory)
            if not dry_run:
                _remove_extractor(directory)
            continue
        for path in [*(path for path, _ in folder.broken), *stale_files(directory)]:
            freed_bytes += path.lstat().st_size
            if dry_run or _removed(path):
                removed.append(path)
        problems += [Problem(path, text, path in removed and not dry_run) for path, text in folder.broken]
        problems += [Problem(path, text, False) for path, text in folder.unusable]
        if folder.unusable or not folder.shards:
            continue
        with contextlib.suppress(
            FileNotFoundError
        ):  # another process is merging the same shards: leave it to that
            for group in merge_groups(folder.shards):
                limit = rows_per_shard(folder.shards[0].n_features, folder.shards[0].dtype.itemsize)
                n_new = math.ceil(sum(len(rows) for _, rows in group) / limit)
                n_merged, n_written = n_merged + len(group), n_written + n_new
                if not dry_run:
                    merge(group, directory)
    return PruneReport(n_merged, n_written, tuple(removed), freed_bytes, tuple(problems))


@dataclass
class _Folder:
    """An extractor's folder as it was found."""

    directory: Path
    spec: dict[str, Any] | None = None
    shards: list[Shard] = field(default_factory=list)
    broken: list[tuple[Path, str]] = field(default_factory=list)  # may be deleted
    unusable: list[tuple[Path, str]] = field(default_factory=list)  # may not

    @property
    def orphaned(self) -> bool:
        return not (self.spec or self.shards or self.broken or self.unusable)


def _examine(directory: Path, *, anew: bool = False) -> _Folder:
    folder = _Folder(directory)

    def sort_out(path: Path, error: CacheError) -> None:
        (folder.broken if isinstance(error, DamagedError) else folder.unusable).append((path, str(error)))

    try:
        folder.spec = read_spec(directory)
    except CacheError as error:
        sort_out(directory / "spec.json", error)
    paths = [directory / "shards" / name for name in sorted(shard_names(directory))]
    check_digests(paths, anew=anew)
    found = []
    for path in paths:
        try:
            shard = read_shard(path)
            if anew:
                _read_vectors(shard)
            found.append((path, shard))
        except FileNotFoundError as error:
            if path.is_symlink():
                folder.broken.append((path, f"'{path}' is a broken link ({error.strerror})."))
        except CacheError as error:
            sort_out(path, error)
    # Of which extractor they are: spec.json says, without it the folder's name, and else the majority.
    kinds = Counter((shard.fingerprint, shard.n_features, shard.dtype) for _, shard in found)
    wanted = folder.spec and folder.spec["fingerprint"]
    ours = [kind for kind, _ in kinds.most_common() if wanted in (None, kind[0])]
    ours.sort(key=lambda kind: not kind[0].startswith(directory.name[-12:]))
    for path, shard in found:
        try:
            check_belongs(shard, *(ours[0] if ours else (str(wanted), shard.n_features, shard.dtype)))
            folder.shards.append(shard)
        except CacheError as error:
            sort_out(path, error)
    return folder


def _read_vectors(shard: Shard) -> None:
    rows = np.flatnonzero(shard.status == VECTOR)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        shard.read(part, np.empty((len(part), shard.n_features), shard.dtype))


def _info(folder: _Folder) -> ExtractorInfo:
    shards = sorted(folder.shards, key=lambda shard: shard.rank)
    vectors, failures = _distinct_keys(shards, VECTOR), _distinct_keys(shards, FAILURE)
    name = _FOLDER_NAME.fullmatch(folder.directory.name)
    name_text = name[1] if name else folder.directory.name
    first = shards[0] if shards else None
    problems = [text for _, text in folder.broken + folder.unusable]
    precision = folder.spec["identity"].get("precision") if folder.spec else None
    return ExtractorInfo(
        directory=folder.directory,
        name=name_text,
        fingerprint=folder.spec["fingerprint"] if folder.spec else first.fingerprint if first else None,
        text=str(json.loads(shards[-1].provenance).get("spec", name_text)) if shards else name_text,
        precision=precision if isinstance(precision, str) else None,
        n_vectors=len(vectors),
        n_failures=len(np.setdiff1d(failures, vectors, assume_unique=True)),
        n_shards=len(shards),
        size_bytes=_size_bytes(folder.directory),
        n_features=first.n_features if first else None,
        dtype=first.dtype.name if first else None,
        last_published=shards[-1].published if shards else None,
        problem=" ".join(problems) or None,
    )


def _distinct_keys(shards: list[Shard], status: int) -> NDArray[np.void]:
    keys = np.concatenate(
        [np.empty((0, KEY_BYTES), np.uint8), *(shard.keys[shard.status == status] for shard in shards)]
    )
    return np.unique(keys.view(f"V{KEY_BYTES}").ravel())


def _extractor_directories(root: Path) -> list[Path]:
    try:
        entries = sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CacheError(
            f"cannot list cache '{root}': {error.strerror}. Name a folder that can be read."
        ) from error
    return [path for path in entries if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    # A cache may have been put where other folders are; nothing of theirs may ever be touched.
    named = _FOLDER_NAME.fullmatch(path.name) is not None
    return named and path.is_dir() and any((path / part).exists() for part in _PARTS)


def _notes(root: Path, folders: list[_Folder]) -> Iterator[str]:
    ours = {folder.directory for folder in folders}
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path not in ours and not path.name.startswith((".", "README", "hints.sqlite")):
            yield f"'{path}' is not the cache's: ignored."
    for folder in folders:
        fingerprint = folder.spec["fingerprint"] if folder.spec else folder.directory.name[-12:]
        if not fingerprint.startswith(folder.directory.name[-12:]):
            yield f"'{folder.directory}' is not named by its fingerprint {fingerprint[:12]}: no run finds it."
        for part in sorted(folder.directory.rglob("*")):
            relative = part.relative_to(folder.directory)
            if relative.parts[0] == "tmp" and len(relative.parts) > 1:
                yield (
                    f"'{part}' is of a write that is unfinished or at work: "
                    f"`featx cache prune` removes it when it is old."
                )
            elif str(relative) not in _PARTS and not _is_shard(relative):
                yield f"'{part}' is not the cache's: ignored."


def _is_shard(relative: Path) -> bool:
    return relative.parent == Path("shards") and re.fullmatch(r"[0-9a-f]{64}\.h5", relative.name) is not None


def _files(directory: Path) -> list[Path]:
    """Every file in an extractor's folder that is the cache's own, spec.json last."""
    shards = [directory / "shards" / name for name in sorted(shard_names(directory))]
    temporary = sorted((directory / "tmp").iterdir()) if (directory / "tmp").is_dir() else []
    single = [directory / name for name in ("turn", "spec.json")]
    return [*shards, *temporary, *(path for path in single if path.exists())]


def _size_bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in _files(directory))


def _age_seconds(folder: _Folder) -> float:
    """Since the newest shard was published; where none can be read, since anything in the folder changed."""
    if folder.shards:
        return time.time() - max(shard.published for shard in folder.shards)
    parts = [folder.directory, *(folder.directory / part for part in _PARTS)]
    return time.time() - max(path.lstat().st_mtime for path in parts if path.exists() or path.is_symlink())


def _removed(path: Path) -> bool:
    try:
        remove_file(path)
    except OSError:
        return False
    return True


def _remove_extractor(directory: Path) -> None:
    for path in _files(directory):
        _removed(path)
    for folder in (directory / "shards", directory / "tmp", directory):
        with contextlib.suppress(OSError):  # what is not the cache's own keeps its folder
            folder.rmdir()
