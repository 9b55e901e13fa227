"""torch's own recurrent kernels, for equations that are torch.nn's by structure.

The kernels want the parameters of all gates stacked, W_ih = [W_i; W_f; W_g; W_o] and so on. A
fixed linear map leads from the equation's parameters to the stacked ones and back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from elman import cells
from elman.backends.call import Call, Carried, Result
from elman.backends.reference import run as run_reference
from elman.equation import Cell, Graph


@dataclass(frozen=True)
class Kernel:
    """One of torch's kernels, and how its stacked parameters are made of the equation's.

    Attributes:
        name: the kernel in torch.
        cell: the name of the cell with the same equation, and the hyper-parameters it needs.
        gates: for each gate in torch's order the names of W, U, and the bias.
        second_biases: by gate, the name of a bias that stands within the product of the state.
        projection: the name of the matrix that projects the output.
    """

    name: str
    cell: tuple[str, Mapping[str, str]]
    gates: tuple[tuple[str, str, str], ...]
    second_biases: Mapping[int, str]
    projection: str | None = None

    @property
    def own_cell(self) -> Cell:
        """The cell whose equation this kernel computes."""
        name, hyper = self.cell
        return cells.get(name).with_hyper(**hyper)

    def stack(self, parameters: Mapping[str, Tensor]) -> list[Tensor]:
        """The stacked tensors (W_ih, W_hh, b_ih, b_hh, W_hr) of an equation's parameters."""
        biases = [parameters[b] for _, _, b in self.gates]
        second = [
            parameters[self.second_biases[i]] if i in self.second_biases else torch.zeros_like(b)
            for i, b in enumerate(biases)
        ]
        stacked = [
            torch.cat([parameters[w] for w, _, _ in self.gates]),
            torch.cat([parameters[u] for _, u, _ in self.gates]),
            torch.cat(biases),
            torch.cat(second),
        ]
        return stacked if self.projection is None else [*stacked, parameters[self.projection]]

    def unstack(self, stacked: Sequence[Tensor]) -> dict[str, Tensor]:
        """The equation's parameters of stacked tensors, with or without the two biases."""
        rows, extra = len(self.gates), int(self.projection is not None)
        w_ih, w_hh = (s.chunk(rows) for s in stacked[:2])
        if len(stacked) - extra == 4:
            b_ih, b_hh = (s.chunk(rows) for s in stacked[2:4])
        else:
            b_ih = b_hh = [w.new_zeros(w.shape[0]) for w in w_ih]
        parameters = {}
        for i, (w, u, b) in enumerate(self.gates):
            parameters[w], parameters[u] = w_ih[i], w_hh[i]
            if i in self.second_biases:
                parameters[b], parameters[self.second_biases[i]] = b_ih[i], b_hh[i]
            else:
                parameters[b] = b_ih[i] + b_hh[i]
        if self.projection is not None:
            parameters[self.projection] = stacked[-1]
        return parameters


_LSTM_GATES = tuple((f"W_{g}", f"U_{g}", f"b_{g}") for g in "ifgo")
_GRU_GATES = tuple((f"W_{g}", f"U_{g}", f"b_{g}") for g in "rzn")
_SIMPLE = (("W", "U", "b"),)

KERNELS = {
    "lstm": Kernel("lstm", ("lstm", {}), _LSTM_GATES, {}),
    "lstm_projected": Kernel("lstm", ("lstm_projected", {}), _LSTM_GATES, {}, "P"),
    "gru": Kernel("gru", ("gru", {}), _GRU_GATES, {2: "c_n"}),
    "rnn_tanh": Kernel("rnn_tanh", ("simple", {"f": "tanh"}), _SIMPLE, {}),
    "rnn_relu": Kernel("rnn_relu", ("simple", {"f": "relu"}), _SIMPLE, {}),
}


@cache
def kernel_of(graph: Graph) -> Kernel | None:
    """The kernel that computes this very equation, or None."""
    return next((k for k in KERNELS.values() if k.own_cell.graph == graph), None)


