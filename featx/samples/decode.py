"""One sample to RGB pixels under one explicit, versioned policy; resizing and normalising come later."""

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from featx.errors import DecodeError, UsageError
from featx.samples.table import RawSample

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = [
    "ALPHA_COLOUR",
    "DECODE_POLICY",
    "PIXEL_LIMIT",
    "Pixels",
    "decode",
    "decode_fast",
    "decoder_versions",
    "jpeg_header",
    "pillow_warnings_ignored",
    "to_rgb",
    "turned",
]

Pixels = Literal["exact", "fast", "nvjpeg"]
"""Which decoder makes the pixels: Pillow alone, torchvision where it is safe, or nvJPEG on a GPU where that can."""

PIXEL_LIMIT = 89_478_485
"""The most pixels that an image may have, checked before any is decompressed."""

ALPHA_COLOUR = (255, 255, 255)
"""The RGB colour that shows through transparency."""

_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")

DECODE_POLICY: Mapping[str, str | int] = {
    "version": 1,
    "formats": " ".join(sorted(_FORMATS)),
    "pixel_limit": PIXEL_LIMIT,
    "frame": "first",
    "orientation": "EXIF applied",
    "alpha": "on #{:02x}{:02x}{:02x}".format(*ALPHA_COLOUR),
    "grey_16_bit": "scaled by 255/65535",
    "grey_float": "0 to 1 scaled by 255",
    "icc": "ignored",
}
"""The policy as part of an extractor's identity: any change that can change a pixel changes it.

First frame only; EXIF orientation applied; alpha composited on `ALPHA_COLOUR`; 16-bit grey scaled with
rounding, never clipped (16-bit colour keeps its high bytes, which is what Pillow gives); floating-point
grey accepted in [0, 1]; palette, grey, 1-bit, CMYK, YCbCr and LAB converted to RGB; ICC profiles ignored.
"""


def decode(raw: RawSample) -> "Image.Image":
    """Decode one sample with Pillow, exactly as `DECODE_POLICY` says.

    Parameters
    ----------
    raw : bytes or uint8 ndarray of shape (height, width, 3)
        What `SampleTable.read` gave.

    Returns
    -------
    PIL.Image.Image
        Of mode "RGB".

    Raises
    ------
    DecodeError
        If the bytes are not a whole picture of an accepted format, kind and size.
    """
    from PIL import Image

    return Image.fromarray(raw) if isinstance(raw, np.ndarray) else to_rgb(_opened(raw))


def decode_fast(raw: RawSample) -> "torch.Tensor":
    """Decode one sample with torchvision where it is safe and faster: 8-bit grey and RGB JPEG.

    Everything else takes the way of `decode`; PNG too, because libpng in torchvision ends the process with
    a segmentation fault on damaged data. Header checks and orientation are those of `decode`.

    Parameters
    ----------
    raw : bytes or uint8 ndarray of shape (height, width, 3)
        What `SampleTable.read` gave.

    Returns
    -------
    torch.Tensor
        RGB pixels, uint8 of shape (3, height, width), in memory channel by channel for each pixel
        ("channels last", as decoders write and resizing likes them), not for each plane.

    Raises
    ------
    DecodeError
        As `decode`.
    """
    import torch

    if isinstance(raw, np.ndarray):
        return torch.from_numpy(np.array(raw)).permute(2, 0, 1)
    image = _opened(raw)
    orientation = _jpeg_orientation(image)
    if orientation is None:
        return torch.from_numpy(np.array(to_rgb(image))).permute(2, 0, 1)
    from torchvision.io import ImageReadMode

    try:
        # The operator and not torchvision.io.decode_jpeg, which is the same behind a DeprecationWarning.
        # The copy is for frombuffer, which warns about memory that it may not write to.
        planes = torch.ops.image.decode_jpeg(
            torch.frombuffer(bytearray(raw), dtype=torch.uint8), ImageReadMode.RGB.value, False
        )
    except RuntimeError as error:
        raise DecodeError(_reason(error, "JPEG")) from error
    return turned(planes, orientation)


