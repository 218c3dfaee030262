import base64
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.report import thumbnails
from featx.report.thumbnails import LARGE_PIXELS, SMALL_PIXELS, lost_note, make_thumbnails


def samples_of(paths):
    return {str(row): {"id": str(row), "path": path, "label": None} for row, path in enumerate(paths)}


def opened(address):
    kind, _, data = address.partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.fixture
def photo(tmp_path):
    def write(name="photo.jpg", size=(400, 300), **options):
        path = tmp_path / name
        pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path, **options)
        return str(path)

    return write


def test_a_picture_is_small_whole_and_without_its_metadata(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    exif[0x010E] = "a secret place"
    paths = [photo(exif=exif), photo("b.png", (30, 20)), photo("c.png", (1, 900))]
    made = make_thumbnails(samples_of(paths), named=[0, 1, 2], mapped=[])
    images = [opened(made[row].address) for row in range(3)]
    assert [image.size for image in images] == [
        (LARGE_PIXELS * 3 // 4, LARGE_PIXELS),
        (30, 20),
        (1, LARGE_PIXELS),
    ]
    assert not images[0].getexif()
    assert "secret" not in str(images[0].info)


def test_what_sections_name_comes_first_and_larger_each_row_once(photo):
    path = photo()
    made = make_thumbnails(samples_of([path] * 6), named=[4, 2, 4], mapped=[0, 1, 2, 3, 4, 5])
    assert list(made) == [4, 2, 0, 1, 3, 5]
    assert [max(opened(made[row].address).size) for row in (2, 4, 0)] == [
        LARGE_PIXELS,
        LARGE_PIXELS,
        SMALL_PIXELS,
    ]


def test_of_a_large_map_some_are_shown_spread_evenly(photo, monkeypatch):
    monkeypatch.setattr(thumbnails, "MOST_SMALL", 10)
    made = make_thumbnails(samples_of([photo()] * 100), named=[], mapped=range(100))
    assert list(made) == list(range(0, 100, 10))


def test_the_bytes_of_all_are_bounded(photo, monkeypatch):
    one = len(make_thumbnails(samples_of([photo()]), named=[0], mapped=[])[0].address)
    monkeypatch.setattr(thumbnails, "_MOST_BYTES", 3 * one)
    made = make_thumbnails(samples_of([photo()] * 9), named=[0, 0, 1, *range(9)], mapped=[])
    assert list(made) == [0, 1, 2]  # a row that is named again costs nothing


def test_a_file_that_is_not_the_one_that_the_run_read_is_not_shown(photo):
    paths = [photo("same.png"), photo("other.png", (40, 40)), photo("of_an_old_run.png"), "/nowhere/gone.png"]
    samples = samples_of(paths)
    for row in "013":
        samples[row]["key"] = hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    made = make_thumbnails(samples, named=range(4), mapped=[])
    assert [one.address is not None for one in made.values()] == [True, False, True, False]
    assert made[1].problem == "its file has changed since the run"
    assert lost_note(made, root="/photos") == (
        "2 of 4 pictures below '/photos' are gone or have changed since the run; the page shows them by name only"
    )
    assert lost_note({0: made[0]}, root=None) is None
    assert lost_note({1: made[1]}, root=None) == (
        "1 of 1 picture is gone or has changed since the run; the page shows them by name only"
    )


def test_what_cannot_be_shown_says_why(photo, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("<script>alert(1)</script>")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    half = tmp_path / "half.jpg"
    half.write_bytes((tmp_path / photo("whole.jpg")).read_bytes()[:900])
    Image.new("L", (12000, 12000)).save(tmp_path / "bomb.png")
    (tmp_path / "large.png").write_bytes(b"x" * 5000)
    monkeypatch.setattr(thumbnails, "_LARGEST_FILE_BYTES", 200_000)
    with (tmp_path / "large.png").open("r+b") as file:
        file.truncate(200_001)
    reasons = {
        "text.png": "not an image",
        "folder.png": "a folder",
        "pipe.png": "FIFO",
        "half.jpg": "truncated",
        "bomb.png": "144.0 megapixels",
        "large.png": "larger than",
        "gone.png": "gone",
    }
    paths = [str(tmp_path / name) for name in reasons]
    paths += [None, "a\0b.png", "\ud800.png", "/dev/zero", ""]
    reasons_in_order = [*reasons.values(), "in memory", "path", "path", "device", "gone"]
    made = make_thumbnails(samples_of(paths), named=range(len(paths)), mapped=[])
    assert [one.address for one in made.values()] == [None] * len(paths)
    for row, reason in enumerate(reasons_in_order):
        assert reason in made[row].problem, (row, made[row])
        assert "script" not in made[row].problem
