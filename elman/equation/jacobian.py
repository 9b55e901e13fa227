"""The local Jacobians of one step: symbolic forward mode over a cell's graph.

For tangents ẋ, ṡ, θ̇ of what a step (y, s') = F(x, s, θ) reads, the forward mode is the graph of
ẏ, ṡ' = (∂F/∂x) ẋ + (∂F/∂s) ṡ + (∂F/∂θ) θ̇. It is a list of nodes like the step itself, so whatever
runs a graph runs it too.

Many a step is ONE PRODUCT STAGE: every product a_j = W_j v_j takes a vector that is an input or an
old state, unit by unit, and all else goes unit by unit. Its Jacobians are then made of diagonals:

    ∂s'_k/∂s_m = Σ_j diag(D_kj) W_j diag(F_jm) + diag(E_km)        D_kj = ∂s'_k/∂a_j
    ∂s'_k/∂W_j = diag(D_kj) ⊗ v_jᵀ: row i touches unit i alone     F_jm = ∂v_j/∂s_m

with E_km the ways from old to new states that pass no product. `local` derives D, E, F, or says
which operation hinders.

Source: Griewank & Walther 2008, "Evaluating Derivatives", section 3.1 (forward mode); Williams &
Zipser 1989 for the Jacobians of a step as what real-time recurrent learning needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from torch import Tensor

from elman.equation.adjoint import kept, needed
from elman.equation.derivatives import LINEAR, RULES, WHOLE, Expressions, Value
from elman.equation.evaluate import sizes_of, value_of
from elman.equation.graph import PARAMETER, STATE, Graph, Node

TANGENT = "_tangent"
INPUT = -1
LEAVES = ("input", "state", "parameter", "delayed")


@dataclass(frozen=True)
class _Derived:
    """Nodes that were derived from those of a step, and how to evaluate them."""

    graph: Graph
    nodes: tuple[Node, ...]

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """How often each node must be computed, as in `Graph.levels`; tangents as their values."""
        graph = self.graph
        leaves = {
            (n.op + TANGENT, n.attributes): level
            for n, level in zip(graph.nodes, graph.levels, strict=True)
            if n.op in LEAVES
        }
        levels = list(graph.levels)
        for node in self.nodes[len(levels) :]:
            own = leaves.get((node.op, node.attributes), PARAMETER)
            levels.append(max((levels[a] for a in node.args), default=own))
        return tuple(levels)

    def values(
        self,
        values: Sequence[Any],
        roots: Iterable[int],
        leaf: Mapping[tuple, Any] | None = None,
    ) -> dict[int, Any]:
        """The values of `roots`, and of what they are made of, from those of the step's nodes.

        Where one of those is None it is computed if it is needed.
        """
        found: dict[int, Any] = {i: v for i, v in enumerate(values) if v is not None}
        sizes = sizes_of(self.graph, values)
        for index in sorted(i for i in _missing(self.nodes, roots, found)):
            node = self.nodes[index]
            if node.op.endswith(TANGENT):
                found[index] = (leaf or {})[node.op, node.attributes]
            else:
                found[index] = value_of(node, self.nodes, self.levels, _List(found), sizes)
        return found


def _missing(nodes: Sequence[Node], roots: Iterable[int], known: Mapping[int, Any]) -> set[int]:
    """What must be computed for `roots`, given what is known."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        index = waiting.pop()
        if index not in found and index not in known:
            found.add(index)
            waiting.extend(nodes[index].args)
    return found


class _List(Sequence):
    """A mapping by place, read as a list with gaps."""

    def __init__(self, found: Mapping[int, Any]):
        self.found = found

    def __getitem__(self, place: Any) -> Any:
        return self.found[place]

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self):
        return iter(self.found.values())


@dataclass(frozen=True)
class Forward(_Derived):
    """One step's forward mode: the nodes of `graph`, at the same places, and then its own.

    The new leaves are the tangents of what the step reads: `input_tangent`, `state_tangent`,
    `parameter_tangent` and `delayed_tangent`, with the attributes of the leaf.

    Attributes:
        graph: the step.
        nodes: the step's nodes, then those of the tangents, in the order of computation.
        tangents: for each node of the step that depends on a tangent, the node of its own.

    Example:
        >>> import elman
        >>> made = forward(elman.cells.get("simple").graph)
        >>> made.nodes[made.tangents[made.graph.output]].op
        'mul'
    """

    tangents: Mapping[int, int]


