"""What a node of a tree or graph reads of its neighbours: their values, one by one, and in sum.

`each(h)` is the state of each neighbour that sends to a node (of a tree: each child), and work on
it is done for each edge; `total`, `average` and `largest` bring edges together, unit by unit. So
the equation of a node is an equation like any other. `divide` takes it apart: what is computed for
each edge, and what for each node, are two graphs that every backend runs as it runs a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from elman.equation.graph import Graph, Input, Node, Parameter, State
from elman.equation.sizes import Dims
from elman.equation.symbols import Recorder, Symbol
from elman.errors import EquationError

EACH, CHILD = "each", "child"
REDUCTIONS = ("total", "average", "largest")
MOST_CHILDREN = 64


def each(v: Any) -> Any:
    """The value that an argument of the body has at each neighbour that sends to the node.

    In a tree the neighbours are the children (or, from the top down, the parent); in a graph those
    u with an edge u → v. What is made of it has a value for each edge, until `elman.total`,
    `elman.average` or `elman.largest` brings the edges together.

    Args:
        v: an argument of the body: x, a further input or a state.

    Raises:
        EquationError: v is no argument of the body, or the body was called on tensors.

    Example:
        >>> import elman, torch
        >>> @elman.cell
        ... def mean_of_children(p, x, h):
        ...     return torch.tanh(p.W @ x + p.U @ elman.average(elman.each(h)) + p.b)
        >>> print(*mean_of_children.graph.equation())
        hₜ = tanh(W xₜ + U meanⱼ(hⱼ) + b)

    Source: Gilmer et al. 2017, "Neural message passing for quantum chemistry", eqs. 1–2.
    """
    return _leaf(v, EACH, "elman.each")


def child(v: Any, k: int) -> Any:
    """The value that an argument of the body has at the k-th child, counted from 0.

    Where there is no such child an input is zero, and a state is its initial constant.

    Args:
        v: an argument of the body: x, a further input or a state.
        k: the place among the children, 0 to 63.

    Raises:
        EquationError: v is no argument of the body, or k is out of range.

    Example:
        >>> import elman, torch
        >>> @elman.cell
        ... def two_children(p, x, h):
        ...     return torch.tanh(p["U", 0] @ elman.child(h, 0) + p["U", 1] @ elman.child(h, 1))
        >>> print(*two_children.graph.equation())
        hₜ = tanh(U_0 h[0] + U_1 h[1])

    Source: Tai, Socher & Manning 2015, section 3.2 (N-ary: the children of a node are ordered).
    """
    if isinstance(v, Symbol):
        good = isinstance(k, int) and not isinstance(k, bool) and 0 <= k < MOST_CHILDREN
        if not good:
            v.recorder.fail(f"elman.child(v, k) counts children from 0 to {MOST_CHILDREN - 1}; "
                            f"got k = {k!r}")  # fmt: skip
        return _leaf(v, CHILD, "elman.child", slot=k)
    return _leaf(v, CHILD, "elman.child")


def total(v: Any) -> Any:
    """The sum over a node's edges, unit by unit; zero where a node has none.

    Args:
        v: what is made of `elman.each(…)` or of an input of edges.

    Raises:
        EquationError: v has no value for each edge.

    Source: Gilmer et al. 2017, eq. 1.
    """
    return _reduce(v, "total")


def average(v: Any) -> Any:
    """The mean over a node's edges, unit by unit; zero where a node has none.

    Args:
        v: as of `elman.total`.

    Raises:
        EquationError: v has no value for each edge.
    """
    return _reduce(v, "average")


def largest(v: Any) -> Any:
    """The maximum over a node's edges, unit by unit; zero where a node has none.

    Of several that are largest each gets its share of the gradient.

    Args:
        v: as of `elman.total`.

    Raises:
        EquationError: v has no value for each edge.
    """
    return _reduce(v, "largest")


def _leaf(v: Any, op: str, spelled: str, **attributes: Any) -> Symbol:
    if not isinstance(v, Symbol):
        raise EquationError(
            f"{spelled} stands in the body of a cell of trees or graphs, which elman.Tree and "
            "elman.Network run; on plain tensors it has no meaning"
        )
    recorder = v.recorder
    kind = v.entry[0]
    if kind not in ("input", "state"):
        recorder.fail(f"{spelled} takes an argument of the body, x or a state, not a value of them")
    if v.name in recorder.edges:
        recorder.fail(f"{v.name} has a value for each edge already; leave {spelled} out")
    return recorder.add(op, (), v.shape, name=v.name, kind=kind, **attributes)


def _reduce(v: Any, op: str) -> Symbol:
    if not isinstance(v, Symbol):
        raise EquationError(
            f"elman.{op} stands in the body of a cell of trees or graphs; it got {type(v).__name__}"
        )
    recorder = v.recorder
    if not of_edges(recorder, v.index):
        recorder.fail(
            f"elman.{op} needs a value for each edge: something made of elman.each(…), or an "
            "input of edges, @elman.cell(edges=…)"
        )
    if v.boolean:
        recorder.fail(f"elman.{op} cannot take a comparison")
    if _below(recorder, v.index) & {i for i, e in enumerate(recorder.entries)
                                    if e[0] in REDUCTIONS}:  # fmt: skip
        recorder.fail(
            f"elman.{op} takes something that is made of another sum over edges; a node brings "
            "its edges together once a step. Take two cells, one after the other"
        )
    symbol, _ = recorder.of_rank(v, 1, f"elman.{op}")
    return recorder.add(op, (symbol.index,), symbol.shape)


def of_edges(recorder: Recorder, index: int) -> bool:
    """Whether a value has one for each edge."""
    op, args, attributes = recorder.entries[index]
    if op in REDUCTIONS:
        return False
    if op == EACH or (op == "input" and dict(attributes)["name"] in recorder.edges):
        return True
    return any(of_edges(recorder, a) for a in args)


def _below(recorder: Recorder, index: int) -> set[int]:
    seen, waiting = set(), [index]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting.extend(recorder.entries[here][1])
    return seen


@dataclass(frozen=True)
class Messages:
    """The equation of a node in two parts, each a step for any backend.

    Attributes:
        graph: the whole equation.
        edge: what is computed for each edge, its results as states that nobody reads; None where
            edges only bring values as they are.
        node: what is computed for each node; the sums over edges are inputs of it, "@0", "@1", …,
            and children's values "h@0", ….
        reduced: for each "@i" the kind of sum, and what is summed: a result of `edge` by place,
            or the name of an argument at the sender.
        children: for each input of `node` that is a child's value the argument and the place.
        edge_inputs: for each input of `edge` the argument, and where it is read: "edge", "sender"
            or "receiver".
    """

    graph: Graph
    edge: Graph | None
    node: Graph
    reduced: tuple[tuple[str, int | str], ...]
    children: Mapping[str, tuple[str, int]]
    edge_inputs: Mapping[str, tuple[str, str]]

    @property
    def arity(self) -> int:
        """How many children by place the equation reads; 0 where it reads all alike."""
        return 1 + max((k for _, k in self.children.values()), default=-1)


def gathers(graph: Graph) -> bool:
    """Whether an equation reads neighbours, so that it is one of trees or graphs."""
    return any(n.op in (EACH, CHILD, *REDUCTIONS) for n in graph.nodes) or any(
        i.varies == "edge" for i in graph.inputs
    )


@cache
def divide(graph: Graph) -> Messages:
    """Take the equation of a node apart into the work of edges and the work of nodes.

    Args:
        graph: the equation of a node.

    Example:
        >>> import elman
        >>> parts = divide(elman.cells.get("child_sum_tree_lstm").graph)
        >>> [state.dims for state in parts.edge.states], [kind for kind, _ in parts.reduced]
        ([('hidden',)], ['total', 'total'])
    """
    sums = [i for i, node in enumerate(graph.nodes) if node.op in REDUCTIONS]
    made = [i for i in dict.fromkeys(graph.nodes[s].args[0] for s in sums)
            if graph.nodes[i].op != EACH]  # fmt: skip
    reduced = []
    for index in sums:
        operand = graph.nodes[index].args[0]
        node = graph.nodes[operand]
        what = node.attribute("name") if node.op == EACH else made.index(operand)
        reduced.append((graph.nodes[index].op, what))
    edge, edge_inputs = _edge_part(graph, made) if made else (None, {})
    node, children = _node_part(graph, sums)
    return Messages(graph, edge, node, tuple(reduced), children, edge_inputs)


def _edge_part(graph: Graph, made: list[int]) -> tuple[Graph, dict[str, tuple[str, str]]]:
    """The work of an edge: its results are new states that no step reads."""
    by_edge = {i.name for i in graph.inputs if i.varies == "edge"}
    places: dict[str, tuple[str, str]] = {}

    def leaf(node: Node) -> Node:
        name = node.attribute("name")
        if node.op == "parameter":
            return node
        where = "sender" if node.op == EACH else "edge" if name in by_edge else "receiver"
        called = name if where != "sender" else f"{name}@each"
        places[called] = (name, where)
        return Node("input", (), (("name", called),), node.dims, node.name)

    nodes, place = copied(graph, made, leaf)
    first = graph.inputs[0].name
    dims = {n.attribute("name"): n.dims for n in nodes if n.op == "input"}
    vectors = [name for name in places if len(dims[name]) == 1]
    if first not in dims and vectors:
        first = vectors[0]  # any of them says how many rows there are; x would be copied for it
    places = {first: (first, "receiver"), **places}
    if first not in dims:
        # x is there even where nothing reads it: it says how many rows there are.
        dims[first] = graph.inputs[0].dims
        nodes = (*nodes, Node("input", (), (("name", first),), dims[first]))
    states = tuple(State(f"m{k}", graph.nodes[i].dims) for k, i in enumerate(made))
    results = tuple(place[i] for i in made)
    return Graph(
        f"{graph.name}, edges", nodes, tuple(Input(n, dims[n]) for n in places), states,
        used(graph, nodes), results[0], results, graph.equal,
    ), places  # fmt: skip


def _node_part(graph: Graph, sums: list[int]) -> tuple[Graph, dict[str, tuple[str, int]]]:
    """The work of a node, with sums and children's values as inputs."""
    named = {index: f"@{k}" for k, index in enumerate(sums)}
    children: dict[str, tuple[str, int]] = {}
    further: dict[str, Dims] = {}

    def leaf(node: Node) -> Node:
        if node.op != CHILD:
            return node
        called = f"{node.attribute('name')}@{node.attribute('slot')}"
        children[called] = (node.attribute("name"), node.attribute("slot"))
        further[called] = node.dims
        return Node("input", (), (("name", called),), node.dims, node.name)

    for index, name in named.items():
        further[name] = graph.nodes[index].dims
    roots = [graph.output, *graph.new_states]
    nodes, place = copied(graph, roots, leaf, named)
    there = {n.attribute("name") for n in nodes if n.op == "input"}
    # x is there even where nothing reads it: it says how many rows there are.
    first = graph.inputs[0]
    inputs = [first, *(i for i in graph.inputs[1:] if i.name in there)]
    inputs += [Input(name, dims) for name, dims in further.items()]
    nodes += tuple(
        Node("input", (), (("name", i.name),), i.dims) for i in inputs if i.name not in there
    )
    return Graph(
        f"{graph.name}, nodes", nodes, tuple(inputs), graph.states, used(graph, nodes),
        place[graph.output], tuple(place[i] for i in graph.new_states), graph.equal,
    ), children  # fmt: skip


