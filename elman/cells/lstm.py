"""Long short-term memory: the cell c, its gates, and the variants that leave parts out.

Letters: i input gate, f forget gate, o output gate, g what is written (the block input),
v_· peepholes. Except where a docstring says otherwise the biases of forget gates start at 1, so
that a new network remembers (Gers et al. 2000; Jozefowicz et al. 2015).
"""

from __future__ import annotations

import torch

from elman.equation import cell


@cell(family="lstm", init={"b_f": 1.0})
def lstm(p, x, h, c):
    """Long short-term memory with forget gate; the equation of torch.nn.LSTM.

        i = σ(W_i xₜ + U_i hₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        g = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + b_o)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g
        hₜ = o ⊙ tanh(cₜ)

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins
    2000, "Learning to forget", section 3; both squash with scaled logistics in place of tanh. It
    is NP (no peepholes) of Greff et al. 2015, section IV-C. torch.nn has two biases a gate, which
    only add up.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = f * c + i * g
    return o * torch.tanh(c), c


@cell(family="lstm")
def lstm_1997(p, x, h, c):
    """Long short-term memory without forget gate: the cell only adds.

        i = σ(W_i xₜ + U_i hₜ₋₁ + b_i)
        g = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + b_o)
        cₜ = cₜ₋₁ + i ⊙ g
        hₜ = o ⊙ tanh(cₜ)

    Source: Hochreiter & Schmidhuber 1997, "Long short-term memory", section 4. Theirs squash with
    4σ(z) − 2 and 2σ(z) − 1 in place of the two tanh, let gates see gates in some experiments, and
    train with a gradient that is cut at the gates.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = c + i * g
    return o * torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def peephole_lstm(p, x, h, c):
    """Long short-term memory whose gates also see the cell: V, the vanilla LSTM of Greff et al.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ tanh(cₜ)

    Source: Gers & Schmidhuber 2000, "Recurrent nets that time and count"; as Graves 2013,
    "Generating sequences with recurrent neural networks", eqs. 7–11, and Greff et al. 2015,
    section II-A. The output gate sees the new cell.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def coupled_lstm(p, x, h, c):
    """Long short-term memory with coupled gates: it writes exactly where it forgets.

        f = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        g = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + b_o)
        cₜ = f ⊙ cₜ₋₁ + (1 − f) ⊙ g
        hₜ = o ⊙ tanh(cₜ)

    Source: Greff, Srivastava, Koutník, Steunebrink & Schmidhuber 2015, "LSTM: a search space
    odyssey", CIFG of section IV-C, without their peepholes ("coupled_peephole_lstm" has them).
    They write f = 1 − i: the same with the sign of the gate's parameters turned.
    """
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = f * c + (1 - f) * g
    return o * torch.tanh(c), c


@cell(family="lstm", sizes={"h": "projection"}, init={"b_f": 1.0})
def lstm_projected(p, x, h, c):
    """Long short-term memory with a recurrent projection; torch.nn.LSTM with proj_size.

        i = σ(W_i xₜ + U_i hₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        g = tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + b_o)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g
        hₜ = P (o ⊙ tanh(cₜ))

    The output h has the size "projection", smaller than "hidden", the size of c: fewer weights for
    the same memory.

    Source: Sak, Senior & Beaufays 2014, "Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", section 2 (LSTMP); theirs has peepholes, and
    optionally a second projection that does not recur. P is their W_rm, torch's weight_hr.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.b_o)
    c = f * c + i * g
    return p.P @ (o * torch.tanh(c)), c


@cell(family="lstm", init={"b_f": 1.0})
def res_lstm(p, x, h, c):
    """Residual LSTM: a shortcut from the layer below, inside of the output gate.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ (P tanh(cₜ) + R xₜ)

    Source: Kim, El-Khamy & Lee 2017, "Residual LSTM: design of a deep recurrent architecture for
    distant speech recognition", arXiv:1701.03360, the equations of a layer (their W_p and W_h are P
    and R). They leave R out where x has the size of h.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    c = f * c + i * torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * (p.P @ torch.tanh(c) + p.R @ x), c


@cell(family="lstm", init={"b_f": 1.0})
def wmc_lstm(p, x, h, c):
    """LSTM with working memory connections: gates see the whole cell, squashed.

        i = σ(W_i xₜ + U_i hₜ₋₁ + tanh(V_i cₜ₋₁) + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + tanh(V_f cₜ₋₁) + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + tanh(V_o cₜ) + b_o)
        hₜ = o ⊙ tanh(cₜ)

    A peephole sees its own cell; here V_· is a matrix, and tanh bounds what the cell can say.

    Source: Landi, Baraldi, Cornia & Cucchiara 2021, "Working memory connections for LSTM", Neural
    Networks 144, arXiv:2109.00020, the equations of the gates.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + torch.tanh(p.V_i @ c) + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + torch.tanh(p.V_f @ c) + p.b_f)
    c = f * c + i * torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + torch.tanh(p.V_o @ c) + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm", output=True, init={"b_f": 1.0})
def mc_lstm(p, x, v, c):
    """Memory-controller LSTM: one gate shows the cell to the next step, another to the outside.

        i, f, o, m = σ(W xₜ + U vₜ₋₁ + b), each its own      g = tanh(W_g xₜ + U_g vₜ₋₁ + b_g)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ g
        hₜ = o ⊙ tanh(cₜ)            vₜ = m ⊙ tanh(cₜ)

    The control vector v takes the place of h within; the output h is no state.

    Source: Ben-Ari & Shwartz-Ziv 2017, "Sequence modeling using a memory controller extension for
    LSTM", NIPS Time Series Workshop. Not the mass-conserving LSTM of the same initials.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ v + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ v + p.b_f)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ v + p.b_o)
    m = torch.sigmoid(p.W_m @ x + p.U_m @ v + p.b_m)
    c = f * c + i * torch.tanh(p.W_g @ x + p.U_g @ v + p.b_g)
    h, v = o * torch.tanh(c), m * torch.tanh(c)
    return h, v, c
