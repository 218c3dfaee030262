"""What tests of several rooms share: real weights and photos, where this machine has them."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def assets() -> Path:
    """Return the folder of real weights and photos, or skip."""
    folder = Path(os.environ.get("FEATX_ASSETS", Path(__file__).parents[2] / "shared/assets"))
    if not folder.is_dir():
        pytest.skip(f"no real weights and photos at {folder}; set FEATX_ASSETS")
    return folder
