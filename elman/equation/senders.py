"""What an edge computes of its sender alone is computed once for each node, before it is sent.

A node with many neighbours would otherwise multiply the same state with the same matrix once for
each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from elman.equation.graph import PARAMETER, PRODUCTS, Graph, Input, Node, State
from elman.equation.neighbours import EACH, copied, used


@dataclass(frozen=True)
class Sent:
    """The equation of a node, with what senders compute taken out.

    Attributes:
        graph: the equation, in which "^0", "^1", … of each neighbour stand for that.
        sender: what each node computes of its own values, as states that nobody reads; None where
            there is nothing that is worth it.
        reads: for each input of `sender` the argument of the equation that it is.
    """

    graph: Graph
    sender: Graph | None
    reads: tuple[str, ...] = ()


@cache
def at_senders(graph: Graph) -> Sent:
    """Take out of an equation the products that see a sender alone, and what is made of them.

    Example:
        >>> import elman
        >>> sent = at_senders(elman.cells.get("gated_graph").graph)
        >>> sent.sender.equation(), sent.graph.equation()[0]
        (['^0ₜ = A hₜ'], 'mₜ = Σⱼ(^0ⱼ) + a')
    """
    pure, worth = _pure(graph)
    sent = sorted(
        index
        for index in {a for i, node in enumerate(graph.nodes) if not pure[i] for a in node.args}
        if worth[index]
    )
    if not sent:
        return Sent(graph, None)
    named = {index: f"^{k}" for k, index in enumerate(sent)}
    sender, reads = _sender(graph, named)
    nodes = list(graph.nodes)
    for index, name in named.items():
        dims = nodes[index].dims
        nodes[index] = Node(EACH, (), (("name", name), ("kind", "input")), dims)
    inputs = tuple(Input(name, graph.nodes[i].dims) for i, name in named.items())
    whole = replace(graph, nodes=tuple(nodes), inputs=(*graph.inputs, *inputs))
    return Sent(whole, sender, reads)


def _pure(graph: Graph) -> tuple[list[bool], list[bool]]:
    """For each node whether it sees a sender alone, and whether a product is in it then."""
    pure: list[bool] = []
    worth: list[bool] = []
    for index, node in enumerate(graph.nodes):
        steady = [graph.levels[a] == PARAMETER for a in node.args]
        only = graph.of_edges[index] and all(
            pure[a] or s for a, s in zip(node.args, steady, strict=True)
        )
        own = node.op == EACH or bool(node.args and only)
        pure.append(own)
        worth.append(own and (node.op in PRODUCTS or any(worth[a] for a in node.args)))
    return pure, worth


def _sender(graph: Graph, named: dict[int, str]) -> tuple[Graph, tuple[str, ...]]:
    reads: dict[str, None] = {}

    def leaf(node: Node) -> Node:
        if node.op != EACH:
            return node
        reads.setdefault(node.attribute("name"))
        return Node("input", (), (("name", node.attribute("name")),), node.dims, node.name)

    nodes, place = copied(graph, named, leaf)
    dims = {n.attribute("name"): n.dims for n in nodes if n.op == "input"}
    results = tuple(place[index] for index in named)
    labelled = list(nodes)
    for result, name in zip(results, named.values(), strict=True):
        labelled[result] = labelled[result]._replace(name=name)
    return Graph(
        f"{graph.name}, senders",
        tuple(labelled),
        tuple(Input(name, dims[name]) for name in reads),
        tuple(State(name, graph.nodes[index].dims) for index, name in named.items()),
        used(graph, nodes),
        results[0],
        results,
        graph.equal,
    ), tuple(reads)
