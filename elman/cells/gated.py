"""Gated memories that are neither LSTM nor GRU."""

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


@cell(family="gated")
def atr(p, x, h):
    """Addition-subtraction twin-gated unit (ATR): one product each of x and h makes both gates.

        q = W xₜ,   s = U hₜ₋₁ + b
        hₜ = σ(q + s) ⊙ q + σ(q − s) ⊙ hₜ₋₁

    σ(q + s) is the input gate, σ(q − s) the forget gate.

    Source: Zhang, Xiong, Su, Lin & Zhang 2018, "Simplifying neural machine translation with
    addition-subtraction twin-gated recurrent networks", arXiv:1810.12546, the equations of ATR
    (their p and q are q and s here). The bias of the product of h is that of the authors' code.
    """
    q, s = p.W @ x, p.U @ h + p.b
    return torch.sigmoid(q + s) * q + torch.sigmoid(q - s) * h


@cell(family="gated", init={"w_*": 1.0})
def brc(p, x, h):
    """Bistable recurrent cell (BRC): each unit feeds itself back, and may latch a value for good.

        a = 1 + tanh(W_a xₜ + w_a ⊙ hₜ₋₁ + b_a)
        c = σ(W_c xₜ + w_c ⊙ hₜ₋₁ + b_c)
        hₜ = c ⊙ hₜ₋₁ + (1 − c) ⊙ tanh(W xₜ + a ⊙ hₜ₋₁)

    Where the feedback a is above 1 a unit has two stable states, below it has one.

    Source: Vecoven, Ernst & Drion 2021, "A bio-inspired bistable recurrent cell allows for
    long-lasting memory", PLOS ONE 16(6), the equations of BRC (their U is W here). The biases of a
    and c, and w = 1 at the start, are those of the authors' code.
    """
    a = 1 + torch.tanh(p.W_a @ x + p.w_a * h + p.b_a)
    c = torch.sigmoid(p.W_c @ x + p.w_c * h + p.b_c)
    return c * h + (1 - c) * torch.tanh(p.W @ x + a * h)


@cell(family="gated")
def nbrc(p, x, h):
    """Neuromodulated bistable recurrent cell (nBRC): units steer each other's feedback.

        a = 1 + tanh(W_a xₜ + U_a hₜ₋₁ + b_a)
        c = σ(W_c xₜ + U_c hₜ₋₁ + b_c)
        hₜ = c ⊙ hₜ₋₁ + (1 − c) ⊙ tanh(W xₜ + a ⊙ hₜ₋₁)

    Source: Vecoven, Ernst & Drion 2021, "A bio-inspired bistable recurrent cell allows for
    long-lasting memory", PLOS ONE 16(6), the equations of nBRC (their U is W here, their W is U).
    The biases of a and c are those of the authors' code.
    """
    a = 1 + torch.tanh(p.W_a @ x + p.U_a @ h + p.b_a)
    c = torch.sigmoid(p.W_c @ x + p.U_c @ h + p.b_c)
    return c * h + (1 - c) * torch.tanh(p.W @ x + a * h)


@cell(family="gated", init={"b_theta": 1.0, "b_eta": -1.0})
def cfn(p, x, h):
    """Chaos-free network (CFN): without input the state can only decay to zero.

        θ = σ(W_θ xₜ + U_θ hₜ₋₁ + b_θ)
        η = σ(W_η xₜ + U_η hₜ₋₁ + b_η)
        hₜ = θ ⊙ tanh(hₜ₋₁) + η ⊙ tanh(W xₜ)

    Source: Laurent & von Brecht 2017, "A recurrent neural network without chaos",
    arXiv:1612.06212, the equations of CFN (their V is W here). b_θ starts at 1 and b_η at −1, as
    theirs.
    """
    theta = torch.sigmoid(p.W_theta @ x + p.U_theta @ h + p.b_theta)
    eta = torch.sigmoid(p.W_eta @ x + p.U_eta @ h + p.b_eta)
    return theta * torch.tanh(h) + eta * torch.tanh(p.W @ x)


