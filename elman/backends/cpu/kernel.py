"""The kernels of one cell: its layouts, the numbers that follow from its sizes, its code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch

from elman.backends.cpu import engine, without_collection
from elman.backends.cpu.arguments import argument_names
from elman.backends.cpu.layout import (
    COTANGENTS,
    KEPT,
    SCRATCH,
    SUMS,
    Layout,
    Slot,
    forward_layout,
)
from elman.backends.cpu.layout_backward import backward_layout, in_place
from elman.backends.cpu.machine import Machine, host
from elman.backends.cpu.product import FUNCTIONS, product_module
from elman.equation import Graph
from elman.equation.lowering import GATHER, LEAF_OPS, ONE, ROW_MAX, ROW_SUM, Unsupported
from elman.equation.schedule import Schedule, lined, schedule
from elman.equation.sizes import number

ELEMENTS = {torch.float32: "float", torch.float64: "double"}
OURS = (KEPT, COTANGENTS, SCRATCH, SUMS)
# Rows of a chunk of steps for which the inputs' products are made at once, and the most elements
# that they may take: what a core's second cache holds beside the weights.
CHUNK_ROWS, CHUNK_ELEMENTS = 96, 1 << 16


@dataclass(frozen=True)
class Variant:
    """One kernel of a cell: "training", "inference" or "backward"; the states whose cotangents
    are kept for every step; whether every size is a multiple of the panel."""

    kind: str
    planes: tuple[str, ...] = ()
    exact: bool = True


class Kernels:
    """All kernels of one inner step. `Unsupported` where there can be none."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.schedule: Schedule = schedule(graph)
        self.inner = self.schedule.split.inner
        self.lined = lined(self.inner)
        self.depth = 1 + max(
            (line.depth for line in self.inner.lines if line.kind == "state"), default=0
        )
        self.plans: dict[tuple, Any] = {}
        self._backwards: dict[tuple[str, ...], Layout] = {}
        self._known: dict[tuple, Sized] = {}
        self._widths: dict[tuple[int, ...], int] = {}
        self._codes: dict[tuple[Variant, str], engine.Code] = {}
        self._check_operations()
        # What a backward will read is not the caller's, who may change outputs in place.
        inner, copied = self.inner, None
        if inner.output in inner.new_states:
            copied = inner.states[inner.new_states.index(inner.output)].name
        self._forwards = {
            "training": forward_layout(self.schedule.training, copied),
            "inference": forward_layout(self.schedule.inference),
        }

    def _check_operations(self) -> None:
        """Refuse what the emitter does not know before there is a kernel half made."""
        from elman.backends.cpu.maths import ELEMENTWISE  # here: it loads the compiler

        known = {*LEAF_OPS, GATHER, ROW_SUM, ROW_MAX, *ELEMENTWISE}
        for program in (self.schedule.training, self.schedule.inference, self.schedule.adjoint):
            for op in program.ops:
                if op.op not in known:
                    raise Unsupported(f"the operation '{op.op}' has no code for vectors")

    @property
    def kept(self) -> dict[int, Slot]:
        """By node of the inner step, where the forward keeps it."""
        return self._forwards["training"][1]

    def in_place(self, variant: Variant) -> bool:
        """Whether a backward may write its cotangents over what the forward kept."""
        vectors = {p.vector for p in self.schedule.backward.products}
        alone = bool(self.kept) and not vectors & self.kept.keys()
        return alone and in_place(self._backward(variant.planes))

    @cached_property
    def key(self) -> str:
        """What the code is made of, as text."""
        import json

        return json.dumps(self.graph.to_json(), sort_keys=True)

    def layout(self, variant: Variant) -> Layout:
        """Where the values of a kernel lie."""
        if variant.kind != "backward":
            return self._forwards[variant.kind][0]
        return self._backward(variant.planes)

    def _backward(self, planes: tuple[str, ...]) -> Layout:
        known = self._backwards
        if planes not in known:
            program = self.schedule.adjoint_of(planes)
            forward, kept = self._forwards["training"]
            known[planes] = backward_layout(program, kept, planes)
            known[planes].sizes[KEPT] = forward.sizes.get(KEPT, [])
        return known[planes]

    def state_width(self, sizes: Mapping[str, int]) -> int:
        """How many numbers the states of a row are."""
        key = tuple(sizes.values())
        if key not in self._widths:
            states = self.inner.states
            self._widths[key] = sum(number(s.dims[0], sizes) if s.dims else 1 for s in states)
        return self._widths[key]

    def sized(self, variant: Variant, sizes: Mapping[str, int], dtype: torch.dtype) -> Sized:
        """A kernel with its sizes."""
        key = variant, tuple(sorted(sizes.items())), dtype
        if key not in self._known:
            self._known[key] = Sized(self, variant, dict(sizes), dtype)
        return self._known[key]

    def address(self, variant: Variant, element: str) -> int:
        """Where the code of a kernel begins; compiled if it was not."""
        key = variant, element
        if key not in self._codes:
            with without_collection():
                self._codes[key] = _compile(self, variant, element, host())
        return self._codes[key].address("kernel")


