import io
import json
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from featx.errors import DecodeError, UsageError
from featx.samples import DECODE_POLICY, decode, decode_fast, decoder_versions

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(raw):
    return np.asarray(decode(raw))


def photo(height=48, width=64):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 4, columns * 3, rows + columns], axis=-1).astype(np.uint8)


# Six blocks of different colours: no turn or mirror image of it looks like another.
BLOCKS = np.array([[RED, GREEN, BLUE], [WHITE, BLACK, (255, 255, 0)]], dtype=np.uint8)
STORED = BLOCKS.repeat(16, axis=0).repeat(16, axis=1)
UPRIGHT = {  # EXIF 2.32, table of orientations: where row 0 and column 0 of what is stored belong
    1: BLOCKS,
    2: BLOCKS[:, ::-1],
    3: BLOCKS[::-1, ::-1],
    4: BLOCKS[::-1],
    5: BLOCKS.transpose(1, 0, 2),
    6: BLOCKS.transpose(1, 0, 2)[:, ::-1],
    7: BLOCKS.transpose(1, 0, 2)[::-1, ::-1],
    8: BLOCKS.transpose(1, 0, 2)[::-1],
}


def assert_upright(shown, orientation):
    expected = UPRIGHT[orientation]
    assert shown.shape == (16 * expected.shape[0], 16 * expected.shape[1], 3)
    assert np.abs(shown[8::16, 8::16].astype(int) - expected).max() <= 12


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


ORIENTED = {
    "jpeg": lambda exif: saved(Image.fromarray(STORED), "JPEG", exif=exif, quality=95, subsampling=0),
    "grey jpeg": lambda exif: saved(Image.fromarray(STORED).convert("L"), "JPEG", exif=exif, quality=95),
    "png": lambda exif: saved(Image.fromarray(STORED), "PNG", exif=exif),
    "webp": lambda exif: saved(Image.fromarray(STORED), "WEBP", exif=exif, lossless=True),
    "tiff": lambda exif: saved(Image.fromarray(STORED), "TIFF", exif=exif),
    "tiff lzw": lambda exif: saved(Image.fromarray(STORED), "TIFF", exif=exif, compression="tiff_lzw"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTED)
def test_every_exif_orientation_is_applied_once(kind, orientation):
    raw = ORIENTED[kind](exif_of(orientation))
    for shown in (pixels(raw), decode_fast(raw).permute(1, 2, 0).numpy()):
        if kind == "grey jpeg":  # only the shape and the turn of the lightness can be checked
            expected = np.asarray(Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation])).convert("L"))
            assert np.abs(shown[8::16, 8::16, 0].astype(int) - expected).max() <= 12
        else:
            assert_upright(shown, orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_and_exact_turn_alike(orientation):
    raw = saved(Image.fromarray(photo()), "JPEG", exif=exif_of(orientation), quality=95)
    fast = decode_fast(raw)
    assert np.abs(fast.permute(1, 2, 0).numpy().astype(int) - pixels(raw)).max() <= 4


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_orientation_behind_the_pixels_of_a_png_counts():
    plain = saved(Image.fromarray(STORED), "PNG")
    exif = exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    end = plain.rindex(b"IEND") - 4
    raw = plain[:end] + png_chunk(b"eXIf", exif) + plain[end:]
    assert_upright(pixels(raw), 6)
    assert_upright(decode_fast(raw).permute(1, 2, 0).numpy(), 6)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_ignored(value):
    assert_upright(pixels(saved(Image.fromarray(STORED), "JPEG", exif=exif_of(value), quality=95)), 1)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "junk", [b"", b"\xff" * 40, b"II*\0\xff\xff\xff\x7f", b"II*\0\x08\0\0\0\x09\0\x12\x01"]
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_corrupt_exif_leaves_the_picture_as_it_is_stored(kind, junk):
    raw = ORIENTED[kind](b"Exif\0\0" + junk)
    assert_upright(pixels(raw), 1)
    assert_upright(decode_fast(raw).permute(1, 2, 0).numpy(), 1)


def test_alpha_is_composited_on_white():
    rgba = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)]], dtype=np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]  # 255 * (1 - 51 / 255) = 204
    assert pixels(saved(Image.fromarray(rgba), "PNG")).tolist() == expected
    assert pixels(saved(Image.fromarray(rgba), "TIFF")).tolist() == expected
    assert pixels(saved(Image.fromarray(rgba), "WEBP", lossless=True, exact=True)).tolist() == expected
    grey = Image.fromarray(rgba).convert("LA")
    assert pixels(saved(grey, "PNG"))[0, 1:].tolist() == expected[0][1:]


