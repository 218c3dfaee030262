"""The contenders of a run in order, with the places of their intervals on one axis; the templates draw them."""

from collections.abc import Mapping, Sequence
from typing import Any

from featx.report.charts import linear_axis
from featx.report.wording import (
    interval_text,
    is_share,
    metric_name,
    score_text,
    seconds_text,
    short,
    shown_interval,
    shown_value,
    signed,
)
from featx.wording import contender_name

__all__ = [
    "baseline_name",
    "chance_of",
    "comparison_board",
    "few_shot_boards",
    "fusion_gains",
    "is_real",
    "who",
]

_LEVEL = 0.05  # of featx.evaluation.significance, which a page does not load: that takes a second
_STYLES = {
    "the only one": "best",
    "best": "best",
    "as good as the best": "equal",
    "worse": "worse",
    "baseline": "baseline",
}
_KEY = {"best": "\u25c6", "as good as the best": "\u25cb", "worse": "\u25cf", "not told": "\u25cb"}
_BASELINES = {
    "most frequent class": "always answering the most frequent class",
    "mean": "always answering the mean",
}
_GUESSING: dict[str, Any] = {
    "extractor": None,
    "label": "guessing",
    "head": None,
    "n_features": 0,
    "verdict": "baseline",
    "difference": None,
    "difference_ci95": None,
    "ci95": None,
}


def baseline_name(results: Mapping[str, Any]) -> str:
    """Return what knowing no feature does, in words."""
    return _BASELINES.get(results["baseline"], str(results["baseline"]))


def chance_of(results: Mapping[str, Any]) -> float:
    """Return the accuracy of guessing in episodes."""
    protocol = results["protocol"]
    return float(protocol["chance"] if "chance" in protocol else 1 / protocol["ways"])


def is_real(gain: Mapping[str, Any]) -> bool:
    """Return whether a gain is told from chance."""
    return gain["p_value"] is not None and gain["p_value"] < _LEVEL


def who(one: Mapping[str, Any]) -> str:
    """Return what to call a contender in a sentence, its names shortened."""
    shown = {name: None if one[name] is None else short(one[name]) for name in ("label", "head")}
    return contender_name({**one, **shown})


