"""SampleTable: id, place, label, group and split of every sample, in a fixed order; it decodes nothing."""

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from featx.errors import SampleIOError, UsageError
from featx.samples.labels import classes_of, values_of

__all__ = ["ImageItems", "RawSample", "SampleTable", "key_of"]

RawSample = bytes | np.ndarray[Any, np.dtype[np.uint8]]
"""One sample as read: a file's bytes, or RGB pixels, a uint8 array of shape (height, width, 3)."""


class ImageItems(Protocol):
    """Images that live in memory, by position."""

    def __len__(self) -> int:
        """Count the images."""

    def __getitem__(self, index: int, /) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Give one image as RGB pixels, a uint8 array of shape (height, width, 3)."""


def key_of(raw: RawSample) -> bytes:
    """Give the key of a sample's content: the same content has the same key under every name.

    Parameters
    ----------
    raw : bytes or uint8 ndarray
        What `SampleTable.read` gave.

    Returns
    -------
    bytes of length 32
        SHA-256 of a file's bytes, or of kind, dtype, shape and pixels. No picture file begins like the
        latter, so a picture in memory and a file never share a key.
    """
    if isinstance(raw, bytes):
        return hashlib.sha256(raw).digest()
    digest = hashlib.sha256(f"array:{raw.dtype.str}:{raw.shape}:".encode())
    digest.update(np.ascontiguousarray(raw).data)
    return digest.digest()


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SampleTable:
    """Samples in a fixed order, as columns; made by `read_samples`.

    A row costs what its path and its label indices cost; no Python object is kept for it.

    Parameters
    ----------
    id_column : pyarrow.Array of large_binary
        Unique ids, as the operating system encodes names (a name may hold bytes that are no text). The id
        of an image in memory is its position in `items`.
    root : str
        The folder that relative paths start from.
    path_column : pyarrow.Array of large_binary, optional
        Paths, where they are not the ids.
    items : ImageItems, optional
        The images, where they live in memory.
    label_column : pyarrow.Array of dictionary<int32, string>, int64 or float64, optional
        Labels; null where a sample has none.
    group_column, split_column : pyarrow.Array of dictionary<int32, string>, optional
        Names of groups (kept together in every split of the data) and of given splits.
    columns : mapping of str to pyarrow.Array
        What else a manifest held.
    skipped : mapping of str to int
        How many things the reader left out, by reason.
    """

    id_column: pa.Array
    root: str = ""
    path_column: pa.Array | None = None
    items: ImageItems | None = None
    label_column: pa.Array | None = None
    group_column: pa.Array | None = None
    split_column: pa.Array | None = None
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id_column)

    def __repr__(self) -> str:
        place = f"in {self.root!r}" if self.items is None else "in memory"
        return f"SampleTable({len(self)} samples {place}, {len(self.classes)} classes)"

    @property
    def ids(self) -> np.ndarray[Any, np.dtype[np.object_]]:
        """Ids of all samples, ndarray of str objects of shape (n_samples,), made on each call."""
        ids = np.empty(len(self), dtype=object)
        ids[:] = [os.fsdecode(name) for name in self.id_column.to_pylist()]
        return ids

    def id_at(self, row: int) -> str:
        """Give the id of one sample."""
        return os.fsdecode(self.id_column[row].as_py())

    def uri_at(self, row: int) -> str:
        """Give the place of one sample: the path of its file, or "memory:" and its position."""
        if self.items is not None:
            return f"memory:{self.id_at(row)}"
        return os.fsdecode(self.paths(row, row + 1)[0])

    def paths(self, start: int, stop: int) -> list[bytes]:
        """Give the paths of some neighbouring samples as the operating system encodes them; [] in memory."""
        if self.items is not None:
            return []
        column = self.id_column if self.path_column is None else self.path_column
        root = os.path.join(os.fsencode(self.root), b"")
        paths: list[bytes] = column[start:stop].to_pylist()
        return [path if path[:1] == b"/" else root + path for path in paths]

    @property
    def y(self) -> np.ndarray[Any, Any] | None:
        """Labels, ndarray of str, int64 or float64 of shape (n_samples,); None when there are none.

        Where only some rows have one, the others hold None (text) or NaN (numbers, then all float64):
        `table.take(table.labelled).y` has exactly the labels that there are.
        """
        return None if self.label_column is None else values_of(self.label_column)

    @property
    def labelled(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows have a label, ndarray of bool of shape (n_samples,)."""
        if self.label_column is None:
            return np.zeros(len(self), dtype=bool)
        return np.array(self.label_column.is_valid().to_numpy(zero_copy_only=False))

    @property
    def classes(self) -> list[str] | list[int]:
        """The distinct labels, sorted; [] without labels and for floating-point ones."""
        return [] if self.label_column is None else classes_of(self.label_column)

    @property
    def groups(self) -> np.ndarray[Any, Any] | None:
        """Group names, ndarray of str of shape (n_samples,), None where missing; None without groups."""
        return None if self.group_column is None else values_of(self.group_column)

    @property
    def splits(self) -> np.ndarray[Any, Any] | None:
        """Split names, ndarray of str of shape (n_samples,), None where missing; None without splits."""
        return None if self.split_column is None else values_of(self.split_column)

    def take(self, rows: Any) -> "SampleTable":
        """Give a table of some rows, in the order given.

        Parameters
        ----------
        rows : array-like of int, or of bool with one entry for each sample
            Which rows.

        Raises
        ------
        UsageError
            If `rows` is neither, or points outside of the table.
        """
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise UsageError(f"take: expected a mask of shape ({len(self)},), got {index.shape}")
            index = np.flatnonzero(index)
        try:
            chosen = pa.array(index, type=pa.int64())

            def pick(column: pa.Array | None) -> pa.Array | None:
                return None if column is None else column.take(chosen)

            return replace(
                self,
                id_column=pick(self.id_column),
                path_column=pick(self.path_column),
                label_column=pick(self.label_column),
                group_column=pick(self.group_column),
                split_column=pick(self.split_column),
                columns={name: pick(column) for name, column in self.columns.items()},
            )
        except (pa.ArrowException, IndexError) as error:
            raise UsageError(f"take: expected row numbers from 0 to {len(self) - 1}; {error}") from error

    def read(self, row: int) -> RawSample:
        """Read one sample: all bytes of its file, or its pixels.

        Returns
        -------
        bytes or uint8 ndarray of shape (height, width, 3)

        Raises
        ------
        SampleIOError
            If the file is missing, unreadable or not a regular file.
        DecodeError
            If an item in memory is not a picture.
        """
        return self.read_with_stat(row)[0]

    def read_with_stat(self, row: int) -> tuple[RawSample, os.stat_result | None]:
        """Read one sample, and say what its file was like just before.

        Returns
        -------
        tuple of RawSample and os.stat_result
            The stat is of the very file that was read, wherever its path leads meanwhile; None for a sample in memory.

        Raises
        ------
        SampleIOError, DecodeError
            As `read`.
        """
        if self.items is not None:
            return self.items[int(self.id_at(row))], None
        path = self.uri_at(row)
        try:
            # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise SampleIOError(
                        f"cannot read {path!r}: it is {_kind(status.st_mode)}, not a regular file"
                    )
                with open(descriptor, "rb", closefd=False) as file:
                    return file.read(), status
            finally:
                os.close(descriptor)
        except SampleIOError:
            raise
        except (OSError, ValueError) as error:
            raise SampleIOError(f"cannot read {path!r}: {_reason(error)}") from error


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a folder" if stat.S_ISDIR(mode) else "a device"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file (or a link to nowhere)"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "its links lead in a circle"
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