@cache
def forward(graph: Graph, over: tuple[str, ...] = LEAVES) -> Forward:
    """Derive the forward mode of a step.

    Args:
        graph: one step of a cell, rewritten or not.
        over: the kinds of leaves that have tangents: of "input", "state", "parameter", "delayed";
            "x" is the first input alone.

    Returns:
        The forward mode, whose node i is the step's node i for every node of the step.

    Example:
        >>> import elman
        >>> graph = elman.cells.get("lstm").graph
        >>> len(forward(graph, ("state",)).nodes) < len(forward(graph).nodes)
        True

    Source: Griewank & Walther 2008, section 3.1.
    """
    walk = _Walk(graph)
    x = _leaf(graph, "input", graph.inputs[0].name) if "x" in over else -1
    for index, node in enumerate(graph.nodes):
        if node.op in over or index == x:
            walk.seed(index, walk.made.append(node.op + TANGENT, (), node.attributes, node.dims))
        elif node.args:
            walk.through(index)
    places = {i: t.index for i, t in walk.tangents.items() if t.number != 0}
    # Only what the step returns needs a tangent.
    roots = [places[i] for i in {graph.output, *graph.new_states} if i in places]
    nodes, place = kept(walk.made.nodes, roots, len(graph.nodes))
    return Forward(graph, nodes, {i: place[t] for i, t in places.items() if t in place})


def push_forward(
    made: Forward, values: Sequence[Any], tangents: Mapping[tuple[str, Any], Tensor]
) -> dict[int, Any]:
    """The tangents of what a step returns.

    Args:
        made: the forward mode.
        values: of the step's nodes, as `elman.equation.adjoint.step_values` gives them.
        tangents: of every leaf that has one, by kind and name: ("input", "x"), ("state", "h"),
            ("parameter", "W"), and ("delayed", ("h", 2)) for h two steps ago.

    Returns:
        By node of the step, the tangents of the output and the new states; what does not depend
        on a tangent is missing.

    Example:
        >>> import elman, torch
        >>> from elman.equation.adjoint import step_values
        >>> graph = elman.cells.get("simple").graph
        >>> weights = {"W": torch.eye(2), "U": 0.5 * torch.eye(2), "b": torch.zeros(2)}
        >>> zeros, ones = torch.zeros(1, 2), torch.ones(1, 2)
        >>> values = step_values(graph, weights, {"x": zeros}, {"h": zeros})
        >>> push_forward(forward(graph, ("state",)), values, {("state", "h"): ones})
        {9: tensor([[0.5000, 0.5000]])}
    """
    leaf = {}
    for node in made.nodes[len(made.graph.nodes) :]:
        if node.op.endswith(TANGENT):
            kind, name = node.op.removesuffix(TANGENT), node.attribute("name")
            key = (name, node.attribute("steps")) if kind == "delayed" else name
            leaf[node.op, node.attributes] = tangents[kind, key]
    wanted = [
        i for i in dict.fromkeys((made.graph.output, *made.graph.new_states)) if i in made.tangents
    ]
    found = made.values(values, [made.tangents[i] for i in wanted], leaf)
    return {i: found[made.tangents[i]] for i in wanted}


