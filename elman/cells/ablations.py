"""The ablations of the LSTM by Greff et al. 2015: one part of the vanilla LSTM taken away.

V itself is "peephole_lstm", NP (no peepholes) is "lstm".
"""

from __future__ import annotations

import torch

from elman.equation import cell


@cell(family="lstm", init={"b_f": 1.0})
def lstm_no_input_gate(p, x, h, c):
    """Peephole LSTM without input gate (NIG): everything is written.

        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ tanh(cₜ)

    Source: Greff et al. 2015, "LSTM: a search space odyssey", NIG of section IV-C: i = 1.
    """
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm")
def lstm_no_forget_gate(p, x, h, c):
    """Peephole LSTM without forget gate (NFG): the cell only adds.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        cₜ = cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ tanh(cₜ)

    Source: Greff et al. 2015, "LSTM: a search space odyssey", NFG of section IV-C: f = 1. Without
    the peepholes it is "lstm_1997".
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = c + i * g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def lstm_no_output_gate(p, x, h, c):
    """Peephole LSTM without output gate (NOG): everything is shown.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        hₜ = tanh(cₜ)

    Source: Greff et al. 2015, "LSTM: a search space odyssey", NOG of section IV-C: o = 1.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    return torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def lstm_no_input_activation(p, x, h, c):
    """Peephole LSTM without input activation (NIAF): what is written is linear.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ (W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ tanh(cₜ)

    Source: Greff et al. 2015, "LSTM: a search space odyssey", NIAF of section IV-C.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    g = p.W_g @ x + p.U_g @ h + p.b_g
    c = f * c + i * g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def lstm_no_output_activation(p, x, h, c):
    """Peephole LSTM without output activation (NOAF): the cell is shown as it is.

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        f = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ cₜ

    Source: Greff et al. 2015, "LSTM: a search space odyssey", NOAF of section IV-C.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = f * c + i * g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * c, c


@cell(family="lstm", init={"b_i": -1.0})
def coupled_peephole_lstm(p, x, h, c):
    """Peephole LSTM with coupled input and forget gate (CIFG).

        i = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i)
        cₜ = (1 − i) ⊙ cₜ₋₁ + i ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        o = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o)
        hₜ = o ⊙ tanh(cₜ)

    Source: Greff et al. 2015, "LSTM: a search space odyssey", CIFG of section IV-C: f = 1 − i.
    b_i starts at −1, so that f starts open.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i)
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    c = (1 - i) * c + i * g
    o = torch.sigmoid(p.W_o @ x + p.U_o @ h + p.v_o * c + p.b_o)
    return o * torch.tanh(c), c


@cell(family="lstm", init={"b_f": 1.0})
def lstm_full_gate_recurrence(p, x, h, c, i, f, o):
    """Peephole LSTM whose gates also see all gates of the last step (FGR).

        iₜ = σ(W_i xₜ + U_i hₜ₋₁ + v_i ⊙ cₜ₋₁ + b_i + R_ii iₜ₋₁ + R_if fₜ₋₁ + R_io oₜ₋₁)
        fₜ = σ(W_f xₜ + U_f hₜ₋₁ + v_f ⊙ cₜ₋₁ + b_f + R_fi iₜ₋₁ + R_ff fₜ₋₁ + R_fo oₜ₋₁)
        cₜ = fₜ ⊙ cₜ₋₁ + iₜ ⊙ tanh(W_g xₜ + U_g hₜ₋₁ + b_g)
        oₜ = σ(W_o xₜ + U_o hₜ₋₁ + v_o ⊙ cₜ + b_o + R_oi iₜ₋₁ + R_of fₜ₋₁ + R_oo oₜ₋₁)
        hₜ = oₜ ⊙ tanh(cₜ)

    Nine more recurrent matrices; R_ab carries gate b of the last step to gate a. The gates are
    states, and start at 0.

    Source: Greff et al. 2015, "LSTM: a search space odyssey", FGR of section IV-C, after
    Hochreiter & Schmidhuber 1997. Greff et al. write R_ba for what is R_ab here.
    """
    a_i = p.W_i @ x + p.U_i @ h + p.v_i * c + p.b_i + p.R_ii @ i + p.R_if @ f + p.R_io @ o
    a_f = p.W_f @ x + p.U_f @ h + p.v_f * c + p.b_f + p.R_fi @ i + p.R_ff @ f + p.R_fo @ o
    a_o = p.W_o @ x + p.U_o @ h + p.b_o + p.R_oi @ i + p.R_of @ f + p.R_oo @ o
    g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
    i, f = torch.sigmoid(a_i), torch.sigmoid(a_f)
    c = f * c + i * g
    o = torch.sigmoid(a_o + p.v_o * c)
    return o * torch.tanh(c), c, i, f, o
