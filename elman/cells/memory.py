"""Networks with a larger or a better kept memory: the xLSTM family."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from elman.equation import block_diagonal, cell


@cell(family="memory", init={"b_f": 1.0}, initial={"m": -1e4})
def slstm(p, x, h, c, n, m, *, heads=4):
    """sLSTM: an LSTM with exponential gates, a normaliser, and heads that do not see each other.

        z = tanh(W_z xₜ + R_z hₜ₋₁ + b_z)     ĩ, f̃, õ likewise      R block-diagonal, one a head
        mₜ = max(log σ(f̃) + mₜ₋₁, ĩ)          i = exp(ĩ − mₜ),   f = exp(log σ(f̃) + mₜ₋₁ − mₜ)
        cₜ = f ⊙ cₜ₋₁ + i ⊙ z                 nₜ = f ⊙ nₜ₋₁ + i
        hₜ = σ(õ) ⊙ cₜ / nₜ

    m is the stabiliser: it cancels in c/n and keeps the exponentials in range. It starts at −10⁴,
    below any gate: nothing is kept yet, so the first step writes with i = 1 however small ĩ is.

    Source: Beck et al. 2024, "xLSTM: extended long short-term memory", arXiv:2405.04517,
    eqs. 8–17, with the sigmoid as forget gate.
    """
    z = torch.tanh(p.W_z @ x + block_diagonal(p.R_z, heads) @ h + p.b_z)
    i = p.W_i @ x + block_diagonal(p.R_i, heads) @ h + p.b_i
    f = F.logsigmoid(p.W_f @ x + block_diagonal(p.R_f, heads) @ h + p.b_f)
    o = torch.sigmoid(p.W_o @ x + block_diagonal(p.R_o, heads) @ h + p.b_o)
    new_m = torch.maximum(f + m, i)
    i, f = torch.exp(i - new_m), torch.exp(f + m - new_m)
    c = f * c + i * z
    n = f * n + i
    return o * c / n, c, n, new_m


@cell(
    family="memory",
    output=True,
    sizes={"C": ("hidden", "hidden"), "m": ()},
    shapes={"b_i": (), "b_f": ()},
    init={"b_f": 1.0},
)
def mlstm(p, x, C, n, m):
    """mLSTM: the memory is a matrix that stores values under keys.

        q = W_q xₜ + b_q    k = W_k xₜ + b_k    v = W_v xₜ + b_v     ĩ = w_i·xₜ + b_i,  f̃ likewise
        mₜ = max(log σ(f̃) + mₜ₋₁, ĩ, 0)         i = exp(ĩ − mₜ),   f = exp(log σ(f̃) + mₜ₋₁ − mₜ)
        Cₜ = f Cₜ₋₁ + i v kᵀ                    nₜ = f nₜ₋₁ + i k
        hₜ = σ(W_o xₜ + b_o) ⊙ (Cₜ q) / max(|nₜ·q|, exp(−mₜ))

    The gates i and f are one number a row; the output h is no state, since nothing reads it.

    Source: Beck et al. 2024, "xLSTM: extended long short-term memory", arXiv:2405.04517,
    eqs. 19–27, with the sigmoid as forget gate; the factor 1/√d of the key is left to W_k, and the
    bound 1 of the divisor is scaled with the stabiliser, so that m cancels exactly; the bound takes
    part in the maximum, as 0, so that exp(−m) stays in range where the gates are almost shut.
    """
    q, k, v = p.W_q @ x + p.b_q, p.W_k @ x + p.b_k, p.W_v @ x + p.b_v
    i, f = torch.dot(p.w_i, x) + p.b_i, F.logsigmoid(torch.dot(p.w_f, x) + p.b_f)
    new_m = torch.relu(torch.maximum(f + m, i))
    i, f = torch.exp(i - new_m), torch.exp(f + m - new_m)
    C = f * C + i * torch.outer(v, k)
    n = f * n + i * k
    bound = torch.maximum(torch.abs(torch.dot(n, q)), torch.exp(-new_m))
    return torch.sigmoid(p.W_o @ x + p.b_o) * (C @ q) / bound, C, n, new_m
