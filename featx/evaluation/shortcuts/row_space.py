"""Turning rows into the space that they span, in which a linear model with an L2 penalty is fitted just as well."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

__all__ = ["into_row_space", "is_worth_turning"]


def is_worth_turning(rows: NDArray[Any]) -> bool:
    """Tell whether rows span so few dimensions that turning them costs less than it saves.

    It costs about two products of all rows with one another; nearer to square it saves less than that.
    """
    return 2 * len(rows) <= len(rows.T)


def into_row_space(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the rows along an orthonormal basis of the space that they span, and that basis.

    Coefficients that an L2 penalty is put on have no part outside that space, for there it would cost and gain
    nothing [1]_. Lengths and dot products are kept, hence the penalty, and every step of a solver that uses
    nothing else.

    Parameters
    ----------
    rows : float array of shape (n, n_features), n <= n_features

    Returns
    -------
    turned : array of shape (n, n), of the dtype of rows
    basis : array of shape (n_features, n), of the dtype of rows
        ``other @ basis`` turns other rows likewise.

    References
    ----------
    .. [1] Hastie, T., Tibshirani, R. (2004). Efficient quadratic regularization for expression arrays.
       Biostatistics 5(3), 329-340.

    Examples
    --------
    >>> rows = np.array([[3.0, 0, 4, 0], [0, 0, 0, 2]])
    >>> turned, basis = into_row_space(rows)
    >>> bool(np.allclose(turned @ turned.T, rows @ rows.T)), turned.shape, basis.shape
    (True, (2, 2), (4, 2))
    """
    basis, triangle = qr(rows.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(triangle.T), basis
