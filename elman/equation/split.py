"""What of a step torch computes once a call, and what remains for a kernel to do step by step.

Work on parameters alone needs no walk over time: it is done once a call, under autograd. What is
left, the inner step, reads its results as parameters of its own. All work on rows is inner, since
torch's own would round a row's values by the shape of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from elman.equation.graph import PARAMETER, SEQUENCE, STATE, STEP, Graph, Input, Node, Parameter

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
        sequences: so with the inputs of a whole sequence that it reads.
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
    inside = {
        i for i, node in enumerate(graph.nodes)
        if node.op not in LEAVES and graph.levels[i] != PARAMETER
    }  # fmt: skip
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
    steps = {first: _input(graph, first), **steps}
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
    return Split(graph, inner, _wanted(graph, read), parameters, sequences, steps)


def _input(graph: Graph, name: str) -> int:
    """The node of an input."""
    return next(
        i for i, n in enumerate(graph.nodes) if n.op == "input" and n.attribute("name") == name
    )


def _wanted(graph: Graph, read: set[int]) -> tuple[int, ...]:
    """The work on parameters that the inner step reads the results of."""
    wanted = set(read)
    outer = []
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        if index in wanted and graph.levels[index] == PARAMETER and node.op not in LEAVES:
            outer.append(index)
            wanted |= set(node.args)
    return tuple(reversed(outer))
