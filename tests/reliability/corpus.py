"""Every kind of input that is known to have broken a reader of images, made for class folders among good ones."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 48
BLOCK = SIDE // 3


@dataclass(frozen=True)
class Input:
    """One entry of the data folder, and what has to come of it.

    Attributes
    ----------
    kind : str
        What it stands for.
    name : bytes
        Where it is, from the data folder; the first part is its class.
    make : callable or bytes
        Makes it at a path, or what is in it.
    shown : ndarray of shape (height, width, 3), uint8, or None
        The pixels that a person sees, known before they were encoded; None for what is no picture.
    reason : str
        A pattern of all that has to be said of what is no picture; empty for what is left out of the listing.
    """

    kind: str
    name: bytes
    make: Callable[[Path], object] | bytes
    shown: np.ndarray | None = None
    reason: str = ""

    @property
    def id(self) -> str:
        """What JSON calls it: text, printable."""
        text = self.name.decode("utf-8", "backslashreplace")
        return "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
        )

    def write(self, folder: Path) -> None:
        """Put it into a data folder."""
        path = folder / os.fsdecode(self.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.make, bytes):
            path.write_bytes(self.make)
        else:
            self.make(path)


class Pictures:
    """Pictures of which no two are alike, not even turned: nine blocks of random colours each."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def colours(self) -> np.ndarray:
        return self.of(self.random.integers(0, 256, (3, 3, 3)))

    def greys(self) -> np.ndarray:
        return self.of(self.random.integers(0, 256, (3, 3, 1)).repeat(3, axis=2))

    def one(self, height: int, width: int) -> np.ndarray:
        return np.broadcast_to(self.random.integers(0, 256, 3), (height, width, 3)).astype(np.uint8)

    @staticmethod
    def of(blocks: np.ndarray) -> np.ndarray:
        return blocks.astype(np.uint8).repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)


