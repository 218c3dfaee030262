"""``featx extract``: fill the cache."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featx.cli import options
from featx.cli.run_options import takes_settings
from featx.cli.show import Screen, size_text
from featx.errors import ExtractionError
from featx.printable import printable_line
from featx.wording import counted

if TYPE_CHECKING:
    from featx.engine import Estimate, Outcome, Run, Settings

__all__ = ["extract", "run_values", "telling_failures"]

_LIMITING_SHARE = 0.5
_ADVICE = {
    "read": "faster storage, or a copy of the data on this machine",
    "digest": "more cores",
    "decode": "more cores",
    "forward": "a faster device, such as a GPU, or a smaller backbone",
    "torch": "a faster device, such as a GPU, OpenVINO on a CPU (pip install openvino), or a smaller backbone",
    "write": "a faster disk for the cache",
}
_FASTER_PIXELS = {"exact": "fast", "fast": "nvjpeg on a GPU"}


@takes_settings
def extract(
    data: options.Data,
    extractors: options.Extractors,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="F.h5", help="Also write the matrix as plain HDF5.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many, how large and about how long.")
    ] = False,
    *,
    settings: "Settings",
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Compute the vectors that are missing, once, in one pass over the data.

    Example: featx extract photos/ -x mobilenet_v2 -x hog --export features.h5
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    if export is not None:
        options.one_extractor(extractors)
        options.check_out(export, begins=b"\x89HDF", suffix=".h5")
    from featx.engine import estimate, read_extractors, run
    from featx.samples import read_samples

    # A part of one -x may be a part of another: it is computed once, like everything else.
    asked = list(dict.fromkeys(part for text in extractors for part in read_extractors(text)))
    table = read_samples(data)
    directory = options.cache_directory(cache)
    if dry_run:
        planned = estimate(table, asked, cache=directory, settings=settings)
        parts: list[dict[str, Any]] = [
            {
                "extractor": task.spec.text,
                "fingerprint": task.spec.fingerprint,
                "n_features": task.spec.n_features,
                "missing": missing,
                "size_bytes": size_bytes,
            }
            for task, missing, size_bytes in zip(
                planned.tasks, planned.missing, planned.size_bytes, strict=True
            )
        ]
        lines = [
            f"{part['extractor']}: {part['missing']} of {counted(planned.samples, 'sample')} to extract, "
            f"{size_text(part['size_bytes'])} to store"
            for part in parts
        ]
        screen.result(
            {
                "dry_run": True,
                "samples": planned.samples,
                "seconds": planned.seconds,
                "starting_seconds": planned.starting_seconds,
                "size_bytes": sum(planned.size_bytes),
                "extractors": parts,
            },
            "\n".join([*lines, *_time_told(planned)]),
        )
        return
    with telling_failures(screen), screen.progress() as progress:
        done = run(table, asked, cache=directory, settings=settings, progress=progress)
    screen.left_out((failure.id, failure.reason) for failure in done.failures)
    values = run_values(done)
    lines = [
        f"{part['extractor']}: {counted(part['samples'], 'sample')}, {part['cached']} cached, "
        f"{part['extracted']} extracted, {part['failed']} failed, {counted(part['n_features'], 'feature')} each"
        for part in values["extractors"]
    ]
    if (busiest := values["bottleneck"]) is not None:
        lines.append(
            f"{values['images_per_second']:.0f} images/s"
            + "".join(f" by {runtime}" for runtime in values["runtimes"])
            + f", the first kept after {values['starting_seconds']:.1f} s; {busiest} was the busiest stage "
            f"(busy {values['stages'][busiest]['share']:.0%} of the time)"
            + (f"; {values['advice']} would help" if values["advice"] else "")
        )
    if export is not None:
        from featx.features import write_features

        values["export"] = str(write_features(done, export))
        lines.append(f"wrote {export}")
    screen.result(values, "\n".join(lines))


def _time_told(planned: "Estimate") -> list[str]:
    if not any(planned.missing):
        return []
    return [f"about {planned.seconds:.0f} s, and {planned.starting_seconds:.0f} s to start"]


def run_values(done: "Run") -> dict[str, Any]:
    """Return what a run did as JSON values."""
    common = {
        "seconds": done.seconds,
        "starting_seconds": done.starting_seconds,
        "bottleneck": done.bottleneck,
        "advice": _advice(done),
        "runtimes": list(done.runtimes),
        "stages": {
            name: {"seconds": done.stages[name], "share": share} for name, share in done.shares.items()
        },
    }
    return {
        "samples": len(done.table),
        "cached": done.cached,
        "extracted": done.extracted,
        "failed": len(done.failures),
        **common,
        "images_per_second": _rate(done.extracted, done),
        "extractors": [_outcome_values(outcome, done) | common for outcome in done.outcomes],
        "failures": [
            {"id": printable_line(failure.id), "reason": failure.reason} for failure in done.failures
        ],
        "skipped": dict(done.table.skipped),
    }


@contextmanager
def telling_failures(screen: Screen) -> Iterator[None]:
    """Show what a run did that fails by its samples, before its error goes on."""
    try:
        yield
    except ExtractionError as error:
        if error.run is not None:
            screen.left_out((failure.id, failure.reason) for failure in error.run.failures)
            if screen.as_json:
                screen.result(run_values(error.run), "")
        raise


def _advice(done: "Run") -> str | None:
    """Return what would speed up a run that one stage limits; None where none does."""
    stage = done.bottleneck
    if stage is None or done.shares[stage] < _LIMITING_SHARE:
        return None
    if stage == "forward" and done.runtimes == ("torch",) and importlib.util.find_spec("openvino") is None:
        return _ADVICE["torch"]
    if stage != "decode":
        return _ADVICE[stage]
    specs = [outcome.task.spec for outcome in done.outcomes]
    if not all(spec.layer for spec in specs):  # descriptors are computed in this stage, from exact pixels
        return f"{_ADVICE[stage]}, or fewer or smaller hand-made descriptors"
    pixels = {spec.pixels for spec in specs}
    faster = [f", or pixels={name}" for slow, name in _FASTER_PIXELS.items() if slow in pixels]
    return "".join([_ADVICE[stage], *faster[:1]])


def _outcome_values(outcome: "Outcome", done: "Run") -> dict[str, Any]:
    spec = outcome.task.spec
    return {
        "extractor": spec.text,
        "fingerprint": spec.fingerprint,
        "n_features": spec.n_features,
        "precision": spec.precision,
        "pixels": spec.pixels,
        "samples": len(done.table),
        "cached": outcome.cached,
        "extracted": outcome.extracted,
        "failed": outcome.failed,
        "images_per_second": _rate(outcome.extracted, done),
    }


def _rate(extracted: int, done: "Run") -> float | None:
    return extracted / done.extracting_seconds if extracted else None
