"""The walk of the product: which register tiles serve a number of rows, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from elman.backends.cpu.product_emit import Values, Writer, integer, repeat, smaller, start
from elman.backends.cpu.product_tile import tile

if TYPE_CHECKING:
    from elman.backends.cpu.machine import Machine

ARGUMENTS = ("rows", "k", "A", "lda", "B", "panels", "C", "ldc", "I", "ldi")

# How far ahead of the multiply-adds B is fetched, in bytes: some hundred cycles' worth.
NEAR = 4096

# Panels larger than this, in bytes, are cut along k into blocks that stay in the nearest cache
# while all tiles of rows pass; smaller ones gain less than the sums' way to memory and back costs.
LARGE = 96 * 1024
BLOCK = 16 * 1024

Tiles = Mapping[tuple[int, int], ir.Function]


@dataclass(frozen=True)
class Plan:
    """Which tiles a machine has.

    `most` rows fit one tile. `groups` says how many panels a tile of so many rows takes at once,
    the most first, where that is not one: few rows leave registers free, and more sums at a time
    hide the latency of the multiply-add.
    """

    most: int
    groups: Mapping[int, Sequence[int]]


def plan(machine: Machine) -> Plan:
    """The tiles that measured best on such a machine."""
    if machine.registers >= 32:
        return Plan(12, {1: (4, 2, 1), 2: (4, 2, 1), 3: (4, 2, 1), 4: (2, 1)})
    if machine.vector_bytes == 16:  # no fused multiply-add: each product needs a register too
        return Plan(4, {1: (4, 2, 1), 2: (2, 1)})
    return Plan(6, {1: (4, 2, 1), 2: (2, 1), 3: (2, 1)})


def _tile(writer: Writer, rows: int, group: int) -> ir.Function:
    """Long turns of the loop gain nothing where the tile is large; few rows wait for B alone, and
    have no time to prefetch it."""
    return tile(writer, rows, group, unroll=2 if rows * group > 5 else 4, fetches=rows >= 4)


def walk(writer: Writer, choice: Plan) -> None:
    """Writes `product` and the tiles that it calls."""
    tiles = {
        (rows, group): _tile(writer, rows, group)
        for rows in range(1, choice.most + 1)
        for group in choice.groups.get(rows, (1,))
    }
    function = writer.function("product", ARGUMENTS, public=True)
    rows, panels = function.args[0], function.args[5]
    builder = start(function)
    some = builder.append_basic_block("some")
    nothing = builder.append_basic_block("nothing")
    choose = builder.switch(rows, some)
    for count, groups in choice.groups.items():
        block = builder.append_basic_block(f"rows_{count}")
        choose.add_case(integer(count), block)
        builder.position_at_end(block)
        left, places = panels, [function.args[at] for at in (4, 6, 8)]
        for group in groups:
            times = builder.sdiv(left, integer(group))
            one = tiles[count, group]
            places = _few(writer, builder, one, group, times, places, function.args)
            left = builder.srem(left, integer(group))
        builder.ret_void()
    builder.position_at_end(nothing)
    builder.ret_void()
    builder.position_at_end(some)
    many = builder.append_basic_block("many")
    builder.cbranch(builder.icmp_signed(">", rows, integer(0)), many, nothing)
    builder.position_at_end(many)
    _Many(writer, builder, tiles, choice.most, function.args).emit()
    builder.ret_void()


def _few(
    writer: Writer,
    builder: ir.IRBuilder,
    one: ir.Function,
    group: int,
    times: ir.Value,
    places: Values,
    arguments: Sequence[ir.Value],
) -> Values:
    """Few rows, one tile high: `group` panels at a time; returns where B, C and I go on."""
    _, k, a, lda, _, _, _, ldc, _, ldi = arguments
    onwards = [builder.mul(k, integer(group * writer.line)), *[integer(group * writer.line)] * 2]

    def body(now: Values) -> Values:
        b, c, i = now
        builder.call(one, [k, a, lda, b, c, ldc, i, ldi, integer(NEAR)])
        return _moved(writer, builder, now, onwards)

    return repeat(builder, times, places, body)


def _moved(
    writer: Writer, builder: ir.IRBuilder, places: Values, elements: Sequence[ir.Value]
) -> Values:
    return [writer.at(builder, at, by) for at, by in zip(places, elements, strict=True)]


class _Many:
    """Many rows: a panel at a time, cut along k where it is large, and near-equal tiles of rows.

    Near-equal, because sixteen rows as twelve and four would leave the four waiting for their
    sums. Each block of B is read by all tiles in turn, and the last of them, which finds its own
    block near, fetches the next one.
    """

    def __init__(
        self,
        writer: Writer,
        builder: ir.IRBuilder,
        tiles: Tiles,
        most: int,
        arguments: Sequence[ir.Value],
    ):
        self.writer, self.builder = writer, builder
        self.rows, self.k, self.a, self.lda, *rest = arguments
        self.b, self.panels, self.c, self.ldc, self.i, self.ldi = rest
        self.count = builder.sdiv(builder.add(self.rows, integer(most - 1)), integer(most))
        self.height = builder.sdiv(self.rows, self.count)
        self.taller = builder.srem(self.rows, self.count)
        self.low = self._pick({height: tiles[height, 1] for height in range(1, most + 1)})
        self.high = self._pick({height - 1: tiles[height, 1] for height in range(2, most + 1)})
        line = writer.line * writer.size
        large = builder.icmp_signed(">", self.k, integer(LARGE // line))
        some = builder.select(builder.icmp_signed(">", self.k, integer(0)), self.k, integer(1))
        self.deep = builder.select(large, integer(BLOCK // line), some)
        near = builder.icmp_signed("==", self.count, integer(1))
        block = builder.mul(self.deep, integer(line))
        self.far = builder.select(near, integer(NEAR), block)

    def _pick(self, tiles: Mapping[int, ir.Function]) -> ir.Value:
        """The tile for `height` rows, chosen once a product."""
        chosen: ir.Value = next(iter(tiles.values()))
        for height, one in tiles.items():
            same = self.builder.icmp_signed("==", self.height, integer(height))
            chosen = self.builder.select(same, one, chosen)
        return chosen

    def emit(self) -> None:
        panel = self.builder.mul(self.k, integer(self.writer.line))
        onwards = [panel, *[integer(self.writer.line)] * 2]

        def body(now: Values) -> Values:
            self._panel(*now)
            return _moved(self.writer, self.builder, now, onwards)

        repeat(self.builder, self.panels, [self.b, self.c, self.i], body)

    def _panel(self, b: ir.Value, c: ir.Value, i: ir.Value) -> None:
        """All of k: the first block starts from I, each later one from what is in C."""
        builder = self.builder
        self._block(self.a, b, c, i, self.ldi, smaller(builder, self.k, self.deep))
        left = builder.sub(self.k, self.deep)
        more = builder.sdiv(builder.add(left, builder.sub(self.deep, integer(1))), self.deep)

        def body(now: Values) -> Values:
            a, b, left = now
            a, b = self._deeper(a, b)
            self._block(a, b, c, c, self.ldc, smaller(builder, left, self.deep))
            return [a, b, builder.sub(left, self.deep)]

        repeat(builder, more, [self.a, b, left], body)

    def _deeper(self, a: ir.Value, b: ir.Value) -> Values:
        by = [self.deep, self.builder.mul(self.deep, integer(self.writer.line))]
        return _moved(self.writer, self.builder, [a, b], by)

    def _block(
        self, a: ir.Value, b: ir.Value, c: ir.Value, i: ir.Value, ldi: ir.Value, depth: ir.Value
    ) -> None:
        """All rows for one block of B: the taller tiles first."""
        builder = self.builder

        def body(now: Values) -> Values:
            number, *places = now
            number = builder.add(number, integer(1))
            tall = builder.icmp_signed("<=", number, self.taller)
            last = builder.icmp_signed("==", number, self.count)
            ahead = builder.select(last, self.far, integer(NEAR))
            one = builder.select(tall, self.high, self.low)
            a, c, i = places
            builder.call(one, [depth, a, self.lda, b, c, self.ldc, i, ldi, ahead])
            rows = builder.add(self.height, builder.zext(tall, self.height.type))
            down = [builder.mul(rows, stride) for stride in (self.lda, self.ldc, ldi)]
            return [number, *_moved(self.writer, builder, places, down)]

        repeat(builder, self.count, [integer(0), a, c, i], body)
