"""The law of credit through time: in windows with a carry, the gradient is that of the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from elman.diagnose.compare import COARSE_SLOPES, TOLERANCES, Comparison
from elman.diagnose.trial import Trial
from elman.layers import Recurrent
from elman.layers.carried import links_of, run
from elman.layers.forms import TIME_FIRST, Form, Given
from elman.learning import BPTT


def carried_is_whole(trial: Trial) -> Comparison:
    """Learning step by step, and in windows of two, gives what the whole sequence gives.

    With a carry the influence of the weights on the state goes on from window to window; each
    window's step is taken back by the adjoint, the whole sequence by autograd. One row ends before
    the others, and one begins a segment on the way.
    """
    graph = trial.graph
    coarse = [COARSE_SLOPES[n.op] for n in graph.nodes if n.op in COARSE_SLOPES]
    bound = max([TOLERANCES["carried"][torch.float64], *coarse])
    result = Comparison("with a carry", "as a whole", bound)
    expected = _gradients(trial, BPTT())
    for window in sorted({1, min(2, trial.time)}):
        found = _gradients(trial, BPTT(window=window, carry="exact"))
        steps = "step by step" if window == 1 else f"in windows of {window} steps"
        names = [f"the gradient of p.{name}, {steps}" for name in trial.parameters]
        result.add_all(names, found, expected)
    return result


def _gradients(trial: Trial, learning: BPTT) -> list[Tensor]:
    """The gradients of all weights, of a random sum of the outputs and the last states."""
    layer = _layer(trial, learning)
    x, extras = trial.piece(slice(None))
    got = Given(x, *_ends_and_resets(trial), Form(TIME_FIRST), extras)
    passed = run(layer.owner, links_of(layer), got, [trial.carried], None, learning, given=True)
    numbers, total = trial.numbers(9), torch.zeros((), dtype=torch.float64)
    for value in (passed.out, *passed.carried[0]):
        weights = torch.randn(value.shape, generator=numbers, dtype=value.dtype)
        total = total + (weights * value).sum()
    own = list(layer.equation_parameters(0, 0).values())
    if not total.requires_grad:
        return [torch.zeros_like(p) for p in own]
    return list(torch.autograd.grad(total, own, materialize_grads=True))


def _layer(trial: Trial, learning: BPTT) -> Recurrent:
    further = {k: v for k, v in trial.sizes.items() if k not in ("input", "hidden")}
    layer = Recurrent(
        trial.cell, trial.sizes["input"], trial.sizes["hidden"], sizes=further, learning=learning,
        backend="reference", dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        for name, value in layer.equation_parameters(0, 0).items():
            value.copy_(trial.parameters[name])
    return layer


def _ends_and_resets(trial: Trial) -> tuple[Tensor | None, Tensor | None]:
    """The rows' lengths and the segments' beginnings; none in a trial that has no room for them."""
    if trial.time < 3 or trial.batch < 2:
        return None, None
    lengths = torch.full((trial.batch,), trial.time)
    lengths[0] = trial.time - 1
    resets = torch.zeros(trial.time, trial.batch, dtype=torch.bool)
    resets[trial.time // 2, -1] = True
    return lengths, resets
