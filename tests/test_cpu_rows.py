"""On the CPU's kernels a row's result is its own, to the bit.

Alone or in any batch, on one thread or two, whole or in pieces, through a stepper, with gradients
or without, with a length or cut there. No law here allows for rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from cases import CELLS
from cpu_agree import (
    EVEN,
    ODD,
    ON_THE_REFERENCE,
    Sequence,
    Shape,
    call,
    layers,
    lengths_of,
    outcome,
    sequence,
    shape_for,
)
from cpu_machines import HERE, machine
from layer_cases import FEW
from tolerances import assert_same_bits

import elman

SERVED = [case for case in CELLS if case.name not in ON_THE_REFERENCE]
# Seven rows: more than a thread's tile of either half, and no multiple of it.
SMALL = Shape(6, 7, ODD.input, ODD.hidden)
WHOLE = Shape(6, 7, EVEN.input, EVEN.hidden)
every_cell = pytest.mark.parametrize("case", SERVED, ids=lambda case: case.id)
few_cells = pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)


def layer_and_call(case, shape: Shape = SMALL, dtype=torch.float64, **options):
    shape = shape_for(case, shape)
    layer = layers(case.cell, shape.of(case.cell), dtype, **options)[0]
    return layer, sequence(layer, shape, dtype)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def without_gradients(layer, given: Sequence, *, every: bool = True) -> list[torch.Tensor]:
    with torch.no_grad():
        return call(layer, given, every=every)


def assert_rows_are_alone(layer, given: Sequence) -> None:
    with threads(1):
        together = without_gradients(layer, given)
    with threads(2):
        assert_same_bits(without_gradients(layer, given), together, "on two threads")
    for start, stop in ((0, 1), (3, 4), (6, 7), (1, 4), (2, 7)):
        with threads(1 + start % 2):
            alone = without_gradients(layer, given.rows(start, stop))
        part = [value[:, start:stop] for value in together]
        assert_same_bits(alone, part, f"rows {start} to {stop}")


def assert_pieces_are_whole(layer, given: Sequence) -> None:
    whole = without_gradients(layer, given, every=False)
    for size in (1, 2, 3):
        outs, state = [], None
        for start in range(0, given.x.shape[0], size):
            piece = given.steps(start, start + size)
            piece.state = state
            out, *state = without_gradients(layer, piece, every=False)
            state = tuple(state)
            outs.append(out)
        assert_same_bits([torch.cat(outs), *state], whole, f"pieces of {size}")


def assert_lengths_cut(layer, given: Sequence) -> None:
    lengths = lengths_of(SMALL)
    together = without_gradients(
        layer, Sequence(given.x, given.inputs, lengths=lengths), every=False
    )
    for row, length in enumerate(lengths.tolist()):
        alone = without_gradients(layer, given.rows(row, row + 1).steps(0, length), every=False)
        out, *states = (value[:, row : row + 1] for value in together)
        assert_same_bits([out[:length], *states], alone, f"row {row}")
        assert (out[length:] == 0).all()


@every_cell
def test_rows_pieces_lengths_and_training(case):
    layer, given = layer_and_call(case)
    assert_rows_are_alone(layer, given)
    assert_pieces_are_whole(layer, given)
    assert_lengths_cut(layer, given)
    wanted = without_gradients(layer, given)
    ends = without_gradients(layer, given, every=False)
    assert_same_bits(ends, wanted[: len(ends)], "without every state")
    trained = [value.detach() for value in call(layer, given)]
    assert_same_bits(trained, wanted, "training")


@pytest.mark.parametrize("shape", [SMALL, WHOLE], ids=["odd", "even"])
@few_cells
def test_rows_and_pieces_in_single_precision(case, shape):
    layer, given = layer_and_call(case, shape, torch.float32)
    assert_rows_are_alone(layer, given)
    assert_pieces_are_whole(layer, given)
    assert_lengths_cut(layer, given)


@few_cells
def test_resets_cut_a_row(case):
    layer, given = layer_and_call(case)
    given.resets = torch.zeros(given.x.shape[:2], dtype=torch.bool)
    given.resets[2, 1] = given.resets[4, 1] = given.resets[3, 5] = True
    out = without_gradients(layer, given, every=False)[0]
    for row, cuts in ((1, (0, 2, 4, 6)), (5, (0, 3, 6)), (0, (0, 6))):
        own = given.rows(row, row + 1)
        for start, stop in pairwise(cuts):
            alone = without_gradients(layer, own.steps(start, stop), every=False)[0]
            assert_same_bits(out[start:stop, row : row + 1], alone, f"row {row}, step {start}")


@few_cells
def test_gradients_of_rows_are_alone(case):
    """What a row's x gets depends on no neighbour; nor its length on theirs."""
    layer, given = layer_and_call(case)
    for loss_of_rows in ((0, 1), (4, 7)):
        start, stop = loss_of_rows

        def loss(results, start=start, stop=stop):
            wide = results[0].shape[1] > stop - start
            return sum((r[:, start:stop] if wide else r).cos().sum() for r in results)

        together = outcome(layer, given, loss=loss)[1]["x"][:, start:stop]
        alone = outcome(layer, given.rows(start, stop), loss=loss)[1]["x"]
        assert_same_bits(together, alone)


