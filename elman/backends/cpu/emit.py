"""A layout as LLVM IR: one function that walks all of time for the rows of its thread.

`kernel(words, thread, threads)` first packs the weights, each thread its share, and waits for the
others. From there on no thread waits: each takes every `threads`-th row of the batch, and for a
chunk of steps makes the products of the inputs, then walks step after step; the backward walks from
the last step to the first, and makes the products for the inputs' cotangents behind each chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from elman.backends.cpu.arguments import argument_names, column_name, table_of
from elman.backends.cpu.layout import KEPT, SCRATCH, SUMS, Call, Layout, Slot
from elman.backends.cpu.machine import Machine
from elman.equation.schedule import Loop

I64, I8, VOID = ir.IntType(64), ir.IntType(8), ir.VoidType()
POINTER = ir.PointerType()
FUNCTION = "kernel"


def kernel_module(
    layout: Layout, element: str, machine: Machine, *, exact: bool, back: bool
) -> str:
    """The module of one kernel.

    Args:
        layout: the program and its places.
        element: "float" or "double".
        machine: what it is compiled for.
        exact: whether every size is a multiple of the machine's vector.
        back: whether to walk from the last step to the first.
    """
    return str(Kernel(layout, element, machine, exact, back).module)


class Writer:
    """A function `name(words, thread, threads)` in the making, and what all such are made with."""

    def __init__(self, element: str, machine: Machine, name: str):
        self.machine, self.kind, self.lanes = machine, element, machine.lanes(element)
        self.element = ir.FloatType() if element == "float" else ir.DoubleType()
        self.bytes = 4 if element == "float" else 8
        self.module = ir.Module("elman")
        self.module.triple = machine.triple
        kind = ir.FunctionType(VOID, [POINTER, I64, I64])
        self.function = ir.Function(self.module, kind, name)
        self.function.attributes.add("nounwind")
        attribute_group(self.function, machine)
        self.words, self.thread, self.threads = self.function.args
        self.names: dict[str, int] = {}
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def word(self, name: str) -> ir.Value:
        return self.word_at(self.number(self.names[name]))

    def word_at(self, place: ir.Value) -> ir.Value:
        address = self.builder.gep(self.words, [place], source_etype=I64)
        return self.builder.load(address, typ=I64)

    def address(self, value: ir.Value) -> ir.Value:
        return self.builder.inttoptr(value, POINTER)

    def pointer(self, name: str) -> ir.Value:
        return self.address(self.word(name))

    def elements(self, count: ir.Value) -> ir.Value:
        """A number of elements in bytes."""
        return self.builder.mul(count, self.number(self.bytes))

    def at(self, base: ir.Value, bytes_on: ir.Value) -> ir.Value:
        return self.builder.gep(base, [bytes_on], source_etype=I8)

    def smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def larger(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    @contextmanager
    def loop(self, count: ir.Value, *, by: int = 1) -> Iterator:
        """The body for i = 0, by, 2·by, … while i < count."""
        builder, first = self.builder, self.number(0)
        before = builder.block
        head = self.function.append_basic_block("loop")
        done = self.function.append_basic_block("done")
        builder.cbranch(builder.icmp_signed("<", first, count), head, done)
        builder.position_at_end(head)
        i = builder.phi(I64)
        i.add_incoming(first, before)
        yield i
        after = builder.add(i, self.number(by))
        i.add_incoming(after, builder.block)
        builder.cbranch(builder.icmp_signed("<", after, count), head, done)
        builder.position_at_end(done)

    def call(self, name: str, *arguments: Any) -> None:
        """Call the function whose address is a word."""
        kind = ir.FunctionType(VOID, [a.type for a in arguments])
        self.builder.call(CallTarget(self.pointer(name), kind), arguments)


class Kernel(Writer):
    """A kernel in the making: the layout it serves, and the rows of the step it is at."""

    def __init__(self, layout: Layout, element: str, machine: Machine, exact: bool, back: bool):
        super().__init__(element, machine, FUNCTION)
        self.layout, self.exact = layout, exact
        self.names = {name: i for i, name in enumerate(argument_names(layout))}
        self.rows: ir.Value = self.number(0)
        self._pack()
        self._walk(back)
        self.builder.ret_void()

    def entry_of(self, table: str, step: ir.Value) -> ir.Value:
        place = self.builder.gep(self.pointer(table), [step], source_etype=I64)
        return self.builder.load(place, typ=I64)

    # Packing.

    def _pack(self) -> None:
        """Every weight of every product into its merged matrix, the weights in turn by thread."""
        builder, calls = self.builder, self.layout.calls()
        if not calls:
            return
        with builder.if_then(builder.icmp_signed("!=", self.word("pack"), self.number(0))):
            count = 0
            for number, call in enumerate(calls):
                for place, rectangle in enumerate(call.rectangles):
                    turn = builder.srem(self.number(count), self.threads)
                    count += 1
                    with builder.if_then(builder.icmp_signed("==", turn, self.thread)):
                        self._pack_one(number, place, rectangle.transposed)
            with builder.if_then(builder.icmp_signed(">", self.threads, self.number(1))):
                self.call("barrier")

    def _pack_one(self, number: int, place: int, transposed: bool) -> None:
        def own(what: str) -> ir.Value:
            return self.word(f"rectangle:{number}:{place}:{what}")

        target = self.pointer(f"call:{number}:B")
        with self.builder.if_then(
            self.builder.icmp_signed("!=", self.word(f"call:{number}:B"), self.number(0))
        ):
            self.call(
                "pack_columns" if transposed else "pack_rows",
                self.builder.inttoptr(own("W"), POINTER), own("ldw"), own("k"), own("columns"),
                target, self.word(f"call:{number}:k"), own("column"), own("line"),
            )  # fmt: skip

    # The walk.

    def _walk(self, back: bool) -> None:
        builder = self.builder
        steps, chunk = self.word("steps"), self.word("chunk")
        with self.loop(
            builder.sdiv(builder.add(steps, builder.sub(chunk, self.number(1))), chunk)
        ) as n:
            if back:
                last = builder.sub(steps, builder.mul(n, chunk))
                first = self.larger(builder.sub(last, chunk), self.number(0))
            else:
                first = builder.mul(n, chunk)
                last = self.smaller(builder.add(first, chunk), steps)
            self._at_once(self.layout.before, first, last)
            with self.loop(builder.sub(last, first)) as i:
                if back:
                    step = builder.sub(builder.sub(last, self.number(1)), i)
                else:
                    step = builder.add(first, i)
                self.rows = self._rows(step)
                self._step(step)
            self._at_once(self.layout.after, first, last)

    def _rows(self, step: ir.Value) -> ir.Value:
        """How many of a step's rows are this thread's."""
        builder = self.builder
        alive = self.entry_of("alive", step)
        ahead = builder.add(
            builder.sub(alive, self.thread), builder.sub(self.threads, self.number(1))
        )
        return builder.sdiv(ahead, self.threads)

    def _at_once(self, calls: list[Call], first: ir.Value, last: ir.Value) -> None:
        """Products over many steps: in one, where the rows lie evenly through time, else a step at
        a time."""
        if not calls:
            return
        builder = self.builder
        even = self._even()
        with builder.if_else(even) as (then, otherwise):
            with then:
                final = builder.sub(last, self.number(1))
                rows = builder.mul(self._rows(first), builder.sub(last, first))
                for call in calls:
                    self._product(
                        call,
                        rows,
                        lambda table: self.smaller(
                            self.entry_of(table, first), self.entry_of(table, final)
                        ),
                    )
            with otherwise, self.loop(builder.sub(last, first)) as i:
                step = builder.add(first, i)
                rows = self._rows(step)
                for call in calls:
                    self._product(call, rows, lambda table: self.entry_of(table, step))

    def _even(self) -> ir.Value:
        """Whether the thread's rows of many steps lie evenly: all rows go on to the end, and their
        number divides by that of the threads."""
        builder, rows = self.builder, self.word("even")
        none = builder.icmp_signed("==", builder.srem(rows, self.threads), self.number(0))
        return builder.and_(builder.icmp_signed(">", rows, self.number(0)), none)

    def _scratch_rows(self) -> ir.Value:
        builder = self.builder
        over = builder.add(self.word("batch"), builder.sub(self.threads, self.number(1)))
        return builder.sdiv(over, self.threads)

    def _step(self, step: ir.Value) -> None:
        from elman.backends.cpu.loops import emit_loop

        for place, item in enumerate(self.layout.program.items):
            if isinstance(item, Loop):
                emit_loop(self, step, item, self.layout.stores.get(place, []))
            else:
                for call in self.layout.products[place]:
                    self._product(call, self.rows, lambda table: self.entry_of(table, step))

    def _product(self, call: Call, rows: ir.Value, entry: Callable[[str], ir.Value]) -> None:
        number = self.layout.calls().index(call)
        source, source_row = self.place(call.sources[0], entry)
        target, target_row = self.place(call.targets[0], entry)
        if call.accumulate:
            start, start_row = target, target_row
        else:
            start, start_row = self.pointer("base:lines"), self.number(0)
            if call.targets[0].buffer == KEPT:
                start = self.at(start, self.elements(self.word(column_name(call.targets[0]))))
        builder = self.builder
        wanted = builder.icmp_signed("!=", self.word(f"call:{number}:B"), self.number(0))
        with builder.if_then(wanted):
            self.call(
                "product", rows, self.word(f"call:{number}:k"), source, source_row,
                self.pointer(f"call:{number}:B"), self.word(f"call:{number}:panels"),
                target, target_row, start, start_row,
            )  # fmt: skip

    def place(self, slot: Slot, entry: Callable[[str], ir.Value]) -> tuple[ir.Value, ir.Value]:
        """The address of the thread's first row of a slot, and how many elements apart rows are."""
        builder, buffer = self.builder, slot.buffer
        width = self.word(f"ld:{buffer}")
        column = self.word(column_name(slot))
        base = self.pointer(f"base:{buffer}")
        kind = buffer.partition(":")[0]
        if kind == "vector":
            return self.at(base, self.elements(column)), self.number(0)
        if kind in (SCRATCH, SUMS):
            rows = self._scratch_rows() if kind == SCRATCH else self.number(1)
            first = builder.mul(self.thread, rows)
            apart = width if kind == SCRATCH else self.number(0)
        else:
            table = table_of(buffer)
            first = self.thread
            if table:
                first = builder.add(entry(table), first)
            apart = builder.mul(self.threads, width)
        on = builder.add(builder.mul(first, width), column)
        return self.at(base, self.elements(on)), apart


class CallTarget:
    """An address that is called as a function of a given type."""

    def __init__(self, address: Any, kind: ir.FunctionType):
        self.address, self.function_type = address, kind

    def get_reference(self) -> str:
        return self.address.get_reference()


def attribute_group(function: ir.Function, machine: Machine) -> None:
    """Give a function the attributes that its machine asks for."""
    # llvmlite lists the plain attributes only; the ones with values are text to LLVM. Without
    # builtins LLVM makes no call of memset of a loop, which nothing would resolve.
    for name, value in {**machine.prefer, "no-builtins": ""}.items():
        set.add(function.attributes, f'"{name}"="{value}"' if value else f'"{name}"')
