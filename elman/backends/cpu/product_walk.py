"""The walk of the product: which register tiles serve a number of rows, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

from elman.backends.cpu.product_emit import Values, Writer, integer, repeat, start
from elman.backends.cpu.product_tile import tile

if TYPE_CHECKING:
    from elman.backends.cpu.machine import Machine

ARGUMENTS = ("rows", "k", "A", "lda", "B", "panels", "C", "ldc", "I", "ldi")


@dataclass(frozen=True)
class Plan:
    """Which tiles a machine has.

    `most` rows fit one tile. `groups` says how many panels a tile of so many rows takes at once,
    the most first: few rows leave registers free, and more sums at a time hide the latency of
    the multiply-add. `unroll` steps along k stand in one turn of the inner loop.
    """

    most: int
    groups: Mapping[int, Sequence[int]]
    unroll: int


def plan(machine: Machine) -> Plan:
    """The tiles that measured best on such a machine."""
    if machine.registers >= 32:
        few = {1: (4, 2, 1), 2: (4, 2, 1), 3: (4, 2, 1), 4: (2, 1), 5: (2, 1), 6: (2, 1)}
        return Plan(12, few, 4)
    if machine.vector_bytes == 16:  # no fused multiply-add: each product needs a register too
        return Plan(4, {1: (4, 2, 1), 2: (2, 1)}, 4)
    return Plan(6, {1: (4, 2, 1), 2: (2, 1), 3: (2, 1)}, 4)


def walk(writer: Writer, choice: Plan) -> None:
    """Writes `product` and the tiles that it calls."""
    tiles = {
        (rows, group): tile(writer, rows, group, choice.unroll)
        for rows in range(1, choice.most + 1)
        for group in choice.groups.get(rows, (1,))
    }
    function = writer.function("product", ARGUMENTS, public=True)
    rows, _, _, _, b, panels, c, _, i, _ = function.args
    builder = start(function)
    many = builder.append_basic_block("many")
    nothing = builder.append_basic_block("nothing")
    choose = builder.switch(rows, many)
    for count, groups in choice.groups.items():
        block = builder.append_basic_block(f"rows_{count}")
        choose.add_case(integer(count), block)
        builder.position_at_end(block)
        left, now = panels, [b, c, i]
        for group in groups:
            left, now = _few(writer, builder, tiles[count, group], group, left, now, function.args)
        builder.ret_void()
    builder.position_at_end(many)
    go = builder.append_basic_block("go")
    builder.cbranch(builder.icmp_signed(">", rows, integer(0)), go, nothing)
    builder.position_at_end(nothing)
    builder.ret_void()
    builder.position_at_end(go)
    _many(writer, builder, tiles, choice, function.args)
    builder.ret_void()


def _few(
    writer: Writer,
    builder: ir.IRBuilder,
    one: ir.Function,
    group: int,
    panels: ir.Value,
    state: Values,
    arguments: Sequence[ir.Value],
) -> tuple[ir.Value, Values]:
    """Few rows, one tile high: `group` panels at a time; returns the panels left over."""
    _, k, a, lda, _, _, _, ldc, _, ldi = arguments
    ahead = builder.mul(k, integer(group * writer.line))

    def body(now: Values) -> Values:
        b, c, i = now
        builder.call(one, [k, a, lda, b, c, ldc, i, ldi])
        across = group * writer.line
        return [
            writer.at(builder, b, ahead),
            writer.at(builder, c, across),
            writer.at(builder, i, across),
        ]

    state = repeat(builder, builder.sdiv(panels, integer(group)), state, body)
    return builder.srem(panels, integer(group)), state


def _many(
    writer: Writer,
    builder: ir.IRBuilder,
    tiles: Mapping[tuple[int, int], ir.Function],
    choice: Plan,
    arguments: Sequence[ir.Value],
) -> None:
    """Many rows: near-equal tiles, one panel at a time, each panel read by all of them in turn."""
    rows, k, _, _, b, panels, c, _, i, _ = arguments
    count = builder.sdiv(builder.add(rows, integer(choice.most - 1)), integer(choice.most))
    height = builder.sdiv(rows, count)
    taller = builder.srem(rows, count)
    low = _pick(builder, height, {h: tiles[h, 1] for h in range(1, choice.most + 1)})
    high = _pick(builder, height, {h - 1: tiles[h, 1] for h in range(2, choice.most + 1)})
    panel = builder.mul(k, integer(writer.line))
    shorter = builder.sub(count, taller)

    def column(now: Values) -> Values:
        b, c, i = now
        state = [arguments[2], c, i]
        tall = builder.add(height, integer(1))
        state = repeat(builder, taller, state, _row(writer, builder, high, tall, b, arguments))
        repeat(builder, shorter, state, _row(writer, builder, low, height, b, arguments))
        return [
            writer.at(builder, b, panel),
            writer.at(builder, c, writer.line),
            writer.at(builder, i, writer.line),
        ]

    repeat(builder, panels, [b, c, i], column)


def _row(
    writer: Writer,
    builder: ir.IRBuilder,
    one: ir.Value,
    height: ir.Value,
    b: ir.Value,
    arguments: Sequence[ir.Value],
) -> Callable[[Values], Values]:
    """The turn of one tile of the panel at `b`, and the way to the tile below it."""
    _, k, _, lda, _, _, _, ldc, _, ldi = arguments
    down = [builder.mul(height, stride) for stride in (lda, ldc, ldi)]

    def body(now: Values) -> Values:
        a, c, i = now
        builder.call(one, [k, a, lda, b, c, ldc, i, ldi])
        return [writer.at(builder, at, by) for at, by in zip(now, down, strict=True)]

    return body


def _pick(builder: ir.IRBuilder, height: ir.Value, tiles: Mapping[int, ir.Function]) -> ir.Value:
    """The tile for this height, chosen once a product."""
    chosen = next(iter(tiles.values()))
    for count, one in tiles.items():
        same = builder.icmp_signed("==", height, integer(count))
        chosen = builder.select(same, one, chosen)
    return chosen
