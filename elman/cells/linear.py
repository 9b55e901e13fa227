"""Recurrences without a recurrent matrix: linear in the state, or nearly so (SRU)."""

from __future__ import annotations

import torch

from elman.cells.delay import at_least
from elman.equation import cell, delay


@cell(
    family="linear",
    output=True,
    init={"nu": "uniform(-5, -1)", "theta": "uniform(-3, 1.8)", "B_*": "xavier_uniform",
          "C_*": "xavier_uniform", "D": "xavier_uniform"},
)  # fmt: skip
def lru(p, x, re, im):
    """Linear recurrent unit: a diagonal complex recurrence, kept stable by its parametrisation.

        λ = exp(−exp(ν) + i exp(θ)),   sₜ = λ ⊙ sₜ₋₁ + √(1 − |λ|²) ⊙ (B xₜ)
        yₜ = Re(C sₜ) + D xₜ

    The complex state s is kept as its real and its imaginary part, B and C likewise; the output y
    is no state. At the start |λ| lies between 0.69 and 0.993.

    Source: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences",
    arXiv:2303.06349, section 3 and appendix A (there |λ| starts uniform on a ring, here ν and θ
    start uniform).
    """
    size = torch.exp(-torch.exp(p.nu))
    turn_re, turn_im = size * torch.cos(torch.exp(p.theta)), size * torch.sin(torch.exp(p.theta))
    # 1 − |λ|², not as a difference, of which near |λ| = 1 nothing but rounding would be left.
    gamma = torch.sqrt(torch.tanh(torch.exp(p.nu)) * (1 + size * size))
    new_re = turn_re * re - turn_im * im + gamma * (p.B_re @ x)
    new_im = turn_re * im + turn_im * re + gamma * (p.B_im @ x)
    return p.C_re @ new_re - p.C_im @ new_im + p.D @ x, new_re, new_im


@cell(family="linear", output=True, init={"W_x": "identity"})
def sru_2017(p, x, c, *, g=torch.tanh):
    """Simple recurrent unit as first published: its gates see only the input.

        f = σ(W_f xₜ + b_f),   r = σ(W_r xₜ + b_r)
        cₜ = f ⊙ cₜ₋₁ + (1 − f) ⊙ W xₜ
        hₜ = r ⊙ g(cₜ) + (1 − r) ⊙ W_x xₜ

    The recurrence is linear in c. The output h is no state.

    Source: Lei, Zhang & Artzi 2017, "Training RNNs as fast as CNNs", arXiv:1709.02755, first
    version. The paper has xₜ itself in h, for x of the hidden size, and the authors'
    code a further product where the sizes differ: W_x, which starts as I.
    """
    f = torch.sigmoid(p.W_f @ x + p.b_f)
    r = torch.sigmoid(p.W_r @ x + p.b_r)
    c = f * c + (1 - f) * (p.W @ x)
    h = r * g(c) + (1 - r) * (p.W_x @ x)
    return h, c


@cell(family="linear", output=True, init={"W_x": "identity"})
def sru(p, x, c):
    """Simple recurrent unit: products of the input only; a unit sees its own past in its gates.

        f = σ(W_f xₜ + v_f ⊙ cₜ₋₁ + b_f)
        r = σ(W_r xₜ + v_r ⊙ cₜ₋₁ + b_r)
        cₜ = f ⊙ cₜ₋₁ + (1 − f) ⊙ W xₜ
        hₜ = r ⊙ cₜ + (1 − r) ⊙ W_x xₜ

    The output h is no state. With v = 0 the recurrence is linear in c.

    Source: Lei, Zhang, Wang, Dai & Artzi 2018, "Simple recurrent units for highly parallelizable
    recurrence", arXiv:1709.02755, eqs. 1–4. The paper has xₜ itself in h, for x of the hidden
    size, and the authors' code a further product where the sizes differ: W_x, which starts as I.
    """
    f = torch.sigmoid(p.W_f @ x + p.v_f * c + p.b_f)
    r = torch.sigmoid(p.W_r @ x + p.v_r * c + p.b_r)
    c = f * c + (1 - f) * (p.W @ x)
    h = r * c + (1 - r) * (p.W_x @ x)
    return h, c


def _filtered(p, gate: str, x, width: int):
    """The masked convolution of x that makes one gate: b + W_0 xₜ + W_1 xₜ₋₁ + …"""
    total = p["b", gate] + p["W", gate, 0] @ x
    for k in range(1, width):
        total = total + p["W", gate, k] @ delay(x, k)
    return total


@cell(family="linear", init={"b_f": 1.0})
def qrnn_f(p, x, h, *, width=2):
    """Quasi-recurrent network with f-pooling: a convolution in time, and a forget gate.

        z = tanh(Σₖ W_z_k xₜ₋ₖ + b_z),   f = σ(Σₖ W_f_k xₜ₋ₖ + b_f),   k = 0 … width − 1
        hₜ = f ⊙ hₜ₋₁ + (1 − f) ⊙ z

    The recurrence is linear in h.

    Source: Bradbury, Merity, Xiong & Socher 2017, "Quasi-recurrent neural networks",
    arXiv:1611.01576, section 2, f-pooling; the biases are added.
    """
    at_least(1, width=width)
    z, f = (_filtered(p, gate, x, width) for gate in "zf")
    f = torch.sigmoid(f)
    return f * h + (1 - f) * torch.tanh(z)


