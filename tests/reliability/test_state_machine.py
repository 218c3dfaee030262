"""The cache against a dictionary: extracting, crashing, pruning, merging, damaging and repairing it, in any order."""

import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from PIL import Image

from featx.cache import disk, prune, verify
from featx.engine import OpenCache, Settings, read_extractors, run, writer
from featx.errors import CacheError
from featx.samples import key_of, read_samples

N_PICTURES = 12
STEPS = ("make_folder", "create_file", "write_all", "sync_file", "move_file", "sync_folder")
PICTURES = st.sets(st.integers(0, N_PICTURES - 1), min_size=1)
ANY = st.integers(
    0, 2**16
)  # taken modulo: what is drawn must not depend on names, which change with the clock
SETTINGS = Settings(device="cpu", precision="float32", workers=1, batch_size=2)


class PowerCut(BaseException):
    pass


class Cache(RuleBasedStateMachine):
    """`kept` is the model: the pictures whose vectors have to be served, and none but these may be."""

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        self.kept = set()
        self.paths, self.truth, self.number_of = [], [], {}
        (self.root / "pictures").mkdir()
        for number in range(N_PICTURES):
            colour = (number * 20, 255 - number, number * number)
            self.paths.append(self.root / "pictures" / f"{number}.png")
            Image.new("RGB", (2, 2), colour).save(self.paths[-1])
            self.truth.append(np.float32(colour) / 255)
            self.number_of[key_of(self.paths[-1].read_bytes())] = number
        self.extracted("other", range(0, N_PICTURES, 2))
        self.reopen()

    def teardown(self):
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @rule(pictures=PICTURES)
    def extract(self, pictures):
        done = self.extracted(self.cache, pictures)
        assert done.cached == len(pictures & self.kept)
        assert done.extracted == len(pictures - self.kept)
        self.kept |= pictures

    @rule(pictures=PICTURES, step=st.sampled_from(STEPS), after=st.booleans(), calls=st.integers(0, 3))
    def crash_while_extracting(self, pictures, step, after, calls):
        real, left = getattr(disk, step), calls

        def cut(*arguments):
            nonlocal left
            left -= 1
            if left >= 0:
                return real(*arguments)
            if after:
                result = real(*arguments)
                if step == "create_file":
                    result.close()
            elif step == "write_all":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise PowerCut

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk, step, cut)
            patch.setattr(disk, "remove_file", lambda path: None)  # nobody tidies up after a power cut
            try:
                self.extracted(self.cache, pictures)
            except PowerCut:
                self.cache = OpenCache(self.directory)
                served = self.served()
                assert self.kept <= served <= self.kept | pictures
                self.kept = served
            else:
                self.kept |= pictures

    @rule()
    def reopen(self):
        self.cache = OpenCache(self.directory)

    @rule()
    def lose_the_hints(self):
        self.cache.hints.close()
        for path in self.directory.glob("hints.sqlite*"):
            path.unlink()
        self.reopen()

    @rule()
    def prune(self):
        assert not prune(self.directory).problems

    @rule()
    def verify(self):
        assert verify(self.directory).ok

    @rule(which=ANY)
    def copy_in(self, which):
        theirs = self.shard(which, "other")
        ours = self.directory / theirs.relative_to(self.root / "other")
        ours.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(theirs, ours)
        self.kept |= self.pictures_in(theirs)

    @precondition(lambda self: self.shards())
    @rule(which=ANY)
    def delete_a_shard(self, which):
        self.shard(which).unlink()
        self.kept = set().union(*map(self.pictures_in, self.shards()))

    @precondition(lambda self: self.shards())
    @rule(which=ANY, byte=ANY, bit=st.integers(0, 7))
    def damage_and_repair(self, which, byte, bit):
        shard = self.shard(which)
        image = bytearray(shard.read_bytes())
        image[byte % len(image)] ^= 1 << bit
        shard.unlink()  # the open cache may go on with the file that it has checked, as after a merge
        shard.write_bytes(image)
        with pytest.raises(CacheError, match=shard.name):
            self.extracted("cache", [0])
        assert [problem.path for problem in verify(self.directory, repair=True).problems] == [shard]
        self.kept = set().union(*map(self.pictures_in, self.shards()))
        self.reopen()

    @invariant()
    def every_vector_that_is_served_is_right(self):
        if hasattr(self, "root"):
            assert self.served() == self.kept

    @property
    def directory(self):
        return self.root / "cache"

    def extracted(self, cache, pictures):
        """Run the engine, check its matrix, and return what it did."""
        wanted = sorted(pictures)
        done = run(
            read_samples([self.paths[number] for number in wanted]),
            read_extractors("pixels:size=1"),
            cache=self.root / cache if isinstance(cache, str) else cache,
            settings=SETTINGS,
        )
        np.testing.assert_array_equal(done.matrix(done.good), [self.truth[number] for number in wanted])
        return done

    def served(self):
        """Return the pictures that a process which opens the cache now is served, each checked."""
        [asked] = read_extractors("pixels:size=1")
        from featx.engine.plan import open_tasks

        [task] = open_tasks([asked], OpenCache(self.directory), device="cpu", precision="float32")
        keys = list(self.number_of)
        positions = task.store.lookup(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32))
        numbers = [
            self.number_of[key] for key, position in zip(keys, positions, strict=True) if position >= 0
        ]
        np.testing.assert_array_equal(
            task.store.read(positions[positions >= 0]), np.reshape([self.truth[n] for n in numbers], (-1, 3))
        )
        return set(numbers)

    def shards(self, cache="cache"):
        return sorted((self.root / cache).glob("*/shards/*.h5"), key=lambda path: path.stat().st_mtime_ns)

    def shard(self, which, cache="cache"):
        shards = self.shards(cache)
        return shards[which % len(shards)]

    def pictures_in(self, shard):
        with h5py.File(shard) as file:
            return {self.number_of[key.tobytes()] for key in file["keys"][:]}


def test_the_cache_behaves_like_a_dictionary_whatever_happens_to_it(monkeypatch):
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 3)  # so that there are some
    run_state_machine_as_test(
        Cache, settings=settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True)
    )
