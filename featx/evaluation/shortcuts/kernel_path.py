"""The predictions of an RBF support vector machine for many C from one kernel matrix; it fits no other kernel."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

__all__ = ["MOST_ROWS", "kernel_path"]

# Their kernel takes 512 MiB in every worker; libsvm's own cache, which takes its place, is 200 MB by default.
MOST_ROWS = 8192


def kernel_path(
    final: Any, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
) -> Callable[[float], NDArray[Any]]:
    """Return the predictions of an RBF :class:`~sklearn.svm.SVC` with ``gamma="scale"`` by its C.

    The kernel does not depend on C. It is computed as libsvm does it, in float64 by the same formula, but by one
    matrix product, where libsvm takes a dot product at a time, and takes many again for every pair of classes.

    Parameters
    ----------
    final : sklearn.svm.SVC
        Unfitted.
    train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
        Standardised rows to fit on and to predict.
    y : array of shape (n_train,)

    Returns
    -------
    callable
        From C to the predictions, an array of shape (n_validation,).
    """
    rows, asked = train.astype(np.float64, order="C"), validation.astype(np.float64, order="C")
    variance = rows.var()
    gamma = 1.0 / (rows.shape[1] * variance) if variance != 0 else 1.0
    kernel, asked_kernel = _rbf(rows, rows, gamma), _rbf(asked, rows, gamma)

    def predict(C: float) -> NDArray[Any]:
        machine = clone(final).set_params(C=C, kernel="precomputed")
        predicted: NDArray[Any] = machine.fit(kernel, y).predict(asked_kernel)
        return predicted

    return predict


def _rbf(left: NDArray[np.float64], right: NDArray[np.float64], gamma: float) -> NDArray[np.float64]:
    """Return ``exp(-gamma |a - b|^2)`` of shape (n_left, n_right), in one array's memory."""
    values = left @ right.T
    values *= -2.0
    values += np.einsum("ij,ij->i", left, left)[:, None]
    values += np.einsum("ij,ij->i", right, right)
    values *= -gamma
    return np.exp(values, out=values)
