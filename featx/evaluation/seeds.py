"""The seed of a run, checked or made up, and those of its repeats; nothing is drawn with them here."""

import numpy as np

from featx.errors import UsageError

__all__ = ["checked_seed", "repeat_seed"]


def checked_seed(random_state: int | None) -> int:
    """Return the seed itself, or a fresh one for None.

    Raises
    ------
    UsageError
        When it is no whole number from 0 to 4,294,967,295, which is what scikit-learn takes.

    Examples
    --------
    >>> checked_seed(7)
    7
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if not isinstance(random_state, int | np.integer) or not 0 <= random_state < 2**32:
        raise UsageError(
            f"random_state: expected a whole number from 0 to {2**32 - 1}, or None for a fresh one; got"
            f" {random_state!r}. Name another."
        )
    return int(random_state)


def repeat_seed(random_state: int, repeat: int) -> int:
    """Return the seed of a repeat: the first one's is the run's own, so that it is what a run without repeats has.

    Those of the others are their own: runs with seeds 0 and 1 share no repeat.
    """
    if repeat == 0:
        return random_state
    return int(np.random.SeedSequence([random_state, repeat]).generate_state(1)[0])
