"""The errors a user can cause; each is a FeatxError and also the matching builtin."""

from typing import Any

__all__ = [
    "CacheError",
    "DecodeError",
    "ExtractionError",
    "FeatxError",
    "MissingDependencyError",
    "ModelError",
    "SampleIOError",
    "UsageError",
    "WeightsError",
]


class FeatxError(Exception):
    """Base of all errors that featx raises on purpose.

    The message is one line: what happened, what was expected, what was got, and what to do next.

    Parameters
    ----------
    message : str
    opening : OSError, optional
        What the system said of a path that the user gave: where no file is there it is wrong use.

    Attributes
    ----------
    exit_code : int
        What the command line exits with: 1 for failed work, 2 for wrong use.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, opening: OSError | None = None) -> None:
        # What it quotes, a name or another package's error, may have several.
        super().__init__(" ".join(line.strip() for line in message.splitlines()))
        if isinstance(opening, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            self.exit_code = 2


class UsageError(FeatxError, ValueError):
    """An argument, option, name or input layout that featx cannot work with."""

    exit_code = 2


class MissingDependencyError(FeatxError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 2


class DecodeError(FeatxError, ValueError):
    """The bytes of one sample are not a picture that the decode policy accepts.

    A property of the content: the same bytes fail again, so the failure may be remembered.
    """


class SampleIOError(FeatxError, OSError):
    """One sample could not be read (missing, unreadable, not a regular file); never remembered."""


class CacheError(FeatxError, OSError):
    """A cache, or a file in it, is damaged, foreign, of another schema, or cannot be written."""


class WeightsError(FeatxError, OSError):
    """A backbone's weights are not there, cannot be read or fetched, or do not fit the architecture."""


class ExtractionError(FeatxError, RuntimeError):
    """A run could not do its work: a non-finite feature, a stalled stage, too many failed samples.

    Attributes
    ----------
    run : featx.engine.Run or None
        What the run found and did, where it came to its end (too many failed samples).
    """

    def __init__(self, message: str, *, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class ModelError(FeatxError, ValueError):
    """A fitted artefact is not there, damaged, untrusted, or does not match what it is applied to."""