def obstacle_of_sizes(kernel: Kernel, sizes: Mapping[str, int]) -> str | None:
    """What keeps a kernel from these sizes, as a phrase, or None."""
    if kernel.projection is not None and sizes["projection"] == sizes["hidden"]:
        # torch sees that there is a projection from its size alone.
        return "torch's kernel takes a projection as large as the hidden size for none"
    return None


TRANSFORM = (
    "a torch.func transform, forward-mode differentiation, a trace or a mode that stands in for "
    "torch's operations is at work"
)


def in_transform() -> bool:
    """Whether a torch.func transform, forward-mode differentiation, or a mode that stands in for
    torch's operations (fake tensors, say) is at work."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or (torch._C._len_torch_dispatch_stack() > 0 and not torch.compiler.is_compiling())
        or torch._C._get_tracing_state() is not None
    )


def run_stack(
    kernel: Kernel,
    x: Tensor,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    *,
    layers: int,
    bidirectional: bool,
    batch_first: bool = False,
    twice: bool = True,
) -> tuple[Tensor, ...]:
    """Run a whole stack without dropout in one call of torch's: the output, then the states.

    Args:
        x: (time, batch, input), or with `batch_first` (batch, time, input).
        states: each (layers·directions, batch, size).
        weights: the stacked tensors of each layer and direction, one after the other.
        twice: whether the gradient may itself be differentiated. On the CPU it always may; cuDNN
            cannot, and its second derivative then comes from the reference.
    """
    if twice and x.is_cuda and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        shape = (layers, bidirectional, batch_first)
        return _Twice.apply(kernel, shape, len(states), x, *states, *weights)
    return _call(kernel, x, states, weights, layers, bidirectional, batch_first)


def _call(
    kernel: Kernel,
    x: Tensor,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    directions = 2 if bidirectional else 1
    bias = len(weights) // (layers * directions) >= 4
    args = (weights, bias, layers, 0.0, torch.is_grad_enabled(), bidirectional, batch_first)
    if kernel.name == "lstm":
        return _lstm(kernel, x, states, *args)
    return getattr(torch._VF, kernel.name)(x, states[0], *args)


def _lstm(kernel: Kernel, x: Tensor, states: tuple[Tensor, ...], *args) -> tuple[Tensor, ...]:
    enabled = torch._C._get_mkldnn_enabled()
    if kernel.projection is None or not enabled or x.device.type != "cpu":
        return torch._VF.lstm(x, states, *args)
    # oneDNN has no projections; asked for them, torch takes another way and warns of it. (The
    # context manager of torch.backends.mkldnn would warn as well, of a setting it touches.)
    torch._C._set_mkldnn_enabled(False)
    try:
        return torch._VF.lstm(x, states, *args)
    finally:
        torch._C._set_mkldnn_enabled(True)


def run(kernel: Kernel, weights: list[Tensor], twice: bool, call: Call) -> Result:
    """Run one layer and direction; rows may have lengths.

    Rows of different lengths run padded: a step past a row's end is told so by one more input,
    whose weights shut the input gate and hold the memory, so that the last state comes out as it
    was. That is exact, and several times faster than torch's packed sequences.
    """
    if call.lengths is None:
        return _run_padded(kernel, weights, twice, call.x, call.carried, call.return_states)
    time = call.x.shape[0]
    longest = int(call.lengths.max()) if len(call.lengths) else time
    steps = torch.arange(longest, device=call.x.device).unsqueeze(1)
    past = (steps >= call.lengths).unsqueeze(-1)
    x = call.x[:longest]
    hold = _holding_column(kernel, weights[0])
    if hold is not None:
        x = torch.cat([x, past.to(x.dtype)], -1)
        weights = [torch.cat([weights[0], hold], 1), *weights[1:]]
    result = _run_padded(kernel, weights, twice, x, call.carried, call.return_states)
    ends = (call.lengths - 1).view(1, -1, 1).expand(-1, -1, result.out.shape[-1])
    last = result.out.gather(0, ends).squeeze(0)
    out = result.out.masked_fill(past, 0)
    if longest < time:
        out = torch.cat([out, out.new_zeros(time - longest, *out.shape[1:])])
    return Result(out, (last, *result.carried[1:]), (out,) if call.return_states else None)


def _run_padded(
    kernel: Kernel,
    weights: list[Tensor],
    twice: bool,
    x: Tensor,
    carried: Carried,
    return_states: bool,
) -> Result:
    states = tuple(c.unsqueeze(0).contiguous() for c in carried)
    out, *last = run_stack(kernel, x, states, weights, layers=1, bidirectional=False, twice=twice)
    return Result(out, tuple(s.squeeze(0) for s in last), (out,) if return_states else None)


def _holding_column(kernel: Kernel, w_ih: Tensor) -> Tensor | None:
    """The weights of the input that marks steps past the end, or None where none is needed.

    For an LSTM they hold its memory; for a relu network they shut it, since its state might grow
    without bound past the end and then spoil the gradient (0 · ∞).
    """
    big = min(math.sqrt(torch.finfo(w_ih.dtype).max), 1e30)
    if w_ih.dtype == torch.float16:
        big = 1e4
    if kernel.name == "lstm":
        signs = w_ih.new_tensor([-big, big, 0.0, 0.0])
        return signs.repeat_interleave(w_ih.shape[0] // 4).unsqueeze(1)
    if kernel.name == "rnn_relu":
        return w_ih.new_full((w_ih.shape[0], 1), -big)
    return None


class _Twice(torch.autograd.Function):
    """torch's kernel with a gradient that can be differentiated again, by the reference."""

    @staticmethod
    def forward(ctx, kernel: Kernel, shape: tuple, count: int, *tensors: Tensor):
        needed = ctx.needs_input_grad[3:]
        inner = [t.detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)]
        with torch.enable_grad():
            x, states, weights = inner[0], tuple(inner[1 : 1 + count]), inner[1 + count :]
            outs = _call(kernel, x, states, weights, *shape)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        ctx.call, ctx.inner, ctx.outs = (kernel, shape, count), inner, outs
        return tuple(o.detach() for o in outs)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        # Asked for first, so that a second backward through freed memory fails as it should.
        saved = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            kernel, shape, count = ctx.call
            inner, outs = saved, _again(kernel, shape, count, saved)
        else:
            inner, outs = ctx.inner, ctx.outs
        pairs = [(o, g) for o, g in zip(outs, grads, strict=True) if g is not None]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs],
                [t for t, n in zip(inner, needed, strict=True) if n],
                [g for _, g in pairs],
                create_graph=torch.is_grad_enabled(),
                retain_graph=True,
                allow_unused=True,
            )
        )
        return (None, None, None, *(next(found) if n else None for n in needed))


