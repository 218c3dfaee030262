"""A perceptron with one hidden layer on standardised features: probabilities, but no class weights."""

from typing import Any

from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["build", "grid"]


def build(
    *,
    alpha: float = 1.0,
    hidden_layer_sizes: tuple[int, ...] = (128,),
    max_iter: int = 1000,
    random_state: int | None = 0,
) -> Pipeline:
    """Return the unfitted head.

    Early stopping is off: it would hold out a tenth of what are often few rows.

    Parameters
    ----------
    alpha : float
        Strength of the L2 penalty.
    hidden_layer_sizes : tuple of int
        Units of every hidden layer.
    max_iter : int
        Most epochs; training ends before when the loss no longer falls.
    random_state : int or None
        Seed of the initial weights and of the batches.

    Returns
    -------
    sklearn.pipeline.Pipeline
        StandardScaler, MLPClassifier.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> build(hidden_layer_sizes=(8,)).fit(X, y).predict_proba(X[:1]).shape
    (1, 3)
    """
    return make_pipeline(
        StandardScaler(),
        MLPClassifier(hidden_layer_sizes, alpha=alpha, max_iter=max_iter, random_state=random_state),
    )


def grid() -> dict[str, list[Any]]:
    """Return the search space: alpha at every decade from 100 down to 0.1.

    Below that range the penalty no longer shows; above it the network shrinks to the class frequencies.
    """
    return {"mlpclassifier__alpha": [100.0, 10.0, 1.0, 0.1]}
