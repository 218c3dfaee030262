"""Support vector regression with an RBF kernel on standardised features and labels, for numeric labels."""

from typing import Any

from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

__all__ = ["build", "grid"]


def build(*, C: float = 1.0, epsilon: float = 0.1) -> Pipeline:
    """Return the unfitted head; it is deterministic, so it takes no ``random_state``.

    The labels are standardised too, and predictions scaled back: C and epsilon count in units of the label.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty.
    epsilon : float
        Half the width of the tube within which an error costs nothing, in standard deviations of the label.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, TransformedTargetRegressor of SVR with ``gamma="scale"``.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> build().fit(X, y).predict(X[:2]).shape
    (2,)
    """
    regressor = SVR(C=C, epsilon=epsilon, kernel="rbf", gamma="scale")
    return make_pipeline(
        StandardScaler(), TransformedTargetRegressor(regressor, transformer=StandardScaler())
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space: C at every decade from 1e-2 to 1e4."""
    return {"transformedtargetregressor__regressor__C": [10.0**exponent for exponent in range(-2, 5)]}
