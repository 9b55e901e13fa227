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
from torch import Tensor

from elman.backends.cpu import engine, threads
from elman.backends.cpu.emit import Writer
from elman.backends.cpu.kernel import products
from elman.backends.cpu.machine import host
from elman.backends.cpu.product import panel_width

PIECE = 128
HEAD = ("product", "pack_columns", "turn", "jobs", "work", "work_size", "zeros")
JOB = ("total", "A", "lda", "rows", "V", "ldv", "columns", "panels", "C", "ldc", "add", "packed")


class Product(NamedTuple):
    """One product Aᵀ V into C, or added to it: A is (total, rows), V (total, columns).

    C is (rows, columns) of whole panels; A, V and C have rows that are contiguous.
    """

    cotangents: Tensor
    vectors: Tensor
    result: Tensor
    add: bool


class Products:
    """Products of one number type, all in one turn of the threads."""

    def __init__(self, element: str):
        self.element = element
        self.panel = panel_width(element, host())
        functions = products(element)
        self.functions = functions["product"], functions["pack_columns"], functions["turn"]

    def run(self, jobs: Sequence[Product]) -> None:
        """Compute every product."""
        count = torch.get_num_threads()
        most_rows = max(j.cotangents.shape[1] for j in jobs)
        most_columns = max(-(-j.vectors.shape[1] // self.panel) * self.panel for j in jobs)
        size = (most_rows + most_columns) * PIECE
        like = jobs[0].cotangents
        work, zeros = like.new_empty(count * size), like.new_zeros(most_columns)
        words = [*self.functions, len(jobs), work.data_ptr(), size, zeros.data_ptr()]
        for a, v, c, add in jobs:
            columns = v.shape[1]
            words += (
                a.shape[0], a.data_ptr(), a.stride(0), a.shape[1], v.data_ptr(), v.stride(0),
                columns, -(-columns // self.panel), c.data_ptr(), c.stride(0), add,
                most_rows * PIECE,
            )  # fmt: skip
        block = np.array(words, np.int64)
        threads.run(_address(self.element), block.ctypes.data, count)


@cache
def _code(element: str) -> engine.Code:
    machine = host()
    return engine.compile_module(
        f"gradient {element}", lambda: str(_Gradient(element, machine).module), ("gradient",),
        machine,
    )  # fmt: skip


def _address(element: str) -> int:
    return _code(element).address("gradient")


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
        piece = self.number(PIECE)
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
                "product", mine, here, turned, piece, packed, self.own("panels"), c, ldc, start,
                apart,
            )  # fmt: skip
