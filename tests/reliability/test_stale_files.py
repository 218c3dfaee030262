"""Files that change between runs or during one: a row is the vector of its key, and the next run sees what is there."""

import hashlib
import io
import mmap
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from featx.engine import Settings, read_extractors, run
from featx.errors import SampleIOError
from featx.samples import SampleTable, read_samples

TRUST_SECONDS = 2.0
"""Files that are younger when they are read are read again by the next run."""


def picture(colour):
    """Return a file of one colour; all of them are of one size."""
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), tuple(colour)).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def colours(count, version=0):
    return [(number, 7 * version, 200) for number in range(count)]


@pytest.fixture
def write(tmp_path):
    """Write one picture for each name, all with the same modification time; return their paths."""

    def written(names):
        paths = [tmp_path / "data" / name for name in names]
        for path, colour in zip(paths, colours(len(paths)), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(colour))
            os.utime(path, (1.0, 1.0))
        return paths

    return written


@pytest.fixture
def extract(tmp_path):
    def run_over(data, **settings):
        return run(
            read_samples(data),
            read_extractors("pixels:size=1"),
            cache=tmp_path / "cache",
            settings=Settings(**{"device": "cpu", "on_error": "record"} | settings),
        )

    return run_over


@pytest.fixture
def reads(monkeypatch):
    """Return the list of samples that are read, as it grows."""
    ids, real = [], SampleTable.read_with_stat
    monkeypatch.setattr(
        SampleTable, "read_with_stat", lambda table, row: ids.append(table.id_at(row)) or real(table, row)
    )
    return ids


@pytest.fixture
def stamp(monkeypatch):
    """Let files have a given time, whatever is done to them: as on FAT, whose clock ticks every two seconds."""

    def stamped(paths, seconds, real_stat=os.stat, real_fstat=os.fstat):
        files = {(path.stat().st_dev, path.stat().st_ino) for path in paths}
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), seconds)
        times |= {f"{name}_ns": int(seconds * 1e9) for name in times}

        def at_that_time(status):
            if (status.st_dev, status.st_ino) not in files:
                return status
            return os.stat_result([*status[:7], *[int(seconds)] * 3], times)

        monkeypatch.setattr(os, "stat", lambda *given, **named: at_that_time(real_stat(*given, **named)))
        monkeypatch.setattr(os, "fstat", lambda descriptor: at_that_time(real_fstat(descriptor)))

    return stamped


def wait_until_trusted(paths):
    youngest = max(path.stat().st_ctime for path in paths)
    time.sleep(max(0.0, youngest + TRUST_SECONDS + 0.05 - time.time()))


def assert_shows(done, expected):
    np.testing.assert_allclose(done.matrix(done.good), np.array(expected) / 255, atol=1e-6)


def rewritten(path, content):
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path, content):
    other = path.with_suffix(".tmp")
    other.write_bytes(content)
    os.utime(other, (1.0, 1.0))
    other.replace(path)


def made_again(path, content):
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (1.0, 1.0))


def written_through_a_hard_link(path, content):
    other = path.with_suffix(".other")
    other.hardlink_to(path)
    rewritten(other, content)
    other.unlink()


def written_through_a_memory_map(path, content):
    status = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:] = content
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def renamed_over_by_an_older_file(path, content):
    older = path.parent.parent / "older.tmp"  # made before the first run, like the others
    older.replace(path)


WAYS = (
    rewritten,
    replaced,
    made_again,
    written_through_a_hard_link,
    written_through_a_memory_map,
    renamed_over_by_an_older_file,
)


def test_what_changed_between_runs_with_size_and_time_kept_is_read_again(tmp_path, write, extract, reads):
    names = [f"changed/{way.__name__}.png" for way in WAYS]
    paths = write([*names, "left/a.png", "left/b.png", "link/a.png", "link/b.png"])
    link = tmp_path / "data" / "link" / "c.png"
    link.symlink_to("a.png")
    [older] = write(["older.tmp"])
    older.write_bytes(picture(colours(6, version=1)[5]))
    os.utime(older, (1.0, 1.0))
    before = [*colours(10), colours(10)[8]]
    paths.append(link)
    wait_until_trusted([*paths, older])
    assert_shows(extract(paths), before)
    assert set(reads) == set(map(str, paths))
    reads.clear()
    assert_shows(extract(paths), before)
    assert reads == []

    for way, path, colour in zip(WAYS, paths, colours(6, version=1), strict=False):
        status = path.stat()
        way(path, picture(colour))
        now = path.stat()
        assert (now.st_size, now.st_mtime) == (status.st_size, status.st_mtime)
    left = tmp_path / "data" / "left"
    for move in (("a.png", "c.png"), ("b.png", "a.png"), ("c.png", "b.png")):
        (left / move[0]).rename(left / move[1])
    link.unlink()
    link.symlink_to("b.png")

    done = extract(paths)

    after = [*colours(6, version=1), *colours(10)[7:5:-1], *colours(10)[8:], colours(10)[9]]
    assert_shows(done, after)
    assert done.extracted == len(WAYS)
    assert sorted(set(reads)) == sorted(str(path) for path in [*paths[:8], link])


