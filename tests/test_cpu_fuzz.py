"""Random cells of the language, random sizes, rows and options: kernel = reference.

ELMAN_FUZZ=5000 tries so many instead of the few, and each time others.
"""

from __future__ import annotations

import os

import pytest
import torch
from cpu_agree import (
    Sequence,
    Shape,
    assert_agree,
    layers,
    memory_of_nan,
    outcome,
    sequence,
    state_of,
)
from cpu_graphs import bodies
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import elman

MANY = int(os.environ.get("ELMAN_FUZZ", "0"))
# An equation may magnify rounding by some powers of ten; what is wrong is wrong at once.
# torch's slope of hardsigmoid is float32's 1/6 in float64 too.
VALUES, SLOPES, LARGEST = 1e-9, 1e-6, 1e6

numbers = st.sampled_from([1, 2, 3, 5, 8, 9, 16, 17])


@st.composite
def calls(draw):
    """The shape of a call and what it asks for."""
    shape = Shape(
        draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(numbers), draw(numbers),
        {"other": draw(numbers)},
    )  # fmt: skip
    wanted = ("lengths", "resets", "state", "every", "threads")
    return shape, {name for name in wanted if draw(st.booleans())}


def _given(layer, shape: Shape, wanted: set[str]) -> Sequence:
    seed = torch.Generator().manual_seed(len(wanted))
    sequence_ = sequence(layer, shape)
    if "lengths" in wanted:
        sequence_.lengths = torch.randint(1, shape.steps + 1, (shape.rows,), generator=seed)
    if "resets" in wanted:
        sequence_.resets = torch.rand(shape.steps, shape.rows, generator=seed) < 0.4
    if "state" in wanted:
        sequence_.state = state_of(layer, sequence_)
    return sequence_


def _finite(layer, given: Sequence, every: bool) -> bool:
    found = [t for group in outcome(layer, given, every=every) for t in group.values()]
    return all(t.numel() == 0 or float(t.abs().max()) < LARGEST for t in found)


@pytest.fixture(autouse=True)
def nan(monkeypatch):
    """Nothing may be read before it is written."""
    with memory_of_nan(monkeypatch):
        yield


@settings(
    max_examples=MANY or 20, derandomize=not MANY, database=None, deadline=None, print_blob=False,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(bodies(), calls())
def test_random_cells_run_as_on_the_reference(body, asked):
    shape, wanted = asked
    assume(body.shapes)  # a layer has parameters
    cell = body.cell()
    pair = layers(cell, shape.of(cell))
    given = _given(pair[1], shape, wanted)
    assume(_finite(pair[1], given, "every" in wanted))
    before = torch.get_num_threads()
    torch.set_num_threads(2 if "threads" in wanted else 1)
    try:
        assert_agree(pair, given, VALUES, SLOPES, every="every" in wanted)
    finally:
        torch.set_num_threads(before)


# --- what the fuzz found ---


def two_delays(p, x, h, c, s):
    old = elman.delay(h, 3)
    return h + 0.1 * c * old, old - c, torch.tanh(p.W @ x + s * c)


def two_states_that_are_the_output(p, x, h, c, s):
    new = p.W @ x
    return new, new, 0.6 * s + 0.4 * torch.tanh(new)


def a_weight_on_two_vectors(p, x, h, c):
    twice = x + (x - 0.5)
    return p.W @ x + 0.1 * c, p.W @ twice


def a_weight_in_three_stages(p, x, h, c):
    m = torch.tanh(p.U @ h + p.W @ x)
    n = torch.sigmoid(p.U @ m + p.U @ c + p.b)
    return n * h + 0.1 * (p.U @ (n * c)), m


def products_under_a_sum(p, x, h, c):
    total = torch.sum(p.U @ h + p.W @ x, -1)
    new = torch.tanh(p.U @ (0.5 * c + total * h)) + torch.mean(p.U @ (p.U @ c), -1)
    return h + 0.1 * total + 0.2 * torch.sum(p.U @ c, -1), new


def a_weight_on_an_input_and_its_past(p, x, h):
    return torch.tanh(p.W @ x + p.W @ elman.delay(x, 2) + 0.3 * h)


FOUND = (
    two_delays, two_states_that_are_the_output, a_weight_on_two_vectors, a_weight_in_three_stages,
    products_under_a_sum,
    a_weight_on_an_input_and_its_past,
)  # fmt: skip


@pytest.mark.parametrize("hidden", [6, 16])
@pytest.mark.parametrize("body", FOUND, ids=lambda body: body.__name__)
def test_what_was_once_wrong(body, hidden):
    cell = elman.cell(body)
    shape = Shape(hidden=hidden)
    pair = layers(cell, shape.of(cell))
    given = sequence(pair[1], shape)
    given.state = state_of(pair[1], given)
    for every in (True, False):
        assert_agree(pair, given, VALUES, SLOPES, every=every)