class _Walk:
    """The forward sweep: for each node of the step its tangent; what has none is zero."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.made = Expressions(graph.nodes)
        self.tangents: dict[int, Value] = {}

    def seed(self, index: int, tangent: Value) -> None:
        self.tangents[index] = tangent

    def through(self, index: int) -> None:
        """The tangent of a node from those of its operands."""
        node, made = self.graph.nodes[index], self.made
        operands = [Value(made, a) for a in node.args]
        terms = []
        for place, operand in enumerate(operands):
            d = self.tangents.get(operand.index)
            if d is None:
                continue
            if node.op in LINEAR:
                moved = [*operands[:place], d, *operands[place + 1 :]]
                term = made.call(node.op, *moved, **dict(node.attributes))
            else:
                attributes = dict(node.attributes)
                term = RULES[node.op](d, Value(made, index), *operands, **attributes)[place]
            if term.number is None:
                term = made.spread(term, node.dims)
            terms.append(term)
        total = made.sum(terms)
        if total.number != 0:
            self.tangents[index] = total


@dataclass(frozen=True)
class Local(_Derived):
    """The local Jacobians of a step that is one product stage, as factors unit by unit.

    Factors are nodes of `nodes`; what is missing is zero. A factor may be a constant, and a plain
    number when it is evaluated.

    Attributes:
        graph: the step.
        nodes: the step's nodes, then those of the factors.
        hindered: why the step is not one product stage, in words; "" if it is. Then all below is
            there.
        products: the nodes a = W v.
        onto: D, by new state (its place among the states) and product (its node).
        carried: E, by new and by old state; `INPUT` stands for x.
        into: F, by product and old state; so too.
        whole: an operation that takes more than one unit of x together before any product, so
            that E and F of x do not tell all; "" if there is none.
        vectors: the immediate influence of each other parameter, by new state and the parameter's
            node: of a vector unit by unit, of one number its whole column.

    Example:
        >>> import elman
        >>> local(elman.cells.get("gru_cho").graph).hindered
        "the product of 'U_n' takes a value that is made of other products"
        >>> lstm = local(elman.cells.get("lstm").graph)
        >>> len(lstm.products), len(lstm.onto), sorted(lstm.carried)
        (8, 14, [(0, 1), (1, 1)])
    """

    hindered: str = ""
    products: tuple[int, ...] = ()
    onto: Mapping[tuple[int, int], int] = field(default_factory=dict)
    carried: Mapping[tuple[int, int], int] = field(default_factory=dict)
    into: Mapping[tuple[int, int], int] = field(default_factory=dict)
    vectors: Mapping[tuple[int, int], int] = field(default_factory=dict)
    whole: str = ""

    @property
    def elementwise(self) -> bool:
        """Whether no product takes a state, so that every unit goes its own way."""
        return not self.hindered and not self.recurrent

    @property
    def recurrent(self) -> tuple[int, ...]:
        """The old states that enter products, by place."""
        return tuple(sorted({m for _, m in self.into if m != INPUT}))

    @property
    def factors(self) -> tuple[int, ...]:
        """Every factor, by node."""
        groups = (self.onto, self.carried, self.into, self.vectors)
        return tuple(dict.fromkeys(i for group in groups for i in group.values()))


@cache
def local(graph: Graph) -> Local:
    """Derive the local Jacobians of a step, or say what hinders.

    Args:
        graph: the step; the inner one of `elman.equation.split`, whose parameters are leaves, has
            the columns that influences are kept for.

    Returns:
        The factors D, E, F where the step is one product stage; else why it is not.

    Source: Williams & Zipser 1989, "A learning algorithm for continually running fully recurrent
    neural networks" (the simple network); the general form is ours.
    """
    reason = _hindrance(graph)
    if reason:
        return Local(graph, graph.nodes, reason)
    return _Stage(graph).local()


class _Stage:
    """The factors of one product stage, one seed at a time."""

    def __init__(self, graph: Graph):
        self.graph, self.made = graph, Expressions(graph.nodes)
        self.read = _read(graph)
        self.products = tuple(
            i for i in sorted(self.read) if graph.nodes[i].op == "matmul" and graph.levels[i]
        )
        self.leaves = {k: _leaf(graph, "state", s.name) for k, s in enumerate(graph.states)}
        self.leaves[INPUT] = _leaf(graph, "input", graph.inputs[0].name)

    def local(self) -> Local:
        graph = self.graph
        onto, carried, into, vectors = {}, {}, {}, {}
        for product in self.products:
            self._onto(product, onto)
        for place, index in self.leaves.items():
            found = self._pass(index)
            for k, new in enumerate(graph.new_states):
                self._put(carried, (k, place), found.get(new))
            for product in self.products:
                self._put(into, (product, place), found.get(graph.nodes[product].args[1]))
        for index in self._parameters():
            self._onto(index, vectors)
        groups = (onto, carried, into, vectors)
        roots = [i for group in groups for i in group.values()]
        nodes, place = kept(self.made.nodes, roots, len(graph.nodes))
        d, e, f, g = ({key: place[i] for key, i in group.items()} for group in groups)
        return Local(graph, nodes, "", self.products, d, e, f, g, self._whole())

    def _onto(self, seed: int, group: dict[tuple[int, int], int]) -> None:
        found = self._pass(seed)
        for k, new in enumerate(self.graph.new_states):
            self._put(group, (k, seed), found.get(new))

    @staticmethod
    def _put(group: dict, key: tuple[int, int], value: Value | None) -> None:
        if value is not None and value.number != 0:
            group[key] = value.index

    def _whole(self) -> str:
        """An operation that takes units of x together."""
        of_x = {self.leaves[INPUT]}
        for index in sorted(self.read):
            node = self.graph.nodes[index]
            if node.op != "matmul" and of_x & set(node.args):
                if node.op in WHOLE or any(
                    self.graph.nodes[a].dims != node.dims for a in node.args if a in of_x
                ):
                    return node.op
                of_x.add(index)
        return ""

    def _parameters(self) -> list[int]:
        """Nodes of parameters alone that meet rows' values unit by unit."""
        levels, nodes = self.graph.levels, self.graph.nodes
        weights = {nodes[p].args[0] for p in self.products}
        seen = {a for i in self.read if levels[i] != PARAMETER for a in nodes[i].args}
        seen |= set(self.graph.new_states)
        return sorted(
            i for i in seen - weights if levels[i] == PARAMETER and nodes[i].op != "constant"
        )

    def _pass(self, seed: int) -> dict[int, Value]:
        """The tangents for a seed of ones; products let none through."""
        walk = _Walk(self.graph)
        walk.made = self.made
        walk.seed(seed, self.made.lift(1.0))
        for index in sorted(self.read):
            node, alone = self.graph.nodes[index], self.graph.levels[index] == PARAMETER
            if index != seed and node.args and node.op not in WHOLE and not alone:
                walk.through(index)
        return walk.tangents


