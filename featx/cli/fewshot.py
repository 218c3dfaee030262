"""``featx fewshot``: how far a few labels go."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from featx.cli import options
from featx.cli.ending import end, interval_text
from featx.cli.extract import telling_failures
from featx.cli.fit import understood
from featx.cli.run_options import takes_settings
from featx.cli.show import Screen, columns
from featx.errors import UsageError
from featx.wording import counted

if TYPE_CHECKING:
    from featx.engine import Settings

__all__ = ["fewshot"]


@takes_settings
def fewshot(
    context: typer.Context,
    data: options.Data,
    extractors: options.Extractors,
    ways: Annotated[int, typer.Option("--ways", help="Classes of an episode.")] = 5,
    shots: Annotated[
        str, typer.Option("--shots", metavar="K,K", help="Samples of each class to learn from.")
    ] = "1,5",
    queries: Annotated[
        int,
        typer.Option("--queries", help="Samples of each class to ask about; fewer where there are no more."),
    ] = 15,
    episodes: Annotated[int, typer.Option("--episodes", help="How many episodes, the same for all.")] = 1000,
    heads: Annotated[
        list[str],
        typer.Option(
            "--head",
            metavar="HEAD",
            help="A name from 'featx list heads', or a recipe's path; may be repeated. centroid and ridge are fast.",
        ),
    ] = ["centroid"],  # noqa: B006 - typer wants the list itself
    labels: Annotated[
        str,
        typer.Option(
            "--labels", metavar="N,N|none", help="Labels per class of the learning curve; none for no curve."
        ),
    ] = "1,2,5,10,20,all",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="A folder for the results; a run in it is replaced.",
            show_default=False,
        ),
    ] = None,
    random_state: Annotated[
        int, typer.Option("--random-state", min=0, max=2**32 - 1, help="Seed of episodes, draws and heads.")
    ] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Processes to fit in, at most one per core; -1 for that.")
    ] = -1,
    *,
    settings: "Settings",
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Judge extractors on few-shot episodes, the same for all, and say how many labels they need.

    Example: featx fewshot photos/ -x mobilenet_v2 -x hog --ways 5 --shots 1,5 --head centroid
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    n_jobs = options.processes(jobs)
    asked = _numbers(shots, "--shots")
    sizes = [] if labels == "none" else _numbers(labels, "--labels", all_means_none=True)
    from featx import fewshot as library
    from featx.samples import read_samples
    from featx.tracking import check_run_folder

    check_run_folder(out, kind="fewshot")
    directory = options.cache_directory(cache)
    table = read_samples(data)
    with telling_failures(screen), screen.progress(*understood(table)) as progress:
        found = library.few_shot(
            table,
            extractors,
            ways=ways,
            shots=asked,
            queries=queries,
            episodes=episodes,
            heads=heads,
            labels_per_class=sizes,
            cache=directory,
            random_state=random_state,
            n_jobs=n_jobs,
            progress=progress,
            **vars(settings),
        )
    end(
        screen,
        found,
        text=_text(found.results),
        context=context,
        data=data,
        out=out,
        notes=_curve_notes(found.results),
    )


def _numbers(text: str, option: str, *, all_means_none: bool = False) -> list[Any]:
    """Read numbers with commas between them."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() or (all_means_none and word == "all") for word in words):
        example = "1,2,5,all, or none" if all_means_none else "1,5"
        raise UsageError(f"{option}: expected whole numbers such as {example}; got {text!r}.")
    return [None if word == "all" else int(word) for word in words]


def _curve_notes(results: dict[str, Any]) -> list[str]:
    return [
        f"{curve['label']} with {curve['head']}, learning curve at {point['n_labels']} labels: {point['note']}"
        for curve in results["learning_curve"]
        for point in curve["points"]
        if point["note"] is not None
    ]


def _text(results: dict[str, Any]) -> str:
    protocol = results["protocol"]
    rows = [
        [
            one["label"],
            one["head"],
            f"{one['shots']}-shot",
            f"{one['mean']:.3f}",
            interval_text(one["ci95"]),
            _difference(one),
            one["verdict"],
        ]
        for one in results["results"]
    ]
    lines = [
        f"{protocol['ways']}-way accuracy over {protocol['episodes']} episodes, the same for all, of"
        f" {counted(results['data']['n_samples'], 'sample')} in {len(results['data']['classes'])} classes",
        "",
        columns(
            rows, header=["extractor", "head", "shots", "accuracy", "95% interval", "to the best", "verdict"]
        ),
    ]
    if results["learning_curve"]:
        first = results["learning_curve"][0]
        sizes = [
            f"all ({point['n_labels']} in all)"
            if point["labels_per_class"] is None
            else f"{point['labels_per_class']}"
            for point in first["points"]
        ]
        curves = [
            [curve["label"], curve["head"], *(_point(point) for point in curve["points"])]
            for curve in results["learning_curve"]
        ]
        lines += [
            "",
            f"accuracy on {counted(first['n_test'], 'sample')} held out, by labels per class of the others"
            " (+- half the 95% interval)",
            columns(curves, header=["extractor", "head", *sizes]),
        ]
    return "\n".join(lines)


def _difference(one: dict[str, Any]) -> str:
    if one["difference_ci95"] is None:
        return "-"
    low, high = one["difference_ci95"]
    return f"{one['difference']:+.3f} ({low:+.3f} to {high:+.3f})"


def _point(point: dict[str, Any]) -> str:
    if point["mean"] is None:
        return "-"
    if point["ci95"] is None:
        return f"{point['mean']:.3f}"
    return f"{point['mean']:.3f} +- {(point['ci95'][1] - point['ci95'][0]) / 2:.3f}"
