"""What tests of several rooms share: pictures, a network that counts, and real data where this machine has it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def pytest_collection_modifyitems(items):
    """Run the fuzz tests first: they fork, and a process that has used threads of OpenMP may hang in its children."""
    items.sort(key=lambda item: item.path.parent.name != "fuzz")


@pytest.fixture(scope="session")
def assets() -> Path:
    """Return the folder of real weights and photos, or skip."""
    folder = Path(os.environ.get("FEATX_ASSETS", Path(__file__).parents[2] / "shared/assets"))
    if not folder.is_dir():
        pytest.skip(f"no real weights and photos at {folder}; set FEATX_ASSETS")
    return folder


@pytest.fixture
def colours():
    """Return `count` distinct colours, of shape (count, 3) in 0..255."""

    def made(count: int) -> np.ndarray:
        numbers = np.arange(count)
        return np.stack([numbers % 251, numbers // 251, 255 - numbers % 7], axis=1).astype(np.uint8)

    return made


@pytest.fixture
def pictures(tmp_path, colours):
    """Write `count` pictures of one colour each into a folder, and return it; ``pixels:size=1`` gives the colour."""

    def written(count: int, folder: str = "pictures") -> Path:
        directory = tmp_path / folder
        directory.mkdir()
        for number, colour in enumerate(colours(count)):
            Image.new("RGB", (9, 7), tuple(colour.tolist())).save(directory / f"{number:03}.png")
        return directory

    return written


@pytest.fixture
def counted():
    """Return an extractor of mean colours, and the list of how many pictures each of its batches held."""
    import torch

    from featx import ModuleExtractor, Preprocessing

    class Batches(list):
        def __deepcopy__(self, memo):
            return self  # the extractor runs a copy of the network

    class MeanColour(torch.nn.Module):
        def __init__(self, batches):
            super().__init__()
            self.batches = batches
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            if images.any():  # else it is only being measured
                self.batches.append(len(images))
            return images.mean((2, 3)) * self.weight

    batches = Batches()
    preprocessing = Preprocessing(resize=4, crop=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return ModuleExtractor(MeanColour(batches), name="mean", preprocessing=preprocessing), batches
