"""A disk that is full: one clear error, a cache that is clean, and a run that goes on once there is room."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

# In a mount namespace of its own: a small disk under the cache, first too small, then large enough.
SCRIPT = """
set -e
mount -t tmpfs -o size=1200k none "$CACHE"
featx() { "$PYTHON" -m featx "$@" --cache "$CACHE" --json; }
set +e
featx extract "$DATA" -x pixels:size=16 --batch-size 8 -q > full.json 2> full.txt
echo $? > full.code
featx cache verify > verify.json 2> /dev/null
find "$CACHE"/*/tmp -type f > left.txt
set -e
mount -t tmpfs -o remount,size=50m none "$CACHE"
featx extract "$DATA" -x pixels:size=16 > resumed.json 2> /dev/null
featx cache export "$DATA" -x pixels:size=16 --out f.h5 > export.json
"""
N_PICTURES = 600


def small_disk_command(mount_point):
    """Return the command under which a disk may be mounted: as root, or as root of a user namespace."""
    if shutil.which("unshare") is None:
        pytest.skip("a small disk needs unshare (util-linux)")
    for options in ("-m", "-rm"):
        command = ["unshare", options]
        probe = [*command, "mount", "-t", "tmpfs", "none", mount_point]
        tried = subprocess.run(probe, capture_output=True, text=True)
        if tried.returncode == 0:
            return command
    pytest.skip(f"a small disk needs CAP_SYS_ADMIN or user namespaces: {tried.stderr.strip()}")


def test_a_full_disk_is_one_error_and_the_run_resumes_when_there_is_room(tmp_path):
    folder, cache = tmp_path / "pictures", tmp_path / "cache"
    folder.mkdir()
    cache.mkdir()
    command = small_disk_command(cache)
    random = np.random.default_rng(0)
    for number in range(N_PICTURES):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=0)
    env = {**os.environ, "CACHE": str(cache), "DATA": str(folder), "PYTHON": sys.executable}
    script = subprocess.run(
        [*command, "bash", "-c", SCRIPT],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert script.returncode == 0, script.stderr

    assert (
        tmp_path / "full.code"
    ).read_text().strip() == "1"  # not 139: HDF5 never writes to the disk itself
    [line] = (tmp_path / "full.txt").read_text().splitlines()
    assert "No space left on device" in line
    assert "run again to resume" in line
    assert json.loads((tmp_path / "verify.json").read_text())["clean"] is True
    assert (tmp_path / "left.txt").read_text() == ""
    resumed = json.loads((tmp_path / "resumed.json").read_text())
    assert resumed["cached"] + resumed["extracted"] == N_PICTURES
    assert resumed["failed"] == 0
    import h5py

    with h5py.File(tmp_path / "f.h5") as file:
        names = [name.decode() for name in file["ids"][:]]
        expected = [np.asarray(Image.open(folder / name)).reshape(-1) / np.float32(255) for name in names]
        np.testing.assert_allclose(file["features"][:], expected, atol=1e-6)
