"""Two processes that are given the same work at the same time: both answer right, alike, and as anyone after them."""

import subprocess
import sys

import h5py
import numpy as np
from PIL import Image

from featx.cache import verify

N_PICTURES = 60
EXTRACTOR = "squeezenet1_1:weights=none:size=64"
# Publishes often, so that each sees some of the other's rows, and starts when it is told to.
SCRIPT = """
import sys, time
from pathlib import Path
import torchvision
from featx.cli.main import main
from featx.engine import writer
writer.PUBLISH_SECONDS = 0.02
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
        options = (
            "--precision",
            "float32",
            "--cache",
            cache,
            "--export",
            name,
            "--batch-size",
            batch_size,
            "-q",
        )
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "extract", "photos", "-x", EXTRACTOR, *options],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # Another batch size moves the last digits, so that the two compute vectors that can be told apart.
    both = [start("one.h5", batch_size="4"), start("two.h5", batch_size="7")]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
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
    np.testing.assert_allclose(found["later"], found["alone"], rtol=0, atol=1e-5 * found["alone"].max())
