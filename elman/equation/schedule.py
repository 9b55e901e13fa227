"""The order of work of a kernel: what is gathered before, within and after the walk over time.

A step becomes phases. Each phase is loops, one a size, that go element by element over the rows,
and then the products that what the loops made allows. Sums of products that see only inputs are
gathered before the walk, for many steps at once; in the backward, the products that give the
inputs' cotangents come after it. Loops compute what the next products need, and all else at the
end, so that little is kept between them.

Source: the division of an RNN's products into those of the input and those of the state as in
Appleyard, Kočiský & Blunsom 2016, "Optimizing performance of recurrent neural networks on GPUs".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from elman.equation.adjoint import NEW_STATE, OUTPUT, Adjoint, adjoint
from elman.equation.graph import Graph
from elman.equation.lowering import (
    GATHER,
    LEAF_OPS,
    ONE,
    ROW_MAX,
    ROW_SUM,
    Gather,
    Lowered,
    Op,
    Unsupported,
    size_of,
)
from elman.equation.saving import saving
from elman.equation.split import Split, split

REDUCTIONS = (ROW_SUM, ROW_MAX)
Role = tuple
"""What a root is: ("out",), ("state", name), ("saved", node), ("carry", name), …"""


@dataclass(frozen=True)
class Loop:
    """Values of one size, computed element by element, and the sums over the units taken there."""

    size: str
    values: tuple[int, ...]
    reductions: tuple[int, ...]


@dataclass(frozen=True)
class Products:
    """Gathers whose vectors are all at hand."""

    gathers: tuple[int, ...]


@dataclass(frozen=True)
class Root:
    """A value that leaves the step: its role, and the name of its size."""

    role: Role
    value: int
    size: str


@dataclass(frozen=True)
class Program:
    """One step as a kernel walks it.

    Attributes:
        ops: the values, operands before what reads them.
        gathers: the sums of products, by value.
        before: gathers over many steps at once, whose vectors are inputs of the step.
        items: loops and products of a step, in order.
        after: gathers over many steps at once, of what the steps left.
        roots: what leaves the step.
    """

    ops: tuple[Op, ...]
    gathers: Mapping[int, Gather]
    before: tuple[int, ...]
    items: tuple[Loop | Products, ...]
    after: tuple[int, ...]
    roots: tuple[Root, ...]

    def place(self, value: int) -> int:
        """The place among the items where a value is made; −1 for what is there before."""
        return self._places.get(value, -1)

    @cached_property
    def _places(self) -> dict[int, int]:
        made: dict[int, int] = {}
        for place, item in enumerate(self.items):
            values = (*item.values, *item.reductions) if isinstance(item, Loop) else item.gathers
            made |= dict.fromkeys(values, place)
        return made


@dataclass(frozen=True)
class Schedule:
    """Forward and backward of a cell.

    Attributes:
        split: what torch does once a call, and the inner step.
        backward: the adjoint of the inner step.
        saved: the nodes whose values the forward keeps for the backward.
        training: the forward that keeps them.
        inference: the forward that keeps nothing.
        adjoint: the backward.
        factors: the vectors of products that the backward makes again, and keeps.
    """

    split: Split
    backward: Adjoint
    saved: tuple[int, ...]
    training: Program
    inference: Program
    adjoint: Program
    factors: tuple[int, ...]

    def adjoint_of(self, planes: tuple[str, ...]) -> Program:
        """The backward where the cotangents of these states are kept for every step."""
        if planes == lined(self.split.inner):
            return self.adjoint
        return _backward(self.backward, self.saved, self.factors, planes)

    @property
    def elementwise(self) -> bool:
        """Whether no new state needs a product of a state, so that units walk apart, as in a
        linear recurrence with a gate for each unit."""
        program = self.training
        waiting = [root.value for root in program.roots if root.role[0] == "state"]
        seen: set[int] = set()
        while waiting:
            value = waiting.pop()
            if value not in seen:
                seen.add(value)
                waiting.extend(program.ops[value].args)
        walked = {g for item in program.items if isinstance(item, Products) for g in item.gathers}
        return not seen & walked


@cache
def schedule(graph: Graph) -> Schedule:
    """The schedule of a cell.

    Raises:
        Unsupported: no kernel can serve the step; the message names the operation.

    Example:
        >>> import elman
        >>> plan = schedule(elman.cells.get("lstm").graph)
        >>> [type(item).__name__ for item in plan.training.items]
        ['Products', 'Loop']
        >>> len(plan.training.before), len(plan.adjoint.after)
        (4, 1)
    """
    both = split(graph)
    _refuse_matrices(both.inner)
    backward = adjoint(both.inner)
    if backward.bilinear:
        raise Unsupported("the operation 'bilinear' multiplies three sizes at once")
    chosen = saving(backward)
    factors = _factors(backward, chosen.saved)
    return Schedule(
        both,
        backward,
        chosen.saved,
        _forward(backward, chosen.saved),
        _forward(backward, ()),
        _backward(backward, chosen.saved, factors, lined(both.inner)),
        factors,
    )


def lined(graph: Graph) -> tuple[str, ...]:
    """The states that are read with a delay."""
    return tuple(line.name for line in graph.lines if line.kind == "state")


def _refuse_matrices(graph: Graph) -> None:
    for kind, group in (("state", graph.states), ("input", graph.inputs)):
        for each in group:
            if len(each.dims) > 1:
                raise Unsupported(f"the {kind} {each.name!r} is a matrix for each row")
    for index, node in enumerate(graph.nodes):
        if graph.levels[index] and len(node.dims) > 1:
            raise Unsupported(f"the operation '{node.op}' makes a matrix for each row")


def _factors(backward: Adjoint, saved: Sequence[int]) -> tuple[int, ...]:
    """The vectors of products that are neither inputs, states nor saved: made again, and kept."""
    nodes = backward.graph.nodes
    vectors = {p.vector for p in backward.products}
    return tuple(
        i for i in sorted(vectors)
        if i not in saved and nodes[i].op not in ("input", "state", "delayed")
    )  # fmt: skip


def _leaves(graph: Graph) -> dict[int, tuple]:
    """For each leaf of the inner step the operation of its value."""
    varies = {i.name: i.varies for i in graph.inputs}
    leaves: dict[int, tuple] = {}
    for index, node in enumerate(graph.nodes):
        if node.op == "parameter" and len(node.dims) < 2:
            leaves[index] = ("vector", node.attributes)
        elif node.op == "input":
            leaves[index] = (varies[node.attribute("name")], node.attributes)
        elif node.op in ("state", "delayed"):
            leaves[index] = (node.op, node.attributes)
    return leaves


def _forward(backward: Adjoint, saved: Sequence[int]) -> Program:
    graph = backward.graph
    wanted: list[tuple[tuple, int]] = [(("saved", i), i) for i in saved]
    wanted += [(("state", s.name), i) for s, i in zip(graph.states, graph.new_states, strict=True)]
    if graph.output not in graph.new_states:
        wanted.append((("out",), graph.output))
    low = Lowered(backward.nodes, backward.levels, _leaves(graph), [i for _, i in wanted])
    roots = tuple(
        Root(role, low.wide(low.value(i), size_of(backward.nodes[i])), size_of(backward.nodes[i]))
        for role, i in wanted
    )  # fmt: skip
    before = [
        i for i, gather in low.gathers.items()
        if all(low.ops[t.vector].op == "step" for t in gather.terms)
    ]  # fmt: skip
    hoisted = [
        i for i, gather in low.gathers.items()
        if any(low.ops[t.vector].op == "step" for t in gather.terms)
    ]  # fmt: skip
    return _program(low, roots, before=before, hoisted=hoisted, after=[])


def _backward(
    backward: Adjoint, saved: Sequence[int], factors: Sequence[int], planes: Sequence[str]
) -> Program:
    nodes = backward.nodes
    leaves = _leaves(backward.graph) | {i: ("forward", (("node", i),)) for i in saved}
    for state, i in zip(backward.graph.states, backward.graph.new_states, strict=True):
        leaves.setdefault(i, ("forward", (("state", state.name),)))
    for i, node in enumerate(nodes):
        if node.op in (OUTPUT, NEW_STATE):
            leaves[i] = (node.op, node.attributes)
    states = {s.name for s in backward.graph.states}
    steps = {i.name for i in backward.graph.inputs if i.varies == "step"}
    wanted = [(("cotangent", p.cotangent), p.cotangent) for p in backward.products]
    wanted += [(("carry", name), i) for name, i in backward.states.items()]
    wanted += [(("delayed", *key), i) for key, i in backward.delayed.items() if key[0] in states]
    wanted += [(("vector", v), i) for v, i in backward.vectors.items()]
    wanted += [
        (("step" if name in steps else "sequence", name), i) for name, i in backward.inputs.items()
    ]
    wanted += [(("factor", i), i) for i in factors]
    wanted = list(dict(wanted).items())
    low = Lowered(nodes, backward.levels, leaves, [i for _, i in wanted])
    roots = tuple(
        Root(
            role,
            low.wide(low.sum_root(i) if _alone(role, planes) else low.value(i), size_of(nodes[i])),
            size_of(nodes[i]),
        )
        for role, i in wanted
    )
    roots += tuple(
        Root(("carry", s.name), low.append("constant", value=0.0), s.dims[0] if s.dims else ONE)
        for s in backward.graph.states if s.name not in backward.states and s.name not in planes
    )  # fmt: skip
    # What meets one weight more than once meets it as a sum, which no product of its own is.
    placed = {root.value for root in roots if root.role[0] == "cotangent"}
    sums = dict.fromkeys(t.vector for gather in low.gathers.values() for t in gather.terms)
    roots += tuple(
        Root(("cotangent", ("sum", v)), v, low.ops[v].size) for v in sums if v not in placed
    )
    inputs = [root.value for root in roots if root.role[0] == "step"]
    # Steps read what is made in them: another product, another root, or the same for two inputs.
    read = {a for op in low.ops for a in op.args}
    read |= {root.value for root in roots if root.role[0] != "step"}
    after = [i for i in low.gathers if inputs.count(i) == 1 and i not in read]
    return _program(low, roots, before=[], hoisted=[], after=after)


def _alone(role: Role, planes: Sequence[str]) -> bool:
    """Whether a root has a place of its own that products may add to."""
    return role[0] == "step" or (role[0] == "carry" and role[1] not in planes)


def _program(
    low: Lowered,
    roots: tuple[Root, ...],
    *,
    before: list[int],
    hoisted: list[int],
    after: list[int],
) -> Program:
    ordered = sorted(hoisted, key=lambda i: i not in before)
    items = _Phases(low, roots, set(before), set(after)).items()
    return Program(
        tuple(low.ops), dict(low.gathers), tuple(ordered), tuple(items), tuple(after), roots
    )


class _Phases:
    """Puts the values of a step in phases."""

    def __init__(self, low: Lowered, roots: tuple[Root, ...], before: set[int], after: set[int]):
        self.low, self.ops = low, low.ops
        self.done = {i for i, op in enumerate(low.ops) if op.op in LEAF_OPS} | before
        self.after = after
        self.wanted = {r.value for r in roots if r.value not in after}
        for gather in after:
            start = low.gathers[gather].start
            if start is not None:
                self.wanted.add(start)
        needed = self._behind(self.wanted, set())
        self.pending = {
            i for i in needed if i not in self.done and self.ops[i].op in (GATHER, *REDUCTIONS)
        }
        self.made: list[Loop | Products] = []

    def items(self) -> list[Loop | Products]:
        while self.pending:
            ready = [i for i in sorted(self.pending) if not self._barriers(i)]
            targets = {a for i in ready for a in self.ops[i].args}
            reductions = [i for i in ready if self.ops[i].op != GATHER]
            gathers = tuple(i for i in ready if self.ops[i].op == GATHER)
            self._loops(targets | self._beside(targets), reductions)
            if gathers:
                self.made.append(Products(gathers))
            self.done |= set(ready)
            self.pending -= set(ready)
        self._loops(self.wanted, [])
        return self.made

    def _beside(self, targets: set[int]) -> set[int]:
        """The roots that wait for no product and share work with the targets."""
        shared = self._behind(targets, self.done) - self.done
        found = set()
        for root in self.wanted - self.done:
            behind = self._behind([root], self.done) - self.done
            if behind & shared and not behind & self.pending:
                found.add(root)
        return found

    def _behind(self, roots: Iterable[int], stop: set[int]) -> set[int]:
        seen: set[int] = set()
        waiting = list(roots)
        while waiting:
            i = waiting.pop()
            if i not in seen and i not in stop:
                seen.add(i)
                waiting.extend(self.ops[i].args)
        return seen

    def _barriers(self, index: int) -> bool:
        """Whether something else that is pending comes before a pending value."""
        return bool(self._behind(self.ops[index].args, self.done) & self.pending)

    def _loops(self, targets: Iterable[int], reductions: list[int]) -> None:
        """Loops that make the targets, as few as may be, and take the reductions there."""
        waiting = self._behind(targets, self.done) - self.done
        left = list(reductions)
        while waiting or left:
            size, values = self._largest(waiting)
            here = []
            for r in left:
                (operand,) = self.ops[r].args
                at_hand = operand in self.done or operand in values
                if at_hand and (not values or self.ops[r].attribute("over") == size):
                    here.append(r)
            if not values:
                here = [r for r in here if self._over(r) == self._over(here[0])]
                size = self._over(here[0])
            self.made.append(Loop(size, tuple(values), tuple(here)))
            self.done |= set(values)
            waiting -= set(values)
            left = [r for r in left if r not in here]

    def _over(self, reduction: int) -> str:
        return self.ops[reduction].attribute("over")

    def _largest(self, waiting: set[int]) -> tuple[str, list[int]]:
        """What can be computed now in one size; numbers a row first, since all else may read
        them, then the size with the most to compute."""
        best: tuple[str, list[int]] = (ONE, [])
        for size in sorted({self.ops[i].size for i in waiting}):
            values: list[int] = []
            for i in sorted(waiting):
                op = self.ops[i]
                if op.size == size and all(a in self.done or a in values for a in op.args):
                    values.append(i)
            if size == ONE and values:
                return size, values
            if len(values) > len(best[1]):
                best = size, values
        return best
