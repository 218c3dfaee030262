"""CSV, TSV and Parquet manifests and text files of paths as a SampleTable; the samples are not opened."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featx.errors import UsageError
from featx.samples.labels import arrow_array, label_column, name_column, numbers_where_canonical
from featx.samples.table import SampleTable

__all__ = ["MANIFEST_EXTENSIONS", "likely_column", "read_manifest", "table_from_columns"]

_log = logging.getLogger(__name__)

MANIFEST_EXTENSIONS = (".csv", ".tsv", ".parquet", ".txt", ".lst")
"""Tables with a header (the first three) and text files with a path on each line."""

_LIKELY_NAMES = {
    "path": (
        "path",
        "paths",
        "file",
        "file_name",
        "file_path",
        "filename",
        "filepath",
        "image",
        "image_path",
    ),
    "label": ("label", "labels", "class", "category", "target"),
    "group": ("group", "groups"),
    "split": ("split", "splits"),
}
_NAMED = 8


def read_manifest(path: str) -> SampleTable:
    """Read a manifest; relative paths in it start from its own folder.

    A table has a column `path` and may have `label`, `group` and `split`; other columns are kept. An empty
    cell is missing, "NA" and "null" are text like any other. CSV labels are numbers when all of them are
    canonical numbers ("7", "-0.5", not "007"); Parquet labels keep their type.

    Parameters
    ----------
    path : str
        A file that ends in .csv, .tsv, .parquet, .txt or .lst.

    Returns
    -------
    SampleTable
        Ids are the paths as given, and relative where they lie in the manifest's folder.

    Raises
    ------
    UsageError
        If the file cannot be read, is empty or no text, has no column `path`, or a path in it is empty.
    """
    file = Path(path).absolute()
    try:
        if file.suffix.lower() in (".txt", ".lst"):
            content = file.read_bytes()
            _require_text(content, path)
            columns = {"path": _lines(content)}
        else:
            columns = _parquet(file) if file.suffix.lower() == ".parquet" else _csv(file, path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last for the names of columns
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"cannot read manifest {path!r}: {reason.removesuffix('.')}. Mend it, or name another."
        ) from error
    root, source = str(file.parent), f"manifest {path!r}"
    if "path" in columns:
        columns["path"] = _relative_where_inside(_paths(columns["path"], source), root)
    return table_from_columns(columns, root=root, source=source)


def table_from_columns(columns: Mapping[str, Any], *, root: str, source: str) -> SampleTable:
    """Make a SampleTable from columns named as in a manifest.

    Parameters
    ----------
    columns : mapping of str to array-like of shape (n_samples,)
        `path`, and optionally `label`, `group`, `split` and others.
    root : str
        The folder that relative paths start from, itself absolute.
    source : str
        Where the columns come from, for errors and the log.

    Returns
    -------
    SampleTable

    Raises
    ------
    UsageError
        If `path` is missing, has an empty cell or is not text, or there is no row.
    """
    if "path" not in columns:
        names = [f"{name!r:.60}" for name in columns]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise UsageError(
            f"{source} has no column 'path'; its columns are {', '.join(names[:_NAMED])}{more}. "
            f"{_advice(list(columns))}"
        )
    paths = _paths(columns["path"], source)
    if len(paths) == 0:
        raise UsageError(f"{source} is empty; expected a path for each sample")
    empty = np.flatnonzero(pc.equal(paths, b"").fill_null(True).to_numpy(zero_copy_only=False))
    if len(empty):
        raise UsageError(f"{source}, row {empty[0] + 1}: the path is empty")
    ids = _unique(paths, source)
    label, group, split = (columns.get(name) for name in ("label", "group", "split"))
    for name in ("group", "split"):
        if name not in columns and (likely := likely_column(columns, name)) is not None:
            _log.warning("%s: column %r is not used as %r; rename it to have it used", source, likely, name)
    known = ("path", "label", "group", "split")
    return SampleTable(
        id_column=ids,
        path_column=None if ids is paths else paths,
        root=root,
        label_column=None if label is None else label_column(label, what=f"{source}, column 'label'"),
        group_column=None if group is None else name_column(group, what=f"{source}, column 'group'"),
        split_column=None if split is None else name_column(split, what=f"{source}, column 'split'"),
        columns={
            name: arrow_array(values, what=f"{source}, column {name!r}")
            for name, values in columns.items()
            if name not in known
        },
    )


def likely_column(names: Iterable[str], meant: str) -> str | None:
    """Return the first name that may be meant for ``path``, ``label``, ``group`` or ``split``; for hints only."""
    return next((name for name in names if str(name).strip().lower() in _LIKELY_NAMES[meant]), None)


def _advice(names: Sequence[str]) -> str:
    separator = next((char for char in ";\t|," if len(names) == 1 and char in names[0]), None)
    if separator is not None:
        return f"They are separated by {separator!r}; expected ',' in .csv and a tab in .tsv."
    if (likely := likely_column(names, "path")) is not None:
        return f"Rename {likely!r} to 'path'."
    return "Name the column of paths 'path'; the first line of a CSV names its columns."


def _require_text(content: bytes, path: str) -> None:
    if b"\0" in content:
        raise UsageError(
            f"manifest {path!r} holds NUL bytes; expected text in UTF-8. Save it so, or name another file."
        )


def _csv(file: Path, path: str) -> dict[str, pa.Array]:
    from pyarrow import csv

    text = pa.string()
    with file.open("rb") as stream:
        beginning = stream.peek()
        if not beginning:
            raise UsageError(
                f"manifest {path!r} is empty; expected a first line that names columns: path,label"
            )
        _require_text(beginning, path)
        table = csv.read_csv(
            stream,
            parse_options=csv.ParseOptions(
                delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True
            ),
            convert_options=csv.ConvertOptions(
                # Paths may hold bytes that are no text; of the rest, only what featx uses has a fixed type.
                column_types={"path": pa.large_binary(), "label": text, "group": text, "split": text},
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    columns = _columns(table)
    if "label" in columns:
        columns["label"] = numbers_where_canonical(columns["label"])
    return columns


def _parquet(file: Path) -> dict[str, pa.Array]:
    from pyarrow import parquet

    with file.open("rb") as stream:
        return _columns(parquet.ParquetFile(stream).read())


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise pa.ArrowInvalid(f"column {twice[0]!r} appears twice")
    return {
        name: arrow_array(column, what=f"column {name!r}")
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _paths(values: Any, source: str) -> pa.Array:
    paths = arrow_array(values, what=f"{source}, column 'path'")
    if pa.types.is_dictionary(paths.type):
        paths = paths.cast(paths.type.value_type)
    try:
        return paths.cast(pa.large_binary())
    except pa.ArrowException as error:
        raise UsageError(f"{source}, column 'path': expected text, got {paths.type}") from error


def _lines(content: bytes) -> pa.Array:
    # Only "\n" ends a line: a name may hold any other byte, U+0085 and form feeds among them.
    lines = (line.removesuffix(b"\r") for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    return pa.array([line for line in lines if line.strip()], type=pa.large_binary())


def _relative_where_inside(paths: pa.Array, root: str) -> pa.Array:
    """Cut the root off the absolute paths that lie in it: the same id wherever the data set is moved."""
    prefix = os.fsencode(root).rstrip(b"/") + b"/"
    # A second slash after the prefix would leave an absolute path, to another file.
    inside = pc.and_not(pc.starts_with(paths, pattern=prefix), pc.starts_with(paths, pattern=prefix + b"/"))
    shortened = [path.as_py()[len(prefix) :] for path in paths.filter(inside)]
    if not shortened:
        return paths
    return pc.replace_with_mask(paths, inside, pa.array(shortened, type=pa.large_binary()))


def _unique(paths: pa.Array, source: str) -> pa.Array:
    """Append "#2", "#3"... to the later of equal paths; the same array when all differ."""
    encoded = paths.dictionary_encode()
    if len(encoded.dictionary) == len(paths):
        return paths
    # Only a path with a "#" in it can be what a new id would collide with.
    taken = set(paths.filter(pc.match_substring(paths, pattern="#")).to_pylist())
    index = encoded.indices.to_numpy()
    first = np.zeros(len(paths), dtype=bool)
    first[np.unique(index, return_index=True)[1]] = True
    seen: Counter[int] = Counter()
    ids = []
    for row in np.flatnonzero(~first):
        path = paths[row].as_py()
        number = seen[index[row]] + 2
        while (name := path + b"#%d" % number) in taken:
            number += 1
        seen[index[row]] = number - 1
        ids.append(name)
    _log.warning("%s: %d rows name a path again; their ids end in #2, #3...", source, len(ids))
    return pc.replace_with_mask(paths, pa.array(~first), pa.array(ids, type=pa.large_binary()))