@cell(family="linear", output=True, init={"b_f": 1.0})
def qrnn_fo(p, x, c, *, width=2):
    """Quasi-recurrent network with fo-pooling: f-pooling, shown through an output gate.

        z = tanh(Σₖ W_z_k xₜ₋ₖ + b_z),   f, o = σ(Σₖ W_k xₜ₋ₖ + b), each its own,   k < width
        cₜ = f ⊙ cₜ₋₁ + (1 − f) ⊙ z
        hₜ = o ⊙ cₜ

    The recurrence is linear in c. The output h is no state.

    Source: Bradbury, Merity, Xiong & Socher 2017, "Quasi-recurrent neural networks",
    arXiv:1611.01576, section 2, fo-pooling (dynamic average pooling); the biases are added.
    """
    at_least(1, width=width)
    z, f, o = (_filtered(p, gate, x, width) for gate in "zfo")
    f = torch.sigmoid(f)
    c = f * c + (1 - f) * torch.tanh(z)
    h = torch.sigmoid(o) * c
    return h, c


@cell(family="linear", output=True, init={"b_f": 1.0})
def qrnn_ifo(p, x, c, *, width=2):
    """Quasi-recurrent network with ifo-pooling: input, forget and output gate.

        z = tanh(Σₖ W_z_k xₜ₋ₖ + b_z),   i, f, o = σ(Σₖ W_k xₜ₋ₖ + b), each its own,   k < width
        cₜ = f ⊙ cₜ₋₁ + i ⊙ z
        hₜ = o ⊙ cₜ

    The recurrence is linear in c. The output h is no state.

    Source: Bradbury, Merity, Xiong & Socher 2017, "Quasi-recurrent neural networks",
    arXiv:1611.01576, section 2, ifo-pooling; the biases are added.
    """
    at_least(1, width=width)
    z, i, f, o = (_filtered(p, gate, x, width) for gate in "zifo")
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
    h = torch.sigmoid(o) * c
    return h, c


@cell(family="linear", init={"b_f": 1.0})
def t_rnn(p, x, h):
    """Strongly typed network (T-RNN): the state is a moving average of projected inputs.

        z = W_z xₜ
        f = σ(W_f xₜ + b_f)
        hₜ = f ⊙ hₜ₋₁ + (1 − f) ⊙ z

    The recurrence is linear in h; nothing is multiplied with a matrix twice.

    Source: Balduzzi & Ghifary 2016, "Strongly-typed recurrent neural networks", arXiv:1602.02218,
    section 3, T-RNN (their V is W_f here). b_f starts at 1 here.
    """
    f = torch.sigmoid(p.W_f @ x + p.b_f)
    return f * h + (1 - f) * (p.W_z @ x)


@cell(family="linear", init={"b_f": 1.0})
def t_gru(p, x, h):
    """Strongly typed GRU (T-GRU): gates see the last two inputs in place of the state.

        z = W_z xₜ + V_z xₜ₋₁ + b_z
        f = σ(W_f xₜ + V_f xₜ₋₁ + b_f)
        o = tanh(W_o xₜ + V_o xₜ₋₁ + b_o)
        hₜ = f ⊙ hₜ₋₁ + z ⊙ o

    The recurrence is linear in h.

    Source: Balduzzi & Ghifary 2016, "Strongly-typed recurrent neural networks", arXiv:1602.02218,
    section 3, T-GRU. b_f starts at 1 here.
    """
    z = p.W_z @ x + p.V_z @ delay(x, 1) + p.b_z
    f = torch.sigmoid(p.W_f @ x + p.V_f @ delay(x, 1) + p.b_f)
    o = torch.tanh(p.W_o @ x + p.V_o @ delay(x, 1) + p.b_o)
    return f * h + z * o


@cell(family="linear", output=True, init={"b_f": 1.0})
def t_lstm(p, x, c):
    """Strongly typed LSTM (T-LSTM): gates see the last two inputs in place of the state.

        z = W_z xₜ + V_z xₜ₋₁ + b_z
        f = σ(W_f xₜ + V_f xₜ₋₁ + b_f)
        o = tanh(W_o xₜ + V_o xₜ₋₁ + b_o)
        cₜ = f ⊙ cₜ₋₁ + (1 − f) ⊙ z
        hₜ = cₜ ⊙ o

    The recurrence is linear in c. The output h is no state.

    Source: Balduzzi & Ghifary 2016, "Strongly-typed recurrent neural networks", arXiv:1602.02218,
    section 3, T-LSTM. b_f starts at 1 here.
    """
    z = p.W_z @ x + p.V_z @ delay(x, 1) + p.b_z
    f = torch.sigmoid(p.W_f @ x + p.V_f @ delay(x, 1) + p.b_f)
    o = torch.tanh(p.W_o @ x + p.V_o @ delay(x, 1) + p.b_o)
    c = f * c + (1 - f) * z
    h = c * o
    return h, c
