"""Score a distilled backbone on labelled photos that it was not trained on; it trains no network.

python training/evaluate.py --weights runs/nano/nano.safetensors --datasets datasets/
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from crops import normalise
from distil import build_backbone
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchvision.transforms import v2

__all__ = ["main"]

SIZE = 192  # pixels: of the crops that the teacher saw, and better on pacs than the student's own 128
STAGES = (8, 12)  # the last maps at strides 16 and 32, whose means are the features
MOBILENET_SIZE = 224


def main() -> None:
    """Print the scores, and on request the speed, as one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="nano.safetensors")
    parser.add_argument(
        "--datasets", type=Path, required=True, help="folder that holds hymenoptera/, flowers/ and pacs/"
    )
    parser.add_argument(
        "--speed", action="store_true", help="compare the forward pass with MobileNetV2's at 224 pixels"
    )
    options = parser.parse_args()
    backbone = load_backbone(options.weights)
    scores = {
        "hymenoptera": round(score_hymenoptera(backbone, options.datasets / "hymenoptera"), 4),
        "flowers": round(score_folds(backbone, options.datasets / "flowers"), 4),
        "pacs": round(
            statistics.mean(
                score_folds(backbone, folder) for folder in sorted((options.datasets / "pacs").iterdir())
            ),
            4,
        ),
    }
    if options.speed:
        scores |= {f"speed_batch_{n}": round(compare_speed(backbone, n_images=n), 2) for n in (1, 32)}
    sys.stdout.write(json.dumps(scores) + "\n")


class Pooled(nn.Module):
    """The means of the backbone's last maps, (n, 624), as featx gives them."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.features = features

    def forward(self, pixels: Tensor) -> Tensor:
        """Map normalised pixels (n, 3, size, size) to features."""
        means = []
        for index, module in enumerate(self.features):
            pixels = module(pixels)
            if index in STAGES:
                means.append(pixels.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def load_backbone(path: Path) -> nn.Module:
    """Return the backbone in float32, ready for channels-last batches."""
    network = build_backbone()
    state = {
        name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()
    }
    network.load_state_dict(state)
    return Pooled(network.features).eval().requires_grad_(False).to(memory_format=torch.channels_last)


def head() -> Pipeline:
    """Return the protocol's classifier, unfitted."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=5000))


def score_hymenoptera(backbone: nn.Module, folder: Path) -> float:
    """Fit on train, return the accuracy on val."""
    fitted = head().fit(*read_features(backbone, folder / "train"))
    return float(fitted.score(*read_features(backbone, folder / "val")))


def score_folds(backbone: nn.Module, folder: Path) -> float:
    """Return the mean accuracy of five stratified folds."""
    folds = StratifiedKFold(n_splits=5, shuffle=True, random_state=0)
    return float(np.mean(cross_val_score(head(), *read_features(backbone, folder), cv=folds)))


@torch.inference_mode()
def read_features(backbone: nn.Module, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled features (n, d) and the class names (n,) of a folder of class folders."""
    paths = sorted(path for path in folder.glob("*/*") if path.is_file())
    transform = v2.Compose(
        [
            v2.Resize(round(SIZE * 256 / 224)),
            v2.CenterCrop(SIZE),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    parts = [forward(backbone, normalise(batch)) for batch in images.split(32)]
    return torch.cat(parts).numpy(), np.array([path.parent.name for path in paths])


def forward(backbone: nn.Module, images: Tensor) -> Tensor:
    """Run the backbone on normalised images."""
    return backbone(images.contiguous(memory_format=torch.channels_last))


@torch.inference_mode()
def compare_speed(backbone: nn.Module, *, n_images: int) -> float:
    """Return how many times as fast as MobileNetV2 the backbone is, each at its own size; the two take turns."""
    mobilenet = torchvision.models.mobilenet_v2().eval().to(memory_format=torch.channels_last)
    mobilenet.classifier = nn.Identity()
    ratios = []
    for _ in range(15):
        slow = time_forward(mobilenet, torch.rand(n_images, 3, MOBILENET_SIZE, MOBILENET_SIZE))
        ratios.append(slow / time_forward(backbone, torch.rand(n_images, 3, SIZE, SIZE)))
    return statistics.median(ratios)


def time_forward(network: nn.Module, images: Tensor) -> float:
    """Return the seconds of one pass after a first one."""
    images = images.contiguous(memory_format=torch.channels_last)
    network(images)
    started = time.perf_counter()
    network(images)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
