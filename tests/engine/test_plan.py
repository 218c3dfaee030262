import hashlib
import os

import numpy as np
from PIL import Image

from featx.engine import OpenCache
from featx.samples import SampleTable


def test_a_second_run_reads_no_file(counts, fill, pictures, trusted_at_once, monkeypatch):
    folder = pictures(5)
    first = fill(folder)
    monkeypatch.setattr(SampleTable, "read_with_stat", None)
    second = fill(folder)
    assert counts(second) == ((5, 0, 0), [(5, 0, 0)])
    assert second.extracting_seconds == 0.0
    assert second.bottleneck is None
    np.testing.assert_array_equal(second.matrix(second.good), first.matrix(first.good))


def test_more_rows_than_are_looked_up_at_a_time_are_served_each_its_own_vector(
    fill, pictures, colours, trusted_at_once, monkeypatch
):
    monkeypatch.setattr("featx.engine.plan._ROWS_AT_ONCE", 3)
    folder = pictures(10)
    first = fill(folder)
    second = fill(folder)
    assert (first.extracted, second.cached, second.extracted) == (10, 10, 0)
    np.testing.assert_array_equal(first.matrix(first.good), second.matrix(second.good))
    assert len(set(second.outcomes[0].positions.tolist())) == 10
    (folder / "000.png").unlink()
    assert fill(folder).cached == 9


def test_hints_may_be_deleted(fill, pictures, tmp_path, trusted_at_once, request):
    folder = pictures(5)
    fill(folder)
    assert (tmp_path / "cache/hints.sqlite").exists()
    (tmp_path / "cache/hints.sqlite").unlink()
    request.getfixturevalue("no_extractor_is_built")
    assert fill(folder).extracted == 0


def test_a_changed_file_gets_a_new_vector_even_with_the_old_size_and_time(fill, tmp_path, trusted_at_once):
    path = tmp_path / "a.bmp"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    before = path.stat()
    assert fill([path]).matrix(np.arange(1)).tolist() == [[1, 0, 0]]
    Image.new("RGB", (8, 8), (0, 255, 0)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    done = fill([path])
    assert done.matrix(np.arange(1)).tolist() == [[0, 1, 0]]
    assert done.extracted == 1


def test_a_file_replaced_by_another_gets_its_vector(fill, tmp_path, trusted_at_once):
    path, other = tmp_path / "a.bmp", tmp_path / "b.bmp"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    Image.new("RGB", (8, 8), (0, 0, 255)).save(other)
    stat = path.stat()
    fill([path])
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert fill([path]).matrix(np.arange(1)).tolist() == [[0, 0, 1]]


def test_a_file_of_this_second_is_read_again(fill, pictures, reads):
    folder = pictures(3)
    fill(folder)
    reads.clear()
    assert fill(folder).extracted == 0
    assert sorted(reads) == [0, 1, 2]


def test_keys_are_digests_of_the_bytes(fill, pictures):
    folder = pictures(3)
    done = fill(folder)
    for number in range(3):
        digest = hashlib.sha256((folder / f"{number:03}.png").read_bytes()).digest()
        assert done.keys.values[number].tobytes() == digest


def test_an_open_cache_without_a_folder_keeps_vectors(fill, pictures, counted):
    folder, opened = pictures(4), OpenCache(None)
    extractor, batches = counted
    fill(folder, extractor, cache=opened)
    assert fill(folder, extractor, cache=opened, take_turns=True).extracted == 0
    assert sum(batches) == 4
