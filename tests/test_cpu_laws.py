"""The CPU's kernels give what the reference gives: results, states and every gradient, every cell.

ELMAN_FUZZ=1 runs every cell with every set of options; without it they take turns.
"""

from __future__ import annotations

import os

import pytest
import torch
from cases import CASES, CELLS
from cpu_agree import (
    EVEN,
    ODD,
    ON_THE_REFERENCE,
    Shape,
    assert_agree,
    call,
    layers,
    lengths_of,
    memory_of_nan,
    resets_of,
    sequence,
    shape_for,
    state_of,
)
from cpu_machines import HERE, machine
from layer_cases import DROPINS, FEW
from tolerances import EQUAL, ORACLE, assert_close, assert_same_bits

import elman
from elman.backends.cpu import memory

SERVED = [case for case in CASES if case.name not in ON_THE_REFERENCE]
DTYPES = (torch.float64, torch.float32)

# What a layer is built with, and what a call of it brings beside x.
OPTIONS: dict[str, tuple[dict, set[str]]] = {
    "a stack both ways": (
        {"num_layers": 2, "bidirectional": True, "initial_state": "learned"},
        {"lengths", "resets"},
    ),
    "layer norm": ({"layer_norm": True, "num_layers": 2, "residual": True}, {"state"}),
    "zoneout": ({"zoneout": 0.3, "bidirectional": True}, {"lengths", "state"}),
    "recurrent dropout": ({"recurrent_dropout": 0.4}, {"resets", "state"}),
    "windows": ({"learning": elman.BPTT(window=4)}, {"lengths", "resets", "state"}),
    "all at once": (
        {
            "num_layers": 2, "bidirectional": True, "zoneout": 0.2, "recurrent_dropout": 0.3,
            "layer_norm": True, "dense": 3, "batch_first": False,
        },
        {"lengths", "resets", "state"},
    ),
}  # fmt: skip
TURNS = [
    (case, name)
    for place, case in enumerate(SERVED)
    for turn, name in enumerate(OPTIONS)
    if os.environ.get("ELMAN_FUZZ") or place % (2 * len(OPTIONS)) == turn
]

# One product a step and two, delays, and a state of another size.
SOME = [case for case in FEW if case.name in ("gru_cho", "narx", "lstm_projected")]

every_case = pytest.mark.parametrize("case", SERVED, ids=lambda case: case.id)


@pytest.fixture(autouse=True)
def nan(monkeypatch):
    """In all of this file, nothing may be read before it is written."""
    with memory_of_nan(monkeypatch):
        yield


def made(case, shape: Shape, wanted: set[str], dtype=torch.float64, **options):
    """A layer on the kernels, one on the reference, and a call with what is wanted."""
    shape = shape_for(case, shape)
    pair = layers(case.cell, shape.of(case.cell), dtype, **options)
    given = sequence(pair[1], shape, dtype)
    given.lengths = lengths_of(shape) if "lengths" in wanted else None
    given.resets = resets_of(shape) if "resets" in wanted else None
    if "state" in wanted and options.get("num_layers", 1) * (1 + pair[0].bidirectional) >= 1:
        given.state = state_of(pair[1], given)
    return pair, given


def agree(pair, given, **options) -> None:
    dtype = given.x.dtype
    assert_agree(pair, given, EQUAL[dtype], ORACLE[dtype], **options)


def test_the_catalogue_is_served_or_the_operation_named():
    for case in CELLS:
        shape = shape_for(case, ODD)
        further = {n: s for n, s in shape.of(case.cell).items() if n not in ("input", "hidden")}
        layer = elman.Recurrent(case.cell, shape.input, shape.hidden, sizes=further)
        said = layer.explain()
        if case.name in ON_THE_REFERENCE:
            assert "backend 'reference'" in said
            assert ON_THE_REFERENCE[case.name] in said
            layer.backend = "cpu"
            with pytest.raises(elman.InputError, match=ON_THE_REFERENCE[case.name]):
                layer(torch.randn(2, 1, shape.input))
        else:
            assert "backend 'cpu'" in said


@every_case
def test_ragged_rows_with_every_state(case):
    """Sizes that fill no vector, rows that end and begin anew; loss of all states."""
    agree(*made(case, ODD, {"lengths", "resets", "state"}))


@every_case
def test_whole_rows_without_every_state(case):
    """Sizes that are whole vectors, all rows to the end; loss of outputs and last states."""
    agree(*made(case, EVEN, set()), every=False)


