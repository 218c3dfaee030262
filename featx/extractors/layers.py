"""Cuts a network at named layers and pools what comes out into one vector; knows nothing of weights or pictures."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from featx.errors import UsageError

__all__ = ["Layer", "Layout", "Pool", "Tapped", "plan_layers", "tap"]

Pool = Literal["avg", "max", "cls", "gem", "flatten"]
Layout = Literal["vector", "maps", "maps_last", "tokens"]

_GEM_POWER = 3.0
_BATCH = 2
"""Images that a network is measured with: more than one, to tell the axis of the images from others of length 1."""


@dataclass(frozen=True)
class Layer:
    """One output of a network and how it becomes a vector.

    Attributes
    ----------
    name : str
        What identifies it: a node name, ``input:fc`` for what enters the module ``fc``, ``output`` for the whole.
    node : str or None
        Graph node to cut at; None where the network's own output is taken.
    layout : {"vector", "maps", "maps_last", "tokens"}
        ``(n, d)``, ``(n, c, h, w)``, ``(n, h, w, c)`` or ``(n, t, d)``.
    pool : str
        A `Pool`, or ``none`` for a vector.
    prefix_tokens : int
        How many tokens precede those of the patches, and are left out by every pool but ``cls``, which takes the first.
    n_features : int
        Length of the vector.
    """

    name: str
    node: str | None
    layout: Layout
    pool: str
    prefix_tokens: int
    n_features: int


class Tapped(nn.Module):
    """A network that answers with its pooled layers side by side: images in, ``(n, n_features)`` out."""

    def __init__(self, body: nn.Module, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.body = body
        self.layers = tuple(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (n, n_features) for normalised images of shape (n, 3, h, w)."""
        outputs = self.body(images)
        if self.layers[0].node is None:
            return _pooled(outputs, self.layers[0])
        return torch.cat([_pooled(outputs[layer.node], layer) for layer in self.layers], dim=1)


def plan_layers(
    module: nn.Module,
    *,
    name: str,
    layers: Sequence[str],
    pool: str | None,
    crop: int,
    classifier: str | None = None,
    class_token: bool = False,
    prefix_tokens: Callable[[str], int] = lambda _: 0,
    channels_last: Callable[[str], bool] = lambda _: False,
) -> tuple[Layer, ...]:
    """Find where to cut, what shape comes out there, and how it is pooled.

    Parameters
    ----------
    module : nn.Module
        The network, in eval mode; parameters may be on the meta device, nothing is computed then.
    name : str
        For messages.
    layers : sequence of str
        Node or module names; empty for the default, the input of `classifier`.
    pool : str or None
        A `Pool`; None for ``avg`` on maps and the class token (or ``avg``) on tokens.
    crop : int
        Side of the input in pixels.
    classifier : str or None
        Name of the classifying module; None to take the network's own output by default.
    class_token : bool
        Whether the first of the prefix tokens is a class token.
    prefix_tokens : callable
        How many tokens precede those of the patches in the output of the node of that name.
    channels_last : callable
        Whether the node of that name gives maps of shape (n, h, w, c).

    Returns
    -------
    tuple of Layer

    Raises
    ------
    UsageError
        For an unknown layer or pool, an input size the network does not take, or an output that is no tensor.
    """
    if pool is not None and pool not in get_args(Pool):
        raise UsageError(f"{name}: expected pool to be one of {', '.join(get_args(Pool))}, got {pool!r}.")
    nodes = _nodes(module, name, layers, classifier)
    body = module if nodes == [None] else _cut(module, name, [node for node in nodes if node])
    parameter = next(module.parameters(), None)
    device = parameter.device if parameter is not None else torch.device("cpu")
    images = torch.zeros(_BATCH, 3, crop, crop, device=device)
    try:
        with torch.inference_mode():
            outputs = body(images)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{name}: does not take images of {crop} pixels ({reason}). Choose another size."
        ) from error
    names = list(layers) or [f"input:{classifier}" if classifier else "output"]

    def advise() -> str:
        found = _last_poolable(
            module, images, classifier, like=lambda node: (prefix_tokens(node), channels_last(node))
        )
        already = "It is the class token already. " if class_token and not layers else ""
        other = f"layer={found}" if found else "one before the network's own pooling"
        return f"{already}Leave 'pool' out, or name a layer to pool: {other}."

    return tuple(
        _layer(
            layer,
            node,
            outputs[node] if node else outputs,
            pool,
            prefix_tokens=prefix_tokens(node) if node else 0,
            class_token=class_token,
            channels_last=node is not None and channels_last(node),
            advise=advise,
        )
        for layer, node in zip(names, nodes, strict=True)
    )


def tap(module: nn.Module, layers: Sequence[Layer]) -> Tapped:
    """Cut `module` at planned layers; what lies behind the last of them is dropped.

    Parameters
    ----------
    module : nn.Module
        The network with its weights, in eval mode.
    layers : sequence of Layer
        From `plan_layers` on the same architecture.

    Returns
    -------
    Tapped
    """
    nodes = [layer.node for layer in layers if layer.node is not None]
    return Tapped(_cut(module, "", nodes) if nodes else module, layers)


def _nodes(module: nn.Module, name: str, layers: Sequence[str], classifier: str | None) -> list[str | None]:
    if not layers:
        return [_input_of(module, classifier) if classifier else None]
    from torchvision.models.feature_extraction import get_graph_node_names

    try:
        _, known = get_graph_node_names(module, suppress_diff_warning=True)
    except Exception as error:  # a tracer runs the network's own code, which may raise anything
        raise UsageError(
            f"{name}: its layers cannot be named because tracing fails ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}). Leave 'layer' out."
        ) from error
    for layer in layers:
        if not any(node == layer or node.startswith(f"{layer}.") for node in known):
            raise UsageError(
                f"{name}: has no layer {layer!r}. {_suggestion(module, layer, known, classifier)}"
            )
    return list(layers)


