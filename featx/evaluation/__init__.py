"""Judging heads on features: nested cross-validation and the search it needs; it extracts no features."""

__all__: list[str] = []
