import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from featx.errors import DecodeError
from featx.samples import PIXEL_LIMIT, decode, decode_fast, pillow_warnings_ignored


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(height=48, width=64):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4, columns * 3, rows + columns], axis=-1).astype(np.uint8)


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


def jpeg_bomb(width, height):
    small = saved(Image.fromarray(photo()), "JPEG")
    frame = small.index(b"\xff\xc0") + 5
    return small[:frame] + struct.pack(">HH", height, width) + small[frame + 4 :]


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("bomb", [png_bomb, jpeg_bomb])
@pytest.mark.parametrize(("side", "megapixels"), [(10_000, "100.0"), (20_000, "400.0")])
def test_the_pixel_limit_is_checked_on_the_header(side, megapixels, bomb, recwarn):
    for how in (decode, decode_fast):
        with pytest.raises(DecodeError, match=f"{megapixels} megapixels, limit 89.5"):
            how(bomb(side, side))


def test_the_pixel_limit_holds_where_bomb_warnings_are_errors():
    with pytest.raises(DecodeError, match=r"100\.0 megapixels, limit 89\.5"):
        decode(png_bomb(10_000, 10_000))


def test_an_image_just_within_the_limit_gets_past_the_check():
    with pytest.raises(DecodeError, match=r"truncated|damaged"):
        decode(png_bomb(9_459, 9_459))  # 89,472,681 pixels, of which none is there
    assert 9_459**2 <= PIXEL_LIMIT < 9_460**2


def test_pillows_own_settings_are_left_alone():
    from PIL import ImageFile

    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    with pytest.raises(DecodeError):
        decode(saved(Image.fromarray(photo()), "JPEG")[:300])
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES) == before == (PIXEL_LIMIT, False)


JPEG = saved(Image.fromarray(photo()), "JPEG", quality=95)
PNG = saved(Image.fromarray(photo()), "PNG")
TEXT_BOMB = PNG[:33] + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 70_000_000)) + PNG[33:]
BROKEN = {
    "empty": (b"", "zero bytes"),
    "jpeg header": (JPEG[:10], "truncated JPEG header"),
    "half jpeg": (JPEG[: len(JPEG) * 3 // 4], "truncated JPEG"),
    "jpeg without its end": (JPEG[:-2], "truncated JPEG"),
    "png header": (PNG[:20], "truncated PNG header"),
    "half png": (PNG[: len(PNG) // 2], "truncated PNG"),
    "png with a wrong byte": (PNG[: len(PNG) // 2] + b"\xaa\xbb" + PNG[len(PNG) // 2 + 2 :], "damaged PNG"),
    "text bomb": (TEXT_BOMB, "damaged PNG header"),
    "half webp": (saved(Image.fromarray(photo()), "WEBP")[:60], "damaged WEBP header"),
    "half gif": (saved(Image.fromarray(photo()), "GIF")[:900], "truncated GIF"),
    "half bmp": (saved(Image.fromarray(photo()), "BMP")[:900], "truncated BMP"),
    "half tiff": (saved(Image.fromarray(photo()), "TIFF")[:900], "truncated|damaged"),
    "html": (b"\n<!DOCTYPE html><html>", "HTML"),
    "svg": (b"<svg xmlns=", "XML or SVG"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0", "MP4"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "avif": (b"\0\0\0\x20ftypavif", "AVIF"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (b"hello, this is no picture\n", "text"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
    "noise": (bytes(range(200, 256)), "^not an image$"),
}


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning")
@pytest.mark.parametrize("how", [decode, decode_fast])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_content_is_refused_with_one_short_reason(name, how):
    raw, reason = BROKEN[name]
    with pytest.raises(DecodeError, match=reason) as caught:
        how(raw)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 150
    assert "0x" not in message
    assert "/" not in message


def test_a_damaged_png_does_not_end_the_process():
    # In a process of its own, because that is what a segmentation fault takes with it.
    program = (
        "import io, sys\n"
        "from featx.samples import decode_fast\n"
        "from featx.errors import DecodeError\n"
        "try: decode_fast(sys.stdin.buffer.read())\n"
        "except DecodeError: print('refused')\n"
    )
    raw, _ = BROKEN["png with a wrong byte"]
    done = subprocess.run([sys.executable, "-c", program], input=raw, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"refused\n"), done.stderr


def test_fuzzed_files_decode_or_fail_as_a_decode_error():
    random = np.random.default_rng(0)
    sources = [
        JPEG,
        PNG,
        *(saved(Image.fromarray(photo(16, 16)), kind) for kind in ("GIF", "BMP", "TIFF", "WEBP")),
    ]
    for trial in range(300):
        raw = bytearray(sources[trial % len(sources)])
        for _ in range(3):
            raw[random.integers(len(raw))] = random.integers(256)
        for how in (decode, decode_fast):
            with contextlib.suppress(DecodeError):
                how(bytes(raw))


def test_other_formats_are_refused_even_though_pillow_reads_them():
    for kind in ("PPM", "TGA", "ICO", "PDF", "EPS", "PCX"):
        with pytest.raises(DecodeError, match="not an image"):
            decode(saved(Image.fromarray(photo()), kind))


def test_pillows_warnings_are_ignored_by_several_threads_at_once_and_by_nobody_after():
    before = warnings.filters[:]
    first, second = pillow_warnings_ignored(), pillow_warnings_ignored()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.filterwarnings("ignore", message="somebody else's")
    with pytest.raises(DecodeError, match="megapixels"):
        decode(png_bomb(10_000, 10_000))  # warned of by Pillow, and warnings are errors in this test
    warnings.warn_explicit(
        "read past it", UserWarning, "PIL/TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin"
    )
    second.__exit__(None, None, None)
    assert len(warnings.filters) == len(before) + 1
    with pytest.raises(UserWarning, match="read past it"):
        warnings.warn_explicit("read past it", UserWarning, "PIL/Tiff.py", 1, module="PIL.TiffImagePlugin")
