"""Bringing one file from the network: whole, checked and in its place, or not at all."""

import hashlib
import http.client
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from featx.errors import WeightsError

__all__ = ["download"]

_ATTEMPTS = 3
_PAUSE_SECONDS = 1.0
_SILENT_SECONDS = 30.0
"""How long a server may send nothing; how long a download takes in all is a matter of its size."""
_CHUNK_BYTES = 1 << 20


def download(
    url: str, path: Path, *, sha256: str, progress: Callable[[int, int], None] | None = None
) -> None:
    """Fetch a file to `path`, which appears there only when it is complete and checked.

    A connection that breaks, falls silent or delivers other bytes than promised is tried three times in all; what a
    server refuses (404) is not asked for again.

    Parameters
    ----------
    url : str
        An address that `urllib.request` opens; proxies are taken from the environment.
    path : Path
        Its folder is made.
    sha256 : str
        How the content's SHA-256 (hexadecimal) begins; empty where nobody has said.
    progress : callable, optional
        Called with the bytes that have come and those there will be, 0 where the server does not say.

    Raises
    ------
    WeightsError
        If the file could not be had or put in its place; nothing is left behind.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _download_once(url, path, sha256, progress)
        except (OSError, http.client.HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or not isinstance(error, _PASSING) or attempt == _ATTEMPTS:
                raise WeightsError(f"{_reason(error)}, at attempt {attempt} of {_ATTEMPTS}") from None
        time.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError  # the last attempt returns or raises


class _WrongContentError(OSError):
    """What came is not what was promised."""


_PASSING = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    _WrongContentError,
)
"""Errors that another attempt may not meet; a full disk is none of them."""


def _download_once(url: str, path: Path, sha256: str, progress: Callable[[int, int], None] | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with urllib.request.urlopen(url, timeout=_SILENT_SECONDS) as response:
        try:
            with part.open("xb") as file:
                _copy(response, file, sha256, progress)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:  # also when interrupted
            part.unlink(missing_ok=True)


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    sha256: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = response.length or 0
    digest, done = hashlib.sha256(), 0
    while chunk := response.read(_CHUNK_BYTES):
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if done < total:  # read() with a size ends early without a word
        raise _WrongContentError(f"it broke off after {done} of {total} bytes")
    if not digest.hexdigest().startswith(sha256):
        raise _WrongContentError(
            f"expected a SHA-256 that begins {sha256}, got {digest.hexdigest()[: len(sha256)]}"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"the server was silent for {_SILENT_SECONDS:g} s"
    return str(reason) or type(reason).__name__
