"""The adjoint of one step: symbolic reverse mode over a cell's graph.

For a step (y, s') = F(x, s, θ) and cotangents ȳ, s̄' of what it returns, the adjoint is the graph of
x̄, s̄ = (∂F/∂x)ᵀ(ȳ, s̄'), (∂F/∂s)ᵀ(ȳ, s̄'), for each product a = W v the pair (ā, v) that makes up
W̄ = Σ ā vᵀ over all steps and rows at once, for a bilinear a = T(u, v) the triple (ā, u, v), and for
every other parameter its summand. It is a list of nodes like the step itself, so whatever runs a
graph runs the backward too.

Source: Griewank & Walther 2008, "Evaluating Derivatives", section 3.2 (incremental reverse mode);
the pairs (ā, v) as in Werbos 1990, "Backpropagation through time".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from torch import Tensor

from elman.equation.derivatives import RULES, Expressions, Value
from elman.equation.evaluate import sizes_of, value_of
from elman.equation.graph import PARAMETER, STATE, Graph, Node

OUTPUT, NEW_STATE = "output_cotangent", "state_cotangent"


class Product(NamedTuple):
    """A product W v of the step, by node: its gradient is the sum of `cotangent` `vector`ᵀ."""

    weight: int
    vector: int
    cotangent: int


class Bilinear(NamedTuple):
    """A product T(u, v) of the step, by node: its gradient is the sum of ā ⊗ u ⊗ v.

    ā is `cotangent`. Over all steps and rows at once this is the pair of `Product` again, with the
    vectors u ⊗ v as one vector each; nobody need keep those.
    """

    weight: int
    first: int
    second: int
    cotangent: int


@dataclass(frozen=True)
class Adjoint:
    """One step backwards: the nodes of `graph`, at the same places, and then its own.

    The two new kinds of leaves are `output_cotangent` and `state_cotangent` (of a new state, by
    name). The fields map what the step reads to the node of its cotangent; what the step does not
    depend on is missing. Cotangents are rows of a batch, as the values are, and have their sizes.

    Attributes:
        graph: the step.
        nodes: the step's nodes, then those of the adjoint, in the order of computation.
        inputs: by name; that of an input of a sequence is the step's summand.
        states: by name, of the old states.
        delayed: by name and number of steps ago.
        products: one for each product with a row's vector. The weight is a node that depends on
            parameters alone.
        bilinear: one for each bilinear product; so with its weight.
        vectors: for each other node that depends on parameters alone and enters a row's work, the
            summand of its gradient. It is to be summed over rows and steps. How parameters make up
            these nodes and the weights is no part of the adjoint; done once a call, under autograd.

    Example:
        >>> import elman
        >>> backward = adjoint(elman.cells.get("simple").graph)
        >>> backward.nodes[backward.states["h"]].op
        'matmul_transposed'
        >>> [backward.graph.nodes[p.weight].attribute("name") for p in backward.products]
        ['W', 'U']
    """

    graph: Graph
    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    states: Mapping[str, int]
    delayed: Mapping[tuple[str, int], int]
    products: tuple[Product, ...]
    bilinear: tuple[Bilinear, ...]
    vectors: Mapping[int, int]

    @property
    def results(self) -> tuple[int, ...]:
        """Every cotangent that the adjoint yields, by node, in the order of the fields."""
        pairs = (p.cotangent for p in (*self.products, *self.bilinear))
        named = (self.inputs, self.states, self.delayed, self.vectors)
        return (*(i for group in named for i in group.values()), *pairs)

    @cached_property
    def own(self) -> tuple[int, ...]:
        """The adjoint's own operations: no nodes of the step, no leaves, no constants."""
        first = len(self.graph.nodes)
        return tuple(i for i in range(first, len(self.nodes)) if self.nodes[i].args)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """How often each node must be computed, as in `Graph.levels`; cotangents at each step."""
        levels = list(self.graph.levels)
        for node in self.nodes[len(levels) :]:
            level = max((levels[a] for a in node.args), default=PARAMETER)
            levels.append(STATE if node.op in (OUTPUT, NEW_STATE) else level)
        return tuple(levels)

    @cached_property
    def moved(self) -> tuple[bool, ...]:
        """For each node whether it depends on a cotangent; what does not is a forward value."""
        moved: list[bool] = []
        for node in self.nodes:
            moved.append(node.op in (OUTPUT, NEW_STATE) or any(moved[a] for a in node.args))
        return tuple(moved)

    @property
    def factors(self) -> set[int]:
        """The values of the step that weights' gradients are made of, beside cotangents."""
        pairs = {p.vector for p in self.products}
        return pairs | {i for b in self.bilinear for i in (b.first, b.second)}

    @cached_property
    def reads(self) -> tuple[int, ...]:
        """The step's values that its adjoint reads, and the factors of the weights' gradients.

        Constants and what depends on parameters alone are left out. Which of these to save, and
        which to compute again, is for `elman.equation.saving` to say.
        """
        first = len(self.graph.nodes)
        read = {a for i in self.own for a in self.nodes[i].args if a < first}
        read |= self.factors
        return tuple(i for i in sorted(read) if self.levels[i] != PARAMETER)

    def needed(self, roots: Iterable[int]) -> tuple[int, ...]:
        """The adjoint's own operations that `roots` are computed from, in order."""
        keep = needed(self.nodes, roots)
        return tuple(i for i in self.own if i in keep)

    @cached_property
    def walk(self) -> tuple[int, ...]:
        """The own operations of the walk back over time: those which old states' cotangents need.

        All others may be done for all steps at once when the walk is over, if the operands of
        theirs that are in the walk are kept.
        """
        names = {s.name for s in self.graph.states}
        delayed = (index for (name, _), index in self.delayed.items() if name in names)
        return self.needed((*self.states.values(), *delayed))


