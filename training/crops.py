"""Random crops of unlabelled photos with what a teacher says of them, pooled for the student; it trains nothing."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

__all__ = ["Chunk", "CropMaker", "Pool", "Stages", "Teacher", "normalise", "read_photos"]

STUDENT_SIZE = 128  # pixels; the last map is 4 x 4
TEACHER_SIZE = 192  # pixels; the last map is 6 x 6
GRIDS = (8, 4, 2)  # the last maps at strides 8, 16 and 32 are averaged to so many cells a side
CHUNK_CROPS = 2048  # crops made and shown to the teacher at a time
WINDOW_CHUNKS = 16  # the pool that batches are drawn from; the oldest chunk leaves
BATCH_CROPS = 64
N_HELD_OUT_PHOTOS = 50
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Stages = list[Tensor]  # one tensor (n, cells, channels) a stage
Teacher = Callable[[Tensor], Stages]
Chunk = tuple[Tensor, Stages]  # crops as uint8 (n, 3, 128, 128), targets as float16


def read_photos(folder: Path) -> list[Tensor]:
    """Decode every photo of a folder, in the order of the names, to uint8 (3, height, width)."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if len(paths) <= N_HELD_OUT_PHOTOS:
        raise SystemExit(
            f"{folder} holds {len(paths)} .jpg and .png files; expected more than {N_HELD_OUT_PHOTOS}, "
            "which are held out. Name a folder of photos with --images."
        )
    return [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths]


class CropMaker:
    """Random crops of photos with what the teacher says of them.

    Parameters
    ----------
    photos : list of Tensor
        uint8 photos (3, height, width).
    teacher : callable
        From normalised pixels to the cells of every stage.
    """

    def __init__(self, photos: list[Tensor], teacher: Teacher) -> None:
        self.photos = photos
        self.teacher = teacher

    def make(self, n_crops: int, *, random: np.random.Generator, mix: bool) -> Chunk:
        """Return so many crops, of all photos in turn, and their targets."""
        order = random.permutation(np.arange(n_crops) % len(self.photos))
        parts = [self._make_batch(order[start : start + 64], random, mix) for start in range(0, n_crops, 64)]
        stages = zip(*(targets for _, targets in parts), strict=True)
        return torch.cat([crops for crops, _ in parts]), [torch.cat(stage) for stage in stages]

    @torch.inference_mode()
    def _make_batch(self, indices: np.ndarray, random: np.random.Generator, mix: bool) -> Chunk:
        pixels = torch.stack([random_crop(self.photos[index], random) for index in indices]).float() / 255
        pixels = jitter_colour(pixels, random)
        if mix:
            pixels = mix_pairs(pixels, random)
        small = functional.interpolate(
            pixels, size=(STUDENT_SIZE, STUDENT_SIZE), mode="bilinear", antialias=True
        )
        targets = [stage.to("cpu", torch.float16) for stage in self.teacher(normalise(pixels))]
        return (small * 255).round().to(torch.uint8), targets


def random_crop(photo: Tensor, random: np.random.Generator) -> Tensor:
    """Cut 8% to 100% of the area at an aspect of 3/4 to 4/3, resize to the teacher's size, flip every other one."""
    height, width = photo.shape[1:]
    area = height * width * random.uniform(math.sqrt(0.08), 1.0) ** 2
    aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    crop_width = min(width, max(1, round(math.sqrt(area * aspect))))
    crop_height = min(height, max(1, round(math.sqrt(area / aspect))))
    top = random.integers(height - crop_height + 1)
    left = random.integers(width - crop_width + 1)
    crop = photo[None, :, top : top + crop_height, left : left + crop_width]
    resized = functional.interpolate(
        crop, size=(TEACHER_SIZE, TEACHER_SIZE), mode="bilinear", antialias=True
    )[0]
    return resized.flip(2) if random.random() < 0.5 else resized


def jitter_colour(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Change saturation, contrast, brightness and white balance of every crop a little."""

    def factors(spread: float, channels: int = 1) -> Tensor:
        drawn = np.exp(random.uniform(-spread, spread, size=(len(pixels), channels, 1, 1)))
        return torch.from_numpy(drawn.astype(np.float32))

    grey = pixels.mean(dim=1, keepdim=True)
    pixels = torch.lerp(grey, pixels, factors(0.5))
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = torch.lerp(mean, pixels, factors(0.4))
    return (pixels * factors(0.3) * factors(0.1, channels=3)).clamp(0, 1)


def mix_pairs(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Blend half of the crops with another one, so that the teacher is heard between the photos too."""
    weights = np.where(random.random(len(pixels)) < 0.5, random.uniform(0.0, 0.5, size=len(pixels)), 0.0)
    return torch.lerp(
        pixels, pixels.roll(1, dims=0), torch.from_numpy(weights.astype(np.float32)).view(-1, 1, 1, 1)
    )


class Pool:
    """A sliding window of labelled crops: new chunks enter, old ones leave, batches are drawn from all of it."""

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque(maxlen=WINDOW_CHUNKS)

    def draw(self, random: np.random.Generator) -> Chunk:
        """Return a batch: uint8 crops, half of them flipped, and their targets."""
        rows = random.integers(len(self.chunks) * CHUNK_CROPS, size=BATCH_CROPS)
        places = [(self.chunks[row // CHUNK_CROPS], row % CHUNK_CROPS) for row in rows]
        crops = torch.stack([chunk[0][place] for chunk, place in places])
        flipped = torch.from_numpy(random.random(BATCH_CROPS) < 0.5)
        crops[flipped] = crops[flipped].flip(3)
        targets = []
        for stage, grid in enumerate(GRIDS):
            cells = torch.stack([chunk[1][stage][place] for chunk, place in places])
            cells[flipped] = cells[flipped].unflatten(1, (grid, grid)).flip(2).flatten(1, 2)
            targets.append(cells)
        return crops, targets


def normalise(pixels: Tensor) -> Tensor:
    """Turn pixels in 0 to 1 into what both networks take."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (pixels - mean) / std
