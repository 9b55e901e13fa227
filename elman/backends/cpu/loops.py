"""The loops of a step as LLVM IR: element by element over units and rows, and sums over units.

A loop without sums over units takes a few rows together, so that a vector of parameters is read,
and what is summed over rows is written, once for them; then each body does one vector of units of
one row. A loop with sums goes through a row's units before it takes the next row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llvmlite import ir

from elman.backends.cpu.emit import I64, Kernel
from elman.backends.cpu.layout import COTANGENTS, SUMS, Slot, Store
from elman.backends.cpu.maths import Vectors, emit
from elman.equation.lowering import ONE, ROW_MAX, UNITS
from elman.equation.schedule import Loop

TOGETHER = 8
INT32 = ir.IntType(32)


class Place(NamedTuple):
    """A slot during one step: the thread's first row, and the bytes from row to row."""

    first: ir.Value
    apart: ir.Value


def emit_loop(kernel: Kernel, step: ir.Value, loop: Loop, stores: list[Store]) -> None:
    """Append a loop of a step."""
    if not (loop.values or loop.reductions or stores):
        return
    own = _Loop(kernel, loop, stores)
    own.prepare(step)
    if loop.reductions:
        own.row_by_row()
    else:
        own.rows_together()


class _Loop:
    def __init__(self, kernel: Kernel, loop: Loop, stores: list[Store]):
        self.kernel, self.loop, self.stores = kernel, loop, stores
        self.ops, self.slots = kernel.layout.program.ops, kernel.layout.slots
        self.builder = kernel.builder
        machine = kernel.machine
        self.v = Vectors(
            self.builder, kernel.kind, kernel.lanes,
            fused=machine.name != "plain", scaling=machine.name == "avx512",
        )  # fmt: skip
        self.loads = self._loads()

    def _loads(self) -> list[int]:
        """The values that the loop reads from memory."""
        made = set(self.loop.values)
        read = {a for i in self.loop.values for a in self.ops[i].args}
        read |= {self.ops[r].args[0] for r in self.loop.reductions}
        read |= {s.value for s in self.stores}
        return sorted(i for i in read - made if self.ops[i].op not in ("constant", UNITS))

    def prepare(self, step: ir.Value) -> None:
        """Addresses and numbers that hold for the whole step."""
        kernel, builder = self.kernel, self.builder
        slots = {self.slots[i] for i in self.loads} | {s.slot for s in self.stores}
        slots |= {self.slots[r] for r in self.loop.reductions}
        self.places: dict[Slot, Place] = {}
        for slot in sorted(slots):
            first, apart = kernel.place(slot, lambda table: kernel.entry_of(table, step))
            self.places[slot] = Place(first, kernel.elements(apart))
        self.fixed: dict[int, ir.Value] = {}
        for i in self._numbers():
            op = self.ops[i]
            if op.op == "constant":
                self.fixed[i] = self.v.constant(op.attribute("value"))
            else:
                count = kernel.word(f"size:{op.attribute('name')}")
                self.fixed[i] = self.splat(builder.sitofp(count, kernel.element))
        if self.loop.size == ONE:
            self.units, self.blocks = kernel.number(1), kernel.number(1)
        else:
            self.units = kernel.word(f"size:{self.loop.size}")
            more = builder.add(self.units, kernel.number(kernel.lanes - 1))
            self.blocks = builder.sdiv(more, kernel.number(kernel.lanes))

    def _numbers(self) -> set[int]:
        read = {a for i in self.loop.values for a in self.ops[i].args}
        read |= {s.value for s in self.stores} | {self.ops[r].args[0] for r in self.loop.reductions}
        return {i for i in read if self.ops[i].op in ("constant", UNITS)}

    # The two nests.

    def rows_together(self) -> None:
        kernel, builder = self.kernel, self.builder
        rows, together = kernel.rows, kernel.number(TOGETHER)
        with kernel.loop(rows, by=TOGETHER) as group:
            left = builder.sub(rows, group)
            here = builder.select(builder.icmp_signed("<", left, together), left, together)
            with kernel.loop(self.blocks) as block:
                column = builder.mul(block, kernel.number(kernel.lanes * kernel.bytes))
                values = dict(self.fixed)
                for i in self.loads:
                    if self._of_parameters(i):
                        values[i] = self.load(i, kernel.number(0), column)
                self._rows(group, here, column, values, self._mask(block))

    def _rows(self, group, here, column, values, mask) -> None:
        """One vector of units of a few rows; what is summed over rows stays in registers."""
        builder, kernel = self.builder, self.kernel
        sums = [s for s in self.stores if s.slot.buffer == SUMS]
        before = builder.block
        head = kernel.function.append_basic_block("row")
        done = kernel.function.append_basic_block("rows_done")
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(I64)
        i.add_incoming(kernel.number(0), before)
        totals = [builder.phi(self.v.type) for _ in sums]
        row = builder.add(group, i)
        values = dict(values)
        self._load_rows(row, column, values)
        self._compute(values)
        self._write(row, column, values, mask)
        after = builder.add(i, kernel.number(1))
        added = [
            builder.fadd(total, self.as_number(s.value, values))
            for total, s in zip(totals, sums, strict=True)
        ]
        i.add_incoming(after, builder.block)
        for total, new in zip(totals, added, strict=True):
            total.add_incoming(self.v.constant(0.0), before)
            total.add_incoming(new, builder.block)
        builder.cbranch(builder.icmp_signed("<", after, here), head, done)
        builder.position_at_end(done)
        for store, total in zip(sums, added, strict=True):
            self._add_to(store.slot, kernel.number(0), column, total)

    def row_by_row(self) -> None:
        kernel, builder = self.kernel, self.builder
        with kernel.loop(kernel.rows) as row:
            values = dict(self.fixed)
            zero = kernel.number(0)
            for i in self.loads:
                if self.ops[i].size == ONE and self.loop.size != ONE:
                    values[i] = self.load(i, row, zero)
            before = builder.block
            head = kernel.function.append_basic_block("units")
            done = kernel.function.append_basic_block("units_done")
            builder.branch(head)
            builder.position_at_end(head)
            block = builder.phi(I64)
            block.add_incoming(zero, before)
            totals = []
            for r in self.loop.reductions:
                total = builder.phi(self.v.type)
                total.add_incoming(self.v.constant(self._neutral(r)), before)
                totals.append(total)
            column = builder.mul(block, kernel.number(kernel.lanes * kernel.bytes))
            mask = self._mask(block)
            for i in self.loads:
                if i not in values and self._of_parameters(i):
                    values[i] = self.load(i, zero, column)
            self._load_rows(row, column, values)
            self._compute(values)
            self._write(row, column, values, mask)
            for s in self.stores:
                if s.slot.buffer == SUMS:
                    self._add_to(s.slot, zero, column, self.as_number(s.value, values))
            added = [
                self._reduce_in(r, total, values, mask)
                for r, total in zip(self.loop.reductions, totals, strict=True)
            ]
            after = builder.add(block, kernel.number(1))
            block.add_incoming(after, builder.block)
            for total, new in zip(totals, added, strict=True):
                total.add_incoming(new, builder.block)
            builder.cbranch(builder.icmp_signed("<", after, self.blocks), head, done)
            builder.position_at_end(done)
            for r, new in zip(self.loop.reductions, added, strict=True):
                self.store(self.slots[r], row, zero, self._across(r, new))

    # One body.

    def _of_parameters(self, i: int) -> bool:
        return self.slots[i].buffer.startswith("vector:")

    def _load_rows(self, row, column, values) -> None:
        for i in self.loads:
            if i not in values:
                values[i] = self.load(i, row, column)

    def _compute(self, values: dict[int, ir.Value]) -> None:
        for i in self.loop.values:
            op = self.ops[i]
            operands = [values[a] for a in op.args]
            if op.op == "where":
                condition = self.as_mask(op.args[0], values)
                operands = [condition, *(self.as_number(a, values) for a in op.args[1:])]
            else:
                operands = [self.as_number(a, values) for a in op.args]
            values[i] = emit(self.v, op.op, operands, dict(op.attributes))

    def as_number(self, i: int, values: Mapping[int, ir.Value]) -> ir.Value:
        return self.v.number(values[i])

    def as_mask(self, i: int, values: Mapping[int, ir.Value]) -> ir.Value:
        value = values[i]
        if self.v.is_mask(value):
            return value
        return self.builder.fcmp_unordered("!=", value, self.v.constant(0.0))

    def _write(self, row, column, values, mask) -> None:
        for s in self.stores:
            if s.slot.buffer == SUMS:
                continue
            value = self.as_number(s.value, values)
            if mask is not None and s.slot.buffer == COTANGENTS:
                # A product reads across the columns that fill up a slot; they must be zero.
                value = self.builder.select(mask, value, self.v.constant(0.0))
            if s.add:
                self._add_to(s.slot, row, column, value)
            else:
                self.store(s.slot, row, column, value)

    def _mask(self, block: ir.Value) -> ir.Value | None:
        """Which lanes of a block are units; None where all always are."""
        kernel, builder = self.kernel, self.builder
        if self.kernel.exact and self.loop.size != ONE:
            return None
        first = builder.mul(block, kernel.number(kernel.lanes))
        left = builder.trunc(builder.sub(self.units, first), INT32)
        kind = ir.VectorType(INT32, kernel.lanes)
        numbers = ir.Constant(kind, list(range(kernel.lanes)))
        return builder.icmp_signed("<", numbers, self.splat(left))

    # Sums over units.

    def _neutral(self, reduction: int) -> float:
        return float("-inf") if self.ops[reduction].op == ROW_MAX else 0.0

    def _reduce_in(self, reduction: int, total, values, mask) -> ir.Value:
        op = self.ops[reduction]
        value = self.as_number(op.args[0], values)
        if mask is not None:
            value = self.builder.select(mask, value, self.v.constant(self._neutral(reduction)))
        return self._join(op.op, total, value)

    def _join(self, op: str, one: ir.Value, other: ir.Value) -> ir.Value:
        if op != ROW_MAX:
            return self.builder.fadd(one, other)
        # A NaN may be lost here: softmax, which alone asks, finds it again in its sum.
        return self.builder.select(self.builder.fcmp_ordered(">", other, one), other, one)

    def _across(self, reduction: int, total: ir.Value) -> ir.Value:
        """The lanes of a vector together, in every lane."""
        width, op = self.kernel.lanes, self.ops[reduction].op
        while width > 1:
            width //= 2
            order = [(i % (2 * width)) ^ width for i in range(self.kernel.lanes)]
            kind = ir.VectorType(INT32, self.kernel.lanes)
            other = self.builder.shuffle_vector(total, total, ir.Constant(kind, order))
            total = self._join(op, total, other)
        return total

    # Memory.

    def splat(self, value: Any) -> ir.Value:
        lanes, builder = self.kernel.lanes, self.builder
        kind = ir.VectorType(value.type, lanes)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)

    def _address(self, slot: Slot, row: ir.Value, column: ir.Value | None) -> ir.Value:
        place = self.places[slot]
        address = self.kernel.at(place.first, self.builder.mul(row, place.apart))
        return address if column is None else self.kernel.at(address, column)

    def load(self, i: int, row: ir.Value, column: ir.Value) -> ir.Value:
        """A vector of a row's units; of one number a row, that number in every lane."""
        slot, kernel = self.slots[i], self.kernel
        if self.ops[i].size == ONE:
            address = self._address(slot, row, None)
            return self.splat(self.builder.load(address, typ=kernel.element, align=kernel.bytes))
        address = self._address(slot, row, column)
        return self.builder.load(address, typ=self.v.type, align=kernel.bytes)

    def store(self, slot: Slot, row: ir.Value, column: ir.Value, value: ir.Value) -> None:
        self.builder.store(value, self._address(slot, row, column), align=self.kernel.bytes)

    def _add_to(self, slot: Slot, row: ir.Value, column: ir.Value, value: ir.Value) -> None:
        address = self._address(slot, row, column)
        before = self.builder.load(address, typ=self.v.type, align=self.kernel.bytes)
        self.builder.store(self.builder.fadd(before, value), address, align=self.kernel.bytes)
