"""Merges the small shards of one extractor, such that every key keeps the very vector that served it."""

import contextlib
import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.cache.disk import publish_bytes, remove_file, sync_folder
from featx.cache.index import Index
from featx.cache.reader import parse_shard
from featx.cache.shard import FAILURE, VECTOR, Shard, build_shard, rows_per_shard

__all__ = ["MergeGroup", "merge", "merge_groups"]

# Small shards, each with those of its rows that serve.
MergeGroup = Sequence[tuple[Shard, NDArray[np.int64]]]


def merge_groups(shards: Sequence[Shard]) -> list[MergeGroup]:
    """Find what is worth merging.

    Shards are merged with those of the same decoder and provenance only, so that nothing that is recorded of
    a row is lost.

    Parameters
    ----------
    shards : sequence of Shard
        All sound shards of one extractor.

    Returns
    -------
    list of MergeGroup
        Each makes fewer shards when merged.
    """
    groups: list[MergeGroup] = []
    ordered = sorted(shards, key=lambda shard: (shard.decoder, shard.provenance, *shard.rank))
    for decoder, of_decoder in itertools.groupby(ordered, key=lambda shard: shard.decoder):
        index = Index(decoder).changed(added=shards)
        for _, same in itertools.groupby(of_decoder, key=lambda shard: shard.provenance):
            limit = rows_per_shard(shards[0].n_features, shards[0].dtype.itemsize)
            group = [(shard, _serving(index, shard)) for shard in same if len(shard.status) < limit]
            if math.ceil(sum(len(rows) for _, rows in group) / limit) < len(group):
                groups.append(group)
    return groups


def merge(group: MergeGroup, directory: Path) -> list[Path]:
    """Publish a group's serving rows in full shards, then remove the small ones.

    Returns
    -------
    list of Path
        The new shards. A crash at any point leaves rows twice, never a row less.

    Raises
    ------
    CacheError
        A shard cannot be written or read; those it was to replace are still there.
    FileNotFoundError
        Another process merged one of them first.
    """
    # A shade older than the oldest: its rows won against everything else, and must go on winning ties.
    published = float(np.nextafter(min(shard.published for shard, _ in group), -math.inf))
    first = group[0][0]
    new = []
    for part in _parts(group, rows_per_shard(first.n_features, first.dtype.itemsize)):
        vectors = [(shard, rows[shard.status[rows] == VECTOR]) for shard, rows in part]
        failed = [(shard, int(row)) for shard, rows in part for row in rows if shard.status[row] == FAILURE]
        counts = np.cumsum([len(rows) for _, rows in vectors])
        features = np.empty((counts[-1], first.n_features), first.dtype)
        for (shard, rows), end in zip(vectors, counts, strict=True):
            shard.read(rows, features[end - len(rows) : end])
        image = build_shard(
            np.concatenate([shard.keys[rows] for shard, rows in vectors]),
            features,
            failures=[(shard.keys[row].tobytes(), shard.reason(row)) for shard, row in failed],
            fingerprint=first.fingerprint,
            decoder=first.decoder,
            provenance=first.provenance,
            published=published,
        )
        parse_shard(image)
        new.append(directory / "shards" / f"{hashlib.sha256(image).hexdigest()}.h5")
        publish_bytes(image, new[-1], temporary_folder=directory / "tmp")
    for shard, _ in group:
        if shard.path is not None and shard.path not in new:
            with contextlib.suppress(OSError):
                remove_file(shard.path)
    sync_folder(directory / "shards")
    return new


def _serving(index: Index, shard: Shard) -> NDArray[np.int64]:
    """Rows of a shard that nothing older, and for a failure no vector, stands before."""
    slot = index.slots[shard.name]
    positions = np.arange(len(shard.status)) + index.ends[slot] - len(shard.status)
    vectors = index.vectors.find(shard.keys, index.keys_at)
    failures = index.failures.find(shard.keys, index.keys_at)
    return np.flatnonzero((vectors == positions) | ((vectors < 0) & (failures == positions)))


def _parts(group: MergeGroup, limit: int) -> Iterator[MergeGroup]:
    """Cut a group's rows, in order, into parts of at most ``limit`` rows."""
    part: list[tuple[Shard, NDArray[np.int64]]] = []
    room = limit
    for shard, rows in group:
        while len(rows):
            part.append((shard, rows[:room]))
            rows, room = rows[room:], room - len(part[-1][1])
            if room == 0:
                yield part
                part, room = [], limit
    if part:
        yield part
