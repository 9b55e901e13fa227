"""A step of many rows at once, on any backend: what a level of a tree or a round of a graph is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from elman.backends import cpu, reference
from elman.backends.call import Call
from elman.backends.cpu.sources import own
from elman.equation.graph import Graph
from elman.equation.sizes import shape_of


def once(
    graph: Graph,
    sizes: Mapping[str, int],
    parameters: Mapping[str, Tensor],
    x: Tensor,
    inputs: Mapping[str, Tensor],
    states: tuple[Tensor, ...] | None,
    backend: str,
) -> tuple[Tensor, ...]:
    """The new states of each row.

    Args:
        graph: the step.
        sizes: the number of every size.
        parameters: those of the graph among others, by name.
        x: its first input, (rows, …).
        inputs: the further ones by name, (rows, …).
        states: the old states, (rows, …) each; None where the step reads none.
        backend: "cpu" or "reference".
    """
    if states is None:
        states = tuple(
            x.new_zeros(1).expand(len(x), *shape_of(s.dims, sizes)) for s in graph.states
        )
    mine = {p.name: parameters[p.name] for p in graph.parameters}
    extras = {name: value.unsqueeze(0) for name, value in inputs.items()}
    call = Call(x.unsqueeze(0), states, step_extras=extras, return_states=True)
    if backend == "cpu":
        found = cpu.run(cpu.kernels_of(graph), sizes, own(mine), call).states
    else:
        found = reference.run(
            graph, mine, call.x, states, extras=extras, return_states=True
        )[2]  # fmt: skip
    return tuple(value[0] for value in found or ())
