"""Ridge regression on standardised features, for numeric labels."""

from typing import Any

from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["build", "grid"]


def build(*, alpha: float = 1000.0) -> Pipeline:
    """Return the unfitted head; it is solved in closed form, so it takes no ``random_state``.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, Ridge.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> build(alpha=1.0).fit(X, y).predict(X[:2]).shape
    (2,)
    """
    return make_pipeline(StandardScaler(), Ridge(alpha=alpha))


def grid() -> dict[str, list[Any]]:
    """Return the search space: alpha at every decade from 1e7 down to 1e-1.

    The squared singular values that alpha is added to grow with rows times features; below 1e-1 single
    precision no longer tells it from zero.
    """
    return {"ridge__alpha": [10.0**exponent for exponent in range(7, -2, -1)]}
