"""What every test of the cache starts from: a tiny extractor, keys, vectors."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from featx.cache import Store, fingerprint_of

IDENTITY = {"name": "tiny", "precision": "float32", "schema": 1}


@pytest.fixture
def open_store():
    """Open the store of an extractor with three features."""

    def opened(
        directory: Path | None, *, identity=IDENTITY, n_features=3, dtype="float32", decoder="decoder 1"
    ):
        return Store(
            directory,
            identity=identity,
            fingerprint=fingerprint_of(identity),
            n_features=n_features,
            dtype=np.dtype(dtype),
            decoder=decoder,
        )

    return opened


@pytest.fixture
def make_keys():
    """Return keys that depend on a seed and a count only."""

    def made(count: int, seed: int = 0) -> np.ndarray:
        digests = [hashlib.sha256(f"{seed}/{number}".encode()).digest() for number in range(count)]
        return np.frombuffer(b"".join(digests), np.uint8).reshape(count, 32)

    return made


@pytest.fixture
def make_vectors():
    """Return vectors that depend on a seed and a shape only."""

    def made(count: int, n_features: int = 3, seed: int = 0, dtype: str = "float32") -> np.ndarray:
        return np.random.default_rng(seed).normal(size=(count, n_features)).astype(dtype)

    return made


@pytest.fixture
def at_time(monkeypatch):
    """Set the clock that stamps shards."""

    def fixed(seconds: float) -> None:
        monkeypatch.setattr("featx.cache.store.time.time", lambda: seconds)

    return fixed


@pytest.fixture
def add_shard():
    """Put the bytes of a shard into a folder under the name they deserve."""

    def added(image: bytes, directory: Path) -> Path:
        path = directory / "shards" / f"{hashlib.sha256(image).hexdigest()}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        return path

    return added


@pytest.fixture
def as_another_user():
    """Act for a while as somebody whom modes bind: as nobody where root runs the tests, else as whoever does."""
    if os.getuid() != 0:
        return contextlib.nullcontext

    @contextlib.contextmanager
    def acting():
        groups = os.getgroups()
        try:
            os.setgroups([])
        except PermissionError:
            pytest.skip("root may not become another user here (CAP_SETGID)")
        os.setegid(65534)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)

    return acting


@pytest.fixture
def shared_folder():
    """Give a folder that another user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)
