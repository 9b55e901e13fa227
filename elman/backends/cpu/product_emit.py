"""What every function of the product's module is written with: types, functions, loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from elman.backends.cpu.machine import Machine

INT = ir.IntType(64)
POINTER = ir.PointerType()
BYTE = ir.IntType(8)

Values = list[Any]  # of ir.Value, whose `type` its subclasses bring


@dataclass
class Writer:
    """A module being written for one element type on one machine.

    `lanes` elements of `size` bytes make a vector, two vectors a line of a panel.
    """

    element: str
    machine: Machine
    module: ir.Module = field(init=False)

    def __post_init__(self) -> None:
        self.module = ir.Module(f"product_{self.element}_{self.machine.name}")
        self.module.triple = self.machine.triple
        self.scalar = ir.FloatType() if self.element == "float" else ir.DoubleType()
        self.size = 4 if self.element == "float" else 8
        self.lanes = self.machine.lanes(self.element)
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.line = 2 * self.lanes
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{self.lanes}f{8 * self.size}"
        self.fuse = ir.Function(self.module, kind, name)
        kind = ir.FunctionType(ir.VoidType(), [POINTER, *[ir.IntType(32)] * 3])
        self.fetch = ir.Function(self.module, kind, "llvm.prefetch.p0")

    def function(self, name: str, arguments: Sequence[str], *, public: bool) -> ir.Function:
        """A void function of these arguments: a pointer where the name is a capital."""
        kinds = [POINTER if one.isupper() else INT for one in arguments]
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)
        for argument, one in zip(function.args, arguments, strict=True):
            argument.name = one
        function.attributes.add("nounwind")
        if not public:
            function.linkage = "internal"
            function.attributes.add("noinline")
        # llvmlite lists the plain attributes only; the ones with values are text to LLVM.
        # "no-builtins" keeps LLVM from turning a loop into a call of memset or memcpy, which
        # nothing would resolve.
        for key, value in {**self.machine.prefer, "no-builtins": ""}.items():
            set.add(function.attributes, f'"{key}"="{value}"' if value else f'"{key}"')
        return function

    def at(self, builder: ir.IRBuilder, base: ir.Value, elements: ir.Value | int) -> ir.Value:
        """The address `elements` elements after `base`."""
        return builder.gep(base, [integer(elements)], source_etype=self.scalar)

    def load(self, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        return builder.load(address, typ=self.vector, align=self.size)

    def store(self, builder: ir.IRBuilder, value: ir.Value, address: ir.Value) -> None:
        builder.store(value, address, align=self.size)

    def prefetch(self, builder: ir.IRBuilder, address: ir.Value) -> None:
        """Asks for a line of memory to be brought near; any address is harmless."""
        to_read, to_the_nearest_cache, of_data = (ir.Constant(ir.IntType(32), n) for n in (0, 3, 1))
        builder.call(self.fetch, [address, to_read, to_the_nearest_cache, of_data])

    def broadcast(self, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        """A vector of the one element at `address`."""
        one = builder.load(address, typ=self.scalar, align=self.size)
        empty = ir.Constant(self.vector, ir.Undefined)
        first = builder.insert_element(empty, one, ir.Constant(ir.IntType(32), 0))
        return self.shuffle(builder, first, empty, [0] * self.lanes)

    def shuffle(
        self, builder: ir.IRBuilder, first: ir.Value, second: ir.Value, order: Sequence[int]
    ) -> ir.Value:
        kind = ir.VectorType(ir.IntType(32), len(order))
        return builder.shuffle_vector(first, second, ir.Constant(kind, list(order)))


def integer(value: ir.Value | int) -> ir.Value:
    """A number of 64 bits."""
    return ir.Constant(INT, value) if isinstance(value, int) else value


def smaller(builder: ir.IRBuilder, first: ir.Value, second: ir.Value | int) -> ir.Value:
    """The smaller of two numbers."""
    second = integer(second)
    return builder.select(builder.icmp_signed("<", first, second), first, second)


def repeat(
    builder: ir.IRBuilder,
    times: ir.Value,
    state: Values,
    body: Callable[[Values], Values],
) -> Values:
    """Runs `body` `times` times (none where that is ≤ 0), each time on what it returned last.

    The test stands at the end of the loop, so that its body is one block where `body` is one.
    """
    before = builder.block
    inside = builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", times, integer(0)), inside, after)
    builder.position_at_end(inside)
    left = builder.phi(INT)
    carried = [builder.phi(one.type) for one in state]
    new = body(carried)
    fewer = builder.sub(left, integer(1))
    last = builder.block
    builder.cbranch(builder.icmp_signed(">", fewer, integer(0)), inside, after)
    builder.position_at_end(after)
    for phi, first, following in zip([left, *carried], [times, *state], [fewer, *new], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(following, last)
    result = []
    for first, following in zip(state, new, strict=True):
        phi = builder.phi(first.type)
        phi.add_incoming(first, before)
        phi.add_incoming(following, last)
        result.append(phi)
    return result


def start(function: ir.Function) -> ir.IRBuilder:
    """A builder at the beginning of a function that has no body yet."""
    return ir.IRBuilder(function.append_basic_block("entry"))