def jpeg_header(raw: bytes) -> int | None:
    """Return the orientation of an 8-bit grey or RGB JPEG, 1 to 8; None for anything else.

    Raises
    ------
    DecodeError
        If the header cannot be read, or announces too many pixels.
    """
    return _jpeg_orientation(_opened(raw))


def _jpeg_orientation(image: "Image.Image") -> int | None:
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    _check_size(image)
    return _orientation(image)


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """Keep Pillow's warnings from the user while samples are decoded; several threads may be in it at once.

    Of damage that Pillow reads past (a corrupt EXIF block) they do not say which sample it was in, and of large
    pictures the policy's own limit says it better. Python's filters belong to the whole process: the first that
    enters puts one in, the last that leaves takes it out, and whatever others change meanwhile stays.
    """
    global _ignoring, _ignoring_filter
    with _ignoring_lock:
        _ignoring += 1
        if _ignoring == 1:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _ignoring_filter = warnings.filters[0]
    try:
        yield
    finally:
        with _ignoring_lock:
            _ignoring -= 1
            if not _ignoring:
                with suppress(ValueError):  # somebody has reset the filters
                    cast("list[Any]", warnings.filters).remove(_ignoring_filter)


def decoder_versions(pixels: Pixels) -> str:
    """Name the policy and the libraries that decode, for provenance and for remembered failures.

    Raises
    ------
    UsageError
        If `pixels` is none of the choices.

    Examples
    --------
    >>> decoder_versions("exact")
    'policy 1; Pillow ...'
    """
    if pixels not in get_args(Pixels):
        raise UsageError(f"pixels: expected one of {', '.join(get_args(Pixels))}, got {pixels!r}")
    text = f"policy {DECODE_POLICY['version']}; Pillow {version('pillow')}"
    return text if pixels == "exact" else f"{text}; torchvision {version('torchvision')}"


def to_rgb(image: "Image.Image") -> "Image.Image":
    """Apply the policy to an image that Pillow has opened or made.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode, loaded or not.

    Returns
    -------
    PIL.Image.Image
        Of mode "RGB"; `image` itself where there is nothing to change.

    Raises
    ------
    DecodeError
        If the pixels are damaged, too many, or of a range that the policy does not accept.
    """
    name = getattr(image, "format", None) or "image"
    with _explained(name):
        _check_size(image)
        image.load()
        # After load(): a PNG may carry its orientation behind the pixels, and for TIFF Pillow's load()
        # turns the pixels itself and forgets the tag.
        orientation = _orientation(image)
        rgb = _flattened(image)
        return rgb if orientation == 1 else rgb.transpose(_transpositions()[orientation])


def _opened(raw: bytes) -> "Image.Image":
    """Read the header; no pixel is decompressed yet."""
    from PIL import Image, UnidentifiedImageError

    if not raw:
        raise DecodeError("zero bytes")
    content = _content(raw)
    with _explained(f"{content if content in _FORMATS else 'image'} header"):
        try:
            return Image.open(io.BytesIO(raw), formats=_FORMATS)
        except UnidentifiedImageError as error:
            if content in _FORMATS:
                raise DecodeError(f"truncated or damaged {content} header") from error
            raise DecodeError(
                f"not an image (starts like {content})" if content else "not an image"
            ) from error


def _check_size(image: "Image.Image") -> None:
    # Pillow's own check only warns up to twice the limit, and its setting belongs to the caller.
    n_pixels = image.width * image.height
    if n_pixels > PIXEL_LIMIT:
        raise DecodeError(_too_large(n_pixels))
    if n_pixels == 0:
        raise DecodeError(f"no pixels ({image.width} x {image.height})")


