"""Recurrences without gates: the simple network and its nearest kin."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from elman.equation import cell, linear


@cell(family="simple")
def simple(p, x, h, *, f=torch.tanh):
    """Simple recurrent network: the hidden layer sees its own last value.

        hₜ = f(W xₜ + U hₜ₋₁ + b)

    f is any activation; torch.nn.RNN is this equation with tanh or relu, its two biases added up.

    Source: Elman 1990, "Finding structure in time", Cognitive Science 14, figure 2: the context
    units hold a copy of the hidden units, here written as U hₜ₋₁ with trained U. Elman's units are
    logistic (f="sigmoid"); his output layer is whatever stands above the cell.
    """
    return f(p.W @ x + p.U @ h + p.b)


@cell(family="simple", sizes={"y": "output"})
def jordan(p, x, y, *, f=torch.tanh, g=torch.tanh):
    """Jordan network: the hidden layer sees the network's last output.

        aₜ = f(W xₜ + U yₜ₋₁ + b),   yₜ = g(V aₜ + d)

    The state is the output y, of size "output"; the hidden layer a, of size "hidden", is not
    carried from step to step.

    Source: Jordan 1986, "Serial order: a parallel distributed processing approach", ICS Report
    8604. His state units also keep a decaying trace of themselves, sₜ = μ sₜ₋₁ + yₜ₋₁; this is
    μ = 0. His units are logistic (f="sigmoid", g="sigmoid").
    """
    a = f(p.W @ x + p.U @ y + p.b)
    return g(p.V @ a + p.d)


@cell(family="simple", init={"W": "normal", "U": "identity", "b": "zeros"})
def irnn(p, x, h, *, scale=1.0):
    """Identity-initialised relu network: it starts by adding up what it reads.

        hₜ = relu(W xₜ + α U hₜ₋₁ + b),   U = I and b = 0 at the start

    `scale` is α: 1 remembers everything at first, a smaller one (0.01) forgets fast, which is
    better where long memory is not needed.

    Source: Le, Jaitly & Hinton 2015, "A simple way to initialize recurrent networks of rectified
    linear units", arXiv:1504.00941: W starts normal with deviation 0.001. They write α into the
    initial U; here it stands beside U, so that it can be given as a hyper-parameter.
    """
    return torch.relu(p.W @ x + scale * (p.U @ h) + p.b)


@cell(family="simple")
def residual_input(p, x, h, *, g=torch.tanh):
    """Residual recurrence on the input: hₜ is the sum of all that was read.

        hₜ = hₜ₋₁ + g(W xₜ + b)

    ∂hₜ/∂hₜ₋₁ is exactly I: gradients neither vanish nor explode, and nothing of the past can
    change how the present is read.

    Source: Qiu 2020, "Neural networks and deep learning", section 6.5 (against vanishing
    gradients: U = I with a linear recurrence), with one dense layer as g.
    """
    return h + g(p.W @ x + p.b)


@cell(family="simple")
def residual(p, x, h, *, g=torch.tanh):
    """Residual recurrence: each step adds to the state, and sees it.

        hₜ = hₜ₋₁ + g(W xₜ + U hₜ₋₁ + b)

    ∂hₜ/∂hₜ₋₁ = I + diag(g′) U. The state is not bounded.

    Source: Qiu 2020, "Neural networks and deep learning", section 6.5, with one dense layer as g;
    the residual connection (He et al. 2016, eq. 1) along time.
    """
    return h + g(p.W @ x + p.U @ h + p.b)


@cell(family="simple", init={"u": "unit", "b": "zeros"})
def indrnn(p, x, h, *, f=torch.relu):
    """Independently recurrent network: each unit sees only its own past.

        hₜ = f(W xₜ + u ⊙ hₜ₋₁ + b)

    Units mix in the next layer up: stack at least two. u starts in U(0, 1), so that the units
    begin with time scales from short to long.

    Source: Li, Li, Cook, Zhu & Gao 2018, "Independently recurrent neural network (IndRNN):
    building a longer and deeper RNN", section 3. They also clip |u| to 2^(1/T) in training, which
    is left to the optimiser here.
    """
    return f(p.W @ x + p.u * h + p.b)


@cell(family="simple", init={"T": "normal"})
def second_order(p, x, h, *, f=torch.sigmoid):
    """Second-order network: every pair of a unit and an input has a weight, the tensor T.

        hₜ,ᵢ = f(Σⱼₖ Tᵢⱼₖ hₜ₋₁,ⱼ xₜ,ₖ + bᵢ)

    Source: Giles et al. 1992, "Learning and extracting finite state automata with second-order
    recurrent neural networks", Neural Computation 4, eq. 1; the bias is added.
    """
    return f(F.bilinear(h, x, p.T, p.b))


@cell(family="simple", shapes={"alpha": (), "beta": ()}, init={"alpha": -3.0, "beta": 3.0})
def fast_rnn(p, x, h, *, f=torch.tanh):
    """FastRNN: a residual connection along time, with two trained numbers as its weights.

        hₜ = σ(α) f(W xₜ + U hₜ₋₁ + b) + σ(β) hₜ₋₁

    At the start σ(α) is near 0 and σ(β) near 1: the state changes slowly.

    Source: Kusupati, Singh, Bhatia, Kumar, Jain & Varma 2018, "FastGRNN: a fast, accurate, stable
    and tiny kilobyte sized gated recurrent neural network", arXiv:1901.02358, section 3.1. There
    α and β are the numbers between 0 and 1; as σ of free numbers that start at ∓3 in the authors'
    code.
    """
    new = f(p.W @ x + p.U @ h + p.b)
    return torch.sigmoid(p.alpha) * new + torch.sigmoid(p.beta) * h


@cell(family="simple", output=True)
def scrn(p, x, h, s, *, alpha=0.95, f=linear):
    """Structurally constrained network (SCRN): a simple network beside a slow context.

        sₜ = (1 − α) B xₜ + α sₜ₋₁
        hₜ = σ(P sₜ + A xₜ + R hₜ₋₁)
        yₜ = f(U hₜ + V sₜ)

    s, the context units, forgets at the rate α alone. The output y is no state.

    Source: Mikolov, Joulin, Chopra, Mathieu & Ranzato 2014, "Learning longer memory in recurrent
    neural networks", arXiv:1412.7753, the model with context units and its fixed α = 0.95. Their f
    is the softmax over words (f="softmax"), here whatever stands above; there are no biases. Their
    context may be smaller than h; here both have the size "hidden".
    """
    s = (1 - alpha) * (p.B @ x) + alpha * s
    h = torch.sigmoid(p.P @ s + p.A @ x + p.R @ h)
    y = f(p.U @ h + p.V @ s)
    return y, h, s