def _compile(kernels: Kernels, variant: Variant, element: str, machine: Machine) -> engine.Code:
    def emit() -> str:
        from elman.backends.cpu.emit import kernel_module

        return kernel_module(
            kernels.layout(variant), element, machine,
            exact=variant.exact, back=variant.kind == "backward",
        )  # fmt: skip

    return engine.compile_module(f"{kernels.key} {variant} {element}", emit, ("kernel",), machine)


# Code is freed with what holds it; kernels hold the addresses of these in their words.
_held: list[engine.Code] = []


@cache
def products(element: str) -> dict[str, int]:
    """The addresses of the product and the packing, by name."""
    machine = host()
    code = engine.compile_module(
        f"product {element}", lambda: product_module(element, machine), FUNCTIONS, machine
    )
    _held.append(code)
    return {name: code.address(name) for name in FUNCTIONS}


class Sized:
    """A kernel for given sizes: every word of its block that follows from them, filled in."""

    def __init__(
        self, kernels: Kernels, variant: Variant, sizes: dict[str, int], dtype: torch.dtype
    ):
        self.element = ELEMENTS[dtype]
        lanes = host().lanes(self.element)
        self.lanes, self.panel = lanes, 2 * lanes
        self.sizes = sizes
        self.exact = kernels_exact(kernels, sizes, self.panel)
        self.variant = Variant(variant.kind, variant.planes, self.exact)
        self.layout = kernels.layout(self.variant)
        self.kernels = kernels
        self.names = {name: i for i, name in enumerate(argument_names(self.layout))}
        self.columns: dict[str, list[int]] = {}
        self.width: dict[str, int] = {}
        for buffer in OURS:
            self._columns(buffer)
        self.packed: list[int] = []
        self.words = np.zeros(len(self.names), np.int64)
        self._fill()

    @cached_property
    def address(self) -> int:
        """Where the code begins; compiled if it was not."""
        return self.kernels.address(self.variant, self.element)

    def padded(self, size: str) -> int:
        """The columns that a slot of a size takes."""
        return -(-number(size, self.sizes) // self.panel) * self.panel

    def chunk(self, rows: int) -> int:
        """How many steps the inputs' products are made for at once, with so many rows a thread."""
        columns = max(self.width[KEPT] or self.width[COTANGENTS], 1)
        most = min(CHUNK_ROWS, max(1, CHUNK_ELEMENTS // columns))
        return max(1, most // max(1, rows))

    def _columns(self, buffer: str) -> None:
        starts, column = [], 0
        for size in self.layout.sizes.get(buffer, ()):
            starts.append(column)
            column += self.padded(size)
        if column * (4 if self.element == "float" else 8) % 1024 == 0:
            # Rows a power of two apart would all fall on the same lines of the caches.
            column += self.lanes * bool(column)
        self.columns[buffer], self.width[buffer] = starts, column

    def set(self, name: str, value: int) -> None:
        """Fill in a word, where the kernel reads one of that name."""
        if name in self.names:
            self.words[self.names[name]] = value

    def _fill(self) -> None:
        for buffer in OURS:
            self.set(f"ld:{buffer}", self.width[buffer])
            for i, column in enumerate(self.columns[buffer]):
                self.set(f"column:{buffer}:{i}", column)
        for name in self.names:
            if name.startswith("size:"):
                self.words[self.names[name]] = number(name[5:], self.sizes)
        functions = products(self.element)
        for name in ("product", "pack_rows", "pack_columns"):
            self.set(name, functions[name])
        for i, call in enumerate(self.layout.calls()):
            single = len(call.sources) == 1
            k = sum(number(s, self.sizes) if single else self.padded(s) for s in call.source_sizes)
            columns = sum(self.padded(s) for s in call.target_sizes)
            self.set(f"call:{i}:k", k)
            self.set(f"call:{i}:panels", columns // self.panel)
            self.packed.append(k * columns)
            for j, rectangle in enumerate(call.rectangles):
                own = f"rectangle:{i}:{j}:"
                source, target = (
                    number(sizes[at], self.sizes)
                    for sizes, at in (
                        (call.source_sizes, rectangle.line), (call.target_sizes, rectangle.column)
                    )
                )  # fmt: skip
                self.set(own + "k", source)
                self.set(own + "columns", target)
                self.set(
                    own + "column",
                    sum(self.padded(s) for s in call.target_sizes[: rectangle.column]),
                )
                self.set(
                    own + "line", sum(self.padded(s) for s in call.source_sizes[: rectangle.line])
                )


def kernels_exact(kernels: Kernels, sizes: Mapping[str, int], panel: int) -> bool:
    """Whether every size that a kernel's slots and loops have is a multiple of the panel."""
    names = set()
    for program in (kernels.schedule.training, kernels.schedule.adjoint):
        for index, op in enumerate(program.ops):
            if op.op != "step" and index not in program.after:
                names.add(op.size)
    return all(number(name, sizes) % panel == 0 for name in names - {ONE})


@cache
def kernels_of(graph: Graph) -> Kernels:
    """The kernels of a cell; Unsupported where no kernel can serve it."""
    return Kernels(graph)