@few_cells
def test_the_same_call_twice_has_the_same_bits(case):
    layer, given = layer_and_call(case)
    for count in (1, 2):
        with threads(count):
            one, other = outcome(layer, given), outcome(layer, given)
        for first, second in zip(one, other, strict=True):
            assert_same_bits(list(first.values()), list(second.values()))


@pytest.mark.parametrize("layer_options", [{}, {"num_layers": 2}], ids=["one layer", "two"])
@few_cells
def test_stepper(case, layer_options):
    layer, given = layer_and_call(case, **layer_options)
    whole = without_gradients(layer, given, every=False)
    step = layer.stepper()
    with torch.no_grad():
        outs = [
            step(given.x[t], {n: v[t] for n, v in given.inputs.items()} or None)
            for t in range(given.x.shape[0])
        ]
    state = step.state if isinstance(step.state, tuple) else (step.state,)
    assert_same_bits([torch.stack(outs), *state], whole)


def test_a_stack_both_ways_and_windows():
    cell = elman.cells.get("peephole_lstm")
    options = {"num_layers": 2, "bidirectional": True, "layer_norm": True}
    layer = layers(cell, SMALL.of(cell), **options)[0]
    assert_rows_are_alone(layer, sequence(layer, SMALL))
    cut = layers(cell, SMALL.of(cell), learning=elman.BPTT(window=2))[0]
    whole = layers(cell, SMALL.of(cell))[0]
    given = sequence(whole, SMALL)
    assert_same_bits(without_gradients(cut, given), without_gradients(whole, given))


def test_many_rows_and_steps():
    """More rows than the register tile, more steps than a chunk."""
    for name in ("lstm", "gru_cho"):
        cell = elman.cells.get(name)
        layer = layers(cell, {"input": 3, "hidden": 24}, torch.float32)[0]
        given = sequence(layer, Shape(70, 29), torch.float32)
        with threads(2):
            together = without_gradients(layer, given, every=False)[0]
        for start, stop in ((0, 1), (13, 14), (28, 29), (0, 12), (5, 28)):
            alone = without_gradients(layer, given.rows(start, stop), every=False)[0]
            assert_same_bits(together[:, start:stop], alone, f"rows {start} to {stop}")


@pytest.mark.parametrize("name", [name for name in HERE if name != HERE[0]])
def test_other_machines(name, monkeypatch):
    with machine(monkeypatch, name):
        for case in FEW[:3] if not os.environ.get("ELMAN_FUZZ") else FEW:
            layer, given = layer_and_call(case, dtype=torch.float32)
            assert_rows_are_alone(layer, given)
            assert_pieces_are_whole(layer, given)