def _orientation(image: "Image.Image") -> int:
    """Give the EXIF (or XMP) orientation, 1 to 8; 1 where it is absent or unreadable."""
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:
        return 1  # damaged metadata say nothing about the pixels
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _transpositions() -> Mapping[int, "Image.Transpose"]:
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }


def turned(planes: "torch.Tensor", orientation: int) -> "torch.Tensor":
    """Apply an EXIF orientation to a tensor of shape (3, height, width)."""
    if orientation >= 5:
        planes = planes.transpose(1, 2)
    # What is left after exchanging rows and columns: mirrored left to right, top to bottom, or both.
    axes = [axis for axis, turns in ((2, (2, 3, 6, 7)), (1, (3, 4, 7, 8))) if orientation in turns]
    return planes.flip(axes) if axes else planes


def _flattened(image: "Image.Image") -> "Image.Image":
    """Convert any mode to RGB."""
    from PIL import Image

    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if transparent or image.mode in ("LA", "PA", "RGBA"):
        with_alpha = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, ALPHA_COLOUR)
        canvas.paste(with_alpha, mask=with_alpha)
        return canvas
    return image.convert("RGB")


def _grey(image: "Image.Image") -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scale grey of more than 8 bits to 8."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        if not (low >= 0 and high <= 1):
            raise DecodeError(f"floating-point pixels from {low:g} to {high:g}; expected 0 to 1")
        scaled: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(values * 255).astype(np.uint8)
        return scaled
    if low < 0 or high > 65535:
        raise DecodeError(f"integer pixels from {low} to {high}; expected 0 to 65535")
    grey: np.ndarray[Any, np.dtype[np.uint8]] = ((values.astype(np.uint32) + 128) // 257).astype(
        np.uint8
    )  # 65535 = 255 * 257
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = ALPHA_COLOUR[0]
    return grey


@contextmanager
def _explained(content: str) -> Iterator[None]:
    """Turn whatever Pillow raises into a DecodeError; its plugins leak exceptions of every class."""
    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except Exception as error:
        raise DecodeError(_reason(error, content)) from error


def _reason(error: Exception, content: str) -> str:
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    text = str(error)
    if isinstance(error, DecompressionBombError | DecompressionBombWarning):
        # Only the message has the size: Pillow refuses to hand over an image of twice its limit.
        size = re.search(r"\((\d+) pixels\)", text)
        return _too_large(int(size[1])) if size else "too many pixels"
    if re.search(r"truncated|out of bound|unexpected end|not enough", text, re.IGNORECASE):
        return f"truncated {content}"
    # Without places in C++ sources, addresses and quoted bytes: the reason is read by people, and stored.
    text = re.sub(r"^.*\.cpp:\d+, |<[^>]*>|b(['\"]).*?\1", "", text.partition("\n")[0])
    return f"damaged {content} ({type(error).__name__}: {' '.join(text.split())[:80]})"


def _too_large(n_pixels: int) -> str:
    return f"{n_pixels / 1e6:.1f} megapixels, limit {PIXEL_LIMIT / 1e6:.1f}"


def _content(raw: bytes) -> str | None:
    """Say in a word or two what bytes begin like, or None."""
    return next((name for pattern, name in _SIGNATURES if re.match(pattern, raw[:64], re.DOTALL)), None)


_ignoring = 0
_ignoring_filter: Any = None
_ignoring_lock = threading.Lock()

_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG", "PNG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8", "GIF"),
    (rb"BM", "BMP"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"(?i)\s*(<!doctype html|<html|<head)", "HTML"),
    (rb"\s*(<\?xml|<svg)", "XML or SVG"),
    (rb"version https://git-lfs", "a Git LFS pointer; run git lfs pull"),
    (rb"%PDF", "PDF"),
    (rb"....ftyp(avif|avis|mif1|heic|heix)", "AVIF or HEIF"),
    (rb"....ftyp", "MP4 or QuickTime video"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "a gzip file"),
    (rb"[\t\r\n -~]+\Z", "text"),
)
