import importlib
import itertools
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from featx.engine import Settings, look_up, read_extractors
from featx.engine.fill import Work
from featx.errors import DecodeError, ExtractionError, SampleIOError
from featx.extractors.descriptor_source import DescriptorExtractor
from featx.samples import SampleTable, read_samples

COLOUR = "pixels:size=1"


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 1), (4, 3), (8, 100)])
def test_rows_are_in_the_order_of_the_samples(fill, pictures, colours, workers, batch_size, counted):
    folder = pictures(40)
    order = np.random.default_rng(0).permutation(40)
    paths = [folder / f"{number:03}.png" for number in order]
    expected = colours(40)[order] / 255

    done = fill(paths, [COLOUR, counted[0]], workers=workers, batch_size=batch_size)

    np.testing.assert_allclose(done.matrix(done.good), np.hstack([expected, expected]), atol=1e-6)
    assert done.table.ids.tolist() == [str(path) for path in paths]


def test_order_survives_duplicates_failures_and_vectors_that_were_there(counts, fill, pictures, colours):
    folder = pictures(30)
    paths = [folder / f"{number:03}.png" for number in range(30)]
    fill(paths[5:15])  # these are in the cache
    paths[20].write_bytes(b"broken")
    paths[22].unlink()
    listed = [*paths[::-1], *paths[:10], *paths[18:24]]
    numbers = [*range(30)[::-1], *range(10), *range(18, 24)]

    done = fill(listed, workers=4, batch_size=7, max_error_rate=1.0)

    good = [row for row, number in enumerate(numbers) if number not in (20, 22)]
    assert done.good.tolist() == good
    np.testing.assert_allclose(
        done.matrix(done.good), colours(30)[[numbers[row] for row in good]] / 255, atol=1e-6
    )
    assert [failure.row for failure in done.failures] == [
        row for row, number in enumerate(numbers) if number in (20, 22)
    ]
    # 10 of 28 readable pictures were there; 16 of those listed twice were computed under their first name.
    total, [one] = counts(done)
    assert one == total
    assert total == (len(good) - 18, 18, 4)


def test_pictures_with_the_same_bytes_are_computed_once_and_count_as_cached(counts, fill, pictures, counted):
    folder = pictures(10)
    for number in range(10):
        shutil.copy(folder / f"{number:03}.png", folder / f"copy-{number:03}.png")
    extractor, batches = counted

    done = fill(folder, extractor, workers=4)

    assert sum(batches) == 10
    assert counts(done) == ((10, 10, 0), [(10, 10, 0)])
    np.testing.assert_array_equal(done.matrix(np.arange(10)), done.matrix(np.arange(10, 20)))


def test_each_extractor_has_its_own_account_and_a_sample_counts_as_extracted_where_any_ran(
    counts, fill, pictures
):
    folder = pictures(6)
    fill([folder / f"{number:03}.png" for number in range(2)], "glcm")
    fill(folder, COLOUR)
    (folder / "broken.png").write_bytes(b"broken")

    done = fill(folder, [COLOUR, "glcm"], max_error_rate=1.0)

    assert counts(done) == ((2, 4, 1), [(6, 0, 1), (2, 4, 1)])
    assert done.bottleneck in done.stages


def test_shares_are_busy_time_by_thread_and_the_busiest_is_the_bottleneck(fill, pictures):
    busy = {"read": 2.0, "digest": 1.0, "decode": 8.0, "forward": 6.0, "write": 2.5}
    threads = {"read": 4, "digest": 4, "decode": 4, "forward": 2, "write": 1}
    done = replace(fill(pictures(2), COLOUR), stages=busy, threads=threads, extracting_seconds=10.0)
    assert done.shares == pytest.approx(
        {"read": 0.05, "digest": 0.025, "decode": 0.2, "forward": 0.3, "write": 0.25}
    )
    assert done.bottleneck == "forward"


def test_one_extractor_under_two_names_runs_once(fill, pictures, counts):
    done = fill(pictures(4), f"{COLOUR}+descriptor/{COLOUR}")
    assert counts(done) == ((0, 4, 0), [(0, 4, 0), (0, 4, 0)])
    assert done.matrix(done.good).shape == (4, 6)


def test_only_what_is_missing_is_computed(fill, pictures, counted):
    folder = pictures(9)
    extractor, batches = counted
    fill([folder / f"{number:03}.png" for number in range(4)], extractor)
    assert fill(folder, extractor).extracted == 5
    assert sum(batches) == 9


def test_a_recorded_failure_keeps_row_id_and_reason(fill, pictures):
    folder = pictures(4)
    (folder / "001.png").write_bytes((folder / "001.png").read_bytes()[:40])
    (folder / "003.png").unlink()
    paths = [folder / f"{number:03}.png" for number in range(4)]
    done = fill(paths)
    assert [(one.row, one.id) for one in done.failures] == [(1, str(paths[1])), (3, str(paths[3]))]
    assert "damaged PNG" in done.failures[0].reason or "truncated" in done.failures[0].reason
    assert "no such file" in done.failures[1].reason


def test_raising_names_the_first_failure_in_order_whatever_fails_first(fill, pictures, monkeypatch):
    folder = pictures(30)
    for number in (4, 5, 6, 20):
        (folder / f"{number:03}.png").write_bytes(b"broken %d" % number)

    def slow_at_four(table, row, real=SampleTable.read_with_stat):
        time.sleep(0.1 if row == 4 else 0.0)
        return real(table, row)

    monkeypatch.setattr(SampleTable, "read_with_stat", slow_at_four)
    with pytest.raises(DecodeError, match=r"sample '004\.png': not an image.*on_error='record'"):
        fill(folder, on_error="raise", workers=8)
    # What came before is kept.
    monkeypatch.undo()
    assert fill(folder, max_error_rate=1.0).cached >= 4