def _again(kernel: Kernel, shape: tuple, count: int, tensors: Sequence[Tensor]):
    layers, bidirectional, batch_first = shape
    x = tensors[0].transpose(0, 1) if batch_first else tensors[0]
    states, weights = tuple(tensors[1 : 1 + count]), list(tensors[1 + count :])
    out, *last = run_by_equation(
        kernel, x, states, weights, layers=layers, bidirectional=bidirectional
    )
    return (out.transpose(0, 1) if batch_first else out, *last)


def run_by_equation(
    kernel: Kernel,
    x: Tensor,
    states: tuple[Tensor, ...],
    weights: list[Tensor],
    *,
    layers: int,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """What `run_stack` computes, by the reference, which can be differentiated any way."""
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    last: list[Carried] = []
    for layer in range(layers):
        outs = []
        for direction in range(directions):
            place = layer * directions + direction
            parameters = kernel.unstack(weights[place * each : (place + 1) * each])
            seen = x.flip(0) if direction else x
            out, carried, _ = run_reference(
                kernel.own_cell.graph, parameters, seen, tuple(s[place] for s in states)
            )
            outs.append(out.flip(0) if direction else out)
            last.append(carried)
        x = torch.cat(outs, -1) if bidirectional else outs[0]
    return (x, *(torch.stack(s) for s in zip(*last, strict=True)))
