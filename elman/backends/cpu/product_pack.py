"""Packing weights into the panels that the product reads, and turning matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from elman.backends.cpu.product_emit import Values, Writer, integer, repeat, smaller, start

ARGUMENTS = ("W", "ldw", "k", "columns", "B", "k_total", "column0", "j0")

# Rows that `pack_columns` takes at a time: what lies beside the copied columns stays near, in the
# cache and among the pages at hand, until its turn comes.
STRIP = 32


def packing(writer: Writer) -> None:
    """Writes `pack_rows`, `pack_columns`, `turn` and `clear`."""
    _pack(writer, "pack_rows", across=False)
    _pack(writer, "pack_columns", across=True)
    _turn(writer)
    _clear(writer)


def _pack(writer: Writer, name: str, *, across: bool) -> None:
    function = writer.function(name, ARGUMENTS, public=True)
    w, ldw, k, columns, b, total, column0, j0 = function.args
    builder = start(function)
    line = integer(writer.line)
    b = writer.at(builder, b, builder.mul(j0, line))
    panel = builder.mul(total, line)

    def fill(w: ir.Value, b: ir.Value, k: ir.Value) -> None:
        def place(column: ir.Value) -> ir.Value:
            within = builder.and_(column, integer(writer.line - 1))
            number = builder.lshr(column, integer(writer.line.bit_length() - 1))
            return writer.at(builder, b, builder.add(builder.mul(number, panel), within))

        _Filling(writer, builder, ldw, line, k, across, place).columns(w, columns, column0)

    if not across:
        fill(w, b, k)
        builder.ret_void()
        return

    def strip(now: Values) -> Values:
        w, b, left = now
        fill(w, b, smaller(builder, left, STRIP))
        w = writer.at(builder, w, builder.mul(ldw, integer(STRIP)))
        b = writer.at(builder, b, STRIP * writer.line)
        return [w, b, builder.sub(left, integer(STRIP))]

    strips = builder.sdiv(builder.add(k, integer(STRIP - 1)), integer(STRIP))
    repeat(builder, strips, [w, b, k], strip)
    builder.ret_void()


@dataclass(frozen=True)
class _Filling:
    """The columns of a matrix with `k` lines, `line` elements apart, out of a weight.

    A column is a row of the weight, or with `across` a column of it. `place` says where the first
    line has a column; columns of one vector's span lie side by side.
    """

    writer: Writer
    builder: ir.IRBuilder
    ldw: ir.Value
    line: ir.Value
    k: ir.Value
    across: bool
    place: Callable[[ir.Value], ir.Value]

    def columns(self, source: ir.Value, count: ir.Value, first: ir.Value) -> None:
        """`count` columns from `first` on: singly to a vector's bound, by vectors, singly."""
        builder, lanes = self.builder, self.writer.lanes
        aside = integer(1) if self.across else self.ldw
        head = builder.and_(builder.neg(first), integer(lanes - 1))
        head = smaller(builder, head, count)
        rest = builder.sub(count, head)

        def single(now: Values) -> Values:
            self._single(now[0], self.place(now[1]))
            return [self._at(now[0], aside), builder.add(now[1], integer(1))]

        def block(now: Values) -> Values:
            one = self._copied if self.across else self._turned
            one(now[0], self.place(now[1]))
            far = builder.mul(aside, integer(lanes))
            return [self._at(now[0], far), builder.add(now[1], integer(lanes))]

        state = repeat(builder, head, [source, first], single)
        state = repeat(builder, builder.sdiv(rest, integer(lanes)), state, block)
        repeat(builder, builder.srem(rest, integer(lanes)), state, single)

    def _at(self, base: ir.Value, elements: ir.Value | int) -> ir.Value:
        return self.writer.at(self.builder, base, elements)

    def _move(self, source: ir.Value, target: ir.Value) -> None:
        value = self.builder.load(source, typ=self.writer.scalar, align=self.writer.size)
        self.builder.store(value, target, align=self.writer.size)

    def _single(self, source: ir.Value, target: ir.Value) -> None:
        along = self.ldw if self.across else integer(1)

        def body(now: Values) -> Values:
            self._move(*now)
            return [self._at(now[0], along), self._at(now[1], self.line)]

        repeat(self.builder, self.k, [source, target], body)

    def _copied(self, source: ir.Value, target: ir.Value) -> None:
        """A vector of columns that lie side by side in the weight."""
        writer, builder = self.writer, self.builder

        def body(now: Values) -> Values:
            writer.store(builder, writer.load(builder, now[0]), now[1])
            return [self._at(now[0], self.ldw), self._at(now[1], self.line)]

        repeat(builder, self.k, [source, target], body)

    def _turned(self, source: ir.Value, target: ir.Value) -> None:
        """A vector of columns that are rows of the weight: squares, transposed in registers."""
        writer, builder, lanes = self.writer, self.builder, self.writer.lanes
        starts = [builder.mul(self.ldw, integer(row)) for row in range(lanes)]
        lines = [builder.mul(self.line, integer(j)) for j in range(lanes)]
        far = builder.mul(self.line, integer(lanes))

        def square(now: Values) -> Values:
            rows = [writer.load(builder, self._at(now[0], row)) for row in starts]
            for value, line in zip(_transposed(writer, builder, rows), lines, strict=True):
                writer.store(builder, value, self._at(now[1], line))
            return [self._at(now[0], lanes), self._at(now[1], far)]

        def gather(now: Values) -> Values:
            for lane, row in enumerate(starts):
                self._move(self._at(now[0], row), self._at(now[1], lane))
            return [self._at(now[0], 1), self._at(now[1], self.line)]

        squares = builder.sdiv(self.k, integer(lanes))
        state = repeat(builder, squares, [source, target], square)
        repeat(builder, builder.srem(self.k, integer(lanes)), state, gather)


def _transposed(writer: Writer, builder: ir.IRBuilder, rows: Values) -> Values:
    """The square's transpose: blocks of 1, 2, 4, … change places across the diagonal."""
    rows, lanes, width = list(rows), writer.lanes, 1
    while width < lanes:
        low = [lane if not lane & width else lanes + lane - width for lane in range(lanes)]
        high = [lane + width if not lane & width else lanes + lane for lane in range(lanes)]
        for row in range(lanes):
            if not row & width:
                pair = rows[row], rows[row + width]
                rows[row] = writer.shuffle(builder, *pair, low)
                rows[row + width] = writer.shuffle(builder, *pair, high)
        width *= 2
    return rows


def _turn(writer: Writer) -> None:
    arguments = ("W", "ldw", "rows", "columns", "T", "ldt")
    function = writer.function("turn", arguments, public=True)
    w, ldw, rows, columns, t, ldt = function.args
    builder = start(function)
    filling = _Filling(
        writer, builder, ldw, ldt, columns, False, lambda row: writer.at(builder, t, row)
    )
    filling.columns(w, rows, integer(0))
    builder.ret_void()


def _clear(writer: Writer) -> None:
    function = writer.function("clear", ("B", "count"), public=True)
    b, count = function.args
    builder = start(function)

    def vector(now: Values) -> Values:
        writer.store(builder, ir.Constant(writer.vector, [0.0] * writer.lanes), now[0])
        return [writer.at(builder, now[0], writer.lanes)]

    def single(now: Values) -> Values:
        builder.store(ir.Constant(writer.scalar, 0.0), now[0], align=writer.size)
        return [writer.at(builder, now[0], 1)]

    state = repeat(builder, builder.sdiv(count, integer(writer.lanes)), [b], vector)
    repeat(builder, builder.srem(count, integer(writer.lanes)), state, single)
    builder.ret_void()
