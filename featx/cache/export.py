"""Writes one plain HDF5 file that is readable without featx; it does not choose what goes in."""

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.cache.disk import move_file, remove_file, sync_file, sync_folder, write_all
from featx.errors import CacheError, UsageError

__all__ = ["write_export"]

_SPARE_BYTES = 16 << 20  # for HDF5's own structures, and for neighbours on the same disk


def write_export(
    path: Path,
    *,
    blocks: Iterable[NDArray[Any]],
    n_samples: int,
    n_features: int,
    dtype: np.dtype[Any] | type[np.floating[Any]],
    ids: Sequence[str] | NDArray[Any],
    labels: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    splits: ArrayLike | None = None,
    provenance: Mapping[str, Any],
) -> None:
    """Write features and what belongs to them to an HDF5 file, all or nothing.

    The file holds `features` (n_samples, n_features), `ids`, and `labels`, `groups`, `splits` where given.
    Texts are UTF-8 of a fixed length, undecodable bytes escaped as in ``\\xff``; numbers stay numbers;
    what is missing is an empty text or NaN.

    Parameters
    ----------
    path : Path
        A file of that name is replaced.
    blocks : iterable of ndarray of shape (any, n_features)
        The rows in order, n_samples in all; never more than one block is held.
    n_samples, n_features : int
    dtype : dtype
        Of `features`.
    ids : sequence of str of length n_samples
    labels, groups, splits : array-like of shape (n_samples,), optional
        Texts or numbers; None and NaN stand for missing.
    provenance : mapping
        Becomes attributes of the file: texts and numbers as they are, anything else as JSON.

    Raises
    ------
    UsageError
        The folder does not exist, or lengths and shapes disagree.
    CacheError
        The disk has too little room, or the file cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir() or path.is_dir():
        raise UsageError(f"cannot export to '{path}': name a file in a folder that exists.")
    columns = {"ids": _texts(ids)}
    for name, values in (("labels", labels), ("groups", groups), ("splits", splits)):
        if values is not None:
            columns[name] = _column(np.asarray(values))
    for name, column in columns.items():
        if column.shape != (n_samples,):
            raise UsageError(
                f"an export of {n_samples} samples needs as many {name}; got shape {column.shape}."
            )
    feature_bytes = n_samples * n_features * np.dtype(dtype).itemsize
    needed = feature_bytes + sum(column.nbytes for column in columns.values()) + _SPARE_BYTES
    # Beside the target, so that the move is one step. HDF5 dies of a full disk, hence the look ahead.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            free = shutil.disk_usage(path.parent).free
            if free < needed:
                raise CacheError(
                    f"exporting to '{path}' needs {needed:,} bytes, {free:,} are free. Make room, run again."
                )
            offset = _write_frame(temporary, (n_samples, n_features), np.dtype(dtype), columns, provenance)
            with FileIO(temporary, "r+") as file:
                file.seek(offset)
                _write_blocks(file, blocks, n_samples, n_features, np.dtype(dtype))
                sync_file(file)
            move_file(temporary, path)
            sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                remove_file(temporary)
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(
            f"cannot export to '{path}': {error.strerror or error}. Free space or name another file."
        ) from error


def _write_frame(
    temporary: Path,
    shape: tuple[int, int],
    dtype: np.dtype[Any],
    columns: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any],
) -> int:
    """Write all but the features, and return where in the file their bytes belong."""
    with h5py.File(temporary, "x", libver=("v110", "v110")) as file:
        for name, value in provenance.items():
            plain = (
                value
                if isinstance(value, str | int | float)
                else json.dumps(value, ensure_ascii=False, default=str)
            )
            # As text of variable length, which readers give back as text; the data sets have none.
            file.attrs[name] = _texts([plain])[0].decode() if isinstance(plain, str) else plain
        for name, column in columns.items():
            kind = (
                h5py.string_dtype("utf-8", column.dtype.itemsize)
                if column.dtype.kind == "S"
                else column.dtype
            )
            file.create_dataset(name, data=column.astype(kind))
        # Room is set aside but not filled: plain writes, which survive a full disk, put the rows there.
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.CONTIGUOUS)
        creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        stored = h5py.h5t.py_create(dtype.newbyteorder("<"))
        features = h5py.h5d.create(file.id, b"features", stored, h5py.h5s.create_simple(shape), dcpl=creation)
        return int(features.get_offset() or 0)


def _write_blocks(
    file: FileIO, blocks: Iterable[NDArray[Any]], n_samples: int, n_features: int, dtype: np.dtype[Any]
) -> None:
    n_rows = 0
    for block in blocks:
        n_rows += len(block)
        if block.shape[1:] != (n_features,) or n_rows > n_samples:
            raise UsageError(
                f"an export of {n_samples} x {n_features} features got a block of shape {block.shape} "
                f"after {n_rows - len(block)} rows."
            )
        write_all(file, np.ascontiguousarray(block, dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)
    if n_rows != n_samples:
        raise UsageError(f"an export of {n_samples} samples got {n_rows} rows of features.")


def _column(values: NDArray[Any]) -> NDArray[Any]:
    """Make a column either numeric or of texts as bytes of a fixed length."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind in "iuf":
        return values
    missing = np.array([value is None or value != value for value in values.tolist()], bool)
    given = [value for value, absent in zip(values.tolist(), missing, strict=True) if not absent]
    if given and all(isinstance(value, int | float) for value in given):
        numbers = np.full(len(values), np.nan)
        numbers[~missing] = given
        return numbers
    return _texts(
        ["" if absent else str(value) for value, absent in zip(values.tolist(), missing, strict=True)]
    )


def _texts(values: Iterable[Any]) -> NDArray[np.bytes_]:
    encoded = [str(value).encode("utf-8", "surrogateescape") for value in values]
    # Names are bytes to the system; those that are not UTF-8 stay readable, and stay different.
    texts = [name.decode("utf-8", "backslashreplace").encode() for name in encoded]
    return np.array(texts, dtype=f"S{max([1, *map(len, texts)])}")
