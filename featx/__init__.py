"""Frozen pretrained backbones, run once; every vector kept; scikit-learn on top.

The public names are loaded when first used: importing featx loads neither torch nor h5py.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.comparing import Comparison, compare
    from featx.errors import FeatxError
    from featx.estimator import Extractor
    from featx.extractors.module import ModuleExtractor
    from featx.extractors.preprocessing import Preprocessing
    from featx.features import Features, extract
    from featx.fewshot import few_shot
    from featx.fewshot_results import FewShot
    from featx.fitting import fit
    from featx.model import Model, load
    from featx.samples import SampleTable, read_samples

__all__ = [
    "Comparison",
    "Extractor",
    "Features",
    "FeatxError",
    "FewShot",
    "Model",
    "ModuleExtractor",
    "Preprocessing",
    "SampleTable",
    "__version__",
    "compare",
    "extract",
    "few_shot",
    "fit",
    "load",
    "read_samples",
]

_HOMES = {
    "Comparison": "featx.comparing",
    "Extractor": "featx.estimator",
    "FeatxError": "featx.errors",
    "Features": "featx.features",
    "FewShot": "featx.fewshot_results",
    "Model": "featx.model",
    "ModuleExtractor": "featx.extractors.module",
    "Preprocessing": "featx.extractors.preprocessing",
    "SampleTable": "featx.samples",
    "compare": "featx.comparing",
    "extract": "featx.features",
    "few_shot": "featx.fewshot",
    "fit": "featx.fitting",
    "load": "featx.model",
    "read_samples": "featx.samples",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("featx")
    if name not in _HOMES:
        raise AttributeError(f"module 'featx' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