def test_folders_that_exchange_their_names_are_read_again_though_only_inodes_tell(
    tmp_path, write, extract, reads, stamp
):
    paths = write(["a/x.png", "b/x.png"])
    stamp(paths, time.time() - 60)
    assert_shows(extract(paths), colours(2))
    data = tmp_path / "data"
    for move in (("a", "c"), ("b", "a"), ("c", "b")):
        (data / move[0]).rename(data / move[1])
    reads.clear()
    assert_shows(extract(paths), colours(2)[::-1])
    assert set(reads) == set(map(str, paths))


def test_a_change_within_one_tick_of_the_clock_is_seen_though_nothing_tells(write, extract, stamp):
    paths = write(["a/x.png"])
    stamp(paths, time.time())
    assert_shows(extract(paths), colours(1))
    before = paths[0].stat()
    paths[0].write_bytes(picture((1, 2, 3)))
    assert paths[0].stat() == before
    assert_shows(extract(paths), [(1, 2, 3)])


def test_a_file_that_was_a_tick_old_when_it_was_read_is_not_read_again(write, extract, reads, stamp):
    paths = write(["a/x.png"])
    stamp(paths, time.time() - TRUST_SECONDS)
    extract(paths)
    reads.clear()
    assert_shows(extract(paths), colours(1))
    assert reads == []


def test_a_file_that_changes_after_every_reading_has_the_vector_of_the_bytes_of_its_key(
    write, extract, monkeypatch
):
    paths = write([f"a/{number:02}.png" for number in range(30)])
    wait_until_trusted(paths)
    versions, real = [0] * 30, SampleTable.read_with_stat

    def read(table, row):
        raw = real(table, row)
        versions[row] += 1
        rewritten(paths[row], picture(colours(30, versions[row])[row]))
        return raw

    colour_of = {
        hashlib.sha256(picture(colour)).digest(): colour
        for version in range(9)
        for colour in colours(30, version)
    }
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(SampleTable, "read_with_stat", read)
            done = extract(paths, workers=4)
        assert len(done.good) == 30
        assert_shows(done, [colour_of[key.tobytes()] for key in done.keys.values])
    assert_shows(extract(paths), [colours(30, version)[row] for row, version in enumerate(versions)])
    assert min(versions) >= 3


def test_a_path_that_leads_elsewhere_while_it_is_opened_is_not_known_by_what_was_there(
    write, extract, tmp_path, monkeypatch
):
    paths = write(["a/x.png", "a/y.png"])
    link, real = tmp_path / "link.png", os.open
    link.symlink_to(paths[0])
    wait_until_trusted(paths)

    def lead_to(path):
        link.unlink()
        link.symlink_to(path)

    def opened_elsewhere(path, *arguments, **keywords):
        if path != str(link):
            return real(path, *arguments, **keywords)
        lead_to(paths[1])
        descriptor = real(path, *arguments, **keywords)
        lead_to(paths[0])
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened_elsewhere)
        assert_shows(extract([link]), colours(2)[1:])
    for number in (0, 1, 0):
        lead_to(paths[number])
        assert_shows(extract([link]), [colours(2)[number]])


def test_files_that_others_replace_all_the_time_never_get_each_others_vectors(write, extract):
    paths = write([f"a/{number:02}.png" for number in range(30)])
    version, stop = 0, threading.Event()
    colour_of = {}

    def replace_all():
        nonlocal version
        while not stop.is_set():
            version = (version + 1) % 30
            for path, colour in zip(paths, colours(30, version), strict=True):
                replaced(path, picture(colour))

    for number in range(30):
        colour_of |= {hashlib.sha256(picture(colour)).digest(): colour for colour in colours(30, number)}
    thread = threading.Thread(target=replace_all)
    thread.start()
    try:
        for _ in range(10):
            done = extract(paths, workers=2)
            assert len(done.good) == 30
            assert_shows(done, [colour_of[key.tobytes()] for key in done.keys.values])
    finally:
        stop.set()
        thread.join()
    assert_shows(extract(paths), colours(30, version))


def test_a_file_that_changes_once_it_was_extracted_is_new_to_the_next_run(write, tmp_path, reads):
    paths = write([f"a/{number:02}.png" for number in range(20)])
    wait_until_trusted(paths)

    def change_the_first(progress):
        if progress.done == 10:
            rewritten(paths[0], picture((1, 2, 3)))

    def extract(progress=None):
        settings = Settings(device="cpu", workers=1)
        return run(
            read_samples(paths),
            read_extractors("pixels:size=1"),
            cache=tmp_path / "cache",
            settings=settings,
            progress=progress,
        )

    assert_shows(extract(change_the_first), colours(20))
    reads.clear()
    assert_shows(extract(), [(1, 2, 3), *colours(20)[1:]])
    assert set(reads) == {str(paths[0])}


def test_a_file_that_is_gone_when_its_turn_comes_is_a_failure_however_well_it_is_known(write, extract):
    paths = write([f"a/{number:02}.png" for number in range(20)])
    folder = paths[0].parent
    wait_until_trusted(paths)
    assert extract(folder).extracted == 20
    table = read_samples(folder)
    paths[7].unlink()
    done = extract(table)
    assert [(one.row, one.id) for one in done.failures] == [(7, "07.png")]
    assert "no such file" in done.failures[0].reason
    assert_shows(done, [colour for row, colour in enumerate(colours(20)) if row != 7])
    with pytest.raises(SampleIOError, match=r"sample '07\.png'.*no such file"):
        extract(table, on_error="raise")
    paths[7].write_bytes(picture((1, 2, 3)))
    assert_shows(extract(table), [*colours(7), (1, 2, 3), *colours(20)[8:]])
