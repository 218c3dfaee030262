"""The predictions of an iterative linear classifier for many C, on rows turned into the space they span."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr
from sklearn.base import clone
from sklearn.svm import LinearSVC

__all__ = ["linear_path"]


def linear_path(
    final: Any, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
) -> Callable[[float], NDArray[Any]]:
    """Return the predictions of a LogisticRegression (L-BFGS) or a LinearSVC, both with an L2 penalty, by C.

    The coefficients that an L2 penalty allows lie in the space that the training rows span. Where that has
    far fewer dimensions than there are features, the rows are turned into it [1]_: dot products, hence the penalty
    and all that the solver sees, stay as they are, and every iteration gets cheaper.

    Each fit starts from nothing, as a plain one does. To start from the solution for the next smaller C would
    save little more, and end elsewhere: where the penalty is weak the solver stops on its way, so that what it
    finds depends on where it began.

    Parameters
    ----------
    final : sklearn.linear_model.LogisticRegression or sklearn.svm.LinearSVC
        Unfitted.
    train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
        Standardised rows to fit on and to predict.
    y : array of shape (n_train,)

    References
    ----------
    .. [1] Hastie, T., Tibshirani, R. (2004). Efficient quadratic regularization for expression arrays.
       Biostatistics 5(3), section 3.
    """
    fixed: dict[str, Any] = {}
    n_rows, n_features = train.shape
    # To turn costs two passes of n_rows^2 * n_features; nearer to square it saves less than that.
    if 2 * n_rows <= n_features:
        directions, triangle = qr(train.T, mode="economic", check_finite=False)
        train, validation = np.ascontiguousarray(triangle.T), validation @ directions
        if type(final) is LinearSVC:
            fixed["dual"] = True  # what "auto" means where rows are fewer than features

    def predict(C: float) -> NDArray[Any]:
        machine = clone(final).set_params(C=C, **fixed)
        predicted: NDArray[Any] = machine.fit(train, y).predict(validation)
        return predicted

    return predict
