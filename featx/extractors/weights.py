"""Weights on disk: read without running code from them, digested, and fitted into an architecture."""

import errno
import hashlib
import io
import os
import re
import stat
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from featx.errors import UsageError, WeightsError
from featx.extractors.spec import WEIGHTS_SUFFIXES

__all__ = [
    "checksum_tensors",
    "digest_file",
    "digest_tensors",
    "load_tensors",
    "parameters_on_meta",
    "read_tensors",
    "require_random",
    "seeded",
]

RANDOM_SEED = 0
"""Seed of ``weights=none``."""

_random_state = threading.RLock()


def digest_file(path: Path) -> str:
    """Return the SHA-256 (hexadecimal) of a weights file.

    Raises
    ------
    UsageError
        If its suffix is none of `WEIGHTS_SUFFIXES`.
    WeightsError
        If the file cannot be read.
    """
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 (hexadecimal) of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for part in _bytes_of(tensors):
        digest.update(part)
    return digest.hexdigest()


def checksum_tensors(tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of what `digest_tensors` digests, in a third of the time: it tells changes, and is no identity.

    The version counters of tensors would cost less, but miss the running statistics of a batch norm, fused optimisers,
    ``.data`` and arrays that share the memory.
    """
    checksum = 0
    for part in _bytes_of(tensors):
        checksum = zlib.crc32(part, checksum)
    return checksum


def read_tensors(path: Path, expected: str) -> dict[str, Tensor]:
    """Read a state dict from a ``.pth``, ``.pt`` or ``.safetensors`` file; nothing in the file is executed.

    The file is read once: what is compared with the digest is what is parsed, and no later change of it is seen.

    Parameters
    ----------
    path : Path
        A plain state dict, or a checkpoint that holds one under ``state_dict`` or ``model``; the ``module.`` in
        front of every name that DataParallel leaves is taken off.
    expected : str
        What `digest_file` said of the file.

    Returns
    -------
    dict of str to Tensor
        On the CPU; floating-point tensors as float32.

    Raises
    ------
    UsageError
        If the suffix is none of these.
    WeightsError
        If the file is missing, damaged, of another digest, or holds anything but tensors.
    """
    with _opened(path) as file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != expected:
        raise WeightsError(f"weights file '{path}' changed while featx was using it. Run the command again.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            loaded: Any = load(content)
        else:
            _refuse_compressed(content)
            with warnings.catch_warnings():  # of unusual pickles, before it refuses them
                warnings.simplefilter("ignore")
                loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors readers each leak their own kinds
        raise WeightsError(
            f"weights file '{path}' is not a readable state dict of tensors: {_reason(error, path, content)}. "
            "Save it with torch.save(model.state_dict(), ...) or as .safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise WeightsError(
            f"weights file '{path}': expected a state dict of tensors, got {type(loaded).__name__}. "
            "Save it with torch.save(model.state_dict(), ...)."
        )
    prefix = "module." if all(name.startswith("module.") for name in loaded) else ""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in loaded.items()
    }


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str, ignored: str) -> None:
    """Put tensors into a network in place; every name must fit, save those of the ignored modules.

    Parameters
    ----------
    module : nn.Module
        The architecture; parameters may be on the meta device.
    tensors : mapping of str to Tensor
        From `read_tensors`.
    source : str
        What the tensors are, for messages.
    ignored : str
        Regular expression of names that may be absent, superfluous or of another shape: the classifiers.

    Raises
    ------
    WeightsError
        If another name is missing, superfluous or of another shape.
    """
    # DenseNet's published files spell "denselayer1.norm.1"; the modules are called "denselayer1.norm1".
    renamed = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", name): value
        for name, value in tensors.items()
    }
    expected = module.state_dict()
    skip = re.compile(ignored)
    fitting = {
        name: value
        for name, value in renamed.items()
        if not skip.match(name) or (name in expected and expected[name].shape == value.shape)
    }
    problems = {}
    try:
        loaded = module.load_state_dict(_Versioned(fitting, module._version), strict=False, assign=True)
    except RuntimeError as error:
        problems["has other shapes:"] = [line.strip() for line in str(error).splitlines()[1:]]
    else:
        # Counters of training steps play no part in a frozen network, and some formats leave them out.
        problems["lacks"] = [
            name
            for name in loaded.missing_keys
            if not skip.match(name) and not name.endswith("num_batches_tracked")
        ]
        problems["also has"] = loaded.unexpected_keys
    for problem, names in problems.items():
        if names:
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            raise WeightsError(
                f"{source} does not fit the architecture: it {problem} {', '.join(names[:2])}{more}. "
                "Name the architecture these weights were saved from."
            )


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Build networks without memory or initial values for their parameters; to be filled, or only measured.

    Everything else a constructor computes stays real (RegNet reads numbers back from tensors while it is built),
    which is why this is not the meta device as a whole.
    """
    with _EmptyOnMeta():
        yield


@contextmanager
def seeded() -> Iterator[None]:
    """Draw the same random parameters every time, and leave the caller's random state alone.

    The state is the process's, and other code may draw from it meanwhile: see `require_random`.
    """
    with _random_state, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)  # torch.manual_seed would reset the GPUs' as well
        yield


