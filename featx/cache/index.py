"""Which row of which shard serves a key: an immutable table over validated shards; nothing is published."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.cache.shard import FAILURE, KEY_BYTES, VECTOR, Shard

__all__ = ["FAILED", "MISSING", "Index", "KeyTable", "KeyTables"]

MISSING = -1
FAILED = -2
_KEYS_AT_ONCE = 16_384
"""How many are looked up at a time: what is in between costs about a hundred bytes a key."""

KeysAt = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Gives the keys, of shape (m, 32), at m positions."""


@dataclass(frozen=True, eq=False)
class KeyTable:
    """Where keys are, sorted by their first 8 bytes; among equal keys the one that was added first is found.

    The keys themselves stay in their shards: 16 bytes a key here, and no copy of them all when tables are joined.

    Attributes
    ----------
    prefixes : ndarray of shape (n,), dtype uint64, sorted
    positions : ndarray of shape (n,), dtype int64
    """

    prefixes: NDArray[np.uint64]
    positions: NDArray[np.int64]

    @classmethod
    def of(cls, keys: Sequence[NDArray[np.uint8]], positions: Sequence[NDArray[np.int64]]) -> "KeyTable":
        """Return a table of keys, each after those before it."""
        return cls._sorted([_prefixes(part) for part in keys], positions)

    @classmethod
    def _sorted(
        cls, prefixes: Sequence[NDArray[np.uint64]], positions: Sequence[NDArray[np.int64]]
    ) -> "KeyTable":
        all_prefixes = np.concatenate([np.empty(0, np.uint64), *prefixes])
        # Stable, so that equal keys keep their order; on sorted parts this is little more than a merge.
        order = np.argsort(all_prefixes, kind="stable")
        return cls(all_prefixes[order], np.concatenate([np.empty(0, np.int64), *positions])[order])

    def followed_by(self, later: "KeyTable") -> "KeyTable":
        """Return a table of these keys and, after them, those of another."""
        return self._sorted((self.prefixes, later.prefixes), (self.positions, later.positions))

    def find(self, keys: NDArray[np.uint8], keys_at: KeysAt) -> NDArray[np.int64]:
        """Position of each key, or MISSING.

        Parameters
        ----------
        keys : ndarray of shape (m, 32), dtype uint8
        keys_at : callable
            Gives the keys, of shape (k, 32), at k positions of the table.

        Returns
        -------
        ndarray of shape (m,), dtype int64
        """
        found = np.full(len(keys), MISSING, np.int64)
        wanted = _prefixes(keys)
        at = np.searchsorted(self.prefixes, wanted)
        pending = np.arange(len(keys))
        # Almost always one step; keys that only share a prefix take one more for each of them.
        while True:
            pending = pending[at[pending] < len(self.prefixes)]
            pending = pending[self.prefixes[at[pending]] == wanted[pending]]
            if not len(pending):
                return found
            positions = self.positions[at[pending]]
            equal = (keys_at(positions) == keys[pending]).all(axis=1)
            found[pending[equal]] = positions[equal]
            pending = pending[~equal]
            at[pending] += 1


@dataclass(frozen=True, eq=False)
class KeyTables:
    """Tables looked through from first to last, each at least twice as long as the next.

    So adding a shard to millions of keys costs what its own keys cost times the logarithm of their number, and not a
    copy of them all.

    Attributes
    ----------
    tables : tuple of KeyTable
    """

    tables: tuple[KeyTable, ...] = ()

    def extended(
        self, keys: Sequence[NDArray[np.uint8]], positions: Sequence[NDArray[np.int64]]
    ) -> "KeyTables":
        """Return the tables with more keys, each after those already there."""
        if not keys:
            return self
        *longer, last = *self.tables, KeyTable.of(keys, positions)
        while longer and len(longer[-1].positions) < 2 * len(last.positions):
            last = longer.pop().followed_by(last)
        return KeyTables((*longer, last))

    def find(self, keys: NDArray[np.uint8], keys_at: KeysAt) -> NDArray[np.int64]:
        """Position of each key, or MISSING; like `KeyTable.find`."""
        found = np.full(len(keys), MISSING, np.int64)
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = found[start : start + _KEYS_AT_ONCE]
            for table in self.tables:
                pending = np.flatnonzero(part == MISSING)
                part[pending] = table.find(keys[start + pending], keys_at)
        return found


