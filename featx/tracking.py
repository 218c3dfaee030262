"""A run's folder: what was asked, on what data, with what result, so that it can be read, shown and run again."""

import csv
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import UsageError
from featx.printable import harmless_cell, printable_line

if TYPE_CHECKING:
    from featx.extractors.spec import ExtractorSpec
    from featx.features import Features
    from featx.samples import SampleTable

__all__ = [
    "SCHEMA",
    "check_run_folder",
    "extractor_labels",
    "plain_json",
    "provenance",
    "read_run",
    "sample_records",
    "source_of",
    "write_run",
]

SCHEMA = 1
"""Number of the layout of ``results.json``; a change that an older reader would misread raises it."""

Table = tuple[Sequence[str], Iterable[Sequence[Any]]]

_RESULTS = "results.json"
_COMMAND = "command.txt"

# What runs of either kind, and their reports, leave in a folder beside the results.
_OF_A_RUN = {"results.csv", "folds.csv", "learning_curve.csv", "report.html", _COMMAND}

_KINDS = ("compare", "fewshot")
_VERSIONS = ("featx", "scikit-learn", "numpy", "torch", "torchvision", "Pillow")
_NEXT = "Name a folder that 'featx compare --out' or 'featx fewshot --out' wrote."


class _NewerRun(UsageError):
    """A run that a newer featx wrote."""


def check_run_folder(folder: str | os.PathLike[str] | None, *, kind: str | None = None) -> None:
    """Refuse a folder that a run cannot be written to, before any work is done.

    Parameters
    ----------
    folder : path or None
        None writes nothing, and passes.
    kind : {"compare", "fewshot"}, optional
        Of the run to be written; one of the other kind is not replaced.

    Raises
    ------
    UsageError
        If it is a file or in one, cannot be written to, or holds something else than a run of featx of that kind.
    """
    if folder is None:
        return
    path = Path(folder)
    existing = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise UsageError(f"cannot write a run to '{path}': '{existing}' is no folder. Name another.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        found = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise UsageError(
            f"cannot write a run to '{path}': {error.strerror}. Name a folder that can be written to."
        ) from error
    if not found:
        return
    try:
        before = read_run(path)["kind"]
    except _NewerRun:
        raise
    except UsageError as error:
        if _RESULTS in found and set(found) <= {_RESULTS, *_OF_A_RUN}:
            return  # a run that was damaged: nothing else is there to lose
        raise UsageError(
            f"'{path}' holds {found[0]!r} and no run of featx. Name a new or an empty folder."
        ) from error
    if kind is not None and before != kind:
        raise UsageError(
            f"'{path}' holds a run of 'featx {before}', which one of 'featx {kind}' would replace. Name another folder."
        )


