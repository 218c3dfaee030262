"""``featx predict``: label new samples with a saved model."""

import csv
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from featx.cli import options
from featx.cli.extract import telling_failures
from featx.cli.run_options import takes_settings
from featx.cli.show import Screen, columns
from featx.printable import harmless_cell, printable_line
from featx.wording import counted

if TYPE_CHECKING:
    from featx.engine import Settings
    from featx.model import Model
    from featx.predictions import Predictions

__all__ = ["predict"]


@takes_settings
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="M.featx", help="Saved by 'featx fit --out'.", show_default=False)
    ],
    data: options.Data,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="P.csv", help="Write the table here instead.", show_default=False),
    ] = None,
    proba: Annotated[bool, typer.Option("--proba", help="With the probability of every class.")] = False,
    extractor: Annotated[
        list[str] | None,
        typer.Option(
            "-x",
            "--extractor",
            metavar="SPEC",
            help="The model's own extractor, with its weights in another place.",
            show_default=False,
        ),
    ] = None,
    *,
    settings: "Settings",
    cache: options.CacheDirectory = None,
    as_json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Label new samples; where DATA has labels, score the predictions too.

    Example: featx predict photos.featx new/ --out predictions.csv --proba
    """
    screen = Screen(as_json=as_json, quiet=quiet, verbose=verbose)
    options.check_out(out, begins=b"id,prediction", suffix=".csv")
    directory = options.cache_directory(cache)
    from featx.model import load

    fitted = load(model, extractors=options.one_extractor(extractor) if extractor else None)
    with telling_failures(screen), screen.progress() as progress:
        parts, failures = fitted.predict_stream(
            data,
            probabilities=proba,
            cache=directory,
            progress=progress,
            **vars(settings),
        )
    rows: list[dict[str, Any]] = []
    truth: list[Any] = []
    labels: list[Any] = []
    count = 0
    with _table(out, as_json) as stream:
        writer = csv.writer(stream, lineterminator="\n") if stream is not None else None
        if writer is not None:
            writer.writerow(["id", "prediction", *map(harmless_cell, _probability_names(fitted, proba))])
        for part in parts:
            count += len(part.ids)
            if part.truth is not None:
                truth.extend(part.truth.tolist())
                labels.extend(part.labels.tolist())
            for row in _rows(fitted, part):
                if writer is not None:
                    writer.writerow(_cells(row))
                if as_json:
                    rows.append(row)
    screen.left_out((failure.id, failure.reason) for failure in failures)
    scores = _scores(fitted, truth, labels, screen)
    values = {
        "predictions": rows,
        "scores": scores,
        "failures": [{"id": printable_line(failure.id), "reason": failure.reason} for failure in failures],
        "out": None if out is None else str(out),
    }
    lines = [] if out is None else [f"wrote {counted(count, 'prediction')} to {out}"]
    if scores:
        lines.append(
            columns([[name, f"{value:.3f}"] for name, value in scores.items()], header=["metric", "score"])
        )
    if as_json or out is not None:
        screen.result(values, "\n".join(lines))
    elif lines:  # on standard output is the table, and nothing else
        screen.remark(*"\n".join(lines).split("\n"))


@contextmanager
def _table(out: Path | None, as_json: bool) -> Iterator[TextIO | None]:
    """Open where the table goes: a file that appears when it is whole, standard output, or nowhere."""
    if out is None:
        yield None if as_json else sys.stdout
        return
    temporary = out.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _rows(fitted: "Model", part: "Predictions") -> Iterator[dict[str, Any]]:
    names = _probability_names(fitted, part.probabilities is not None)
    for index, (name, label) in enumerate(zip(part.ids.tolist(), part.labels.tolist(), strict=True)):
        row = {"id": printable_line(name), "label": label}
        if part.probabilities is not None:
            row["probabilities"] = dict(zip(names, part.probabilities[index].tolist(), strict=True))
        yield row


def _cells(row: dict[str, Any]) -> list[Any]:
    probabilities = row.get("probabilities", {}).values()
    return [
        harmless_cell(row["id"]),
        harmless_cell(row["label"]),
        *(f"{value:.6g}" for value in probabilities),
    ]


def _probability_names(fitted: "Model", asked: bool) -> list[str]:
    return [str(name) for name in fitted.classes_.tolist()] if asked and fitted.classes_ is not None else []


def _scores(fitted: "Model", truth: list[Any], labels: list[Any], screen: Screen) -> dict[str, float]:
    import numpy as np

    from featx.evaluation import score_predictions

    known = [index for index, label in enumerate(truth) if label is not None and label == label]
    if not known:
        return {}
    expected = np.asarray([truth[index] for index in known])
    classes = fitted.classes_
    if classes is None and expected.dtype.kind not in "iuf":
        screen.note(f"not scored, because the data's labels ({expected[0]}, ...) are not numbers")
        return {}
    if classes is not None and not set(expected.tolist()) & set(classes.tolist()):
        screen.note(
            f"not scored, because no label of the data ({expected[0]}, ...) is a class of the model "
            f"({', '.join(map(str, classes.tolist()[:5]))})"
        )
        return {}
    return score_predictions(
        expected, np.asarray([labels[index] for index in known]), task=fitted.record["task"]
    )
