import errno
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from featx.cache import disk
from featx.errors import CacheError, DecodeError, ExtractionError, UsageError
from featx.extractors.preprocessing import Preprocessing

COLOUR = "pixels:size=1"


def test_several_extractors_share_one_reading_and_one_decoding(fill, pictures, reads, decodings):
    fill(pictures(5), [COLOUR, "glcm", "color_histogram"], workers=1)
    assert len(decodings) == 5
    # Until one was known to lack a vector no extractor was built: it is read again, with those that were under way.
    assert set(reads) == set(range(5))
    assert max(reads.count(row) for row in range(5)) <= 2


def test_backbones_of_one_geometry_share_one_resizing(fill, pictures, monkeypatch):
    sizes = []
    real = Preprocessing.apply
    monkeypatch.setattr(
        Preprocessing,
        "apply",
        lambda preprocessing, image: sizes.append(preprocessing.crop) or real(preprocessing, image),
    )
    folder = pictures(4)
    done = fill(folder, "nano:size=32:layer=features.3+nano:size=64+nano:size=32:layer=features.12")
    assert sorted(sizes) == [32] * 4 + [64] * 4
    alone = fill(folder, "nano:size=32:layer=features.12", cache="another")
    rows = np.arange(4)
    assert (done.matrix(rows)[:, 24 + 624 :] == alone.matrix(rows)).all()


def test_pixels_from_a_gpu_are_refused_without_one(fill, pictures):
    with pytest.raises(
        UsageError, match=r"pixels=nvjpeg are decoded on a CUDA device, and this run is on cpu"
    ):
        fill(pictures(1), "nano:pixels=nvjpeg")


def test_a_copy_of_the_files_elsewhere_builds_no_extractor(counts, fill, pictures, tmp_path, request):
    folder = pictures(5)
    (folder / "broken.png").write_bytes(b"broken")
    fill(folder, max_error_rate=1.0)
    shutil.copytree(folder, tmp_path / "elsewhere")
    request.getfixturevalue("no_extractor_is_built")
    done = fill(tmp_path / "elsewhere", max_error_rate=1.0)
    assert counts(done) == ((5, 0, 1), [(5, 0, 1)])
    assert done.extracting_seconds == 0.0


def test_raising_does_not_begin_rows_behind_a_failure_that_is_remembered(
    fill, pictures, reads, trusted_at_once
):
    folder = pictures(50)
    (folder / "010.png").write_bytes(b"broken")
    fill(folder, max_error_rate=1.0)
    reads.clear()
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"sample '010\.png'"):
            fill(folder, [COLOUR, "glcm"], on_error="raise", workers=1)
    # The failure itself only in the first of the two, for the second extractor; nothing behind it.
    assert sorted(reads) == list(range(11))


def test_content_that_failed_is_not_decoded_again_by_the_same_decoder(fill, pictures, decodings, monkeypatch):
    folder = pictures(3)
    (folder / "001.png").write_bytes(b"broken")
    first = fill(folder)
    decodings.clear()
    assert fill(folder).failures == first.failures
    assert not decodings
    monkeypatch.setattr("featx.engine.plan.decoder_versions", lambda pixels: "a decoder that knows more")
    fill(folder)
    assert decodings == [b"broken"]


def test_progress_counts_each_missing_sample_once(fill, pictures):
    folder = pictures(6)
    fill([folder / "000.png"])
    (folder / "003.png").write_bytes(b"broken")
    told = []
    fill(folder, progress=told.append, batch_size=2)
    assert [one.done for one in told] == list(range(1, 7))
    assert {one.total for one in told} == {6}  # too young to be trusted, all are looked at
    assert told[-1].failed == 1


def test_a_full_disk_is_one_clear_error_and_what_was_published_is_kept(fill, pictures, monkeypatch):

    folder = pictures(40)
    fill([folder / f"{number:03}.png" for number in range(10)])

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, "write_all", full)
    with pytest.raises(CacheError, match=r"cannot write .* No space left on device.*run again to resume"):
        fill(folder, batch_size=1)
    monkeypatch.undo()
    assert fill(folder).cached == 10


