"""Symbols: what a cell's body is called with while it is traced.

A symbol stands for a value of the step. Arithmetic on it, and the torch functions given to it
(through `__torch_function__`), append nodes to the recorder. Shapes are found by unification:
a shape is unknown until a use decides it, and sizes are joined where an operation needs them to
agree.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from elman.equation.functions import FUNCTIONS, INSTEAD, METHODS, NAMES
from elman.equation.operations import OPERATIONS
from elman.equation.sizes import Shape, Size
from elman.errors import EquationError, nearest


class Recorder:
    """Collects the nodes of one trace, and joins shapes as the operations demand."""

    def __init__(self, cell: str, file: str, first_line: int):
        self.cell, self.file, self.line = cell, file, first_line
        self.entries: list[tuple[str, tuple[int, ...], tuple]] = []
        self.shapes: list[Shape] = []
        self.known: dict[tuple, int] = {}
        self.parameters: dict[str, Symbol] = {}
        self.equal: list[tuple[Size, Size, str, str]] = []
        # The arguments that have a value for each edge.
        self.edges: frozenset[str] = frozenset()

    def fail(self, message: str) -> NoReturn:
        """Raise the error of the cell's line that is being traced."""
        raise EquationError(f"{self.cell}: {message}", self.file, self.here())

    def here(self) -> int:
        """The line of the cell's file that is being run."""
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_filename == self.file:
                return frame.f_lineno
            frame = frame.f_back
        return self.line

    def add(self, op: str, args: tuple[int, ...], shape: Shape, **attributes: Any) -> Symbol:
        """The symbol of a node; the same node asked for twice is one."""
        key = (op, args, tuple(attributes.items()))
        if key not in self.known:
            self.known[key] = len(self.entries)
            self.entries.append(key)
            self.shapes.append(shape)
        return Symbol(self, self.known[key])

    def constant(self, value: float) -> Symbol:
        return self.add("constant", (), Shape(()), value=float(value))

    def lift(self, value: Any, op: str) -> Symbol:
        """An operand as a symbol: a symbol of this trace, or a plain number."""
        if isinstance(value, Symbol):
            if value.recorder is not self:
                self.fail(f"an operand of {op} belongs to another cell's tracing")
            return value
        if isinstance(value, (bool, int, float)):
            return self.constant(value)
        if isinstance(value, torch.Tensor):
            self.fail(
                f"{op} meets a tensor made outside of the equation; use p.name for what is "
                "trained, a keyword-only argument for a number"
            )
        self.fail(
            f"{op} meets a {type(value).__name__}; operands are inputs, states, parameters and "
            "numbers"
        )

    def join_sizes(self, one: Size, other: Size) -> None:
        one, other = one.root(), other.root()
        if one is other:
            return
        if one.fixed and other.fixed:
            if one.name == other.name:
                return
            # Both are named, as where x is multiplied with h: allowed, and the layer checks it.
            self.equal.append((one, other, one.name, other.name))
        if _standing(other) > _standing(one):
            one, other = other, one
        other.parent = one

    def join_shapes(self, one: Shape, other: Shape, what: str) -> Shape:
        one, other = one.root(), other.root()
        if one is other:
            return one
        if one.sizes is None:
            one.parent = other
            return other
        if other.sizes is None:
            other.parent = one
            return one
        if len(one.sizes) != len(other.sizes):
            self.fail(
                f"{what} meets {KINDS[len(one.sizes)]} and {KINDS[len(other.sizes)]}; a parameter "
                "is a matrix where it stands before @ and a vector elsewhere, not both"
            )
        if any(size.name == "1" for size in (*one.sizes, *other.sizes)):
            return self.broadcast(one.sizes, other.sizes)
        for a, b in zip(one.sizes, other.sizes, strict=True):
            self.join_sizes(a, b)
        return one

    def broadcast(self, one: tuple[Size, ...], other: tuple[Size, ...]) -> Shape:
        """The shape of two of which a size "1" fits any other."""
        result = []
        for a, b in zip(one, other, strict=True):
            if "1" not in (a.name, b.name):
                self.join_sizes(a, b)
            result.append(b if a.name == "1" else a)
        return Shape(tuple(result))

    def elementwise(self, op: str, *operands: Any, **attributes: Any) -> Symbol:
        """A node whose operands are joined element by element; plain numbers fit anything."""
        symbols = [self.lift(v, op) for v in operands]
        for place, symbol in enumerate(symbols):
            if symbol.boolean != (op == "where" and place == 0):
                self.fail(
                    "torch.where needs a comparison (<, <=, >, >=) as its first argument"
                    if op == "where" and place == 0
                    else f"a comparison serves only as the first argument of torch.where, not {op}"
                )
        if all(symbol.entry[0] == "constant" for symbol in symbols):
            values = [dict(s.entry[2])["value"] for s in symbols]
            tensors = [torch.tensor(v, dtype=torch.float64) for v in values]
            return self.constant(OPERATIONS[op].evaluate(*tensors, **attributes).item())
        shape = Shape(())
        for symbol in symbols:
            if shape.sizes == ():
                shape = symbol.shape
            elif symbol.shape.sizes != ():
                shape = self.join_shapes(shape, symbol.shape, op)
        return self.add(op, tuple(s.index for s in symbols), shape, **attributes)

    def of_rank(self, value: Any, rank: int, what: str) -> tuple[Symbol, tuple[Size, ...]]:
        """The value as a symbol of that many sizes, which it gets if it had none yet."""
        symbol = self.lift(value, what)
        if symbol.boolean:
            self.fail(f"{what} cannot take a comparison")
        sizes = symbol.shape.sizes
        if sizes is not None and len(sizes) != rank:
            hint = f"p.{symbol.name}" if symbol.is_parameter else "a value"
            self.fail(
                f"{what} needs {KINDS[rank]}, and {hint} is {KINDS[len(sizes)]}; give a parameter "
                "that serves as two kinds a name for each"
            )
        if sizes is None:
            sizes = tuple(Size() for _ in range(rank))
            self.join_shapes(symbol.shape, Shape(sizes), what)
        return symbol, sizes

    def matmul(self, left: Any, right: Any) -> Symbol:
        """p.W @ v: the matrix gets its columns from v, and rows that its other uses decide."""
        left, right = self.lift(left, "@"), self.lift(right, "@")
        if right.shape.sizes is None and not self.of_parameters(left):
            self.fail(
                f"p.{right.name} after @ may be a vector or a matrix; say which with "
                f"@elman.cell(shapes={{{right.name!r}: …}})"
            )
        if left.shape.sizes is not None and len(left.shape.sizes) == 1:
            if left.is_parameter:
                self.fail(
                    f"p.{left.name} stands before @ as a matrix, and elsewhere as a vector; give "
                    "the two their own names"
                )
            self.fail(
                "the left side of @ is a vector; write * for an elementwise product, torch.dot for "
                "a scalar product, p.W.T @ v for a product with a matrix"
            )
        rank = 2 if right.shape.sizes is None else len(right.shape.sizes)
        left, (rows, columns) = self.of_rank(left, 2, "the left side of @")
        right, inner = self.of_rank(right, max(1, min(rank, 2)), "the right side of @")
        self.join_sizes(columns, inner[0])
        op = "matmat" if rank == 2 else "matmul" if self.of_parameters(left) else "matvec"
        return self.add(op, (left.index, right.index), Shape((rows, *inner[1:])))

    def of_parameters(self, symbol: Symbol) -> bool:
        """Whether a value is made of parameters and numbers alone."""
        seen, waiting = set(), [symbol.index]
        while waiting:
            index = waiting.pop()
            if index not in seen:
                seen.add(index)
                op, args, _ = self.entries[index]
                if op in ("input", "state", "delayed", "each", "child"):
                    return False
                waiting.extend(args)
        return True

    def transpose(self, value: Any) -> Symbol:
        matrix, (rows, columns) = self.of_rank(value, 2, ".T")
        return self.add("transpose", (matrix.index,), Shape((columns, rows)))

    def outer(self, column: Any, row: Any) -> Symbol:
        column, rows = self.of_rank(column, 1, "torch.outer")
        row, columns = self.of_rank(row, 1, "torch.outer")
        return self.add("outer", (column.index, row.index), Shape(rows + columns))

    def bilinear(self, tensor: Any, one: Any, other: Any) -> Symbol:
        one, first = self.of_rank(one, 1, "bilinear")
        other, second = self.of_rank(other, 1, "bilinear")
        tensor, sizes = self.of_rank(tensor, 3, "the weight of bilinear")
        if not self.of_parameters(tensor):
            self.fail("the weight of bilinear must be made of parameters alone")
        for a, b in zip(sizes[1:], first + second, strict=True):
            self.join_sizes(a, b)
        return self.add("bilinear", (tensor.index, one.index, other.index), Shape(sizes[:1]))

    def block_diagonal(self, blocks: Any, heads: int) -> Symbol:
        if isinstance(heads, bool) or not isinstance(heads, int) or not 1 <= heads <= 10_000:
            self.fail(
                f"elman.block_diagonal needs a number of heads from 1 to 10,000; got {heads!r}"
            )
        symbol, (rows, part) = self.of_rank(blocks, 2, "elman.block_diagonal")
        if not self.of_parameters(symbol):
            self.fail("the blocks of elman.block_diagonal must be made of parameters alone")
        columns = Size()
        self.join_sizes(Size(whole=columns, parts=heads), part)
        return self.add("block_diagonal", (symbol.index,), Shape((rows, columns)), heads=heads)

    def over_units(self, op: str, value: Any, **attributes: Any) -> Symbol:
        """A node over the last size of a value: softmax and layer norm keep it, a sum does not."""
        value = self.lift(value, op)
        if value.shape.sizes is None:
            value, _ = self.of_rank(value, 1, op)
        if not value.shape.sizes or value.boolean:
            self.fail(f"{op} needs a vector or a matrix")
        shape = Shape(value.shape.sizes[:-1]) if op in ("sum", "mean") else value.shape
        return self.add(op, (value.index,), shape, **attributes)

    def place(self, value: Any, axis: int) -> Symbol:
        """v.unsqueeze(-1), the vector as a column, or v.unsqueeze(-2), as a row."""
        vector, sizes = self.of_rank(value, 1, "unsqueeze")
        one = Size("1")
        if axis in (-1, 1):
            return self.add("column", (vector.index,), Shape((*sizes, one)))
        return self.add("row", (vector.index,), Shape((one, *sizes)))


