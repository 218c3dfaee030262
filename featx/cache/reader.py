"""Reads shards strictly: only what `build_shard` writes is let in, all else that HDF5 can say is refused."""

import hashlib
import json
import math
import os
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.cache.digest import DamagedError, open_checked, way_out
from featx.cache.shard import FAILURE, KEY_BYTES, MAX_REASON_BYTES, MAX_TEXT_BYTES, SCHEMA, VECTOR, Shard
from featx.errors import CacheError

__all__ = ["parse_shard", "read_shard"]

_ATTRIBUTES = {"schema", "published", "fingerprint", "decoder", "provenance"}
_REQUIRED = {b"features", b"keys", b"status"}


def read_shard(path: Path) -> Shard:
    """Validate a shard and take in everything but its features.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Shard

    Raises
    ------
    DamagedError
        Its bytes are not those its name promises, or not what featx writes.
    CacheError
        It is of a newer schema, or cannot be read.
    FileNotFoundError
        It is gone.
    """
    with open_checked(path) as file:
        return _parse(file, name=path.stem, path=path, image=None)


def parse_shard(image: bytes) -> Shard:
    """Validate the bytes of a shard as strictly, before they are published or kept in memory."""
    return _parse(BytesIO(image), name=hashlib.sha256(image).hexdigest(), path=None, image=image)


class _Refused(Exception):
    """Why a file is not a shard."""


