"""Gated memories that are neither LSTM nor GRU: one state, few gates."""

from __future__ import annotations

import torch

from elman.equation import cell


@cell(family="gated", init={"b_f": 1.0})
def janet(p, x, h, *, beta=1.0):
    """JANET: an LSTM of which only the forget gate is left.

        s = W_f xₜ + U_f hₜ₋₁ + b_f
        g = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        hₜ = σ(s) ⊙ hₜ₋₁ + (1 − σ(s − β)) ⊙ g

    σ(s) = 1 keeps the old state. β > 0 writes a little more than is forgotten; with β = 0 the
    equation is that of "gru_update_only".

    Source: van der Westhuizen & Lasenby 2018, "The unreasonable effectiveness of the forget gate",
    arXiv:1804.04849, the form with β = 1. Their chrono initialisation of b_f needs the sequence
    length T (b_f = log U(1, T − 1)); here b_f starts at 1.
    """
    s = p.W_f @ x + p.U_f @ h + p.b_f
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    return torch.sigmoid(s) * h + (1 - torch.sigmoid(s - beta)) * g


@cell(family="gated", init={"b_f": 1.0})
def minlstm(p, x, h):
    """Minimal LSTM: gates and candidate see only the input, and the two gates sum to one.

        i = σ(W_i xₜ + b_i),   f = σ(W_f xₜ + b_f)
        g = W_g xₜ + b_g
        hₜ = f / (f + i) ⊙ hₜ₋₁ + i / (f + i) ⊙ g

    The recurrence is linear in h. The output is the cell itself.

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024, "Were RNNs all we needed?",
    arXiv:2410.01201, section 3.2; their log-space form, with a positive candidate, is not this one.
    """
    i = torch.sigmoid(p.W_i @ x + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.b_f)
    g = p.W_g @ x + p.b_g
    keep = f / (f + i)
    return keep * h + i / (f + i) * g


@cell(family="gated", init={"b_f": 1.0})
def multiplicative_lstm(p, x, h, c):
    """Multiplicative LSTM: the input chooses the recurrent matrix, factor by factor.

        m = (W_m xₜ) ⊙ (U_m hₜ₋₁)
        i, f, o = σ(W xₜ + U m + b), each its own      g = W_g xₜ + U_g m + b_g
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(g)                    hₜ = o ⊙ tanh(cₜ)

    Source: Krause, Lu, Murray & Renals 2016, "Multiplicative LSTM for sequence modelling",
    arXiv:1609.07959, section 3.
    """
    m = (p.W_m @ x) * (p.U_m @ h)
    i = torch.sigmoid(p.W_i @ x + p.U_i @ m + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ m + p.b_f)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ m + p.b_o)
    c = f * c + i * torch.tanh(p.W_g @ x + p.U_g @ m + p.b_g)
    return o * torch.tanh(c), c


@cell(family="gated", init={"b_t_*": -2.0})
def recurrent_highway(p, x, h, *, depth=3):
    """Recurrent highway network: several highway layers deep from one step to the next.

        s₀ = hₜ₋₁,   s_l = t_l ⊙ tanh(W_h xₜ [l = 1] + R_l s_{l−1} + b_l) + (1 − t_l) ⊙ s_{l−1}
        t_l = σ(W_t xₜ [l = 1] + R_t_l s_{l−1} + b_t_l),   hₜ = s_depth

    Source: Zilly, Srivastava, Koutník & Schmidhuber 2017, "Recurrent highway networks",
    arXiv:1607.03474, eqs. 6–9, with the carry gate coupled, c = 1 − t.
    """
    for l in range(depth):
        new = p["R_h", l] @ h + p["b_h", l]
        gate = p["R_t", l] @ h + p["b_t", l]
        if l == 0:
            new, gate = new + p.W_h @ x, gate + p.W_t @ x
        t = torch.sigmoid(gate)
        h = t * torch.tanh(new) + (1 - t) * h
    return h
