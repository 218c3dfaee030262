"""Samples as points, on the map and against their predictions: where they lie and what they say; the templates draw."""

from collections.abc import Mapping, Sequence
from typing import Any

from featx.report.charts import linear_axis, points, style_of

__all__ = ["residuals", "sample_map"]

_LABELLED_ON_MAP = 16
_COMPARED = 150


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


def _label(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)


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