@cell(family="gated", init={"b_u": 1.0})
def minimal_rnn(p, x, h):
    """MinimalRNN: the state mixes its past with an encoding of the input, and nothing else.

        z = tanh(W xₜ + b)
        u = σ(U_h hₜ₋₁ + U_z z + b_u)
        hₜ = u ⊙ hₜ₋₁ + (1 − u) ⊙ z

    u = 1 keeps the old state.

    Source: Chen 2017, "MinimalRNN: toward more interpretable and trainable recurrent neural
    networks", arXiv:1711.06788, its equations with one dense tanh layer as Φ. b_u starts at 1 here.
    """
    z = torch.tanh(p.W @ x + p.b)
    u = torch.sigmoid(p.U_h @ h + p.U_z @ z + p.b_u)
    return u * h + (1 - u) * z


@cell(family="gated")
def star(p, x, h):
    """Stackable recurrent cell (STAR): one gate, and gradients that keep their size in deep stacks.

        z = tanh(W_z xₜ + b_z)
        k = σ(W_k xₜ + U_k hₜ₋₁ + b_k)
        hₜ = tanh((1 − k) ⊙ hₜ₋₁ + k ⊙ z)

    Source: Turkoglu, D'Aronco, Wegner & Schindler 2021, "Gating revisited: deep multi-layer RNNs
    that can be trained", arXiv:1911.11033, the equations of STAR.
    """
    z = torch.tanh(p.W_z @ x + p.b_z)
    k = torch.sigmoid(p.W_k @ x + p.U_k @ h + p.b_k)
    return torch.tanh((1 - k) * h + k * z)


@cell(family="gated", init={"b": 1.0})
def sgrn(p, x, h):
    """Simple gated recurrent network (SGRN): gate and candidate share the product of the input.

        f = σ(W xₜ + U hₜ₋₁ + b)
        hₜ = tanh((1 − f) ⊙ W xₜ + f ⊙ hₜ₋₁)

    Source: Zu et al. 2021, "A simple gated recurrent network for detection of power quality
    disturbances", IET Generation, Transmission & Distribution 15, doi:10.1049/gtd2.12056. The bias
    starts at 1 here.
    """
    read = p.W @ x
    f = torch.sigmoid(read + p.U @ h + p.b)
    return torch.tanh((1 - f) * read + f * h)


@cell(family="gated", init={"b_f": 1.0})
def ran(p, x, h, c, *, f=torch.tanh):
    """Recurrent additive network (RAN): the memory is a weighted sum of what was read.

        i = σ(W_i xₜ + U_i hₜ₋₁ + b_i)
        g = σ(W_f xₜ + U_f hₜ₋₁ + b_f)
        cₜ = i ⊙ W xₜ + g ⊙ cₜ₋₁
        hₜ = f(cₜ)

    g is the forget gate. f="linear" is the paper's other form, where h is c itself.

    Source: Lee, Levy & Zettlemoyer 2017, "Recurrent additive networks", arXiv:1705.07393, the
    equations of RAN. The bias of the forget gate starts at 1 here.
    """
    i = torch.sigmoid(p.W_i @ x + p.U_i @ h + p.b_i)
    g = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
    c = i * (p.W @ x) + g * c
    return f(c), c


@cell(family="gated", shapes={"zeta": (), "nu": ()}, init={"zeta": 1.0, "nu": -4.0})
def fast_grnn(p, x, h):
    """FastGRNN: gate and candidate share both their matrices.

        a = W xₜ + U hₜ₋₁
        z = σ(a + b_z),   n = tanh(a + b_n)
        hₜ = (σ(ζ) (1 − z) + σ(ν)) ⊙ n + z ⊙ hₜ₋₁

    z = 1 keeps the old state.

    Source: Kusupati, Singh, Bhatia, Kumar, Jain & Varma 2018, "FastGRNN: a fast, accurate, stable
    and tiny kilobyte sized gated recurrent neural network", arXiv:1901.02358, section 3.2, at full
    rank. There ζ and ν are the numbers between 0 and 1; as σ of free numbers that start at 1 and
    −4 in the authors' code.
    """
    a = p.W @ x + p.U @ h
    z, n = torch.sigmoid(a + p.b_z), torch.tanh(a + p.b_n)
    return (torch.sigmoid(p.zeta) * (1 - z) + torch.sigmoid(p.nu)) * n + z * h


