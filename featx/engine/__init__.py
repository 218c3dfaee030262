"""The work of filling caches with what is missing."""

from featx.engine.estimate import Estimate, estimate
from featx.engine.identify import identify, read_extractors
from featx.engine.listing import describe
from featx.engine.outcome import Failure, Outcome, Run
from featx.engine.plan import OpenCache
from featx.engine.progress import Progress
from featx.engine.run import look_up, run
from featx.engine.settings import OnError, Settings, SettingsKeywords

__all__ = [
    "Estimate",
    "Failure",
    "OnError",
    "OpenCache",
    "Outcome",
    "Progress",
    "Run",
    "Settings",
    "SettingsKeywords",
    "describe",
    "estimate",
    "identify",
    "look_up",
    "read_extractors",
    "run",
]
