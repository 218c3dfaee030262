"""``featx fit``: estimate, search, fit on all, save."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from featx.cli import options
from featx.cli.extract import telling_failures
from featx.cli.run_options import takes_settings
from featx.cli.show import Screen, columns
from featx.errors import ModelError
from featx.wording import counted

if TYPE_CHECKING:
    from featx.engine import Settings
    from featx.model import Model
    from featx.samples import SampleTable

__all__ = ["fit", "understood"]

_CLASSES_NAMED = 5


@takes_settings
def fit(
    data: options.Data,
    extractors: options.Extractors,
    head: Annotated[
        str,
        typer.Option(
            "--head", metavar="HEAD", help="A name from 'featx list heads', or a recipe's path (mine.py)."
        ),
    ] = "logreg",
    cv: Annotated[int, typer.Option("--cv", help="Folds, outer and inner.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="M.featx", help="Where the fitted model is saved.", show_default=False),
    ] = None,
    class_weight: Annotated[
        Literal["balanced"] | None,
        typer.Option("--class-weight", help="For heads that have it.", show_default=False),
    ] = None,
    fusion: Annotated[
        Literal["early", "late"],
        typer.Option(
            "--fusion",
            help="Of several extractors: one head on all features, or one head each and a last one that weighs them.",
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
    random_state: Annotated[
        int, typer.Option("--random-state", min=0, max=2**32 - 1, help="Seed of folds and head.")
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
    """Estimate by nested cross-validation, search the head's grid, fit on all, save.

    Example: featx fit photos/ -x mobilenet_v2 --head logreg --cv 5 --out photos.featx
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    options.check_out(out, begins=b"PK", suffix=".featx")
    n_jobs = options.processes(jobs)
    from featx import fitting
    from featx.samples import read_samples

    extractor, directory = options.one_extractor(extractors), options.cache_directory(cache)
    table = read_samples(data)
    with telling_failures(screen), screen.progress(*understood(table)) as progress:
        fitted = fitting.fit(
            table,
            extractor,
            head=head,
            cv=cv,
            cache=directory,
            class_weight=class_weight,
            random_state=random_state,
            n_jobs=n_jobs,
            fusion=fusion,
            n_components=n_components,
            progress=progress,
            **vars(settings),
        )
    record = fitted.record
    screen.left_out((failure["id"], failure["reason"]) for failure in record["failed"])
    screen.note(*record["notes"])
    unsaved = None
    if out is not None:
        try:
            fitted.save(out)
        except ModelError as error:  # the estimate has taken its time, and is worth seeing all the same
            unsaved, out = error, None
    values = {
        "cv": record["metrics"],
        "out": None if out is None else str(out),
        **{
            name: record[name]
            for name in (
                "task",
                "head",
                "fusion",
                "n_components",
                "baseline",
                "per_class",
                "best_params",
                "classes",
                "n_samples",
                "n_features",
                "notes",
            )
        },
        "failures": record["failed"],
        "extractors": [
            {"extractor": one["text"], "fingerprint": one["fingerprint"]} for one in record["extractors"]
        ],
    }
    screen.result(values, _text(fitted, out))
    if unsaved is not None:
        raise unsaved


def understood(table: "SampleTable") -> list[str]:
    """Return what the samples are taken for: folders of folders, say, are seldom meant as classes."""
    given = Counter[Any]([] if table.y is None else table.y[table.labelled].tolist())
    if not given:
        return []
    classes = table.classes
    if not classes:
        return [f"labels from {min(given):g} to {max(given):g}"]
    named = ", ".join(f"{name} ({given[name]})" for name in classes[:_CLASSES_NAMED])
    more = f"; {len(classes) - _CLASSES_NAMED} more" if len(classes) > _CLASSES_NAMED else ""
    # Whole numbers are classes or not, as the head takes them.
    kind = "class" + "es" * (len(classes) > 1) if isinstance(classes[0], str) else "different labels"
    return [f"{len(classes)} {kind}: {named}{more}"]


def _text(fitted: "Model", out: Path | None) -> str:
    record = fitted.record
    n_folds = len(next(iter(record["metrics"].values()))["folds"])
    n_scored = int((fitted.evaluation.fold_of_row >= 0).sum()) if fitted.evaluation is not None else 0
    lines = [
        f"{record['head']} on {_inputs(record)} of {counted(record['n_samples'], 'sample')}; "
        + (
            f"estimated by {n_folds}-fold nested cross-validation"
            if n_folds > 1
            else f"scored on the {n_scored} rows that the split column holds out, fitted on the others"
        ),
        "",
        columns(
            [
                [name, _score(scores), _score(record["baseline"][name])]
                for name, scores in record["metrics"].items()
            ],
            header=["metric", "estimate", "majority" if record["task"] == "classification" else "mean"],
        ),
    ]
    if record["per_class"]:
        rows: list[list[Any]] = [
            [one["class"], *(f"{one[name]:.3f}" for name in ("precision", "recall", "f1")), one["support"]]
            for one in record["per_class"]
        ]
        lines += ["", columns(rows, header=["class", "precision", "recall", "f1", "samples"])]
    best = ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in record["best_params"].items()
    )
    if best:
        lines += ["", f"chosen for the final fit: {best}"]
    if out is not None:
        lines += [f"saved {out}"]
    return "\n".join(lines)


def _inputs(record: dict[str, Any]) -> str:
    """Return what a head takes in, and how it is fused."""
    parts = ["fused late"] if record["fusion"] == "late" else []
    if (n_components := record["n_components"]) is not None:
        each = " each" if record["fusion"] else ""
        parts += [f"{counted(n_components, 'principal component')}{each}"]
    inputs = counted(record["n_features"], "feature")
    return f"{inputs} ({', '.join(parts)})" if parts else inputs


def _score(scores: dict[str, Any]) -> str:
    return (
        f"{scores['mean']:.3f} +- {scores['std']:.3f}"
        if len(scores["folds"]) > 1
        else f"{scores['mean']:.3f}"
    )
