"""The influence of the past moved on: one product for each row of a batch, read and written once.

For each row of a batch the kernel computes, panel of columns after panel,

    N[r, c] = Σ_t f_t M[s_t, c] + Σ_j A[r, j] M[first + j, c]

where the first sum runs over the few terms (f_t, s_t) of the row r: the ways from old to new
states unit by unit. A column's part of M lies in the nearest cache while all its rows are made.
The product is that of `elman.backends.cpu.product`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elman.backends.cpu.machine import Machine, host

if TYPE_CHECKING:
    from elman.backends.cpu.emit import Writer

NAME = "influence"
WORDS = (
    "product", "pack_columns", "batch", "panels", "old", "old:batch", "old:row", "first", "k",
    "left", "left:batch", "new", "new:batch", "new:row", "rows", "keep", "begin", "source",
    "factor", "factor:batch", "scratch", "scratch:thread",
)  # fmt: skip
# Panels that are packed and multiplied together: half a kibibyte of each row of M, so that reading
# goes along lines that lie side by side, and the packed block stays in the second cache.
TOGETHER = 4
# From so many multiplications on the kernel is worth its call.
WORTH = 1 << 16


@dataclass(frozen=True)
class Terms:
    """Ways from old to new rows, one entry to one entry.

    Attributes:
        begin: for each new row the place of its first term; and the number of terms, (rows + 1,).
        source: for each term the old row it reads.
    """

    begin: np.ndarray
    source: np.ndarray

    @staticmethod
    def of(rows: int, pairs: Sequence[tuple[int, int, int]]) -> tuple[Terms, list[int]]:
        """Terms from runs of rows.

        Args:
            rows: how many new rows there are.
            pairs: (first new row, first old row, how many), each a diagonal.

        Returns:
            The terms; and the order in which the diagonals' entries, one diagonal after the other,
            stand among them.
        """
        entries: list[list[tuple[int, int]]] = [[] for _ in range(rows)]
        place = 0
        for new, old, count in pairs:
            for i in range(count):
                entries[new + i].append((old + i, place + i))
            place += count
        begin = np.cumsum([0, *(len(e) for e in entries)])
        source = np.array([s for e in entries for s, _ in e], np.int64)
        return Terms(begin.astype(np.int64), source), [p for e in entries for _, p in e]


def moved(
    left: Tensor,
    old: Tensor,
    first: int,
    new: Tensor,
    *,
    terms: Terms | None = None,
    factors: Tensor | None = None,
    add: bool = False,
) -> None:
    """new = A M + (terms), or new += A M, for each row of a batch.

    Args:
        left: A, (batch, rows, k).
        old: M, (batch, old rows, columns); its entries lie side by side along the columns.
        first: the old row that A's first column meets.
        new: where the result goes, (batch, rows, columns); it must not overlap `old`.
        terms: ways from one old row to one new row, with `factors` (batch, terms).
        add: whether to add to what stands in `new`; then there are no terms.
    """
    columns = old.shape[2]
    if not serves(left, old, new):
        _by_torch(left, old, first, new, terms, factors, add)
        return
    panel = 2 * host().lanes(_element(old))
    whole = columns // panel * panel
    if whole:
        _call(left.contiguous(), old, first, new, terms, factors, add, whole // panel)
    if whole < columns:
        rest = slice(whole, columns)
        _by_torch(left, old[:, :, rest], first, new[:, :, rest], terms, factors, add)


def serves(left: Tensor, old: Tensor, new: Tensor) -> bool:
    """Whether the kernel can do this product, and it is large enough for it."""
    if left.device.type != "cpu" or left.dtype not in (torch.float32, torch.float64):
        return False
    sized = left.numel() * old.shape[2] >= WORTH and left.shape[2] > 0
    if not sized or old.stride(-1) != 1 or new.stride(-1) != 1:
        return False
    return _kernel(_element(old)) is not None


def _element(tensor: Tensor) -> str:
    return "float" if tensor.dtype == torch.float32 else "double"


def _by_torch(left, old, first, new, terms, factors, add) -> None:
    """The same by torch, for a few columns, or where no kernel can run."""
    right = old[:, first : first + left.shape[2]]
    if add:
        new.baddbmm_(left, right) if new.is_contiguous() else new.add_(left @ right)
        return
    torch.matmul(left, right, out=new) if new.is_contiguous() else new.copy_(left @ right)
    if terms is None or factors is None or not len(terms.source):
        return
    counts = np.diff(terms.begin)
    target = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
    new.index_add_(1, target, factors[:, :, None] * old[:, torch.from_numpy(terms.source)])


def _call(left, old, first, new, terms, factors, add, panels) -> None:
    from elman.backends.cpu import threads
    from elman.backends.cpu.kernel import products

    element = _element(old)
    batch, rows, k = left.shape
    lanes = host().lanes(element)
    count = max(1, min(torch.get_num_threads(), batch * -(-panels // TOGETHER)))
    per_thread = TOGETHER * 2 * lanes * k + 64
    scratch = torch.empty(count * per_thread + 64, dtype=old.dtype)
    aligned = (-scratch.data_ptr() % 64) // old.element_size()
    if terms is None or factors is None:
        terms, factors = _no_terms(rows), old.new_zeros(batch, 1)
    factors = factors.contiguous()
    functions = products(element)
    words = np.array([
        functions["product"], functions["pack_columns"], batch, panels,
        old.data_ptr(), old.stride(0), old.stride(1), first, k,
        left.data_ptr(), left.stride(0), new.data_ptr(), new.stride(0), new.stride(1), rows,
        int(add), terms.begin.ctypes.data, terms.source.ctypes.data,
        factors.data_ptr(), factors.stride(0),
        scratch.data_ptr() + aligned * old.element_size(), per_thread // 64 * 64,
    ], np.int64)  # fmt: skip
    code = _kernel(element)
    assert code is not None
    threads.run(code.address(NAME), words.ctypes.data, count)


@cache
def _no_terms(rows: int) -> Terms:
    return Terms.of(rows, [])[0]


@cache
def _kernel(element: str) -> Any:
    """The compiled kernel; None where no kernel can run."""
    from elman.backends.cpu import engine, without_collection

    if engine.available() is not None:
        return None
    machine = host()
    with without_collection():
        return engine.compile_module(
            f"influence {element}", lambda: influence_module(element, machine), (NAME,), machine
        )


def influence_module(element: str, machine: Machine) -> str:
    """The kernel as LLVM IR.

    Args:
        element: "float" or "double".
        machine: what it is to be compiled for.

    Example:
        >>> from elman.backends.cpu.machine import named
        >>> "@\\"influence\\"" in influence_module("float", named("plain"))
        True
    """
    from elman.backends.cpu.emit import Writer

    writer = Writer(element, machine, NAME)
    writer.names = {name: i for i, name in enumerate(WORDS)}
    _Moving(writer).emit()
    return str(writer.module)


class _Moving:
    """The walk over rows of the batch and blocks of panels, a share for each thread."""

    def __init__(self, writer: Writer):
        from llvmlite import ir

        self.ir, self.w, self.builder = ir, writer, writer.builder
        self.vector = ir.VectorType(writer.element, writer.lanes)
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = f"llvm.fmuladd.v{writer.lanes}f{8 * writer.bytes}"
        self.fuse = ir.Function(writer.module, kind, name)
        self.line = 2 * writer.lanes

    def emit(self) -> None:
        w, builder = self.w, self.builder
        panels = w.word("panels")
        blocks = builder.sdiv(builder.add(panels, w.number(TOGETHER - 1)), w.number(TOGETHER))
        items = builder.mul(w.word("batch"), blocks)

        def share(thread: Any) -> Any:
            return builder.sdiv(builder.mul(items, thread), w.threads)

        begin = share(w.thread)
        with w.loop(builder.sub(share(builder.add(w.thread, w.number(1))), begin)) as n:
            item = builder.add(begin, n)
            row, block = builder.sdiv(item, blocks), builder.srem(item, blocks)
            panel = builder.mul(block, w.number(TOGETHER))
            here = w.smaller(w.number(TOGETHER), builder.sub(panels, panel))
            self._block(row, panel, here)
        builder.ret_void()

    def _block(self, row: Any, panel: Any, here: Any) -> None:
        """All new rows of one row of the batch, for a few panels."""
        w, builder = self.w, self.builder
        column = builder.mul(panel, w.number(self.line))

        def place(name: str) -> Any:
            far = builder.add(builder.mul(row, w.word(f"{name}:batch")), column)
            return w.at(w.pointer(name), w.elements(far))

        old, new = place("old"), place("new")
        own = w.elements(builder.mul(w.thread, w.word("scratch:thread")))
        packed = w.at(w.pointer("scratch"), own)
        k, ldo, ldn = w.word("k"), w.word("old:row"), w.word("new:row")
        right = w.at(old, w.elements(builder.mul(w.word("first"), ldo)))
        zero = w.number(0)
        w.call(
            "pack_columns", right, ldo, k, builder.mul(here, w.number(self.line)), packed, k,
            zero, zero,
        )  # fmt: skip
        fresh = builder.icmp_signed("==", w.word("keep"), zero)
        with builder.if_then(fresh):
            factors = w.elements(builder.mul(row, w.word("factor:batch")))
            self._begin(old, new, w.at(w.pointer("factor"), factors), here)
        left = w.at(w.pointer("left"), w.elements(builder.mul(row, w.word("left:batch"))))
        w.call("product", w.word("rows"), k, left, k, packed, here, new, ldn, new, ldn)

    def _begin(self, old: Any, new: Any, factors: Any, here: Any) -> None:
        """What the products start from: the terms of each row."""
        w, builder = self.w, self.builder
        full = builder.icmp_signed("==", here, w.number(TOGETHER))
        with w.loop(w.word("rows")) as r:
            target = w.at(new, w.elements(builder.mul(r, w.word("new:row"))))
            first, after = (
                self._entry("begin", r),
                self._entry("begin", builder.add(r, w.number(1))),
            )
            with builder.if_else(full) as (then, otherwise):
                with then:
                    self._row(old, target, factors, first, after, 2 * TOGETHER)
                with otherwise, w.loop(here) as p:
                    on = w.elements(builder.mul(p, w.number(self.line)))
                    self._row(w.at(old, on), w.at(target, on), factors, first, after, 2)

    def _entry(self, table: str, place: Any) -> Any:
        builder = self.builder
        address = builder.gep(self.w.pointer(table), [place], source_etype=self.ir.IntType(64))
        return builder.load(address, typ=self.ir.IntType(64))

    def _row(self, old: Any, target: Any, factors: Any, first: Any, after: Any, width: int) -> None:
        """Σ over the terms of one row, `width` vectors side by side."""
        from elman.backends.cpu.product_emit import repeat

        w, builder = self.w, self.builder
        zeros = [self.ir.Constant(self.vector, [0.0] * w.lanes)] * width

        def term(now: list) -> list:
            place, *sums = now
            source = self._entry("source", place)
            row = w.at(old, w.elements(builder.mul(source, w.word("old:row"))))
            factor = self._splat(w.at(factors, w.elements(place)))
            new = []
            for v, total in enumerate(sums):
                value = builder.load(self._vector(row, v), typ=self.vector, align=w.bytes)
                new.append(builder.call(self.fuse, [factor, value, total]))
            return [builder.add(place, w.number(1)), *new]

        _, *sums = repeat(builder, builder.sub(after, first), [first, *zeros], term)
        for v, total in enumerate(sums):
            builder.store(total, self._vector(target, v), align=w.bytes)

    def _vector(self, base: Any, number: int) -> Any:
        return self.w.at(base, self.w.number(number * self.w.lanes * self.w.bytes))

    def _splat(self, address: Any) -> Any:
        one = self.builder.load(address, typ=self.w.element, align=self.w.bytes)
        empty = self.ir.Constant(self.vector, self.ir.Undefined)
        int32 = self.ir.IntType(32)
        first = self.builder.insert_element(empty, one, self.ir.Constant(int32, 0))
        order = self.ir.Constant(self.ir.VectorType(int32, self.w.lanes), [0] * self.w.lanes)
        return self.builder.shuffle_vector(first, empty, order)
