"""Logistic regression on standardised features: the standard probe of frozen features, with probabilities."""

from typing import Any

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["build", "grid"]


def build(
    *,
    C: float = 0.01,
    class_weight: dict[Any, float] | str | None = None,
    max_iter: int = 1000,
    random_state: int | None = 0,
) -> Pipeline:
    """Return the unfitted head.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty. On standardised features of a backbone the best one is usually
        far below scikit-learn's default of 1.
    class_weight : dict, "balanced" or None
        Weight of every class; ``"balanced"`` weighs it by the inverse of its frequency in the training rows.
    max_iter : int
        Most iterations of the L-BFGS solver.
    random_state : int or None
        Passed on; L-BFGS itself draws no random number.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, LogisticRegression.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build().fit(X, y).predict_proba(X[:1]).shape
    (1, 3)
    """
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=C, class_weight=class_weight, max_iter=max_iter, random_state=random_state),
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space: C at every decade from 1e-6 to 1e5.

    The best C differs by five decades between data sets, hence the width (Ericsson et al. 2021,
    arXiv:2011.13377, search the same range).
    """
    return {"logisticregression__C": [10.0**exponent for exponent in range(-6, 6)]}
