"""The register tile: some rows by some panels, kept in registers while the walk goes over k."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from elman.backends.cpu.product_emit import BYTE, Values, Writer, integer, repeat, start

ARGUMENTS = ("k", "A", "lda", "B", "C", "ldc", "I", "ldi", "ahead")

FETCHED = 64  # bytes that one prefetch brings

# Rows (or panels) that one pointer serves: x86 addresses base, base + s and base + 2 s for one
# stride s, so that twelve rows need four pointers, where twelve would not fit its registers.
TOGETHER = 3


def tile(writer: Writer, rows: int, panels: int, unroll: int, fetches: bool) -> ir.Function:
    """Writes the tile of `rows` × `panels`: C = I + A B for all of k.

    With `fetches` it asks for the lines of B that lie `ahead` bytes further on.

    Every element is one chain of multiply-adds that starts from I and takes j = 0, 1, … in order.
    No tile may change that: it is why a row is bit-equal in any batch.
    """
    function = writer.function(f"tile_{rows}x{panels}", ARGUMENTS, public=False)
    k, a, lda, b, c, ldc, i, ldi, ahead = function.args
    builder = start(function)
    panel = builder.mul(k, integer(writer.line))
    left = _pointers(writer, builder, a, lda, rows)
    right = _pointers(writer, builder, b, panel, panels)
    begin = _vectors(writer, builder, i, ldi, rows, panels)
    sums = [writer.load(builder, address) for address in begin]
    size = integer(writer.size)
    strides = _Strides(builder.mul(lda, size), builder.mul(panel, size), ahead if fetches else None)
    steps = _Steps(writer, builder, rows, panels, strides)
    state = [*left, *right, *sums]
    many = builder.udiv(k, integer(unroll))
    state = repeat(builder, many, state, lambda now: steps.take(now, unroll))
    rest = builder.urem(k, integer(unroll))
    state = repeat(builder, rest, state, lambda now: steps.take(now, 1))
    sums = state[len(left) + len(right) :]
    end = _vectors(writer, builder, c, ldc, rows, panels)
    for value, address in zip(sums, end, strict=True):
        writer.store(builder, value, address)
    builder.ret_void()
    return function


def _pointers(
    writer: Writer, builder: ir.IRBuilder, base: ir.Value, stride: ir.Value, count: int
) -> Values:
    firsts = range(0, count, TOGETHER)
    return [writer.at(builder, base, builder.mul(stride, integer(first))) for first in firsts]


def _vectors(
    writer: Writer,
    builder: ir.IRBuilder,
    base: ir.Value,
    stride: ir.Value,
    rows: int,
    panels: int,
) -> Values:
    """Where the tile's vectors lie, row by row."""
    found = []
    for row in range(rows):
        line = writer.at(builder, base, builder.mul(stride, integer(row)))
        found += [writer.at(builder, line, v * writer.lanes) for v in range(2 * panels)]
    return found


@dataclass(frozen=True)
class _Strides:
    """In bytes: from a row of A to the next, from a panel to the next, and how far to fetch."""

    row: ir.Value
    panel: ir.Value
    ahead: ir.Value | None


class _Steps:
    """The way along k: a state is the pointers into A, those into B, and the sums, row by row."""

    def __init__(
        self, writer: Writer, builder: ir.IRBuilder, rows: int, panels: int, strides: _Strides
    ):
        self.writer, self.builder, self.strides = writer, builder, strides
        self.rows, self.width = rows, 2 * panels
        self.left = -(-rows // TOGETHER)
        self.right = -(-panels // TOGETHER)

    def take(self, state: Values, count: int) -> Values:
        """`count` steps on from `state`."""
        left, rest = state[: self.left], state[self.left :]
        right, sums = rest[: self.right], list(rest[self.right :])
        for j in range(count):
            self._step(left, right, j, sums)
        along = [(one, count) for one in left] + [(one, count * self.writer.line) for one in right]
        return [*(self.writer.at(self.builder, one, by) for one, by in along), *sums]

    def _step(self, left: Values, right: Values, j: int, sums: Values) -> None:
        """One step: the shorter side is held, the longer passes, so that the registers suffice."""
        across, down = range(self.width), range(self.rows)
        if self.strides.ahead is not None:
            self._fetch(right, j, self.strides.ahead)
        if self.rows < self.width:
            factors = [self._factor(left, row, j) for row in down]
            for v in across:
                line = self._line(right, v, j)
                for row in down:
                    self._add(sums, row, v, factors[row], line)
        else:
            lines = [self._line(right, v, j) for v in across]
            for row in down:
                factor = self._factor(left, row, j)
                for v in across:
                    self._add(sums, row, v, factor, lines[v])

    def _fetch(self, right: Values, j: int, ahead: ir.Value) -> None:
        """Prefetches the lines `ahead` of this step's: all of them, each once."""
        writer, begin, bytes_ = (
            self.writer,
            j * self.writer.line,
            self.writer.line * self.writer.size,
        )
        if j * bytes_ % FETCHED:
            return
        for panel in range(self.width // 2):
            base = right[panel // TOGETHER]
            address = self._past(base, self.strides.panel, panel % TOGETHER, begin)
            address = self.builder.gep(address, [ahead], source_etype=BYTE)
            for part in range(0, bytes_, FETCHED):
                writer.prefetch(self.builder, writer.at(self.builder, address, part // writer.size))

    def _add(self, sums: Values, row: int, v: int, factor: ir.Value, line: ir.Value) -> None:
        at = row * self.width + v
        sums[at] = self.builder.call(self.writer.fuse, [factor, line, sums[at]])

    def _factor(self, left: Values, row: int, j: int) -> ir.Value:
        address = self._past(left[row // TOGETHER], self.strides.row, row % TOGETHER, j)
        return self.writer.broadcast(self.builder, address)

    def _line(self, right: Values, v: int, j: int) -> ir.Value:
        panel, second = divmod(v, 2)
        within = j * self.writer.line + second * self.writer.lanes
        base = right[panel // TOGETHER]
        address = self._past(base, self.strides.panel, panel % TOGETHER, within)
        return self.writer.load(self.builder, address)

    def _past(self, base: ir.Value, stride: ir.Value, times: int, elements: int) -> ir.Value:
        """The address `times` strides (in bytes) and so many elements after `base`."""
        if times:
            far = stride if times == 1 else self.builder.mul(stride, integer(times))
            base = self.builder.gep(base, [far], source_etype=BYTE)
        return self.writer.at(self.builder, base, elements)