@pytest.mark.parametrize(("mode", "colour"), [("La", (0, 51)), ("RGBa", (0, 0, 0, 51)), ("PA", None)])
def test_rare_alpha_modes_are_composited_too(mode, colour):
    from featx.samples.decode import to_rgb

    if mode == "PA":
        image = Image.new("P", (1, 1)).convert("PA")
        image.putpixel((0, 0), (0, 51))
        image.putpalette([0, 0, 0])
    else:
        image = Image.new(mode, (1, 1), colour)
    assert to_rgb(image).getpixel((0, 0)) == (204, 204, 204)


def test_a_palette_with_a_transparent_colour_shows_white_there():
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).convert("P")
    image.putpalette([*RED, *GREEN, *BLUE])
    for kind in ("PNG", "GIF"):
        assert pixels(saved(image, kind, transparency=1)).tolist() == [[[*RED], [*WHITE], [*BLUE]]], kind
    soft = saved(image, "PNG", transparency=bytes([255, 0, 51]))
    assert pixels(soft).tolist() == [[[*RED], [*WHITE], [204, 204, 255]]]


@pytest.mark.parametrize(("mode", "key"), [("RGB", (10, 20, 30)), ("L", 10)])
def test_a_transparent_colour_key_shows_white(mode, key):
    image = Image.new(mode, (2, 1), key)
    image.putpixel((1, 0), BLUE if mode == "RGB" else 200)
    shown = pixels(saved(image, "PNG", transparency=key)).tolist()[0]
    assert shown == [[*WHITE], [*BLUE] if mode == "RGB" else [200, 200, 200]]


SIXTEEN = np.array([[0, 128, 129, 257, 32768, 65407, 65535]], dtype=np.uint16)
EIGHT = [0, 0, 1, 1, 128, 255, 255]  # round(value / 257): 127.502 -> 128, 254.502 -> 255


