"""How ``featx compare`` and ``featx fewshot`` end: what was found is noted, written to a run's folder and shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from featx.cli.show import Screen
from featx.cli.typed import typed_command
from featx.wording import contender_notes

if TYPE_CHECKING:
    from featx.comparing import Comparison
    from featx.fewshot_results import FewShot

__all__ = ["end", "interval_text"]


def end(
    screen: Screen,
    found: "Comparison | FewShot",
    *,
    text: str,
    context: typer.Context,
    data: str,
    out: Path | None,
    notes: Sequence[str] = (),
) -> None:
    """Complete what was found by how it was asked for, then note, write and show it.

    Parameters
    ----------
    screen : Screen
    found : Comparison or FewShot
        Its results are completed in place.
    text : str
        What a person reads of them.
    context : typer.Context
        Of the command, which is written as it was typed.
    data : str
        The samples, as the user named them.
    out : Path or None
        The run's folder; None writes none.
    notes : sequence of str
        What is to be noted after the notes that the results hold.
    """
    results = found.results
    results["data"]["source"] = data
    results.update(command=typed_command(context), directory=str(Path.cwd()))
    screen.left_out((failure["id"], failure["reason"]) for failure in results["data"]["failures"])
    screen.note(*results["notes"], *contender_notes(results), *notes)
    if out is not None:
        found.save(out)
        from featx.report import write_report

        text += f"\n\nwrote {out}; open {write_report(out)}"
    screen.result({**results, "out": None if out is None else str(out)}, text)


def interval_text(interval: Sequence[float] | None) -> str:
    """Return both ends of an interval.

    Examples
    --------
    >>> interval_text([0.4754, 0.4851]), interval_text(None)
    ('0.475 to 0.485', '-')
    """
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
