"""Gated recurrent units. Each says which way its update gate points: z = 1 may keep or renew."""

from __future__ import annotations

import torch

from elman.equation import cell


@cell(family="gru")
def gru(p, x, h):
    """Gated recurrent unit, reset after the product; the equation of torch.nn.GRU.

        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        z = σ(W_z xₜ + U_z hₜ₋₁ + b_z)
        n = tanh(W_n xₜ + b_n + r ⊙ (U_n hₜ₋₁ + c_n))
        hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Update gate: z = 1 keeps the old state, z = 0 takes the new one. The bias inside the reset,
    c_n, cannot be added to b_n.

    Source: torch.nn.GRU (and cuDNN); Cho et al. 2014, eqs. 5–8, with the reset gate moved behind
    the product, which leaves all products of hₜ₋₁ in one. torch.nn's two biases of r and of z only
    add up.
    """
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = torch.sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = torch.tanh(p.W_n @ x + p.b_n + r * (p.U_n @ h + p.c_n))
    return (1 - z) * n + z * h


@cell(family="gru")
def gru_cho(p, x, h):
    """Gated recurrent unit, reset before the product.

        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        z = σ(W_z xₜ + U_z hₜ₋₁ + b_z)
        n = tanh(W_n xₜ + U_n (r ⊙ hₜ₋₁) + b_n)
        hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Update gate: z = 1 keeps the old state, z = 0 takes the new one.

    Source: Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk & Bengio 2014, "Learning
    phrase representations using RNN encoder–decoder for statistical machine translation",
    eqs. 5–8, where biases are left out. Chung et al. 2014 turn the update gate around.
    """
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    z = torch.sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = torch.tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * n + z * h


@cell(family="gru")
def gru_update_only(p, x, h, *, f=torch.tanh):
    """Simplified gated recurrent unit: only the update gate.

        z = σ(W_z xₜ + U_z hₜ₋₁ + b_z)
        n = f(W_n xₜ + U_n hₜ₋₁ + b_n)
        hₜ = (1 − z) ⊙ n + z ⊙ hₜ₋₁

    Update gate: z = 1 keeps the old state, z = 0 takes the new one.

    Source: Ravanelli, Brakel, Omologo & Bengio 2018, "Light gated recurrent units for speech
    recognition", section III-A (the reset gate removed). Their light unit also has f="relu" and
    batch normalisation of the products of x; here f is tanh and there is no normalisation.
    """
    z = torch.sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = f(p.W_n @ x + p.U_n @ h + p.b_n)
    return (1 - z) * n + z * h


@cell(family="gru")
def mgu(p, x, h):
    """Minimal gated unit: one gate both forgets and resets.

        f = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        n = tanh(W_n xₜ + U_n (f ⊙ hₜ₋₁) + b_n)
        hₜ = (1 − f) ⊙ hₜ₋₁ + f ⊙ n

    Update gate: f = 1 takes the new state, f = 0 keeps the old one, the other way round than "gru".

    Source: Zhou, Wu, Zhang & Zhou 2016, "Minimal gated unit for recurrent neural networks",
    arXiv:1603.09420.
    """
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    n = torch.tanh(p.W_n @ x + p.U_n @ (f * h) + p.b_n)
    return (1 - f) * h + f * n


@cell(family="gru")
def mingru(p, x, h):
    """Minimal GRU: gate and candidate see only the input, so the recurrence is linear in h.

        z = σ(W_z xₜ + b_z)
        n = W_n xₜ + b_n
        hₜ = (1 − z) ⊙ hₜ₋₁ + z ⊙ n

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024, "Were RNNs all we needed?",
    arXiv:2410.01201, section 3.1; their log-space form, with a positive candidate, is not this one.
    """
    z = torch.sigmoid(p.W_z @ x + p.b_z)
    n = p.W_n @ x + p.b_n
    return (1 - z) * h + z * n
