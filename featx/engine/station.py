"""The extractors of a run at work: built on their device, with what runs them and where their vectors go."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from featx.cache import MISSING, Store
from featx.engine.hardware import choose_device, default_batch_size
from featx.engine.identify import load, package_versions
from featx.engine.plan import Task
from featx.engine.runtime import Runtime, build_runtime
from featx.engine.settings import Settings
from featx.samples import check_nvjpeg

if TYPE_CHECKING:
    from featx.extractors.backbone import Backbone
    from featx.extractors.descriptor_source import DescriptorExtractor

__all__ = ["Station", "build_stations"]

_MOST_TIMES = 4
"""By how many times at most a batch is larger where several networks run."""


@dataclass(frozen=True)
class Station:
    """One extractor at work in a run: what it is, where its vectors go, what computes them, and which are under way.

    Attributes
    ----------
    extractor : Backbone or DescriptorExtractor
    store : Store
    runtime : Runtime or None
        Runs the backbone's batches; None for a descriptor, which is done once it is prepared.
    device : str
        torch's name of where it runs.
    """

    extractor: "Backbone | DescriptorExtractor"
    store: Store
    runtime: Runtime | None
    device: str = "cpu"
    _under_way: set[bytes] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def geometry(self) -> tuple[object, ...] | None:
        """How a backbone resizes: several may have it in common. None for a descriptor."""
        preprocessing = getattr(self.extractor, "preprocessing", None)
        return None if preprocessing is None else preprocessing.geometry

    def first_batch(self, batch_size: int) -> int:
        """Return how many samples the first of many batches holds: few, so that something is kept soon."""
        if self.runtime is not None and self.runtime.name == "compile":
            return batch_size  # a smaller one would be padded
        if self.runtime is not None and self.runtime.most:
            return min(batch_size, self.runtime.most * self.runtime.lanes)
        return max(1, batch_size // 8)

    def claim(self, key: bytes) -> bool:
        """Tell whether a key has no vector here and none under way; the caller has then to compute it."""
        with self._lock:
            if key in self._under_way:
                return False
            self._under_way.add(key)
        if self.store.lookup(np.frombuffer(key, np.uint8)[None])[0] == MISSING:
            return True
        self.release([key])
        return False

    def release(self, keys: Iterable[bytes]) -> None:
        """Forget that keys are under way: the store knows them now."""
        with self._lock:
            self._under_way.difference_update(keys)


def build_stations(
    tasks: Sequence[Task], settings: Settings, *, n_samples: int
) -> tuple[list[Station], int, dict[str, Any]]:
    """Build extractors on their device.

    Parameters
    ----------
    tasks : sequence of Task
        One for each extractor.
    settings : Settings
    n_samples : int
        How many there are to do.

    Returns
    -------
    tuple of list of Station, int and dict
        A station for each task, how many samples a batch holds, and what to record with the vectors.
    """
    extractors = [load(task.asked, task.spec) for task in tasks]
    networks = [
        hasattr(extractor, "forward") for extractor in extractors
    ]  # a descriptor is done once it has prepared
    device = choose_device(settings.device) if any(networks) else "cpu"
    if any(extractor.spec.pixels == "nvjpeg" for extractor in extractors):
        check_nvjpeg(device)
    batch_size = settings.batch_size or default_batch_size(device)
    runtimes = [
        build_runtime(
            settings.runtime,
            cast("Backbone", extractor),
            device=device,
            batch_size=batch_size,
            n_samples=n_samples,
        )
        if network
        else None
        for extractor, network in zip(extractors, networks, strict=True)
    ]
    provenance = {
        "device": device,
        "batch_size": batch_size,
        "versions": package_versions(),
    }
    stations = [
        Station(extractor, task.store, runtime, device)
        for extractor, task, runtime in zip(extractors, tasks, runtimes, strict=True)
    ]
    if settings.batch_size is None and any(runtime is not None and runtime.most for runtime in runtimes):
        # Its batches are computed in parts, and changing from one network to another takes time.
        batch_size *= min(sum(networks), _MOST_TIMES)
    return stations, batch_size, provenance
