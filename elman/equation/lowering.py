"""A step, or its adjoint, in the few kinds of work that a kernel knows.

Those are: element by element; a sum or a largest value over the units of a row; and sums of
products W v with a vector of parameters, Σ W v + b, that a kernel gathers in one place. Softmax and
layer norm become sums and element-by-element work; what spreads one number over the units of a row
costs nothing. Each value has one size, the number of its units; one number a row has the size "1".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from elman.equation.derivatives import UNITS
from elman.equation.graph import PARAMETER, Node
from elman.errors import EquationError

ONE = "1"
LEAF_OPS = (
    "vector", "step", "sequence", "state", "delayed", "forward", "output_cotangent",
    "state_cotangent", "constant", UNITS,
)  # fmt: skip
GATHER, ROW_SUM, ROW_MAX = "gather", "row_sum", "row_max"
PRODUCT_OPS = ("matmul", "matmul_transposed")


class Unsupported(EquationError):
    """A step holds an operation that no kernel knows; the message is a phrase that names it."""


class Op(NamedTuple):
    """One value of a lowered step: operation, operands, attributes, the name of its size."""

    op: str
    args: tuple[int, ...] = ()
    attributes: tuple[tuple[str, Any], ...] = ()
    size: str = ONE

    def attribute(self, key: str) -> Any:
        return dict(self.attributes)[key]


class Term(NamedTuple):
    """A product in a gather: the node of the weight, whether transposed, and the vector's value."""

    weight: int
    transposed: bool
    vector: int


class Gather(NamedTuple):
    """Σ W v, started from a vector of parameters or from a value of the row, or from zero."""

    terms: tuple[Term, ...]
    start: int | None


def size_of(node: Node) -> str:
    """The size of a node's value, as a kernel sees it."""
    if len(node.dims) > 1:
        raise Unsupported(f"{_words(node)} makes a matrix for each row")
    return node.dims[0] if node.dims else ONE


def _words(node: Node) -> str:
    return f"the operation '{node.op}'" if node.args else f"the {node.op} {_name(node)!r}"


def _name(node: Node) -> str:
    return str(dict(node.attributes).get("name", ""))


