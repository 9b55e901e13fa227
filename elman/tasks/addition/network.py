"""The adding network: a simple recurrent cell and a dense readout of each step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from elman import cells
from elman.backends.reference import run
from elman.equation import cell
from elman.tasks.addition.sums import add_digits


@cell(family="simple")
def adder(p, x, h, *, f=torch.sigmoid):
    """Simple recurrent network without biases, the binary adder of the study notes.

        hₜ = f(W xₜ + U hₜ₋₁)

    Source: Trask 2015, "Anyone can learn to code an LSTM-RNN in Python (part 1: RNN)".
    """
    return f(p.W @ x + p.U @ h)


def forward(weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Run the network: the notes' cell, or where there is a bias the simple cell (tanh).

    Args:
        weights: W, U, perhaps b, of the cell; V, perhaps c, of the readout.
        x: inputs, (time, sums, inputs).

    Returns:
        hidden activity (time, sums, hidden), and V h + c, (time, sums, answers).
    """
    equation = (cells.get("simple") if "b" in weights else adder).graph
    recurrent = {p.name: weights[p.name] for p in equation.parameters}
    h0 = x.new_zeros(x.shape[1], len(weights["U"]))
    hidden = run(equation, recurrent, x, (h0,))[0]
    readout = hidden @ weights["V"].T
    return hidden, readout + weights["c"] if "c" in weights else readout


def encode(a: np.ndarray, b: np.ndarray, base: int, dtype: torch.dtype) -> Tensor:
    """The network's input: (time, sums, 2) bits, or (time, sums, 2·base) one-hot digits."""
    pair = torch.from_numpy(np.stack([a.T, b.T], -1))
    if base == 2:
        return pair.to(dtype)
    return torch.nn.functional.one_hot(pair, base).flatten(-2).to(dtype)


@torch.no_grad()
def answers(weights: Mapping[str, Tensor], a: np.ndarray, b: np.ndarray, base: int) -> np.ndarray:
    """The digits that the network says, (sums, time)."""
    readout = forward(weights, encode(a, b, base, weights["W"].dtype))[1]
    said = (readout[..., 0] > 0) if base == 2 else readout.argmax(-1)
    return said.long().T.numpy()


def accuracy(weights: Mapping[str, Tensor], a: np.ndarray, b: np.ndarray, base: int) -> float:
    """Part of the sums whose every digit is right."""
    return float((answers(weights, a, b, base) == add_digits(a, b, base)[0]).all(1).mean())
