"""Bit rot in what a run has published: every damaged file is named with the way out, and no row of it is served."""

import json
import logging
import random
import re
import shutil
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from featx.cli import main
from featx.engine import OpenCache, Settings, look_up, read_extractors, run, writer
from featx.engine.plan import open_tasks
from featx.errors import CacheError, ModelError
from featx.samples import read_samples

N_PICTURES = 12
N_DATA_BYTES = 700
N_LENGTHS = 300
SETTINGS = Settings(device="cpu", precision="float32", workers=1, on_error="record")
PIXELS, GABOR = "pixels:size=8", "gabor"  # as many features, of another identity


@pytest.fixture
def pictures(tmp_path):
    """Write pictures of noise and one that is none, so that a shard holds vectors, a failure and its reason."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (N_PICTURES, 8, 8, 3), np.uint8)
    for number, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "none.png").write_bytes(b"nothing")
    return folder


@pytest.fixture
def truth(pictures):
    """What `PIXELS` owes to the pictures, worked out without featx."""
    opened = [np.asarray(Image.open(path)) for path in sorted(pictures.glob("[0-9]*.png"))]
    return np.reshape(opened, (N_PICTURES, -1)) / np.float32(255)


@pytest.fixture
def cache(tmp_path, pictures):
    run(read_samples(pictures), read_extractors(PIXELS), cache=tmp_path / "cache", settings=SETTINGS)
    return tmp_path / "cache"


@pytest.fixture
def shard(cache):
    [path] = cache.glob("pixels-*/shards/*.h5")
    return path


@pytest.fixture
def featx(tmp_path, monkeypatch, capsys):
    """Run a command line with --json; return its object, or where it fails the one line that says why."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("featx")
    before = logger.handlers[:], logger.level, logger.propagate

    def done(*arguments, code=0):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["featx", *map(str, arguments), "--json", "-q"])
        with pytest.raises(SystemExit) as ended:
            main.main()
        shown = capsys.readouterr()
        assert (ended.value.code or 0) == code, shown.err
        if not code:
            return json.loads(shown.out)
        [line] = shown.err.splitlines()
        return line

    yield done
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def served(folder, cache, text=PIXELS):
    found = look_up(read_samples(folder), read_extractors(text), cache=cache, settings=SETTINGS)
    return found.matrix(found.good)


def opened(cache):
    """Open the store as a run does, before it looks at a sample."""
    return open_tasks(read_extractors(PIXELS), OpenCache(cache), device="cpu", precision="float32")


@pytest.fixture
def rotten(tmp_path, cache, shard):
    """Put bytes where the shard was, in a cache in which nothing sound was ever opened; return the cache."""
    copy = tmp_path / "rotten"
    shutil.copytree(cache, copy)
    path = copy / shard.relative_to(cache)

    def put(image):
        path.unlink(missing_ok=True)
        path.write_bytes(image)
        return copy

    return put


def flips(shard):
    """Every byte outside the features, and a sample of those inside, each with one bit turned."""
    image = shard.read_bytes()
    with h5py.File(shard) as file:
        start = file["features"].id.get_offset()
        inside = range(start, start + file["features"].id.get_storage_size())
    chance = random.Random(0)
    outside = [at for at in range(len(image)) if at not in inside]
    for at in outside + sorted(chance.sample(inside, N_DATA_BYTES)):
        mutant = bytearray(image)
        mutant[at] ^= 1 << chance.randrange(8)
        yield bytes(mutant)


def cuts(shard):
    """The shard cut short at many lengths, and longer than it was."""
    image = shard.read_bytes()
    for length in np.linspace(0, len(image) - 1, N_LENGTHS, dtype=int):
        yield image[:length]
    for more in (b"\0", b"\0" * 4096, image):
        yield image + more


@pytest.mark.parametrize("harms", [flips, cuts], ids=lambda harms: harms.__name__)
def test_every_damage_to_a_shard_is_named_with_the_way_out(harms, pictures, truth, cache, shard, rotten):
    np.testing.assert_array_equal(served(pictures, cache), truth)
    way_out = rf"{shard.name}' is damaged: .*`featx cache verify --repair"
    n_harms = 0
    for n_harms, image in enumerate(harms(shard), start=1):
        damaged = rotten(image)
        with pytest.raises(CacheError, match=way_out):
            opened(damaged)
        if n_harms % 100 == 0:  # all the way, with samples to look up and to extract
            for work in (look_up, run):
                with pytest.raises(CacheError, match=way_out):
                    work(read_samples(pictures), read_extractors(PIXELS), cache=damaged, settings=SETTINGS)
    assert n_harms > {flips: 1500, cuts: 300}[harms]
    # It was the damage, and nothing else.
    np.testing.assert_array_equal(served(pictures, rotten(shard.read_bytes())), truth)
    logging.info("%d %s, all named, none served", n_harms, harms.__name__)


def test_a_shard_that_rots_while_it_is_served_serves_no_row_any_more(pictures, truth, cache, shard):
    found = look_up(read_samples(pictures), read_extractors(PIXELS), cache=cache, settings=SETTINGS)
    image = bytearray(shard.read_bytes())
    image[-1] ^= 1
    shard.unlink()
    shard.write_bytes(image)
    with pytest.raises(CacheError, match=f"{shard.name}' is damaged"):
        found.matrix(found.good)


