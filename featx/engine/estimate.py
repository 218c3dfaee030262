"""What a run would do, before it does it; writes no vector."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.cache import MISSING
from featx.engine.hardware import device_names
from featx.engine.plan import Task, missing_rows
from featx.engine.run import look_up, run
from featx.engine.settings import Settings
from featx.extractors.spec import Request
from featx.samples import SampleTable

if TYPE_CHECKING:
    from featx.extractors.module import ModuleExtractor

__all__ = ["Estimate", "estimate"]

_TRIED = 64


@dataclass(frozen=True)
class Estimate:
    """What a run would do: rows, bytes and seconds still to come, in all and by extractor; seconds to start apart."""

    samples: int
    missing: tuple[int, ...]
    size_bytes: tuple[int, ...]
    seconds: float
    starting_seconds: float
    tasks: tuple[Task, ...] = field(repr=False)


def estimate(
    table: SampleTable,
    asked: "Sequence[Request | ModuleExtractor]",
    *,
    cache: Path | None,
    settings: Settings,
) -> Estimate:
    """Say what `run` would do, without writing a vector: every file is digested, some samples are tried for speed.

    Parameters
    ----------
    table, asked, cache, settings
        As for `run`.

    Returns
    -------
    Estimate
        Its seconds extrapolate from at most 64 of the samples that lack the same extractors, without building the
        backbones.
    """
    found = look_up(table, asked, cache=cache, settings=settings)
    missing, sizes = [], []
    lacking = np.zeros((len(table), len(found.outcomes)), bool)
    for column, outcome in enumerate(found.outcomes):
        twin = outcome.task.store in [other.task.store for other in found.outcomes[:column]]
        rows = np.flatnonzero(found.keys.known & (outcome.positions == MISSING) & (not twin))
        _, first = np.unique(found.keys.values[rows], axis=0, return_index=True)
        lacking[rows[first], column] = True
        missing.append(len(first))
        spec = outcome.task.spec
        sizes.append(len(first) * spec.n_features * np.dtype(spec.dtype).itemsize)
    seconds = starting_seconds = 0.0
    devices = device_names(settings.device)
    tasks = tuple(outcome.task for outcome in found.outcomes)
    n_planned = len(missing_rows(found.keys, tasks)) // len(devices)
    for pattern in np.unique(lacking[lacking.any(axis=1)], axis=0):
        # Samples that lack the same extractors cost the same.
        rows = np.flatnonzero((lacking == pattern).all(axis=1))
        tried = rows[np.linspace(0, len(rows) - 1, min(len(rows), _TRIED)).astype(int)]
        trial = run(
            table.take(tried),
            [outcome.task.asked for outcome, lacks in zip(found.outcomes, pattern, strict=True) if lacks],
            cache=None,
            settings=replace(settings, device=devices[0], on_error="record", max_error_rate=1.0),
            n_planned=n_planned,
        )
        starting_seconds = max(starting_seconds, trial.seconds - trial.extracting_seconds)
        seconds += trial.extracting_seconds * len(rows) / len(tried) / len(set(devices))
    return Estimate(len(table), tuple(missing), tuple(sizes), seconds, starting_seconds, tasks)
