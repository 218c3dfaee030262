"""A support vector machine with an RBF kernel on standardised features.

It has no ``predict_proba``: scikit-learn gives a support vector machine probabilities by a second, slow
cross-validation (``SVC(probability=True)``, deprecated) whose argmax may differ from ``predict``. Where
probabilities are wanted, ``logreg`` has them, or wrap this head in
:class:`~sklearn.calibration.CalibratedClassifierCV` in a recipe of your own.
"""

from typing import Any

from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

__all__ = ["build", "grid"]


def build(*, C: float = 10.0, class_weight: dict[Any, float] | str | None = None) -> Pipeline:
    """Return the unfitted head; it is deterministic, so it takes no ``random_state``.

    Parameters
    ----------
    C : float
        Inverse strength of the penalty.
    class_weight : dict, "balanced" or None
        Weight of every class; ``"balanced"`` weighs it by the inverse of its frequency in the training rows.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, SVC with ``gamma="scale"``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build().fit(X, y).predict(X[:1])
    array([0])
    """
    return make_pipeline(StandardScaler(), SVC(C=C, kernel="rbf", gamma="scale", class_weight=class_weight))


def grid() -> dict[str, list[Any]]:
    """Return the search space: C at every decade from 1e-2 to 1e4.

    ``gamma="scale"`` divides by the number of features, so that one range of C serves any width.
    """
    return {"svc__C": [10.0**exponent for exponent in range(-2, 5)]}