@pytest.fixture
def several(tmp_path, pictures, monkeypatch):
    """A cache with four shards of one extractor and one of another that has as many features."""
    monkeypatch.setattr(writer, "rows_per_shard", lambda n_features, itemsize: 4)
    settings = Settings(device="cpu", precision="float32", workers=1, on_error="record", batch_size=4)
    cache = tmp_path / "several"
    for text in (PIXELS, GABOR):
        run(read_samples(pictures), read_extractors(text), cache=cache, settings=settings)
    return cache


def shards_of(cache, name):
    return sorted(cache.glob(f"{name}-*/shards/*.h5"), key=lambda path: path.stat().st_mtime_ns)


def test_two_shards_with_each_others_names_are_both_refused(pictures, several, featx):
    one, other = shards_of(several, "pixels")[:2]
    spare = one.with_suffix(".spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)
    with pytest.raises(CacheError, match=r"(%s|%s)' is damaged.*--repair" % (one.name, other.name)):  # noqa: UP031
        served(pictures, several)
    removed = {
        problem["path"] for problem in featx("cache", "verify", "--repair", "--cache", several)["problems"]
    }
    assert removed == {str(one), str(other)}


def test_a_shard_among_anothers_is_refused_although_it_is_sound(pictures, truth, several, featx):
    foreign = shards_of(several, "gabor")[0]
    put = shards_of(several, "pixels")[0].with_name(foreign.name)
    shutil.copy(foreign, put)
    with pytest.raises(CacheError, match=rf"{put.name}' belongs to another extractor.*192 float32.*--repair"):
        served(pictures, several)
    [problem] = featx("cache", "verify", "--repair", "--cache", several)["problems"]
    assert problem["path"] == str(put)
    assert foreign.exists()
    np.testing.assert_array_equal(served(pictures, several), truth)


def test_the_rows_of_a_deleted_shard_are_computed_again(pictures, truth, several):
    gone = shards_of(several, "pixels")[1]
    with h5py.File(gone) as file:
        n_gone = int((file["status"][:] == 0).sum())
    gone.unlink()
    table, asked = read_samples(pictures), read_extractors(PIXELS)
    assert len(look_up(table, asked, cache=several, settings=SETTINGS).good) == N_PICTURES - n_gone
    done = run(table, asked, cache=several, settings=SETTINGS)
    assert (done.cached, done.extracted) == (N_PICTURES - n_gone, n_gone)
    np.testing.assert_array_equal(done.matrix(done.good), truth)


def flip(path):
    image = bytearray(path.read_bytes())
    image[len(image) // 2] ^= 1
    path.write_bytes(image)


def content(cache):
    return {path: path.read_bytes() for path in cache.glob("*-*/**/*") if path.is_file()}


def test_the_command_line_names_repairs_and_computes_again_exactly_what_is_broken(
    pictures, truth, several, featx, tmp_path
):
    one, other, *_ = shards_of(several, "pixels")
    n_lost = 0
    for path in (one, other):
        with h5py.File(path) as file:
            n_lost += int((file["status"][:] == 0).sum())
    flip(one)
    other.write_bytes(other.read_bytes()[:100])
    foreign = one.with_name(shards_of(several, "gabor")[0].name)
    shutil.copy(shards_of(several, "gabor")[0], foreign)
    spec = one.parents[1] / "spec.json"
    flip(spec)
    before = content(several)
    use = ("-x", PIXELS, "--cache", several)
    for command in (["extract", pictures, *use], ["cache", "export", pictures, *use, "--out", "f.h5"]):
        line = featx(*command, code=1)
        assert re.match(r"featx: error: .*(spec\.json|\.h5)' .*Run `featx cache verify --repair", line)
    assert not (tmp_path / "f.h5").exists()
    told = featx("cache", "verify", "--cache", several, code=1)
    assert re.search(r"broken.* 4 files.* --repair", told)
    assert content(several) == before

    report = featx("cache", "verify", "--repair", "--cache", several)
    broken = {one, other, foreign, spec}
    assert {problem["path"] for problem in report["problems"]} == set(map(str, broken))
    assert all(problem["removed"] for problem in report["problems"])
    assert content(several) == {path: image for path, image in before.items() if path not in broken}
    assert featx("cache", "verify", "--cache", several)["problems"] == []

    again = featx("extract", pictures, *use)
    assert (again["extracted"], again["cached"], again["failed"]) == (n_lost, N_PICTURES - n_lost, 1)
    np.testing.assert_array_equal(served(pictures, several), truth)
    assert spec.exists()


def test_a_rotten_model_is_refused_or_says_the_same(tmp_path, pictures):
    import featx

    table = read_samples(sorted(pictures.glob("[0-9]*.png")))
    fitted = featx.fit(table, PIXELS, labels=["a", "b"] * 6, cv=2, n_jobs=1)
    fitted.save(tmp_path / "m.featx")
    X = featx.extract(table, PIXELS).X
    image = (tmp_path / "m.featx").read_bytes()
    chance, outcomes = random.Random(0), {"refused": 0, "the same": 0}
    for at in sorted(chance.sample(range(len(image)), 150)):
        mutant = bytearray(image)
        mutant[at] ^= 1 << chance.randrange(8)
        (tmp_path / "rotten.featx").write_bytes(mutant)
        try:
            found = featx.load(tmp_path / "rotten.featx")
        except ModelError:
            outcomes["refused"] += 1
        else:
            np.testing.assert_array_equal(found.head_.predict_proba(X), fitted.head_.predict_proba(X))
            outcomes["the same"] += 1
    assert outcomes["refused"] > 100
    logging.info("a model with a turned bit: %s", outcomes)
