"""What of a step torch computes once a call, and what remains for a kernel to do step by step.

Work on parameters alone, on inputs of a whole sequence, and on an input before it meets a weight
needs no walk over time: it is done for all steps at once, under autograd. What is left, the inner
step, reads its results as parameters and inputs of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from elman.equation.graph import (
    PARAMETER,
    SEQUENCE,
    STATE,
    STEP,
    Graph,
    Input,
    Node,
    Parameter,
)

LEAVES = ("input", "state", "parameter", "delayed", "constant")


@dataclass(frozen=True)
class Split:
    """A step in two parts.

    Attributes:
        graph: the whole step.
        inner: what a kernel walks over time. Its parameters, inputs and states are those of the
            whole step by name, and results of the outer part by `name_of`.
        outer: the nodes that are computed once a call, in order.
        parameters: by name in the inner step, the node that a parameter of it is.
        sequences: so with its inputs of a whole sequence.
        steps: so with its inputs of each step; delays of inputs are among them.

    Example:
        >>> import elman
        >>> both = split(elman.cells.get("antisymmetric_rnn").graph)
        >>> [both.graph.nodes[i].op for i in both.outer][0]
        'transpose'
    """

    graph: Graph
    inner: Graph
    outer: tuple[int, ...]
    parameters: Mapping[str, int]
    sequences: Mapping[str, int]
    steps: Mapping[str, int]


def name_of(graph: Graph, index: int) -> str:
    """The name in the inner step of a node of the whole step."""
    node = graph.nodes[index]
    if node.op in ("input", "parameter"):
        return node.attribute("name")
    if node.op == "delayed":
        return f"{node.attribute('name')}@-{node.attribute('steps')}"
    return f"@{index}"


@cache
def split(graph: Graph) -> Split:
    """Divide a step: what needs the walk over time is inner, the rest outer."""
    inside = _inside(graph)
    early = [
        i for i, node in enumerate(graph.nodes) if i not in inside and node.op not in LEAVES
    ]  # fmt: skip
    read = {a for i in inside for a in graph.nodes[i].args} | {graph.output, *graph.new_states}
    nodes: list[Node] = []
    place: dict[int, int] = {}
    roles: tuple[dict[str, int], ...] = ({}, {}, {})
    for index, node in enumerate(graph.nodes):
        level = graph.levels[index]
        if index in inside:
            args = tuple(place[a] for a in node.args)
            nodes.append(node._replace(args=args))
        elif index not in read:
            continue
        elif node.op in ("constant", "state") or (node.op == "delayed" and level == STATE):
            nodes.append(node)
        else:
            name = name_of(graph, index)
            roles[(PARAMETER, SEQUENCE, STEP).index(level)][name] = index
            op = "parameter" if level == PARAMETER else "input"
            nodes.append(Node(op, (), (("name", name),), node.dims, node.name))
        place[index] = len(nodes) - 1
    parameters, sequences, steps = roles
    # x is there even where nothing reads it: it says how long the sequence is.
    first = graph.inputs[0].name
    steps = {first: graph_place(graph, first), **steps}
    inner = Graph(
        graph.name,
        tuple(nodes),
        (
            *(Input(name, graph.nodes[i].dims) for name, i in steps.items()),
            *(Input(name, graph.nodes[i].dims, "sequence") for name, i in sequences.items()),
        ),
        graph.states,
        tuple(Parameter(name, graph.nodes[i].dims) for name, i in parameters.items()),
        place[graph.output],
        tuple(place[i] for i in graph.new_states),
        graph.equal,
    )
    return Split(graph, inner, _wanted(graph, early, inside), parameters, sequences, steps)


def graph_place(graph: Graph, name: str) -> int:
    """The node of an input."""
    return next(
        i for i, n in enumerate(graph.nodes) if n.op == "input" and n.attribute("name") == name
    )


def _inside(graph: Graph) -> set[int]:
    """The operations of the inner step: what depends on a state; of what depends on an input
    alone, the products with that input and the work behind them."""
    before: set[int] = set()
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        if graph.levels[index] != STEP:
            continue
        if index in before:
            before |= set(node.args)
        elif node.op == "matmul" and graph.nodes[node.args[1]].op not in LEAVES:
            before.add(node.args[1])
            before |= set(graph.nodes[node.args[1]].args)
    return {
        i for i, node in enumerate(graph.nodes)
        if node.op not in LEAVES
        and (graph.levels[i] == STATE or (graph.levels[i] == STEP and i not in before))
    }  # fmt: skip


def _wanted(graph: Graph, early: list[int], inside: set[int]) -> tuple[int, ...]:
    """Those of the early nodes that the inner step is made of."""
    wanted = {a for i in inside for a in graph.nodes[i].args} | {graph.output, *graph.new_states}
    for index in reversed(early):
        if index in wanted:
            wanted |= set(graph.nodes[index].args)
    return tuple(i for i in early if i in wanted)