def test_what_cannot_be_read_and_what_cannot_be_decoded_raise_their_own_errors(fill, pictures):
    folder = pictures(1)
    with pytest.raises(SampleIOError, match=r"sample '.*gone\.png': cannot read .*no such file"):
        fill([folder / "000.png", folder / "gone.png"], on_error="raise")

    class Items:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 1:
                raise RuntimeError("archive damaged")
            return np.zeros((4, 4, 3), np.uint8)

    with pytest.raises(DecodeError, match="sample '1': item 1 cannot be had: RuntimeError: archive damaged"):
        fill(Items(), on_error="raise")


def test_failures_to_read_are_forgotten(counts, fill, pictures):
    folder = pictures(2)
    paths = [folder / "000.png", folder / "later.png"]
    assert len(fill(paths).failures) == 1
    shutil.copy(folder / "001.png", folder / "later.png")
    done = fill(paths)
    assert counts(done) == ((1, 1, 0), [(1, 1, 0)])


def test_a_file_that_is_gone_has_no_vector_although_its_twin_has(
    counts, fill, pictures, trusted_at_once, monkeypatch
):
    folder = pictures(1)
    shutil.copy(folder / "000.png", folder / "twin.png")
    fill(folder, "glcm")
    read = SampleTable.read_with_stat

    def gone(table, row):
        if row == 1:
            raise SampleIOError("cannot read 'twin.png': gone since it was looked at")
        return read(table, row)

    monkeypatch.setattr(SampleTable, "read_with_stat", gone)
    done = fill(folder)
    assert counts(done) == ((0, 1, 1), [(0, 1, 1)])
    assert done.good.tolist() == [0]


@pytest.mark.parametrize(
    ("n_samples", "n_broken", "fails"), [(99, 50, False), (100, 1, False), (100, 2, True)]
)
def test_the_share_of_failures_is_judged_from_a_hundred_samples(fill, pictures, n_samples, n_broken, fails):
    folder = pictures(n_samples)
    for number in range(n_broken):
        (folder / f"{number:03}.png").write_bytes(b"broken %d" % number)
    if fails:
        with pytest.raises(ExtractionError, match=r"2 of 100 samples failed \(2\.0%\).*'000\.png'"):
            fill(folder)
    else:
        fill(folder)
    assert fill(folder, max_error_rate=1.0).cached == n_samples - n_broken


def test_looking_up_computes_nothing_and_calls_only_what_cannot_be_read_a_failure(
    fill, pictures, tmp_path, request
):
    folder = pictures(4)
    fill([folder / "000.png", folder / "002.png"])
    request.getfixturevalue("no_extractor_is_built")
    found = look_up(
        read_samples([folder / f"{number:03}.png" for number in range(4)] + [folder / "gone.png"]),
        read_extractors(COLOUR),
        cache=tmp_path / "cache",
        settings=Settings(),
    )
    assert found.good.tolist() == [0, 2]
    assert [failure.row for failure in found.failures] == [4]
    assert found.outcomes[0].extracted == 0


def test_a_sample_that_one_of_two_extractors_fails_on_is_failed_in_all(
    fill, pictures, colours, counts, monkeypatch
):
    prepare = DescriptorExtractor.prepare

    def fails_for_glcm_on_the_first(extractor, image):
        if extractor.spec.name == "glcm" and image.getpixel((0, 0))[0] == 0:
            raise DecodeError("too dark")
        return prepare(extractor, image)

    monkeypatch.setattr(DescriptorExtractor, "prepare", fails_for_glcm_on_the_first)
    done = fill(pictures(3), [COLOUR, "glcm"])
    assert counts(done) == ((0, 2, 1), [(0, 3, 0), (0, 2, 1)])
    assert [(one.row, one.reason) for one in done.failures] == [(0, "too dark")]
    np.testing.assert_allclose(done.matrix(done.good)[:, :3], colours(3)[1:] / 255, atol=1e-6)


def test_the_answer_is_the_vector_that_the_cache_goes_on_to_serve(fill, pictures):
    import torch

    from featx import ModuleExtractor, Preprocessing

    class Drifting(torch.nn.Module):
        """Never gives the same twice, as half precision in another batch does in its last digits."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.passes = itertools.count()

        def __deepcopy__(self, memo):
            return self

        def forward(self, images):
            return images.mean((2, 3)) * self.weight + next(self.passes)

    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    drifting = ModuleExtractor(Drifting(), name="drifting", preprocessing=preprocessing)
    folder = pictures(4)
    others = []

    def another_process(progress):
        if progress.done == progress.total and not others:
            others.append(None)  # its own progress comes here too
            others[0] = fill(folder, drifting, cache="cache")

    done = fill(folder, drifting, progress=another_process)
    again = fill(folder, drifting)
    assert again.extracted == 0
    for answer in (done, again):
        np.testing.assert_array_equal(answer.matrix(answer.good), others[0].matrix(others[0].good))


def test_rows_that_nothing_became_of_are_not_passed_over_in_silence(fill, pictures, monkeypatch):
    monkeypatch.setattr(
        importlib.import_module("featx.engine.run"),
        "fill",
        lambda table, *arguments, **keywords: Work(np.zeros(len(table), bool)),
    )
    for on_error in ("record", "raise"):
        with pytest.raises(ExtractionError, match="3 of 3 samples have neither a vector nor a reason"):
            fill(pictures(3, on_error), on_error=on_error)