def encoded(pixels: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(pixels: np.ndarray | Image.Image, **options: object) -> bytes:
    return encoded(pixels, "JPEG", **{"quality": 95, "subsampling": 0, **options})


def shown_of(content: bytes) -> np.ndarray:
    """Return what Pillow itself makes of a file."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., np.newaxis] / 255
    return (pixels * share + 255 * (1 - share)).round().astype(np.uint8)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes, before: bytes = b"") -> bytes:
    """Put a PNG together from its rows, each with its filter byte."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows, 1))
    return b"\x89PNG\r\n\x1a\n" + header + before + body + png_chunk(b"IEND", b"")


def good(seed: int, *, per_class: int = 8) -> list[Input]:
    """Return plain pictures for every class folder, named so that the others come between them."""
    pictures = Pictures(seed)
    inputs = []
    for folder in ("broken", "files", "modes", "names", "names, broken", "sizes"):
        for number in range(per_class):
            shown = pictures.colours()
            name = f"{folder}/{chr(ord('a') + 3 * number)} good."
            if number % 2:
                inputs.append(Input("good", f"{name}jpg".encode(), jpeg(shown), shown))
            else:
                inputs.append(Input("good", f"{name}png".encode(), encoded(shown, "PNG"), shown))
    return inputs


def corpus(seed: int) -> list[Input]:
    """Return one of everything that is broken, odd or in the way."""
    pictures = Pictures(seed)
    return [
        *_broken(pictures),
        *_modes(pictures),
        *_sizes(pictures),
        *_files(pictures),
        *_names(pictures),
    ]


def _broken(pictures: Pictures) -> list[Input]:
    noise = pictures.random.integers(0, 256, (64, 64, 3)).astype(np.uint8)
    noisy_jpeg, noisy_png = jpeg(noise), encoded(noise, "PNG")
    scan = noisy_jpeg.index(b"\xff\xda")
    at = len(noisy_png) // 2
    wrong_bits = noisy_jpeg[: scan + 999] + bytes(9) + noisy_jpeg[scan + 1008 :]

    def refused(kind: str, name: str, content: bytes, reason: str) -> Input:
        return Input(kind, b"broken/" + name.encode(), content, reason=reason)

    def fine(kind: str, name: str, encode: Callable[[np.ndarray], bytes]) -> Input:
        shown = pictures.colours()
        return Input(kind, b"broken/" + name.encode(), encode(shown), shown)

    return [
        refused("zero bytes", "empty.jpg", b"", "zero bytes"),
        refused("header only", "header.jpg", noisy_jpeg[:20], "truncated or damaged JPEG header"),
        refused("header only", "header and tables.jpg", noisy_jpeg[: scan + 14], "truncated JPEG"),
        refused("header only", "header.png", noisy_png[:33], "truncated or damaged PNG header"),
        refused("half a JPEG", "half.jpg", noisy_jpeg[: len(noisy_jpeg) // 2], "truncated JPEG"),
        refused("half a PNG", "half.png", noisy_png[:at], "truncated PNG"),
        refused("last 2 bytes missing", "cut.jpg", noisy_jpeg[:-2], "truncated JPEG"),
        # All pixels of it are there.
        fine("last 2 bytes missing", "cut.png", lambda shown: encoded(shown, "PNG")[:-2]),
        refused(
            "last 2 bytes missing", "cut.webp", encoded(noise, "WEBP")[:-2], r"damaged WEBP header \(.*\)"
        ),
        refused("last 2 bytes missing", "cut.bmp", encoded(noise, "BMP")[:-2], "truncated BMP"),
        refused("last 2 bytes missing", "cut.tif", encoded(noise, "TIFF")[:-2], "truncated TIFF"),
        refused(
            "bytes corrupted mid-file",
            "corrupted.png",
            noisy_png[:at] + bytes(byte ^ 0x5A for byte in noisy_png[at : at + 9]) + noisy_png[at + 9 :],
            r"damaged PNG \(.*\)",
        ),
        refused(
            "bytes corrupted mid-file",
            "corrupted.jpg",
            noisy_jpeg[: scan + 99] + b"\xff\xc1" * 5 + noisy_jpeg[scan + 109 :],
            r"damaged JPEG \(.*\)",
        ),
        # Decoders read past a few wrong bits of a scan: what they make of them is what everybody is shown.
        Input("bytes corrupted mid-file", b"broken/wrong bits.jpg", wrong_bits, shown_of(wrong_bits)),
        fine("trailing garbage", "tail.jpg", lambda shown: jpeg(shown) + b"\0garbage" * 99),
        fine("trailing garbage", "tail.png", lambda shown: encoded(shown, "PNG") + b"\0garbage" * 99),
        refused(
            "HTML as .jpg",
            "page.jpg",
            b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
            re.escape("not an image (starts like HTML)"),
        ),
        refused(
            "MP4 as .jpg",
            "video.jpg",
            b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(999),
            re.escape("not an image (starts like MP4 or QuickTime video)"),
        ),
        refused(
            "JPEG 2000 as .jpg",
            "jpeg 2000.jpg",
            encoded(noise, "JPEG2000"),
            re.escape("not an image (starts like JPEG 2000)"),
        ),
        refused(
            "text as .png",
            "text.png",
            b"Picture not available, ask Anna.\n",
            re.escape("not an image (starts like text)"),
        ),
        fine("PNG as .jpg", "in truth png.jpg", lambda shown: encoded(shown, "PNG")),
        fine("corrupt EXIF", "exif.jpg", lambda shown: jpeg(shown, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")),
        fine("corrupt EXIF", "exif.png", lambda shown: encoded(shown, "PNG", exif=b"\xff" * 40)),
        fine("junk ICC", "icc.jpg", lambda shown: jpeg(shown, icc_profile=b"junk" * 50)),
        fine("junk ICC", "icc.png", lambda shown: encoded(shown, "PNG", icc_profile=b"junk" * 50)),
    ]


def _modes(pictures: Pictures) -> list[Input]:
    inputs = []

    def add(kind: str, name: str, content: bytes, shown: np.ndarray) -> None:
        inputs.append(Input(kind, b"modes/" + name.encode(), content, shown))

    grey = pictures.greys()
    add("grey", "grey.png", encoded(grey[..., 0], "PNG"), grey)
    grey = pictures.greys()
    add("grey", "grey.jpg", encoded(grey[..., 0], "JPEG", quality=95), grey)

    grey, alpha = pictures.greys(), pictures.of(pictures.random.choice([0, 51, 255], (3, 3)))
    content = encoded(np.dstack([grey[..., 0], alpha]), "PNG")
    add("grey and alpha", "grey and alpha.png", content, on_white(grey, alpha))

    white = pictures.of(pictures.random.permutation([0, 0, 0, 0, 0, 1, 1, 1, 1]).reshape(3, 3)) == 1
    add("1-bit", "1 bit.png", encoded(white, "PNG"), white[..., None].repeat(3, 2) * np.uint8(255))

    for name, form, transparent in (
        ("palette.png", "PNG", None),
        ("transparent palette.png", "PNG", 4),
        ("transparent palette.gif", "GIF", 4),
    ):
        numbers = pictures.of(np.arange(9).reshape(3, 3))
        colours = pictures.random.integers(0, 256, (9, 3)).astype(np.uint8)
        image = Image.fromarray(numbers).convert("P")
        image.putpalette(colours.tobytes())
        options = {} if transparent is None else {"transparency": transparent}
        content = encoded(image, form, **options)
        if transparent is not None:
            colours[transparent] = 255
        kind = "palette" if transparent is None else "palette with transparency"
        add(kind, name, content, colours[numbers])

    colour, alpha = pictures.colours(), pictures.of(pictures.random.choice([0, 51, 255], (3, 3)))
    for form in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        rgba = np.dstack([colour, alpha])
        add("RGBA", f"rgba.{form.lower()}", encoded(rgba, form, **options), on_white(colour, alpha))

    colour = pictures.colours()
    inks = Image.fromarray(255 - np.dstack([colour, np.full_like(colour[..., 0], 255)]), "CMYK")
    add("CMYK", "cmyk.tif", encoded(inks, "TIFF"), colour)
    # Pillow writes inverted values and Adobe's marker, as Photoshop does.
    add("Adobe-inverted CMYK", "cmyk.jpg", encoded(inks, "JPEG", quality=95), colour)

    for name, form in (("16 bit.png", "PNG"), ("16 bit.tif", "TIFF")):
        grey = pictures.greys()
        content = encoded(grey[..., 0].astype(np.uint16) * 257, form)
        add(f"16-bit {form}", name, content, grey)
    colour = pictures.colours()
    rows = np.dstack([colour, pictures.colours()]).reshape(SIDE, SIDE, 2, 3).swapaxes(2, 3)
    rows = np.hstack([np.zeros((SIDE, 1), np.uint8), rows.reshape(SIDE, -1)])  # a filter byte each
    add("16-bit PNG", "16 bit rgb.png", png(SIDE, SIDE, depth=16, colour=2, rows=rows.tobytes()), colour)
    grey = pictures.greys()
    add("float TIFF", "float.tif", encoded(np.float32(grey[..., 0]) / np.float32(255), "TIFF"), grey)

    colour = pictures.colours()
    add("progressive", "progressive.jpg", jpeg(colour, progressive=True), colour)

    turns = {  # EXIF 2.32, table of orientations: how what is stored has to be turned
        1: lambda stored: stored,
        2: lambda stored: stored[:, ::-1],
        3: lambda stored: stored[::-1, ::-1],
        4: lambda stored: stored[::-1],
        5: lambda stored: stored.transpose(1, 0, 2),
        6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
        7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda stored: stored.transpose(1, 0, 2)[::-1],
    }
    for orientation, turned in turns.items():
        exif, stored = Image.Exif(), pictures.colours()
        exif[0x0112] = orientation
        upright = np.ascontiguousarray(turned(stored))
        add("EXIF orientation", f"orientation {orientation}.jpg", jpeg(stored, exif=exif), upright)

    for kind, name, form, options in (
        ("animated GIF", "animated.gif", "GIF", {}),
        ("animated WebP", "animated.webp", "WEBP", {"lossless": True}),
        ("MPO", "mpo.jpg", "MPO", {"quality": 95, "subsampling": 0}),
    ):
        frames = [Image.fromarray(pictures.colours()) for _ in range(3)]
        content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        add(kind, name, content, np.asarray(frames[0]))
    return inputs


def _sizes(pictures: Pictures) -> list[Input]:
    one = pictures.one(1, 1)
    inputs = [Input("1x1", b"sizes/1 x 1.png", encoded(one, "PNG"), one)]
    for name, axes in (("wide.png", (0, 1, 2)), ("high.png", (1, 0, 2))):
        strip = pictures.one(1, 5000)
        strip[:, :2000] = strip[:, 3000:] = 255 - strip[0, 0]
        seen = strip[:, 2484:2516]  # what is left of it by every centre crop
        content = encoded(strip.transpose(axes), "PNG")
        inputs.append(Input("1x5000", b"sizes/" + name.encode(), content, seen))
    for megapixels, side in ((100, 10_000), (400, 20_000)):
        # All rows are there, black, at one bit a pixel.
        bomb = png(side, side, depth=1, colour=0, rows=bytes((side // 8 + 1) * side))
        reason = re.escape(f"{megapixels}.0 megapixels, limit 89.5")
        inputs.append(Input("PNG bomb", f"sizes/{megapixels} megapixels.png".encode(), bomb, reason=reason))
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 70_000_000, 1))
    bomb = png(1, 1, depth=8, colour=0, rows=bytes(2), before=text)
    inputs.append(Input("text-chunk bomb", b"sizes/text.png", bomb, reason=r"damaged .*\(.* too large .*\)"))
    return inputs


def _files(pictures: Pictures) -> list[Input]:
    inside, upper, linked, twice, changed = (pictures.colours() for _ in range(5))
    content = encoded(twice, "PNG")

    def unreadable(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(0)

    def linked_twice(path: Path) -> None:
        path.write_bytes(encoded(linked, "PNG"))
        path.with_name("hard link 2.png").hardlink_to(path)

    hidden = encoded(pictures.colours(), "PNG")
    return [
        Input("unreadable", b"files/unreadable.png", unreadable, reason="cannot read .*: permission denied"),
        Input("a folder named like a picture", b"files/x.jpg/inside.png", encoded(inside, "PNG"), inside),
        Input(
            "FIFO", b"files/fifo.jpg", os.mkfifo, reason="cannot read .*: it is a FIFO, not a regular file"
        ),
        Input(
            "broken link",
            b"files/broken link.jpg",
            lambda path: path.symlink_to("nowhere.jpg"),
            reason=r"cannot read .*: no such file \(or a link to nowhere\)",
        ),
        Input(
            "link loop",
            b"files/circle.jpg",
            lambda path: path.symlink_to("circle.jpg"),
            reason="cannot read .*: its links lead in a circle",
        ),
        Input("link loop", b"files/up", lambda path: path.symlink_to("..")),
        Input("hard links", b"files/hard link 1.png", linked_twice, linked),
        Input("hard links", b"files/hard link 2.png", lambda path: None, linked),
        Input("duplicates across classes", b"files/twice.png", content, twice),
        Input("duplicates across classes", b"modes/twice.png", content, twice),
        Input(".hidden", b"files/.hidden", hidden),
        Input(".hidden", b"files/.hidden.jpg", hidden),
        Input("._x.jpg", b"files/._x.jpg", b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(99)),
        Input("X.JPG", b"files/X.JPG", jpeg(upper), upper),
        Input("changed during the run", b"files/changed.png", b"begins otherwise", changed),
        Input(
            "deleted during the run",
            b"files/deleted.png",
            content,
            reason=r"cannot read .*: no such file \(or a link to nowhere\)",
        ),
    ]


def _names(pictures: Pictures) -> list[Input]:
    names = {
        "NFC/NFD pair": ["caf\u00e9.png".encode(), "cafe\u0301.png".encode()],
        "CJK": ["\u72ac\u3068\u732b.png".encode()],
        "newline": [b"a\nfeatx: error: b.png"],
        "byte 0xff": [b"\xff.png"],
        "255 bytes": [b"n" * 251 + b".png"],
        "<img onerror=...>": [b"<img src=x onerror=alert(1)>.png"],
        "=cmd": [b"=cmd|calc!A0.png"],
        "leading -": [b"-rf.png"],
    }
    inputs = []
    for kind, variants in names.items():
        for name in variants:
            shown = pictures.colours()
            inputs.append(Input(kind, b"names/" + name, encoded(shown, "PNG"), shown))
            # Only of what fails is the name told.
            broken = encoded(shown, "PNG")[:70]
            inputs.append(Input(kind, b"names, broken/" + name, broken, reason="truncated PNG"))
    return inputs
