"""Processes that are killed at random moments: what was published stays, stays right, and is where the rerun starts."""

import logging
import os
import random
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from featx.cache import prune, verify
from featx.engine import OpenCache, Settings, look_up, read_extractors, run
from featx.samples import read_samples

N_PICTURES = 3000
N_KILLS = 50

# Forks, for each line on standard input, a process that runs it as a command line, and prints its number. What is
# imported before need not be imported by each, so that most of a process's life is the work to be interrupted.
NURSERY = """
import os, shlex, signal, sys
import h5py, numpy, PIL.Image, PIL.PngImagePlugin, PIL.JpegImagePlugin
import featx.cli.extract, featx.engine, featx.extractors.descriptor_source
from featx.cli.main import main
from featx.engine import writer
writer.PUBLISH_SECONDS = 0.05
if sys.argv[1:]:
    import torch, torchvision, featx.extractors.torchvision
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    number = os.fork()
    if not number:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.argv = ["featx", *shlex.split(line)]
        main()
    print(number, flush=True)
"""


class Nursery:
    """Starts command lines in processes of their own, quickly."""

    def __init__(self, *preload):
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY, *preload],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def start(self, *arguments):
        self.process.stdin.write(shlex.join(map(str, arguments)) + "\n")
        self.process.stdin.flush()
        # Before the number may come what an earlier command printed.
        while not (line := self.process.stdout.readline().strip()).isdigit():
            assert self.process.poll() is None
        return int(line)


@pytest.fixture
def nursery():
    made = []

    def begun(*preload):
        made.append(Nursery(*preload))
        return made[-1]

    yield begun
    for one in made:
        one.process.communicate(timeout=60)


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def kill(processes, number=signal.SIGKILL):
    for process in processes:
        if lives(process):
            os.kill(process, number)
    while any(map(lives, processes)):
        time.sleep(0.001)


def shards(cache):
    return set(cache.glob("*/shards/*.h5"))


def wait_for_a_shard(cache, processes):
    before = shards(cache)
    while shards(cache) <= before and any(map(lives, processes)):
        time.sleep(0.002)


def test_fifty_kills_of_two_writers_lose_nothing_that_was_published(tmp_path, nursery):
    folder = tmp_path / "pictures"
    folder.mkdir()
    colours = [(number % 256, number // 256, 7) for number in range(N_PICTURES)]
    for number, colour in enumerate(colours):
        Image.new("RGB", (2, 2), colour).save(folder / f"{number:04}.png", compress_level=0)
    truth = np.array(colours, np.float32) / 255
    table, asked = read_samples(folder), read_extractors("pixels:size=1")
    settings = Settings(device="cpu", precision="float32")
    start, chance = nursery().start, random.Random(0)
    n_kills, n_while_writing, caches = 0, 0, []
    while n_kills < N_KILLS:
        cache = tmp_path / f"cache-{len(caches)}"
        caches.append(cache)
        n_served = 0
        while n_served < N_PICTURES and n_kills < N_KILLS:
            arguments = ("extract", folder, "-x", "pixels:size=1", "--cache", cache, "-q")
            writers = [start(*arguments), start(*arguments)]
            wait_for_a_shard(cache, writers)
            time.sleep(chance.uniform(0, 0.1))
            n_kills += sum(map(lives, writers))
            kill(writers)
            n_while_writing += any(cache.glob("*/tmp/*"))

            assert verify(cache).ok
            # Hints may lag behind what was published; the shards alone say what is served.
            found = look_up(table, asked, cache=cache, settings=settings)
            np.testing.assert_array_equal(found.matrix(found.good), truth[found.good])
            assert len(found.good) > n_served
            n_served = len(found.good)

    done = run(table, asked, cache=caches[-1], settings=settings)
    assert done.cached == n_served
    assert done.extracted == N_PICTURES - n_served
    np.testing.assert_array_equal(done.matrix(done.good), truth)
    logging.info(
        "%d kills in %d caches, %d pairs of them while a file was being written",
        n_kills,
        len(caches),
        n_while_writing,
    )
    for cache in caches:
        for path in cache.glob("*/tmp/*"):
            os.utime(path, (time.time() - 7200,) * 2)
        prune(cache)
        assert not any(cache.glob("*/tmp/*"))
        assert verify(cache).ok


def test_kills_of_a_backbone_lose_nothing_that_was_published(tmp_path, assets, nursery):
    photos = assets / "datasets/hymenoptera/val"
    extractor = f"squeezenet1_1:weights={assets / 'weights/squeezenet1_1.pth'}"
    table, asked = read_samples(photos), read_extractors(extractor)
    settings = Settings(device="cpu", precision="float32")
    truth = run(table, asked, cache=None, settings=settings)
    truth = truth.matrix(truth.good)
    cache, chance, n_served = tmp_path / "cache", random.Random(0), 0
    start = nursery("torch").start
    for _ in range(5):
        writer = start(
            *("extract", photos, "-x", extractor, "--cache", cache, "-q"),
            *("--precision", "float32", "--device", "cpu", "--batch-size", "2", "--workers", "1"),
        )
        wait_for_a_shard(cache, [writer])
        time.sleep(chance.uniform(0, 0.2))
        assert lives(writer)
        kill([writer])
        assert verify(cache).ok
        found = look_up(table, asked, cache=cache, settings=settings)
        np.testing.assert_allclose(
            found.matrix(found.good), truth[found.good], rtol=0, atol=1e-5 * truth.max()
        )
        assert n_served < len(found.good) < len(table)
        n_served = len(found.good)
    done = run(table, asked, cache=OpenCache(cache), settings=settings)
    assert (done.cached, done.extracted) == (n_served, len(table) - n_served)
    np.testing.assert_allclose(done.matrix(done.good), truth, rtol=0, atol=1e-5 * truth.max())
