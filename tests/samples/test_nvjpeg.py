"""Decoding on a GPU: what is handed to it, what is not, and what becomes of what it cannot read.

Where there is no GPU its operator's place is taken by the CPU's, which takes one JPEG at a time.
"""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode  # whose module registers the operators

from featx.errors import DecodeError, ExtractionError, UsageError
from featx.samples import decode_fast, decode_nvjpeg, nvjpeg


def encoded(number, kind="JPEG", mode="RGB", **options):
    rows, columns = np.mgrid[0:48, 0:64]
    image = np.stack([rows * 4, columns * 3, np.full_like(rows, number)], axis=-1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def turned_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(0, exif=exif)


@pytest.fixture
def batches(monkeypatch):
    """Decode on the CPU in the GPU's place; return the lists of bytes it was given."""
    given = []
    monkeypatch.setattr(nvjpeg, "_decoders", {})
    monkeypatch.setattr(nvjpeg, "_refused", False)

    def decode(raws, device):
        given.append(raws if device == "cuda:0" else device)
        return [
            torch.ops.image.decode_jpeg(
                torch.frombuffer(bytearray(raw), dtype=torch.uint8), ImageReadMode.RGB.value, False
            )
            for raw in raws
        ]

    monkeypatch.setattr(nvjpeg, "_decode_on_gpu", decode)
    return given


def same(raw):
    return torch.equal(decode_nvjpeg(raw, "cuda:0"), decode_fast(raw))


def test_jpegs_are_decoded_there_and_turned(batches):
    grey, colour, turned = encoded(1, mode="L"), encoded(2), turned_by_exif()
    assert all(map(same, (grey, colour, turned)))
    assert decode_nvjpeg(turned, "cuda:0").shape == (3, 64, 48)
    assert [grey] in batches
    assert [colour] in batches


@pytest.mark.parametrize("raw", [encoded(1, "PNG"), encoded(1, mode="CMYK"), np.ones((5, 4, 3), np.uint8)])
def test_everything_else_is_decoded_on_the_cpu(batches, raw):
    assert same(raw)
    assert batches == []


def test_what_several_threads_wait_for_is_decoded_together(batches, monkeypatch):
    real, begun, go = nvjpeg._decode_on_gpu, threading.Event(), threading.Event()

    def slow(raws, device):
        begun.set()
        assert go.wait(60)
        return real(raws, device)

    monkeypatch.setattr(nvjpeg, "_decode_on_gpu", slow)
    raws = [encoded(number) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(decode_nvjpeg, raws[0], "cuda:0")
        assert begun.wait(60)
        others = [pool.submit(decode_nvjpeg, raw, "cuda:0") for raw in raws[1:]]
        deadline = time.monotonic() + 60
        while nvjpeg._decoder("cuda:0").qsize() < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        go.set()
        decoded = [future.result() for future in (first, *others)]
    assert [len(batch) for batch in batches] == [1, 5]
    assert all(torch.equal(one, decode_fast(raw)) for one, raw in zip(decoded, raws, strict=True))


@pytest.fixture
def fails_on(batches, monkeypatch):
    """Raise an error for batches that hold some bytes."""
    real = nvjpeg._decode_on_gpu

    def made(hard, error):
        def picky(raws, device):
            if hard in raws:
                raise error
            return real(raws, device)

        monkeypatch.setattr(nvjpeg, "_decode_on_gpu", picky)

    return made


def test_one_that_it_cannot_read_falls_to_the_cpu_and_spoils_no_other(fails_on, caplog):
    hard, easy = encoded(1), encoded(2)
    fails_on(hard, RuntimeError("Error decoding JPEG image"))
    waiting = [nvjpeg._Waiting(raw) for raw in (easy, hard, easy)]
    nvjpeg._decode(waiting, "cuda:0")
    assert [one.planes is None for one in waiting] == [False, True, False]
    assert same(hard)
    assert same(easy)
    assert [record.getMessage() for record in caplog.records] == [
        "nvJPEG does not read every JPEG here; those are decoded on the CPU"
    ]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), TypeError("CUDA out of memory")]
)
def test_what_is_not_the_pictures_fault_ends_the_run(fails_on, error):
    raw = encoded(1)
    fails_on(raw, error)
    with pytest.raises(ExtractionError, match=r"decoding on cuda:0 failed \(CUDA out of memory\)\. Use"):
        decode_nvjpeg(raw, "cuda:0")
    assert same(encoded(2))


def test_a_device_on_which_it_does_not_work_is_refused_before_anything_is_decoded(batches, monkeypatch):
    nvjpeg.check_nvjpeg("cuda:0")
    assert len(batches) == 1
    with pytest.raises(UsageError, match="on a CUDA device, and this run is on cpu"):
        nvjpeg.check_nvjpeg("cpu")
    monkeypatch.undo()
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"nvJPEG does not work on cuda \(.+\)\. Use pixels=fast"):
            nvjpeg.check_nvjpeg("cuda")


@pytest.mark.parametrize("cut", [2, 1, 300])
def test_a_jpeg_that_was_cut_off_is_the_cpus_to_judge(batches, cut):
    raw = encoded(1)[:-cut]
    with pytest.raises(DecodeError) as on_cpu:
        decode_fast(raw)
    with pytest.raises(DecodeError) as on_gpu:
        decode_nvjpeg(raw, "cuda:0")
    assert str(on_gpu.value) == str(on_cpu.value)
    assert batches == []


def test_zeros_behind_a_jpeg_do_no_harm(batches):
    assert same(encoded(1) + bytes(3))
    assert len(batches) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_nearly_the_pixels_of_the_cpu(assets):
    for path in sorted((assets / "datasets/hymenoptera/val/ants").glob("*.jpg")):
        raw = path.read_bytes()
        there, here = decode_nvjpeg(raw, "cuda:0").cpu().float(), decode_fast(raw).float()
        assert there.shape == here.shape
        assert (there - here).abs().mean() < 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(
    "options", [{"mode": "L"}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}]
)
def test_a_gpu_reads_jpegs_of_every_kind(options):
    raw = encoded(1, **options)
    there, here = decode_nvjpeg(raw, "cuda:0").cpu().float(), decode_fast(raw).float()
    assert there.shape == here.shape
    assert (there - here).abs().mean() < 4
