"""What a model says of some samples, as a record; predicting is in `model.py`."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Predictions"]


@dataclass(frozen=True)
class Predictions:
    """What a model says of some samples.

    Attributes
    ----------
    ids : ndarray of shape (n_samples,)
        Ids as str.
    labels : ndarray of shape (n_samples,)
        Predicted classes or numbers.
    probabilities : ndarray of shape (n_samples, n_classes), float64, or None
        In the order of the model's classes; None where the head has none.
    truth : ndarray of shape (n_samples,) or None
        The samples' own labels.
    """

    ids: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    truth: np.ndarray | None
