"""The predictions of ridge regression, or classification, for many alpha from one Gram matrix."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight

__all__ = ["ridge_path"]


def ridge_path(
    final: Any, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
) -> Callable[[float], NDArray[Any]]:
    """Return the predictions of a :class:`~sklearn.linear_model.Ridge` or RidgeClassifier by its alpha.

    What scikit-learn's Cholesky solver does, in the same precision, with the products that do not depend on
    alpha computed once: those of the features where rows are more, those of the rows where features are [1]_.
    An eigendecomposition would serve any number of alphas, but costs more than the solving of twenty.

    Parameters
    ----------
    final : sklearn.linear_model.Ridge or sklearn.linear_model.RidgeClassifier
        Unfitted, with an intercept and the default solver.
    train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
        Standardised rows to fit on and to predict.
    y : array of shape (n_train,)

    Returns
    -------
    callable
        From alpha to the predictions, an array of shape (n_validation,).

    References
    ----------
    .. [1] Saunders, C., Gammerman, A., Vovk, V. (1998). Ridge regression learning algorithm in dual variables.
       ICML.
    """
    binarizer = LabelBinarizer(neg_label=-1) if type(final) is RidgeClassifier else None
    targets = y[:, None] if binarizer is None else binarizer.fit_transform(y)
    weights = compute_sample_weight(None if binarizer is None else final.class_weight or None, y)
    targets, weights = targets.astype(train.dtype), weights.astype(train.dtype)
    # The intercept is not penalised: it is what centring, with the weights, takes away.
    offset, target_offset = (np.average(values, axis=0, weights=weights) for values in (train, targets))
    root = np.sqrt(weights)[:, None]
    rows, goals = (train - offset) * root, (targets - target_offset) * root
    wide = rows.shape[1] > rows.shape[0]
    products = rows @ rows.T if wide else rows.T @ rows
    right = goals if wide else rows.T @ goals

    def predict(alpha: float) -> NDArray[Any]:
        system = products.copy()
        system.flat[:: len(system) + 1] += alpha
        solution = solve(system, right, assume_a="pos", overwrite_a=True)
        coefficients = rows.T @ solution if wide else solution
        answers: NDArray[Any] = validation @ coefficients + (target_offset - offset @ coefficients)
        if binarizer is None:
            return answers.ravel()
        two = answers.shape[1] == 1
        number = (answers.ravel() > 0).astype(np.int64) if two else answers.argmax(axis=1)
        predicted: NDArray[Any] = binarizer.classes_[number]
        return predicted

    return predict
