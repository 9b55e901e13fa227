"""Packing weights into the panels that the product reads."""

from __future__ import annotations

from llvmlite import ir

from elman.backends.cpu.product_emit import Values, Writer, integer, repeat, smaller, start

ARGUMENTS = ("W", "ldw", "k", "columns", "B", "k_total", "column0", "j0")


def packing(writer: Writer) -> None:
    """Writes `pack_rows`, `pack_columns` and `clear`."""
    _pack(writer, "pack_rows", transposed=False)
    _pack(writer, "pack_columns", transposed=True)
    _clear(writer)


def _pack(writer: Writer, name: str, *, transposed: bool) -> None:
    """Column by column up to a vector's bound, then whole vectors of columns, then the rest."""
    function = writer.function(name, ARGUMENTS, public=True)
    w, ldw, k, columns, b, total, column0, j0 = function.args
    builder = start(function)
    lanes = integer(writer.lanes)
    # From here on W and B are where j = 0 of the rectangle is.
    b = writer.at(builder, b, builder.mul(j0, integer(writer.line)))
    panel = builder.mul(total, integer(writer.line))
    along, across = (ldw, integer(1)) if transposed else (integer(1), ldw)

    def place(column: ir.Value) -> ir.Value:
        within = builder.and_(column, integer(writer.line - 1))
        number = builder.lshr(column, integer(writer.line.bit_length() - 1))
        return writer.at(builder, b, builder.add(builder.mul(number, panel), within))

    def single(now: Values) -> Values:
        source, column = now
        _line(writer, builder, source, along, place(column), k)
        return [writer.at(builder, source, across), builder.add(column, integer(1))]

    def block(now: Values) -> Values:
        source, column = now
        if transposed:
            _copy(writer, builder, source, ldw, place(column), k)
        else:
            _turn(writer, builder, source, ldw, place(column), k)
        step = builder.mul(across, lanes)
        return [writer.at(builder, source, step), builder.add(column, lanes)]

    head = builder.and_(builder.neg(column0), integer(writer.lanes - 1))
    head = smaller(builder, head, columns)
    state = repeat(builder, head, [w, column0], single)
    columns = builder.sub(columns, head)
    state = repeat(builder, builder.sdiv(columns, lanes), state, block)
    repeat(builder, builder.srem(columns, lanes), state, single)
    builder.ret_void()


def _line(
    writer: Writer,
    builder: ir.IRBuilder,
    source: ir.Value,
    along: ir.Value,
    target: ir.Value,
    k: ir.Value,
) -> None:
    """One column, element by element."""

    def body(now: Values) -> Values:
        value = builder.load(now[0], typ=writer.scalar, align=writer.size)
        builder.store(value, now[1], align=writer.size)
        return [writer.at(builder, now[0], along), writer.at(builder, now[1], writer.line)]

    repeat(builder, k, [source, target], body)


def _copy(
    writer: Writer,
    builder: ir.IRBuilder,
    source: ir.Value,
    ldw: ir.Value,
    target: ir.Value,
    k: ir.Value,
) -> None:
    """A vector of columns that lie side by side in the weight."""

    def body(now: Values) -> Values:
        writer.store(builder, writer.load(builder, now[0]), now[1])
        return [writer.at(builder, now[0], ldw), writer.at(builder, now[1], writer.line)]

    repeat(builder, k, [source, target], body)


def _turn(
    writer: Writer,
    builder: ir.IRBuilder,
    source: ir.Value,
    ldw: ir.Value,
    target: ir.Value,
    k: ir.Value,
) -> None:
    """A vector of columns that are rows of the weight: squares are transposed in registers."""
    lanes = writer.lanes

    def square(now: Values) -> Values:
        rows = [
            writer.load(builder, writer.at(builder, now[0], builder.mul(ldw, integer(row))))
            for row in range(lanes)
        ]
        for j, value in enumerate(_transposed(writer, builder, rows)):
            writer.store(builder, value, writer.at(builder, now[1], j * writer.line))
        return [writer.at(builder, now[0], lanes), writer.at(builder, now[1], lanes * writer.line)]

    def gather(now: Values) -> Values:
        for row in range(lanes):
            address = writer.at(builder, now[0], builder.mul(ldw, integer(row)))
            value = builder.load(address, typ=writer.scalar, align=writer.size)
            builder.store(value, writer.at(builder, now[1], row), align=writer.size)
        return [writer.at(builder, now[0], 1), writer.at(builder, now[1], writer.line)]

    state = repeat(builder, builder.sdiv(k, integer(lanes)), [source, target], square)
    repeat(builder, builder.srem(k, integer(lanes)), state, gather)


def _transposed(writer: Writer, builder: ir.IRBuilder, rows: Values) -> Values:
    """The square's transpose: blocks of 1, 2, 4, … change places across the diagonal."""
    rows, lanes = list(rows), writer.lanes
    width = 1
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


def _clear(writer: Writer) -> None:
    function = writer.function("clear", ("B", "count"), public=True)
    b, count = function.args
    builder = start(function)
    lanes = integer(writer.lanes)

    def vector(now: Values) -> Values:
        writer.store(builder, ir.Constant(writer.vector, [0.0] * writer.lanes), now[0])
        return [writer.at(builder, now[0], writer.lanes)]

    def single(now: Values) -> Values:
        builder.store(ir.Constant(writer.scalar, 0.0), now[0], align=writer.size)
        return [writer.at(builder, now[0], 1)]

    state = repeat(builder, builder.sdiv(count, lanes), [b], vector)
    repeat(builder, builder.srem(count, lanes), state, single)
    builder.ret_void()
