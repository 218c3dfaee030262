"""What the page shows of the best contender and of the run, section by section; it reads no file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from featx.report.charts import curves, linear_axis, points, style_of
from featx.report.leaderboard import who

__all__ = [
    "confusion",
    "facts",
    "learning_curves",
    "notes",
    "per_class",
    "pictures",
    "provenance",
    "sample_map",
]

_MOST_IN_MATRIX = 30
_MOST_CONFUSED = 8
_MOST_CURVES = 8
_MOST_CLASSES = 60
_LABELLED_ON_MAP = 16
_COMPARED = 150
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
    shown = [(f"{data['n_samples']:,}", "samples")]
    if data["classes"]:
        shown.append((f"{len(data['classes']):,}", "classes"))
    if results["kind"] == "fewshot":
        shown += [
            (str(len({(one["extractor"], one["head"]) for one in results["results"]})), "contenders"),
            (f"{protocol['episodes']:,}", "episodes, the same for all"),
            (str(protocol["queries"]), "queries per class"),
        ]
    else:
        shown.append((str(len(results["results"]) - 1), "contenders"))
        if protocol["split"]:
            shown.append((f"{protocol['n_test']:,}", "test samples of the data\u2019s own split"))
        else:
            times = f" \u00d7 {protocol['repeats']}" if protocol["repeats"] > 1 else ""
            shown.append((f"{protocol['cv']}{times}", "folds, nested, the same for all"))
    for name, what in (("n_failed", "samples failed"), ("n_duplicates", "exact copies")):
        if data[name]:
            shown.append((f"{data[name]:,}", what))
    return shown


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
        "sizes": [f"all {n_labels:,}" if size is None else str(size) for size, n_labels in sizes],
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
        "notes": list(dict.fromkeys(p["note"] for c in found for p in c["points"] if p.get("note"))),
    }


def sample_map(inspection: Mapping[str, Any], *, task: str, classes: Sequence[Any]) -> dict[str, Any] | None:
    """Return the points of the map with colour, shape and text, the names of groups, and a legend."""
    found, samples = inspection["map"], inspection["samples"]
    if len(found["rows"]) < 2:
        return None
    chart = points(found["x"], found["y"])
    labels = [samples[str(row)]["label"] for row in found["rows"]]
    style: Any
    if task == "classification":
        number = {label: at for at, label in enumerate(classes)}
        style = [style_of(number[label]) for label in labels]
        axis = None
    else:
        axis = linear_axis(labels)
        style = [{"share": round(axis.at(label), 3)} for label in labels]
    marks = []
    for row, (x, y), label, predicted, look in zip(
        found["rows"], chart["places"], labels, found["predicted"], style, strict=True
    ):
        text = f"{samples[str(row)]['id']}: {_label(label)}"
        is_wrong = task == "classification" and predicted is not None and predicted != label
        if is_wrong or (task == "regression" and predicted is not None):
            text += f", predicted {_label(predicted)}"
        marks.append({"row": row, "x": x, "y": y, "text": text, "is_wrong": is_wrong, "label": label, **look})
    # Errors on top, so that none hides.
    marks.sort(key=lambda mark: mark["is_wrong"])
    groups, legend = [], []
    if task == "classification":
        for at, label in enumerate(classes):
            mine = [mark for mark in marks if mark["label"] == label]
            if not mine:
                continue
            legend.append({**style_of(at), "name": label, "count": len(mine)})
            x, y = _middle([(mark["x"], mark["y"]) for mark in mine])
            groups.append({"name": label, "x": x, "y": y})
    return {
        **chart,
        "method": found["method"],
        "marks": marks,
        "groups": _apart(groups, line=39.0 if chart["is_dense"] else 26.0)
        if len(groups) <= _LABELLED_ON_MAP
        else [],
        "legend": legend,
        "range": None if axis is None else (f"{min(labels):.4g}", f"{max(labels):.4g}"),
        "n_wrong": sum(mark["is_wrong"] for mark in marks),
    }


def residuals(inspection: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return predicted against true values of a regression, of the samples on the map."""
    found, samples = inspection["map"], inspection["samples"]
    told = [
        (row, samples[str(row)]["label"], predicted)
        for row, predicted in zip(found["rows"], found["predicted"], strict=True)
        if predicted is not None
    ]
    if not told:
        return None
    axis = linear_axis([value for _, *pair in told for value in pair])
    return {
        "marks": [
            {
                "row": row,
                "x": axis.percent(label),
                "y": round(100 - axis.percent(predicted), 2),
                "text": f"{samples[str(row)]['id']}: {_label(label)}, predicted {_label(predicted)}",
            }
            for row, label, predicted in told
        ],
        "ticks": [(axis.percent(value), text) for value, text in axis.ticks],
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
    about: dict[str, list[str]] = {}
    for one in results["results"]:
        for note in one.get("notes", ()):
            about.setdefault(note, []).append(who(one))
    inspection = results.get("inspection") or {}
    return [
        *results["notes"],
        *inspection.get("notes", ()),
        *(f"{', '.join(_shortened(names))}: {note}" for note, names in about.items()),
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
            (_PROTOCOL.get(name, name.replace("_", " ")), _plain(value))
            for name, value in results["protocol"].items()
        ],
        "extractors": [
            {**one, "identity": json.dumps(one["identity"], indent=1, sort_keys=True).split("\n")}
            for one in results["extractors"]
        ],
    }


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _label(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)


def _shortened(names: Sequence[str]) -> Iterable[str]:
    return names if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]


def _middle(places: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the place that has most of its group around it: the mean may lie between two parts of it, on others."""
    some = places[:: max(1, len(places) // _COMPARED)]
    near = max(3, len(some) // 4)

    def closeness(place: tuple[float, float]) -> float:
        return sum(sorted((place[0] - x) ** 2 + (place[1] - y) ** 2 for x, y in some)[:near])

    return min(some, key=closeness)


def _apart(groups: list[dict[str, Any]], *, line: float) -> list[dict[str, Any]]:
    """Move names of groups that would lie on each other apart, downwards, by the height of a line."""
    placed: list[dict[str, Any]] = []
    for group in sorted(groups, key=lambda group: group["y"]):
        y = group["y"]
        for other in placed:
            if abs(other["x"] - group["x"]) < 5 * line and y - other["y"] < line:
                y = round(other["y"] + line, 1)
        placed.append({**group, "y": y})
    return placed
