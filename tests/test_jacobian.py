"""Forward mode and local Jacobians of a step equal torch's, for every cell."""

from __future__ import annotations

import pytest
import torch
from adjoint_steps import REWRITES, Leaves
from cases import CASES, CELLS, generator
from tolerances import EQUAL, assert_close

import elman
from elman.equation.adjoint import step_values
from elman.equation.graph import PARAMETER, Graph, Parameter
from elman.equation.jacobian import forward, local, push_forward
from elman.equation.split import split

# Forward mode of torch.func imports code of torch's that warns once.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

STAGE = [case for case in CASES if not local(split(case.graph).inner).hindered]


def id_of(case):
    return case.id


def leaves_of(case, graph: Graph | None = None) -> Leaves:
    graph = graph or case.graph
    return Leaves(graph, case.all_sizes, generator(case, 11))


def tangents_of(leaves: Leaves, direction) -> dict:
    (parameters, inputs, states), lines = leaves.named(direction)
    found = {("parameter", n): v for n, v in parameters.items()}
    found |= {("input", n): v for n, v in inputs.items()}
    found |= {("state", n): v for n, v in states.items()}
    return found | {("delayed", key): v for key, v in leaves.delayed(lines).items()}


@pytest.mark.parametrize("rewrite", ["plain", "all"])
@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_forward_mode_is_torchs(case, rewrite):
    try:
        graph = REWRITES[rewrite](case.graph)
    except elman.ElmanError:
        pytest.skip("the cell has nothing to be rewritten")
    leaves, numbers = leaves_of(case, graph), generator(case, 12)
    direction = tuple(
        torch.randn(t.shape, generator=numbers, dtype=torch.float64) for t in leaves.tensors
    )
    _, expected = torch.func.jvp(leaves.step, leaves.tensors, direction)
    values = step_values(graph, leaves.parameters, leaves.inputs, leaves.states, leaves.delayed())
    pushed = push_forward(forward(graph), values, tangents_of(leaves, direction))
    found = tuple(pushed[i] for i in (graph.output, *graph.new_states))
    assert_close(found, expected, EQUAL, "tangents")


@pytest.mark.parametrize("case", CASES[:12], ids=id_of)
def test_forward_mode_of_the_states_alone(case):
    leaves, numbers = leaves_of(case), generator(case, 13)
    moved = set(leaves.states)
    (_, _, states), _ = leaves.named(leaves.tensors)
    names = [*leaves.parameters, *leaves.inputs, *states, *(ln.name for ln in case.graph.lines)]
    direction = tuple(
        torch.randn(t.shape, generator=numbers, dtype=torch.float64) * (name in moved)
        for t, name in zip(leaves.tensors, names, strict=True)
    )
    if case.graph.lines:
        pytest.skip("a delayed state is a state too")
    _, expected = torch.func.jvp(leaves.step, leaves.tensors, direction)
    values = step_values(case.graph, leaves.parameters, leaves.inputs, leaves.states)
    made = forward(case.graph, ("state",))
    pushed = push_forward(made, values, tangents_of(leaves, direction))
    for index, want in zip((case.graph.output, *case.graph.new_states), expected, strict=True):
        found = pushed.get(index, torch.zeros_like(want))
        assert_close(found, want, EQUAL, "tangents")


def full(value, like: torch.Tensor) -> torch.Tensor:
    """A factor unit by unit, for every row."""
    return torch.as_tensor(value, dtype=like.dtype).expand_as(like)


