"""What several processes, or processes that end early, do to a cache."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cache import list_extractors, verify
from featx.engine import OpenCache

N_PICTURES = 50

# The command line as it is, but saying when vectors begin to be written, and publishing as often as is asked.
COMMAND = """
import os, sys
import featx.engine.writer as writer
from featx.cli.main import main
writer.PUBLISH_SECONDS = float(os.environ.get("PUBLISH_SECONDS", 30))
real = writer.Writer.write
def write(*arguments):
    real(*arguments)
    print("written", file=sys.stderr, flush=True)
writer.Writer.write = write
main()
"""

# Where torch cannot be imported: run twice, then on a cache that is read-only, where root is nobody.
WITHOUT_TORCH = """
import os, pathlib, sys
sys.modules["torch"] = None
from featx.cache import hints
from featx.cli.main import app
hints._RACY_SECONDS = -1.0  # so that nobody, too, has digests to remember
def extract(data, cache):
    app(["extract", data, "-x", sys.argv[1], "--cache", cache, "--json"], standalone_mode=False)
extract("photos", "cache")
extract("elsewhere", "cache")
if os.getuid() == 0:
    try:
        os.setuid(65534)
    except PermissionError:
        sys.exit("root may not become another user here (CAP_SETUID)")
extract(os.path.abspath("another"), os.path.abspath("read-only"))
"""


@pytest.fixture
def textured(tmp_path):
    folder = tmp_path / "textured"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(N_PICTURES):
        pixels = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return folder


@pytest.fixture
def start(tmp_path):
    """Start ``featx extract`` in a process of its own."""
    started = []

    def begun(folder, *, extractor="gabor", **env):
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                COMMAND,
                "extract",
                folder,
                "-x",
                extractor,
                "--json",
                "--batch-size",
                "4",
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "FEATX_CACHE": str(tmp_path / "cache"), **env},
            # A shell that starts tests in the background has them ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield begun
    for process in started:
        process.kill()
        process.communicate()


def wait_until_written(process):
    while "written" not in (line := process.stderr.readline()):
        assert line, process.stdout.read()


def result(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output)


def rows_in_shards(cache):
    """Return how many rows the shards hold, and how many distinct keys."""
    import h5py

    keys = []
    for path in Path(cache).rglob("*.h5"):
        with h5py.File(path) as file:
            keys += [key.tobytes() for key in file["keys"][:]]
    return len(keys), len(set(keys))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_keeps_what_it_computed(start, fill, textured, tmp_path, number, code):
    process = start(textured)
    wait_until_written(process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert output == ""
    assert "Traceback" not in errors
    assert verify(tmp_path / "cache").problems == ()
    assert not list((tmp_path / "cache").rglob("tmp/*"))

    [published] = list_extractors(tmp_path / "cache")
    assert 0 < published.n_vectors < N_PICTURES

    rerun = fill(textured, "gabor")
    assert (rerun.cached, rerun.cached + rerun.extracted) == (published.n_vectors, N_PICTURES)


HANGING = """
import threading
from featx.cache import disk
from featx.cli.main import main
disk.sync_file = lambda file: threading.Event().wait()
main()
"""


def test_a_disk_that_hangs_ends_the_process_with_one_line(textured, tmp_path):
    arguments = ["extract", textured, "-x", "gabor", "--cache", "cache", "--stall-seconds", "0.5", "-q"]
    done = subprocess.run(
        [sys.executable, "-c", HANGING, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("featx: error: writing to the cache has taken more than 0.5 s for one shard.")


def test_a_killed_run_keeps_what_it_published(start, fill, textured, tmp_path):
    process = start(textured, PUBLISH_SECONDS="0.1")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("shards/*.h5")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert verify(tmp_path / "cache").problems == ()
    rerun = fill(textured, "gabor")
    assert rerun.cached > 0
    assert rerun.cached + rerun.extracted == N_PICTURES


def test_two_processes_may_fill_one_cache_at_once(start, fill, pictures, tmp_path):
    folder = pictures(60)
    both = [start(folder, extractor="glcm", PUBLISH_SECONDS="0.05") for _ in range(2)]
    for done in map(result, both):
        assert done["cached"] + done["extracted"] == 60
        assert done["failed"] == 0
    assert verify(tmp_path / "cache").problems == ()
    assert fill(folder, "glcm").extracted == 0


def test_a_run_with_nothing_to_do_needs_neither_torch_nor_write_access(pictures, fill, tmp_path):
    backbone = "nano:size=32:pixels=exact"
    folder = pictures(6)
    # Not under pytest's folder, which nobody else may enter.
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        for name in ("photos", "elsewhere", "another"):
            shutil.copytree(folder, Path(place, name))
        # With the command line's own device and precision: what they come to is remembered too.
        fill(
            Path(place, "photos"),
            backbone,
            cache=OpenCache(Path(place, "cache")),
            device="auto",
            precision="auto",
        )
        shutil.copytree(Path(place, "cache"), Path(place, "read-only"))
        for path in [Path(place), *Path(place).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o444)
        for path in Path(place, "read-only").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        Path(place, "read-only").chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, backbone],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=60,
        )
    if "CAP_SETUID" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 3
    assert all((one["cached"], one["extracted"], one["failed"]) == (6, 0, 0) for one in results)
    assert ("read-only/hints.sqlite' are not used" in done.stderr) == (os.getuid() == 0)


TRANSFORM = """
import sys, time
from pathlib import Path
from featx import Extractor
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
folder = Path(sys.argv[1])
paths = sorted(map(str, folder.iterdir()))
print(Extractor(["glcm", "color_histogram"], cache="cache").transform(paths).sum())
"""


def test_transformers_of_two_processes_take_turns(textured, tmp_path):
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TRANSFORM, textured, "go"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert all(process.returncode == 0 for process in both)
    assert outputs[0] == outputs[1] != ""
    assert rows_in_shards(tmp_path / "cache") == (2 * N_PICTURES, N_PICTURES)
