"""Ways to features other than featx, each written as its own documentation has it; prints the shape of its matrix.

    python benchmarks/peers.py textbook|timm|embetter|img2vec MODEL FOLDER

FOLDER holds class folders. All networks have random weights, for speed does not depend on them and nothing is to be
downloaded: where a package insists on pretrained ones, its loading of them is patched, and nothing else of it.
"""

import argparse
import json
from pathlib import Path

import numpy as np

BATCH_SIZE = 32
WORKERS = 2
TIMM_NAMES = {
    "resnet50": "resnet50",
    "mobilenet_v2": "mobilenetv2_100",
    "vit_b_16": "vit_base_patch16_224",
}


def main() -> None:
    ways = {way.__name__: way for way in (textbook, timm, embetter, img2vec)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=ways)
    parser.add_argument("model", choices=TIMM_NAMES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(json.dumps({"shape": ways[options.way](options.model, options.folder).shape}))


def textbook(model: str, folder: Path) -> np.ndarray:
    """Go over an ImageFolder with a DataLoader, as in PyTorch's tutorial on transfer learning."""
    import torch
    import torchvision
    from torchvision import transforms

    network = getattr(torchvision.models, model)()
    head = next(name for name in ("fc", "classifier", "heads") if hasattr(network, name))
    setattr(network, head, torch.nn.Identity())
    network.eval()
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(folder, transform)
    loader = torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS)
    features = []
    with torch.no_grad():
        for images, _ in loader:
            features.append(network(images).numpy())
    return np.concatenate(features)


def timm(model: str, folder: Path) -> np.ndarray:
    """Use timm's own data set, transforms and loader, as in its documentation of feature extraction."""
    import timm
    import torch

    network = timm.create_model(TIMM_NAMES[model], pretrained=False, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(network)
    loader = timm.data.create_loader(
        timm.data.create_dataset("", root=str(folder)),
        batch_size=BATCH_SIZE,
        is_training=False,
        use_prefetcher=False,
        num_workers=WORKERS,
        device=torch.device("cpu"),
        **{key: config[key] for key in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    features = []
    with torch.no_grad():
        for images, _ in loader:
            features.append(network(images).numpy())
    return np.concatenate(features)


def embetter(model: str, folder: Path) -> np.ndarray:
    """Put an ImageLoader and a TimmEncoder into a scikit-learn pipeline, as in embetter's documentation."""
    import timm
    from embetter.vision import ImageLoader, TimmEncoder
    from sklearn.pipeline import make_pipeline

    create = timm.create_model
    timm.create_model = lambda name, **keywords: create(name, **{**keywords, "pretrained": False})
    pipe = make_pipeline(ImageLoader(), TimmEncoder(name=TIMM_NAMES[model]))
    return pipe.fit_transform(_paths(folder))


def img2vec(model: str, folder: Path) -> np.ndarray:
    """Give Img2Vec lists of a batch's length, which is faster than one picture at a time."""
    from img2vec_pytorch import img_to_vec
    from PIL import Image

    create = getattr(img_to_vec, model)
    setattr(img_to_vec, model, lambda **_: create())
    encoder = img_to_vec.Img2Vec(cuda=False, model=model)
    paths = _paths(folder)
    return np.concatenate(
        [
            encoder.get_vec([Image.open(path).convert("RGB") for path in paths[at : at + BATCH_SIZE]])
            for at in range(0, len(paths), BATCH_SIZE)
        ]
    )


def _paths(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.jpg"))]


if __name__ == "__main__":
    main()