@pytest.mark.parametrize("case", STAGE, ids=id_of)
def test_local_jacobians_are_torchs(case):
    """Put together from the factors, ∂s'/∂s and ∂s'/∂θ of the inner step are autograd's."""
    inner = split(case.graph).inner
    leaves = Leaves(inner, case.all_sizes, generator(case, 14))
    made = local(inner)
    values = step_values(inner, leaves.parameters, leaves.inputs, leaves.states)
    found = made.values(values, made.factors)

    def new_states(states, parameters):
        result = step_values(inner, parameters, leaves.inputs, states)
        return {i: result[i].expand(2, -1) for i in inner.new_states}

    want = torch.func.jacrev(new_states, (0, 1))(leaves.states, leaves.parameters)
    for k, new in enumerate(inner.new_states):
        of_states, of_parameters = want[new]
        unit = torch.zeros(2, values[new].shape[-1], dtype=torch.float64)
        units = unit.shape[-1]
        for m, state in enumerate(inner.states):
            old = leaves.states[state.name]
            total = torch.zeros(2, units, old.shape[1], dtype=torch.float64)
            if (k, m) in made.carried:
                total += torch.diag_embed(full(found[made.carried[k, m]], old))
            for p in made.products:
                if (k, p) in made.onto and (p, m) in made.into:
                    weight, _ = inner.nodes[p].args
                    left = full(found[made.onto[k, p]], unit)
                    right = full(found[made.into[p, m]], old)
                    total += left[:, :, None] * values[weight] * right[:, None]
            rows = torch.stack([of_states[state.name][b, :, b] for b in range(2)])
            assert_close(total, rows, EQUAL, f"∂{k}/∂{state.name}")
        for index, node in enumerate(inner.nodes):
            if node.op != "parameter":
                continue
            whole = of_parameters[node.attribute("name")]
            total = torch.zeros_like(whole)
            for p in made.products:
                weight, vector = inner.nodes[p].args
                if weight == index and (k, p) in made.onto:
                    left = full(found[made.onto[k, p]], unit)
                    rows = torch.einsum("bi,bj->bij", left, values[vector])
                    total += torch.eye(units, dtype=torch.float64)[None, :, :, None] * rows[:, None]
            if (k, index) in made.vectors:
                column = full(found[made.vectors[k, index]], unit)
                total += torch.diag_embed(column) if node.dims else column
            assert_close(total, whole, EQUAL, f"∂{k}/∂{node.attribute('name')}")


def test_every_other_cell_is_told_what_hinders():
    stage = {case.id for case in STAGE}
    assert {"simple", "lstm", "gru", "peephole_lstm", "antisymmetric_rnn", "indrnn"} <= stage
    for case in CELLS:
        assert (case.id in stage) != bool(local(split(case.graph).inner).hindered)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gru_cho", "the product of 'U_n' takes a value that is made of other products"),
        ("second_order", "the operation 'bilinear' takes more than one unit together"),
        ("tau_gru", "the state 'h' is read with a delay"),
        ("mlstm", "the state 'C' is a matrix for each row"),
    ],
)
def test_words_of_what_hinders(name, words):
    assert local(split(elman.cells.get(name).graph).inner).hindered == words


def test_softmax_and_layer_norm_hinder():
    soft = elman.cells.get("simple").with_hyper(f="softmax").graph
    assert "softmax" in local(split(soft).inner).hindered
    normed = REWRITES["layer_norm"](elman.cells.get("lstm").graph)
    assert "layer_norm" in local(split(normed).inner).hindered
    masked = REWRITES["dropout"](elman.cells.get("lstm").graph)
    assert not local(split(masked).inner).hindered


def test_elementwise_recurrences_are_known():
    for name, expected in (("indrnn", True), ("sru", True), ("mingru", True), ("lstm", False)):
        assert local(split(elman.cells.get(name).graph).inner).elementwise is expected


def test_a_number_of_a_row_hinders():
    @elman.cell
    def attention(p, x, h):
        return torch.tanh(p.W @ x + p.U @ h) * torch.sum(p.v * h)

    assert "unit" in local(split(attention.graph).inner).hindered


def test_the_levels_of_tangents_are_those_of_their_values():
    graph = elman.cells.get("simple").graph
    made = forward(graph)
    weight = next(i for i, n in enumerate(made.nodes) if n.op == "parameter_tangent")
    assert made.levels[weight] == PARAMETER
    assert Parameter("W", ("hidden", "input")).name in {p.name for p in graph.parameters}
