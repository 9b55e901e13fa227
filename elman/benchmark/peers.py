"""What we are measured against: each peer on the same data, in every setting worth a try.

A peer is a function of a case and the pass that returns its calls by setting; the fastest counts.
Peers with the same equation run on the same weights.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from elman.benchmark.case import Case
from elman.benchmark.turns import Call

Peer = Callable[[Case, bool], dict[str, Call]]

_MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}


# torchrecurrent's names where they are not ours without the underscores.
_NAMES = {"brc": "BR", "nbrc": "NBR", "lstm_1997": "OriginalLSTM"}


class Unserved(Exception):
    """A peer cannot run a case; the words say why, and what to do about it."""


def optional(name: str) -> ModuleType:
    """A library that not everybody has.

    Raises:
        Unserved: it is not installed, with the way to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        package = name.partition(".")[0]
        hint = 'pip install "elman[bench]"'
        raise Unserved(f"{package} is not installed; {hint} brings it") from error


def torch_module(case: Case) -> Any:
    """torch.nn's module for the equation, with the case's weights.

    Raises:
        Unserved: torch.nn has none.
    """
    kernel = case.kernel
    if kernel is None:
        raise Unserved(f"torch.nn has no layer of the equation of {case.cell.name!r}")
    inputs, hidden = case.shape.input, case.shape.hidden
    options = {"nonlinearity": kernel.name[4:]} if kernel.name.startswith("rnn") else {}
    module = _MODULES[kernel.name](inputs, hidden, dtype=case.dtype, **options)
    with torch.no_grad():
        stacked = kernel.stack(case.layer.equation_parameters(0, 0))
        for own, value in zip(module.parameters(), stacked, strict=True):
            own.copy_(value)
    return module


def torch_padded(case: Case, backward: bool) -> dict[str, Call]:
    """torch.nn on the padded batch, time first, with and without oneDNN."""
    module = torch_module(case)
    return both_ways(_module_call(module, case.x, case.slope, backward))


def torch_packed(case: Case, backward: bool) -> dict[str, Call]:
    """torch.nn on a PackedSequence, sorted and packed beforehand: the packing is not timed."""
    module = torch_module(case)
    lengths = case.lengths
    if lengths is None:
        lengths = torch.full((case.shape.batch,), case.shape.steps)
    order = lengths.argsort(descending=True)
    x, slope = (
        pack_padded_sequence(t[:, order].contiguous(), lengths[order]) for t in (case.x, case.slope)
    )
    return both_ways(_module_call(module, x, slope.data, backward))


def _module_call(
    module: nn.Module, x: Tensor | PackedSequence, slope: Tensor, backward: bool
) -> Call:
    if not backward:

        def forward() -> object:
            module.train(False)
            with torch.inference_mode():
                return module(x)[0]

        return forward
    leaf = (x.data if isinstance(x, PackedSequence) else x).clone().requires_grad_()
    given = PackedSequence(leaf, x.batch_sizes) if isinstance(x, PackedSequence) else leaf
    wanted = [leaf, *module.parameters()]

    def both() -> object:
        module.train(True)
        out = module(given)[0]
        out = out.data if isinstance(out, PackedSequence) else out
        # Some of torchrecurrent's cells hold parameters that they do not use.
        return (out, *torch.autograd.grad(out, wanted, slope, allow_unused=True))

    return both


def both_ways(call: Call) -> dict[str, Call]:
    """A call of torch.nn with and without oneDNN."""

    def without() -> object:
        # The context manager of torch.backends.mkldnn warns of a setting beside this one.
        was = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            return call()
        finally:
            torch._C._set_mkldnn_enabled(was)

    return {"oneDNN": call, "oneDNN off": without}


def torchrecurrent(case: Case, backward: bool) -> dict[str, Call]:
    """torchrecurrent's cell of the same name: its layer, and its cell in a loop of our own.

    Its weights are its own; the time of these loops does not depend on them.

    Raises:
        Unserved: it is not installed, or has no such cell.
    """
    library = optional("torchrecurrent")
    name = _NAMES.get(case.cell.name, case.cell.name.replace("_", ""))
    found = [n for n in dir(library) if n.lower() == name.lower()]
    layer = getattr(library, found[0]) if found else None
    if not isinstance(layer, type):
        raise Unserved(f"torchrecurrent has no cell of the name {case.cell.name!r}")
    try:
        module = layer(case.shape.input, case.shape.hidden, dtype=case.dtype)
        with torch.no_grad():
            module(case.x[:1])
    except Exception as error:  # some take only an input of the hidden size
        why = f"{type(error).__name__}: {error}".partition("\n")[0].rstrip(".")
        raise Unserved(
            f"torchrecurrent's {found[0]} does not run at {case.shape} ({why})"
        ) from error
    return loops(module, case.x, backward)


