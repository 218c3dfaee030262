"""Where vectors live, by extractor fingerprint and sample digest; nothing is computed here."""

from featx.cache.digest import DamagedError
from featx.cache.export import write_export
from featx.cache.hints import Hints
from featx.cache.layout import extractor_directory, fingerprint_of
from featx.cache.maintenance import list_extractors, prune, verify
from featx.cache.reports import ExtractorInfo, Problem, PruneReport, VerifyReport
from featx.cache.shard import rows_per_shard
from featx.cache.store import FAILED, MISSING, Store
from featx.cache.turn import turn

__all__ = [
    "FAILED",
    "MISSING",
    "DamagedError",
    "ExtractorInfo",
    "Hints",
    "Problem",
    "PruneReport",
    "Store",
    "VerifyReport",
    "extractor_directory",
    "fingerprint_of",
    "list_extractors",
    "prune",
    "rows_per_shard",
    "turn",
    "verify",
    "write_export",
]
