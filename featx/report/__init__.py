"""What people look at: a run as one self-contained HTML page; it computes no result and knows no torch."""

from featx.report.page import write_report

__all__ = ["write_report"]