def test_a_vector_that_is_not_finite_is_refused_with_the_way_out(fill, pictures):
    import torch

    from featx import ModuleExtractor, Preprocessing

    class Huge(torch.nn.Module):
        def __init__(self, factor, times=1):
            super().__init__()
            self.factor, self.times = torch.nn.Parameter(torch.tensor(factor)), times

        def forward(self, images):
            return images.mean((2, 3)) * self.factor * self.times

    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    folder = pictures(5)
    large = ModuleExtractor(Huge(3e38), name="large", preprocessing=preprocessing)
    # Only blue, 249 to 255 of 255, is nearly one; bfloat16 holds the product, the float16 it is kept in does not.
    with pytest.raises(
        ExtractionError, match=r"5 of 5 vectors .* finite in bfloat16.*'000\.png'.*--precision float32"
    ):
        fill(folder, large, precision="bfloat16", workers=1)
    assert fill(folder, large, precision="float32").extracted == 5
    broken = ModuleExtractor(Huge(3e38, times=1000), name="broken", preprocessing=preprocessing)
    Image.new("RGB", (8, 8)).save(folder / "black.png")
    with pytest.raises(ExtractionError, match=r"5 of 6 vectors .* finite in float32.*Check its weights\.$"):
        fill(folder, broken, precision="float32")
    assert fill([folder / "black.png"], broken, precision="float32").cached == 1


def test_an_interrupted_run_publishes_what_it_has_and_ends_its_threads(fill, pictures):
    folder, n_threads = pictures(20), threading.active_count()

    def interrupt(progress):
        if progress.done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(folder, progress=interrupt, batch_size=4)
    deadline = time.monotonic() + 10
    while threading.active_count() > n_threads and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == n_threads
    done = fill(folder)
    assert 8 <= done.cached < 20
    assert done.cached + done.extracted == 20


class Wide:
    """A runtime of several lanes, which says what it has computed."""

    name, lanes = "wide", 4

    def __init__(self, broken=None, most=None):
        self.computed, self.broken, self.most = [], broken, most

    def __call__(self, pixels):
        colours = pixels[:, :, 0, 0].astype(np.float32)
        if self.broken is not None and (colours == self.broken).all(1).any():
            raise RuntimeError("a batch that breaks")
        self.computed.append(len(pixels))
        return colours


