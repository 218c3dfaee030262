"""All shards of one extractor as one store of vectors; computing them is not its matter."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.cache.digest import DamagedError, check_digests, way_out
from featx.cache.disk import publish_bytes
from featx.cache.index import FAILED, MISSING, Index
from featx.cache.layout import check_spec, fingerprint_of, prepare, remove_stale, shard_names
from featx.cache.reader import parse_shard, read_shard
from featx.cache.shard import KEY_BYTES, Shard, build_shard
from featx.errors import CacheError, UsageError

__all__ = ["FAILED", "MISSING", "Store", "check_belongs"]

_READ_ATTEMPTS = 5


class Store:
    """The vectors of one extractor, on disk or in memory.

    Any number of threads may look up and read while one publishes, and any number of processes may publish
    into one folder: shards are immutable, and where two of them hold a key the older one serves it.

    Parameters
    ----------
    directory : Path or None
        The extractor's folder (`extractor_directory`), created by the first `publish`. None keeps everything
        in memory, with the same behaviour.
    identity : mapping
        All that can change a vector, as plain JSON.
    fingerprint : str
        SHA-256 of the identity's canonical JSON.
    n_features : int
        Length of a vector.
    dtype : dtype
        float16 or float32.
    decoder : str
        The decoder's versions: a remembered failure counts only for the decoder that met it.

    Raises
    ------
    UsageError
        The arguments contradict each other.
    CacheError
        The folder belongs to another extractor, cannot be read, or holds a shard that is damaged or foreign.

    Examples
    --------
    >>> identity = {"name": "mean"}
    >>> store = Store(None, identity=identity, fingerprint=fingerprint_of(identity), n_features=2,
    ...               dtype=np.dtype("float32"), decoder="policy 1")
    >>> keys = np.arange(64, dtype=np.uint8).reshape(2, 32)
    >>> store.publish(keys[:1], np.array([[0.5, 1.5]], np.float32))
    >>> store.lookup(keys)
    array([ 0, -1])
    >>> store.read([0])
    array([[0.5, 1.5]], dtype=float32)
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        identity: Mapping[str, Any],
        fingerprint: str,
        n_features: int,
        dtype: np.dtype[Any] | type[np.floating[Any]],
        decoder: str,
    ) -> None:
        if fingerprint != fingerprint_of(identity):
            raise UsageError(
                f"fingerprint '{fingerprint[:12]}' is not that of the identity; expected "
                f"'{fingerprint_of(identity)[:12]}', the SHA-256 of its canonical JSON."
            )
        if np.dtype(dtype) not in (np.float16, np.float32) or n_features < 1:
            raise UsageError(
                f"a store holds at least one float16 or float32 a row; got {n_features} of {np.dtype(dtype)}."
            )
        self.directory = None if directory is None else Path(directory)
        self.identity = dict(identity)
        self.fingerprint = fingerprint
        self.n_features = n_features
        self.dtype = np.dtype(dtype)
        self.decoder = decoder
        self._lock = threading.Lock()
        self._tidied = False
        self._index = Index(decoder)
        if self.directory is not None:
            check_spec(self.directory, fingerprint=fingerprint, identity=identity)
        self.refresh()

    def refresh(self) -> bool:
        """Look for shards that others published or removed; only new ones are read.

        Returns
        -------
        bool
            Whether anything changed.

        Raises
        ------
        CacheError
            A shard is damaged, foreign or unreadable; the message names it and the way out.
        """
        if self.directory is None:
            return False
        vanished: set[str] = set()
        with self._lock:
            while True:
                listed = {name.removesuffix(".h5") for name in shard_names(self.directory)}
                known = self._index.slots.keys()
                new = sorted(listed - known)
                if listed == known:
                    return False
                if lost := vanished & listed:
                    raise DamagedError(
                        f"shard '{self._path(min(lost))}' is listed but cannot be opened (a broken link?). "
                        f"{way_out(self._path(min(lost)))}."
                    )
                check_digests([self._path(name) for name in new])
                added = []
                for name in new:
                    try:
                        added.append(read_shard(self._path(name)))
                    except FileNotFoundError:
                        # Merged into another shard since it was listed: list again.
                        vanished.add(name)
                        break
                    check_belongs(added[-1], self.fingerprint, self.n_features, self.dtype)
                else:
                    self._index = self._index.changed(added=added, gone=known - listed)
                    return True

    def lookup(self, keys: ArrayLike) -> NDArray[np.int64]:
        """Find the vectors that serve some keys.

        Parameters
        ----------
        keys : ndarray of shape (m, 32), dtype uint8

        Returns
        -------
        ndarray of shape (m,), dtype int64
            A position for `read`, valid for the life of the store; MISSING (-1); or FAILED (-2): this decoder
            cannot decode the sample, see `reason`.
        """
        return self._index.lookup(_checked_keys(keys))

    def reason(self, key: bytes) -> str:
        """Why the sample of a FAILED key failed.

        Raises
        ------
        UsageError
            No failure is remembered for it.
        """
        reason = self._index.reason(_checked_keys(np.frombuffer(key, np.uint8)[None]))
        if reason is None:
            raise UsageError(
                f"no failure is remembered for key {key.hex()[:12]}. Ask for keys that `lookup` calls FAILED."
            )
        return reason

    def read(self, positions: ArrayLike) -> NDArray[Any]:
        """Read vectors.

        Parameters
        ----------
        positions : array-like of int of shape (m,)
            As `lookup` gave them, in any order, none of them negative.

        Returns
        -------
        ndarray of shape (m, n_features), of the store's dtype

        Raises
        ------
        UsageError
            A position is not one of a row.
        CacheError
            A shard was damaged or removed since it was looked up.
        """
        wanted = np.asarray(positions, np.int64).reshape(-1)
        index = self._index
        n_rows = int(index.ends[-1]) if len(index.ends) else 0
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= n_rows):
            raise UsageError(
                f"positions come from `lookup`, here 0 to {n_rows - 1}; got {wanted.min()} to {wanted.max()}."
            )
        found = np.empty((len(wanted), self.n_features), self.dtype)
        for _ in range(_READ_ATTEMPTS):
            try:
                index.read(wanted, found)
            except FileNotFoundError:
                # Another process merged the shard away; its successor serves the same keys, bit for bit.
                keys = index.keys_at(wanted)
                self.refresh()
                index = self._index
                wanted = index.lookup(keys)
                if (wanted < 0).any():
                    break
            else:
                return found
        raise CacheError(f"shards of cache '{self.directory}' were removed while they were read. Run again.")

    def publish(
        self,
        keys: ArrayLike,
        features: ArrayLike,
        *,
        failures: Sequence[tuple[bytes, str]] = (),
        provenance: Mapping[str, Any] | None = None,
    ) -> Path | None:
        """Publish one shard, durably, and serve its rows from now on.

        Parameters
        ----------
        keys : ndarray of shape (n, 32), dtype uint8
        features : ndarray of shape (n, n_features)
            Finite; stored in the store's dtype.
        failures : sequence of (key, reason)
            Samples whose content cannot be decoded.
        provenance : mapping, optional
            Plain JSON: with what, and where, the vectors were computed.

        Returns
        -------
        Path or None
            The shard's file; None for a store in memory, or when there is nothing to publish.

        Raises
        ------
        UsageError
            The arrays do not fit the store or each other, or a vector is not finite.
        CacheError
            The shard cannot be written; nothing is half-published.
        """
        checked = _checked_keys(keys)
        if any(len(key) != KEY_BYTES for key, _ in failures):
            raise UsageError(f"the key of a failure is a SHA-256 of {KEY_BYTES} bytes; got another length.")
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is then refused
            rows = np.ascontiguousarray(features, dtype=self.dtype)
        if rows.shape != (len(checked), self.n_features):
            raise UsageError(
                f"features of shape {(len(checked), self.n_features)} expected, got {rows.shape}."
            )
        if not len(checked) and not failures:
            return None
        image = build_shard(
            checked,
            rows,
            failures=failures,
            fingerprint=self.fingerprint,
            decoder=self.decoder,
            # ASCII: a path may hold bytes that are no text.
            provenance=json.dumps(dict(provenance or {}), sort_keys=True),
            published=time.time(),
        )
        return self._publish(image)

    def _publish(self, image: bytes) -> Path | None:
        # Read back by the same strict reader that everyone else will use, before anyone can see it.
        shard = parse_shard(image)
        if self.directory is not None:
            prepare(self.directory, fingerprint=self.fingerprint, identity=self.identity)
            if not self._tidied:
                remove_stale(self.directory)
            shard = replace(shard, path=self._path(shard.name), image=None)
            publish_bytes(
                image,
                self._path(shard.name),
                temporary_folder=self.directory / "tmp",
                trust_folders=self._tidied,
            )
            self._tidied = True
        with self._lock:
            if shard.name not in self._index.slots:
                self._index = self._index.changed(added=[shard])
        return shard.path

    def _path(self, name: str) -> Path:
        assert self.directory is not None
        return self.directory / "shards" / f"{name}.h5"


def check_belongs(shard: Shard, fingerprint: str, n_features: int, dtype: np.dtype[Any]) -> None:
    """Refuse a sound shard that is not of this extractor.

    Raises
    ------
    DamagedError
        Its fingerprint, number of features or dtype differ.
    """
    found = (shard.fingerprint, shard.n_features, shard.dtype)
    if found != (fingerprint, n_features, dtype):
        raise DamagedError(
            f"shard '{shard.path}' belongs to another extractor: expected {fingerprint[:12]} with "
            f"{n_features} {dtype}, got {shard.fingerprint[:12]} with {shard.n_features} {shard.dtype}. "
            f"Move it to its own folder. {way_out(shard.path)}."
        )


def _checked_keys(keys: ArrayLike) -> NDArray[np.uint8]:
    array = np.asarray(keys)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != KEY_BYTES:
        if array.size == 0:
            return np.empty((0, KEY_BYTES), np.uint8)
        raise UsageError(
            f"keys of shape (m, {KEY_BYTES}) and dtype uint8 expected, got {array.shape} of {array.dtype}."
        )
    return array
