"""The gradients of weights, W̄ = Σ ā vᵀ over all steps and rows, as products of the register tile.

The rows of a job's result are split over threads. Each takes the steps in pieces: it turns its
columns of the cotangents, so that they lie along the sum, packs the piece of the vectors, and adds
the product to its rows. The order of each sum does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from llvmlite import ir

from elman.backends.cpu import engine, threads
from elman.backends.cpu.emit import Writer
from elman.backends.cpu.kernel import products
from elman.backends.cpu.machine import host
from elman.backends.cpu.memory import empty
from elman.backends.cpu.product import panel_width

PIECE = 128
# Multiplications that one thread does sooner than another wakes up.
SMALL = 1 << 22
HEAD = ("product", "pack_columns", "turn", "jobs", "work", "work_size", "zeros")
JOB = ("total", "A", "lda", "rows", "V", "ldv", "columns", "C", "ldc", "add", "packed")


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
        self.zeros = torch.zeros(1, dtype=self.dtype)

    def run(self, jobs: Sequence[Product]) -> None:
        """Compute every product."""
        work = sum(j.total * j.rows * j.columns for j in jobs)
        count = torch.get_num_threads() if work > SMALL else 1
        most_rows = max(j.rows for j in jobs)
        most_columns = -(-max(j.columns for j in jobs) // self.panel) * self.panel
        if self.zeros.shape[0] < most_columns:
            self.zeros = torch.zeros(most_columns, dtype=self.dtype)
        size = (most_rows + most_columns) * PIECE
        memory = empty(count, size, self.dtype)
        words = [
            *self.functions, len(jobs), memory.data_ptr(), size, self.zeros.data_ptr()
        ]  # fmt: skip
        for job in jobs:
            words += *job, most_rows * PIECE
        block = np.array(words, np.int64)
        threads.run(self.address, block.ctypes.data, count)


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
            self.start = builder.add(
                self.number(len(HEAD)), builder.mul(job, self.number(len(JOB)))
            )
            rows = self.own("rows")
            share = builder.sdiv(builder.add(rows, builder.sub(self.threads, one)), self.threads)
            lanes = self.number(self.lanes)
            share = builder.mul(
                builder.sdiv(builder.add(share, builder.sub(lanes, one)), lanes), lanes
            )
            first = builder.mul(share, self.thread)
            mine = self.smaller(share, builder.sub(rows, first))
            with builder.if_then(builder.icmp_signed(">", mine, self.number(0))):
                self._pieces(first, mine)
        builder.ret_void()

    def own(self, name: str) -> ir.Value:
        return self.word_at(self.builder.add(self.start, self.number(JOB.index(name))))

    def _pieces(self, first: ir.Value, mine: ir.Value) -> None:
        builder = self.builder
        turned = self.at(
            self.pointer("work"), self.elements(builder.mul(self.thread, self.word("work_size")))
        )
        packed = self.at(turned, self.elements(self.own("packed")))
        lda, ldv, ldc = self.own("lda"), self.own("ldv"), self.own("ldc")
        a = self.at(self.address(self.own("A")), self.elements(first))
        v, total = self.address(self.own("V")), self.own("total")
        c = self.at(self.address(self.own("C")), self.elements(builder.mul(first, ldc)))
        piece, panel = self.number(PIECE), self.number(2 * self.lanes)
        filled = builder.add(self.own("columns"), builder.sub(panel, self.number(1)))
        panels = builder.sdiv(filled, panel)
        with self.loop(total, by=PIECE) as step:
            here = self.smaller(piece, builder.sub(total, step))
            from_a = self.at(a, self.elements(builder.mul(step, lda)))
            from_v = self.at(v, self.elements(builder.mul(step, ldv)))
            self.call("turn", from_a, lda, here, mine, turned, piece)
            zero = self.number(0)
            self.call(
                "pack_columns", from_v, ldv, here, self.own("columns"), packed, here, zero, zero
            )
            begun = builder.icmp_signed(">", builder.add(step, self.own("add")), zero)
            start = builder.select(begun, c, self.pointer("zeros"))
            apart = builder.select(begun, ldc, zero)
            self.call(
                "product", mine, here, turned, piece, packed, panels, c, ldc, start, apart,
            )  # fmt: skip