@dataclass(frozen=True, eq=False)
class Index:
    """All shards of one extractor as one lookup.

    A position counts the rows of all shards in the order they were first seen, so it keeps its meaning for as
    long as the index and its successors live, whatever is published or pruned meanwhile.

    Attributes
    ----------
    decoder : str
        Failures that another decoder met are not served: this one might succeed.
    shards : tuple of Shard
        Every shard seen so far.
    ends : ndarray of shape (n_shards,), dtype int64
        The position after the last row of each shard.
    slots : dict
        Name -> place in ``shards``, of those that serve.
    vectors, failures : KeyTables
    """

    decoder: str
    shards: tuple[Shard, ...] = ()
    ends: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    slots: dict[str, int] = field(default_factory=dict)
    vectors: KeyTables = KeyTables()
    failures: KeyTables = KeyTables()

    def changed(self, *, added: Sequence[Shard] = (), gone: Collection[str] = ()) -> "Index":
        """Return the index with some shards more, and some that no longer serve."""
        shards = (*self.shards, *added)
        ends = np.cumsum([len(shard.status) for shard in shards], dtype=np.int64)
        slots = {name: slot for name, slot in self.slots.items() if name not in gone}
        newest = max((shards[slot].rank for slot in slots.values()), default=None)
        new = {shard.name: slot for slot, shard in enumerate(added, start=len(self.shards))}
        slots.update(new)
        if not gone and (newest is None or all(shard.rank > newest for shard in added)):
            serving, vectors, failures = new.values(), self.vectors, self.failures
        else:
            # An older shard came in, or one went: whom a key's rows belong to is decided afresh.
            serving, vectors, failures = slots.values(), KeyTables(), KeyTables()
        parts: dict[int, tuple[list[Any], list[Any]]] = {VECTOR: ([], []), FAILURE: ([], [])}
        for slot in sorted(serving, key=lambda slot: shards[slot].rank):
            shard = shards[slot]
            for status, (keys, positions) in parts.items():
                rows = np.flatnonzero(shard.status == status)
                if len(rows) and (status == VECTOR or shard.decoder == self.decoder):
                    keys.append(shard.keys[rows])
                    positions.append(rows + ends[slot] - len(shard.status))
        return Index(
            decoder=self.decoder,
            shards=shards,
            ends=ends,
            slots=slots,
            vectors=vectors.extended(*parts[VECTOR]),
            failures=failures.extended(*parts[FAILURE]),
        )

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Position of the vector that serves each key, of shape (m, 32), else FAILED or MISSING."""
        found = self.vectors.find(keys, self.keys_at)
        missing = np.flatnonzero(found == MISSING)
        found[missing] = np.where(self.failures.find(keys[missing], self.keys_at) == MISSING, MISSING, FAILED)
        return found

    def reason(self, key: NDArray[np.uint8]) -> str | None:
        """Why the sample of a key of shape (1, 32) failed; None when no failure is remembered."""
        position = self.failures.find(key, self.keys_at)
        if position[0] == MISSING:
            return None
        [(shard, _, rows)] = self._by_shard(position)
        return shard.reason(int(rows[0]))

    def keys_at(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Keys, of shape (m, 32), of the rows at some positions."""
        keys = np.empty((len(positions), KEY_BYTES), np.uint8)
        for shard, where, rows in self._by_shard(positions):
            keys[where] = shard.keys[rows]
        return keys

    def read(self, positions: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Read the vectors at some positions into a C-contiguous array of shape (m, n_features)."""
        part = into[:0].copy()
        for shard, where, rows in self._by_shard(positions):
            assert not shard.status[rows].any(), "a failure has no vector"
            if (rows[1:] < rows[:-1]).any():  # read in the order of the file, for long runs
                order = np.argsort(rows, kind="stable")
                where, rows = where[order], rows[order]
            if (np.diff(where) == 1).all():
                shard.read(rows, into[where[0] : where[-1] + 1])
                continue
            if len(part) < len(rows):  # one for all shards: memory that is new costs as much as reading
                part = np.empty((len(rows), into.shape[1]), into.dtype)
            shard.read(rows, part[: len(rows)])
            into[where] = part[: len(rows)]

    def _rows(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        slots = np.searchsorted(self.ends, positions, side="right")
        return slots, positions - np.append(0, self.ends)[slots]

    def _by_shard(
        self, positions: NDArray[np.int64]
    ) -> "list[tuple[Shard, NDArray[np.int64], NDArray[np.int64]]]":
        if not len(positions):
            return []
        slots, rows = self._rows(positions)
        order = np.argsort(slots, kind="stable")
        cuts = np.flatnonzero(np.diff(slots[order])) + 1
        return [(self.shards[slots[where[0]]], where, rows[where]) for where in np.split(order, cuts)]


def _prefixes(keys: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view("<u8").ravel().astype(np.uint64, copy=False)
