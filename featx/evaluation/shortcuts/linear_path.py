"""The predictions of scikit-learn's own iterative linear classifiers for many C, from rows prepared once."""

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.svm import LinearSVC

from featx.evaluation.shortcuts.row_space import into_row_space, is_worth_turning

__all__ = ["linear_path"]


def linear_path(
    final: Any, train: NDArray[Any], y: NDArray[Any], validation: NDArray[Any]
) -> Callable[[float], NDArray[Any]]:
    """Return the predictions of a LogisticRegression or a LinearSVC, both with an L2 penalty, by C.

    What they share is the standardised rows; for a LinearSVC, whose solver for wide matrices uses nothing but
    dot products, turned into the space that they span.

    Each fit starts from nothing, as a plain one does. To start from the solution for the next smaller C would
    end elsewhere: where the penalty is weak a solver stops on its way, so what it finds depends on where it began.

    Parameters
    ----------
    final : sklearn.linear_model.LogisticRegression or sklearn.svm.LinearSVC
        Unfitted.
    train, validation : float array of shape (n_train, n_features), (n_validation, n_features)
        Standardised rows to fit on and to predict.
    y : array of shape (n_train,)

    Returns
    -------
    callable
        From C to the predictions, an array of shape (n_validation,).
    """
    fixed: dict[str, Any] = {}
    if type(final) is LinearSVC and is_worth_turning(train):
        fixed["dual"] = True  # what "auto" means where rows are fewer than features
        train, basis = into_row_space(train)
        validation = validation @ basis

    def predict(C: float) -> NDArray[Any]:
        machine = clone(final).set_params(C=C, **fixed)
        predicted: NDArray[Any] = machine.fit(train, y).predict(validation)
        return predicted

    return predict
