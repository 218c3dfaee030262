"""Arguments and options that several commands share, each written once."""

import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from featx.errors import UsageError

__all__ = [
    "COMMON",
    "CacheDirectory",
    "Data",
    "Extractors",
    "Json",
    "Quiet",
    "Verbose",
    "cache_directory",
    "check_out",
    "existing_cache",
    "named_cache",
    "one_extractor",
    "processes",
]

COMMON = "Common to all commands"

_FORMATS = {
    *(".csv", ".featx", ".h5", ".joblib", ".json", ".npy", ".npz", ".onnx", ".parquet"),
    *(".pickle", ".pkl", ".pt", ".pth"),
}

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of class folders, a flat folder, a CSV, TSV or Parquet manifest (columns path, label, group, "
        "split), a text file of paths, or one image.",
        show_default=False,
    ),
]
Extractors = Annotated[
    list[str],
    typer.Option(
        "-x",
        "--extractor",
        metavar="SPEC",
        help="NAME[:key=value]..., fused with '+': resnet50, mobilenet_v2:weights=FILE.pth, resnet50:layer=layer4+hog. "
        "Keys: weights, preset, layer, pool, size, pixels.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=COMMON)
]
Verbose = Annotated[
    int,
    typer.Option("-v", "--verbose", count=True, help="Say more.", rich_help_panel=COMMON, show_default=False),
]
Quiet = Annotated[
    bool,
    typer.Option(
        "-q", "--quiet", help="Only results, the notes on them, and errors.", rich_help_panel=COMMON
    ),
]
CacheDirectory = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Where vectors are kept. Default: $FEATX_CACHE, else ./cache.",
        rich_help_panel=COMMON,
        show_default=False,
    ),
]


def named_cache(given: Path | None) -> Path:
    """Return the cache folder, whatever is there: the option's, else ``$FEATX_CACHE``, else ``./cache``."""
    return given if given is not None else Path(os.environ.get("FEATX_CACHE") or "cache")


def cache_directory(given: Path | None) -> Path:
    """Return the cache folder, as `named_cache` does, to keep vectors in.

    Raises
    ------
    UsageError
        If it is a file, or in one.
    """
    directory = named_cache(given)
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"cache '{directory}': expected a folder, but '{existing}' is a file. Name another.")
    return directory


def existing_cache(given: Path | None) -> Path:
    """Return the cache folder, as `cache_directory` does, to read from.

    Raises
    ------
    UsageError
        If it was named and is not there; the default one may not be there yet, and is empty then.
    """
    directory = cache_directory(given)
    if not directory.exists() and (given is not None or os.environ.get("FEATX_CACHE")):
        raise UsageError(
            f"there is no cache '{directory}'. Check --cache or $FEATX_CACHE; featx extract makes a cache."
        )
    return directory


def check_out(out: Path | None, *, begins: bytes, suffix: str) -> None:
    """Refuse a file to write that cannot be, or that would take the place of another kind, before any work is done.

    Parameters
    ----------
    out : Path or None
        None writes nothing, and passes.
    begins : bytes
        How files of this kind begin: one that is there and begins otherwise is somebody's input.
    suffix : str
        What their names end in; one that ends like a file of another format would mislead.

    Raises
    ------
    UsageError
    """
    if out is None:
        return
    if out.exists() and not out.is_file():
        what = "it is a folder. Name a file in it" if out.is_dir() else "it is no regular file. Name another"
        raise UsageError(f"cannot write '{out}': {what}.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"cannot write '{out}': there is no folder '{folder}'. Make it first.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            found = b""
        if out.exists():
            with out.open("rb") as file:
                found = file.read(len(begins))
    except OSError as error:
        raise UsageError(
            f"cannot write '{out}': {error.strerror}. Name a file in a folder that can be written to."
        ) from error
    if found and found != begins:
        raise UsageError(
            f"'{out}' is there, and is no file that this command wrote. Name another, or remove it."
        )
    if out.suffix.lower() in _FORMATS - {suffix}:
        raise UsageError(
            f"cannot write '{out}': expected a name that ends in {suffix}, got {out.suffix}, which is another format. "
            f"Name it '{out.with_suffix(suffix).name}'."
        )


def processes(jobs: int) -> int:
    """Return how many processes ``--jobs`` means: at most one for each core, more would only take memory.

    Raises
    ------
    UsageError
        If it is neither -1 nor a positive number.
    """
    if jobs != -1 and jobs < 1:
        raise UsageError(f"--jobs: expected -1 for one per core, or a number from 1, got {jobs}.")
    return jobs if jobs == -1 else min(jobs, os.cpu_count() or 1)


def one_extractor(texts: list[str]) -> str:
    """Return the only ``-x``.

    Raises
    ------
    UsageError
        If there are several: whether to fuse or to compare them is not for us to guess.
    """
    if len(texts) != 1:
        raise UsageError(
            f"expected one -x here, got {len(texts)}. To fuse extractors write -x '{'+'.join(texts)}'."
        )
    return texts[0]