@pytest.mark.parametrize(("case", "name"), TURNS, ids=lambda v: getattr(v, "id", v))
def test_options(case, name):
    options, wanted = OPTIONS[name]
    pair, given = made(case, ODD, wanted, **options)
    agree(pair, given)
    if name == "zoneout":  # in evaluation another equation
        for layer in pair:
            layer.eval()
        agree(pair, given, every=False)


@pytest.mark.parametrize("shape", [ODD, EVEN], ids=["odd", "even"])
@pytest.mark.parametrize("case", SOME, ids=lambda case: case.id)
def test_single_precision(case, shape):
    agree(*made(case, shape, {"lengths", "state"}, torch.float32))
    agree(*made(case, shape, {"resets"}, torch.float32), every=False)


@pytest.mark.parametrize("wanted", [set(), {"lengths"}, {"resets"}], ids=str)
@pytest.mark.parametrize("both", [False, True], ids=["forwards", "both ways"])
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)
def test_inference(case, both, wanted):
    (ours, theirs), given = made(case, ODD, wanted | {"state"}, bidirectional=both)
    with torch.no_grad():
        for every in (False, True):
            assert_close(call(ours, given, every=every), call(theirs, given, every=every))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 48, 64])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes(size, dtype):
    """Around the width of vectors and of the tile; one step and several, one row and several."""
    cell = elman.cells.get("lstm")
    pair = layers(cell, {"input": 1 + size % 3, "hidden": size}, dtype)
    for steps, rows in ((1, 1), (3, 1), (1, 4), (4, 9)):
        given = sequence(pair[1], Shape(steps, rows), dtype)
        agree(pair, given, every=False)


@pytest.mark.parametrize("name", ["lstm", "narx"])
def test_memory_that_was_used_before(name, monkeypatch):
    """Large blocks are used again and again; here every block is large."""
    monkeypatch.setattr(memory, "SMALL", 1)
    cell = elman.cells.get(name)
    pair = layers(cell, ODD.of(cell))
    for steps in (6, 3, 6):
        given = sequence(pair[1], Shape(steps, 5))
        held = call(pair[0], given)
        before = [value.clone() for value in held]
        agree(pair, given)
        assert_same_bits(held, before)
    assert memory.free() > 0


@pytest.mark.parametrize("rows", range(1, 15))
def test_rows(rows):
    """Every rest of the tile's rows, for a cell of two products one after the other."""
    cell = elman.cells.get("gru_cho")
    pair = layers(cell, {"input": 5, "hidden": 16})
    agree(pair, sequence(pair[1], Shape(2, rows)))


def test_many_steps_cross_the_edges_of_chunks():
    """The inputs' products are made for some steps at once; what is carried crosses over."""
    for name in ("gru", "peephole_lstm", "tau_gru"):
        cell = elman.cells.get(name)
        pair = layers(cell, {"input": 2, "hidden": 8})
        for steps in (31, 64, 97):
            given = sequence(pair[1], Shape(steps, 5))
            agree(pair, given, every=False)
            given.lengths = torch.tensor([steps, 1, 33, steps - 1, steps // 2])[:5].clamp(max=steps)
            with torch.no_grad():
                assert_close(*(call(layer, given, every=False) for layer in pair))


@pytest.mark.parametrize("name", DROPINS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_dropins(name, bias):
    """Weights that lie in torch.nn's stacked tensors, and their gradients."""
    pair = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(1)
        pair.append(
            getattr(elman, name)(
                5, 8, 2, bias=bias, bidirectional=True, dtype=torch.float64, backend=backend
            )
        )
    for shape in (Shape(), Shape(input=5, hidden=8, rows=4)):
        given = sequence(pair[1], shape)
        agree(pair, given)
        given.lengths, given.resets = lengths_of(shape), resets_of(shape)
        given.state = state_of(pair[1], given)
        agree(pair, given)


def test_a_dropin_with_a_projection():
    pair = []
    for backend in ("cpu", "reference"):
        torch.manual_seed(1)
        pair.append(elman.LSTM(5, 8, 2, proj_size=3, dtype=torch.float64, backend=backend))
    given = sequence(pair[1], ODD)
    given.lengths = lengths_of(ODD)
    agree(pair, given)


@pytest.mark.parametrize("name", [name for name in HERE if name != HERE[0]])
def test_other_machines(name, monkeypatch):
    """Narrower vectors, fewer registers, no fused multiply-add."""
    with machine(monkeypatch, name):
        for case in SOME:
            agree(*made(case, ODD, {"lengths", "resets", "state"}))
            agree(*made(case, EVEN, set(), torch.float32), every=False)
