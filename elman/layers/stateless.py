"""torch's modules without a state, as steps whose credit can be carried.

The language traces them as it traces a cell's body: an activation is what the tracer sees of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from elman.equation import ACTIVATIONS, Graph, cell
from elman.errors import InputError
from elman.layers.base import RecurrentLayer
from elman.layers.links import Link


class Activation(nn.Module):
    """An activation by its name."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.name](x)


def link_of(place: int, module: nn.Module) -> Sequence[Link]:
    """A module below a recurrent layer as a link; none where it does nothing.

    Args:
        place: its number in the chain, for the error.
        module: nn.Embedding (as the first), nn.Linear, nn.LayerNorm over the last size, nn.Dropout,
            nn.Identity, or what has no parameters and consists of operations of the language.

    Raises:
        InputError: credit cannot be carried through it; says what hinders.
    """
    kind = type(module)
    if kind is nn.Identity:
        return ()
    if kind is nn.Dropout:
        return (Link(module=module, dropout=True),)
    if kind is nn.Embedding:
        return (_lookup(place, module),)
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return (_dense(module),)
    if isinstance(module, nn.LayerNorm) and kind is nn.LayerNorm:
        return (_normal(place, module),)
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        raise _refusal(place, module, "it has weights or buffers of a kind that is not known here")
    try:
        graph = _stateless(lambda p, x: module(x))
    except InputError as error:
        raise _refusal(place, module, _reason(error)) from None
    if graph.nodes[graph.output].dims != graph.inputs[0].dims:
        raise _refusal(place, module, "its result has another size than its input")
    return (Link(module=module, graph=graph),)


def dense_links(stack: RecurrentLayer) -> list[Link]:
    """What a stack has on top of each step."""
    result = []
    for linear in stack.dense or ():
        if isinstance(linear, nn.Linear):
            activation = Activation(stack.dense_activation)
            graph = _stateless(lambda p, x, run=activation: run(x))
            result += [_dense(linear), Link(module=activation, graph=graph)]
    return result


def _reason(error: InputError) -> str:
    """The tracer's own sentence, without the place in this file and the list of what there is."""
    return str(error).partition(": step: ")[2].partition(". ")[0].rstrip(".") or str(error)


def _refusal(place: int, module: nn.Module, why: str) -> InputError:
    return InputError(
        f"Chain: credit cannot be carried through module {place}, {type(module).__name__}, which "
        f"lies below a recurrent layer: {why}. What can be: Elman's recurrent layers in one "
        "direction, nn.Embedding, nn.Linear, nn.LayerNorm, nn.Dropout and activations made of "
        "operations of the language (nn.Tanh, nn.ReLU, nn.SiLU, nn.ELU, …). Put it "
        "above the last recurrent layer, or use learning=elman.BPTT()"
    )


def _lookup(place: int, module: nn.Module) -> Link:
    if not isinstance(module, nn.Embedding):
        raise _refusal(place, module, "it is no nn.Embedding")
    if place:
        raise _refusal(place, module, "a lookup takes whole numbers, so it comes first")
    for name in ("max_norm", "scale_grad_by_freq", "sparse"):
        if getattr(module, name):
            raise _refusal(place, module, f"its {name} changes weights or gradients on the way")
    return Link(module=module, width=module.embedding_dim)


def _dense(linear: nn.Linear) -> Link:
    def plain(p: Any, x: Any) -> Any:
        return p.weight @ x

    def biased(p: Any, x: Any) -> Any:
        return p.weight @ x + p.bias

    names = (("weight", "weight"), *((("bias", "bias"),) if linear.bias is not None else ()))
    graph = _stateless(plain if linear.bias is None else biased)
    return Link(module=linear, graph=graph, weights=names, width=linear.out_features)


def _normal(place: int, module: nn.LayerNorm) -> Link:
    if len(module.normalized_shape) != 1:
        raise _refusal(place, module, f"it normalises over {len(module.normalized_shape)} sizes")
    names = tuple(n for n in ("weight", "bias") if getattr(module, n, None) is not None)

    def step(p: Any, x: Any) -> Any:
        y = F.layer_norm(x, x.shape[-1:], eps=module.eps)
        y = p.weight * y if "weight" in names else y
        return y + p.bias if "bias" in names else y

    return Link(module=module, graph=_stateless(step), weights=tuple((n, n) for n in names))


def _stateless(body: Callable[[Any, Any], Any]) -> Graph:
    """The graph of y = body(p, x), which is traced as a cell whose state nobody reads."""

    def step(p, x, h):
        """A step without a state."""
        return body(p, x)

    graph = cell(step).graph
    keep = [i for i, node in enumerate(graph.nodes) if node.op != "state"]
    place = {index: position for position, index in enumerate(keep)}
    nodes = tuple(
        graph.nodes[i]._replace(args=tuple(place[a] for a in graph.nodes[i].args)) for i in keep
    )
    return replace(
        graph, name="dense", nodes=nodes, states=(), new_states=(), output=place[graph.output],
        equal=(),
    )  # fmt: skip
