"""Numbers and contenders as sentences name them, alike on the terminal and on a page; it judges none of them."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["contender_name", "contender_notes", "counted"]

_NAMED = 3


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number and what there is of it.

    Examples
    --------
    >>> counted(1, "sample"), counted(0, "row"), counted(1200, "class", "classes")
    ('1 sample', '0 rows', '1,200 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def contender_name(one: Mapping[str, Any]) -> str:
    """Return what to call a contender of a run's results in a sentence; the baseline by its head.

    Examples
    --------
    >>> contender_name({"label": "hog+lbp", "head": "svm", "fusion": "late"})
    'hog+lbp (late fusion) with svm'
    """
    if one["label"] is None:
        return str(one["head"])
    fusion = " (late fusion)" if one.get("fusion") == "late" else ""
    return f"{one['label']}{fusion} with {one['head']}"


def contender_notes(
    results: Mapping[str, Any], *, name: Callable[[Mapping[str, Any]], str] = contender_name
) -> list[str]:
    """Return the notes on single contenders, each once, after the names of those that it is about.

    Parameters
    ----------
    results : mapping
        Of a run of either kind.
    name : callable, optional
        What to call a contender.

    Examples
    --------
    >>> same = {"head": "svm", "notes": ["3 folds did not converge"]}
    >>> contender_notes({"results": [{"label": label, **same} for label in ("hog", "lbp")]})
    ['hog with svm, lbp with svm: 3 folds did not converge']
    """
    about: dict[str, list[str]] = {}
    for one in results["results"]:
        for note in one.get("notes", ()):
            about.setdefault(note, []).append(name(one))
    return [f"{', '.join(_some(names))}: {note}" for note, names in about.items()]


def _some(names: list[str]) -> list[str]:
    """Return the names, of many the first and how many more."""
    return names if len(names) <= _NAMED + 1 else [*names[:_NAMED], f"{len(names) - _NAMED} more"]
