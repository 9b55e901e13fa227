"""Recurrences read as differential equations, stepped in time."""

from __future__ import annotations

import torch

from elman.equation import cell, delay


@cell(family="dynamical")
def antisymmetric_rnn(p, x, h, *, eps=0.1, gamma=0.01):
    """AntisymmetricRNN: a step of an equation whose Jacobian has almost imaginary eigenvalues.

        hₜ = hₜ₋₁ + ε tanh((W − Wᵀ − γ I) hₜ₋₁ + V xₜ + b)

    W − Wᵀ neither grows nor shrinks anything; γ damps a little, ε is the length of the step.

    Source: Chang, Chen, Haber & Chi 2019, "AntisymmetricRNN: a dynamical system view on recurrent
    neural networks", arXiv:1902.09689, section 3 (the form without gate).
    """
    return h + eps * torch.tanh((p.W - p.W.T) @ h - gamma * h + p.V @ x + p.b)


@cell(family="dynamical")
def lipschitz_rnn(p, x, h, *, eps=0.1, beta=0.75, gamma_a=0.001, gamma_w=0.001):
    """Lipschitz RNN: a linear part that is stable by construction, and a bounded part.

        A = (1 − β)(Mₐ + Mₐᵀ) + β(Mₐ − Mₐᵀ) − γₐ I,   W likewise of M_w
        hₜ = hₜ₋₁ + ε (A hₜ₋₁ + tanh(W hₜ₋₁ + V xₜ + b))

    Source: Erichson, Azencot, Queiruga, Hodgkinson & Mahoney 2021, "Lipschitz recurrent neural
    networks", arXiv:2006.12070, section 3; the step is forward Euler's. One β serves both matrices.
    """
    A = (1 - beta) * (p.M_a + p.M_a.T) + beta * (p.M_a - p.M_a.T)
    W = (1 - beta) * (p.M_w + p.M_w.T) + beta * (p.M_w - p.M_w.T)
    inside = torch.tanh(W @ h - gamma_w * h + p.V @ x + p.b)
    return h + eps * (A @ h - gamma_a * h + inside)


@cell(family="dynamical", init={"b_*": "zeros"})
def tau_gru(p, x, h, *, tau=10):
    """τ-GRU: a gated step of a delay equation; the state of τ steps ago is fed back with a weight.

        u = tanh(W_u xₜ + U_u hₜ₋₁ + b_u)         z = tanh(W_z xₜ + U_z hₜ₋₁₋τ + b_z)
        a = σ(W_a xₜ + U_a hₜ₋₁ + b_a)            g = σ(W_g xₜ + U_g hₜ₋₁ + b_g)
        hₜ = (1 − g) ⊙ hₜ₋₁ + g ⊙ (u + a ⊙ z)

    Update gate: g = 1 takes the new state, g = 0 keeps the old one.

    Source: Erichson, Lim & Mahoney 2022, "Gated recurrent neural networks with weighted time-delay
    feedback", arXiv:2212.00228, section 3. The delay is counted from hₜ₋₁.
    """
    u = torch.tanh(p.W_u @ x + p.U_u @ h + p.b_u)
    z = torch.tanh(p.W_z @ x + p.U_z @ delay(h, 1 + tau) + p.b_z)
    a = torch.sigmoid(p.W_a @ x + p.U_a @ h + p.b_a)
    g = torch.sigmoid(p.W_g @ x + p.U_g @ h + p.b_g)
    return (1 - g) * h + g * (u + a * z)


@cell(family="dynamical", inputs={"dt": ()})
def cfc(p, x, dt, h):
    """Closed-form continuous-time network: where the state is after the time dt, in closed form.

        z = tanh(W xₜ + U hₜ₋₁ + b)
        s = σ(−dt (F z + b_f))
        hₜ = s ⊙ tanh(G z + b_g) + (1 − s) ⊙ tanh(H z + b_h)

    dt, a further input, is the time since the last step, one number a row.

    Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", Nature Machine
    Intelligence 4, the gated form (there eq. 5): a shared backbone z of one layer, and the heads
    f, g and h on it.
    """
    z = torch.tanh(p.W @ x + p.U @ h + p.b)
    s = torch.sigmoid(-dt * (p.F @ z + p.b_f))
    return s * torch.tanh(p.G @ z + p.b_g) + (1 - s) * torch.tanh(p.H @ z + p.b_h)
