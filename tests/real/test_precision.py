"""The promises of precision, on every photo: featx against the official transforms and the plain float32 model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from featx.pipelines import logreg
from PIL import Image
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from torchvision import models

import featx

BATCH = 24  # not the engine's own: the promise holds whatever the batch
NETS = {
    "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1,
    "squeezenet1_1": models.SqueezeNet1_1_Weights.IMAGENET1K_V1,
}
SUFFIXES = {".jpg", ".jpeg", ".png", ".gif"}


@pytest.fixture(scope="module")
def photos(assets) -> list[Path]:
    found = sorted(path for path in (assets / "datasets").rglob("*") if path.suffix in SUFFIXES)
    assert len(found) == 2538
    return found


@pytest.fixture(scope="module")
def reference(assets, photos) -> dict[str, np.ndarray]:
    """Compute what a user would without featx: both nets expect the same transforms, so the pixels are shared."""
    transforms = [member.transforms() for member in NETS.values()]
    assert repr(transforms[0]) == repr(transforms[1])
    # Channels last is an order of memory, and twice as fast on a CPU.
    networks = {name: getattr(models, name)().eval().to(memory_format=torch.channels_last) for name in NETS}
    for name, network in networks.items():
        network.load_state_dict(torch.load(assets / f"weights/{name}.pth", weights_only=True))

    def pixels(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            return transforms[0](image.convert("RGB"))

    features: dict[str, list[torch.Tensor]] = {name: [] for name in NETS}
    with torch.inference_mode(), ThreadPoolExecutor(2) as pool:
        for start in range(0, len(photos), BATCH):
            images = torch.stack(list(pool.map(pixels, photos[start : start + BATCH])))
            images = images.contiguous(memory_format=torch.channels_last)
            for name, network in networks.items():
                features[name].append(network.features(images).mean(dim=(2, 3)))
    return {name: torch.cat(parts).numpy() for name, parts in features.items()}


def extracted(assets: Path, photos: list[Path], **settings: str) -> dict[str, featx.Features]:
    return {
        name: featx.extract(
            photos, f"{name}:weights={assets / 'weights' / name}.pth", device="cpu", **settings
        )
        for name in NETS
    }


@pytest.fixture(scope="module", params=["torch", "openvino"])
def single(request, assets, photos) -> dict[str, featx.Features]:
    return extracted(assets, photos, precision="float32", runtime=request.param)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def half(request, assets, photos) -> dict[str, featx.Features]:
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or "bf16" not in cpu.read_text():
        pytest.skip("this CPU has no bfloat16, and would take hours")
    return extracted(assets, photos, precision="bfloat16", runtime=request.param)


@pytest.mark.parametrize("name", NETS)
def test_float32_is_within_1e_4_of_the_largest_value_of_every_photo(name, single, reference):
    expected = reference[name]
    error = np.abs(single[name].X - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert error.max() <= 1e-4


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_has_a_cosine_of_0_995_for_every_photo_and_a_median_of_0_998(name, half, reference):
    X, expected = half[name].X, reference[name]
    cosine = (X * expected).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() >= 0.995
    assert np.median(cosine) >= 0.998


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dataset", ["hymenoptera", "flowers"])
def test_a_head_on_bfloat16_is_as_accurate_as_on_float32_to_one_image_in_a_hundred(
    name, dataset, photos, half, reference
):
    rows = [row for row, path in enumerate(photos) if dataset in path.parts]
    classes = [photos[row].parent.name for row in rows]
    folds = RepeatedStratifiedKFold(
        n_splits=5, n_repeats=3, random_state=0
    )  # one draw alone turns on three photos
    single, rounded = (
        cross_val_score(logreg.build(), X[rows], classes, cv=folds).mean()
        for X in (reference[name], half[name].X)
    )
    assert single >= 0.7
    assert abs(rounded - single) < 0.01


@pytest.mark.parametrize("name", NETS)
def test_bfloat16_vectors_are_finite_after_storage_as_float16_and_given_as_float32(name, half):
    X = half[name].X
    assert X.dtype == np.float32
    assert np.isfinite(X).all()
    assert np.array_equal(X, X.astype(np.float16).astype(np.float32))
