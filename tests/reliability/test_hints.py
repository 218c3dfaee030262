"""Hints may be lost, stale, corrupt or read-only: the same answers, only slower, and no vector is computed again."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cache import verify
from featx.engine import Settings, read_extractors, run
from featx.samples import SampleTable, read_samples

N_PICTURES = 30
EXTRACTORS = "pixels:size=1+nano:size=64"
TRUST_SECONDS = 2.0
# Root may write everywhere, unless it gives that up.
AS_ANYBODY = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def paint(folder, red):
    """Write pictures of one size in the file system, and of one time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(N_PICTURES):
        path = folder / f"{number:02}.png"
        Image.new("RGB", (2, 2), (red, number, 7)).save(path, compress_level=0)
        os.utime(path, (1.0, 1.0))


def colours(red):
    return np.array([(red, number, 7) for number in range(N_PICTURES)], np.float32) / 255


def extract(data, cache, extractors=EXTRACTORS):
    settings = Settings(device="cpu", precision="float32")
    done = run(read_samples(data), read_extractors(extractors), cache=cache, settings=settings)
    return done, done.matrix(done.good)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Fill a cache from pictures, and another from what these were before; return the folder and the matrix."""
    root = tmp_path_factory.mktemp("hints")
    paint(root / "data", red=99)
    time.sleep(TRUST_SECONDS + 0.05)
    extract(root / "data", root / "before")
    paint(root / "data", red=200)
    paint(root / "copy", red=200)
    (root / "new").mkdir()
    Image.new("RGB", (2, 2), (1, 2, 3)).save(root / "new" / "new.png")
    time.sleep(TRUST_SECONDS + 0.05)
    _, truth = extract(root / "data", root / "cache")
    np.testing.assert_allclose(truth[:, :3], colours(red=200), atol=1e-6)
    return root, truth


@pytest.fixture
def data(filled):
    return filled[0] / "data"


@pytest.fixture
def truth(filled):
    return filled[1]


@pytest.fixture
def cache(filled, tmp_path):
    """Return a copy of the filled cache."""
    return Path(shutil.copytree(filled[0] / "cache", tmp_path / "cache"))


@pytest.fixture
def before(filled):
    """Return the hints of a cache that was filled before the pictures changed."""
    return filled[0] / "before" / "hints.sqlite"


@pytest.fixture
def reads(monkeypatch):
    """Return the list of rows that are read, as it grows."""
    rows, real = [], SampleTable.read_with_stat
    monkeypatch.setattr(
        SampleTable, "read_with_stat", lambda table, row: rows.append(row) or real(table, row)
    )
    return rows


def garbage(size):
    return np.random.default_rng(0).bytes(size)


def with_garbage_in_the_middle(hints):
    image = hints.read_bytes()
    hints.write_bytes(image[:5000] + garbage(len(image) - 6000) + image[-1000:])


def with_a_page_of_zeros(hints):
    image = hints.read_bytes()
    hints.write_bytes(image[:4096] + bytes(4096) + image[8192:])


def of_another_program(hints):
    hints.unlink()
    database = sqlite3.connect(hints)
    database.execute("CREATE TABLE digests (path TEXT, state TEXT)")
    database.close()


def with_each_digest_at_its_neighbour(hints):
    with sqlite3.connect(hints) as database:
        rows = database.execute("SELECT path, digest FROM digests").fetchall()
        for (path, _), (_, digest) in zip(rows, rows[1:] + rows[:1], strict=True):
            database.execute("UPDATE digests SET digest = ? WHERE path = ?", (digest, path))
    database.close()


HARMS = {
    "deleted": Path.unlink,
    "emptied": lambda hints: os.truncate(hints, 0),
    "cut in its header": lambda hints: os.truncate(hints, 50),
    "cut in half": lambda hints: os.truncate(hints, hints.stat().st_size // 2),
    "garbage": lambda hints: hints.write_bytes(garbage(20_000)),
    "garbage behind a header": lambda hints: hints.write_bytes(hints.read_bytes()[:100] + garbage(20_000)),
    "garbage in the middle": with_garbage_in_the_middle,
    "a page of zeros": with_a_page_of_zeros,
    "a journal of garbage": lambda hints: hints.with_name("hints.sqlite-journal").write_bytes(garbage(9000)),
    "a FIFO for a journal": lambda hints: os.mkfifo(hints.with_name("hints.sqlite-journal")),
    "a folder": lambda hints: (hints.unlink(), hints.mkdir()),
    "a link to nowhere": lambda hints: (hints.unlink(), hints.symlink_to("nowhere/at/all")),
    "each digest at its neighbour": with_each_digest_at_its_neighbour,
    "of another program": of_another_program,
}


@pytest.mark.parametrize("harm", HARMS)
def test_whatever_happens_to_hints_the_answers_are_the_same(harm, data, truth, cache):
    HARMS[harm](cache / "hints.sqlite")
    for _ in range(2):
        done, matrix = extract(data, cache)
        assert (done.extracted, done.cached, len(done.failures)) == (0, N_PICTURES, 0)
        np.testing.assert_array_equal(matrix, truth)
    assert verify(cache).ok


def test_sound_hints_spare_the_reading(data, truth, cache, reads):
    done, matrix = extract(data, cache)
    assert done.extracted == 0
    np.testing.assert_array_equal(matrix, truth)
    assert reads == []


def test_hints_of_another_cache_from_before_the_files_changed_are_not_believed(
    data, truth, cache, before, reads
):
    shutil.copy(before, cache / "hints.sqlite")
    done, matrix = extract(data, cache)
    assert set(reads) == set(range(N_PICTURES))
    assert done.extracted == 0
    np.testing.assert_array_equal(matrix, truth)


@pytest.mark.parametrize("hours", [-1, 1])
def test_hints_written_by_a_clock_that_is_wrong_by_an_hour_serve_nothing_stale(
    hours, truth, tmp_path, monkeypatch
):
    folder, cache, real = tmp_path / "data", tmp_path / "cache", time.time
    paint(folder, red=200)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda: real() + hours * 3600)
            _, matrix = extract(folder, cache)
        np.testing.assert_array_equal(matrix, truth)
    done, matrix = extract(folder, cache)
    assert done.extracted == 0
    np.testing.assert_array_equal(matrix, truth)

    paint(folder, red=99)
    for change in (hours * 3600, 0):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda change=change: real() + change)
            _, matrix = extract(folder, cache)
        np.testing.assert_allclose(matrix[:, :3], colours(red=99), atol=1e-6)


@pytest.mark.parametrize("read_only", ["file", "folder"])
def test_hints_that_are_read_only_are_read_and_do_no_harm(read_only, data, cache):
    if AS_ANYBODY and shutil.which("setpriv") is None:
        pytest.skip("root writes every file, and cannot give that up without setpriv")
    hints = cache / "hints.sqlite"
    copy, new = data.parent / "copy", data.parent / "new"  # which the hints do not know
    hints.chmod(0o444)
    if read_only == "folder":
        for path in (cache, *cache.rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
    image = hints.read_bytes()
    try:
        for folder, n_new in ((data, 0), (copy, 0), (new, 1))[: 2 if read_only == "folder" else 3]:
            done = subprocess.run(
                [
                    *(*AS_ANYBODY, sys.executable, "-m", "featx", "extract", folder, "-x", "pixels:size=1"),
                    *("--cache", cache, "--json", "--precision", "float32", "--device", "cpu"),
                ],
                capture_output=True,
                text=True,
                timeout=100,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            assert done.returncode == 0, done.stderr
            values = json.loads(done.stdout)
            assert (values["extracted"], values["failed"]) == (n_new, 0)
            assert values["samples"] == len(list(folder.iterdir()))
            assert (values["stages"]["read"]["seconds"] == 0) == (folder == data)
            assert folder == data or done.stderr.count("only slower") == 1
        assert hints.read_bytes() == image
    finally:
        for path in (cache, *cache.iterdir()):
            path.chmod(path.stat().st_mode | 0o200)


# Runs again and again, each remembering a few files at a time, and says what it saw.
RUNS = """
import sys
import numpy as np
from pathlib import Path
from featx.engine import Settings, fill, read_extractors, run
from featx.samples import read_samples
sys.modules["featx.engine.fill"]._NOTED_AT_ONCE = 3
folder, cache, n_runs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
for _ in range(n_runs):
    done = run(
        read_samples(folder), read_extractors("pixels:size=1"), cache=cache, settings=Settings(workers=1)
    )
    print(done.extracted, *(done.matrix(done.good)[:, :2] * 255).round().astype(int).ravel())
"""


def test_processes_that_write_hints_at_once_while_these_are_deleted_answer_right(data, cache, reads):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", RUNS, data, cache, "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(3)
    ]
    n_deleted = 0
    while any(writer.poll() is None for writer in writers):
        if (cache / "hints.sqlite").exists():
            (cache / "hints.sqlite").unlink(missing_ok=True)
            n_deleted += 1
        time.sleep(0.01)
    expected = " ".join(["0", *(f"200 {number}" for number in range(N_PICTURES))])
    for writer in writers:
        said, complaints = writer.communicate(timeout=100)
        assert writer.returncode == 0, complaints
        assert said.splitlines() == [expected] * 60
    assert n_deleted > 10

    extract(data, cache, "pixels:size=1")
    reads.clear()
    extract(data, cache, "pixels:size=1")
    assert reads == []  # they are as good as new