def _suggestion(module: nn.Module, layer: str, known: Sequence[str], classifier: str | None) -> str:
    modules = {node.rsplit(".", depth)[0] for node in known for depth in range(node.count(".") + 1)}
    # Less alike, and "layer4" would mean "classifier" where an architecture has no such name.
    close = difflib.get_close_matches(layer, modules, n=4, cutoff=0.7)
    if close:
        return f"Did you mean {', '.join(close)}?"
    parts = ", ".join(child for child, _ in module.named_children()) or "no parts"
    stages = dict.fromkeys(
        ".".join(node.split(".")[:2]) for node in known if node.split(".")[0] != classifier
    )
    where = f"before {classifier} come" if classifier else "the last are"
    return f"It consists of {parts}; {where} {', '.join([*stages][-6:])}."


def _input_of(module: nn.Module, classifier: str) -> str:
    from torch.fx import Graph, Node
    from torchvision.models.feature_extraction import NodePathTracer

    tracer = NodePathTracer()
    graph: Graph = tracer.trace(module)
    for node in graph.nodes:
        path = tracer.node_to_qualname.get(node, "")
        if path == classifier or path.startswith(f"{classifier}."):
            sources = [argument for argument in node.args if isinstance(argument, Node)]
            if sources:  # parameters read inside the classifier have no input
                return str(tracer.node_to_qualname[sources[0]])
    raise AssertionError(f"no node of {classifier!r} in the graph")


def _cut(module: nn.Module, name: str, nodes: Sequence[str]) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor

    try:
        cut: nn.Module = create_feature_extractor(
            module, {node: node for node in nodes}, suppress_diff_warning=True
        )
    except ValueError as error:
        raise UsageError(f"{name}: cannot be cut at {', '.join(nodes)}: {error}") from error
    return cut


def _last_poolable(
    module: nn.Module, images: Tensor, classifier: str | None, *, like: Callable[[str], object]
) -> str | None:
    """Return the shortest name of the last maps or tokens before the classifier; None where none can be found.

    The shorter name must be taken `like` the node's own.
    """
    from torchvision.models.feature_extraction import get_graph_node_names

    try:
        _, known = get_graph_node_names(module, suppress_diff_warning=True)
        with torch.inference_mode():
            outputs = _cut(module, "", known)(images)
    except Exception:  # as in tracing; this is only for a hint
        return None
    before = [node for node in known[1:] if node.split(".")[0] != classifier]
    for node in reversed(before):
        output = outputs[node]
        if isinstance(output, Tensor) and output.dim() in (3, 4) and output.shape[2:].numel() > 1:
            names: list[str] = [node.rsplit(".", depth)[0] for depth in range(node.count("."), -1, -1)]
            return next(
                name
                for name in names
                if like(name) == like(node)
                and [one for one in known if f"{one}.".startswith(f"{name}.")][-1] == node
            )
    return None


def _layer(
    layer: str,
    node: str | None,
    output: object,
    pool: str | None,
    *,
    prefix_tokens: int,
    class_token: bool,
    channels_last: bool,
    advise: Callable[[], str],
) -> Layer:
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4) or output.shape[0] != _BATCH:
        got = (
            f"a tensor of shape {tuple(output.shape)}"
            if isinstance(output, Tensor)
            else type(output).__name__
        )
        raise UsageError(
            f"layer '{layer}': expected maps (n, c, h, w), tokens (n, t, d) or vectors (n, d) for {_BATCH} images, "
            f"got {got}. Name a layer before or after it."
        )
    layout: Layout = "vector"
    if output.dim() == 3:
        layout = "tokens"
    elif output.dim() == 4:
        layout = "maps_last" if channels_last else "maps"
    if layout == "vector":
        if pool not in (None, "avg", "flatten"):
            raise UsageError(
                f"layer '{layer}': pool={pool} needs maps or tokens, got a vector of {output.shape[1]} values. "
                f"{advise()}"
            )
        pool = "none"
    prefix_tokens = prefix_tokens if layout == "tokens" else 0
    has_class_token = class_token and prefix_tokens > 0
    if pool == "cls" and not has_class_token:
        raise UsageError(
            f"layer '{layer}': pool=cls needs a transformer with a class token, got {layout}. Use avg, max or gem."
        )
    pool = pool or ("cls" if has_class_token else "avg")
    planned = Layer(layer, node, layout, pool, prefix_tokens, 0)
    return replace(planned, n_features=int(_pooled(output, planned).shape[1]))


def _pooled(output: Tensor, layer: Layer) -> Tensor:
    if layer.layout == "vector":
        return output
    if layer.pool == "flatten":
        return output.flatten(1)
    if layer.pool == "cls":
        return output[:, 0]
    if layer.layout == "tokens":
        values = output[:, layer.prefix_tokens :]  # (n, t, d)
    elif layer.layout == "maps_last":
        values = output.flatten(1, 2)  # (n, h * w, c)
    else:
        values = output.flatten(2).transpose(1, 2)  # (n, h * w, c)
    if layer.pool == "max":
        return values.amax(dim=1)
    if layer.pool == "gem":
        # Generalised mean pooling (Radenovic, Tolias and Chum, 2019) with the customary power of 3. Sums of cubes
        # overflow half precision, so they are taken in float32.
        powers = values.float().clamp(min=1e-6).pow(_GEM_POWER).mean(dim=1)
        return powers.pow(1 / _GEM_POWER).to(values.dtype)
    return values.mean(dim=1)
