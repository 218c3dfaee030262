"""Two processes that are given the same work at the same time: both answer right, alike, and as anyone after them."""

import subprocess
import sys
import time

import h5py
import numpy as np
from PIL import Image

from featx.cache import verify

N_PICTURES = 60
EXTRACTOR = "nano:size=64"
# Publishes often, so that each sees some of the other's rows; starts when it is told to; and computes last digits of
# its own, as another machine or batch size may, slowly enough for the two to meet.
SCRIPT = """
import sys, time
import torchvision
from featx.cli.main import main
from featx.engine import writer
from featx.engine.runtime import TorchRuntime
writer.PUBLISH_SECONDS = 0.02
digits = 1 + 1e-6 * float(sys.argv.pop())
forward = TorchRuntime.__call__
def slow(runtime, pixels):
    time.sleep(0.2)
    return (forward(runtime, pixels) * digits).astype("float32")
TorchRuntime.__call__ = slow
print("ready", flush=True)
sys.stdin.readline()
main()
"""


def test_two_processes_with_the_same_work_answer_alike_now_and_later(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(N_PICTURES):
        pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")

    def start(name, *, batch_size, cache="cache"):
        where = ("--cache", cache, "--export", name)
        how = ("--precision", "float32", "--batch-size", batch_size, "-q", batch_size)
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "extract", "photos", "-x", EXTRACTOR, *where, *how],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    both = [start("one.h5", batch_size="4"), start("two.h5", batch_size="7")]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    both[0].stdin.write("\n")
    both[0].stdin.flush()
    while not any((tmp_path / "cache").rglob("shards/*.h5")) and both[0].poll() is None:
        time.sleep(0.001)
    both[1].stdin.write("\n")
    both[1].stdin.flush()
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    later = start("later.h5", batch_size="16")
    assert later.communicate("\n", timeout=300)[0]
    alone = start("alone.h5", batch_size="16", cache="another")
    assert alone.communicate("\n", timeout=300)[0]

    assert verify(tmp_path / "cache").ok
    found = {}
    for name in ("one", "two", "later", "alone"):
        with h5py.File(tmp_path / f"{name}.h5") as file:
            found[name] = file["features"][:]
    np.testing.assert_array_equal(found["one"], found["later"])
    np.testing.assert_array_equal(found["two"], found["later"])
    np.testing.assert_allclose(found["later"], found["alone"], rtol=0, atol=2e-5 * found["alone"].max())
    rows = [len(h5py.File(path)["keys"]) for path in (tmp_path / "cache").rglob("*.h5")]
    assert sum(rows) > N_PICTURES, "the two never met"
