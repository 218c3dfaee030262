"""The file calls that publishing is made of, one function each; what is published is not its matter."""

import contextlib
import os
import uuid
from io import FileIO
from pathlib import Path

from featx.errors import CacheError

__all__ = ["make_folder", "publish_bytes", "remove_file", "sync_folder"]


def publish_bytes(
    data: bytes | memoryview, target: Path, *, temporary_folder: Path, trust_folders: bool = True
) -> None:
    """Make ``target`` appear whole, or not at all, whatever happens on the way.

    Parameters
    ----------
    data : bytes
        The whole content of the file.
    target : Path
        Where it appears; a file of that name is replaced in one step.
    temporary_folder : Path
        Where it is written first; on the same file system as ``target``.
    trust_folders : bool
        Whether the folders that are there already are known to be durable. False makes them so first: whoever
        made them need not have waited for the disk.

    Raises
    ------
    CacheError
        The file system refused a step (a full disk, a read-only folder). Nothing is left under
        ``temporary_folder``, and ``target`` is either as it was or complete.
    """
    temporary = temporary_folder / f"{uuid.uuid4().hex}{target.suffix}"
    try:
        try:
            make_folder(temporary_folder)
            make_folder(target.parent)
            if not trust_folders:
                sync_folders_above(target.parent)
            with create_file(temporary) as file:
                write_all(file, data)
                sync_file(file)
            move_file(temporary, target)
            sync_folder(target.parent)
        finally:
            # After the move there is nothing left to remove; a failing removal must not hide the first error.
            with contextlib.suppress(OSError):
                remove_file(temporary)
    except OSError as error:
        raise CacheError(
            f"cannot write '{target}': {error.strerror or error}. What was published before is kept: "
            f"free space, allow writing, or name another cache folder, then run again to resume."
        ) from error


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each one made durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folders_above(folder: Path) -> None:
    """Wait until a folder's own name is on the disk, and the names of all that it is in."""
    folder = folder.resolve()
    for parent in folder.parents:
        if parent.stat().st_dev != folder.stat().st_dev:
            return  # what is mounted here was here before us
        try:
            sync_folder(parent)
        except PermissionError:
            return  # as was what is in a folder that may not be read


def create_file(path: Path) -> FileIO:
    """Open a new file for writing, unbuffered, so that every later error belongs to the call that met it."""
    return FileIO(path, "xb")


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write every byte; the system may take them in several pieces."""
    view = memoryview(data)
    while view.nbytes:
        view = view[file.write(view) :]


def sync_file(file: FileIO) -> None:
    """Wait until the file's bytes are on the disk: its name must never outlive them."""
    os.fsync(file.fileno())


def move_file(source: Path, target: Path) -> None:
    """Give the file its final name in one step."""
    source.replace(target)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_file(path: Path) -> None:
    """Remove a file, or find it gone already."""
    path.unlink(missing_ok=True)
