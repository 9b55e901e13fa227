"""Cells of graphs: the state of a node from its own old state and those of its neighbours.

In these equations j runs over the nodes that send to a node, and one step is one round of messages.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from elman.equation import cell
from elman.equation.neighbours import average, each, total


@cell(family="graph")
def gated_graph(p, x, h):
    """Gated graph network: a GRU whose input is the sum of the neighbours' messages.

        m = Σⱼ A hⱼ + a
        r = σ(W_r m + U_r h + b_r)
        z = σ(W_z m + U_z h + b_z)
        n = tanh(W_n m + U_n (r ⊙ h) + b_n)
        h = (1 − z) ⊙ h + z ⊙ n

    x is what the state starts with, padded with zeros, and is not read again.

    Source: Li, Tarlow, Brockschmidt & Zemel 2016, "Gated graph sequence neural networks", eqs. 1–6
    (one kind of edge; "gated_graph_typed" has several).
    """
    m = total(p.A @ each(h)) + p.a
    r = torch.sigmoid(p.W_r @ m + p.U_r @ h + p.b_r)
    z = torch.sigmoid(p.W_z @ m + p.U_z @ h + p.b_z)
    n = torch.tanh(p.W_n @ m + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * h + z * n


@cell(family="graph", edges={"e": "edge"})
def gated_graph_typed(p, x, e, h):
    """Gated graph network in which each type of edge has a matrix of its own.

        m = Σⱼ Σₖ eⱼₖ Aₖ hⱼ + a
        r = σ(W_r m + U_r h + b_r)
        z = σ(W_z m + U_z h + b_z)
        n = tanh(W_n m + U_n (r ⊙ h) + b_n)
        h = (1 − z) ⊙ h + z ⊙ n

    e is one-hot: it is 1 at the edge's type k. x is what the state starts with, padded with zeros,
    and is not read again.

    Source: Li, Tarlow, Brockschmidt & Zemel 2016, "Gated graph sequence neural networks", eqs. 1–6.
    There an edge sends both ways, with a matrix for each; here the edges back are types of
    their own.
    """
    m = total(F.bilinear(e, each(h), p.A)) + p.a
    r = torch.sigmoid(p.W_r @ m + p.U_r @ h + p.b_r)
    z = torch.sigmoid(p.W_z @ m + p.U_z @ h + p.b_z)
    n = torch.tanh(p.W_n @ m + p.U_n @ (r * h) + p.b_n)
    return (1 - z) * h + z * n


@cell(family="graph", edges={"e": "edge"})
def message_passing(p, x, e, h, *, f=torch.relu):
    """General message passing: messages of both ends and the edge, summed, and a new state.

        mⱼ = f(M h + N hⱼ + E eⱼ + a)
        h = f(W x + U h + V Σⱼ mⱼ + b)

    Source: Gilmer, Schoenholz, Riley, Vinyals & Dahl 2017, "Neural message passing for quantum
    chemistry", eqs. 1–2, with one dense layer for each of the two functions.
    """
    m = f(p.M @ h + p.N @ each(h) + p.E @ e + p.a)
    return f(p.W @ x + p.U @ h + p.V @ total(m) + p.b)


@cell(family="graph", edges={"w": ()}, init={"W": "xavier_uniform", "b": "zeros"})
def graph_convolution(p, x, w, h, *, f=torch.relu):
    """Graph convolution: the weighted sum of the neighbours' inputs, through one matrix.

        h = f(Σⱼ wⱼ W xⱼ + b)

    With self-loops and wⱼ = 1/√(d d_j) (`elman.symmetric_weights`) it is the layer of the paper.

    Source: Kipf & Welling 2017, "Semi-supervised classification with graph convolutional
    networks", eq. 2.
    """
    return f(total(w * (p.W @ each(x))) + p.b)


@cell(family="graph")
def mean_neighbours(p, x, h, *, f=torch.relu):
    """The node's own state and the mean of its neighbours' (GraphSAGE's mean aggregator).

        h = f(W x + U h + V meanⱼ hⱼ + b)

    Source: Hamilton, Ying & Leskovec 2017, "Inductive representation learning on large graphs",
    section 3.3.
    """
    return f(p.W @ x + p.U @ h + p.V @ average(each(h)) + p.b)
