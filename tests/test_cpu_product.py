"""The matrix product of the CPU kernels, on every machine that LLVM can make for this one."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import re
import sys
from collections.abc import Callable

import numpy as np
import pytest

from elman.backends.cpu.engine import Code, assembly, compile_module
from elman.backends.cpu.machine import Machine, named, runs_here
from elman.backends.cpu.product import FUNCTIONS, packed_size, panel_width, product_module

KINDS = {"float": np.float32, "double": np.float64}
NAMES = ("avx512", "avx2", "plain", "neon")
KEPT: list[Code] = []  # functions may be called while their code lives
HERE = [name for name in NAMES if runs_here(named(name))]
Functions = dict[str, Callable[..., None]]

on_machines = pytest.mark.parametrize(
    ("name", "element"), list(itertools.product(HERE, KINDS)), ids=lambda one: str(one)
)


@functools.cache
def compiled(name: str, element: str) -> Functions:
    machine = named(name)
    code = compile_module(
        f"test product {element}",
        lambda: product_module(element, machine),
        FUNCTIONS,
        machine,
        cached=False,
    )
    counts = {"product": 10, "pack_rows": 8, "pack_columns": 8, "turn": 6, "clear": 2}
    KEPT.append(code)
    return {
        function: ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * counts[function])(
            code.address(function)
        )
        for function in FUNCTIONS
    }


def guarded(shape: tuple[int, ...], kind: type, fill: float, *, past: int = 0) -> np.ndarray:
    """An array filled with `fill` that begins `past` elements after a vector's bound."""
    count = int(np.prod(shape))
    room = np.full(count + 64 + past, fill, kind)
    first = (-room.ctypes.data // room.itemsize) % (64 // room.itemsize) + past
    return room[first : first + count].reshape(shape)


class Problem:
    """A product with gaps: NaN where nothing may be read, a mark where nothing may be written."""

    MARK = 77.0

    def __init__(
        self,
        machine: Machine,
        element: str,
        shape: tuple[int, int, int],
        *,
        gap: int = 3,
        past: int = 1,
        seed: int = 0,
        short: bool = False,
    ):
        self.element = element
        self.rows, self.k, self.panels = shape
        kind, random = KINDS[element], np.random.default_rng(seed)
        self.width = panel_width(element, machine)
        self.columns = self.panels * self.width
        self.a = guarded((self.rows, self.k + gap), kind, np.nan, past=past)
        self.b = guarded((self.panels, self.k, self.width), kind, np.nan, past=past)
        self.c = guarded((self.rows + 1, self.columns + gap), kind, self.MARK, past=past)
        self.i = guarded((self.rows, self.columns + gap), kind, np.nan, past=past)
        self.a[:, : self.k] = draw(random, (self.rows, self.k), short)
        self.b[:] = draw(random, self.b.shape, short)
        self.i[:, : self.columns] = draw(random, (self.rows, self.columns), short)

    def weight(self) -> np.ndarray:
        """B as (k, columns)."""
        return self.b.transpose(1, 0, 2).reshape(self.k, self.columns)

    def run(self, functions: Functions, first: int = 0, last: int | None = None) -> np.ndarray:
        """The product of the rows first..last; returns C's part of them."""
        rows = slice(first, self.rows if last is None else last)
        a, c, i = self.a[rows], self.c[rows], self.i[rows]
        strides = [one.strides[0] // one.itemsize for one in (self.a, self.c, self.i)]
        functions["product"](
            len(a), self.k, a.ctypes.data, strides[0], self.b.ctypes.data, self.panels,
            c.ctypes.data, strides[1], i.ctypes.data, strides[2],
        )  # fmt: skip
        return c[:, : self.columns]

    def untouched(self) -> bool:
        return bool(
            (self.c[:, self.columns :] == self.MARK).all() and (self.c[-1] == self.MARK).all()
        )


def draw(random: np.random.Generator, shape: tuple[int, ...], short: bool) -> np.ndarray:
    """Normal numbers, or with `short` numbers of 12 bits, whose products float32 holds exactly."""
    if short:
        return random.integers(-2048, 2049, shape) / 2048
    return random.standard_normal(shape)


@on_machines
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1),
        (1, 64, 9),
        (2, 7, 5),
        (3, 33, 6),
        (5, 64, 3),
        (6, 5, 4),
        (11, 40, 2),
        (37, 130, 3),
    ],
)
def test_product_equals_numpy(name: str, element: str, shape: tuple[int, int, int]):
    problem = Problem(named(name), element, shape)
    out = problem.run(compiled(name, element)).astype(np.float64)
    a, b = problem.a[:, : problem.k].astype(np.float64), problem.weight().astype(np.float64)
    i = problem.i[:, : problem.columns].astype(np.float64)
    # A chain of k roundings, and one more for machines that round the product too.
    bound = 2 * (problem.k + 1) * np.finfo(KINDS[element]).eps * (abs(i) + abs(a) @ abs(b))
    if element == "double":
        bound *= 2  # the oracle rounds as well
    assert (abs(out - (i + a @ b)) <= bound).all()
    assert problem.untouched()


