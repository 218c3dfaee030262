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
    from featx.report import write_report
    from featx.tracking import read_run

    results = read_run(run)
    page = write_report(run, results=results)
    samples = (results.get("inspection") or {}).get("samples") or {}
    shown = [
        one["path"] for one in samples.values() if isinstance(one, dict) and isinstance(one.get("path"), str)
    ]
    gone = sum(not Path(path).exists() for path in shown)
    if gone:
        screen.remark(
            f"note: {gone} of {len(shown)} pictures are no longer below '{results['data']['root']}', where the run"
            " found them; the page shows them by name only"
        )
    screen.result({"path": str(page)}, f"wrote {page}")