def big_endian_tiff(values):
    entries = [(256, 3, values.shape[1]), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 3, 1), (279, 4, values.nbytes)]
    body = values.astype(">u2").tobytes()
    directory = struct.pack(">H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack(">HHI", tag, kind, 1)
        directory += struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
    return b"MM\0*" + struct.pack(">I", 8 + len(body)) + body + directory + b"\0\0\0\0"


def test_sixteen_bit_grey_is_scaled_and_never_clipped():
    grey = Image.fromarray(SIXTEEN)
    wide = Image.fromarray(SIXTEEN.astype(np.int32))
    for raw in (saved(grey, "PNG"), saved(grey, "TIFF"), saved(wide, "TIFF"), big_endian_tiff(SIXTEEN)):
        shown = pixels(raw)
        assert shown[0, :, 0].tolist() == EIGHT
        assert (shown == shown[..., :1]).all()


def test_a_transparent_value_in_sixteen_bit_grey_shows_white():
    plain = saved(Image.fromarray(SIXTEEN), "PNG")
    at = plain.index(b"IDAT") - 4
    raw = plain[:at] + png_chunk(b"tRNS", struct.pack(">H", 257)) + plain[at:]
    assert pixels(raw)[0, :, 0].tolist() == [0, 0, 1, 255, 128, 255, 255]


@pytest.mark.parametrize("values", [[[-1, 5]], [[0, 65536]]])
def test_integers_of_an_unknown_range_are_refused(values):
    raw = saved(Image.fromarray(np.array(values, dtype=np.int32)), "TIFF")
    with pytest.raises(DecodeError, match=r"integer pixels from -?\d+ to \d+; expected 0 to 65535"):
        decode(raw)


def test_floating_point_grey_is_scaled_from_zero_to_one():
    raw = saved(Image.fromarray(np.array([[0, 0.2, 1]], dtype=np.float32)), "TIFF")
    assert pixels(raw)[0, :, 0].tolist() == [0, 51, 255]


@pytest.mark.parametrize("value", [-0.5, 1.5, np.nan])
def test_floating_point_pixels_of_another_range_are_refused(value):
    raw = saved(Image.fromarray(np.array([[0, value]], dtype=np.float32)), "TIFF")
    with pytest.raises(DecodeError, match=r"floating-point pixels from .* to .*; expected 0 to 1"):
        decode(raw)


def test_every_other_mode_becomes_rgb():
    colours = Image.fromarray(BLOCKS)
    exact = {"PNG P": ("P", "PNG"), "1 bit": ("1", "PNG"), "L": ("L", "BMP"), "GIF": ("P", "GIF")}
    for name, (mode, kind) in exact.items():
        image = colours.convert(mode)
        raw = saved(image, kind)
        assert np.array_equal(pixels(raw), np.asarray(image.convert("RGB"))), name
    for mode in ("LAB", "CMYK"):
        image = Image.fromarray(STORED).convert(mode if mode != "LAB" else "RGB")
        if mode == "LAB":
            image = Image.new("LAB", (4, 4), (255, 128, 128))  # white
            assert pixels(saved(image, "TIFF")).min() >= 250
        else:
            assert np.abs(pixels(saved(image, "TIFF")).astype(int) - STORED).max() <= 2


def test_cmyk_jpegs_as_adobe_writes_them_have_the_right_colours():
    # Pillow writes inverted values and the Adobe marker, as Photoshop does.
    raw = saved(Image.fromarray(STORED).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in raw
    assert_upright(pixels(raw), 1)
    assert_upright(decode_fast(raw).permute(1, 2, 0).numpy(), 1)


def test_a_jpeg_that_stores_rgb_is_the_same_either_way():
    raw = saved(Image.fromarray(STORED), "JPEG", quality=95, keep_rgb=True)
    assert_upright(pixels(raw), 1)
    assert_upright(decode_fast(raw).permute(1, 2, 0).numpy(), 1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_only_the_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    raw = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    for shown in (pixels(raw), decode_fast(raw).permute(1, 2, 0).numpy()):
        assert shown.shape == (32, 32, 3)
        assert np.abs(shown.astype(int) - RED).max() <= 5


def test_icc_profiles_are_ignored_even_when_they_are_junk():
    plain, profiled = (
        saved(Image.fromarray(photo()), "JPEG", **o) for o in ({}, {"icc_profile": b"junk" * 50})
    )
    assert np.array_equal(pixels(plain), pixels(profiled))


JPEG = saved(Image.fromarray(photo()), "JPEG", quality=95)
PNG = saved(Image.fromarray(photo()), "PNG")


def test_trailing_garbage_and_a_wrong_extension_do_no_harm():
    assert np.array_equal(pixels(JPEG + b"\0garbage" * 50), pixels(JPEG))
    assert np.array_equal(pixels(PNG), photo())


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_are_pictures_too(size):
    raw = saved(Image.new("RGB", size, GREEN), "PNG")
    assert decode(raw).size == size
    assert tuple(decode_fast(raw).shape) == (3, size[1], size[0])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fast_pixels_are_close_to_exact_ones(mode, options):
    raw = saved(Image.fromarray(photo()).convert(mode), "JPEG", **options)
    fast = decode_fast(raw)
    assert str(fast.dtype) == "torch.uint8"
    assert tuple(fast.shape) == (3, 48, 64)
    assert fast.permute(1, 2, 0).is_contiguous()
    assert np.abs(fast.permute(1, 2, 0).numpy().astype(int) - pixels(raw)).max() <= 4


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_fast_pixels_of_anything_but_jpeg_are_the_exact_ones(mode):
    image = Image.fromarray(SIXTEEN) if mode == "I;16" else Image.fromarray(photo()).convert(mode)
    raw = saved(image, "PNG")
    assert np.array_equal(decode_fast(raw).permute(1, 2, 0).numpy(), pixels(raw))


def test_pixels_that_are_decoded_already_pass_through():
    array = photo()
    array.setflags(write=False)
    assert np.array_equal(pixels(array), array)
    assert np.array_equal(decode_fast(array).permute(1, 2, 0).numpy(), array)


def test_threads_decode_alike():
    expected, got = pixels(JPEG), []
    threads = [threading.Thread(target=lambda: got.append(pixels(JPEG))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert all(np.array_equal(one, expected) for one in got)


def test_the_policy_can_be_written_as_json():
    assert json.loads(json.dumps(DECODE_POLICY))["alpha"] == "on #ffffff"


def test_decoder_versions_name_what_decodes():
    import torchvision

    assert decoder_versions("exact") == f"policy 1; Pillow {Image.__version__}"
    assert torchvision.__version__.partition("+")[0] in decoder_versions("fast")
    with pytest.raises(UsageError, match="expected one of exact, fast, nvjpeg, got 'quick'"):
        decoder_versions("quick")