def _standing(size: Size) -> int:
    """Which of two joined sizes gives the name: hidden, another name, a part, a free one."""
    if not size.fixed:
        return 0
    return 1 if size.whole is not None else 3 if size.given == "hidden" else 2


KINDS = {0: "a number", 1: "a vector", 2: "a matrix", 3: "a tensor of three sizes"}


class Symbol:
    """A value of the step while the body is traced. It knows what it is made of, not a number."""

    __slots__ = ("index", "recorder")

    def __init__(self, recorder: Recorder, index: int):
        self.recorder, self.index = recorder, index

    @property
    def entry(self):
        return self.recorder.entries[self.index]

    @property
    def shape(self) -> Shape:
        return self.recorder.shapes[self.index].root()

    @property
    def is_parameter(self) -> bool:
        return self.entry[0] == "parameter"

    @property
    def T(self) -> Symbol:  # torch's name
        return self.recorder.transpose(self)

    mT = T

    @property
    def boolean(self) -> bool:
        op = self.entry[0]
        return op in OPERATIONS and OPERATIONS[op].boolean

    @property
    def name(self) -> str:
        return dict(self.entry[2]).get("name", "")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        recorder = _recorder_of((args, kwargs or {}))
        if func not in FUNCTIONS:
            name = getattr(func, "__name__", str(func))
            if name in INSTEAD:
                recorder.fail(f"torch.{name} cannot stand in an equation; {INSTEAD[name]}")
            recorder.fail(
                f"torch.{name} is not an operation of the language.{nearest(name, NAMES)} There "
                f"are: + − * / ** @, {', '.join(NAMES)}, elman.delay"
            )
        try:
            return FUNCTIONS[func](recorder, *args, **(kwargs or {}))
        except TypeError as error:
            recorder.fail(f"{func.__name__} cannot be traced with these arguments: {error}")

    def __getattr__(self, name: str):
        if name in METHODS:
            return lambda *args, **kwargs: METHODS[name](self.recorder, self, *args, **kwargs)
        if name.startswith("__"):
            raise AttributeError(name)
        if name in INSTEAD:
            self.recorder.fail(f".{name} cannot stand in an equation; {INSTEAD[name]}")
        if name.endswith("_"):
            self.recorder.fail(
                f".{name}() writes in place; write {name[:-1]}(…) and use what it returns"
            )
        self.recorder.fail(
            f".{name} is not there on a value of the equation.{nearest(name, METHODS)} There are: "
            f"{', '.join(sorted(METHODS))}"
        )

    def __add__(self, other):
        return self.recorder.elementwise("add", self, other)

    def __radd__(self, other):
        return self.recorder.elementwise("add", other, self) if other != 0 else self

    def __sub__(self, other):
        return self.recorder.elementwise("sub", self, other)

    def __rsub__(self, other):
        return self.recorder.elementwise("sub", other, self)

    def __mul__(self, other):
        return self if _is_one(other) else self.recorder.elementwise("mul", self, other)

    def __rmul__(self, other):
        return self if _is_one(other) else self.recorder.elementwise("mul", other, self)

    def __truediv__(self, other):
        return self.recorder.elementwise("div", self, other)

    def __rtruediv__(self, other):
        return self.recorder.elementwise("div", other, self)

    def __pow__(self, other):
        return self.recorder.elementwise("pow", self, other)

    def __rpow__(self, other):
        return self.recorder.elementwise("pow", other, self)

    def __neg__(self):
        return self.recorder.elementwise("neg", self)

    def __pos__(self):
        return self

    def __matmul__(self, other):
        return self.recorder.matmul(self, other)

    def __rmatmul__(self, other):
        return self.recorder.matmul(other, self)

    def __abs__(self):
        return self.recorder.elementwise("abs", self)

    def __gt__(self, other):
        return self.recorder.elementwise("gt", self, other)

    def __ge__(self, other):
        return self.recorder.elementwise("ge", self, other)

    def __lt__(self, other):
        return self.recorder.elementwise("lt", self, other)

    def __le__(self, other):
        return self.recorder.elementwise("le", self, other)

    def __bool__(self):
        self.recorder.fail(
            "a branch depends on data (if, while, and, or, not, assert); write "
            "torch.where(condition, a, b)"
        )

    def __float__(self):
        self.recorder.fail("a value of the equation has no number yet; use torch, not math")

    __int__ = __index__ = __float__

    def __iter__(self):
        self.recorder.fail(
            "a value of the equation cannot be taken apart; use a parameter for each part"
        )

    def __len__(self):
        self.recorder.fail("sizes are found by use and have no number here")

    def __getitem__(self, item):
        for axis, spelled in ((-1, (slice(None), None)), (-2, (None, slice(None)))):
            if item == spelled:
                return self.recorder.place(self, axis)
        self.recorder.fail(
            "a value of the equation cannot be indexed; use a parameter for each part"
        )

    def __setitem__(self, item, value):
        self.recorder.fail("a value cannot be written in place; give the new value a name")

    def __array__(self, *args, **kwargs):
        self.recorder.fail("NumPy was called on a value of the equation; use the torch function")

    def __array_ufunc__(self, ufunc, *args, **kwargs):
        self.recorder.fail(
            f"np.{ufunc.__name__} was called on a value of the equation; use torch.{ufunc.__name__}"
        )