@on_machines
def test_every_row_is_one_chain_in_order(name: str, element: str):
    """Bit-equal to the plain loop, for every number of rows and panels up to a tile and more."""
    if element == "double":
        pytest.skip("sums of short numbers are exact in double: order would not show")
    small = [(rows, 70, panels) for rows in (*range(1, 14), 25) for panels in (1, 2, 3, 4, 7)]
    for shape in (*small, (13, 3300, 2), (5, 3100, 1)):  # the longest are taken in blocks
        problem = Problem(named(name), element, shape, short=True)
        out = problem.run(compiled(name, element))
        chain, b = problem.i[:, : problem.columns], problem.weight().astype(np.float64)
        for j in range(problem.k):
            # Exact in double, so that the only rounding is the one to float32.
            chain = (problem.a[:, j : j + 1] * b[j] + chain).astype(np.float32)
        assert out.tobytes() == chain.tobytes(), shape


@on_machines
@pytest.mark.parametrize(("gap", "past"), [(0, 0), (5, 1)])
def test_a_row_is_bit_equal_in_any_batch(name: str, element: str, gap: int, past: int):
    functions = compiled(name, element)
    for panels in (1, 3, 4):
        whole = Problem(named(name), element, (40, 37, panels), gap=gap, past=past)
        alone = np.concatenate([whole.run(functions, row, row + 1) for row in range(40)])
        for rows in range(1, 41):
            whole.c[:-1] = Problem.MARK
            out = whole.run(functions, 40 - rows)
            assert out.tobytes() == alone[40 - rows :].tobytes(), (rows, panels)
            assert (whole.c[: 40 - rows] == Problem.MARK).all()
            assert whole.untouched()


@on_machines
def test_start_may_be_one_row_or_the_result_itself(name: str, element: str):
    functions = compiled(name, element)
    for rows in (1, 5, 12, 17):
        one = Problem(named(name), element, (rows, 9, 3))
        one.i[:] = one.i[0]
        expected = one.run(functions).copy()
        ldi, one.i = 0, one.i[:1].copy()
        args = (rows, one.k, one.a.ctypes.data, one.a.shape[1], one.b.ctypes.data, one.panels)
        functions["product"](*args, one.c.ctypes.data, one.c.shape[1], one.i.ctypes.data, ldi)
        assert one.c[:-1, : one.columns].tobytes() == expected.tobytes()
        one.c[:-1, : one.columns] = one.i[:, : one.columns]
        c = one.c.ctypes.data, one.c.shape[1]
        functions["product"](*args, *c, *c)
        assert one.c[:-1, : one.columns].tobytes() == expected.tobytes()
        assert one.untouched()


@on_machines
def test_pieces_along_k_are_the_whole(name: str, element: str):
    functions = compiled(name, element)
    whole = Problem(named(name), element, (7, 50, 2))
    expected = whole.run(functions).copy()
    whole.c[:-1, : whole.columns] = whole.i[:, : whole.columns]
    c = whole.c.ctypes.data, whole.c.shape[1]
    for first, last in ((0, 1), (1, 33), (33, 50)):
        b = np.ascontiguousarray(whole.b[:, first:last])
        functions["product"](
            7, last - first, whole.a[:, first:].ctypes.data, whole.a.shape[1], b.ctypes.data,
            2, *c, *c,
        )  # fmt: skip
    assert whole.c[:-1, : whole.columns].tobytes() == expected.tobytes()


