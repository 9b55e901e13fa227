"""One step of a cell as a graph: inputs, states, delays, parameters, products, pointwise work.

Nodes stand in the order of computation, so that a node's operands always come before it. A
graph knows sizes by name ("input", "hidden", …), never by number: the numbers come with a layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from elman.equation.operations import OPERATIONS
from elman.equation.sizes import Dims, names_in, number, shape_of
from elman.errors import SizeError

Initialiser = str | float


class Node(NamedTuple):
    """One value of the step: operation, operands (indices of nodes), attributes, named sizes.

    `name` is the name the cell's author gave the value, kept for the written equation.
    """

    op: str
    args: tuple[int, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    dims: tuple[str, ...] = ()
    name: str = ""

    def attribute(self, key: str) -> Any:
        return dict(self.attributes)[key]


class Parameter(NamedTuple):
    """A trained tensor and how it starts: a scalar (), vector, matrix (rows, columns), or more."""

    name: str
    dims: Dims
    init: Initialiser = "uniform"


class State(NamedTuple):
    """A value kept from step to step, a vector or a matrix, and the constant it starts with."""

    name: str
    dims: Dims
    initial: float = 0.0


class Input(NamedTuple):
    """A value from outside: new at each step, or one for a whole sequence (a dropout mask), or, in
    a graph, for each edge."""

    name: str
    dims: Dims
    varies: str = "step"


class Line(NamedTuple):
    """A delay line: the `depth` values of an input or a state before the one at hand."""

    kind: str
    name: str
    depth: int
    dims: Dims


class Counts(NamedTuple):
    """Numbers of trained values and of arithmetic operations of a step and row."""

    parameters: int
    operations: int


@dataclass(frozen=True)
class Graph:
    """One step of a cell: `nodes` in the order of computation, and what goes in and out.

    The first of `inputs` is x. `output` and `new_states` are indices of nodes. `equal` lists
    pairs of sizes which the equation forces to agree, each with the later name in use.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    states: tuple[State, ...]
    parameters: tuple[Parameter, ...]
    output: int
    new_states: tuple[int, ...]
    equal: tuple[tuple[str, str], ...] = ()

    def __eq__(self, other: object) -> bool:
        """Structural equality: the same computation on the same names, whatever the cell's name."""
        if not isinstance(other, Graph):
            return NotImplemented
        return self._structure == other._structure

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self._structure)

    @cached_property
    def _structure(self) -> tuple:
        nodes = tuple(node._replace(name="") for node in self.nodes)
        shapes = tuple((p.name, p.dims) for p in self.parameters)
        return nodes, self.inputs, self.states, shapes, self.output, self.new_states, self.equal

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """The names of the sizes that a layer must give, "input" and "hidden" first."""
        names = {"input": None, "hidden": None}
        for declared in (*self.inputs, *self.states, *self.parameters):
            names |= dict.fromkeys(names_in(declared.dims))
        return tuple(names)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The delay lines that a step reads, inputs before states.

        An input's line holds x_{t-1}, …, x_{t-K}; a state's h_{t-2}, …, h_{t-K}, since
        h_{t-1} is the state itself.
        """
        deepest: dict[str, int] = {}
        for node in self.nodes:
            if node.op == "delayed":
                name, steps = node.attribute("name"), node.attribute("steps")
                deepest[name] = max(deepest.get(name, 0), steps)
        of_inputs = [
            Line("input", i.name, deepest[i.name], i.dims) for i in self.inputs if i.name in deepest
        ]
        of_states = [
            Line("state", s.name, deepest[s.name] - 1, s.dims)
            for s in self.states
            if s.name in deepest
        ]
        return (*of_inputs, *of_states)

    @property
    def output_size(self) -> str:
        """The name of the size of the step's output."""
        return self.nodes[self.output].dims[0]

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise SizeError where a size is missing, not a positive whole number, or must equal
        another and does not."""
        for name in self.sizes:
            size = sizes.get(name)
            if size is None:
                raise SizeError(
                    f"{self.name}: the size {name!r} is not given; give sizes={{{name!r}: …}}"
                )
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise SizeError(
                    f"{self.name}: the size {name!r} is {size!r}; it must be a whole number ≥ 1"
                )
        for one, other in self.equal:
            if number(one, sizes) != number(other, sizes):
                raise SizeError(
                    f"{self.name}: the equation joins {one} and {other} element by element, so "
                    f"both sizes must agree; got {one} {number(one, sizes)}, {other} "
                    f"{number(other, sizes)}"
                )
        for parameter in self.parameters:
            shape_of(parameter.dims, sizes)

    def parameter_shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, by name, for sizes given as numbers."""
        self.check_sizes(sizes)
        return {p.name: shape_of(p.dims, sizes) for p in self.parameters}

    def count(self, sizes: Mapping[str, int]) -> Counts:
        """Count parameters, and the arithmetic operations of one step of one row.

        A product of an (m, n) matrix counts 2·m·n, any other operation 1 an element (softmax 4,
        layer norm 7). Work on parameters alone is done once a call and not counted.
        """
        parameters = sum(math.prod(shape) for shape in self.parameter_shapes(sizes).values())
        operations = 0
        for node, level in zip(self.nodes, self.levels, strict=True):
            if node.op not in OPERATIONS or level == PARAMETER:
                continue
            shapes = [shape_of(self.nodes[a].dims, sizes) for a in node.args]
            if node.op in PRODUCTS:
                operations += 2 * math.prod(shapes[0]) * math.prod(shapes[1][1:])
            elif node.op == "bilinear":
                operations += 3 * math.prod(shapes[0])
            else:
                largest = max(math.prod(shape_of(node.dims, sizes)), *map(math.prod, shapes))
                operations += OPERATIONS[node.op].cost * largest
        return Counts(parameters, operations)

    def equation(self) -> list[str]:
        """The equation as lines of text."""
        from elman.equation.write import equation

        return equation(self)

    def latex(self) -> str:
        """The equation as a LaTeX `aligned` block."""
        from elman.equation.write import latex

        return latex(self)

    def to_json(self) -> dict[str, Any]:
        """The graph as plain data."""
        from elman.equation.serial import graph_to_json

        return graph_to_json(self)

    @staticmethod
    def from_json(data: Any) -> Graph:
        """The graph of `to_json`'s data, checked; FileError where it is none."""
        from elman.equation.serial import graph_from_json

        return graph_from_json(data)

    @cached_property
    def of_edges(self) -> tuple[bool, ...]:
        """For each node whether it has a value for each edge of a tree or graph."""
        inputs = {i.name for i in self.inputs if i.varies == "edge"}
        found: list[bool] = []
        for node in self.nodes:
            own = node.op == "each" or (node.op == "input" and node.attribute("name") in inputs)
            summed = node.op in ("total", "average", "largest")
            found.append(own or (not summed and any(found[a] for a in node.args)))
        return tuple(found)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """For each node how often it must be computed: once a call (PARAMETER), once a row
        (SEQUENCE), once a step but for all steps at once (STEP), or step after step (STATE)."""
        varies = {i.name: SEQUENCE if i.varies == "sequence" else STEP for i in self.inputs}
        levels: list[int] = []
        for node in self.nodes:
            if node.op == "input":
                level = varies[node.attribute("name")]
            elif node.op == "delayed":
                level = varies.get(node.attribute("name"), STATE)
            elif node.op in ("state", "each", "child"):
                level = STATE
            else:
                level = max((levels[a] for a in node.args), default=PARAMETER)
            levels.append(level)
        return tuple(levels)


PARAMETER, SEQUENCE, STEP, STATE = range(4)
PRODUCTS = ("matmul", "matvec", "matmat")
