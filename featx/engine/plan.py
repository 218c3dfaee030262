"""What a run has to do: whose vectors are asked for, which rows lack one, and which of these are one unit of work."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.cache import MISSING, Hints, Store, extractor_directory
from featx.engine.identify import identify
from featx.errors import SampleIOError
from featx.extractors.spec import ExtractorSpec, Request
from featx.samples import SampleTable, decoder_versions

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["KEY_BYTES", "Keys", "Task", "known_keys", "missing_rows", "open_tasks"]

KEY_BYTES = 32


@dataclass(frozen=True)
class Task:
    """One extractor asked for: how it was asked, what it is, and where its vectors are.

    Attributes
    ----------
    asked : Request or ModuleExtractor
    spec : ExtractorSpec
    store : Store
    """

    asked: "Request | ModuleExtractor"
    spec: ExtractorSpec
    store: Store


@dataclass(frozen=True)
class Keys:
    """The digest of every row, as far as it is known.

    Attributes
    ----------
    values : ndarray of shape (n_samples, 32), uint8
    known : ndarray of shape (n_samples,), bool
    """

    values: np.ndarray
    known: np.ndarray


def open_tasks(
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | None,
    device: str,
    precision: str,
    hints: Hints,
    stores: dict[str, Store] | None = None,
) -> list[Task]:
    """Identify extractors and open where their vectors are; an extractor asked for twice is one task.

    Parameters
    ----------
    asked : sequence of Request or ModuleExtractor
        From `read_extractors`.
    cache : Path or None
        The cache; None keeps vectors in memory.
    device, precision : str
        As the user gave them, ``auto`` included.
    hints : Hints
        The cache's hints.
    stores : dict of str to Store, optional
        Stores that are open already, by where they are and their fingerprint; new ones are added.

    Returns
    -------
    list of Task
        In the order asked.
    """
    stores = {} if stores is None else stores
    tasks: list[Task] = []
    for one in asked:
        spec = identify(one, device=device, precision=precision, hints=hints)
        place = f"{cache}:{spec.fingerprint}"
        if place not in stores:
            stores[place] = Store(
                None if cache is None else extractor_directory(cache, spec.name, spec.fingerprint),
                identity=spec.identity,
                fingerprint=spec.fingerprint,
                n_features=spec.n_features,
                dtype=np.dtype(spec.dtype),
                decoder=decoder_versions(spec.pixels),  # type: ignore[arg-type]  # a spec has only these
            )
        else:
            stores[place].refresh()
        tasks.append(Task(one, spec, stores[place]))
    return tasks


def known_keys(table: SampleTable, hints: Hints) -> Keys:
    """Return the digests that the hints remember for files that have not changed since.

    Parameters
    ----------
    table : SampleTable
    hints : Hints

    Returns
    -------
    Keys
        Rows held in memory, and files the hints do not know, are not known.
    """
    keys = Keys(np.zeros((len(table), KEY_BYTES), np.uint8), np.zeros(len(table), bool))
    chunk = 10_000
    for start in range(0, len(table), chunk):
        rows = range(start, min(start + chunk, len(table)))
        stats = [_stat(table, row) for row in rows]
        asked = [(table.uri_at(row), stat) for row, stat in zip(rows, stats, strict=True) if stat is not None]
        there = [row for row, stat in zip(rows, stats, strict=True) if stat is not None]
        for row, digest in zip(there, hints.digests(asked), strict=True):
            if digest is not None:
                keys.values[row] = np.frombuffer(digest, np.uint8)
                keys.known[row] = True
    return keys


def missing_rows(keys: Keys, tasks: Sequence[Task]) -> np.ndarray:
    """Return which rows have to be read: those without a known digest, or without a vector in every store.

    Returns
    -------
    ndarray of int64
        Row numbers in ascending order. Any part of them is a unit of work: running it twice, or two at once,
        is harmless, and it ends in published shards.
    """
    todo = ~keys.known
    for task in tasks:
        todo[keys.known] |= task.store.lookup(keys.values[keys.known]) == MISSING
    return np.flatnonzero(todo)


def _stat(table: SampleTable, row: int) -> os.stat_result | None:
    try:
        return table.stat(row)
    except SampleIOError:  # said when the row is read
        return None