@pytest.fixture
def wide(monkeypatch):
    """Return an extractor of mean colours, and a function that has it run by a runtime of several lanes."""
    import torch

    from featx import ModuleExtractor, Preprocessing

    class Means(torch.nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def run_by(runtime):
        monkeypatch.setattr("featx.engine.station.build_runtime", lambda *_, **__: runtime)
        return runtime

    return ModuleExtractor(Means(), name="means", preprocessing=preprocessing), run_by


@pytest.mark.parametrize(("batch_size", "most"), [(2, None), (9, 2)])
def test_what_was_computed_when_the_run_is_interrupted_is_kept(fill, pictures, wide, batch_size, most):
    extractor, run_by = wide
    runtime, folder = run_by(Wide(most=most)), pictures(40)

    def interrupt(progress):
        if progress.done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(folder, extractor, progress=interrupt, batch_size=batch_size, workers=1)
    computed = sum(runtime.computed)
    assert computed > 0
    assert fill(folder, extractor, batch_size=batch_size).cached == computed


def test_vectors_are_published_while_other_samples_are_still_decoded(
    fill, pictures, wide, monkeypatch, tmp_path
):
    from featx.engine import stages

    extractor, run_by = wide
    run_by(Wide())
    decoded, published, real = [], [], stages.decode

    def slow(raw):
        decoded.append(raw)
        deadline = time.monotonic() + (10 if len(decoded) == 12 else 0.05)
        while time.monotonic() < deadline and not published:
            time.sleep(0.01)
            if len(decoded) == 12:
                published.extend((tmp_path / "cache").rglob("shards/*.h5"))
        return real(raw)

    monkeypatch.setattr(stages, "decode", slow)
    assert fill(pictures(12), extractor, batch_size=2, workers=1).extracted == 12
    assert published


def test_a_sample_is_done_when_its_vectors_are(fill, pictures, wide):
    extractor, run_by = wide
    runtime, done = run_by(Wide()), []

    def tell(progress):
        assert sum(runtime.computed) >= progress.done
        done.append(progress.done)

    fill(pictures(12), [extractor, COLOUR], batch_size=4, workers=1, progress=tell)
    assert done == list(range(1, 13))


def test_a_batch_is_kept_whose_handing_over_is_interrupted(fill, pictures, wide, monkeypatch):
    from featx.engine.writer import Writer

    extractor, run_by = wide
    runtime, folder = run_by(Wide()), pictures(12)
    given, real = [], Writer.write

    def write(writer, station, keys, features):
        given.append(keys)
        if len(given) == 2:
            raise KeyboardInterrupt
        real(writer, station, keys, features)

    monkeypatch.setattr(Writer, "write", write)
    with pytest.raises(KeyboardInterrupt):
        fill(folder, extractor, batch_size=2, workers=1)
    computed = sum(runtime.computed)
    assert fill(folder, extractor).cached == computed


@pytest.mark.parametrize("batch_size", [5, 16, 64])
def test_a_batch_run_in_parts_gives_every_row_its_own_vector(pictures, colours, wide, batch_size):
    import featx

    extractor, run_by = wide
    runtime = run_by(Wide(most=3))
    features = featx.extract(featx.read_samples(pictures(40)), extractor, cache=None, batch_size=batch_size)
    np.testing.assert_array_equal(features.X, colours(40))
    assert max(runtime.computed) == 3


def test_batches_of_several_networks_are_larger_and_the_first_is_what_the_lanes_take_at_once(
    fill, pictures, wide, monkeypatch
):
    import torch

    from featx import ModuleExtractor, Preprocessing
    from featx.engine.forward import ForwardThreads

    begun, real = [], ForwardThreads.begin

    def begin(threads, runtime, inputs, **keywords):
        begun.append(len(inputs))
        return real(threads, runtime, inputs, **keywords)

    monkeypatch.setattr(ForwardThreads, "begin", begin)
    extractor, run_by = wide
    pooled = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    other = ModuleExtractor(pooled, name="other", preprocessing=preprocessing)
    run_by(Wide(most=2))
    folder = pictures(80)
    fill(folder, [extractor, other])
    assert begun == [8, 8, 64, 64, 8, 8]  # twice 32
    begun.clear()
    fill(folder, [extractor, other], cache="second", batch_size=40)
    assert begun == [8, 8, 40, 40, 32, 32]
    begun.clear()
    run_by(Wide())
    fill(folder, extractor, cache="third")
    assert begun == [4, 32, 32, 12]


def test_a_batch_that_breaks_takes_no_other_with_it(fill, pictures, colours, wide):
    extractor, run_by = wide
    folder = pictures(12)
    broken = run_by(Wide(broken=colours(12)[6]))
    with pytest.raises(RuntimeError, match="a batch that breaks"):
        fill(folder, extractor, batch_size=2, workers=1)
    computed = sum(broken.computed)
    assert computed >= 5
    run_by(Wide())
    assert fill(folder, extractor, batch_size=2).cached == computed


def test_no_stage_is_busy_for_more_than_the_time_there_was(fill, pictures, tmp_path):
    first = pictures(60)
    fill(first)
    (tmp_path / "renamed").mkdir()
    for path in first.iterdir():
        (tmp_path / "renamed" / f"new-{path.name}").write_bytes(path.read_bytes())
    Image.new("RGB", (20, 20), "teal").save(tmp_path / "renamed" / "z.png")
    done = fill(tmp_path / "renamed", workers=1)
    assert (done.cached, done.extracted) == (60, 1)
    assert max(done.shares.values()) <= 1.0
    assert done.shares["read"] + done.shares["digest"] + done.shares["decode"] <= 1.0


def test_a_forward_pass_that_hangs_ends_the_run_names_a_sample_and_keeps_what_was_computed(fill, pictures):
    import torch

    from featx import ModuleExtractor, Preprocessing

    go_on = threading.Event()

    class Hanging(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def __deepcopy__(self, memo):
            return self  # the extractor runs a copy of the network, and an event cannot be copied

        def forward(self, images):
            if len(images) == 3:  # the last batch: those before it are of 1, 4 and 4
                go_on.wait(60)
            return images.mean((2, 3)) * self.weight

    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    hanging = ModuleExtractor(Hanging(), name="hanging", preprocessing=preprocessing)
    folder = pictures(12)
    started = time.monotonic()
    try:
        with pytest.raises(
            ExtractionError,
            match=r"forward pass of module/hanging .* 3 samples, '009\.png' .* more than 5 s.*--batch-size",
        ):
            fill(folder, hanging, batch_size=4, workers=1, stall_seconds=5.0)
        assert time.monotonic() - started < 50
    finally:
        go_on.set()
    assert fill(folder, hanging).cached == 9


def test_products_are_float32_in_every_runtime_whatever_the_process_has_set(fill, pictures):
    from torch import backends, nn, ones

    from featx import ModuleExtractor, Preprocessing

    places = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    seen = []

    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(ones(1))

        def forward(self, images):
            if images.any():  # else it is only being measured
                seen.append([place.fp32_precision for place in places])
            return images.mean((2, 3)) * self.weight

    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32"
        fill(pictures(3), ModuleExtractor(Looking(), name="looking", preprocessing=preprocessing))
        assert seen == [["ieee"] * 4]
        assert [place.fp32_precision for place in places] == ["tf32"] * 4
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
