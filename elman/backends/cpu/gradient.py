"""The gradients of weights, W̄ = Σ ā vᵀ over all steps and rows, as products of the register tile.

The rows of a job's result are split over threads. Each takes the steps in pieces: it turns its
columns of the cotangents, so that they lie along the sum, packs the piece of the vectors, and adds
the product to its rows. The order of each sum does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir

from elman.backends.cpu import engine
from elman.backends.cpu.emit import Writer
from elman.backends.cpu.kernel import products
from elman.backends.cpu.machine import host
from elman.backends.cpu.memory import empty
from elman.backends.cpu.product import panel_width
from elman.backends.cpu.turn import Function, Stage

PIECE = 128
# Multiplications that one thread does sooner than another wakes up.
SMALL = 1 << 22
HEAD = ("product", "pack_columns", "turn", "jobs", "work", "work_size", "zeros")
JOB = ("total", "A", "lda", "rows", "V", "ldv", "columns", "C", "ldc", "add", "packed", "group")


class Product(NamedTuple):
    """One product Aᵀ V into C, or added to it, by addresses and elements from row to row.

    A is (total, rows), V (total, columns), C (rows, columns) of whole panels.
    """

    total: int
    a: int
    lda: int
    rows: int
    v: int
    ldv: int
    columns: int
    c: int
    ldc: int
    add: bool


class Products:
    """Products of one number type, all in one turn of the threads."""

    def __init__(self, element: str):
        self.element = element
        self.dtype = torch.float32 if element == "float" else torch.float64
        self.panel = panel_width(element, host())
        functions = products(element)
        self.functions = functions["product"], functions["pack_columns"], functions["turn"]
        self.address = _code(element).address("gradient")
        self.zeros = torch.zeros(1, dtype=self.dtype, device="cpu")

    def stage(self, jobs: Sequence[Product], count: int, live: list) -> Stage:
        """What computes every product on up to `count` threads; memory that it needs until then is
        put in `live`."""
        most_rows = max(j.rows for j in jobs)
        most_columns = -(-max(j.columns for j in jobs) // self.panel) * self.panel
        zeros = self.zeros
        if zeros.shape[0] < most_columns:
            # Another thread may still read the shorter one, and holds it as this one is held.
            self.zeros = zeros = torch.zeros(most_columns, dtype=self.dtype, device="cpu")
        size = (most_rows + most_columns) * PIECE
        memory = empty(count, size, self.dtype)
        live += zeros, memory
        words = [
            *self.functions, len(jobs), memory.data_ptr(), size, zeros.data_ptr()
        ]  # fmt: skip
        jobs = sorted(jobs, key=_cotangents)
        for _, alike in groupby(jobs, key=_cotangents):
            group = list(alike)
            for number, job in enumerate(group):
                words += *job, most_rows * PIECE, 0 if number else len(group)
        return Stage([Function(self.address, np.array(words, np.int64))], count)


def is_large(jobs: Sequence[Product]) -> bool:
    """Whether products are worth waking threads for."""
    return sum(j.total * j.rows * j.columns for j in jobs) > SMALL


def _cotangents(job: Product) -> tuple[bool, int, int]:
    """What jobs share that are done together: the cotangents are turned once for all of them.
    Those that add to a result come after those that begin it."""
    return job.add, job.a, job.rows


@cache
def _code(element: str) -> engine.Code:
    machine = host()
    return engine.compile_module(
        f"gradient {element}", lambda: str(_Gradient(element, machine).module), ("gradient",),
        machine,
    )  # fmt: skip


class _Gradient(Writer):
    """The function in the making."""

    def __init__(self, element, machine):
        super().__init__(element, machine, "gradient")
        self.names = {name: i for i, name in enumerate(HEAD)}
        builder, one = self.builder, self.number(1)
        with self.loop(self.word("jobs")) as job:
            start = builder.add(self.number(len(HEAD)), builder.mul(job, self.number(len(JOB))))
            group, rows = self.own(start, "group"), self.own(start, "rows")
            share = builder.sdiv(builder.add(rows, builder.sub(self.threads, one)), self.threads)
            lanes = self.number(self.lanes)
            share = builder.mul(
                builder.sdiv(builder.add(share, builder.sub(lanes, one)), lanes), lanes
            )
            first = builder.mul(share, self.thread)
            mine = self.smaller(share, builder.sub(rows, first))
            leads = builder.icmp_signed(">", group, self.number(0))
            works = builder.and_(leads, builder.icmp_signed(">", mine, self.number(0)))
            with builder.if_then(works):
                self._pieces(start, group, first, mine)
        builder.ret_void()

    def own(self, start: ir.Value, name: str) -> ir.Value:
        return self.word_at(self.builder.add(start, self.number(JOB.index(name))))

    def _pieces(self, start: ir.Value, group: ir.Value, first: ir.Value, mine: ir.Value) -> None:
        """The pieces of a group: for each the cotangents are turned, and met with every vector."""
        builder = self.builder
        turned = self.at(
            self.pointer("work"), self.elements(builder.mul(self.thread, self.word("work_size")))
        )
        lda, total = self.own(start, "lda"), self.own(start, "total")
        a = self.at(self.address(self.own(start, "A")), self.elements(first))
        piece = self.number(PIECE)
        with self.loop(total, by=PIECE) as step:
            here = self.smaller(piece, builder.sub(total, step))
            from_a = self.at(a, self.elements(builder.mul(step, lda)))
            self.call("turn", from_a, lda, here, mine, turned, piece)
            with self.loop(group) as job:
                own = builder.add(start, builder.mul(job, self.number(len(JOB))))
                self._product(own, step, here, first, mine, turned)

    def _product(self, start, step, here, first, mine, turned) -> None:
        """One piece of one job."""
        builder, zero = self.builder, self.number(0)
        ldv, ldc = self.own(start, "ldv"), self.own(start, "ldc")
        v, columns = self.address(self.own(start, "V")), self.own(start, "columns")
        c = self.at(self.address(self.own(start, "C")), self.elements(builder.mul(first, ldc)))
        packed = self.at(turned, self.elements(self.own(start, "packed")))
        panel = self.number(2 * self.lanes)
        panels = builder.sdiv(builder.add(columns, builder.sub(panel, self.number(1))), panel)
        from_v = self.at(v, self.elements(builder.mul(step, ldv)))
        self.call("pack_columns", from_v, ldv, here, columns, packed, here, zero, zero)
        begun = builder.icmp_signed(">", builder.add(step, self.own(start, "add")), zero)
        begin = builder.select(begun, c, self.pointer("zeros"))
        apart = builder.select(begun, ldc, zero)
        self.call(
            "product", mine, here, turned, self.number(PIECE), packed, panels, c, ldc, begin, apart
        )
