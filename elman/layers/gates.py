"""Which bias opens the gate that keeps a state: read off the equation, for every cell alike.

A new state that is written out as a sum of products, s' = k ⊙ s + …, keeps its old value by the
coefficient k. Where k is a logistic gate, σ(… + b) or 1 − σ(… + b), the vector b says how long the
state lasts before anything is learned.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from elman.equation import Graph
from elman.equation.graph import STATE, Node

_MOST_TERMS = 64  # of a state written out; real equations have a handful
Term = tuple[float, tuple[int, ...]]  # a number times nodes


class Gate(NamedTuple):
    """A logistic gate of a cell.

    Attributes:
        state: name of the state that it keeps or writes.
        biases: names of the vectors that are added before the logistic function.
        sign: 1 where a large bias opens the gate, −1 where it closes it (the bias is subtracted,
            or the gate acts as 1 − σ).
    """

    state: str
    biases: tuple[str, ...]
    sign: int


class Keeping(NamedTuple):
    """How one state is kept: by which gate, and which other gates write into it."""

    keep: Gate
    write: tuple[Gate, ...]


@cache
def keeping(graph: Graph) -> tuple[Keeping, ...]:
    """Find the gates that keep the states of a step, with those that write into them.

    Returns:
        one entry for each state s with s' = k ⊙ s + …, where k is σ(a) or 1 − σ(a) with a vector
        of parameters added in a. Where the same gate also writes (coupled gates, a GRU) `write`
        is empty.

    Example:
        >>> import elman
        >>> ((keep, write),) = keeping(elman.cells.get("lstm").graph)
        >>> keep, write[0].biases
        (Gate(state='c', biases=('b_f',), sign=1), ('b_i',))
        >>> keeping(elman.cells.get("mgu").graph)[0].keep
        Gate(state='h', biases=('b_f',), sign=-1)
    """
    found = []
    for state, new in zip(graph.states, graph.new_states, strict=True):
        terms = _terms(graph, new)
        kept = [_without(t, _state(graph, state.name)) for t in terms]
        gate, sign = _logistic(graph, [t for t in kept if t is not None])
        if gate is None:
            continue
        keep = _gate(graph, state.name, gate, sign)
        if keep is None:
            continue
        others = {
            i: None
            for (_, nodes), was in zip(terms, kept, strict=True)
            for i in nodes
            if was is None and i != gate and graph.nodes[i].op == "sigmoid"
        }
        gates = (_gate(graph, state.name, i, 1) for i in others)
        # JANET writes by 1 − σ(a − β) with the a of its forget gate: one bias cannot serve both.
        write = (g for g in gates if g is not None and not set(g.biases) & set(keep.biases))
        found.append(Keeping(keep, tuple(write)))
    return tuple(found)


def state_matrices(graph: Graph) -> tuple[str, ...]:
    """Return the names of the matrices that multiply something made of the old states.

    A matrix that is computed from parameters, such as W − Wᵀ, is not among them.

    Example:
        >>> import elman
        >>> state_matrices(elman.cells.get("gru").graph)
        ('U_r', 'U_z', 'U_n')
    """
    found: dict[str, None] = {}
    for node in graph.nodes:
        if node.op not in ("matmul", "matvec"):
            continue
        matrix, vector = node.args
        if graph.nodes[matrix].op == "parameter" and graph.levels[vector] == STATE:
            found[graph.nodes[matrix].attribute("name")] = None
    return tuple(found)


def _state(graph: Graph, name: str) -> int:
    at = (i for i, n in enumerate(graph.nodes) if n.op == "state" and n.attribute("name") == name)
    return next(at, -1)


def _terms(graph: Graph, index: int) -> list[Term]:
    """A node written out as a sum of numbers times nodes; itself where it is too long."""
    node = graph.nodes[index]
    if node.op == "constant":
        return [(node.attribute("value"), ())]
    if node.op == "neg":
        return [(-number, nodes) for number, nodes in _terms(graph, node.args[0])]
    if node.op in ("add", "sub"):
        sign = 1.0 if node.op == "add" else -1.0
        other = [(sign * n, nodes) for n, nodes in _terms(graph, node.args[1])]
        return _summed(_terms(graph, node.args[0]) + other)
    if node.op == "mul":
        one, other = (_terms(graph, a) for a in node.args)
        if len(one) * len(other) <= _MOST_TERMS:
            return _summed([(m * n, (*a, *b)) for m, a in one for n, b in other])
    return [(1.0, (index,))]


def _summed(terms: list[Term]) -> list[Term]:
    """Terms of the same nodes put together; what cancels is gone."""
    total: dict[tuple[int, ...], float] = {}
    for number, nodes in terms:
        key = tuple(sorted(nodes))
        total[key] = total.get(key, 0.0) + number
    return [(number, nodes) for nodes, number in total.items() if number]


def _without(term: Term, state: int) -> Term | None:
    """A term divided by the state; None where the state is not in it."""
    number, nodes = term
    if state not in nodes:
        return None
    rest = list(nodes)
    rest.remove(state)
    return number, tuple(rest)


def _logistic(graph: Graph, terms: list[Term]) -> tuple[int | None, int]:
    """The gate and its sign of a coefficient σ(a) or 1 − σ(a); None where it is neither."""
    gates = [(number, nodes) for number, nodes in terms if nodes]
    numbers = sum(number for number, nodes in terms if not nodes)
    if len(gates) != 1 or len(gates[0][1]) != 1:
        return None, 0
    number, (gate,) = gates[0]
    if graph.nodes[gate].op != "sigmoid" or (number, numbers) not in ((1.0, 0.0), (-1.0, 1.0)):
        return None, 0
    return gate, int(number)


def _gate(graph: Graph, state: str, index: int, sign: int) -> Gate | None:
    """A gate with the vectors added in it; None where there are none, or not with one sign."""
    biases: dict[str, float] = {}
    for number, nodes in _terms(graph, graph.nodes[index].args[0]):
        if len(nodes) == 1 and _is_vector(graph.nodes[nodes[0]]) and _only_gates(graph, nodes[0]):
            biases[graph.nodes[nodes[0]].attribute("name")] = number
    signs = set(biases.values())
    if signs not in ({1.0}, {-1.0}):
        return None
    return Gate(state, tuple(biases), sign * int(signs.pop()))


def _is_vector(node: Node) -> bool:
    return node.op == "parameter" and len(node.dims) == 1


def _only_gates(graph: Graph, vector: int) -> bool:
    """Whether a vector reaches what the step gives only through logistic functions."""
    reached = {vector}
    for index, node in enumerate(graph.nodes):
        if node.op != "sigmoid" and reached.intersection(node.args):
            reached.add(index)
    return not reached.intersection((graph.output, *graph.new_states))
