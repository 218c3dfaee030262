"""One step of the section on large caches, in a process of its own, which has checked no digest yet; prints JSON.

    python benchmarks/large_cache.py build|open|load|plain FOLDER [--rows N] [--features D]

`build` writes a cache of random vectors through featx's own writer, and the same bytes as one flat file; `open` times
checking its digests, then opening it; `load` times opening it and reading all rows in the order of a data set;
`plain` times `numpy.fromfile` of the flat file and one thread's SHA-256 of it.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np

from featx.cache import Store, extractor_directory, fingerprint_of, rows_per_shard
from featx.cache.digest import check_digests
from featx.cache.layout import shard_names

IDENTITY = {"name": "benchmark"}


def main() -> None:
    steps = {"build": build, "open": open_, "load": load, "plain": plain}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=steps)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--features", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(steps[options.step](options.folder, options.rows, options.features)))


def build(folder: Path, n_rows: int, n_features: int) -> dict[str, float]:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    began = time.perf_counter()
    cache, keys = store(folder, n_features), data_set(n_rows)
    size = rows_per_shard(n_features, np.dtype(np.float16).itemsize)
    # Threads finish in another order than they begin: rows change places with their neighbours.
    order = np.argsort(np.arange(n_rows) + random.uniform(0, 64, n_rows))
    with (folder / "flat").open("wb") as flat:
        for start in range(0, n_rows, size):
            rows = order[start : start + size]
            features = random.random((len(rows), n_features), np.float32).astype(np.float16)
            cache.publish(keys[rows], features)
            features.tofile(flat)
    return {"seconds": time.perf_counter() - began, "shards": len(shard_names(directory(folder)))}


def open_(folder: Path, _n_rows: int, n_features: int) -> dict[str, float]:
    shards = directory(folder) / "shards"
    began = time.perf_counter()
    check_digests(sorted(shards.iterdir()))
    checked = time.perf_counter()
    store(folder, n_features)
    return {"digests": checked - began, "open": time.perf_counter() - checked}


def load(folder: Path, n_rows: int, n_features: int) -> dict[str, float]:
    keys = data_set(n_rows)
    lay_out_memory(n_rows, n_features)
    began = time.perf_counter()
    cache = store(folder, n_features)
    opened = time.perf_counter()
    matrix = cache.read(cache.lookup(keys))
    ended = time.perf_counter()
    assert matrix.shape == (n_rows, n_features)
    return {"seconds": ended - began, "open": opened - began, "read": ended - opened}


def plain(folder: Path, n_rows: int, n_features: int) -> dict[str, float]:
    lay_out_memory(n_rows, n_features)
    began = time.perf_counter()
    matrix = np.fromfile(folder / "flat", np.float16)
    read = time.perf_counter()
    hashlib.sha256(matrix).hexdigest()
    ended = time.perf_counter()
    assert matrix.size == n_rows * n_features
    return {"seconds": ended - began, "read": read - began, "digest": ended - read}


def lay_out_memory(n_rows: int, n_features: int) -> None:
    """Use as much memory as the matrix takes, and free it.

    The host of a virtual machine takes back what is free, and whoever needs it first waits for it: several times as
    long as reading takes, and not the next one, who gets what the first has freed.
    """
    np.ones((n_rows, n_features), np.float16)


def data_set(n_rows: int) -> np.ndarray:
    """Return the key of every row: random bytes, as digests are."""
    return np.random.default_rng(1).integers(0, 256, (n_rows, 32), np.uint8)


def directory(folder: Path) -> Path:
    return extractor_directory(folder, "benchmark", fingerprint_of(IDENTITY))


def store(folder: Path, n_features: int) -> Store:
    return Store(
        directory(folder),
        identity=IDENTITY,
        fingerprint=fingerprint_of(IDENTITY),
        n_features=n_features,
        dtype=np.dtype(np.float16),
        decoder="benchmark",
    )


if __name__ == "__main__":
    main()
