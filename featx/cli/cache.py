"""``featx cache``: what is there, is it sound, out as plain HDF5, smaller."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from featx.cli import options
from featx.cli.run_options import Device, Precision
from featx.cli.show import Screen, columns, size_text
from featx.errors import CacheError, UsageError
from featx.wording import counted

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="List, verify, export and prune the cache.", rich_markup_mode=None
)


@app.command("list")
def list_cache(
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show the extractors that the cache holds vectors of.

    Example: featx cache list --cache cache
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    from featx.cache import list_extractors

    directory = options.existing_cache(cache)
    found = list_extractors(directory)
    values = [
        {
            "name": one.name,
            "extractor": one.text,
            "fingerprint": one.fingerprint,
            "precision": one.precision,
            "vectors": one.n_vectors,
            "failures": one.n_failures,
            "shards": one.n_shards,
            "size_bytes": one.size_bytes,
            "n_features": one.n_features,
            "dtype": one.dtype,
            "last_published": one.last_published,
            "problem": one.problem,
        }
        for one in found
    ]
    rows = [
        [
            one.text or one.name,
            (one.fingerprint or "")[:12],
            one.precision,
            one.n_vectors,
            one.n_features,
            one.dtype,
            one.n_shards,
            size_text(one.size_bytes),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.last_published)) if one.last_published else "",
        ]
        for one in found
    ]
    header = [
        *("extractor", "fingerprint", "precision", "vectors", "features"),
        *("type", "shards", "size", "last published"),
    ]
    text = columns(rows, header=header) if rows else f"nothing in '{directory}'"
    for one in found:
        if one.problem:
            screen.remark(f"problem: {one.problem}")
    screen.result({"cache": directory, "extractors": values}, text)


@app.command("verify")
def verify_cache(
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete what is broken, so that a rerun computes it again.")
    ] = False,
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Check every byte of every shard. Exits 1 where something broken is left.

    Example: featx cache verify --repair
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    from featx.cache import verify

    directory = options.existing_cache(cache)
    report = verify(directory, repair=repair)
    for problem in report.problems:
        screen.remark(f"removed {problem.path}" if problem.removed else f"broken: {problem.message}")
    for note in report.notes:
        screen.remark(f"note: {note}")
    left = [problem for problem in report.problems if not problem.removed]
    values: dict[str, Any] = {
        "clean": not left,
        "extractors": report.n_extractors,
        "shards": report.n_shards,
        "rows": report.n_rows,
        "problems": [
            {"path": problem.path, "message": problem.message, "removed": problem.removed}
            for problem in report.problems
        ],
        "notes": list(report.notes),
    }
    state = "clean" if not left else f"{len(left)} broken"
    screen.result(
        values,
        f"{state}: {counted(report.n_shards, 'shard')} with {counted(report.n_rows, 'row')} of "
        f"{counted(report.n_extractors, 'extractor')} checked"
        if report.n_extractors or left
        else f"nothing of featx in '{directory}'",
    )
    if left:
        way = (
            "What is left is no shard, and is not deleted."
            if repair
            else "Run it with --repair to drop them."
        )
        raise CacheError(f"broken in the cache: {counted(len(left), 'file')}. {way}")


@app.command("prune")
def prune_cache(
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            help="Also delete extractors that nothing was published for in so many days.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Merge small shards; delete broken ones, leftovers, and folders without an identity.

    Example: featx cache prune --older-than 90 --dry-run
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    from featx.cache import prune

    if older_than is not None and not older_than >= 0:
        raise UsageError(f"--older-than: expected a number of days from 0, got {older_than}.")
    report = prune(options.existing_cache(cache), older_than_days=older_than, dry_run=dry_run)
    for path in report.removed:
        screen.remark(f"{'would remove' if dry_run else 'removed'} {path}")
    for problem in report.problems:
        if problem.path not in report.removed:
            screen.remark(f"problem: {problem.message}")
    screen.result(
        {
            "dry_run": dry_run,
            "merged": report.n_merged,
            "written": report.n_written,
            "removed": list(report.removed),
            "freed_bytes": report.freed_bytes,
            "problems": [{"path": problem.path, "message": problem.message} for problem in report.problems],
        },
        (
            f"{'would merge' if dry_run else 'merged'} {counted(report.n_merged, 'shard')} into {report.n_written}, "
            if report.n_merged
            else "nothing to merge, "
        )
        + f"{'would free' if dry_run else 'freed'} {size_text(report.freed_bytes)} by removing",
    )


@app.command("export")
def export_cache(
    data: options.Data,
    extractors: options.Extractors,
    out: Annotated[
        Path, typer.Option("--out", metavar="F.h5", help="The file to write.", show_default=False)
    ],
    device: Device = "auto",
    precision: Precision = "auto",
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Write what the cache holds for DATA, in its order, as plain HDF5; computes nothing.

    Example: featx cache export photos/ -x mobilenet_v2 --out features.h5
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    options.check_out(out, begins=b"\x89HDF", suffix=".h5")
    from featx.engine import Settings, look_up, read_extractors
    from featx.features import write_features
    from featx.samples import read_samples

    found = look_up(
        read_samples(data),
        read_extractors(options.one_extractor(extractors)),
        cache=options.existing_cache(cache),
        settings=Settings(device=device, precision=precision, on_error="record"),
    )
    failed = len(found.failures)
    missing = len(found.table) - len(found.good) - failed
    if missing:
        raise CacheError(
            f"{missing} of {len(found.table)} samples have no vector in '{options.existing_cache(cache)}'. "
            "Run featx extract with the same DATA and -x first."
        )
    write_features(found, out)
    rows, n_features = len(found.good), sum(o.task.spec.n_features for o in found.outcomes)
    screen.result(
        {"path": out, "samples": rows, "n_features": n_features, "failed": failed},
        f"wrote {rows} x {n_features} features to {out}"
        + (f"; {counted(failed, 'sample')} failed" if failed else ""),
    )
