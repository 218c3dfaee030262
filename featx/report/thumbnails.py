"""Small pictures of samples as data: addresses, made under the decode policy; what cannot be shown says why."""

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from featx.errors import FeatxError
from featx.samples import SampleTable, decode, key_of, pillow_warnings_ignored
from featx.wording import counted

__all__ = ["LARGE_PIXELS", "MOST_SMALL", "SMALL_PIXELS", "Thumbnail", "lost_note", "make_thumbnails"]

LARGE_PIXELS = 160
"""The longer side of a picture that a section shows."""

SMALL_PIXELS = 112
"""The longer side of one that only the map shows."""

MOST_SMALL = 500
"""The most pictures that only the map shows."""

_MOST_BYTES = 2_000_000
_LARGEST_FILE_BYTES = 256 * 2**20
_THREADS = 4
_AT_ONCE = 32
_GONE = "its file is gone"
_CHANGED = "its file has changed since the run"


@dataclass(frozen=True)
class Thumbnail:
    """A picture, or why there is none.

    Attributes
    ----------
    address : str or None
        ``data:image/webp;base64,...``
    problem : str or None
    """

    address: str | None
    problem: str | None

    @property
    def is_lost(self) -> bool:
        """Whether the file that the run read is no longer there."""
        return self.problem in (_GONE, _CHANGED)


def make_thumbnails(
    samples: Mapping[str, Mapping[str, Any]], *, named: Sequence[int], mapped: Sequence[int]
) -> dict[int, Thumbnail]:
    """Return a picture for every row that a section names, and for some of those on the map.

    The bytes of all together are bounded by 2 MB, those of sections come first. Of the map's at most
    500 are shown, spread evenly over its rows: reading thousands of photos would take minutes.

    Parameters
    ----------
    samples : mapping of str to mapping
        ``path`` of each row, absolute, or None for a picture in memory; and ``key``, which runs of before it was
        recorded lack: a file that has another is not the one that the run read, and is not shown.
    named, mapped : sequence of int
        Rows.

    Returns
    -------
    dict of int to Thumbnail
        Rows that were left out are not in it.
    """
    large = list(dict.fromkeys(named))
    others = [row for row in dict.fromkeys(mapped) if row not in set(large)]
    if len(others) > MOST_SMALL:
        others = [others[at * len(others) // MOST_SMALL] for at in range(MOST_SMALL)]
    wanted = [(row, LARGE_PIXELS) for row in large] + [(row, SMALL_PIXELS) for row in others]
    made: dict[int, Thumbnail] = {}
    left = _MOST_BYTES
    for row, thumbnail in _made(wanted, samples):
        size = len(thumbnail.address or "")
        if size > left:
            break
        left -= size
        made[row] = thumbnail
    return made


def lost_note(made: Mapping[int, Thumbnail], *, root: str | None) -> str | None:
    """Return how many of the pictures are no longer those that the run read; None if all are."""
    n_lost = sum(one.is_lost for one in made.values())
    if not n_lost:
        return None
    place = f" below '{root}'" if root else ""
    verb = "is gone or has" if n_lost == 1 else "are gone or have"
    pictures = counted(len(made), "picture")
    return f"{n_lost} of {pictures}{place} {verb} changed since the run; the page shows them by name only"


def _made(
    wanted: Sequence[tuple[int, int]], samples: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[int, Thumbnail]]:
    with pillow_warnings_ignored(), ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            records = [samples[str(row)] for row, _ in some]
            yield from zip(
                [row for row, _ in some],
                pool.map(_thumbnail, records, [side for _, side in some]),
                strict=True,
            )


def _thumbnail(sample: Mapping[str, Any], side: int) -> Thumbnail:
    path, key = sample["path"], sample.get("key")
    if path is None:
        return Thumbnail(None, "a picture in memory")
    try:
        encoded = os.fsencode(path)
        if os.stat(encoded).st_size > _LARGEST_FILE_BYTES:
            return Thumbnail(None, f"larger than {_LARGEST_FILE_BYTES // 2**20} MiB")
        table = SampleTable(id_column=pa.array([encoded], pa.large_binary()))
        raw = table.read(0)
        if key is not None and key_of(raw).hex() != key:
            return Thumbnail(None, _CHANGED)
        image = decode(raw)
        image.thumbnail((side, side), reducing_gap=2.0)
        file = io.BytesIO()
        image.save(file, "WEBP", quality=62, method=4)
    except (OSError, ValueError, FeatxError) as error:
        return Thumbnail(None, _reason(error))
    return Thumbnail(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", None)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return _GONE
    if isinstance(error, FeatxError):
        return str(error)
    return (
        (error.strerror or str(error)).lower()
        if isinstance(error, OSError)
        else f"its path is no path: {error}"
    )
