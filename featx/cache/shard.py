"""One shard, an immutable HDF5 file built whole in memory; validating one is the reader's matter."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.cache.digest import DamagedError, open_checked, way_out
from featx.errors import UsageError

__all__ = [
    "FAILURE",
    "KEY_BYTES",
    "MAX_REASON_BYTES",
    "MAX_TEXT_BYTES",
    "SCHEMA",
    "VECTOR",
    "Shard",
    "build_shard",
    "rows_per_shard",
]

SCHEMA = 1
KEY_BYTES = 32
VECTOR, FAILURE = 0, 1
MAX_REASON_BYTES = 500
MAX_TEXT_BYTES = 1 << 20  # an attribute's text: decoder versions, provenance
_MAX_ROWS = 4096
_FLOAT16_MAGNITUDE, _FLOAT16_INFINITY = np.uint16(0x7FFF), np.uint16(0x7C00)
_MAX_FEATURE_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Shard:
    """What is known of one validated shard; its features stay where they are until rows are read.

    Attributes
    ----------
    name : str
        SHA-256 of the whole file, in hex.
    path : Path or None
        The file; None when the shard lives in memory.
    image : bytes or None
        The file's bytes when it lives in memory, else None.
    fingerprint : str
        Of the extractor whose rows these are.
    published : float
        When it was made, in seconds since the epoch.
    decoder : str
        The versions that decoded, or failed to decode, the samples.
    provenance : str
        JSON text: where and with what the rows were computed.
    keys : ndarray of shape (n_rows, 32), dtype uint8
        SHA-256 of each row's sample.
    status : ndarray of shape (n_rows,), dtype uint8
        0 for a vector, 1 for a remembered content failure.
    reasons : ndarray of shape (n_failures,), dtype bytes
        UTF-8, one per failure in row order.
    n_features : int
    dtype : dtype
        float16 or float32, little-endian.
    features_offset, size_bytes : int
        Where in the file the features begin; how large the file is.
    """

    name: str
    path: Path | None
    image: bytes | None
    fingerprint: str
    published: float
    decoder: str
    provenance: str
    keys: NDArray[np.uint8]
    status: NDArray[np.uint8]
    reasons: NDArray[np.bytes_]
    n_features: int
    dtype: np.dtype[Any]
    features_offset: int
    size_bytes: int

    @property
    def rank(self) -> tuple[float, str]:
        """The order in which shards serve: oldest first, ties by name."""
        return self.published, self.name

    def read(self, rows: NDArray[np.int64], into: NDArray[Any]) -> None:
        """Read some rows of the features, all of them vectors.

        The file is open only for as long as this takes: neither descriptors nor mappings are kept, so any
        number of shards works under any limit. Neighbouring rows are read together.

        Parameters
        ----------
        rows : ndarray of shape (m,), dtype int64
            Ascending.
        into : ndarray of shape (m, n_features), of the shard's dtype, C-contiguous

        Raises
        ------
        DamagedError
            The file changed since it was validated and is no longer what its name promises; or a vector is not
            finite, so featx did not publish it.
        FileNotFoundError
            Another process merged or removed it.
        """
        edges = np.append(np.flatnonzero(np.diff(rows, prepend=-2) != 1), len(rows))
        with self._open() as file:
            for start, stop in itertools.pairwise(edges.tolist()):
                file.seek(self.features_offset + int(rows[start]) * self.n_features * self.dtype.itemsize)
                part = into[start:stop].data.cast("B")
                if file.readinto(part) != part.nbytes:
                    raise DamagedError(f"shard '{self.path}' became shorter while it was read. Run again.")
        if not _all_finite(into):
            raise DamagedError(
                f"shard '{self.path or 'in memory'}' is not one that featx wrote: a vector in it is not finite. "
                f"{way_out(self.path)}; its rows are computed again on the next run."
            )

    def reason(self, row: int) -> str:
        """Why the sample of a failed row failed."""
        return bytes(self.reasons[np.count_nonzero(self.status[:row])]).decode("utf-8", "replace")

    def _open(self) -> BufferedReader | BytesIO:
        if self.path is not None:
            return open_checked(self.path)
        assert self.image is not None
        return BytesIO(self.image)


def build_shard(
    keys: NDArray[np.uint8],
    features: NDArray[Any],
    *,
    failures: Sequence[tuple[bytes, str]],
    fingerprint: str,
    decoder: str,
    provenance: str,
    published: float,
) -> bytes:
    """Build the bytes of a shard; the same arguments give the same bytes.

    Parameters
    ----------
    keys : ndarray of shape (n, 32), dtype uint8
    features : ndarray of shape (n, n_features), dtype float16 or float32
        Finite.
    failures : sequence of (key, reason)
        Samples whose content cannot be decoded. Each takes a row of NaN that is never served.
    fingerprint, decoder, provenance : str
        See `Shard`.
    published : float
        Seconds since the epoch.

    Returns
    -------
    bytes
        A plain HDF5 file: contiguous data sets, no filters, no type of variable length.

    Raises
    ------
    UsageError
        A text is too long, or a vector holds a non-finite value.
    """
    if not _all_finite(features):
        raise UsageError(
            "a vector to be cached holds a non-finite value; only finite ones are stored. "
            "Compute it in float32 (`precision='float32'`), or record its sample as a failure."
        )
    texts = {"fingerprint": fingerprint, "decoder": decoder, "provenance": provenance}
    for name, text in texts.items():
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise UsageError(
                f"the {name} of a shard is at most {MAX_TEXT_BYTES} bytes of text; got {len(text.encode())}."
            )
    failed_keys = np.frombuffer(b"".join(key for key, _ in failures), np.uint8).reshape(-1, KEY_BYTES)
    missing = np.full((len(failures), features.shape[1]), np.nan, features.dtype)
    status = np.repeat(np.array([VECTOR, FAILURE], np.uint8), [len(features), len(failures)])
    # Not the "core" driver and its file image: HDF5 1.14 gives images whose superblock fails its own checksum.
    image = BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["schema"] = SCHEMA
        file.attrs["published"] = float(published)
        for name, text in texts.items():
            file.attrs[name] = np.bytes_(text.encode())
        file.create_dataset("keys", data=np.concatenate([keys, failed_keys]))
        file.create_dataset("status", data=status)
        if failures:
            file.create_dataset(
                "reasons", data=np.array([_short(reason) for _, reason in failures], dtype="S")
            )
        data = features if not failures else np.concatenate([features, missing])
        file.create_dataset("features", data=data.astype(data.dtype.newbyteorder("<"), copy=False))
    return image.getvalue()


def rows_per_shard(n_features: int, itemsize: int) -> int:
    """Rows of a full shard: 4,096, or fewer where their features would pass 64 MiB.

    Examples
    --------
    >>> rows_per_shard(2048, 4)
    4096
    >>> rows_per_shard(65536, 4)
    256
    """
    return max(1, min(_MAX_ROWS, _MAX_FEATURE_BYTES // (n_features * itemsize)))


def _all_finite(values: NDArray[Any]) -> bool:
    if values.dtype != np.float16 or not values.size:
        return bool(np.isfinite(values).all())
    # Processors have no test for float16, and NumPy's takes seven times as long as looking at the exponents.
    bits = np.ascontiguousarray(values).view(np.uint16)
    return bool((bits & _FLOAT16_MAGNITUDE).max() < _FLOAT16_INFINITY)


def _short(reason: str) -> bytes:
    # Undecodable names travel in messages as surrogates; NUL would end a fixed-length string early.
    text = reason.encode("utf-8", "backslashreplace").replace(b"\0", b"\\0")
    return text[:MAX_REASON_BYTES].decode("utf-8", "ignore").encode() or b"unknown"
