"""How far a run is, as it is told while it is under way."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a run is: in samples, in fits where heads are searched, in MiB where weights are downloaded.

    Attributes
    ----------
    done, total, failed : int
        A total of 0 is not known.
    work : {"extracting", "fitting", "downloading"}
    """

    done: int
    total: int
    failed: int
    work: Literal["extracting", "fitting", "downloading"] = "extracting"
