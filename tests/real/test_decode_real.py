import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx.samples import decode, decode_fast, key_of, read_samples

PHOTOS = Path(os.environ.get("FEATX_ASSETS", "../shared/assets")) / "datasets/hymenoptera"

pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos at {PHOTOS}; set FEATX_ASSETS")


def test_fast_and_exact_pixels_of_photos_are_close():
    table = read_samples(PHOTOS / "val")
    for row in range(0, len(table), 4):
        raw = table.read(row)
        exact = np.asarray(decode(raw)).astype(int)
        fast = decode_fast(raw).permute(1, 2, 0).numpy()
        difference = np.abs(fast - exact)
        assert difference.mean() < 0.5, table.id_at(row)
        assert difference.max() <= 32, table.id_at(row)


def test_exact_pixels_are_pillows_own():
    table = read_samples(PHOTOS / "val/bees")
    for row in range(0, len(table), 8):
        raw = table.read(row)
        with Image.open(io.BytesIO(raw)) as image:
            assert np.array_equal(np.asarray(decode(raw)), np.asarray(image.convert("RGB")))


def test_the_palette_gif_among_the_ants_is_a_row_like_any_other():
    table = read_samples(PHOTOS / "train")
    assert table.classes == ["ants", "bees"]
    gifs = [row for row in range(len(table)) if table.id_at(row).lower().endswith(".gif")]
    assert gifs
    for row in gifs:
        assert table.y[row] == "ants"
        assert decode(table.read(row)).mode == "RGB"


def test_no_two_photos_of_the_training_set_but_copies_share_a_key():
    table = read_samples(PHOTOS / "train")
    contents = {table.read(row) for row in range(len(table))}
    assert len({key_of(raw) for raw in contents}) == len(contents)
