"""``featx report``: a run as one page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from featx.cli import options
from featx.cli.show import Screen

__all__ = ["report"]


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="A folder that 'featx compare --out' or 'featx fewshot --out' wrote.",
            show_default=False,
        ),
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Taken by every command; not used by this one.",
            rich_help_panel=options.COMMON,
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write RUN/report.html: one page that needs nothing else, with charts, errors and their pictures.

    Example: featx report runs/first
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    del cache
    from featx.report.page import write_page
    from featx.tracking import read_run

    page, notes = write_page(run, results=read_run(run))
    screen.note(*notes)
    screen.result({"path": str(page), "notes": notes}, f"wrote {page}")
