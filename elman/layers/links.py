"""The links of a chain: what credit passes through, and the weights of one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from elman.equation import Graph
from elman.equation.sizes import number
from elman.learning.chain import Chain, Place, lookup_of, place_of
from elman.learning.sweep import parameter_values

if TYPE_CHECKING:
    from elman.layers.base import RecurrentLayer


class Link(NamedTuple):
    """One link of a chain: a layer of a stack, or a module without a state.

    Attributes:
        stack, layer: of a recurrent layer; else None and 0.
        module: what has no state: a lookup, a dense layer, an activation, dropout.
        graph: the step of a module that is one; None of a lookup, and of dropout.
        weights: names of the graph's parameters with those of the module.
        dropout: whether it only multiplies with a mask, which is drawn for the whole call.
        width: of its output; None for that of its input.
    """

    stack: RecurrentLayer | None = None
    layer: int = 0
    module: nn.Module | None = None
    graph: Graph | None = None
    weights: tuple[tuple[str, str], ...] = ()
    dropout: bool = False
    width: int | None = None


def links_of(stack: RecurrentLayer) -> tuple[Link, ...]:
    """The layers of a stack; what is on top of them carries no state and needs no carry."""
    size = stack.cell.graph.output_size
    return tuple(Link(stack, i, width=number(size, s)) for i, s in enumerate(stack._sizes))


def chain_of(links: Sequence[Link]) -> Chain:
    """The places of links and the values of their weights, attached to autograd's graph."""
    places: list[Place] = []
    values: list[Mapping[int, Tensor]] = []
    initial: list[tuple[Tensor, ...]] = []
    # Which weights are trained is asked of autograd, which torch.inference_mode() turns off too.
    with torch.inference_mode(False), torch.enable_grad():
        for link in links:
            if link.dropout:
                continue
            below = any(p.weights for p in places)
            first = sum(p.rows for p in places)
            place, value, learned = _place(link, first, below)
            places.append(place)
            values.append(value)
            initial.append(learned)
    return Chain(tuple(places), tuple(values), tuple(initial))


def _place(
    link: Link, first: int, below: bool
) -> tuple[Place, Mapping[int, Tensor], tuple[Tensor, ...]]:
    stack, module = link.stack, link.module
    if stack is not None:
        graph = stack._graphs[stack.training]
        values = parameter_values(graph, stack.equation_parameters(link.layer, 0))
        learned = stack.learned_initial_states(link.layer)
        place = place_of(
            graph,
            stack._sizes[link.layer],
            _trained(values),
            learned=any(v.requires_grad for v in learned),
            first=first,
            residual=bool(stack.residual and link.layer),
            below=below,
        )
        return place, values, learned
    if isinstance(module, nn.Embedding):
        table = module.weight
        trained, padding = table.requires_grad, module.padding_idx
        place = lookup_of(*table.shape, trained=trained, padding=padding)
        return place, {0: table}, ()
    if link.graph is None:
        raise ValueError(f"{module} is no link of a chain")
    parameters = {name: getattr(module, own) for name, own in link.weights}
    values = parameter_values(link.graph, parameters)
    sizes = _sizes_of(link.graph, parameters)
    return place_of(link.graph, sizes, _trained(values), first=first, below=below), values, ()


def _trained(values: Mapping[int, Tensor]) -> frozenset[int]:
    return frozenset(node for node, value in values.items() if value.requires_grad)


def _sizes_of(graph: Graph, parameters: Mapping[str, Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for declared in graph.parameters:
        sizes |= dict(zip(declared.dims, parameters[declared.name].shape, strict=True))
    return sizes
