"""``featx list``: what can be named."""

import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer

from featx.cli import options
from featx.cli.show import Screen, columns
from featx.errors import UsageError

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="List backbones, descriptors and heads that can be named.",
    rich_markup_mode=None,
)

Pattern = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATTERN]",
        help="Only names that match, such as 'resnet*' or a part of one.",
        show_default=False,
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where feature counts of backbones and descriptors are remembered, if it is there. "
        "Default: $FEATX_CACHE, else ./cache.",
        rich_help_panel=options.COMMON,
        show_default=False,
    ),
]


@app.command("backbones")
def list_backbones(
    pattern: Pattern = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="torchvision, timm, featx, or another installed source. Default: featx and torchvision.",
            show_default=False,
        ),
    ] = None,
    cache: Cache = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show backbones, their feature counts, their weights, and which of these are on this machine.

    Example: featx list backbones 'resnet*'
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    from featx.engine import describe
    from featx.extractors.registry import DEFAULT_SOURCES, load_source

    if source == "descriptor":
        raise UsageError("source 'descriptor' has no backbones. See: featx list descriptors")
    directory = options.cache_directory(cache)
    sources = [name for name in DEFAULT_SOURCES if name != "descriptor"] if source is None else [source]
    known = {name: load_source(name).names() for name in sources}
    wanted = set(_matching([name for names in known.values() for name in names], pattern))
    described: dict[str, dict[str, Any]] = {}
    for one, names in known.items():
        prefix = "" if one in DEFAULT_SOURCES else f"{one}/"
        found = describe(one, [name for name in names if name in wanted], cache=directory)
        described |= {prefix + name: backbone for name, backbone in found.items()}
    rows = [
        [
            name,
            one["reason"] if one["n_features"] is None else one["n_features"],
            ", ".join(weight + "*" * (weight in one.get("on_disk", ())) for weight in one.get("weights", ())),
        ]
        for name, one in described.items()
    ]
    table = columns(rows, header=["backbone", "features", "weights (* on this machine)"])
    cards = [one["card"] for one in described.values() if "card" in one] if len(described) == 1 else []
    screen.result({"names": list(described), "backbones": described}, "\n\n".join([table, *cards]))


@app.command("descriptors")
def list_descriptors(
    pattern: Pattern = None,
    cache: Cache = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show hand-made features, their lengths and parameters.

    Example: featx list descriptors
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    from featx.engine import describe
    from featx.extractors.registry import load_source

    names = _matching(load_source("descriptor").names(), pattern)
    described = describe("descriptor", names, cache=options.cache_directory(cache))
    rows = [
        [
            name,
            one["n_features"],
            ":".join(f"{key}={value}" for key, value in one["parameters"].items()),
            one["summary"],
        ]
        for name, one in described.items()
    ]
    screen.result(
        {"names": list(described), "descriptors": described},
        columns(rows, header=["descriptor", "features", "parameters", "what"]),
    )


@app.command("heads")
def list_heads(
    pattern: Pattern = None,
    cache: Cache = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Show the scikit-learn heads that ship with featx.

    Example: featx list heads
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    options.cache_directory(cache)
    from featx.evaluation import head_names, load_head

    heads: dict[str, dict[str, Any]] = {}
    for name in _matching(head_names(), pattern):
        head = load_head(name)
        heads[name] = {
            "task": head.task,
            "steps": [type(step).__name__ for _, step in head.pipeline.steps],
            "candidates": len(head.candidates),
        }
    rows = [[name, one["task"], one["candidates"], " > ".join(one["steps"])] for name, one in heads.items()]
    screen.result(
        {"names": list(heads), "heads": heads}, columns(rows, header=["head", "task", "candidates", "steps"])
    )


def _matching(names: list[str], pattern: str | None) -> list[str]:
    if pattern is None:
        return names
    wanted = pattern if any(char in pattern for char in "*?[") else f"*{pattern}*"
    found = [name for name in names if fnmatch.fnmatchcase(name, wanted)]
    if not found:
        raise UsageError(f"no name matches '{pattern}'. Leave the pattern out to see all {len(names)}.")
    return found
