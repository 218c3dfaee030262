"""Numbers and names of a run as people read them; it judges none of them."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "interval_text",
    "is_share",
    "metric_name",
    "score_text",
    "seconds_text",
    "short",
    "shown_interval",
    "shown_value",
    "signed",
]

_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "F1 (macro)",
    "precision_macro": "precision (macro)",
    "recall_macro": "recall (macro)",
    "roc_auc_ovr": "ROC AUC (one against the rest)",
    "neg_log_loss": "log loss",
    "r2": "R\u00b2",
    "neg_root_mean_squared_error": "RMSE",
    "neg_mean_absolute_error": "MAE",
}
_FREE_SCALE = ("neg_root_mean_squared_error", "neg_mean_absolute_error")
_BEYOND_ONE = ("r2", "neg_log_loss", *_FREE_SCALE)
_NARROW = 0.02


def metric_name(metric: str) -> str:
    """Return what a reader calls a metric that scikit-learn calls ``neg_root_mean_squared_error``."""
    return _NAMES.get(metric, metric.removeprefix("neg_").replace("_", " "))


def is_share(metric: str) -> bool:
    """Return whether a metric lies between 0 and 1."""
    return metric not in _BEYOND_ONE


def shown_value(metric: str, value: float) -> float:
    """Return the value under that name: errors are positive, smaller is better."""
    return -value if metric.startswith("neg_") else value


def shown_interval(metric: str, interval: Sequence[float] | None) -> tuple[float, float] | None:
    """Return both ends under that name, the lower first."""
    if interval is None:
        return None
    low, high = interval
    return (-high, -low) if metric.startswith("neg_") else (low, high)


def score_text(metric: str, value: float | None, *, digits: int = 3) -> str:
    """Return a score as text.

    Examples
    --------
    >>> score_text("accuracy", 0.8366), score_text("neg_root_mean_squared_error", -1234.56)
    ('0.837', '1235')
    """
    if value is None:
        return "\u2013"
    shown = shown_value(metric, value)
    return f"{shown:#.4g}".rstrip(".") if metric in _FREE_SCALE else f"{shown:.{digits}f}"


def interval_text(metric: str, scores: Mapping[str, Any]) -> str:
    """Return a mean with its 95% interval, to as many digits as the interval supports.

    Examples
    --------
    >>> interval_text("accuracy", {"mean": 0.8366, "ci95": [0.801, 0.878]})
    '0.84 (0.80 to 0.88)'
    >>> interval_text("accuracy", {"mean": 0.8366, "ci95": [0.833, 0.840]})
    '0.837 (0.833 to 0.840)'
    """
    interval = scores["ci95"]
    if interval is None:
        return score_text(metric, scores["mean"])
    digits = 2 if interval[1] - interval[0] >= _NARROW else 3
    low, high = sorted(interval, key=lambda end: shown_value(metric, end))
    return (
        f"{score_text(metric, scores['mean'], digits=digits)}"
        f" ({score_text(metric, low, digits=digits)} to {score_text(metric, high, digits=digits)})"
    )


def seconds_text(seconds: float) -> str:
    """Return a time with its unit, to two digits or so.

    Examples
    --------
    >>> [seconds_text(value) for value in (0.00006, 0.00351, 0.0427, 0.97, 3.14, 61.8, 4000.0)]
    ['0.1 ms', '3.5 ms', '43 ms', '0.97 s', '3.1 s', '62 s', '4,000 s']
    """
    if seconds < 0.1:
        return f"{max(1000 * seconds, 0.1):.{1 if seconds < 0.00995 else 0}f} ms"
    return f"{seconds:,.{2 if seconds < 0.995 else 1 if seconds < 9.95 else 0}f} s"


def short(name: str, *, most: int = 48) -> str:
    """Return a name of at most so many characters: the middle of a longer one is left out.

    Examples
    --------
    >>> short("a" * 30 + "b" * 30, most=11)
    'aaaaa\u2026bbbbb'
    """
    if len(name) <= most:
        return name
    half = (most - 1) // 2
    return f"{name[:half]}\u2026{name[len(name) - half :]}"


def signed(metric: str, value: float) -> str:
    """Return a difference with its sign; greater is better, for that of an error is turned round already.

    The end of an interval that no two shares can differ by is shown as the largest that they can.

    Examples
    --------
    >>> signed("accuracy", 0.01), signed("accuracy", -0.0004), signed("neg_mean_absolute_error", 1234.5)
    ('+0.010', '0.000', '+1234')
    >>> signed("accuracy", 1.643), signed("r2", 1.643)
    ('+1.000', '+1.643')
    """
    if is_share(metric):
        value = min(1.0, max(-1.0, value))
    text = f"{value:+#.4g}".rstrip(".") if metric in _FREE_SCALE else f"{value:+.3f}"
    return text.replace("-", "\u2212") if text.strip("+-0.") else text[1:]
