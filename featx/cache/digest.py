"""Opens shard files whose bytes have been checked against their names; what they mean is not looked at."""

import contextlib
import hashlib
import os
import shlex
import stat
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

from featx.errors import CacheError

__all__ = ["DamagedError", "check_digests", "open_checked", "way_out"]

# What this process has checked: path -> the file's state then. A file in another state is read anew.
_checked: dict[str, tuple[int, int, int, int]] = {}
_lock = threading.Lock()
_THREADS = 4


class DamagedError(CacheError):
    """A file of a cache that can never be used where it lies: `featx cache verify --repair` may delete it."""


def way_out(path: Path | None) -> str:
    """Say what to do about a broken file of a cache, without a full stop; None stands for a shard in memory."""
    if path is None:
        return "Run again"
    extractor = path.parent.parent if path.parent.name == "shards" else path.parent
    return f"Run `featx cache verify --repair --cache {shlex.quote(str(extractor.parent))}` to drop it"


def open_checked(path: Path, *, anew: bool = False) -> BufferedReader:
    """Open a shard for reading, once its digest has been found to be its name.

    The whole file is digested the first time a process opens it, and again when its inode, size or times
    changed; the caller reads through the very descriptor that was checked.

    Parameters
    ----------
    path : Path
        A file named ``<sha256 of its bytes>.h5``.
    anew : bool
        Digest the bytes even when this process has done so already.

    Raises
    ------
    DamagedError
        The bytes are not those that the name promises, or it is no regular file.
    CacheError
        The file cannot be read for a reason that says nothing about its content.
    FileNotFoundError
        It is gone; whoever removed it may have published its rows in another shard.
    """
    try:
        # O_NONBLOCK: a FIFO under a shard's name must not hang the reader.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise _not_regular(path) from error
    except OSError as error:
        raise CacheError(
            f"cannot read shard '{path}': {error.strerror}. Check its permissions and disk."
        ) from error
    try:
        _check(file, path, anew=anew)
    except BaseException:
        file.close()
        raise
    return file


def check_digests(paths: Sequence[Path], *, anew: bool = False) -> None:
    """Digest many shards in a few threads, so that opening them next costs nothing more.

    Says nothing about what it finds: whoever opens a damaged shard next is told.
    """

    def check(path: Path) -> None:
        with contextlib.suppress(OSError):
            open_checked(path, anew=anew).close()

    if len(paths) > 1:
        with ThreadPoolExecutor(max_workers=_THREADS) as pool:
            list(pool.map(check, paths))


def _check(file: BufferedReader, path: Path, *, anew: bool) -> None:
    # Taken before the bytes are read: a change meanwhile leaves a state that is never found again.
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(path)
    state = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    name = str(path.absolute())
    with _lock:
        if not anew and _checked.get(name) == state:
            return
        _checked.pop(name, None)
    try:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CacheError(f"cannot read shard '{path}': {error.strerror}. Check its disk.") from error
    if digest != path.stem:
        raise DamagedError(
            f"shard '{path}' is damaged: its name says SHA-256 {path.stem[:12]}, its bytes {digest[:12]}. "
            f"{way_out(path)}; its rows are computed again on the next run."
        )
    file.seek(0)
    with _lock:
        _checked[name] = state


def _not_regular(path: Path) -> DamagedError:
    return DamagedError(f"'{path}' is named like a shard, but no regular file. {way_out(path)}.")
