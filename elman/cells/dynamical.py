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


@cell(family="dynamical")
def gated_antisymmetric_rnn(p, x, h, *, eps=0.1, gamma=0.01):
    """AntisymmetricRNN with a gate on the step, which shares the recurrent matrix.

        z = σ((W − Wᵀ − γ I) hₜ₋₁ + V_z xₜ + b_z)
        hₜ = hₜ₋₁ + ε z ⊙ tanh((W − Wᵀ − γ I) hₜ₋₁ + V xₜ + b)

    z = 0 keeps the old state.

    Source: Chang, Chen, Haber & Chi 2019, "AntisymmetricRNN: a dynamical system view on recurrent
    neural networks", arXiv:1902.09689, section 3 (the form with gate; their V_h is V here).
    """
    turned = (p.W - p.W.T) @ h - gamma * h
    z = torch.sigmoid(turned + p.V_z @ x + p.b_z)
    return h + eps * z * torch.tanh(turned + p.V @ x + p.b)


@cell(family="dynamical")
def co_rnn(p, x, y, z, *, dt=0.1, gamma=1.0, epsilon=1.0):
    """Coupled oscillatory network (coRNN): units are driven, damped oscillators.

        zₜ = zₜ₋₁ + Δt (tanh(W yₜ₋₁ + Z zₜ₋₁ + V xₜ + b) − γ yₜ₋₁ − ε zₜ₋₁)
        yₜ = yₜ₋₁ + Δt zₜ

    y is where each oscillator stands, z how fast it moves. dt is the length of the step, γ the
    squared frequency, ε the damping, all > 0.

    Source: Rusch & Mishra 2021, "Coupled oscillatory recurrent neural network (coRNN): an accurate
    and (gradient) stable architecture for learning long time dependencies", arXiv:2010.00951,
    section 2, the form that treats the damping explicitly, as the authors' code (their second
    matrix, of z, is Z here). The paper fits Δt, γ and ε to each task.
    """
    force = torch.tanh(p.W @ y + p.Z @ z + p.V @ x + p.b)
    z = z + dt * (force - gamma * y - epsilon * z)
    return y + dt * z, z


@cell(family="dynamical", init={"w": "unit", "c": "uniform(-0.1, 0.1)", "b": "zeros"})
def unicornn(p, x, y, z, *, dt=0.1, alpha=1.0):
    """UnICORNN: undamped oscillators that do not see each other, each with a step of its own.

        zₜ = zₜ₋₁ − Δt σ(c) ⊙ (tanh(w ⊙ yₜ₋₁ + V xₜ + b) + α yₜ₋₁)
        yₜ = yₜ₋₁ + Δt σ(c) ⊙ zₜ

    The map from (y, z) to (y, z) has determinant 1 (it is symplectic), so that nothing is lost.
    Units mix in the next layer up. dt > 0 is the longest step, α ≥ 0 a common stiffness.

    Source: Rusch & Mishra 2021, "UnICORNN: a recurrent model for learning very long time
    dependencies", arXiv:2103.05487, the discrete equations of one layer; w and c start as in the
    authors' code. The paper fits Δt and α to each task.
    """
    step = dt * torch.sigmoid(p.c)
    z = z - step * (torch.tanh(p.w * y + p.V @ x + p.b) + alpha * y)
    return y + step * z, z


@cell(family="dynamical")
def lem(p, x, y, z, *, dt=1.0):
    """Long expressive memory (LEM): two states, whose time scales are learned and gated.

        Δ = dt σ(W₁ yₜ₋₁ + V₁ xₜ + b₁)          Δ̄ = dt σ(W₂ yₜ₋₁ + V₂ xₜ + b₂)
        zₜ = (1 − Δ) ⊙ zₜ₋₁ + Δ ⊙ tanh(W_z yₜ₋₁ + V_z xₜ + b_z)
        yₜ = (1 − Δ̄) ⊙ yₜ₋₁ + Δ̄ ⊙ tanh(W_y zₜ + V_y xₜ + b_y)

    y sees the new z. dt is the longest step, from 0 to 1.

    Source: Rusch, Mishra, Erichson & Mahoney 2022, "Long expressive memory for sequence modeling",
    arXiv:2110.04744, the discrete equations. torchrecurrent's LEM lets y see the old z.
    """
    step_z = dt * torch.sigmoid(p.W_1 @ y + p.V_1 @ x + p.b_1)
    step_y = dt * torch.sigmoid(p.W_2 @ y + p.V_2 @ x + p.b_2)
    z = (1 - step_z) * z + step_z * torch.tanh(p.W_z @ y + p.V_z @ x + p.b_z)
    return (1 - step_y) * y + step_y * torch.tanh(p.W_y @ z + p.V_y @ x + p.b_y), z
