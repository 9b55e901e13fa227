"""Gated recurrent units. Each says which way its update gate points: z = 1 may keep or renew."""

from __future__ import annotations

import torch
from torch.nn import functional as F

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


@cell(family="gru", init={"b_g": 1.0})
def ugrnn(p, x, h, *, f=torch.tanh):
    """Update gate network (UGRNN): a gate between the old state and a simple network.

        c = f(W_c xₜ + U_c hₜ₋₁ + b_c)
        g = σ(W_g xₜ + U_g hₜ₋₁ + b_g)
        hₜ = g ⊙ hₜ₋₁ + (1 − g) ⊙ c

    Update gate: g = 1 keeps the old state, g = 0 takes the new one.

    Source: Collins, Sohl-Dickstein & Sussillo 2017, "Capacity and trainability in recurrent neural
    networks", arXiv:1611.09913, the UGRNN. "gru_update_only" is the same equation, found from
    the GRU; here b_g starts at 1.
    """
    c = f(p.W_c @ x + p.U_c @ h + p.b_c)
    g = torch.sigmoid(p.W_g @ x + p.U_g @ h + p.b_g)
    return g * h + (1 - g) * c


@cell(family="gru", init={"U_*": "orthogonal"})
def li_gru(p, x, h, *, f=torch.relu):
    """Light gated recurrent unit (Li-GRU), without its batch normalisation.

        z = σ(W_z xₜ + U_z hₜ₋₁ + b_z)
        n = f(W_n xₜ + U_n hₜ₋₁ + b_n)
        hₜ = z ⊙ hₜ₋₁ + (1 − z) ⊙ n

    Update gate: z = 1 keeps the old state, z = 0 takes the new one.

    Source: Ravanelli, Brakel, Omologo & Bengio 2018, "Light gated recurrent units for speech
    recognition", arXiv:1803.10225, section III. Theirs normalises W_z x and W_n x over the batch,
    by which a row would depend on the rows beside it; here biases stand in place of the shift of
    that normalisation, and layer_norm=True normalises each row by itself. Without it a relu state
    may grow, therefore orthogonal U at the start, as theirs.
    """
    z = torch.sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    n = f(p.W_n @ x + p.U_n @ h + p.b_n)
    return z * h + (1 - z) * n


@cell(family="gru")
def light_ru(p, x, h):
    """Light recurrent unit: one gate, and a candidate that sees only the input.

        n = tanh(W_n xₜ)
        f = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        hₜ = (1 − f) ⊙ hₜ₋₁ + f ⊙ n

    Update gate: f = 1 takes the new state, f = 0 keeps the old one, the other way round than "gru".

    Source: Ye, Zhang, Liu, Li, Chang & Zheng 2024, "Light recurrent unit: towards an interpretable
    recurrent neural network for modeling long-range dependency", Electronics 13(16):3204 (there
    called LRU, which here is the linear recurrent unit).
    """
    n = torch.tanh(p.W_n @ x)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    return (1 - f) * h + f * n


@cell(family="gru", init={"W_n": "identity"})
def mut1(p, x, h):
    """MUT1, first of three gated units found by an evolutionary search.

        z = σ(W_z xₜ + b_z)
        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        n = tanh(U_n (r ⊙ hₜ₋₁) + tanh(W_n xₜ) + b_n)
        hₜ = z ⊙ n + (1 − z) ⊙ hₜ₋₁

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Jozefowicz, Zaremba & Sutskever 2015, "An empirical exploration of recurrent network
    architectures", MUT1. The paper has tanh(xₜ), for x of the hidden size: W_n = I, as which W_n
    starts; it lets x have any size.
    """
    z = torch.sigmoid(p.W_z @ x + p.b_z)
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = torch.tanh(p.U_n @ (r * h) + torch.tanh(p.W_n @ x) + p.b_n)
    return z * n + (1 - z) * h


@cell(family="gru", init={"W_r": "identity"})
def mut2(p, x, h):
    """MUT2, second of three gated units found by an evolutionary search.

        z = σ(W_z xₜ + U_z hₜ₋₁ + b_z)
        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        n = tanh(W_n xₜ + U_n (r ⊙ hₜ₋₁) + b_n)
        hₜ = z ⊙ n + (1 − z) ⊙ hₜ₋₁

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Jozefowicz, Zaremba & Sutskever 2015, "An empirical exploration of recurrent network
    architectures", MUT2. The paper has xₜ itself in r, for x of the hidden size: W_r = I, as which
    W_r starts; it lets x have any size. With any W_r it is "gru_cho" with z turned around.
    """
    z = torch.sigmoid(p.W_z @ x + p.U_z @ h + p.b_z)
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = torch.tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return z * n + (1 - z) * h


@cell(family="gru")
def mut3(p, x, h):
    """MUT3, third of three gated units found by an evolutionary search.

        z = σ(W_z xₜ + U_z tanh(hₜ₋₁) + b_z)
        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        n = tanh(W_n xₜ + U_n (r ⊙ hₜ₋₁) + b_n)
        hₜ = z ⊙ n + (1 − z) ⊙ hₜ₋₁

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Jozefowicz, Zaremba & Sutskever 2015, "An empirical exploration of recurrent network
    architectures", MUT3.
    """
    z = torch.sigmoid(p.W_z @ x + p.U_z @ torch.tanh(h) + p.b_z)
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = torch.tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return z * n + (1 - z) * h


def _hard_logistic(v):
    """F.hardsigmoid as a composition, because torch has no second derivative of it."""
    return torch.clamp(v / 6 + 0.5, 0.0, 1.0)


@cell(family="gru")
def sgu(p, x, h, *, f=F.softplus):
    """Simple gated unit (SGU): the input multiplies what the candidate sees of the state.

        g = tanh(U_g ((W_g xₜ + b_g) ⊙ hₜ₋₁))
        z = clamp((W_z xₜ + U_z hₜ₋₁ + b_z) / 6 + 1/2, 0, 1)
        hₜ = (1 − z) ⊙ hₜ₋₁ + z ⊙ f(g ⊙ hₜ₋₁)

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Gao & Glowacka 2016, "Deep gate recurrent neural network", arXiv:1604.02910, the
    equations of SGU. The slope of the hard logistic gate is torch's, 1/6.
    """
    g = torch.tanh(p.U_g @ ((p.W_g @ x + p.b_g) * h))
    z = _hard_logistic(p.W_z @ x + p.U_z @ h + p.b_z)
    return (1 - z) * h + z * f(g * h)


@cell(family="gru")
def dsgu(p, x, h, *, f=torch.sigmoid):
    """Deep simple gated unit (DSGU): SGU with one more product before its output activation.

        g = tanh(U_g ((W_g xₜ + b_g) ⊙ hₜ₋₁))
        z = clamp((W_z xₜ + U_z hₜ₋₁ + b_z) / 6 + 1/2, 0, 1)
        hₜ = (1 − z) ⊙ hₜ₋₁ + z ⊙ f(W_o (g ⊙ hₜ₋₁))

    Update gate: z = 1 takes the new state, z = 0 keeps the old one, the other way round than "gru".

    Source: Gao & Glowacka 2016, "Deep gate recurrent neural network", arXiv:1604.02910, the
    equations of DSGU. The slope of the hard logistic gate is torch's, 1/6.
    """
    g = torch.tanh(p.U_g @ ((p.W_g @ x + p.b_g) * h))
    z = _hard_logistic(p.W_z @ x + p.U_z @ h + p.b_z)
    return (1 - z) * h + z * f(p.W_o @ (g * h))
