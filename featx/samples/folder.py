"""Class folders and flat folders as a SampleTable; what is in the files is not looked at."""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import pyarrow as pa

from featx.errors import SampleIOError, UsageError
from featx.samples.table import SampleTable
from featx.wording import counted

__all__ = ["IMAGE_EXTENSIONS", "read_folder"]

_log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".mpo",
)  # fmt: skip
"""What names an image, in any case."""

_Ancestors = tuple[tuple[int, int], ...]  # device and inode of a folder and of all above it

_ONE = {"links that lead back up": "link that leads back up"}
_SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})
_PATHS_AT_ONCE = 10_000
_SUFFIXES = tuple(extension.encode() for extension in IMAGE_EXTENSIONS)


def read_folder(folder: str) -> SampleTable:
    """List the images of a folder, by the bytes of their relative paths, component by component.

    A first-level folder is a class, and files deeper in it belong to it; a folder without subfolders of
    images has no labels. Hidden names, unknown extensions, empty class folders and links that lead back
    up are left out, counted in `SampleTable.skipped`, and said in the log. Whatever carries an image
    extension and is no folder is a row, even if it turns out to be unreadable.

    Parameters
    ----------
    folder : str
        An existing folder.

    Returns
    -------
    SampleTable
        Ids are relative paths with extension, "/"-separated.

    Raises
    ------
    UsageError
        If there is no image.
    SampleIOError
        If a folder cannot be listed.
    """
    root = Path(folder).absolute()
    found = _scan(root)
    summary = ", ".join(
        counted(count, _ONE.get(what, what.removesuffix("s")), what) for what, count in found.skipped.items()
    )
    if found.extensions:
        summary += f" (extensions: {', '.join(repr(name) for name in sorted(found.extensions)[:5])})"
    ids = found.ids()
    if not len(ids):
        raise UsageError(
            f"no images in {str(root)!r}: found {summary or 'nothing'}; expected folders named after classes "
            f"with images in them, or images, named {' '.join(IMAGE_EXTENSIONS)}"
        )
    table = SampleTable(
        id_column=ids,
        root=str(root),
        label_column=_labels(ids),
        skipped=dict(found.skipped),
    )
    _say(table, skipped=summary, only_hidden=set(found.skipped) <= {"hidden files", "hidden folders"})
    return table


@dataclass
class _Found:
    """What a scan saw."""

    skipped: Counter[str] = field(default_factory=Counter)
    extensions: set[str] = field(default_factory=set)
    _chunks: list[pa.Array] = field(default_factory=list)
    _paths: list[bytes] = field(default_factory=list)

    def add(self, path: bytes) -> None:
        """Take in the path of an image; as an object of its own it would cost a hundred bytes for good."""
        self._paths.append(path)
        if len(self._paths) >= _PATHS_AT_ONCE:
            self._pack()

    def ids(self) -> pa.Array:
        """Return all paths, in the order in which they came."""
        self._pack()
        return pa.concat_arrays(self._chunks)

    def _pack(self) -> None:
        self._chunks.append(pa.array(self._paths, type=pa.large_binary()))
        self._paths.clear()


def _scan(root: Path) -> _Found:
    found = _Found()
    without_image: set[bytes] = set()
    above = tuple((status.st_dev, status.st_ino) for status in map(Path.stat, root.resolve().parents))
    # A stack in place of recursion: folders may nest deeper than Python calls do. Files wait in it together
    # with the folders between them, which keeps the order; they have no ancestors.
    pending: list[tuple[bytes, _Ancestors | None]] = [(b"", above)]
    while pending:
        relative, ancestors = pending.pop()
        if ancestors is None:
            found.add(relative)
            without_image.discard(relative.split(b"/", 1)[0])
            continue
        place = root / os.fsdecode(relative)
        try:
            status = place.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in ancestors:
                found.skipped["links that lead back up"] += 1
                continue
            with os.scandir(os.fsencode(place)) as entries:
                inside = _sift(entries, relative, (*ancestors, identity), found)
        except OSError as error:
            raise SampleIOError(f"cannot list folder {str(place)!r}: {error.strerror}") from error
        if relative and b"/" not in relative:
            without_image.add(relative)
        pending.extend(sorted(inside, key=itemgetter(0), reverse=True))
    if without_image:
        found.skipped["empty folders"] = len(without_image)
    return found


def _sift(
    entries: Iterable[os.DirEntry[bytes]],
    relative: bytes,
    ancestors: _Ancestors,
    found: _Found,
) -> list[tuple[bytes, _Ancestors | None]]:
    """Keep the folders (with their ancestors) and the images (with None) of one folder; count the rest."""
    kept: list[tuple[bytes, _Ancestors | None]] = []
    for entry in entries:
        path = relative + b"/" + entry.name if relative else entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False  # a link that leads in a circle: reading it says so
        if entry.name.startswith(b"."):
            found.skipped["hidden folders" if is_folder else "hidden files"] += 1
        elif is_folder:
            kept.append((path, ancestors))
        elif entry.name.lower().endswith(_SUFFIXES):
            kept.append((path, None))
        else:
            found.skipped["unknown extensions"] += 1
            found.extensions.add(Path(os.fsdecode(entry.name)).suffix)
    return kept


def _labels(paths: pa.Array) -> pa.Array | None:
    """Give each path's first folder as its label; files of the root have none."""
    names: dict[bytes, int] = {}
    chunks = [pa.array([], type=pa.int32())]
    for start in range(0, len(paths), _PATHS_AT_ONCE):
        indices: list[int | None] = []
        for path in paths[start : start + _PATHS_AT_ONCE].to_pylist():
            name, slash, _ = path.partition(b"/")
            indices.append(names.setdefault(name, len(names)) if slash else None)
        chunks.append(pa.array(indices, type=pa.int32()))
    if not names:
        return None
    # Labels are text, and a folder's name need not be.
    texts = [name.decode("utf-8", "backslashreplace") for name in names]
    return pa.DictionaryArray.from_arrays(pa.concat_arrays(chunks), pa.array(texts, type=pa.string()))


def _say(table: SampleTable, *, skipped: str, only_hidden: bool) -> None:
    classes = [str(name) for name in table.classes]
    _log.info("%d images in %d classes in %r", len(table), len(classes), table.root)
    if skipped:
        _log.log(logging.INFO if only_hidden else logging.WARNING, "%r: left out %s", table.root, skipped)
    if classes and {name.lower() for name in classes} <= _SPLIT_NAMES:
        _log.warning(
            "%r: the class folders are named %s: these look like splits, not classes; read one of them, "
            "or a manifest with a column 'split'",
            table.root,
            ", ".join(classes),
        )
    if classes and (n_unlabelled := len(table) - int(table.labelled.sum())):
        _log.warning(
            "%r: %s directly in it, beside class folders, without a label",
            table.root,
            counted(n_unlabelled, "image"),
        )
