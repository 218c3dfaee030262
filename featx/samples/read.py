"""read_samples: the one door through which data becomes a SampleTable; each kind is read elsewhere."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featx.errors import UsageError
from featx.samples.folder import IMAGE_EXTENSIONS, read_folder
from featx.samples.labels import arrow_array, label_column, name_column
from featx.samples.manifest import MANIFEST_EXTENSIONS, likely_column, read_manifest, table_from_columns
from featx.samples.memory import is_instance_of, read_memory
from featx.samples.table import SampleTable

__all__ = ["read_labelled", "read_samples"]


def read_samples(data: Any, *, labels: Any = None, groups: Any = None) -> SampleTable:
    """Describe data as samples in a fixed order, whatever form it has.

    Parameters
    ----------
    data : object
        One of:

        - a path (str, bytes or PathLike): a folder of class folders, a flat folder, a manifest (.csv, .tsv,
          .parquet with a column `path`), a text file of paths (.txt, .lst), or one image;
        - a list, tuple, array or pandas Series of paths, which start from the current directory; an array
          of shape (n_samples, 1) too;
        - a pandas DataFrame with the columns of a manifest, or with one column, of paths;
        - a list of PIL images or uint8 arrays, a uint8 array of shape (n_samples, height, width) or
          (n_samples, height, width, 1|3|4), or a map-style torch Dataset;
        - a SampleTable, which is returned as it is.
    labels, groups : array-like of shape (n_samples,), optional
        Take the place of the labels and groups that `data` brings.

    Returns
    -------
    SampleTable

    Raises
    ------
    UsageError
        If `data` is none of these, is empty or does not exist, or `labels` or `groups` do not fit it.
    SampleIOError
        If a folder cannot be listed.

    Examples
    --------
    >>> from featx.samples import read_samples
    >>> samples = read_samples(["photos/a.jpg", "photos/b.jpg"], labels=["cat", "dog"])
    >>> samples.ids.tolist(), samples.classes
    (['photos/a.jpg', 'photos/b.jpg'], ['cat', 'dog'])
    """
    table = _read(data)
    if labels is not None:
        table = replace(table, label_column=label_column(_fitting(labels, table, "labels"), what="labels"))
    if groups is not None:
        table = replace(table, group_column=name_column(_fitting(groups, table, "groups"), what="groups"))
    return table


def read_labelled(data: Any, *, labels: Any = None, groups: Any = None) -> tuple[SampleTable, int]:
    """Describe data as samples that all have a label.

    Parameters
    ----------
    data, labels, groups
        As for `read_samples`.

    Returns
    -------
    samples : SampleTable
        Without those that have no label.
    n_unlabelled : int
        How many these are.

    Raises
    ------
    UsageError, SampleIOError
        As for `read_samples`, and if no sample has a label.
    """
    table = read_samples(data, labels=labels, groups=groups)
    labelled = table.labelled
    if labelled.all():
        return table, 0
    if not labelled.any():
        likely = likely_column(table.columns, "label")
        way = (
            "a manifest with a column 'label'"
            if likely is None
            else f"rename the column {likely!r} to 'label'"
        )
        raise UsageError(f"the samples have no labels. Use a folder of class folders, {way}, or pass labels.")
    return table.take(labelled), int((~labelled).sum())


def _fitting(values: Any, table: SampleTable, what: str) -> pa.Array:
    column = arrow_array(values, what=what)
    if len(column) != len(table):
        raise UsageError(f"{what}: expected one for each of {len(table)} samples, got {len(column)}")
    return column


def _read(data: Any) -> SampleTable:
    if isinstance(data, SampleTable):
        return data
    if isinstance(data, str | bytes | os.PathLike):
        return _read_path(os.fsdecode(data))
    if is_instance_of(data, "pandas", "DataFrame"):
        return _read_frame(data)
    if is_instance_of(data, "pandas", "Series") or is_instance_of(data, "pandas", "Index"):
        data = data.tolist()
    if isinstance(data, np.ndarray):
        data = _listed(data)
    if isinstance(data, Mapping) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise UsageError(
            f"cannot read samples from {type(data).__name__}; expected a folder, a manifest, paths, images, "
            "uint8 arrays, or a map-style dataset (with __len__ and __getitem__)"
        )
    if len(data) == 0:
        raise UsageError(f"no samples: {type(data).__name__} is empty")
    if isinstance(data, list | tuple) and isinstance(data[0], str | bytes | os.PathLike):
        return _from_paths({"path": data}, source="list of paths")
    return read_memory(data)


def _read_path(path: str) -> SampleTable:
    if Path(path).is_dir():
        return read_folder(path)
    if not os.path.lexists(path):
        raise UsageError(f"{path!r}: no such file or folder. Check the path.")
    suffix = Path(path).suffix.lower()
    if suffix in MANIFEST_EXTENSIONS:
        return read_manifest(path)
    if suffix in IMAGE_EXTENSIONS:
        file = Path(path).absolute()
        return SampleTable(
            id_column=pa.array([os.fsencode(file.name)], type=pa.large_binary()), root=str(file.parent)
        )
    raise UsageError(
        f"{path!r}: expected a folder, a manifest ({' '.join(MANIFEST_EXTENSIONS)}) "
        f"or an image ({' '.join(IMAGE_EXTENSIONS)})"
    )


def _read_frame(frame: Any) -> SampleTable:
    names = [str(name) for name in frame.columns]
    if len(names) == 1:
        names = ["path"]  # what scikit-learn's ColumnTransformer hands over, under the user's own name
    if len(set(names)) < len(names):
        raise UsageError(f"DataFrame: expected distinct columns, got {', '.join(map(repr, names))}")
    columns = {name: frame.iloc[:, position] for position, name in enumerate(names)}
    if "path" in columns:
        columns["path"] = columns["path"].tolist()
    return _from_paths(columns, source="DataFrame")


def _from_paths(columns: Mapping[str, Any], *, source: str) -> SampleTable:
    if "path" in columns:
        columns = {**columns, "path": _encoded(columns["path"], source)}
    return table_from_columns(columns, root=str(Path.cwd()), source=source)


def _encoded(paths: Iterable[Any], source: str) -> pa.Array:
    encoded: list[bytes] = []
    try:
        encoded.extend(map(os.fsencode, paths))
    except (TypeError, UnicodeEncodeError) as error:
        path = next(path for row, path in enumerate(paths) if row == len(encoded))
        raise UsageError(f"{source}, row {len(encoded) + 1}: expected a path, got {path!r:.80}") from error
    return pa.array(encoded, type=pa.large_binary())


def _listed(array: np.ndarray[Any, Any]) -> Any:
    """Give an array of paths or objects as a list, and an array of images as it is."""
    if array.dtype.kind in "OUS":
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise UsageError(f"array of paths: expected shape (n,) or (n, 1), got {array.shape}")
        return array.tolist()
    if array.dtype != np.uint8:
        raise UsageError(
            f"array of images: expected uint8, got {array.dtype}; "
            "drop normalisation, the extractor brings its own"
        )
    if array.ndim not in (3, 4) or (array.ndim == 3 and array.shape[2] in (1, 3, 4)):
        raise UsageError(
            "array of images: expected shape (n, h, w) or (n, h, w, 1|3|4), "
            f"got {array.shape}; put a single image in a list"
        )
    return array
