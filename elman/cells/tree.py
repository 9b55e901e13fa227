"""Cells of trees: the state of a node from its input and the states of its children.

In these equations j runs over the children of a node, and h[k] is the state of its k-th child,
the initial state where there is none. From the top down the one "child" is the parent.
"""

from __future__ import annotations

import torch

from elman.equation import cell
from elman.equation.neighbours import child, each, total


@cell(family="tree")
def recursive(p, x, h, *, arity=2, f=torch.tanh):
    """Recursive network: the simple network, with a matrix for each place among the children.

        h = f(W x + Σₖ U_k h[k] + b)

    Source: Goller & Küchler 1996, "Learning task-dependent distributed representations by
    backpropagation through structure", section 2; Socher et al. 2013, "Recursive deep models for
    semantic compositionality over a sentiment treebank", section 4.1 (RNN), where inner nodes have
    no input.
    """
    a = p.W @ x + p.b
    for k in range(arity):
        a = a + p["U", k] @ child(h, k)
    return f(a)


@cell(family="tree", init={"b_f": 1.0})
def child_sum_tree_lstm(p, x, h, c):
    """Child-sum Tree-LSTM: gates see the sum of the children, and each child has a forget gate.

        i = σ(W_i x + U_i Σⱼ hⱼ + b_i)
        fⱼ = σ(W_f x + U_f hⱼ + b_f)
        o = σ(W_o x + U_o Σⱼ hⱼ + b_o)
        u = tanh(W_u x + U_u Σⱼ hⱼ + b_u)
        c = i ⊙ u + Σⱼ fⱼ ⊙ cⱼ
        h = o ⊙ tanh(c)

    Source: Tai, Socher & Manning 2015, "Improved semantic representations from tree-structured
    long short-term memory networks", eqs. 2–8. Forget biases start at 1 here. On graphs without
    circles it is a DAG-LSTM.
    """
    s = total(each(h))
    i = torch.sigmoid(p.W_i @ x + p.U_i @ s + p.b_i)
    f = torch.sigmoid(p.W_f @ x + p.U_f @ each(h) + p.b_f)
    o = torch.sigmoid(p.W_o @ x + p.U_o @ s + p.b_o)
    u = torch.tanh(p.W_u @ x + p.U_u @ s + p.b_u)
    c = i * u + total(f * each(c))
    return o * torch.tanh(c), c


@cell(family="tree", init={"b_f": 1.0})
def nary_tree_lstm(p, x, h, c, *, arity=2):
    """N-ary Tree-LSTM: matrices for each place among the children, also between places.

        i = σ(W_i x + Σₗ U_iₗ h[l] + b_i)
        f_k = σ(W_f x + Σₗ U_fₖₗ h[l] + b_f)
        o = σ(W_o x + Σₗ U_oₗ h[l] + b_o)
        u = tanh(W_u x + Σₗ U_uₗ h[l] + b_u)
        c = i ⊙ u + Σₖ f_k ⊙ c[k]
        h = o ⊙ tanh(c)

    Source: Tai, Socher & Manning 2015, eqs. 9–14. Forget biases start at 1 here.
    """
    places = range(arity)

    def gate(*names):
        a = p[(f"W_{names[0]}",)] @ x + p[(f"b_{names[0]}",)]
        for k in places:
            a = a + p[("U", *names, k)] @ child(h, k)
        return a

    i, o, u = torch.sigmoid(gate("i")), torch.sigmoid(gate("o")), torch.tanh(gate("u"))
    c_new = i * u
    for k in places:
        c_new = c_new + torch.sigmoid(gate("f", k)) * child(c, k)
    return o * torch.tanh(c_new), c_new


@cell(family="tree")
def tree_gru(p, x, h):
    """Child-sum Tree-GRU: a reset gate for each child.

        rⱼ = σ(W_r x + U_r hⱼ + b_r)
        z = σ(W_z x + U_z Σⱼ hⱼ + b_z)
        n = tanh(W_n x + U_n Σⱼ (rⱼ ⊙ hⱼ) + b_n)
        h = z ⊙ Σⱼ hⱼ + (1 − z) ⊙ n

    Source: the GRU of Cho et al. 2014, eqs. 5–8, with the sums of the child-sum Tree-LSTM; on a
    chain it is that GRU. Kokkinos & Potamianos 2017, "Structural attention neural networks for
    improved sentiment analysis", section 2.1, has a form with matrices by place.
    """
    s = total(each(h))
    r = torch.sigmoid(p.W_r @ x + p.U_r @ each(h) + p.b_r)
    z = torch.sigmoid(p.W_z @ x + p.U_z @ s + p.b_z)
    n = torch.tanh(p.W_n @ x + p.U_n @ total(r * each(h)) + p.b_n)
    return z * s + (1 - z) * n
