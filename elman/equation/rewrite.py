"""Options of a layer as rewritings of its graph, so that every backend has them for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

from elman.equation.graph import STATE, STEP, Graph, Input, Node, Parameter

LAYER_NORM_EPS = 1e-5


class _Copy:
    """A graph in the making: nodes are added at the end, and keep their order."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: str, *args: int, dims: tuple[str, ...] = (), label: str = "", **attributes):
        self.nodes.append(Node(op, args, tuple(attributes.items()), dims, label))
        return len(self.nodes) - 1


def _rewritten(graph: Graph, change: Callable[[_Copy, int, Node], int]) -> Graph:
    """The graph with each node, its operands renumbered, put through `change`."""
    copy, place = _Copy(), []
    for index, node in enumerate(graph.nodes):
        moved = node._replace(args=tuple(place[a] for a in node.args))
        place.append(change(copy, index, moved))
    return replace(
        graph,
        nodes=tuple(copy.nodes),
        output=place[graph.output],
        new_states=tuple(place[i] for i in graph.new_states),
    )


def with_layer_norm(graph: Graph) -> Graph:
    """Normalise every product of x and of the state over its units, with a gain and a bias each.

    Each product a = W v becomes gain ⊙ (a − mean a)/√(var a + 1e-5) + bias; the new parameters
    are `W_gain` (ones) and `W_bias` (zeros).

    Source: Ba, Kiros & Hinton 2016, eqs. 4 and 20–22 (there one norm for all gates' products
    together; here one for each gate's product).
    """
    added: dict[str, Parameter] = {}
    names: dict[int, str] = {}

    def change(copy: _Copy, index: int, node: Node) -> int:
        copy.nodes.append(node)
        product = len(copy.nodes) - 1
        if node.op != "matmul":
            return product
        matrix = _name_of(copy.nodes, node.args[0], names)
        for suffix, init in (("gain", "ones"), ("bias", "zeros")):
            name = f"{matrix}_{suffix}"
            added[name] = Parameter(name, node.dims, init)
        gain = copy.add("parameter", dims=node.dims, name=f"{matrix}_gain")
        bias = copy.add("parameter", dims=node.dims, name=f"{matrix}_bias")
        normal = copy.add("layer_norm", product, dims=node.dims, eps=LAYER_NORM_EPS)
        scaled = copy.add("mul", normal, gain, dims=node.dims)
        return copy.add("add", scaled, bias, dims=node.dims)

    changed = _rewritten(graph, change)
    return replace(changed, parameters=(*graph.parameters, *added.values()))


def with_recurrent_dropout(graph: Graph) -> Graph:
    """Multiply a mask, one for a sequence, onto a state where it enters a product.

    The masks are new inputs `dropout_<state>` that hold 0 or 1/(1 − p). A product of an expression
    of states, such as U (r ⊙ h), has the mask of the first state that the expression reads.

    Source: Gal & Ghahramani 2016, section 4, eqs. 5–7 (one mask a sequence and state).
    """
    reads = _first_state_of_size(graph)
    added: dict[str, Input] = {}
    masks: dict[str, int] = {}
    masked: dict[int, int] = {}

    def change(copy: _Copy, index: int, node: Node) -> int:
        state = reads[graph.nodes[index].args[1]] if node.op == "matmul" else None
        if state is not None:
            matrix, vector = node.args
            if state.name not in masks:
                name = f"dropout_{state.name}"
                added[name] = Input(name, state.dims, "sequence")
                masks[state.name] = copy.add("input", dims=state.dims, name=name)
            if vector not in masked:
                dims = copy.nodes[vector].dims
                masked[vector] = copy.add("mul", vector, masks[state.name], dims=dims)
            node = node._replace(args=(matrix, masked[vector]))
        copy.nodes.append(node)
        return len(copy.nodes) - 1

    changed = _rewritten(graph, change)
    return replace(changed, inputs=(*graph.inputs, *added.values()))


def with_zoneout(graph: Graph) -> Graph:
    """Let units keep their old state: s_t = z ⊙ s_{t−1} + (1 − z) ⊙ ŝ_t for every state s.

    The new inputs `zoneout_<state>` hold z: in training a mask of 0 and 1, new at each step; in
    evaluation the probability itself.

    Source: Krueger et al. 2016, eqs. 3 and 6.
    """
    copy = _Copy()
    copy.nodes.extend(graph.nodes)
    one = copy.add("constant", value=1.0)
    inputs, new_states = list(graph.inputs), []
    for state, new in zip(graph.states, graph.new_states, strict=True):
        name, dims = f"zoneout_{state.name}", state.dims
        inputs.append(Input(name, state.dims, "step"))
        z = copy.add("input", dims=dims, name=name)
        old = next(
            (
                i
                for i, n in enumerate(copy.nodes)
                if n[:3] == ("state", (), (("name", state.name),))
            ),
            None,
        )
        if old is None:
            old = copy.add("state", dims=dims, name=state.name)
        kept = copy.add("mul", z, old, dims=dims)
        moving = copy.add("sub", one, z, dims=dims)
        moved = copy.add("mul", moving, new, dims=dims)
        new_states.append(copy.add("add", kept, moved, dims=dims, label=state.name))
    output = graph.output
    if output in graph.new_states:
        output = new_states[graph.new_states.index(output)]
    return replace(
        graph,
        nodes=tuple(copy.nodes),
        inputs=tuple(inputs),
        output=output,
        new_states=tuple(new_states),
    )


def _name_of(nodes: list[Node], index: int, names: dict[int, str]) -> str:
    """The first parameter that a matrix is made of; numbered where others begin with it too."""
    if index not in names:
        reads, waiting = {index}, [index]
        while waiting:
            operands = set(nodes[waiting.pop()].args) - reads
            reads |= operands
            waiting += operands
        first = min(i for i in reads if nodes[i].op == "parameter")
        name = nodes[first].attribute("name")
        taken = set(names.values())
        others = (f"{name}_{k}" for k in itertools.count(2))
        names[index] = name if name not in taken else next(n for n in others if n not in taken)
    return names[index]


def _first_state_of_size(graph: Graph) -> list:
    """For each node the first state of its own size that it is computed from, or None."""
    reads: list[set[str]] = []
    result = []
    for node, level in zip(graph.nodes, graph.levels, strict=True):
        names: set[str] = set().union(*(reads[a] for a in node.args)) if node.args else set()
        if level == STATE and node.op in ("state", "delayed"):
            names = {node.attribute("name")}
        reads.append(names)
        fitting = (s for s in graph.states if s.name in names and s.dims == node.dims)
        result.append(next(fitting, None) if level > STEP else None)
    return result