def _leaf(graph: Graph, op: str, name: str) -> int:
    """The node of a state or an input; -1 where nothing reads it."""
    found = (i for i, n in enumerate(graph.nodes) if n.op == op and n.attribute("name") == name)
    return next(found, -1)


def _read(graph: Graph) -> set[int]:
    """The nodes that the new states are made of."""
    return needed(graph.nodes, graph.new_states)


def _hindrance(graph: Graph) -> str:
    """Why a step is not one product stage; "" if it is."""
    for state in graph.states:
        if len(state.dims) != 1:
            kind = "a matrix" if state.dims else "one number"
            return f"the state {state.name!r} is {kind} for each row"
    nodes, levels = graph.nodes, graph.levels
    # What a row's value depends on: states, and parameters that have met a row.
    of_states = [False] * len(nodes)
    of_parameters = [False] * len(nodes)
    for index in sorted(_read(graph)):
        node = nodes[index]
        if levels[index] == PARAMETER:
            continue
        if node.op == "delayed" and levels[index] == STATE:
            return f"the state {node.attribute('name')!r} is read with a delay"
        of_states[index] = node.op == "state" or any(of_states[a] for a in node.args)
        of_parameters[index] = any(
            of_parameters[a] or (levels[a] == PARAMETER and nodes[a].op != "constant")
            for a in node.args
        )
        moving = [a for a in node.args if of_states[a] or of_parameters[a]]
        if node.op == "matmul":
            if of_parameters[node.args[1]]:
                return f"the product of {_named(graph, node.args[0])} takes a value that is " + (
                    "made of other products" if _has_product(graph, node.args[1]) else
                    "made of parameters"
                )  # fmt: skip
        elif node.op in WHOLE and (moving or of_parameters[index]):
            return f"the operation '{node.op}' takes more than one unit together"
        elif any(nodes[a].dims != node.dims for a in moving):
            return f"the operation '{node.op}' gives one number of a row to every unit"
    return ""


def _has_product(graph: Graph, index: int) -> bool:
    return any(
        graph.nodes[i].op in ("matmul", "bilinear") and graph.levels[i] != PARAMETER
        for i in needed(graph.nodes, [index])
    )


def _named(graph: Graph, index: int) -> str:
    node = graph.nodes[index]
    if node.op == "parameter":
        return repr(node.attribute("name"))
    return repr(node.name) if node.name else "a matrix made of parameters"