@cell(family="gated", output=True, init={"W_x": "identity", "b_g*": 1.0})
def intersection_rnn(p, x, h):
    """Intersection network (+RNN): a gate along time, and a gate from layer to layer.

        u = relu(W_y xₜ + U_y hₜ₋₁ + b_y)           gʸ = σ(W_gy xₜ + U_gy hₜ₋₁ + b_gy)
        v = tanh(W_h xₜ + U_h hₜ₋₁ + b_h)           gʰ = σ(W_gh xₜ + U_gh hₜ₋₁ + b_gh)
        yₜ = gʸ ⊙ W_x xₜ + (1 − gʸ) ⊙ u             hₜ = gʰ ⊙ hₜ₋₁ + (1 − gʰ) ⊙ v

    The output y goes to the layer above and is no state; the state h is not shown.

    Source: Collins, Sohl-Dickstein & Sussillo 2017, "Capacity and trainability in recurrent neural
    networks", arXiv:1611.09913, the +RNN. The paper has xₜ itself in y, for x of the hidden
    size, and the authors' code a product that brings it there: W_x, which starts as I.
    """
    u = torch.relu(p.W_y @ x + p.U_y @ h + p.b_y)
    v = torch.tanh(p.W_h @ x + p.U_h @ h + p.b_h)
    gy = torch.sigmoid(p.W_gy @ x + p.U_gy @ h + p.b_gy)
    gh = torch.sigmoid(p.W_gh @ x + p.U_gh @ h + p.b_gh)
    y = gy * (p.W_x @ x) + (1 - gy) * u
    h = gh * h + (1 - gh) * v
    return y, h


@cell(family="gated")
def miru1(p, x, h, *, update=0.5):
    """Minion recurrent unit, first form (MiRU-1): a GRU whose update gate is one fixed number.

        r = σ(W_r xₜ + U_r hₜ₋₁ + b_r)
        n = tanh(W_n xₜ + U_n (r ⊙ hₜ₋₁) + b_n)
        hₜ = λ hₜ₋₁ + (1 − λ) n

    `update` is λ, from 0 (all new) to 1 (all old).

    Source: Zyarah & Kudithipudi 2025, "Minion gated recurrent unit for continual learning",
    arXiv:2503.06175, the equations of MiRU-1.
    """
    r = torch.sigmoid(p.W_r @ x + p.U_r @ h + p.b_r)
    n = torch.tanh(p.W_n @ x + p.U_n @ (r * h) + p.b_n)
    return update * h + (1 - update) * n


@cell(family="gated")
def miru2(p, x, h, *, update=0.5, reset=0.5):
    """Minion recurrent unit, second form (MiRU-2): both gates of a GRU are fixed numbers.

        n = tanh(W xₜ + U (θ hₜ₋₁) + b)
        hₜ = λ hₜ₋₁ + (1 − λ) n

    `update` is λ, from 0 (all new) to 1 (all old); `reset` is θ, from 0 (the candidate does not
    see the past) to 1.

    Source: Zyarah & Kudithipudi 2025, "Minion gated recurrent unit for continual learning",
    arXiv:2503.06175, the equations of MiRU-2.
    """
    n = torch.tanh(p.W @ x + p.U @ (reset * h) + p.b)
    return update * h + (1 - update) * n


@cell(family="gated")
def nas(p, x, h, c):
    """NASCell: the recurrent cell that a controller network found by architecture search.

        aₖ = Wₖ xₜ + Uₖ hₜ₋₁,   k = 0 … 7 but 3
        cₜ = tanh(tanh(σ(a₀) ⊙ relu(a₁)) + cₜ₋₁) ⊙ tanh(σ(a₂) + relu(W₃ xₜ ⊙ U₃ hₜ₋₁))
        u = tanh(tanh(a₄) ⊙ σ(a₅)),   v = σ(tanh(a₆) + σ(a₇))
        hₜ = tanh(cₜ ⊙ tanh(u + v))

    Source: Zoph & Le 2017, "Neural architecture search with reinforcement learning",
    arXiv:1611.01578, figure 8, read as the authors' code has it (TensorFlow's NASCell): no biases,
    and the fourth pair of products multiplied, not added.
    """
    a = {k: p["W", k] @ x + p["U", k] @ h for k in (0, 1, 2, 4, 5, 6, 7)}
    multiplied = torch.relu((p.W_3 @ x) * (p.U_3 @ h))
    write = torch.tanh(torch.sigmoid(a[0]) * torch.relu(a[1]))
    c = torch.tanh(write + c) * torch.tanh(torch.sigmoid(a[2]) + multiplied)
    u = torch.tanh(torch.tanh(a[4]) * torch.sigmoid(a[5]))
    v = torch.sigmoid(torch.tanh(a[6]) + torch.sigmoid(a[7]))
    return torch.tanh(c * torch.tanh(u + v)), c
