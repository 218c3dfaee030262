"""A run's folder to one self-contained HTML page: nothing in it is fetched, and nothing that a run names can run."""

import base64
import functools
import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import UsageError
from featx.printable import printable_line
from featx.report import sections
from featx.report.answers import answer_of_comparison, answer_of_few_shot
from featx.report.leaderboard import comparison_board, few_shot_boards, fusion_gains
from featx.report.maps import residuals, sample_map
from featx.report.thumbnails import Thumbnail, lost_note, make_thumbnails
from featx.report.wording import metric_name, short
from featx.tracking import read_run
from featx.wording import counted

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["write_page", "write_report"]

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = "report.html"
_PARTS = {
    "data": dict,
    "extractors": list,
    "notes": list,
    "protocol": dict,
    "results": list,
    "versions": dict,
}


def write_report(folder: str | os.PathLike[str], *, results: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` of a run into its folder, whole or not at all.

    Pictures come from where the run read them; of one that is gone, has changed or is none, its place says so. The
    page stays below 3 MB but for runs of hundreds of contenders or classes.

    Parameters
    ----------
    folder : path
        That ``featx compare`` or ``featx fewshot`` wrote.
    results : mapping, optional
        What its ``results.json`` holds, where that has been read already.

    Returns
    -------
    Path
        Of the page; a file of that name is replaced.

    Raises
    ------
    UsageError
        If the folder holds no run, or one that featx did not write.
    OSError
        If the page cannot be written.
    """
    return write_page(folder, results=read_run(folder) if results is None else results)[0]


def write_page(folder: str | os.PathLike[str], *, results: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Do what `write_report` does, and return what there is to know of the page besides its path.

    Parameters
    ----------
    folder, results
        As `write_report` takes them.

    Returns
    -------
    path : Path
    notes : list of str
    """
    from jinja2 import TemplateError

    page = Path(folder) / _PAGE
    try:
        text, notes = _render(results)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError, TemplateError) as error:
        # What is in the file has the right number and kind, but another shape than featx gives it.
        raise UsageError(
            f"'{Path(folder) / 'results.json'}' is not as featx writes it: {_fault(results, error)}."
            " Make the run again."
        ) from error
    temporary = page.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(text.encode())
        temporary.replace(page)
    finally:
        temporary.unlink(missing_ok=True)
    return page, notes


def _fault(results: Mapping[str, Any], error: Exception) -> str:
    """Return which part of the results has not the form that featx gives it, as far as can be told."""
    for name, form in _PARTS.items():
        if name not in results:
            return f"'{name}' is missing"
        if not isinstance(results[name], form):
            return f"'{name}' has another form"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else "a part of it has another form"


def _render(results: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the page of a run's results, and the notes on its pictures."""
    thumbnails = _thumbnails(results.get("inspection"))
    lost = lost_note(thumbnails, root=results["data"]["root"])
    notes = [] if lost is None else [lost]
    script = (_TEMPLATES / "map.js").read_text(encoding="utf-8")
    text = (
        _environment()
        .get_template("page.html")
        .render(
            **_context(results, thumbnails),
            picture_notes=notes,
            style=(_TEMPLATES / "style.css").read_text(encoding="utf-8"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return text, notes


def _context(results: Mapping[str, Any], thumbnails: Mapping[int, Thumbnail]) -> dict[str, Any]:
    is_comparison = results["kind"] == "compare"
    title, sentences = (answer_of_comparison if is_comparison else answer_of_few_shot)(results)
    inspection = results.get("inspection")
    details = results.get("best_details")
    task = results["protocol"].get("task", "classification")
    best = results["results"][1] if is_comparison else None
    return {
        "results": results,
        "title": title,
        "sentences": sentences,
        "facts": sections.facts(results),
        "boards": [comparison_board(results)] if is_comparison else few_shot_boards(results),
        "gains": fusion_gains(results) if is_comparison else None,
        "best": best,
        "task": task,
        "has_split": bool(results["protocol"].get("split")),
        "metric": metric_name(results["protocol"].get("metric", "accuracy")),
        "confusion": sections.confusion(details) if details else None,
        "per_class": sections.per_class(details) if details else None,
        "curve": sections.learning_curves(results),
        "inspection": inspection,
        "map": sample_map(inspection, task=task, classes=results["data"]["classes"]) if inspection else None,
        "residuals": residuals(inspection) if inspection and task == "regression" else None,
        "thumbnails": {row: one for row, one in thumbnails.items() if one.address},
        "problems": {row: one.problem for row, one in thumbnails.items() if one.problem},
        "unreadable": [one.problem for one in thumbnails.values() if one.problem and not one.is_lost],
        "notes": sections.notes(results),
        "provenance": sections.provenance(results),
    }


def _thumbnails(inspection: Mapping[str, Any] | None) -> dict[int, Thumbnail]:
    if not inspection:
        return {}
    return make_thumbnails(
        inspection["samples"], named=sections.pictures(inspection), mapped=inspection["map"]["rows"]
    )


@functools.cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(breakable=_breakable, counted=counted, sentence=_sentence, short=short)
    return environment


def _breakable(name: str, *, after: str = "/_.-") -> "Markup":
    """Return a name that a line may end in, after what joins its parts."""
    from markupsafe import Markup, escape

    pieces = re.split(rf"(?<=[{after}])(?=.)", printable_line(name))
    return Markup("<wbr>").join(escape(piece) for piece in pieces)


def _sentence(text: str) -> "Markup":
    """Return a sentence in which a name that is longer than a line breaks where its parts join, and no other does."""
    from markupsafe import Markup

    words = [_breakable(word, after="+_") for word in text.split(" ")]
    return Markup(" ").join(
        Markup('<span class="word">{}</span>').format(word) if "<wbr>" in word else word for word in words
    )


def _shown(value: Any) -> Any:
    """Return what a page may show of a value: names have their control characters and undecodable bytes escaped."""
    if type(value) is str:  # markup that a template made is one of its own
        return printable_line(value)
    return "\u2013" if value is None else value
