"""Judging heads on features: nested cross-validation and the search it needs; it extracts no features."""

from featx.evaluation.cross_validation import Evaluation, SearchResult, check_labels, cross_validate, search
from featx.evaluation.heads import Head, head_names, load_head
from featx.evaluation.scores import MetricScores, score_predictions

__all__ = [
    "Evaluation",
    "Head",
    "MetricScores",
    "SearchResult",
    "check_labels",
    "cross_validate",
    "head_names",
    "load_head",
    "score_predictions",
    "search",
]