def comparison_board(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaderboard of a comparison, the baseline last."""
    metric = results["protocol"]["metric"]
    rows = [
        {
            **_row(one, metric, one["metrics"][metric]),
            "label": one["label"] or baseline_name(results),
            "head": one["head"] if one["label"] else None,
            "seconds": None
            if one["label"] is None
            else (seconds_text(one["fit_seconds"]), seconds_text(one["predict_seconds"])),
        }
        for one in [*results["results"][1:], results["results"][0]]
    ]
    return {
        **_board(rows, metric),
        "anchor": "leaderboard",
        "title": "Leaderboard",
        "test": "a permutation test that swaps two contenders\u2019 answers to the same test samples, "
        "corrected for all pairs of contenders"
        if results["protocol"]["split"]
        else "the corrected resampled t-test on the same folds, corrected for all comparisons with the best",
        "has_seconds": True,
        "metrics": _all_metrics(results),
    }


def few_shot_boards(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a leaderboard for each number of shots."""
    boards: list[dict[str, Any]] = []
    for shots in results["protocol"]["shots"]:
        ranked = sorted(
            (one for one in results["results"] if one["shots"] == shots), key=lambda one: -one["mean"]
        )
        # Runs of before verdicts were recorded have none, and none is made up here.
        unsaid: dict[str, Any] = {"verdict": None, "p_value": None, "fusion": None}
        guessing = {**unsaid, **_GUESSING, "mean": chance_of(results)}
        rows = [{**_row({**unsaid, **one}, "accuracy", one), "shots": shots} for one in [*ranked, guessing]]
        boards.append(
            {
                **_board(rows, "accuracy"),
                "anchor": f"shots-{shots}",
                "title": f"{results['protocol']['ways']}-way {shots}-shot",
                # Told once.
                "test": None
                if boards
                else "the paired t-test on the same episodes, corrected for all pairs of contenders",
                "has_seconds": False,
                "metrics": None,
            }
        )
    return boards


def fusion_gains(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what each fusion gains over its best part, with the places of the intervals around zero."""
    gains = results["fusion_gains"]
    if not gains:
        return None
    metric = results["protocol"]["metric"]
    labels = {(one["extractor"], one["head"]): one["label"] for one in results["results"]}
    ends = [end for one in gains for end in (one["ci95"] or [one["gain"]])]
    bounds = {"least": -1.0, "most": 1.0} if is_share(metric) else {}
    axis = linear_axis([0.0, *ends], n_ticks=4, **bounds)
    rows = []
    for one in gains:
        low, high = one["ci95"] or (None, None)
        rows.append(
            {
                "label": labels.get((one["extractor"], one["head"]), one["extractor"]),
                "part": labels.get((one["best_part"], one["head"]), one["best_part"]),
                "head": one["head"],
                "fusion": one["fusion"],
                "gain": one["gain"],
                "low": low,
                "high": high,
                "p_value": one["p_value"],
                "style": "equal" if not is_real(one) else "best" if one["gain"] > 0 else "worse",
                "verdict": "not told from chance"
                if not is_real(one)
                else "gains"
                if one["gain"] > 0
                else "loses",
                "text": signed(metric, one["gain"]),
                "interval": None
                if low is None or high is None
                else f"{signed(metric, low)} to {signed(metric, high)}",
                "at": {
                    name: None if value is None else axis.percent(value)
                    for name, value in (("mean", one["gain"]), ("low", low), ("high", high))
                },
            }
        )
    return {
        "rows": rows,
        "metric": metric_name(metric),
        "ticks": [(axis.percent(value), text) for value, text in axis.ticks],
        "zero": axis.percent(0.0),
    }


def _row(one: Mapping[str, Any], metric: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    away, style = one["difference_ci95"], _STYLES.get(one["verdict"], "untold")
    has_difference = style != "best" and (one["difference"] or away is not None)
    interval = interval_text(metric, scores).partition(" (")[2].rstrip(")")
    return {
        "extractor": one["extractor"],
        "label": one["label"],
        "head": one["head"],
        "fusion": one["fusion"],
        "n_features": one["n_features"],
        "verdict": one["verdict"],
        "style": style,
        "scores": scores,
        "mean": None if scores["mean"] is None else shown_value(metric, scores["mean"]),
        "interval": shown_interval(metric, scores["ci95"]),
        "text": score_text(metric, scores["mean"]),
        # Of a baseline that never varies the interval is a point, but for rounding.
        "interval_text": interval if len(set(interval.split(" to "))) == 2 else None,
        "difference": signed(metric, one["difference"]) if has_difference else None,
        "difference_interval": f"{signed(metric, away[0])} to {signed(metric, away[1])}"
        if away and has_difference
        else None,
        "p_value": one["p_value"],
    }


def _board(rows: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Place the intervals; the axis is that of the contenders, and a baseline far off is put at its end."""
    contenders = [row for row in rows if row["style"] != "baseline" and row["mean"] is not None]
    values = [value for row in contenders for value in (row["mean"], *(row["interval"] or ()))]
    bounds = {"least": 0.0, "most": 1.0} if is_share(metric) else {}
    axis = linear_axis(values, n_ticks=3, **bounds)
    for row in rows:
        ends = row["interval"] or (None, None)
        places = zip(("mean", "low", "high"), (row["mean"], *ends), strict=True)
        row["at"] = {name: None if value is None else axis.percent(value) for name, value in places}
        row["beyond"] = (
            None
            if row["mean"] is None or axis.low <= row["mean"] <= axis.high
            else "left"
            if row["mean"] < axis.low
            else "right"
        )
    verdicts = {row["verdict"] for row in rows}
    return {
        "metric": metric_name(metric),
        "rows": rows,
        "key": [(_STYLES.get(one, "untold"), mark, one) for one, mark in _KEY.items() if one in verdicts],
        "has_p_values": any(row["p_value"] is not None for row in rows),
        "has_beyond": any(row["beyond"] for row in rows),
        "ticks": [(axis.percent(value), text) for value, text in axis.ticks],
        "smaller_is_better": metric.startswith("neg_"),
    }


def _all_metrics(results: Mapping[str, Any]) -> dict[str, Any] | None:
    names: Sequence[str] = list(dict.fromkeys(name for one in results["results"] for name in one["metrics"]))
    if len(names) < 2:
        return None
    return {
        "names": [metric_name(name) for name in names],
        "rows": [
            {
                "who": who(one),
                "cells": [
                    _cell(name, one["metrics"][name]) if name in one["metrics"] else "\u2013"
                    for name in names
                ],
            }
            for one in [*results["results"][1:], results["results"][0]]
        ],
    }


def _cell(metric: str, scores: Mapping[str, Any]) -> str:
    spread = "" if scores["std"] is None or len(scores["folds"]) < 2 else f" \u00b1 {scores['std']:.3g}"
    return score_text(metric, scores["mean"]) + spread