def adjoint(graph: Graph) -> Adjoint:
    """Derive the adjoint of a step.

    The cotangent of node v is v̄ = Σ (∂u/∂v)ᵀ ū over the nodes u that read it, in reverse order;
    the rules are those of `elman.equation.derivatives`. Nothing is computed twice, multiplied by
    one or zero, or computed for nothing; common factors of a sum are taken out.

    Args:
        graph: one step of a cell, rewritten or not.

    Returns:
        The adjoint, whose node i is the step's node i for every node of the step.

    Example:
        >>> import elman
        >>> len(adjoint(elman.cells.get("lstm").graph).own)
        37

    Source: Griewank & Walther 2008, section 3.2.
    """
    reverse = _Reverse(graph)
    for index in reversed(range(len(graph.nodes))):
        if graph.levels[index] != PARAMETER and reverse.terms[index]:
            reverse.through(index)
    return reverse.adjoint()


class _Reverse:
    """The reverse sweep: for each node of the step the terms of its cotangent."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.made = Expressions(graph.nodes)
        self.terms: list[list[Value]] = [[] for _ in graph.nodes]
        self.products: list[Product] = []
        self.bilinear: list[Bilinear] = []
        self.leaves: dict[tuple, list[Value]] = {}
        self._seed(graph.output, OUTPUT, ())
        for state, index in zip(graph.states, graph.new_states, strict=True):
            self._seed(index, NEW_STATE, (("name", state.name),))

    def _seed(self, index: int, op: str, attributes: tuple) -> None:
        leaf = self.made.append(op, (), attributes, self.graph.nodes[index].dims)
        self.terms[index].append(leaf)

    def through(self, index: int) -> None:
        """Pass the cotangent of a node on to its operands."""
        node, made = self.graph.nodes[index], self.made
        total = made.sum(self.terms[index])
        if total.number == 0:
            return
        if not node.args:
            self.leaves.setdefault((node.op, node.attributes), []).append(total)
        elif node.op == "matmul":
            weight, vector = node.args
            self.products.append(Product(weight, vector, total.index))
            self._give(vector, made.transposed(weight, total))
        elif node.op == "bilinear":
            weight, first, second = (Value(made, a) for a in node.args)
            places = weight.index, first.index, second.index
            self.bilinear.append(Bilinear(*places, total.index))
            self._give(first.index, made.call("bilinear_first", weight, total, second))
            self._give(second.index, made.call("bilinear_second", weight, total, first))
        else:
            operands = [Value(made, a) for a in node.args]
            values = Value(made, index), *operands
            parts = RULES[node.op](total, *values, **dict(node.attributes))
            for operand, part in zip(operands, parts, strict=True):
                self._give(operand.index, part)

    def _give(self, index: int, term: Value) -> None:
        node = self.graph.nodes[index]
        if node.op == "constant" or term.number == 0:
            return
        # One number that met every unit hears from every unit.
        self.terms[index].append(self.made.reduced(term, node.dims))

    def adjoint(self) -> Adjoint:
        leaves = {key: self.made.sum(terms).index for key, terms in self.leaves.items()}
        vectors = {
            index: self.made.sum(self.terms[index]).index
            for index, level in enumerate(self.graph.levels)
            if level == PARAMETER and self.terms[index]
        }
        pairs = (p.cotangent for p in (*self.products, *self.bilinear))
        found = (*leaves.values(), *vectors.values(), *pairs)
        nodes, place = kept(self.made.nodes, found, len(self.graph.nodes))

        def of(op: str) -> dict[str, int]:
            named = (
                (dict(attributes), i) for (kind, attributes), i in leaves.items() if kind == op
            )
            return {attributes["name"]: place[i] for attributes, i in named}

        delayed = {
            (dict(attributes)["name"], dict(attributes)["steps"]): place[i]
            for (kind, attributes), i in leaves.items()
            if kind == "delayed"
        }
        return Adjoint(
            self.graph, nodes, of("input"), of("state"), delayed,
            tuple(p._replace(cotangent=place[p.cotangent]) for p in reversed(self.products)),
            tuple(b._replace(cotangent=place[b.cotangent]) for b in reversed(self.bilinear)),
            {index: place[i] for index, i in vectors.items()},
        )  # fmt: skip


def needed(nodes: Sequence[Node], roots: Iterable[int]) -> set[int]:
    """The nodes that `roots` are made of, themselves among them."""
    keep: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in keep:
            keep.add(index)
            waiting.extend(nodes[index].args)
    return keep


def kept(nodes: Sequence[Node], roots: Iterable[int], first: int):
    """The first nodes and those that `roots` need; with the new place of each."""
    keep = needed(nodes, roots) | set(range(first))
    place = {index: position for position, index in enumerate(sorted(keep))}
    kept = (nodes[i]._replace(args=tuple(place[a] for a in nodes[i].args)) for i in sorted(keep))
    return tuple(kept), place


def step_values(
    graph: Graph,
    parameters: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    delayed: Mapping[tuple[str, int], Tensor] | None = None,
) -> list[Any]:
    """The values of all nodes of one step.

    Args:
        graph: the step.
        parameters: a tensor for each parameter, by name.
        inputs: x and the further inputs, by name, with the shapes below.
        states: the old states, by name.
        delayed: what `elman.delay` reads, by name and number of steps.

    Shapes:
        What a row has for itself is (batch, …): a scalar (batch,), a vector (batch, size), a matrix
        (batch, rows, columns).

    Returns:
        A list as long as `graph.nodes`. Values that depend on parameters alone have no batch;
        constants are plain numbers.
    """
    given = {"input": inputs, "state": states, "parameter": parameters}

    def leaf(node: Node) -> Tensor:
        if node.op == "delayed":
            return (delayed or {})[node.attribute("name"), node.attribute("steps")]
        return given[node.op][node.attribute("name")]

    values: list[Any] = []
    for node in graph.nodes:
        if node.args or node.op == "constant":
            values.append(value_of(node, graph.nodes, graph.levels, values))
        else:
            values.append(leaf(node))
    return values


def pull_back(
    backward: Adjoint, values: Sequence[Any], output: Tensor, states: Mapping[str, Tensor]
) -> list[Any]:
    """The values of all nodes of an adjoint: one step backwards.

    Args:
        backward: the adjoint.
        values: of the step's nodes, as `step_values` gives them.
        output: the cotangent of the step's output, (batch, size).
        states: the cotangents of the new states, by name, each of its state's shape.

    Returns:
        A list as long as `backward.nodes`; `backward.states["h"]` is the place of the cotangent
        of h, and so on. Cotangents have the shapes of their values, those of `backward.vectors`
        with a batch before them.

    Example:
        >>> import elman, torch
        >>> graph = elman.cells.get("simple").graph
        >>> weights = {"W": torch.eye(2), "U": 0.5 * torch.eye(2), "b": torch.zeros(2)}
        >>> zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
        >>> values = step_values(graph, weights, {"x": zeros}, {"h": zeros})
        >>> backward = adjoint(graph)
        >>> pulled = pull_back(backward, values, ones, {"h": zeros})
        >>> pulled[backward.states["h"]]
        tensor([[0.5000, 0.5000]])
    """
    results, sizes = list(values), sizes_of(backward.graph, values)
    for node in backward.nodes[len(results) :]:
        if node.op == OUTPUT:
            results.append(output)
        elif node.op == NEW_STATE:
            results.append(states[node.attribute("name")])
        else:
            results.append(value_of(node, backward.nodes, backward.levels, results, sizes))
    return results
