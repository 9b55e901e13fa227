"""The equation of a node without children: what is multiplied by their zeros falls away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache

from elman.equation.graph import PRODUCTS, Graph, Node
from elman.equation.neighbours import used

ZERO = -1  # in the place of a node's index


@cache
def without(graph: Graph, names: Collection[str]) -> Graph | None:
    """The graph in which some inputs are zero, with all that follows left out.

    Adding zero and multiplying with it change nothing in what finite numbers give, to the bit, but
    for the sign of a zero.

    Args:
        graph: a step.
        names: inputs that are zero, hashable.

    Returns:
        The smaller graph; None where a zero reaches an operation that is not a product, a sum or a
        product by elements, or where nothing is left of a state.

    Example:
        >>> import elman
        >>> from elman.equation.neighbours import divide
        >>> node = divide(elman.cells.get("recursive").graph).node
        >>> without(node, frozenset({"h@0", "h@1"})).equation()
        ['hₜ = tanh(W xₜ + b)']
    """
    nodes: list[Node] = []
    place: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        new = _folded(node, [place[a] for a in node.args], names)
        if new is None:
            return None
        if isinstance(new, int):
            place[index] = new
        else:
            place[index] = len(nodes)
            nodes.append(new)
    roots = [place[i] for i in (graph.output, *graph.new_states)]
    if ZERO in roots:
        return None
    kept, at = _reached(nodes, roots, graph.inputs[0].name)
    return replace(
        graph,
        name=f"{graph.name}, leaves",
        nodes=kept,
        inputs=tuple(i for i in graph.inputs if i.name not in names),
        parameters=used(graph, kept),
        output=at[roots[0]],
        new_states=tuple(at[r] for r in roots[1:]),
    )


def _folded(node: Node, args: list[int], names: Collection[str]) -> Node | int | None:
    """A node with its new operands; the place of one that it is equal to; None where neither."""
    if node.op == "input" and node.attribute("name") in names:
        return ZERO
    if ZERO not in args:
        return node._replace(args=tuple(args))
    if node.op in PRODUCTS or node.op == "mul":
        return ZERO
    if node.op in ("add", "sub"):
        one, other = args
        if other == ZERO:
            return one
        return other if node.op == "add" else None
    return ZERO if node.op == "neg" else None


def _reached(
    nodes: list[Node], roots: list[int], x: str
) -> tuple[tuple[Node, ...], dict[int, int]]:
    """The nodes that the roots are made of, and x, which says how many rows there are."""
    keep = {i for i, n in enumerate(nodes) if n.op == "input" and n.attribute("name") == x}
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in keep:
            keep.add(index)
            waiting.extend(nodes[index].args)
    at = {index: number for number, index in enumerate(sorted(keep))}
    return tuple(
        nodes[i]._replace(args=tuple(at[a] for a in nodes[i].args)) for i in sorted(keep)
    ), at