@on_machines
def test_what_is_not_finite_flows_as_in_plain_loops(name: str, element: str):
    functions = compiled(name, element)
    for rows in (1, 4, 9, 20):
        problem = Problem(named(name), element, (rows, 6, 3))
        problem.a[0, 2] = np.inf
        problem.b[0, 2, 1] = 0.0
        problem.b[1, 4, 0] = -np.inf
        problem.b[2, 3, 3] = np.nan
        problem.i[rows - 1, 2] = np.inf
        out = problem.run(functions)
        with np.errstate(invalid="ignore"):
            chain, b = problem.i[:, : problem.columns], problem.weight()
            for j in range(problem.k):
                chain = chain + problem.a[:, j : j + 1] * b[j]
        assert (np.isnan(out) == np.isnan(chain)).all()
        assert (np.isposinf(out) == np.isposinf(chain)).all()
        assert (np.isneginf(out) == np.isneginf(chain)).all()


@on_machines
def test_nothing_of_nothing_writes_nothing(name: str, element: str):
    functions = compiled(name, element)
    for shape in ((0, 5, 2), (4, 5, 0), (20, 5, 0)):
        problem = Problem(named(name), element, shape)
        problem.run(functions)
        assert problem.untouched()
    for rows in (3, 20):
        problem = Problem(named(name), element, (rows, 0, 2))
        assert (problem.run(functions) == problem.i[:, : problem.columns]).all()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
