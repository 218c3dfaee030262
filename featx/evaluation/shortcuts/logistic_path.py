"""The predictions of logistic regression for many C, the steps of L-BFGS taken in the space that the rows span."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.utils.class_weight import compute_sample_weight

from featx.evaluation.shortcuts.linear_path import linear_path
from featx.evaluation.shortcuts.row_space import into_row_space, is_worth_turning

__all__ = ["logistic_path"]


def logistic_path(
    final: Any, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
) -> Callable[[float], NDArray[Any]]:
    """Return the predictions of a :class:`~sklearn.linear_model.LogisticRegression` by its C.

    Where rows are few, it is L-BFGS on the rows turned into the space that they span. That takes the steps that it
    takes on the features, a dot product being the same, and each costs less. Only the rule by which scikit-learn
    stops, that no entry of the gradient exceeds ``tol``, depends on the coordinates, so it is applied in those of
    the features. It matters: where the penalty is weak the steps end far from the minimum, and predictions
    change with every one.

    Parameters
    ----------
    final : sklearn.linear_model.LogisticRegression
        Unfitted, with the L-BFGS solver, an L2 penalty and an intercept.
    train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
        Standardised rows to fit on and to predict.
    y : array of shape (n_train,)

    Returns
    -------
    callable
        From C to the predictions, an array of shape (n_validation,).
    """
    if not is_worth_turning(train):
        return linear_path(final, train, y, validation)
    dtype = train.dtype
    rows, basis = into_row_space(train)
    asked = validation @ basis
    classes, number = np.unique(y, return_inverse=True)
    two = len(classes) == 2
    # As scikit-learn has it, two classes have one row of coefficients, the second's; more have one each.
    target = (number[:, None] == np.arange(len(classes))[1 if two else 0 :]).astype(dtype)
    losses = _binomial if two else _multinomial
    weights = compute_sample_weight(final.class_weight, y).astype(dtype)
    total = weights.sum()
    shape = target.shape[1], rows.shape[1] + 1

    def loss(flat: NDArray[np.float64], penalty: float) -> tuple[float, NDArray[np.float64]]:
        """Return the mean loss of all rows with the penalty, and its gradient; the intercept comes last."""
        coefficients = flat.reshape(shape)
        slopes = coefficients[:, :-1]
        # In single precision the steps end in its noise, so it has to be the same: each row's loss is computed in
        # double precision and kept in that of the features, in which the sum is taken.
        each, change = losses(_scores(rows, coefficients).astype(np.float64), target)
        each, change = each.astype(dtype), change.astype(dtype) * (weights / total)[:, None]
        gradient = np.empty(shape)
        gradient[:, :-1] = change.T @ rows + penalty * slopes
        gradient[:, -1] = change.sum(axis=0)
        value = float((weights * each).sum() / total) + 0.5 * penalty * float((slopes**2).sum())
        return value, gradient.ravel()

    def predict(C: float) -> NDArray[Any]:
        minimum = _minimum(
            lambda flat: loss(flat, 1.0 / (C * float(total))),
            lambda gradient: _is_flat(gradient.reshape(shape), basis, final.tol),
            shape[0] * shape[1],
            max_iter=final.max_iter,
        )
        scores = _scores(asked, minimum.reshape(shape))
        answer = (scores[:, 0] > 0).astype(np.int64) if two else scores.argmax(axis=1)
        predicted: NDArray[Any] = classes[answer]
        return predicted

    return predict


def _scores(rows: NDArray[Any], coefficients: NDArray[np.float64]) -> NDArray[Any]:
    values = coefficients.astype(rows.dtype)
    scores: NDArray[Any] = rows @ values[:, :-1].T + values[:, -1]
    return scores


def _binomial(scores: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the loss of every row, and its derivative by the scores."""
    return (np.logaddexp(0, scores) - target * scores)[:, 0], expit(scores) - target


def _multinomial(scores: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the loss of every row, and its derivative by the scores."""
    scores = scores - scores.max(axis=1, keepdims=True)
    odds = np.exp(scores)
    sums = odds.sum(axis=1, keepdims=True)
    return np.log(sums[:, 0]) - (target * scores).sum(axis=1), odds / sums - target


def _is_flat(gradient: NDArray[np.float64], basis: NDArray[Any], tol: float) -> bool:
    """Tell whether no entry of the gradient exceeds the tolerance in the coordinates of the features."""
    slopes = gradient[:, :-1]
    length = np.sqrt((slopes**2).sum(axis=1)).max()
    # The largest of d entries is at most the length and at least the length over sqrt(d): mostly that is enough.
    if np.abs(gradient[:, -1]).max() > tol or length > tol * np.sqrt(len(basis)):
        return False
    return bool(length <= tol or np.abs(basis @ slopes.T.astype(basis.dtype)).max() <= tol)


def _minimum(
    loss: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    is_flat: Callable[[NDArray[np.float64]], bool],
    size: int,
    *,
    max_iter: int,
) -> NDArray[np.float64]:
    """Return where L-BFGS, with scikit-learn's settings, starting from zeros, comes to a stop.

    Raises
    ------
    ValueError
        Where it does not; a plain fit then warns in scikit-learn's words.
    """
    seen: dict[str, NDArray[np.float64]] = {}

    def watched(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, seen["gradient"] = loss(point)
        seen["point"] = point.copy()
        return value, seen["gradient"]

    def stop(point: NDArray[np.float64]) -> None:
        # A step ends where the loss was last asked for.
        if not np.array_equal(point, seen["point"]):
            watched(point)
        if is_flat(seen["gradient"]):
            seen["end"] = point.copy()
            raise StopIteration

    start = np.zeros(size)
    if is_flat(watched(start)[1]):
        return start
    # No tolerance of its own for the gradient: `stop` judges that.
    settings = {"maxiter": max_iter, "maxls": 50, "gtol": 0.0, "ftol": 64 * np.finfo(float).eps}
    result = minimize(watched, start, jac=True, method="L-BFGS-B", callback=stop, options=settings)
    if "end" in seen:
        return seen["end"]
    if not result.success:
        raise ValueError(f"L-BFGS did not converge: {result.message}")
    end: NDArray[np.float64] = result.x
    return end
