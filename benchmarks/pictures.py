"""Files to extract from, every one with a digest of its own; it measures nothing."""

import io
import itertools
import os
import random
from pathlib import Path

from PIL import Image

__all__ = ["ASSETS", "MANY", "link_photos", "write_photos", "write_small"]

ASSETS = Path(os.environ.get("FEATX_ASSETS", Path(__file__).parents[2] / "shared" / "assets"))

MANY = 250
"""From so many images on, `--runtime auto` takes what pays for many."""

_PHOTOS = ("hymenoptera", "flowers", "pacs/photo")
_IN_ONE_FOLDER = 1000


def write_photos(folder: Path, number: int) -> list[Path]:
    """Write real photos in a fixed order at random; past the last of them the same again, under other digests."""
    found = [path for name in _PHOTOS for path in sorted((ASSETS / "datasets" / name).rglob("*.jp*g"))]
    photos = [raw for raw in (path.read_bytes() for path in found) if raw.startswith(b"\xff\xd8")]
    random.Random(0).shuffle(photos)
    folder.mkdir(parents=True)
    paths = []
    for index, raw in enumerate(itertools.islice(itertools.cycle(photos), number)):
        paths.append(folder / f"{index:05d}.jpg")
        paths[-1].write_bytes(_commented(raw, index))
    return paths


def link_photos(photos: list[Path], folder: Path, *, n_same: int = 0) -> Path:
    """Make a folder of two classes: some photos, and many names of one more, which is to be computed once."""
    (folder / "photos").mkdir(parents=True)
    for path in photos:
        os.link(path, folder / "photos" / path.name)
    if n_same:
        (folder / "same").mkdir()
        raw = _commented(photos[0].read_bytes(), -1)
        for index in range(n_same):
            (folder / "same" / f"{index:05d}.jpg").write_bytes(raw)
    return folder


def write_small(folder: Path, number: int) -> Path:
    """Write JPEGs of 16 by 16 pixels, which differ in nothing but a comment, into class folders of a thousand."""
    buffer = io.BytesIO()
    pixels = random.Random(0).randbytes(16 * 16 * 3)
    Image.frombytes("RGB", (16, 16), pixels).save(buffer, "JPEG")
    for index in range(number):
        parent = folder / f"{index // _IN_ONE_FOLDER:04d}"
        if index % _IN_ONE_FOLDER == 0:
            parent.mkdir(parents=True)
        (parent / f"{index:07d}.jpg").write_bytes(_commented(buffer.getvalue(), index))
    return folder


def _commented(raw: bytes, number: int) -> bytes:
    """Return a JPEG with a number as its first comment: other bytes, the same picture."""
    comment = b"%012d" % number
    return raw[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + raw[2:]