class _Place(NamedTuple):
    """Where a data set's bytes lie."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, file: BinaryIO) -> NDArray[Any]:
        file.seek(self.offset)
        return np.frombuffer(file.read(self.n_bytes), self.dtype).reshape(self.shape)


def _parse(file: BinaryIO, *, name: str, path: Path | None, image: bytes | None) -> Shard:
    where = "in memory" if path is None else f"'{path}'"
    size_bytes = file.seek(0, os.SEEK_END)
    try:
        # Through the checked descriptor, not by path: what is parsed is what was digested.
        with h5py.File(file, "r") as opened:
            attributes = _attributes(opened, where)
            places = _places(opened, size_bytes)
        # HDF5 has only said where the bytes lie; they are read without it.
        keys, status = places["keys"].read(file), places["status"].read(file)
        reasons = places["reasons"].read(file) if "reasons" in places else np.empty(0, "S1")
        if not np.isin(status, (VECTOR, FAILURE)).all():
            raise _Refused("a row's status is neither 0 nor 1")
        if np.count_nonzero(status) != len(reasons):
            raise _Refused(f"{np.count_nonzero(status)} rows failed, but {len(reasons)} reasons are given")
    except CacheError:
        raise
    except Exception as error:  # h5py answers malformed files with errors of every kind
        reason = (
            error if isinstance(error, _Refused) else f"HDF5 cannot make sense of it ({type(error).__name__})"
        )
        raise DamagedError(
            f"shard {where} is not one that featx wrote: {reason}. "
            f"{way_out(path)}; its rows are computed again on the next run."
        ) from error
    features = places["features"]
    return Shard(
        name=name,
        path=path,
        image=image,
        keys=keys,
        status=status,
        reasons=reasons,
        n_features=features.shape[1],
        dtype=features.dtype,
        features_offset=features.offset,
        size_bytes=size_bytes,
        **attributes,
    )


def _attributes(opened: h5py.File, where: str) -> dict[str, Any]:
    # The schema first: of a newer one nothing else can be expected to look familiar.
    if "schema" not in opened.attrs:
        raise _Refused("it has no schema number")
    schema = _attribute(opened, "schema", "integer")
    if schema > SCHEMA:
        raise CacheError(f"shard {where} has schema {schema}; this featx reads {SCHEMA}. Upgrade featx.")
    if schema != SCHEMA:
        raise _Refused(f"schema {schema} never existed")
    names = {str(name) for name in opened.attrs}
    if names != _ATTRIBUTES:
        raise _Refused(f"its attributes are {sorted(names)[:9]}, not {sorted(_ATTRIBUTES)}")
    published = float(_attribute(opened, "published", "float"))
    if not math.isfinite(published):
        raise _Refused("its time of publishing is not a number")
    provenance = _attribute(opened, "provenance", "text")
    if not isinstance(json.loads(provenance), dict):
        raise _Refused("its provenance is not a JSON object")
    return {
        "published": published,
        "fingerprint": _attribute(opened, "fingerprint", "text"),
        "decoder": _attribute(opened, "decoder", "text"),
        "provenance": provenance,
    }


def _attribute(opened: h5py.File, name: str, kind: Literal["integer", "float", "text"]) -> Any:
    stored = opened.attrs.get_id(name)
    stored_type = stored.get_type()
    fits = {
        "integer": isinstance(stored_type, h5py.h5t.TypeIntegerID),
        "float": isinstance(stored_type, h5py.h5t.TypeFloatID),
        "text": isinstance(stored_type, h5py.h5t.TypeStringID) and not stored_type.is_variable_str(),
    }[kind]
    scalar = stored.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
    if not fits or not scalar or stored_type.get_size() > MAX_TEXT_BYTES:
        raise _Refused(f"attribute '{name}' is not one {kind} of a fixed, sensible size")
    value = opened.attrs[name]
    return value.decode("utf-8") if kind == "text" else value


def _places(opened: h5py.File, size_bytes: int) -> dict[str, _Place]:
    root = opened.id
    # Counted before they are listed: a file may declare millions of names.
    names = set(root) if root.get_num_objs() <= len(_REQUIRED) + 1 else {b"..."}
    if not _REQUIRED <= names <= _REQUIRED | {b"reasons"}:
        raise _Refused("its root does not hold features, keys, status and at most reasons")
    for name in names:
        if root.links.get_info(name).type != h5py.h5l.TYPE_HARD:
            raise _Refused(f"'{name.decode()}' is a link to somewhere else")
    places = {name.decode(): _place(root, name, size_bytes) for name in names}
    shapes = {what: place.shape for what, place in places.items()}
    n_rows, n_features = (*shapes["features"], -1, -1)[:2]
    expected = {"features": (n_rows, n_features), "keys": (n_rows, KEY_BYTES), "status": (n_rows,)}
    if "reasons" in shapes:
        expected["reasons"] = shapes["reasons"][:1]
    if shapes != expected:
        raise _Refused(f"its shapes disagree: {shapes}")
    return places


def _place(root: h5py.h5g.GroupID, name: bytes, size_bytes: int) -> _Place:
    what = name.decode()
    data_set = h5py.h5o.open(root, name)
    if not isinstance(data_set, h5py.h5d.DatasetID):
        raise _Refused(f"'{what}' is not a data set")
    creation = data_set.get_create_plist()
    if (
        creation.get_layout() != h5py.h5d.CONTIGUOUS
        or creation.get_external_count()
        or creation.get_nfilters()
    ):
        raise _Refused(f"'{what}' is not stored plainly in one piece inside the file")
    space = data_set.get_space()
    if space.get_simple_extent_type() != h5py.h5s.SIMPLE:
        raise _Refused(f"'{what}' is not an array")
    place = _Place(
        data_set.get_offset(), tuple(space.get_simple_extent_dims()), _dtype(what, data_set.get_type())
    )
    # Python's own integers: a declared shape may overflow 64 bits, or promise what was never written.
    inside = place.offset is not None and place.offset > 0 and place.offset + place.n_bytes <= size_bytes
    if not inside or place.n_bytes == 0 or data_set.get_storage_size() != place.n_bytes:
        raise _Refused(f"'{what}' declares shape {place.shape}, which is not what the file holds")
    return place


def _dtype(what: str, stored: h5py.h5t.TypeID) -> np.dtype[Any]:
    if what == "reasons":
        if (
            isinstance(stored, h5py.h5t.TypeStringID)
            and not stored.is_variable_str()
            and stored.get_size() <= MAX_REASON_BYTES
        ):
            return np.dtype(f"S{stored.get_size()}")
    elif what == "features":
        for allowed, dtype in ((h5py.h5t.IEEE_F32LE, "<f4"), (h5py.h5t.IEEE_F16LE, "<f2")):
            if stored.equal(allowed):
                return np.dtype(dtype)
    elif stored.equal(h5py.h5t.STD_U8LE):
        return np.dtype(np.uint8)
    raise _Refused(f"'{what}' has a type that featx never writes there")
