"""What the page shows of the best contender and of the run, section by section; it reads no file."""

import json
from collections.abc import Mapping
from typing import Any

from featx.report.charts import curves, style_of
from featx.report.leaderboard import who
from featx.wording import contender_notes, counted

__all__ = [
    "confusion",
    "facts",
    "learning_curves",
    "notes",
    "per_class",
    "pictures",
    "provenance",
]

_MOST_IN_MATRIX = 30
_MOST_CONFUSED = 8
_MOST_CURVES = 8
_MOST_CLASSES = 60
_STRONG = 0.645  # from where the other colour of text has more contrast
_PROTOCOL = {
    "cv": "folds",
    "n_folds": "folds in all",
    "grouped": "groups kept together",
    "split": "the data\u2019s own split",
    "random_state": "seed",
    "n_components": "components per part",
    "n_train": "training samples",
    "n_test": "test samples",
}


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what the run was made of, as (value, what)."""
    data, protocol = results["data"], results["protocol"]
    shown = [counted(data["n_samples"], "sample")]
    if data["classes"]:
        shown.append(counted(len(data["classes"]), "class", "classes"))
    if results["kind"] == "fewshot":
        contenders = {(one["extractor"], one["head"]) for one in results["results"]}
        shown += [
            counted(len(contenders), "contender"),
            f"{counted(protocol['episodes'], 'episode')}, the same for all",
            f"{counted(protocol['queries'], 'query', 'queries')} per class",
        ]
    else:
        shown.append(counted(len(results["results"]) - 1, "contender"))
        if protocol["split"]:
            shown.append(f"{counted(protocol['n_test'], 'test sample')} of the data\u2019s own split")
        else:
            shown.append(f"{counted(protocol['cv'], 'fold')}, nested, the same for all")
            if protocol["repeats"] > 1:
                shown.append(counted(protocol["repeats"], "shuffle"))
    for name, what, several in (
        ("n_failed", "sample failed", "samples failed"),
        ("n_duplicates", "exact copy", "exact copies"),
    ):
        if data[name]:
            shown.append(counted(data[name], what, several))
    return [(number, what) for number, _, what in (one.partition(" ") for one in shown)]


def confusion(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the confusion matrix as rows of cells, where a person can take it in, and the most frequent errors."""
    classes, counts = details["classes"], details["confusion"]
    errors = sorted(
        (
            (counts[row][column], row, column)
            for row in range(len(classes))
            for column in range(len(classes))
            if row != column and counts[row][column]
        ),
        key=lambda error: (-error[0], error[1], error[2]),
    )
    rows = []
    if len(classes) <= _MOST_IN_MATRIX:
        for number, of_row in enumerate(counts):
            total = sum(of_row)
            cells = [
                {
                    "count": count,
                    "share": round(count / total, 3) if total else 0.0,
                    "is_right": number == column,
                    "is_strong": bool(total) and count / total > _STRONG,
                    "predicted": classes[column],
                }
                for column, count in enumerate(of_row)
            ]
            rows.append({"name": classes[number], "cells": cells, "total": total})
    return {
        "classes": classes,
        "rows": rows,
        "errors": [
            {"count": count, "label": classes[row], "predicted": classes[column], "total": sum(counts[row])}
            for count, row, column in errors[:_MOST_CONFUSED]
        ],
        "n_kinds": len(errors),
    }


def per_class(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return precision, recall and F1 of the classes; of very many those with the lowest F1."""
    rows = [{**one, "name": one["class"]} for one in details["per_class"]]
    if len(rows) <= _MOST_CLASSES:
        return {"rows": rows, "n_left_out": 0}
    worst = sorted(rows, key=lambda row: row["f1"])
    return {"rows": worst[:_MOST_CLASSES], "n_left_out": len(rows) - _MOST_CLASSES}


def learning_curves(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the learning curves, the best first, as a chart and as a table."""
    found = results["learning_curve"]
    if not found:
        return None
    baseline = None
    if results["kind"] == "compare":
        best = results["results"][1]
        found = [{**found, "label": best["label"], "fusion": best["fusion"]}]
        if results["protocol"]["metric"] == "accuracy":
            baseline = results["results"][0]["metrics"]["accuracy"]["mean"]
    found = [curve for curve in found if any(point["mean"] is not None for point in curve["points"])]
    if not found:
        return None
    found = sorted(found, key=lambda curve: -(curve["points"][-1]["mean"] or 0.0))
    drawn = found[:_MOST_CURVES]
    sizes = [
        (point["labels_per_class"], point["n_labels"])
        for point in max(found, key=lambda c: len(c["points"]))["points"]
    ]
    return {
        "chart": curves([curve["points"] for curve in drawn], baseline=baseline),
        "legend": [{**style_of(number), "name": who(curve)} for number, curve in enumerate(drawn)],
        "n_left_out": len(found) - len(drawn),
        "sizes": [f"all ({n_labels:,} in all)" if size is None else str(size) for size, n_labels in sizes],
        "rows": [
            {
                "name": who(curve),
                "extractor": curve["extractor"],
                "head": curve["head"],
                "cells": [
                    next((p for p in curve["points"] if p["labels_per_class"] == size), None)
                    for size, _ in sizes
                ],
            }
            for curve in found
        ],
        "has_baseline": baseline is not None,
        "has_all": any(size is None for size, _ in sizes),
        "notes": list(
            dict.fromkeys(
                one["note"] for curve in found for one in (curve, *curve["points"]) if one.get("note")
            )
        ),
    }


def pictures(inspection: Mapping[str, Any]) -> list[int]:
    """Return the rows whose pictures the sections show, those that matter most first."""
    return [
        *(one["row"] for one in inspection["wrong"]),
        *(one["row"] for one in inspection["suspects"]),
        *(neighbour["row"] for one in inspection["wrong"] for neighbour in one["neighbours"]),
        *(row for pair in inspection["near_duplicates"] for row in pair["rows"]),
    ]


def notes(results: Mapping[str, Any]) -> list[str]:
    """Return every note once: the run's, those of the inspection, and those of contenders with whom they are about."""
    inspection = results.get("inspection") or {}
    return [
        *results["notes"],
        *inspection.get("notes", ()),
        *contender_notes(results, name=who),
    ]


def provenance(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the run was made with, and how to make it again."""
    data = results["data"]
    return {
        "command": results["command"],
        "directory": results["directory"],
        "created": results["created"],
        "versions": results["versions"],
        "data": [
            ("source", data["source"]),
            ("folder", data["root"]),
            ("digest", data["digest"]),
            ("samples", f"{data['n_samples']:,}"),
            ("without a label", data["n_unlabelled"]),
            ("failed", data["n_failed"]),
            ("exact copies", data["n_duplicates"]),
        ],
        "counts": list(zip(data["classes"], data["counts"], strict=True)),
        "protocol": [
            (
                _PROTOCOL.get(name, name.replace("_", " ")),
                _plain([_head(one) for one in value] if name == "heads" else value),
            )
            for name, value in results["protocol"].items()
        ],
        "extractors": [
            {**one, "identity": json.dumps(one["identity"], indent=1, sort_keys=True).split("\n")}
            for one in results["extractors"]
        ],
    }


def _head(one: Mapping[str, str | None]) -> str:
    """Return a head with where it is from: a digest's beginning is enough to see that two recipes differ."""
    recipe = one["recipe"]
    if recipe is None:
        return f"{one['name']} (given from Python)"
    return f"{one['name']} ({recipe if recipe == 'built in' else 'recipe ' + recipe[:12]})"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, Mapping):  # weights by class
        return ", ".join(f"{name}: {one}" for name, one in value.items())
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return str(value)
