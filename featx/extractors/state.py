"""Every tensor a network holds, registered or not; what it computes with them is its code, which a name stands for."""

import functools
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from featx.errors import UsageError

__all__ = ["state_of"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.qscheme)
"""Types whose texts are the same in every process and tell any two values apart."""

_CODE = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_NOT_STATE = ("logging", "torch.fx", "torch._dynamo")
"""Packages whose objects lead anywhere and hold nothing that a network computes with."""


def state_of(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Return everything the outputs of a network depend on beyond its code and its plain numbers.

    Parameters
    ----------
    module : nn.Module
    name : str
        For messages.

    Returns
    -------
    dict of str to Tensor
        Parameters and buffers under their names, also those the state dict leaves out; and if there are any, further
        entries of the state dict (packed weights, scales, extra state), and tensors and arrays that are kept in
        attributes, in lists or in objects without being registered.

    Raises
    ------
    UsageError
        If a parameter is not there yet, or something has no stable identity.
    """
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    lazy = next((path for path, tensor in state.items() if is_lazy(tensor)), None)
    if lazy is not None:
        raise UsageError(f"module '{name}': {lazy} has no shape yet. Run one batch through the module first.")
    try:
        seen: dict[int, Any] = {id(tensor): tensor for tensor in state.values()}
        further = module.state_dict(keep_vars=True)
        state.update(_found(further, "state", exact=True, seen=seen))
        state.update(_found(module, "module", exact=False, seen=seen))
    except _NoIdentityError as error:
        raise UsageError(
            f"module '{name}': {error}, which has no stable identity. Give the network itself, with what it computes "
            "with in parameters and buffers (register_buffer)."
        ) from None
    return state


class _NoIdentityError(Exception):
    pass


def _found(value: Any, path: str, *, exact: bool, seen: dict[int, Any]) -> Iterator[tuple[str, Tensor]]:
    """Walk through what `copy.deepcopy` would copy; `exact` also takes plain values, and lets nothing pass unread."""
    if isinstance(value, _PLAIN) and type(value) in _PLAIN:
        if exact:
            yield path, _bytes(repr(value).encode())
        return
    if id(value) in seen:
        return
    seen[id(value)] = value  # also keeps it: the id of what is gone may be another's
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        yield f"{path}:{value.dtype.str}{value.shape}", _bytes(value.tobytes())
    elif isinstance(value, torch.jit.ScriptModule):
        raise _NoIdentityError(f"'{path}' is TorchScript")
    elif isinstance(value, torch.ScriptObject):  # the packed weights of quantised layers
        try:
            packed = value.__getstate__()
        except (RuntimeError, AttributeError, TypeError):
            raise _NoIdentityError(f"'{path}' is a {type(value).__name__}") from None
        yield from _found(packed, path, exact=True, seen=seen)
    else:
        for step, part in _parts(value, path, exact=exact):
            yield from _found(part, path + step, exact=exact, seen=seen)


def _parts(value: Any, path: str, *, exact: bool) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        if exact and not all(type(key) in _PLAIN for key in value):
            raise _NoIdentityError(f"'{path}' has keys of other types than text and numbers")
        return [
            (f"[{key!r}]" if type(key) in _PLAIN else f"[{index}]", part)
            for index, (key, part) in enumerate(value.items())
        ]
    if isinstance(value, list | tuple | deque):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, np.ndarray):
        return [("", value.tolist())]
    if exact:
        raise _NoIdentityError(f"'{path}' is a {type(value).__name__}")
    if isinstance(value, functools.partial):
        return [(".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [(".self", value.__self__)]
    if isinstance(value, _CODE) or type(value).__module__.startswith(_NOT_STATE):
        return []
    # What weight_norm, spectral_norm and pruning work out from registered tensors before every pass says nothing new.
    registered = value._parameters if isinstance(value, nn.Module) else {}
    return [
        (f".{name}", part)
        for name, part in getattr(value, "__dict__", {}).items()
        if f"{name}_orig" not in registered and f"{name}_g" not in registered
    ]


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())