def write_run(
    folder: str | os.PathLike[str], *, results: Mapping[str, Any], tables: Mapping[str, Table]
) -> None:
    """Write a run: ``results.json``, a CSV file for each table, and ``command.txt`` where there is a command.

    Each file appears whole or not at all, the results last; files of an earlier run are replaced, or removed where
    this one has none of that name.

    Parameters
    ----------
    folder : path
        Made where it is missing.
    results : mapping
        Plain values, with ``command`` and ``directory``; what is not finite becomes null. The schema's number is
        added.
    tables : mapping of str to (header, rows)
        By the name of the file, without ``.csv``. Cells that a spreadsheet would run are made text.

    Raises
    ------
    UsageError
        As `check_run_folder` does.
    OSError
        If a file cannot be written.
    """
    check_run_folder(folder, kind=results["kind"])
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    files: dict[str, Iterable[bytes]] = {
        f"{name}.csv": _csv(header, rows) for name, (header, rows) in tables.items()
    }
    if results.get("command"):
        place = f"cd {shlex.quote(results['directory'])} &&\n" if results.get("directory") else ""
        files[_COMMAND] = [os.fsencode(f"{place}{results['command']}\n")]
    text = json.dumps(plain_json({**results, "schema": SCHEMA}), indent=1, allow_nan=False)
    files[_RESULTS] = [f"{text}\n".encode()]
    written: list[tuple[Path, Path]] = []
    try:
        for name, content in files.items():
            temporary = path / f".{uuid.uuid4().hex}.tmp"
            written.append((temporary, path / name))
            with temporary.open("xb") as file:
                file.writelines(content)
                file.flush()
                os.fsync(file.fileno())
        for name in _OF_A_RUN - files.keys():
            (path / name).unlink(missing_ok=True)
        for temporary, target in written:
            temporary.replace(target)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def read_run(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the ``results.json`` of a run.

    Raises
    ------
    UsageError
        If there is none, featx did not write it, or a newer featx did.
    """
    path = Path(folder) / _RESULTS
    if not Path(folder).is_dir():
        given = Path(folder)
        way = f"Name the folder: '{given.parent}'." if (given.parent / _RESULTS).is_file() else _NEXT
        raise UsageError(f"'{given}' is no folder, so no run of featx. {way}")
    try:
        results = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the run '{path}': {error.strerror}. {_NEXT}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"'{path}' is not JSON, so damaged or no run of featx: {error}. Make the run again, in the same folder."
        ) from error
    number = results.get("schema") if isinstance(results, dict) else None
    if type(number) is not int:
        raise UsageError(f"'{path}' is no run of featx: it lacks a schema. {_NEXT}")
    if number <= SCHEMA and (kind := results.get("kind")) not in _KINDS:
        raise UsageError(
            f"'{path}' is no run of featx: kind {kind!r}; expected {' or '.join(_KINDS)}. {_NEXT}"
        )
    if number > SCHEMA:
        raise _NewerRun(
            f"'{path}' has schema {number}, of a newer featx; this one reads up to {SCHEMA}. Upgrade featx."
        )
    assert isinstance(results, dict)
    return results


def provenance(
    features: "Features", table: "SampleTable", *, task: str, n_unlabelled: int, source: str
) -> dict[str, Any]:
    """Return ``created, versions, data, extractors`` of a run's results.

    Parameters
    ----------
    features : Features
        What the run worked on.
    table : SampleTable
        The samples that they were extracted from, those that failed included.
    task : {"classification", "regression"}
        What the labels were used for: numbers are classes, or are not.
    n_unlabelled : int
        How many more had no label.
    source : str
        What the user called the data.
    """
    labels = np.empty(0) if features.y is None or task == "regression" else features.y
    classes, counts = np.unique(labels, return_counts=True)
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            **{name: importlib.metadata.version(name) for name in _VERSIONS},
            "python": platform.python_version(),
        },
        "data": {
            "source": source,
            "root": None if table.items is not None else str(Path(table.root).absolute()),
            "digest": _data_digest(features),
            "n_samples": len(features.ids),
            "n_failed": len(features.failures),
            "failures": [
                {"id": printable_line(failure.id), "reason": failure.reason} for failure in features.failures
            ],
            "n_unlabelled": n_unlabelled,
            "n_duplicates": len(features.keys) - len(np.unique(features.keys, axis=0)),
            "classes": classes.tolist(),
            "counts": counts.tolist(),
        },
        "extractors": [
            {
                "text": spec.text,
                "label": label,
                "fingerprint": spec.fingerprint,
                "identity": spec.identity,
                "n_features": spec.n_features,
            }
            for spec, label in zip(features.specs, extractor_labels(features.specs), strict=True)
        ],
    }


def sample_records(
    features: "Features", table: "SampleTable", rows: Iterable[int]
) -> dict[str, dict[str, Any]]:
    """Return ``id, path, label, key`` of some rows of the features, by the row's number as text.

    The path is absolute, and None for pictures in memory. The key tells whether the file is still the same.
    """
    failed = [failure.row for failure in features.failures]
    in_table = np.delete(np.arange(len(table)), failed)
    return {
        str(row): {
            "id": printable_line(features.ids[row]),
            "path": None
            if table.items is not None
            else str(Path(table.uri_at(int(in_table[row]))).absolute()),
            "label": None if features.y is None else features.y[row].item(),
            "key": features.keys[row].tobytes().hex(),
        }
        for row in map(int, rows)
    }


def source_of(samples: Any) -> str:
    """Return what a user would call these samples: the path as given, a table's folder, or the kind of object."""
    if isinstance(samples, str | bytes | os.PathLike):
        return os.fsdecode(samples)
    root = getattr(samples, "root", None)
    return root if isinstance(root, str) and root else type(samples).__name__


def extractor_labels(specs: "Sequence[ExtractorSpec]") -> list[str]:
    """Return a short name for each extractor: its own, and as many of its keys as tell it from the others.

    A path is shortened to the name of its file.
    """
    labels = [spec.name for spec in specs]
    if len(set(labels)) == len(labels):
        return labels
    keys = [_short_keys(spec.text) for spec in specs]
    for at, spec in enumerate(specs):
        rivals = [
            keys[other] for other in range(len(specs)) if other != at and specs[other].name == spec.name
        ]
        telling = [key for key in keys[at] if any(key not in rival for rival in rivals)]
        labels[at] = ":".join([spec.name, *telling])
    # Such as two files of the same name in two folders.
    return labels if len(set(labels)) == len(labels) else [spec.text for spec in specs]


def plain_json(value: Any) -> Any:
    """Return what strict JSON can hold: numpy's values as Python's, what is not finite as null, others as text."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else repr(value)


def _short_keys(text: str) -> list[str]:
    pairs = (pair.partition("=") for pair in text.split(":")[1:])
    return [f"{key}={value.rpartition('/')[2]}" for key, _, value in pairs]


def _data_digest(features: "Features") -> str:
    """Return SHA-256 over the sorted rows, so that the same data has the same digest wherever it lies."""
    columns = [features.y, features.groups, features.splits]
    rows = [
        [key.tobytes().hex(), *(None if column is None else column[row] for column in columns)]
        for row, key in enumerate(features.keys)
    ]
    lines = sorted(json.dumps(plain_json(row)) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Give the lines of a table, which may have more rows than fit into memory."""
    lines: Any = csv.writer(SimpleNamespace(write=str.encode), lineterminator="\n")
    for row in itertools.chain([header], rows):
        yield lines.writerow([harmless_cell(cell) for cell in row])