def _augmented(sign: str, plain: str):
    def write(self: Symbol, other):
        # On a tensor, h += v writes into what the caller gave; into a value of the body it may.
        if self.entry[0] in ("input", "state", "parameter", "delayed", "each", "child"):
            name = f"p.{self.name}" if self.is_parameter else self.name
            self.recorder.fail(f"{sign}= writes in place into {name}; write v = {name} {sign} …")
        return getattr(self, plain)(other)

    return write


for _sign, _word in {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "**": "pow"}.items():
    setattr(Symbol, f"__i{_word}__", _augmented(_sign, f"__{_word}__"))


class TracedParameters:
    """The `p` of a traced body: hands out parameters where they are used.

    `shapes` has the shapes, by parameter, that a declaration fixes.
    """

    _recorder: Recorder
    _shapes: Mapping[str, Shape]

    def __init__(self, recorder: Recorder, shapes: Mapping[str, Shape]):
        object.__setattr__(self, "_recorder", recorder)
        object.__setattr__(self, "_shapes", shapes)

    def __getattr__(self, name: str) -> Symbol:
        if name.startswith("__"):
            raise AttributeError(name)
        recorder = self._recorder
        if name not in recorder.parameters:
            recorder.parameters[name] = recorder.add(
                "parameter", (), self._shapes.get(name, Shape()), name=name
            )
        return recorder.parameters[name]

    def __getitem__(self, key) -> Symbol:
        return getattr(self, indexed_name(key))

    def __setattr__(self, name, value):
        self._recorder.fail(f"p.{name} cannot be assigned; a parameter exists by being used")


def indexed_name(key) -> str:
    """The parameter's name for p["U", 2]: "U_2".

    Example:
        >>> indexed_name(("U", 2))
        'U_2'
    """
    parts = key if isinstance(key, tuple) else (key,)
    return "_".join(str(part) for part in parts)


def _is_one(value) -> bool:
    """A factor that changes nothing, such as a scale at its default; it is not recorded."""
    return isinstance(value, (int, float)) and value == 1


def _recorder_of(tree) -> Recorder:
    """The recorder of the first symbol in nested arguments; torch calls us only if there is one."""
    found = _first_symbol(tree)
    if found is None:
        raise TypeError("torch passed no symbol on")
    return found.recorder


def _first_symbol(tree) -> Symbol | None:
    if isinstance(tree, Symbol):
        return tree
    branches = tree.values() if isinstance(tree, dict) else tree
    for branch in branches:
        if isinstance(branch, (Symbol, tuple, list, dict)):
            found = _first_symbol(branch)
            if found is not None:
                return found
    return None