def loops(layer: nn.Module, x: Tensor, backward: bool) -> dict[str, Call]:
    """The calls of a module of torchrecurrent: the layer itself, and its cell step by step."""
    with torch.no_grad():
        expected = _first(layer(x[:3]))
    slope = torch.ones_like(expected[:1]).expand(x.shape[0], *expected.shape[1:]).contiguous()
    found = {"layer": _module_call(layer, x, slope, backward)}
    cells = getattr(layer, "cells", ())
    if len(cells) == 1:
        loop = _Loop(cells[0])
        if loop.gives(x[:3], expected):
            found["cell in a loop"] = _module_call(loop, x, slope, backward)
    return found


class _Loop(nn.Module):
    """A cell step by step, its outputs stacked at the end."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> tuple[Tensor]:
        state, outputs = None, []
        for x_t in x.unbind(0):
            state = self.cell(x_t, state)
            outputs.append(_first(state))
        return (torch.stack(outputs),)

    def gives(self, x: Tensor, expected: Tensor) -> bool:
        """Whether the loop is the layer; a cell may carry more than it returns as its state."""
        try:
            with torch.no_grad():
                return torch.allclose(self(x)[0], expected, atol=1e-5)
        except Exception:
            return False


def _first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else _first(value[0])


def products(case: Case, backward: bool) -> dict[str, Call]:
    """The bare matrix products: one (rows, input+hidden) by (input+hidden, columns), or three.

    Rows are the real steps of all rows of the batch. Columns are so many that the multiplications
    are the cell's: 4·hidden for an LSTM. The backward pass has two products more of each.
    """
    inner = case.shape.input + case.shape.hidden
    columns = max(1, round(product_weights(case) / inner))
    left = torch.randn(case.real_steps, inner, dtype=case.dtype)
    right = torch.randn(inner, columns, dtype=case.dtype)
    out = torch.empty(case.real_steps, columns, dtype=case.dtype)
    times = 3 if backward else 1

    def product_with(weights: Tensor) -> Call:
        def product() -> None:
            with torch.inference_mode():
                for _ in range(times):
                    torch.mm(left, weights, out=out)

        return product

    transposed = right.t().contiguous().t()
    return {"weights by rows": product_with(right), "by columns": product_with(transposed)}


def products_onednn(case: Case, backward: bool) -> dict[str, Call]:
    """The same products by oneDNN, which on some machines is several times as fast as torch.mm.

    torch.mm is MKL's where torch is built with it, and MKL uses no AVX-512 on other makers'
    processors.

    Raises:
        Unserved: torch is built without oneDNN, or the numbers are not of single precision.
    """
    if not torch.backends.mkldnn.is_available() or case.dtype != torch.float32:
        raise Unserved("torch has no oneDNN product for this build or number type")
    inner = case.shape.input + case.shape.hidden
    columns = max(1, round(product_weights(case) / inner))
    left = torch.randn(case.real_steps, inner)
    right = torch.randn(columns, inner)
    times = 3 if backward else 1

    def product() -> None:
        with torch.inference_mode():
            for _ in range(times):
                torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")

    return {"": product}


def product_weights(case: Case) -> int:
    """Numbers in all matrices that a step multiplies by: (input+hidden)·4·hidden for an LSTM."""
    parameters = case.layer.equation_parameters(0, 0).values()
    return sum(math.prod(p.shape) for p in parameters if p.dim() > 1)


def reference(case: Case, backward: bool) -> dict[str, Call]:
    """Our own reference, a plain loop over time."""
    return {"": case.call(case.another("reference"), backward=backward)}


def jax_scan(case: Case, backward: bool) -> dict[str, Call]:
    """JAX's `lax.scan`, compiled for the CPU; see `elman.benchmark.jax_peer`."""
    optional("jax")
    from elman.benchmark import jax_peer

    return jax_peer.calls(case, backward)


PEERS: dict[str, Peer] = {
    "torch": torch_padded,
    "packed": torch_packed,
    "torchrecurrent": torchrecurrent,
    "jax": jax_scan,
    "products": products,
    "onednn": products_onednn,
    "reference": reference,
}
TITLES = {
    "torch": "torch.nn",
    "packed": "torch.nn packed",
    "torchrecurrent": "torchrecurrent",
    "jax": "JAX scan",
    "products": "bare products",
    "onednn": "oneDNN products",
    "reference": "reference",
    "whole": "elman, all steps",
}
