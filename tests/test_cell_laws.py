"""Laws that hold for every cell: each runs over all rows of `cases.py`, in float64."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from cases import (
    CASES,
    CELLS,
    Case,
    generator,
    random_carried,
    random_input,
    random_parameters,
    run_case,
    run_graph,
    split_input,
)
from tolerances import assert_close, assert_same_bits

import elman
from elman.backends.reference import Step, initial_carried, with_initial_states
from elman.equation import Parameters
from elman.errors import InputError

# torch's own first use of forward mode loads decompositions written with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_cell = pytest.mark.parametrize("case", CELLS, ids=lambda case: case.id)


def leaves(case: Case, time: int = 3, batch: int = 2):
    """A function of x, all parameters and all that is carried, and such arguments."""
    parameters = random_parameters(case)
    carried = random_carried(case, batch)
    names = tuple(parameters)

    def function(x, *values):
        named = dict(zip(names, values[: len(names)], strict=True))
        out, last = run_case(case, named, x, values[len(names) :])
        return (out, *last)

    values = (random_input(case, time, batch), *parameters.values(), *carried)
    return function, tuple(v.clone().requires_grad_() for v in values)


# --- the catalogue ---


def test_every_cell_has_one_row():
    assert [case.name for case in CELLS] == elman.cells.names()


def test_families_hold_each_cell_once():
    listed = [cell for family in elman.cells.FAMILIES.values() for cell in family]
    assert len({cell.name for cell in listed}) == len(listed)
    for family, cells in elman.cells.FAMILIES.items():
        assert all(cell.family == family for cell in cells)


def test_no_two_cells_are_the_same_equation():
    graphs = [case.graph for case in CELLS]
    pairs = [(a, b) for i, a in enumerate(graphs) for b in graphs[i + 1 :]]
    assert [(a.name, b.name) for a, b in pairs if a == b] == []


@every_cell
def test_cell_says_what_it_is(case):
    cell = case.cell
    assert cell.title.endswith(".")
    assert "hₜ" in cell.doc or "yₜ" in cell.doc
    assert re.search(r"\b(19|20)\d\d\b|torch\.nn", cell.source), "a source has authors and a year"
    assert cell.graph.equation()
    assert cell.graph.latex()
    counts = cell.graph.count(case.all_sizes)
    shapes = cell.graph.parameter_shapes(case.all_sizes).values()
    assert counts.parameters == sum(torch.Size(shape).numel() for shape in shapes)
    assert counts.operations > 0


@pytest.mark.parametrize("case", [c for c in CELLS if c.cell.family == "gru"], ids=lambda c: c.id)
def test_gru_says_which_way_its_update_gate_points(case):
    said = f"Update gate: {case.gate} = 1 {'keeps the old' if case.keeps else 'takes the new'}"
    assert said in case.cell.doc


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"no cell 'lsmt'\. Did you mean 'lstm'\?"):
        elman.cells.get("lsmt")
    with pytest.raises(InputError, match="text"):
        elman.cells.get(3)  # pyrefly: ignore


# --- derivatives ---


@every_case
def test_gradient(case):
    function, values = leaves(case)
    assert torch.autograd.gradcheck(function, values)


@every_case
def test_second_gradient(case):
    small = replace(case, sizes={**case.sizes, "input": 2, "hidden": 2})
    function, values = leaves(small)
    assert torch.autograd.gradgradcheck(function, values)


@every_case
def test_forward_mode_is_the_transpose_of_the_adjoint(case):
    function, values = leaves(case)
    values = tuple(v.detach() for v in values)
    numbers = generator(case, 3)
    direction = tuple(torch.randn(v.shape, generator=numbers, dtype=v.dtype) for v in values)
    out, pushed = torch.func.jvp(function, values, direction)
    weights = tuple(torch.randn(o.shape, generator=numbers, dtype=o.dtype) for o in out)
    pulled = torch.func.vjp(function, *values)[1](weights)
    forward = sum((w * t).sum() for w, t in zip(weights, pushed, strict=True))
    backward = sum((g * d).sum() for g, d in zip(pulled, direction, strict=True))
    assert_close(forward, backward)


@every_case
def test_jacobian_forwards_and_backwards(case):
    function, values = leaves(case, time=3, batch=1)
    values = tuple(v.detach() for v in values)
    places = (0, 1, len(values) - 1)
    forward = torch.func.jacfwd(function, argnums=places)(*values)
    backward = torch.func.jacrev(function, argnums=places)(*values)
    for one, other in zip(forward, backward, strict=True):
        assert_close(one, other)


@every_case
def test_vmap_over_parameters_and_inputs(case):
    parameters = [random_parameters(case, seed) for seed in (10, 11, 12)]
    stacked = {name: torch.stack([p[name] for p in parameters]) for name in parameters[0]}
    x = torch.stack([random_input(case, 4, 2, seed) for seed in (20, 21, 22)])
    carried = random_carried(case, 2)
    mapped = torch.func.vmap(lambda p, x: run_case(case, p, x, carried))(stacked, x)
    for place in range(3):
        alone = run_case(case, parameters[place], x[place], carried)
        assert_close(mapped[0][place], alone[0])
        assert_close(tuple(m[place] for m in mapped[1]), alone[1])


# --- batch and time ---


@every_case
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_batched_is_alone(case, dtype):
    parameters = random_parameters(case, dtype=dtype)
    x, carried = random_input(case, 5, 3, dtype=dtype), random_carried(case, 3, dtype=dtype)
    out, last = run_case(case, parameters, x, carried)
    assert out.dtype == dtype
    for row in range(3):
        own = tuple(c[row : row + 1] for c in carried)
        alone, alone_last = run_case(case, parameters, x[:, row : row + 1], own)
        assert_close(out[:, row : row + 1], alone)
        assert_close(tuple(c[row : row + 1] for c in last), alone_last)


@every_case
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_split_is_whole(case, cut):
    parameters = random_parameters(case)
    x, carried = random_input(case, 7, 2), random_carried(case, 2)
    whole, whole_last, whole_states = run_graph(
        case, case.graph, parameters, x, carried, return_states=True
    )
    first, between, first_states = run_graph(
        case, case.graph, parameters, x[:cut], carried, return_states=True
    )
    second, last, second_states = run_graph(
        case, case.graph, parameters, x[cut:], between, return_states=True
    )
    assert_close(torch.cat([first, second]), whole)
    assert_close(last, whole_last)
    states = zip(first_states, second_states, strict=True)
    assert_close(tuple(torch.cat(pair) for pair in states), whole_states)


@every_case
def test_step_by_step_is_whole(case):
    parameters = random_parameters(case)
    x, carried = random_input(case, 6, 2), random_carried(case, 2)
    whole, whole_last = run_case(case, parameters, x, carried)
    step = Step(case.graph, parameters)
    for t in range(6):
        one, extras = split_input(case, x[t])
        out, carried = step(one, carried, extras)
        assert_close(out, whole[t])
    assert_close(carried, whole_last)


@every_case
def test_padded_is_alone(case):
    """Outputs, last values and gradients; what stands in the padding, NaN even, is not seen."""
    lengths = torch.tensor([3, 6, 1, 4])
    parameters = random_parameters(case)
    x, carried = random_input(case, 6, 4), random_carried(case, 4)
    past_end = (torch.arange(6).unsqueeze(1) >= lengths).unsqueeze(-1)
    out, last = run_case(
        case, parameters, x.masked_fill(past_end, float("nan")), carried, lengths=lengths
    )
    assert (out.masked_select(past_end) == 0).all()
    for row, length in enumerate(lengths.tolist()):
        own = tuple(c[row : row + 1] for c in carried)
        alone, alone_last = run_case(case, parameters, x[:length, row : row + 1], own)
        assert_close(out[:length, row : row + 1], alone)
        assert_close(tuple(c[row : row + 1] for c in last), alone_last)


@every_case
def test_gradient_does_not_see_the_padding(case):
    lengths = torch.tensor([2, 4, 1])
    x, carried = random_input(case, 4, 3), random_carried(case, 3)
    past_end = (torch.arange(4).unsqueeze(1) >= lengths).unsqueeze(-1)

    def gradients(x, rows, **options):
        parameters = {k: v.requires_grad_() for k, v in random_parameters(case).items()}
        own = tuple(c[rows].requires_grad_() for c in carried)
        out, last = run_case(case, parameters, x, own, **options)
        loss = (out**2).sum() + sum((v**3).sum() for v in last)
        return torch.autograd.grad(loss, (*parameters.values(), *own), materialize_grads=True)

    padded = gradients(x.masked_fill(past_end, float("nan")), slice(None), lengths=lengths)
    alone = [gradients(x[:n, r : r + 1], slice(r, r + 1)) for r, n in enumerate(lengths.tolist())]
    count = len(random_parameters(case))
    added = tuple(sum(parts) for parts in zip(*(a[:count] for a in alone), strict=True))
    joined = tuple(torch.cat(parts) for parts in zip(*(a[count:] for a in alone), strict=True))
    assert_close(padded, added + joined)


@every_case
@pytest.mark.parametrize("given", [False, True], ids=["constants", "given"])
def test_resets_are_separate_runs(case, given):
    parameters = random_parameters(case)
    x, carried = random_input(case, 8, 2), random_carried(case, 2)
    resets = torch.zeros(8, 2, dtype=torch.bool)
    resets[3, 0] = resets[5, 0] = resets[0, 1] = resets[6, 1] = True
    lengths = torch.tensor([7, 8])
    fresh = initial_carried(case.graph, case.all_sizes, 2, dtype=x.dtype)
    if given:
        count = len(case.graph.states)
        states = random_carried(case, 2, seed=5)[:count]
        fresh = with_initial_states(case.graph, states, case.all_sizes)
    out, last = run_case(
        case, parameters, x, carried,
        resets=resets, lengths=lengths, fresh=fresh if given else None,
    )  # fmt: skip
    for row, pieces in enumerate([((0, 3), (3, 5), (5, 7)), ((0, 6), (6, 8))]):
        for begin, end in pieces:
            start = fresh if resets[begin, row] else carried
            own = tuple(c[row : row + 1] for c in start)
            alone, alone_last = run_case(case, parameters, x[begin:end, row : row + 1], own)
            assert_close(out[begin:end, row : row + 1], alone)
        assert_close(tuple(c[row : row + 1] for c in last), alone_last)


# --- the graph ---


@every_case
def test_graph_is_the_body(case):
    """The body called on tensors, step by step and row by row, equals the traced reference."""
    cell, parameters = case.cell, random_parameters(case)
    x, carried = random_input(case, 5, 2), random_carried(case, 2)
    out, last, all_states = run_graph(case, case.graph, parameters, x, carried, return_states=True)
    p, count = Parameters(parameters), len(cell.states)
    for row in range(2):
        states = tuple(c[row] for c in carried[:count])
        lines = zip(case.graph.lines, carried[count:], strict=True)
        past = {line.name: list(value[row]) for line, value in lines}
        for t in range(5):
            one, extras = split_input(case, x[t, row])
            now = {"x": one, **extras, **dict(zip(cell.states, states, strict=True))}
            new = cell(p, *(now[name] for name in cell.arguments), past=past)
            new = new if isinstance(new, tuple) else (new,)
            past = {name: [now[name], *values] for name, values in past.items()}
            states = new[-count:]
            assert_close(new[0], out[t, row])
            assert_close(states, tuple(s[t, row] for s in all_states))
        assert_close(states, tuple(c[row] for c in last[:count]))


@every_case
def test_json_and_back(case):
    text = json.dumps(case.cell.to_json())
    back = elman.Cell.from_json(json.loads(text))
    assert back.graph == case.graph
    assert back == case.cell
    assert (back.doc, back.source, back.family) == (
        case.cell.doc, case.cell.source, case.cell.family,
    )  # fmt: skip
    parameters = random_parameters(case)
    x, carried = random_input(case, 4, 2), random_carried(case, 2)
    one = run_graph(case, case.graph, parameters, x, carried, return_states=True)
    other = run_graph(case, back.graph, parameters, x, carried, return_states=True)
    for a, b in zip(one, other, strict=True):
        assert_same_bits(a, b)
