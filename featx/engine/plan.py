"""What a run has to do: whose vectors are asked for, which rows lack one, and which of these are one unit of work."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.cache import MISSING, Hints, Store, extractor_directory
from featx.engine.identify import identify
from featx.engine.progress import Progress
from featx.extractors.spec import ExtractorSpec, Request
from featx.samples import SampleTable, decoder_versions

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["KEY_BYTES", "Keys", "OpenCache", "Task", "known_keys", "missing_rows", "open_tasks"]

KEY_BYTES = 32
_ROWS_AT_ONCE = 10_000


class OpenCache:
    """What one process has open of a cache: its hints, and the stores of the extractors it asked for.

    Parameters
    ----------
    directory : Path or None
        The cache; None keeps vectors and hints in memory, for as long as this object lives.

    Attributes
    ----------
    directory : Path or None
    hints : Hints
    turn : threading.Lock
        Whose turn it is to fill stores in memory; those in a folder have `featx.cache.turn`.
    """

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.hints = Hints(None if directory is None else directory / "hints.sqlite")
        self.turn = threading.Lock()
        self._stores: dict[str, Store] = {}

    def store(self, spec: ExtractorSpec) -> Store:
        """Return the store of one extractor, with all that has been published so far."""
        store = self._stores.get(spec.fingerprint)
        if store is not None:
            store.refresh()
            return store
        root = self.directory
        store = Store(
            None if root is None else extractor_directory(root, spec.name, spec.fingerprint),
            identity=spec.identity,
            fingerprint=spec.fingerprint,
            n_features=spec.n_features,
            dtype=np.dtype(spec.dtype),
            decoder=decoder_versions(spec.pixels),
        )
        return self._stores.setdefault(spec.fingerprint, store)


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

    def positions(self, store: Store) -> np.ndarray:
        """Return what `store.lookup` says of every row, int64; MISSING where no digest is known."""
        positions = np.full(len(self.known), MISSING, np.int64)
        for start in range(0, len(self.known), _ROWS_AT_ONCE):  # no second copy of all digests
            known = start + np.flatnonzero(self.known[start : start + _ROWS_AT_ONCE])
            positions[known] = store.lookup(self.values[known])
        return positions


def open_tasks(
    asked: "Sequence[Request | ModuleExtractor]",
    opened: OpenCache,
    *,
    device: str,
    precision: str,
    progress: Callable[[Progress], None] | None = None,
) -> list[Task]:
    """Identify extractors and open where their vectors are.

    Parameters
    ----------
    asked : sequence of Request or ModuleExtractor
        From `read_extractors`.
    opened : OpenCache
    device, precision : str
        As the user gave them, ``auto`` included.
    progress : callable, optional
        As for `identify`.

    Returns
    -------
    list of Task
        In the order asked.
    """
    specs = [
        identify(one, device=device, precision=precision, hints=opened.hints, progress=progress)
        for one in asked
    ]
    return [Task(one, spec, opened.store(spec)) for one, spec in zip(asked, specs, strict=True)]


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
    for start in range(0, len(table), _ROWS_AT_ONCE):
        paths = table.paths(start, start + _ROWS_AT_ONCE)
        digests = hints.digests([(path, _stat(path)) for path in paths])
        known = np.array([digest is not None for digest in digests], bool)
        rows = start + np.flatnonzero(known)
        keys.known[rows] = True
        keys.values[rows] = np.frombuffer(b"".join(filter(None, digests)), np.uint8).reshape(-1, KEY_BYTES)
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
        todo |= keys.positions(task.store) == MISSING
    return np.flatnonzero(todo)


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # said when the row is read
        return None
