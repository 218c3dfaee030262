"""The work of filling caches with what is missing."""

from featx.engine.identify import identify, read_extractors
from featx.engine.run import (
    Estimate,
    Failure,
    OnError,
    Outcome,
    Progress,
    Run,
    Settings,
    estimate,
    look_up,
    run,
)

__all__ = [
    "Estimate",
    "Failure",
    "OnError",
    "Outcome",
    "Progress",
    "Run",
    "Settings",
    "estimate",
    "identify",
    "look_up",
    "read_extractors",
    "run",
]