@on_machines
def test_nothing_is_read_past_the_end(name: str, element: str):
    """Each operand ends where the next page may not be touched: one read more ends the process."""
    kind, libc = np.dtype(KINDS[element]), ctypes.CDLL(None, use_errno=True)
    page, pages = mmap.PAGESIZE, []

    def last(values: np.ndarray) -> np.ndarray:
        size = -(-values.nbytes // page) * page
        room = mmap.mmap(-1, size + page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(room))
        assert libc.mprotect(ctypes.c_void_p(address + size), page, 0) == 0
        pages.append(room)
        end = np.frombuffer(room, kind, values.size, size - values.nbytes).reshape(values.shape)
        end[:] = values
        return end

    for rows in (1, 3, 6, 12, 13):
        problem = Problem(named(name), element, (rows, 7, 3), gap=0)
        expected = problem.run(compiled(name, element)).copy()
        problem.a, problem.b, problem.i = last(problem.a), last(problem.b), last(problem.i)
        problem.c = last(problem.c[:-1])
        assert problem.run(compiled(name, element)).tobytes() == expected.tobytes()
        weight = last(np.ones((problem.width, 7), kind))
        packed = last(np.zeros((7, problem.width), kind))
        sizes = (7, problem.width, packed.ctypes.data, 7, 0, 0)
        compiled(name, element)["pack_rows"](weight.ctypes.data, 7, *sizes)
        compiled(name, element)["pack_columns"](weight.ctypes.data, problem.width, *sizes)
        assert (packed == 1).all()
        turned = last(np.zeros((7, problem.width), kind))
        compiled(name, element)["turn"](
            weight.ctypes.data, 7, problem.width, 7, turned.ctypes.data, problem.width
        )
        assert (turned == 1).all()


@on_machines
@pytest.mark.parametrize("function", ["pack_rows", "pack_columns"])
def test_packing_fills_its_rectangle_and_no_more(name: str, element: str, function: str):
    machine, kind, random = named(name), KINDS[element], np.random.default_rng(1)
    width = panel_width(element, machine)
    for trial in range(40):
        k, columns = (int(one) for one in random.integers(1, 3 * width, 2))
        column0, j0 = (int(one) for one in random.integers(0, 2 * width, 2))
        if trial % 2:
            column0 -= column0 % machine.lanes(element)
        k_total, gap = j0 + k + int(random.integers(0, 3)), int(random.integers(0, 3))
        panels = -(-(column0 + columns) // width)
        shape = (columns, k + gap) if function == "pack_rows" else (k, columns + gap)
        weight = guarded(shape, kind, np.nan, past=trial % 3)
        weight[:] = random.standard_normal(shape)
        packed = guarded((panels, k_total, width), kind, 77.0, past=trial % 2)
        compiled(name, element)[function](
            weight.ctypes.data, shape[1], k, columns, packed.ctypes.data, k_total, column0, j0
        )
        expected = np.full((k_total, panels * width), 77.0, kind)
        part = weight[:, :k].T if function == "pack_rows" else weight[:, :columns]
        expected[j0 : j0 + k, column0 : column0 + columns] = part
        found = packed.transpose(1, 0, 2).reshape(k_total, panels * width)
        assert (found == expected).all(), (k, columns, column0, j0)


@on_machines
def test_turn_transposes_and_writes_no_more(name: str, element: str):
    kind, random = KINDS[element], np.random.default_rng(3)
    for trial in range(30):
        rows, columns = (int(one) for one in random.integers(1, 40, 2))
        gap = trial % 3
        source = guarded((rows, columns + gap), kind, np.nan, past=trial % 2)
        source[:, :columns] = random.standard_normal((rows, columns))
        target = guarded((columns + 1, rows + gap), kind, 77.0, past=gap)
        compiled(name, element)["turn"](
            source.ctypes.data, columns + gap, rows, columns, target.ctypes.data, rows + gap
        )
        assert (target[:columns, :rows] == source[:, :columns].T).all()
        assert (target[:, rows:] == 77.0).all()
        assert (target[columns] == 77.0).all()


@on_machines
def test_clear_clears_so_many(name: str, element: str):
    for count in (0, 1, 5, 64, 133):
        room = guarded((count + 20,), KINDS[element], 77.0, past=1)
        compiled(name, element)["clear"](room.ctypes.data, count)
        assert (room[:count] == 0).all()
        assert (room[count:] == 77.0).all()


@on_machines
def test_packed_weights_multiply_as_the_weights_do(name: str, element: str):
    """Two weights side by side, with padding between them, as a merged product has them."""
    machine, kind, random = named(name), KINDS[element], np.random.default_rng(2)
    functions, lanes = compiled(name, element), machine.lanes(element)
    k, rows = 19, 5
    first, second = (random.standard_normal((n, k)).astype(kind) for n in (lanes + 3, 10))
    begin = -(-len(first) // lanes) * lanes
    count = packed_size(k, begin + len(second), element, machine)
    packed = guarded((count,), kind, np.nan)
    functions["clear"](packed.ctypes.data, count)
    for weight, column0 in ((first, 0), (second, begin)):
        functions["pack_rows"](
            weight.ctypes.data, k, k, len(weight), packed.ctypes.data, k, column0, 0
        )
    width = panel_width(element, machine)
    panels = count // k // width
    x = random.standard_normal((rows, k)).astype(kind)
    out, zero = np.full((rows, panels * width), np.nan, kind), np.zeros(panels * width, kind)
    functions["product"](
        rows, k, x.ctypes.data, k, packed.ctypes.data, panels, out.ctypes.data, panels * width,
        zero.ctypes.data, 0,
    )  # fmt: skip
    tolerance = 2 * k * np.finfo(kind).eps
    for weight, column0 in ((first, 0), (second, begin)):
        bound = tolerance * (abs(x) @ abs(weight.T)) * 2
        assert (abs(out[:, column0 : column0 + len(weight)] - x @ weight.T) <= bound).all()
    assert (out[:, len(first) : begin] == 0).all()


@pytest.mark.parametrize("element", KINDS)
def test_neon_compiles_to_multiply_adds_by_vectors(element: str):
    text = assembly(product_module(element, named("neon")), named("neon"))
    assert "fmla" in text


@pytest.mark.parametrize("element", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_outside_the_module_is_called(name: str, element: str):
    """Neither memset nor memcpy for a loop, nor fma where the machine has no such instruction."""
    text = assembly(product_module(element, named(name)), named(name))
    called = re.findall(r"^\s+(?:callq?|jmp|bl?)\s+_?([a-z]\w*)", text, re.MULTILINE)
    assert [one for one in called if not one.startswith("tile_")] == []


@pytest.mark.parametrize(("name", "register"), [("avx512", "%zmm"), ("avx2", "%ymm")])
def test_the_inner_loops_keep_their_sums_in_registers(name: str, register: str):
    """A sum that went to the stack would cost more than the multiply-add that it belongs to."""
    text = assembly(product_module("float", named(name)), named(name))
    assert f"vfmadd231ps\t{register}" in text
    spilled = [
        line
        for line in text.splitlines()
        if "mov" in line and register in line and "(%rsp)" in line
    ]
    assert spilled == []
