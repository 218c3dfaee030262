"""The file format of a fitted model: a zip of plain JSON and a skops archive, never a pickle.

``model.json`` is a record of plain values, with the number of the format; ``head.skops`` is the fitted
scikit-learn estimator. Both lie in the zip uncompressed, so that what is read is no larger than the file.
"""

import contextlib
import io
import json
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from featx.errors import ModelError

__all__ = ["FORMAT", "TRUSTED_TYPES", "load_artefact", "save_artefact"]

_log = logging.getLogger(__name__)

FORMAT = 1

TRUSTED_TYPES = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.utils._bunch.Bunch",
)
"""What a head may hold beyond the types that skops trusts itself.

Optimisers of MLPs, trees of neighbours, and the dictionary in which a stack names its parts.
"""

_READING_FILES = "sklearn.feature_extraction."
"""Estimators that skops trusts and no head needs: among them are some that open the files their data name."""

_RECORD = "model.json"
_HEAD = "head.skops"
_NAMED = 3
_NEXT = "Name a file that 'featx fit --out' wrote."


def save_artefact(path: str | os.PathLike[str], *, record: Mapping[str, Any], head: Any) -> None:
    """Write a model to a file, whole or not at all; an older file of that name is replaced.

    Parameters
    ----------
    path : path-like
        The file, by custom ``*.featx``; its folder must exist.
    record : mapping
        JSON-able values that describe the model; ``"format"`` is added.
    head : estimator
        A fitted scikit-learn estimator.

    Raises
    ------
    ModelError
        When the head holds a type that would not be loaded again, the record is no JSON, or the file cannot
        be written.
    """
    target = Path(path)
    try:
        text = json.dumps({**record, "format": FORMAT}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{str(target)!r} cannot be saved: its record is not plain JSON: {error}."
        ) from error
    _publish(target, {_RECORD: text.encode(), _HEAD: _dumped(head, target)})


def load_artefact(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Any]:
    """Return the record and the head of a saved model; nothing is constructed before all of it is checked.

    Parameters
    ----------
    path : path-like
        A file that :func:`save_artefact` wrote, or claims to be one.

    Returns
    -------
    record : dict
        As it was saved, with ``"format"``.
    head : estimator
        The fitted scikit-learn estimator.

    Raises
    ------
    ModelError
        When the file is missing, damaged, of another format, or holds a type that is not trusted.
    """
    source = Path(path)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise ModelError(
            f"model {str(source)!r} cannot be read: {error.strerror}. {_NEXT}",
            opening=error,
        ) from error
    members = _stored_members(content, f"model {str(source)!r}")
    if members.keys() != {_RECORD, _HEAD}:
        names = sorted(members)
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ModelError(
            f"model {str(source)!r} must hold {_RECORD} and {_HEAD}; it holds"
            f" {', '.join(f'{name!r:.60}' for name in names[:_NAMED]) or 'nothing'}{more}. {_NEXT}"
        )
    return _parsed(members[_RECORD], source), _constructed(members[_HEAD], source)


def _dumped(head: Any, target: Path) -> bytes:
    import skops.io

    what = f"{str(target)!r} cannot be saved: its head"
    try:
        data: bytes = skops.io.dumps(head)
    except Exception as error:
        # skops lets the errors of whatever object it walks through pass.
        raise ModelError(f"{what} cannot be stored by skops: {type(error).__name__}: {error}") from error
    _check_head(
        data,
        what,
        "build the head from linear models, SVMs, MLPs, neighbours, naive Bayes and scikit-learn's transformers",
    )
    return data


def _publish(target: Path, members: Mapping[str, bytes]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise ModelError(
            f"{str(target)!r} cannot be written: {error.strerror}; name a file in a folder that exists and"
            " can be written to."
        ) from error


def _stored_members(content: bytes, what: str) -> dict[str, bytes]:
    """Return the members of a zip by name, or raise ModelError.

    None may be compressed, and together they may not be larger than the file (overlapping members could
    be): so no file is a bomb, and no limit is needed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if infos and min(info.header_offset for info in infos) > 0:
                # What is left of a file cut short: the zip within it, found by its own directory.
                raise zipfile.BadZipFile("it does not begin with its first member")
            if len(set(names)) < len(names):
                raise ModelError(f"{what} holds a member twice. It was not saved by featx.")
            for info in infos:
                if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                    raise ModelError(
                        f"{what} holds {info.filename!r} compressed; featx saves without compression and"
                        " reads nothing else."
                    )
            if (declared := sum(info.file_size for info in infos)) > len(content):
                raise ModelError(f"{what} declares {declared:,} bytes within a file of {len(content):,}.")
            return {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        reason = "it is no zip archive" if not zipfile.is_zipfile(io.BytesIO(content)) else str(error)
        raise ModelError(f"{what} is damaged or was not saved by featx: {reason}. {_NEXT}") from error


def _parsed(text: bytes, source: Path) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model {str(source)!r} is damaged: {_RECORD} is not JSON: {error}") from error
    number = record.get("format") if isinstance(record, dict) else None
    if type(number) is not int:
        raise ModelError(f"model {str(source)!r} is damaged: {_RECORD} has no format number.")
    if number != FORMAT:
        raise ModelError(
            f"model {str(source)!r} has format {number}; this featx reads {FORMAT}. Upgrade featx."
        )
    assert isinstance(record, dict)
    return record


def _constructed(data: bytes, source: Path) -> Any:
    import skops.io

    what = f"{_HEAD} of model {str(source)!r}"
    _check_head(data, what, "it was made or changed by something other than featx: do not use it")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            head = skops.io.loads(data, trusted=list(TRUSTED_TYPES))
            predicts = hasattr(head, "predict")
    except Exception as error:
        # A crafted file can make skops fail with any error at all.
        raise ModelError(f"{what} is damaged: {type(error).__name__}: {error}") from error
    for warning in caught[:1]:  # such as of another version of scikit-learn, which every part of a head gives
        _log.warning("%s: %s", what, warning.message)
    if not predicts:
        raise ModelError(f"{what} holds {type(head).__name__}, which predicts nothing.")
    return head


def _check_head(data: bytes, what: str, advice: str) -> None:
    """Raise ModelError unless these bytes are a skops archive of trusted types; construct nothing."""
    import skops.io

    members = _stored_members(data, what)
    if any(member.startswith(b"PK") for member in members.values()):
        # How skops stores a sparse matrix: compressed, so a possible bomb, and no head of ours has one.
        raise ModelError(f"{what} holds an archive within an archive, as of a sparse matrix; {advice}.")
    try:
        untrusted = set(skops.io.get_untrusted_types(data=data)) - set(TRUSTED_TYPES)
        modules = set(_modules(json.loads(members["schema.json"])))
        untrusted |= {name for name in modules if name.startswith(_READING_FILES)}
    except Exception as error:
        raise ModelError(f"{what} is damaged: {type(error).__name__}: {error}") from error
    if untrusted:
        raise ModelError(
            f"{what} holds {', '.join(sorted(untrusted))}, which featx does not trust; {advice}."
        )


def _modules(schema: Any) -> Iterator[str]:
    """Give the module of every type that a skops schema names."""
    pending = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(module := value.get("__module__"), str):
                yield module
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
