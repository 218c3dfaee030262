"""Taking turns at filling one extractor's folder, so that no vector is computed twice; correctness never needs it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["turn"]

_log = logging.getLogger(__name__)


@contextmanager
def turn(directory: Path | None) -> Iterator[None]:
    """Wait until no other process or thread that takes turns is filling `directory`.

    Parameters
    ----------
    directory : Path or None
        Folder of one extractor; None, and folders that cannot be written or locked, are not waited for: two
        writers at once are safe, they only do the same work twice.
    """
    descriptor = None if directory is None else _lock(directory)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which gives the lock back, as the end of the process would


def _lock(directory: Path) -> int | None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(directory / "turn", flags, 0o666)
    except OSError:
        return None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that fills %s", directory)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        return None
    except BaseException:  # interrupted while waiting
        os.close(descriptor)
        raise
    return descriptor
