"""``featx doctor``: what this machine has, and what featx would use of it."""

import importlib.metadata
import importlib.util
import platform
import tempfile
from pathlib import Path
from typing import Any

from featx.cli import options
from featx.cli.show import Screen, columns

__all__ = ["doctor"]

_PACKAGES = (
    "featx",
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "scikit-learn",
    "scikit-image",
    "h5py",
    "numpy",
    "Pillow",
    "skops",
)


def doctor(
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show device, precision, runtimes, versions and write access.

    Example: featx doctor
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    import torch

    from featx.engine.hardware import choose_device, choose_precision, choose_runtime, has_amx, n_cores
    from featx.extractors.registry import source_names

    device = choose_device("auto")
    precision = choose_precision("auto", device=device)
    directory = options.named_cache(cache)
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    values: dict[str, Any] = {
        "device": device,
        "device_name": torch.cuda.get_device_name()
        if device == "cuda"
        else platform.processor() or platform.machine(),
        "precision": precision,
        "amx": has_amx(),
        "cores": n_cores(),
        "runtime": choose_runtime("auto", device=device, precision=precision),
        "runtimes": ["torch", "compile", *(["openvino"] if importlib.util.find_spec("openvino") else [])],
        "sources": source_names(),
        "cache": str(directory.absolute()),
        "cache_writable": _writable(directory.absolute()),
        "weights": str(weights),
        "weights_on_disk": sorted(path.name for path in weights.glob("*.pth")),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    rows = [
        [name, ", ".join(map(str, value)) if isinstance(value, list) else value]
        for name, value in values.items()
        if name != "versions"
    ]
    rows += [[name, version or "not installed"] for name, version in values["versions"].items()]
    screen.result(values, columns([[name, str(value)] for name, value in rows], header=["what", "here"]))


def _writable(directory: Path) -> bool:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):  # what permissions say is not all that there is to it
            return True
    except OSError:
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
