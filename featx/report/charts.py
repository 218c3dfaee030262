"""Where the marks of a chart lie; the templates draw them, and nothing here is text that a user wrote."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["N_COLOURS", "N_SHAPES", "Axis", "curves", "linear_axis", "log_axis", "points", "style_of"]

N_COLOURS = 8
N_SHAPES = 6

_STEPS = (1, 2, 2.5, 5, 10)
_CURVE = {"width": 480, "height": 300, "left": 46, "right": 16, "top": 12, "bottom": 44}
_MAP = {"width": 640, "height": 520, "margin": 18}
_CLOSE = 0.07
_MANY = 700


@dataclass(frozen=True)
class Axis:
    """Values along a line.

    Attributes
    ----------
    low, high : float
        Its ends.
    ticks : list of (value, text)
    is_log : bool
    """

    low: float
    high: float
    ticks: list[tuple[float, str]]
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 at the low end to 1 at the high one."""
        if self.is_log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def percent(self, value: float) -> float:
        """Return where a value lies, 0 to 100, and at the nearest end where it lies beyond."""
        return round(100 * min(1.0, max(0.0, self.at(value))), 2)


def linear_axis(
    values: Iterable[float], *, most: float = math.inf, least: float = -math.inf, n_ticks: int = 5
) -> Axis:
    """Return an axis with round ticks that holds all values.

    Parameters
    ----------
    values : iterable of float
    most, least : float
        Where the scale itself ends, such as 1 for an accuracy.
    n_ticks : int
        About how many.

    Examples
    --------
    >>> [text for _, text in linear_axis([0.43, 0.88], most=1.0).ticks]
    ['0.4', '0.5', '0.6', '0.7', '0.8', '0.9']
    """
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if not high - low > 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    raw = (high - low) / n_ticks
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in _STEPS if size * magnitude >= raw * 0.999)
    first = max(math.floor(low / step + 1e-9), math.ceil(least / step) if math.isfinite(least) else -math.inf)
    last = min(
        math.ceil(high / step - 1e-9), math.floor(most / step + 1e-9) if math.isfinite(most) else math.inf
    )
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (round(step / magnitude, 6) == 2.5))
    ticks = [(number * step, f"{number * step:.{digits}f}") for number in range(int(first), int(last) + 1)]
    return Axis(max(least, min(low, ticks[0][0])), min(most, max(high, ticks[-1][0])), ticks)


def log_axis(ticks: Sequence[tuple[float, str]]) -> Axis:
    """Return a logarithmic axis over these ticks, without those that would stand on the toes of the last.

    Parameters
    ----------
    ticks : sequence of (value, text)
        Rising, positive.
    """
    low, high = ticks[0][0], ticks[-1][0]
    if low == high:
        return Axis(low / 2, high * 2, list(ticks), is_log=True)
    axis = Axis(low, high, list(ticks), is_log=True)
    kept = [tick for tick in ticks[:-1] if axis.at(tick[0]) <= 1 - _CLOSE]
    return Axis(low, high, [*kept, ticks[-1]], is_log=True)


def style_of(number: int) -> dict[str, int]:
    """Return colour and shape of a class or series; 48 are told apart, and neighbours by both.

    Examples
    --------
    >>> len({tuple(style_of(number).values()) for number in range(48)})
    48
    """
    return {"colour": number % N_COLOURS, "shape": (number + number // 24) % N_SHAPES}


def curves(series: Sequence[Sequence[Mapping[str, Any]]], *, baseline: float | None = None) -> dict[str, Any]:
    """Return the places of learning curves: accuracy by labels per class, the latter on a logarithmic axis.

    Parameters
    ----------
    series : sequence of sequence of mapping
        Points of each curve as ``results.json`` has them; those without a mean are left out.
    baseline : float, optional
        A level to draw across.
    """
    drawn = [[point for point in one if point["mean"] is not None] for one in series]
    sizes: dict[float, str] = {}
    for point in sorted((point for one in drawn for point in one), key=lambda point: point["n_labels"]):
        per_class = point["labels_per_class"]
        sizes.setdefault(point["n_labels"], "all" if per_class is None else str(per_class))
    x_axis = log_axis(list(sizes.items()))
    levels = [value for one in drawn for point in one for value in (point["mean"], *(point["ci95"] or ()))]
    y_axis = linear_axis(levels + ([] if baseline is None else [baseline]), most=1.0, least=0.0)
    inner_width = _CURVE["width"] - _CURVE["left"] - _CURVE["right"]
    inner_height = _CURVE["height"] - _CURVE["top"] - _CURVE["bottom"]

    def x_of(value: float) -> float:
        return round(_CURVE["left"] + inner_width * x_axis.at(value), 1)

    def y_of(value: float) -> float:
        return round(_CURVE["top"] + inner_height * (1 - y_axis.at(value)), 1)

    lines = []
    for number, one in enumerate(drawn):
        places = [{"x": x_of(point["n_labels"]), "y": y_of(point["mean"]), "point": point} for point in one]
        upper = [(x_of(p["n_labels"]), y_of((p["ci95"] or [p["mean"]] * 2)[1])) for p in one]
        lower = [(x_of(p["n_labels"]), y_of((p["ci95"] or [p["mean"]] * 2)[0])) for p in one]
        # All labels are no number of labels per class, so no slope leads there.
        n_joined = sum(point["labels_per_class"] is not None for point in one)
        lines.append(
            {
                **style_of(number),
                "places": places,
                "line": " ".join(f"{place['x']},{place['y']}" for place in places[:n_joined]),
                "band": " ".join(f"{x},{y}" for x, y in [*upper[:n_joined], *lower[:n_joined][::-1]]),
                "whiskers": [
                    (x, high, low) for (x, high), (_, low) in zip(upper, lower, strict=True) if high != low
                ],
            }
        )
    return {
        **_CURVE,
        "lines": lines,
        "x_ticks": [(x_of(value), text) for value, text in x_axis.ticks],
        "y_ticks": [(y_of(value), text) for value, text in y_axis.ticks],
        "baseline": None if baseline is None else y_of(baseline),
    }


def points(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """Return where points lie on a map, y upwards; a map of many is larger, so that marks of one size hide fewer.

    Parameters
    ----------
    x, y : sequence of float
    """
    is_dense = len(x) > _MANY
    size = {name: round(length * (1.5 if is_dense else 1)) for name, length in _MAP.items()}
    inner = (size["width"] - 2 * size["margin"], size["height"] - 2 * size["margin"])
    extents = [max(values) - min(values) for values in (x, y)]
    scale = min(
        (length / extent for length, extent in zip(inner, extents, strict=True) if extent > 0), default=1.0
    )
    middle = [(max(values) + min(values)) / 2 for values in (x, y)]
    return {
        **size,
        "is_dense": is_dense,
        "places": [
            (
                round(size["width"] / 2 + (one - middle[0]) * scale, 1),
                round(size["height"] / 2 - (other - middle[1]) * scale, 1),
            )
            for one, other in zip(x, y, strict=True)
        ],
    }
