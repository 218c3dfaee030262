import subprocess
import sys
import threading

import numpy as np

from featx.cache.reader import read_shard


def shards(directory):
    return sorted((directory / "shards").iterdir())


def test_one_thread_reads_while_another_publishes(tmp_path, open_store, make_keys, make_vectors):
    keys, vectors = make_keys(400), make_vectors(400)
    store = open_store(tmp_path)
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            store.refresh()
            found = store.lookup(keys)
            rows = np.flatnonzero(found >= 0)
            if not np.array_equal(store.read(found[rows]), vectors[rows]):
                wrong.append(rows)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(0, 400, 10):
        store.publish(keys[start : start + 10], vectors[start : start + 10])
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert np.array_equal(store.read(store.lookup(keys)), vectors)


FEW_DESCRIPTORS = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import numpy as np
from pathlib import Path
from featx.cache import Store, fingerprint_of
store = Store(Path(sys.argv[1]), identity={"name": "tiny"}, fingerprint=fingerprint_of({"name": "tiny"}),
              n_features=3, dtype=np.dtype("float32"), decoder="decoder 1")
keys = np.load(sys.argv[2])
found = store.read(store.lookup(keys))
assert found[:, 0].tolist() == list(range(len(keys))), found
print(len(keys), "rows")
"""


def run_python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_hundred_shards_are_read_with_64_file_descriptors(tmp_path, open_store, make_keys):
    keys = make_keys(400)
    np.save(tmp_path / "keys.npy", keys)
    store = open_store(tmp_path / "tiny", identity={"name": "tiny"})
    for row in range(0, 400, 2):
        store.publish(keys[row : row + 2], np.repeat([[row], [row + 1]], 3, axis=1))
    run = run_python(FEW_DESCRIPTORS, tmp_path / "tiny", tmp_path / "keys.npy")
    assert run.communicate(timeout=60)[0] == "400 rows\n"


WRITER = """
import sys
import numpy as np
from pathlib import Path
from featx.cache import Store, fingerprint_of
store = Store(Path(sys.argv[1]), identity={"name": "tiny"}, fingerprint=fingerprint_of({"name": "tiny"}),
              n_features=3, dtype=np.dtype("float32"), decoder="decoder 1")
keys, value = np.load(sys.argv[2]), float(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, len(keys), 8):
    store.publish(keys[start:start + 8], np.full((8, 3), value))
store.refresh()
np.save(sys.argv[4], store.read(store.lookup(keys)))
"""


def test_two_processes_that_publish_the_same_keys_agree_now_and_later(tmp_path, open_store, make_keys):
    keys = make_keys(160)
    np.save(tmp_path / "keys.npy", keys)
    writers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WRITER,
                tmp_path / "tiny",
                tmp_path / "keys.npy",
                str(value),
                tmp_path / f"{value}.npy",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for value in (1, 2)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    store = open_store(tmp_path / "tiny", identity={"name": "tiny"})
    assert len(shards(tmp_path / "tiny")) == 40
    served = store.read(store.lookup(keys))
    again = open_store(tmp_path / "tiny", identity={"name": "tiny"})
    assert np.array_equal(again.read(again.lookup(keys)), served)
    oldest = {}
    for shard in sorted(
        map(read_shard, shards(tmp_path / "tiny")), key=lambda one: (one.published, one.name)
    ):
        features = np.empty((8, 3), np.float32)
        shard.read(np.arange(8), features)
        for key, row in zip(shard.keys, features, strict=True):
            oldest.setdefault(key.tobytes(), row)
    assert np.array_equal(served, [oldest[key.tobytes()] for key in keys])
    assert set(np.unique(served)) <= {1.0, 2.0}
    # Whoever finished last saw every shard; its answer is the answer for good.
    assert any(np.array_equal(np.load(tmp_path / f"{value}.npy"), served) for value in (1, 2))


def test_a_million_keys_are_opened_and_looked_up(tmp_path, open_store):
    random = np.random.default_rng(0)
    keys = random.integers(0, 256, (1_000_000, 32), dtype=np.uint8)
    store = open_store(tmp_path, n_features=1)
    for start in range(0, len(keys), 8192):
        store.publish(keys[start : start + 8192], np.zeros((len(keys[start : start + 8192]), 1)))
    reopened = open_store(tmp_path, n_features=1)
    found = reopened.lookup(keys)
    assert (found >= 0).all()
    assert (reopened._index.keys_at(found[::1000]) == keys[::1000]).all()
