"""Sizes: found by unification while a body is traced, known by name in a graph.

In a graph a size is a name ("hidden"), a part of one ("hidden/4", for four heads), or "1", which
fits any other size as in torch's broadcasting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from elman.errors import SizeError

Dims = tuple[str, ...]

NAME = re.compile(r"[^\W\d]\w{0,63}")
SIZE = re.compile(r"([^\W\d]\w{0,63})(?:/([1-9]\d{0,5}))?|1")


class Size:
    """A size under unification: free, or with the name it was declared with, or a part of one."""

    def __init__(self, name: str = "", whole: Size | None = None, parts: int = 1):
        self.given, self.whole, self.parts = name, whole, parts
        self.parent: Size | None = None

    def root(self) -> Size:
        size = self
        while size.parent is not None:
            size = size.parent
        return size

    @property
    def fixed(self) -> bool:
        """Whether the size has a name of its own, so that it cannot take another's."""
        return bool(self.given) or self.whole is not None

    @property
    def name(self) -> str:
        """The name in the graph; what stayed free is hidden."""
        root = self.root()
        if root.whole is not None:
            return f"{root.whole.name}/{root.parts}"
        return root.given or "hidden"


class Shape:
    """A shape under unification: unknown, or a tuple of sizes ((): a plain number)."""

    def __init__(self, sizes: tuple[Size, ...] | None = None):
        self.sizes = sizes
        self.parent: Shape | None = None

    def __getitem__(self, item) -> Shape:
        """v.shape[-1:] in a body: the sizes stay what they are."""
        return self

    def root(self) -> Shape:
        shape = self
        while shape.parent is not None:
            shape = shape.parent
        return shape


def number(size: str, sizes: Mapping[str, int]) -> int:
    """The number of a size of a graph.

    Raises:
        SizeError: the size is a part of a number that has no such part.

    Example:
        >>> number("hidden/4", {"hidden": 12})
        3
    """
    if size == "1":
        return 1
    name, _, parts = size.partition("/")
    if not parts:
        return sizes[name]
    if sizes[name] % int(parts):
        raise SizeError(
            f"the size {name!r} is {sizes[name]}, and the equation divides it into {parts} equal "
            f"parts; give a multiple of {parts}"
        )
    return sizes[name] // int(parts)


def shape_of(dims: Dims, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a value, as numbers."""
    return tuple(number(size, sizes) for size in dims)


def names_in(dims: Dims) -> list[str]:
    """The names that a layer must know to number `dims`."""
    return [size.partition("/")[0] for size in dims if size != "1"]


def as_dims(declared: str | Sequence[str]) -> Dims:
    """A declared size or shape as a tuple: "output" is a vector, () a scalar."""
    return (declared,) if isinstance(declared, str) else tuple(declared)


def joined(dims: Sequence[Dims]) -> Dims | None:
    """The sizes of an element-by-element result, or None where the operands do not fit.

    Scalars fit anything; of the same number of sizes, "1" fits any.

    Example:
        >>> joined([("hidden",), ()])
        ('hidden',)
        >>> joined([("hidden", "1"), ("1", "input")])
        ('hidden', 'input')
        >>> joined([("hidden",), ("input",)]) is None
        True
    """
    result: Dims = ()
    for each in dims:
        if not each:
            continue
        if not result:
            result = each
            continue
        if len(each) != len(result):
            return None
        pairs = [(a, b) for a, b in zip(result, each, strict=True)]
        if any(a != b and "1" not in (a, b) for a, b in pairs):
            return None
        result = tuple(b if a == "1" else a for a, b in pairs)
    return result


def result_dims(op: str, dims: Sequence[Dims], attributes: Mapping[str, Any]) -> Dims | None:
    """The sizes of an operation's result, or None where its operands do not fit it."""
    ranks = tuple(len(d) for d in dims)
    if op in ("matmul", "matvec", "matmat"):
        fits = ranks == (2, 1 + (op == "matmat")) and dims[0][1] == dims[1][0]
        return dims[0][:1] + dims[1][1:] if fits else None
    if op == "outer":
        return dims[0] + dims[1] if ranks == (1, 1) else None
    if op == "transpose":
        return dims[0][::-1] if ranks == (2,) else None
    if op in ("sum", "mean"):
        return dims[0][:-1] if ranks[0] >= 1 else None
    if op == "column":
        return (*dims[0], "1") if ranks == (1,) else None
    if op == "row":
        return ("1", *dims[0]) if ranks == (1,) else None
    if op == "bilinear":
        fits = ranks == (3, 1, 1) and dims[0][1:] == dims[1] + dims[2]
        return dims[0][:1] if fits else None
    if op == "block_diagonal":
        rows, part = dims[0] if ranks == (2,) else ("", "")
        whole, _, parts = part.partition("/")
        return (rows, whole) if parts == str(attributes["heads"]) else None
    if op in ("softmax", "layer_norm"):
        return dims[0] if ranks[0] >= 1 else None
    if op in ("total", "average", "largest"):
        return dims[0] if ranks[0] == 1 else None
    return joined(dims)
