"""``featx compare``: every extractor with every head on the same folds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featx.cli import options
from featx.cli.ending import end, interval_text
from featx.cli.extract import telling_failures
from featx.cli.fit import understood
from featx.cli.run_options import takes_settings
from featx.cli.show import Screen, columns
from featx.wording import counted

if TYPE_CHECKING:
    from featx.engine import Settings

__all__ = ["compare"]


@takes_settings
def compare(
    context: typer.Context,
    data: options.Data,
    extractors: options.Extractors,
    heads: Annotated[
        list[str],
        typer.Option(
            "--head",
            metavar="HEAD",
            help="A name from 'featx list heads', or a recipe's path; may be repeated.",
        ),
    ] = ["logreg"],  # noqa: B006 - typer wants the list itself
    cv: Annotated[int, typer.Option("--cv", help="Folds, outer and inner.")] = 5,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, help="Shuffle afresh and cross-validate so many times.")
    ] = 1,
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="Rank by this, by scikit-learn's name. Default: accuracy, or r2.",
            show_default=False,
        ),
    ] = None,
    fusion: Annotated[
        Literal["early", "late"],
        typer.Option(
            "--fusion",
            help="Of extractors with '+': one head on all features, or one head each and a last one that weighs them.",
        ),
    ] = "early",
    n_components: Annotated[
        int | None,
        typer.Option(
            "--pca",
            metavar="N",
            min=1,
            help="Reduce each extractor's features to N components, fitted on training rows only.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="RUN",
            help="A folder for the results; a run in it is replaced.",
            show_default=False,
        ),
    ] = None,
    class_weight: Annotated[
        Literal["balanced"] | None,
        typer.Option("--class-weight", help="For heads that have it.", show_default=False),
    ] = None,
    random_state: Annotated[
        int, typer.Option("--random-state", min=0, max=2**32 - 1, help="Seed of folds, heads and draws.")
    ] = 0,
    jobs: Annotated[
        int, typer.Option("--jobs", help="Processes of the search, at most one per core; -1 for that.")
    ] = -1,
    *,
    settings: "Settings",
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Judge every extractor with every head by nested cross-validation on the same folds, and rank them.

    Example: featx compare photos/ -x mobilenet_v2 -x hog --head logreg --head svm --out runs/first
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    n_jobs = options.processes(jobs)
    from featx import comparing
    from featx.samples import read_samples
    from featx.tracking import check_run_folder

    check_run_folder(out, kind="compare")
    directory = options.cache_directory(cache)
    table = read_samples(data)
    with telling_failures(screen), screen.progress(*understood(table)) as progress:
        found = comparing.compare(
            table,
            extractors,
            heads=heads,
            cv=cv,
            repeats=repeats,
            metric=metric,
            fusion=fusion,
            n_components=n_components,
            cache=directory,
            class_weight=class_weight,
            random_state=random_state,
            n_jobs=n_jobs,
            progress=progress,
            **vars(settings),
        )
    end(screen, found, text=_text(found.results), context=context, data=data, out=out)


def _text(results: dict[str, Any]) -> str:
    protocol, metric = results["protocol"], results["protocol"]["metric"]
    n_folds = protocol["n_folds"]
    how = (
        f"scored on the {protocol['n_test']} rows that the split column holds out"
        if protocol["split"]
        else f"estimated by {protocol['cv']}-fold nested cross-validation"
        + (f", {protocol['repeats']} times" if protocol["repeats"] > 1 else "")
    )
    if protocol["n_components"] is not None:
        how += f", each extractor reduced to {protocol['n_components']} components where it has more features"
    rows: list[list[Any]] = [
        [
            one["label"] or "-",
            one["head"] + (f" ({one['fusion']})" if one["fusion"] == "late" else ""),
            one["n_features"] if one["parts"] else None,
            _score(one["metrics"][metric], n_folds),
            interval_text(one["metrics"][metric]["ci95"]),
            one["verdict"],
            f"{one['fit_seconds']:.2f}",
            f"{one['predict_seconds']:.3f}",
        ]
        for one in results["results"]
    ]
    header = ["extractor", "head", "features", metric, "95% interval", "verdict", "fit s", "predict s"]
    lines = [
        f"{counted(len(rows) - 1, 'contender')} on {counted(results['data']['n_samples'], 'sample')}; {how}",
        "",
        columns(rows, header=header),
    ]
    if results["fusion_gains"]:
        labels = {one["extractor"]: one["label"] for one in results["results"]}
        lines += ["", *(_gain_text(gain, metric, labels) for gain in results["fusion_gains"])]
    return "\n".join(lines)


def _score(scores: dict[str, Any], n_folds: int) -> str:
    return f"{scores['mean']:.3f} +- {scores['std']:.3f}" if n_folds > 1 else f"{scores['mean']:.3f}"


def _gain_text(gain: dict[str, Any], metric: str, labels: dict[str, str]) -> str:
    from featx.evaluation.significance import LEVEL

    p_value = gain["p_value"]
    told = p_value is not None and p_value < LEVEL
    what = "gains" if gain["gain"] >= 0 else "loses"
    spread = "" if gain["ci95"] is None else f" (95% {gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f})"
    verdict = "" if told else ", which these rows do not tell from nothing"
    return (
        f"{labels[gain['extractor']]} ({gain['fusion']}) with {gain['head']} {what}"
        f" {abs(gain['gain']):.3f} {metric} on {labels[gain['best_part']]} alone{spread}{verdict}"
    )
