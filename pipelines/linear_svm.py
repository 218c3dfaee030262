"""A linear support vector machine on standardised features, one class against the rest; no probabilities."""

from typing import Any

from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

__all__ = ["build", "grid"]


def build(
    *,
    C: float = 0.001,
    class_weight: dict[Any, float] | str | None = None,
    max_iter: int = 10_000,
    random_state: int | None = 0,
) -> Pipeline:
    """Return the unfitted head.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty.
    class_weight : dict, "balanced" or None
        Weight of every class; ``"balanced"`` weighs it by the inverse of its frequency in the training rows.
    max_iter : int
        Most passes of the solver over the data.
    random_state : int or None
        Seed of the solver's shuffling.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, LinearSVC.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build().fit(X, y).decision_function(X[:1]).shape
    (1, 3)
    """
    return make_pipeline(
        StandardScaler(),
        LinearSVC(C=C, class_weight=class_weight, max_iter=max_iter, random_state=random_state),
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space: C at every decade from 1e-6 to 1e2.

    The range lies lower than that of the RBF kernel: the squared length of a standardised row is about its
    number of features, a thousand or more for a backbone, and C counts in units of its inverse.
    """
    return {"linearsvc__C": [10.0**exponent for exponent in range(-6, 3)]}
