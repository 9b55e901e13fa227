"""What the forward saves is enough for the backward, and nothing less would be."""

from __future__ import annotations

import itertools

import pytest
import torch
from adjoint_steps import REWRITES, Leaves
from cases import CASES, generator
from tolerances import assert_close

import elman
from elman.equation.adjoint import Adjoint, adjoint, pull_back, step_values
from elman.equation.evaluate import value_of
from elman.equation.graph import PARAMETER
from elman.equation.saving import DEAR, saving

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_rewrite = pytest.mark.parametrize("rewrite", REWRITES)


def label(backward: Adjoint, index: int) -> str:
    """The author's name of a value, or what it is."""
    node = backward.nodes[index]
    return node.name or (node.attribute("name") if not node.args else node.op)


def test_backward_reads_of_the_lstm():
    backward = adjoint(elman.cells.get("lstm").graph)
    assert [label(backward, i) for i in backward.reads] == ["x", "h", "c", *"ifgo", "tanh"]


SAVED = {
    # By hand: the gates; torch.nn keeps as much and tanh c beside it.
    "lstm": (["i", "f", "g", "o"], ["x", "h", "c", "c"], ["tanh"]),
    "gru": (["r", "z", "add", "n"], ["x", "h"], ["sub"]),
    "gru_cho": (["r", "z", "n"], ["x", "h"], ["mul", "sub"]),
    "simple": ([], ["x", "h", "h"], []),
    "janet": (["s", "g"], ["x", "h"], ["sigmoid", "sub", "sigmoid", "sub"]),
    "second_order": ([], ["x", "h", "h"], []),
    "lru": (["matmul", "matmul"], ["x", "re", "im", "re", "im"], []),
    "cfc": (["z", "add", "tanh", "tanh"], ["x", "dt", "h"], ["neg", "mul", "s", "sub"]),
}


@pytest.mark.parametrize("cell", SAVED)
def test_what_is_saved(cell):
    backward = adjoint(elman.cells.get(cell).graph)
    chosen = saving(backward)
    found = [[label(backward, i) for i in group] for group in chosen]
    assert tuple(found) == SAVED[cell]


@every_case
@every_rewrite
def test_the_backward_needs_no_more_than_what_is_saved(case, rewrite):
    """From what is saved and given, all else is computed again, without products."""
    graph = REWRITES[rewrite](case.graph)
    backward = adjoint(graph)
    chosen = saving(backward, case.all_sizes)
    numbers = generator(case, 9)
    leaves = Leaves(graph, case.all_sizes, numbers)
    values = step_values(graph, leaves.parameters, leaves.inputs, leaves.states, leaves.delayed())
    output, *weights = [
        torch.randn(values[i].shape, generator=numbers, dtype=torch.float64)
        for i in (graph.output, *graph.new_states)
    ]
    states = {s.name: w for s, w in zip(graph.states, weights, strict=True)}
    whole = pull_back(backward, values, output, states)
    kept = [
        v if i in (*chosen.saved, *chosen.given) or backward.levels[i] == PARAMETER else None
        for i, v in enumerate(whole)
    ]
    # Only cotangents that come from outside, and what is kept, may be read from here on.
    for index in (*chosen.again, *range(len(graph.nodes), len(whole))):
        node = backward.nodes[index]
        if not node.args:
            kept[index] = whole[index]
        elif kept[index] is None:
            assert node.op not in DEAR or backward.moved[index]
            assert all(kept[a] is not None for a in node.args)
            kept[index] = value_of(node, backward.nodes, backward.levels, kept, case.all_sizes)
    for index in (*backward.results, *backward.factors):
        assert_close(kept[index], whole[index])


def test_scalars_are_saved_and_matrices_computed_again():
    """Of mLSTM: i and f from their two scalars, v kᵀ from v and k; C is there as the new state."""
    backward = adjoint(elman.cells.get("mlstm").graph)
    chosen = saving(backward)
    saved = [backward.nodes[i].dims for i in chosen.saved]
    assert saved.count(()) == 3
    assert saved.count(("hidden",)) == 5
    assert {"i", "f", "outer"} <= {label(backward, i) for i in chosen.again}


def test_both_factors_of_a_bilinear_product_are_kept():
    @elman.cell
    def pairs(p, x, h):
        u, v = p.U @ h + p.b, p.V @ h
        return torch.tanh(torch.nn.functional.bilinear(u, v, p.T) + p.W @ x)

    backward = adjoint(pairs.graph)
    assert {label(backward, i) for i in saving(backward).saved} == {"u", "v"}
    assert {"u", "v"} <= {label(backward, i) for i in backward.reads}


@pytest.mark.parametrize(
    "cell", ["gru_update_only", "mgu", "gru_cho", "janet", "coupled_lstm", "lru", "cfc"]
)
def test_nothing_less_than_what_is_saved_would_do(cell):
    """Every smaller set of the step's values leaves something that only a product could make."""
    backward = adjoint(elman.cells.get(cell).graph)
    chosen = saving(backward)
    nodes, levels = backward.graph.nodes, backward.graph.levels
    row = [i for i, n in enumerate(nodes) if n.args and levels[i] != PARAMETER]
    free = set(range(len(nodes))) - set(row) | set(backward.graph.new_states)

    def enough(kept: set[int]) -> bool:
        known = free | kept
        for index in row:
            if nodes[index].op not in DEAR and all(a in known for a in nodes[index].args):
                known.add(index)
        return all(index in known for index in backward.reads)

    assert enough(set(chosen.saved))
    fewer = itertools.combinations(set(row) - free, len(chosen.saved) - 1)
    assert not any(enough(set(kept)) for kept in fewer)
