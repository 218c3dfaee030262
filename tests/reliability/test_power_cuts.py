"""Power cuts: every file call of the cache is in turn the last one; what was not made durable before it is lost."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.cache import disk, merge, prune, verify
from featx.engine import Settings, read_extractors, run, writer
from featx.samples import read_samples

CALLS = ("make_folder", "create_file", "write_all", "sync_file", "move_file", "sync_folder", "remove_file")
N_PICTURES = 8
SETTINGS = Settings(device="cpu", precision="float32", workers=1, batch_size=2)


class PowerCut(BaseException):
    pass


class Machine:
    """Runs the cache's file calls until its power is cut, and knows what is durable.

    A file's bytes are durable once it was synced, a name once its folder was; until then a cut may lose them, or not.
    With the name of a folder, whoever made it, goes all that is in it.
    """

    def __init__(self, patch, drive, *, n_calls=None):
        self.drive, self.n_calls, self.calls = drive, n_calls, []
        self.bytes_at_risk, self.names_at_risk = set(), {}
        self.mkdir = os.mkdir
        patch.setattr(os, "mkdir", self.make_any_folder)
        for name in CALLS:
            watched = self.watched(name, getattr(disk, name))
            for place in (disk, merge):
                if hasattr(place, name):
                    patch.setattr(place, name, watched)

    def make_any_folder(self, path, *arguments, **options):
        self.mkdir(path, *arguments, **options)
        if Path(path).is_relative_to(self.drive):
            self.names_at_risk[Path(path)] = Path(path).parent

    def watched(self, name, real):
        def call(*arguments):
            if name == "sync_folder" and not arguments[0].is_relative_to(self.drive):
                return real(*arguments)
            if self.n_calls is not None and len(self.calls) >= self.n_calls:
                raise PowerCut
            self.calls.append(name)
            if self.n_calls == len(self.calls) and name == "write_all":
                self.bytes_at_risk.add(Path(arguments[0].name))
                arguments = (arguments[0], arguments[1][: len(arguments[1]) // 2])
            result = real(*arguments)
            self.note(name, arguments)
            return result

        return call

    def note(self, name, arguments):
        path = arguments[0] if isinstance(arguments[0], Path) else Path(arguments[0].name)
        if name == "create_file":
            self.bytes_at_risk.add(path)
        elif name == "sync_file":
            self.bytes_at_risk.discard(path)
        elif name == "move_file":
            target = arguments[1]
            self.names_at_risk[target] = target.parent
            if path in self.bytes_at_risk:
                self.bytes_at_risk.discard(path)
                self.bytes_at_risk.add(target)
        elif name == "sync_folder":
            self.names_at_risk = {at: folder for at, folder in self.names_at_risk.items() if folder != path}

    def lose(self):
        for path in self.bytes_at_risk:
            if path.exists():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        for path in self.names_at_risk:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "pictures"
    made.mkdir()
    for number in range(N_PICTURES):
        Image.new("RGB", (2, 2), (number, 200, 7)).save(made / f"{number}.png")
    return made


TRUTH = np.array([(number, 200, 7) for number in range(N_PICTURES)], np.float32) / 255


def extract(folder, cache):
    done = run(read_samples(folder), read_extractors("pixels:size=1"), cache=cache, settings=SETTINGS)
    np.testing.assert_array_equal(done.matrix(done.good), TRUTH)
    return done


def cut_at_each_call(work, start, tmp_path, folder, check):
    """Run `work` on copies of a cache, or on none: whole, then cut after each of its calls; return how many these are.

    A cut loses nothing, or all that was not durable; or only the process is killed, a rerun goes on, and the power
    is cut after that.
    """

    def begin(name):
        drive = tmp_path / name
        drive.mkdir()
        if start is not None:
            shutil.copytree(start, drive / "caches" / "cache")
        return drive, drive / "caches" / "cache"

    drive, cache = begin("whole")
    with pytest.MonkeyPatch.context() as patch:
        machine = Machine(patch, drive)
        work(cache)
    machine.lose()
    assert extract(folder, cache).extracted == 0  # what was reported as done is durable
    n_calls = len(machine.calls)
    for number in range(n_calls):
        for then in ("nothing is lost", "all is lost", "a rerun"):
            drive, cache = begin(f"{number}, {then}")
            with pytest.MonkeyPatch.context() as patch:
                machine = Machine(patch, drive, n_calls=number)
                with pytest.raises(PowerCut):
                    work(cache)
            if then == "all is lost":
                machine.lose()
            elif then == "a rerun":
                with pytest.MonkeyPatch.context() as patch:
                    rerun = Machine(patch, drive)
                    # The killed process may have lost a file of its own; what the rerun adds needs the folders.
                    rerun.names_at_risk = {at: up for at, up in machine.names_at_risk.items() if at.is_dir()}
                    work(cache)
                rerun.lose()
                assert extract(folder, cache).extracted == 0
            assert verify(cache).ok
            check(cache)
            shutil.rmtree(drive)
    logging.info("cut after each of %d calls, in three ways", n_calls)
    return n_calls


def test_a_run_cut_at_any_call_serves_no_wrong_row_and_can_be_resumed(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 3)

    def check(cache):
        assert extract(folder, cache).cached in (0, 1, 4, 7, 8)
        assert extract(folder, cache).extracted == 0

    n_calls = cut_at_each_call(lambda cache: extract(folder, cache), None, tmp_path, folder, check)
    assert n_calls > 20


def test_a_merge_cut_at_any_call_loses_no_row(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 3)
    extract(folder, tmp_path / "start")

    def check(cache):
        assert extract(folder, cache).extracted == 0
        prune(cache)
        assert extract(folder, cache).extracted == 0

    assert cut_at_each_call(prune, tmp_path / "start", tmp_path, folder, check) > 8