class Lowered:
    """The values of a step that grow as they are asked for; the same work is never there twice.

    Args:
        nodes: of the step or of its adjoint.
        levels: how often each is computed.
        leaves: for nodes whose value is at hand the operation and attributes of their leaf.
        roots: the nodes that will be asked for.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        levels: Sequence[int],
        leaves: Mapping[int, tuple[str, tuple[tuple[str, Any], ...]]],
        roots: Iterable[int],
    ):
        self.nodes, self.levels, self.leaves = nodes, levels, leaves
        self.ops: list[Op] = []
        self.gathers: dict[int, Gather] = {}
        self.known: dict[Any, int] = {}
        self.values: dict[int, int] = {}
        self.readers: dict[int, int] = {}
        waiting, seen = list(roots), set()
        for root in waiting:
            self.readers[root] = self.readers.get(root, 0) + 1
        while waiting:
            index = waiting.pop()
            if index in seen or index in leaves:
                continue
            seen.add(index)
            for operand in nodes[index].args:
                self.readers[operand] = self.readers.get(operand, 0) + 1
                waiting.append(operand)

    def append(self, op: str, args: tuple[int, ...] = (), size: str = ONE, **attributes) -> int:
        return self._append(Op(op, args, tuple(attributes.items()), size))

    def _append(self, op: Op, key: Any = None) -> int:
        key = op if key is None else key
        if key not in self.known:
            self.known[key] = len(self.ops)
            self.ops.append(op)
        return self.known[key]

    def value(self, index: int) -> int:
        """The value of a node."""
        if index not in self.values:
            self.values[index] = self._lower(index)
        return self.values[index]

    def _lower(self, index: int) -> int:
        node = self.nodes[index]
        if index in self.leaves:
            op, attributes = self.leaves[index]
            return self._append(Op(op, (), attributes, size_of(node)))
        if node.op == "constant":
            return self.append("constant", value=node.attribute("value"))
        if node.op == UNITS:
            return self.append(UNITS, name=node.attribute("name"))
        if node.op in PRODUCT_OPS or (
            node.op in ("add", "sub", "neg") and self.levels[index] != PARAMETER
        ):
            return self._sum(index)
        if node.op in _RULES:
            return _RULES[node.op](self, node)
        if any(len(self.nodes[a].dims) > 1 for a in node.args) or node.op in _WHOLE:
            raise Unsupported(f"{_words(node)} works on a matrix for each row")
        operands = tuple(self.value(a) for a in node.args)
        return self._append(Op(node.op, operands, node.attributes, self._joined(operands)))

    def _joined(self, operands: Iterable[int]) -> str:
        return next((s for s in (self.ops[o].size for o in operands) if s != ONE), ONE)

    def pointwise(self, op: str, *operands: int, **attributes: float) -> int:
        return self.append(op, operands, self._joined(operands), **attributes)

    def wide(self, value: int, size: str) -> int:
        """A value as products and what is outside read it: a number a row, once for each unit."""
        if size == ONE or self.ops[value].size != ONE:
            return value
        return self.append("mul", (value, self.append("constant", value=1.0)), size)

    def over(self, op: str, value: int, size: str) -> int:
        """A sum or a largest value over the units; of one number a row, that many of it."""
        if size == ONE or (op == ROW_MAX and self.ops[value].size == ONE):
            return value
        if self.ops[value].size == ONE:
            return self.pointwise("mul", value, self.append(UNITS, name=size))
        return self.append(op, (value,), ONE, over=size)

    def mean(self, value: int, size: str) -> int:
        total = self.over(ROW_SUM, value, size)
        return total if size == ONE else self.pointwise("div", total, self.units(size))

    def units(self, size: str) -> int:
        return self.append(UNITS, name=size)

    # Sums, and the products in them.

    def _sum(self, index: int) -> int:
        products, vectors, others = self._terms(index)
        if not products and self.nodes[index].op != "neg":
            return self._plain(index)
        if not products:
            return self.pointwise("neg", self.value(self.nodes[index].args[0]))
        size = size_of(self.nodes[index])
        start = vectors.pop(0) if vectors else None
        total = self.gather(products, None if start is None else self.value(start), size)
        for operand, sign in [*((v, 1) for v in vectors), *others]:
            total = self.pointwise("add" if sign > 0 else "sub", total, self.value(operand))
        return total

    def _plain(self, index: int) -> int:
        node = self.nodes[index]
        return self.pointwise(node.op, *(self.value(a) for a in node.args))

    def sum_root(self, index: int) -> int:
        """The value of a node whose sum nobody else reads: the products start from the rest."""
        if index in self.leaves or self.nodes[index].op not in ("add", "sub"):
            return self.value(index)
        products, vectors, others = self._terms(index)
        if not products or not others or vectors or others[0][1] < 0:
            return self.value(index)
        start = self.value(others[0][0])
        for operand, sign in others[1:]:
            start = self.pointwise("add" if sign > 0 else "sub", start, self.value(operand))
        return self.gather(products, start, size_of(self.nodes[index]))

    def gather(self, products: Sequence[int], start: int | None, size: str) -> int:
        terms = []
        for p in products:
            node = self.nodes[p]
            weight, vector = node.args
            if self.levels[weight] != PARAMETER:
                raise Unsupported(f"{_words(node)} has a matrix for each row")
            seen = self.wide(self.value(vector), size_of(self.nodes[vector]))
            terms.append(Term(weight, node.op == "matmul_transposed", seen))
        gather = Gather(tuple(terms), start)
        args = [t.vector for t in terms] + ([] if start is None else [start])
        index = self._append(Op(GATHER, tuple(args), (), size), gather)
        self.gathers[index] = gather
        return index

    def _terms(self, index: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """The terms of a sum: products, vectors of parameters, and the rest with signs."""
        size = size_of(self.nodes[index])
        products: list[int] = []
        vectors: list[int] = []
        others: list[tuple[int, int]] = []

        def collect(i: int, sign: int, top: bool) -> None:
            node = self.nodes[i]
            own = top or (self.readers.get(i, 0) == 1 and i not in self.leaves)
            same = own and size_of(node) == size
            if same and node.op in ("add", "sub") and self.levels[i] != PARAMETER:
                collect(node.args[0], sign, False)
                collect(node.args[1], sign if node.op == "add" else -sign, False)
            elif same and node.op == "neg" and self.levels[i] != PARAMETER:
                collect(node.args[0], -sign, False)
            elif same and sign > 0 and node.op in PRODUCT_OPS:
                products.append(i)
            elif top:
                raise Unsupported(f"{_words(node)} in a sum")
            elif (
                i in self.leaves
                and self.leaves[i][0] == "vector"
                and sign > 0
                and (size_of(node) == size)
            ):
                vectors.append(i)
            else:
                others.append((i, sign))

        collect(index, 1, True)
        return products, vectors, others


def _softmax(low: Lowered, node: Node) -> int:
    v, size = low.value(node.args[0]), size_of(node)
    e = low.pointwise("exp", low.pointwise("sub", v, low.over(ROW_MAX, v, size)))
    return low.pointwise("div", e, low.over(ROW_SUM, e, size))


def _centred(low: Lowered, node: Node) -> tuple[int, int]:
    """v − mean v, and 1/√(var v + eps)."""
    v, size = low.value(node.args[0]), size_of(low.nodes[node.args[0]])
    centred = low.pointwise("sub", v, low.mean(v, size))
    variance = low.mean(low.pointwise("mul", centred, centred), size)
    eps = low.append("constant", value=node.attribute("eps"))
    return centred, low.pointwise("rsqrt", low.pointwise("add", variance, eps))


def _layer_norm(low: Lowered, node: Node) -> int:
    return low.pointwise("mul", *_centred(low, node))


def _layer_norm_scale(low: Lowered, node: Node) -> int:
    return _centred(low, node)[1]


def _over_operand(op: str):
    def rule(low: Lowered, node: Node) -> int:
        operand = low.nodes[node.args[0]]
        size = size_of(operand)
        value = low.value(node.args[0])
        return low.mean(value, size) if op == "mean" else low.over(op, value, size)

    return rule


def _same(low: Lowered, node: Node) -> int:
    size_of(node)
    return low.value(node.args[0])


_RULES = {
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "layer_norm_scale": _layer_norm_scale,
    "sum": _over_operand(ROW_SUM),
    "mean": _over_operand("mean"),
    "sum_axis": _over_operand(ROW_SUM),
    "spread": _same,
    "column": _same,
}
_WHOLE = ("matvec", "matmat", "outer", "bilinear", "bilinear_first", "bilinear_second",
          "transpose", "row", "block_diagonal")  # fmt: skip
