"""Layers on our kernels in graphs that torch captures (torch.compile, torch.export).

Loaded when the first such graph is captured. What follows from a layer alone is worked out aside
and taken for a constant; a call is an operator. Outside of the graph run a call whose steps depend
on numbers that a graph does not know, with lengths or resets, and one on torch's own kernel.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from elman.backends.call import Call, Result
from elman.backends.choose import Choice, choose
from elman.backends.cpu import custom

if TYPE_CHECKING:
    from elman.layers.base import RecurrentLayer


def choice(layer: RecurrentLayer, resets: bool, return_states: bool) -> Choice:
    """The backend of a call, as `RecurrentLayer._choose` finds it."""
    return _choice(layer, layer.training, layer.backend, resets, return_states)


@torch.compiler.assume_constant_result
def _choice(
    layer: RecurrentLayer, training: bool, backend: str, resets: bool, return_states: bool
) -> Choice:
    # The mode and the backend are given so that a graph is captured anew where they change. What
    # a graph keeps of itself cannot be worked out while it is captured.
    for graph in (layer.cell.graph, layer._graphs[training]):
        _ = graph.levels, graph.lines
    asked = {
        "cpu": layer._cpu_obstacles,
        "torch": partial(layer._obstacles, resets, return_states),
    }
    return choose(layer.owner, backend, asked)


@torch.compiler.disable(
    reason="calls of Elman's layers with lengths, resets or a PackedSequence, and all with "
    "backend='torch', run outside of the captured graph; leave those out, or fullgraph=True"
)
def aside(layer: RecurrentLayer, *arguments: Any) -> Any:
    """A call outside of the graph."""
    return layer._forward(*arguments)


def run(layer: RecurrentLayer, place: int, direction: int, call: Call) -> Result:
    """One layer and direction of a call."""
    text, names, inputs = _program(layer, layer.training, place)
    own = layer.equation_parameters(place, direction)
    parameters = [own[name] for name in names]
    return layer.learning.walk(partial(custom.run, text, inputs, parameters), call)


@torch.compiler.assume_constant_result
def _program(
    layer: RecurrentLayer, training: bool, place: int
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The cell with its sizes as a text, and the names of its parameters and further inputs."""
    graph = layer._graphs[training]
    text = custom.text_of(graph, layer._sizes[place])
    names = tuple(p.name for p in graph.parameters)
    return text, names, tuple(i.name for i in graph.inputs[1:])
