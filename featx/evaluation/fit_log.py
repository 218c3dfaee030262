"""What a fit had to say, its warnings and its failure, caught in the process where it runs; it fits nothing itself."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sklearn.exceptions import ConvergenceWarning

__all__ = ["FitLog", "logged"]

T = TypeVar("T")


@dataclass(frozen=True)
class FitLog:
    """What one fit had to say: its distinct warnings, as (category, first line), and why it failed, if so."""

    warned: frozenset[tuple[str, str]]
    failure: str | None


def logged(work: Callable[[], T]) -> tuple[T | None, FitLog]:
    """Return what a piece of work returns, None where it raises ValueError, and what it had to say."""
    result, failure = None, None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        try:
            result = work()
        except ValueError as error:
            failure = _first_line(error)
    warned = frozenset((warning.category.__name__, _first_line(warning.message)) for warning in caught)
    return result, FitLog(warned, failure)


def _first_line(message: Warning | Exception | str) -> str:
    lines = str(message).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(message).__name__
