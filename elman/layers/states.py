"""States between their outer form and what each layer and direction carries.

Outside, a state is torch.nn's: (layers·directions, batch, size), in a tuple where a cell has
several; a state that is a matrix has two sizes, one that is a number has none. A cell with delays
has its delay lines after the states, (directions, batch, depth, …) for each layer and line. Inside,
each layer and direction carries a tuple of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from elman.backends.call import Carried
from elman.backends.reference import with_initial_states
from elman.equation import Graph
from elman.equation.sizes import shape_of
from elman.errors import SizeError
from elman.layers import checks


def read_state(
    owner: str,
    graph: Graph,
    sizes: Sequence[Mapping[str, int]],
    directions: int,
    state: Tensor | Sequence[Tensor],
    like: Tensor,
    *,
    batched: bool,
) -> list[Carried]:
    """What each layer and direction starts with, from a state in its outer form.

    Args:
        sizes: the sizes of each layer by name.
        like: the input, (time, batch, input).
    """
    given = as_tuple(owner, state)
    states, lines = len(graph.states), len(graph.lines) * len(sizes)
    if len(given) not in (states, states + lines):
        names = ", ".join(s.name for s in graph.states)
        also = f", or {states + lines} with the delay lines" if lines else ""
        raise SizeError(
            f"{owner}: the state has {len(given)} tensor(s); expected {states} ({names}){also}"
        )
    ranks = [len(s.dims) for s in graph.states]
    checks.check_state_dims(owner, given[:states], ranks, batched=batched)
    if not batched:
        given = tuple(g.unsqueeze(1) for g in given)
    batch, places = like.shape[1], len(sizes) * directions
    for i, declared in enumerate(graph.states):
        place = f"hidden[{i}]" if states > 1 else "hidden"
        expected = (places, batch, *shape_of(declared.dims, sizes[0]))
        checks.check_state(owner, declared.name, place, given[i], expected, like)
    carried = []
    for place in range(places):
        layer, direction = divmod(place, directions)
        own = tuple(g[place] for g in given[:states])
        if len(given) == states:
            carried.append(with_initial_states(graph, own, sizes[layer]))
            continue
        first = states + layer * len(graph.lines)
        of_layer = given[first : first + len(graph.lines)]
        for line, value in zip(graph.lines, of_layer, strict=True):
            expected = (directions, batch, line.depth, *shape_of(line.dims, sizes[layer]))
            name = f"of the delay of {line.name} in layer {layer}"
            checks.check_state(owner, name, "delay line", value, expected, like)
        carried.append((*own, *(line[direction] for line in of_layer)))
    return carried


def as_tuple(owner: str, state: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors of a state, which is one tensor or several."""
    given = (state,) if isinstance(state, Tensor) else tuple(state)
    if not all(isinstance(g, Tensor) for g in given):
        kinds = ", ".join(type(g).__name__ for g in given)
        raise checks.ArgumentTypeError(f"{owner}: a state is made of tensors; got {kinds}")
    return given


def write_state(graph: Graph, carried: Sequence[Carried], directions: int) -> tuple[Tensor, ...]:
    """The outer form, always as a tuple, of what each layer and direction carries on."""
    count = len(graph.states)
    if len(carried) == 1:
        return tuple(c.contiguous().unsqueeze(0) for c in carried[0])
    states = [torch.stack([c[i] for c in carried]) for i in range(count)]
    lines = [
        torch.stack([carried[first + d][count + i] for d in range(directions)])
        for first in range(0, len(carried), directions)
        for i in range(len(graph.lines))
    ]
    return (*states, *lines)
