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
