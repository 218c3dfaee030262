"""What a run would do, before it does it; writes no vector."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.cache import MISSING
from featx.engine.plan import Task
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
    """What a run would do: rows, bytes and seconds still to come, in all and by extractor."""

    samples: int
    missing: tuple[int, ...]
    size_bytes: tuple[int, ...]
    seconds: float
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
        Its seconds extrapolate from at most 64 of the missing samples; building the backbone is not in them.
    """
    found = look_up(table, asked, cache=cache, settings=settings)
    missing, sizes = [], []
    lacking = np.zeros(len(table), bool)
    for outcome in found.outcomes:
        rows = np.flatnonzero(found.keys.known & (outcome.positions == MISSING))
        _, first = np.unique(found.keys.values[rows], axis=0, return_index=True)
        lacking[rows[first]] = True
        missing.append(len(first))
        spec = outcome.task.spec
        sizes.append(len(first) * spec.n_features * np.dtype(spec.dtype).itemsize)
    todo = np.flatnonzero(lacking)
    seconds = 0.0
    if len(todo):
        tried = todo[np.linspace(0, len(todo) - 1, min(len(todo), _TRIED)).astype(int)]
        trial = run(
            table.take(tried),
            [outcome.task.asked for outcome, count in zip(found.outcomes, missing, strict=True) if count],
            cache=None,
            settings=replace(settings, on_error="record", max_error_rate=1.0),
        )
        seconds = trial.extracting_seconds * len(todo) / len(tried)
    tasks = tuple(outcome.task for outcome in found.outcomes)
    return Estimate(len(table), tuple(missing), tuple(sizes), seconds, tasks)
