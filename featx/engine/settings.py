"""How a run goes about its work, checked once."""

import difflib
from dataclasses import dataclass, fields
from typing import Literal, TypedDict, get_args

from featx.engine.hardware import PrecisionChoice, RuntimeChoice, device_names, n_cores
from featx.errors import UsageError

__all__ = ["OnError", "Settings", "SettingsKeywords"]

OnError = Literal["raise", "record"]


@dataclass(frozen=True)
class Settings:
    """How a run goes about its work; none of it changes what a vector is, but for precision.

    Attributes
    ----------
    device : str
        ``auto``, ``cpu``, ``mps``, ``cuda``, ``cuda:N``, or several as ``cuda:0,cuda:1``, with a process for each.
    runtime : {"auto", "torch", "compile", "openvino"}
    precision : {"auto", "float32", "float16", "bfloat16"}
    batch_size : int or None
        Images in a batch; None for 32, and 128 on CUDA. OpenVINO computes it in parts, and by default its batches are
        larger where several networks run.
    workers : int or None
        Threads that read and decode, for each device; None for one per core in all.
    on_error : {"raise", "record"}
        Whether the first sample without a vector ends the run, or is recorded and left out.
    max_error_rate : float
        Share of failed samples, 0 to 1, above which a recording run fails at its end: where there are 100 samples or
        more, where all failed, and where it is 0.
    stall_seconds : float
        How long reading and decoding one sample, one forward pass, or writing one shard may take.
    """

    device: str = "auto"
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"
    batch_size: int | None = None
    workers: int | None = None
    on_error: OnError = "raise"
    max_error_rate: float = 0.01
    stall_seconds: float = 300.0

    @property
    def n_workers(self) -> int:
        """How many threads read and decode."""
        return self.workers or n_cores()

    @classmethod
    def of(cls, keywords: "SettingsKeywords") -> "Settings":
        """Read the keywords of a call.

        Raises
        ------
        UsageError
            For a keyword that is none of the fields, or a value that is none of its choices.
        """
        known = [field.name for field in fields(cls)]
        for name in keywords:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]!r}?" if close else f"Options: {', '.join(known)}."
                raise UsageError(f"there is no option {name!r}. {hint}")
        return cls(**keywords)

    def __post_init__(self) -> None:
        device_names(self.device)  # refuses what is none
        for name, choices in (
            ("runtime", get_args(RuntimeChoice)),
            ("precision", get_args(PrecisionChoice)),
            ("on_error", get_args(OnError)),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        for name, most in (("batch_size", 65536), ("workers", 1024)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and 1 <= value <= most):
                raise UsageError(f"{name}: expected a whole number from 1 to {most}, got {value!r}.")
        if not 0 <= self.max_error_rate <= 1:
            raise UsageError(f"max_error_rate: expected a share from 0 to 1, got {self.max_error_rate!r}.")
        if not self.stall_seconds > 0:
            raise UsageError(f"stall_seconds: expected a positive number, got {self.stall_seconds!r}.")


class SettingsKeywords(TypedDict, total=False):
    """The fields of `Settings` as keywords."""

    device: str
    runtime: RuntimeChoice
    precision: PrecisionChoice
    batch_size: int | None
    workers: int | None
    on_error: OnError
    max_error_rate: float
    stall_seconds: float