def copied(
    graph: Graph, roots: Iterable[int], leaf: Any, named: Mapping[int, str] | None = None
) -> tuple[tuple[Node, ...], dict[int, int]]:
    """The nodes that `roots` are made of, down to those that are `named` inputs."""
    named = named or {}
    keep, waiting = set(), list(roots)
    while waiting:
        index = waiting.pop()
        if index not in keep:
            keep.add(index)
            waiting.extend(() if index in named else graph.nodes[index].args)
    nodes: list[Node] = []
    place: dict[int, int] = {}
    for index in sorted(keep):
        node = graph.nodes[index]
        if index in named:
            node = Node("input", (), (("name", named[index]),), node.dims, node.name)
        elif node.args:
            node = node._replace(args=tuple(place[a] for a in node.args))
        elif node.op != "constant":
            node = leaf(node)
        place[index] = len(nodes)
        nodes.append(node)
    return tuple(nodes), place


def used(graph: Graph, nodes: Iterable[Node]) -> tuple[Parameter, ...]:
    """The parameters of an equation that some of its nodes read."""
    names = {n.attribute("name") for n in nodes if n.op == "parameter"}
    return tuple(p for p in graph.parameters if p.name in names)


def reduce_edges(kind: str, messages: Tensor, receivers: Tensor, nodes: int) -> Tensor:
    """Bring edges together.

    Args:
        kind: one of `REDUCTIONS`.
        messages: (edges, size).
        receivers: the node of each edge, (edges,), int64.
        nodes: their number.

    Returns:
        (nodes, size); zero for nodes without an edge.
    """
    result = messages.new_zeros(nodes, messages.shape[1])
    if kind == "total":
        return result.index_add(0, receivers, messages)
    if kind == "average":
        counts = messages.new_zeros(nodes).index_add(
            0, receivers, messages.new_ones(len(receivers))
        )
        return result.index_add(0, receivers, messages) / counts.clamp(min=1).unsqueeze(1)
    index = receivers.unsqueeze(1).expand_as(messages)
    return result.scatter_reduce(0, index, messages, "amax", include_self=False)
