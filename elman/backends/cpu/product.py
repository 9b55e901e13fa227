"""The matrix product of the CPU kernels: register tiles over packed weights, as LLVM IR.

The module knows no cell: it is compiled once for an element type and a machine. Its functions
have the C calling convention, return nothing, and take 64-bit integers (small letters) and
addresses of elements (capitals). Strides and positions count elements; w is `panel_width`.

`product(rows, k, A, lda, B, panels, C, ldc, I, ldi)`
    C[r, c] = I[r, c] + Σ_j A[r, j] B[j, c] for r < rows, c < panels·w, j < k, where rows of A, C
    and I lie lda, ldc and ldi apart, and B is packed: B[j, c] is B[(c // w · k + j)·w + c % w].
    I may be one row for all (ldi = 0), or C itself. A and B must not overlap C. Each element is
    one chain of multiply-adds (fused where the machine has that) that starts from I and takes j
    in order, whatever the number of rows: a row's result does not depend on its neighbours, and
    pieces along k, each starting from the last one's C, give the bits of the whole.
`pack_rows(W, ldw, k, columns, B, k_total, column0, j0)`
    B[j0 + j, column0 + c] = W[c·ldw + j] for j < k, c < columns: each row of the weight becomes a
    column. `k_total` is the k of the whole packed matrix. Nothing else is written, so that
    several weights fill one matrix, and several threads parts of one weight.
`pack_columns(W, ldw, k, columns, B, k_total, column0, j0)`
    The same with W[j·ldw + c]: each column of the weight is a column.
`turn(W, ldw, rows, columns, T, ldt)`
    T[c, r] = W[r, c] for r < rows, c < columns. The gradient of a weight, Σ over steps of
    G[step, r] X[step, c], is a product of G turned with X packed by `pack_columns`; taken in pieces
    of some hundred steps, each starting from the last one's result, both stay in cache.
`clear(B, count)`
    Zeroes `count` elements, for the columns that no weight fills.

Packing is fast where column0 is a multiple of the machine's lanes, and the product where B begins
at a multiple of 64 bytes.

Source: K. Goto and R. A. van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM
Transactions on Mathematical Software 34(3), 2008, for panels and register tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elman.backends.cpu.machine import Machine

FUNCTIONS = ("product", "pack_rows", "pack_columns", "turn", "clear")


def panel_width(element: str, machine: Machine) -> int:
    """How many columns a panel has: those of two vectors.

    Args:
        element: "float" or "double".
        machine: what the module is compiled for.

    Raises:
        InputError: the element is neither.

    Example:
        >>> from elman.backends.cpu.machine import named
        >>> panel_width("float", named("avx2"))
        16
    """
    return 2 * machine.lanes(element)


def packed_size(k: int, columns: int, element: str, machine: Machine) -> int:
    """How many elements the packed form of a (k, columns) matrix has, its last panel filled up.

    Args:
        k: length of the sums, ≥ 0.
        columns: columns of the product, ≥ 0, padding between weights counted.
        element: "float" or "double".
        machine: what the module is compiled for.

    Raises:
        InputError: the element is neither.

    Example:
        >>> from elman.backends.cpu.machine import named
        >>> packed_size(10, 17, "float", named("avx2"))
        320
    """
    width = panel_width(element, machine)
    return -(-columns // width) * width * k


def product_module(element: str, machine: Machine) -> str:
    """The module as LLVM IR: the functions that `FUNCTIONS` names.

    Args:
        element: "float" or "double".
        machine: what it is to be compiled for.

    Raises:
        InputError: the element is neither.

    Example:
        >>> from elman.backends.cpu.machine import named
        >>> "@\\"product\\"" in product_module("double", named("plain"))
        True
    """
    # Here, because llvmlite is loaded when the first kernel is compiled, not before.
    from elman.backends.cpu.product_emit import Writer
    from elman.backends.cpu.product_pack import packing
    from elman.backends.cpu.product_walk import plan, walk

    writer = Writer(element, machine)
    walk(writer, plan(machine))
    packing(writer)
    return str(writer.module)