def require_random(module: nn.Module, expected: str, *, name: str) -> None:
    """Refuse a network with other random parameters than were identified.

    Raises
    ------
    WeightsError
        If the digest of its tensors is not the expected one.
    """
    if digest_tensors(module.state_dict()) != expected:
        raise WeightsError(
            f"the random weights of {name} are not those that were identified: another thread drew from torch's "
            "generator meanwhile, or torch has changed. Stop drawing random numbers, and run it again."
        )


@contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    # The path may come from a model that somebody else made, and lead to any file, or to a FIFO, hence O_NONBLOCK.
    if path.suffix not in WEIGHTS_SUFFIXES:
        raise UsageError(
            f"weights file '{path}': expected a name ending in {', '.join(WEIGHTS_SUFFIXES)}, got "
            f"{path.suffix or 'no suffix'!r}. Save the state dict under such a name."
        )
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a regular file")
            yield file
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(
            f"weights file '{path}' cannot be read ({reason}). Check the path after 'weights='.",
            opening=error if isinstance(error, OSError) else None,
        ) from error


def _refuse_compressed(content: bytes) -> None:
    """Refuse an archive that may unpack to more than the file: torch.save stores plainly."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
        plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not plain or sum(member.file_size for member in members) > len(content):
            raise _CompressedError


def _reason(error: Exception, path: Path, content: bytes) -> str:
    """Say in a few words why a file could not be read; torch says it at length, and advises to run its code."""
    if not content:
        return "it is empty"
    if isinstance(error, _CompressedError):
        return "its content is compressed"
    if path.suffix == ".safetensors":
        return " ".join(str(error).split())[:200]
    code = re.search(r"unsupported global:? (?:GLOBAL )?([\w.]+)", str(error), re.IGNORECASE)
    if code is not None:
        return f"it holds a whole pickled model or other code ({code[1]})"
    if content.startswith((b"PK", b"\x80")):  # the zip of torch.save, and the pickle of its older versions
        return "it is cut short, damaged, or not written by torch.save"
    return f"it was not written by torch.save, and begins with {content[:16]!r}"


def _bytes_of(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        yield f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
        if tensor.is_quantized:
            yield _scale_of(tensor).encode()
            tensor = tensor.int_repr()
        yield tensor.reshape(-1).view(torch.uint8).numpy().data


def _scale_of(tensor: Tensor) -> str:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return f"{tensor.q_scale()}\0{tensor.q_zero_point()}\0"
    scales, zeros = tensor.q_per_channel_scales().tolist(), tensor.q_per_channel_zero_points().tolist()
    return f"{tensor.q_per_channel_axis()}\0{scales}\0{zeros}\0"


class _CompressedError(ValueError):
    """An archive that could unpack to more than the file."""


class _Versioned(dict[str, Tensor]):
    """A state dict that says its layout is the current one; some modules ask, and safetensors keeps no such note.

    Modules below the root are told nothing, and so rename what older layouts of theirs called otherwise.
    """

    def __init__(self, tensors: Mapping[str, Tensor], version: int) -> None:
        super().__init__(tensors)
        self._metadata = {"": {"version": version}}


class _EmptyOnMeta(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
