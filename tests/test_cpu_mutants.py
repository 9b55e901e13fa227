"""Kernels altered on purpose: a handful of calls under the laws must tell each from a right one."""

from __future__ import annotations

import pytest
import torch
from cpu_agree import Shape, assert_agree, call, layers, lengths_of, resets_of, sequence, state_of
from cpu_machines import forget
from cpu_mutants import MUTANTS, Mutant, mutated
from tolerances import EQUAL, ORACLE, assert_close, assert_same_bits

import elman

VALUES, SLOPES = EQUAL[torch.float64], ORACLE[torch.float64]


@elman.cell
def several(p, x, h, c):
    """A delayed state, a weight in two stages, layer norm, softmax, gates and vectors."""
    a = torch.sigmoid(p.W_a @ x + p.U @ h + p.b_a)
    b = torch.tanh(p.W_b @ x + p.V @ h + p.U @ (a * c) + p.b_b)
    n = torch.layer_norm(p.U_n @ (a * h) + 0.3 * elman.delay(c, 2), (1,))
    return a * h + (1 - a) * torch.tanh(n + p.v * b), torch.softmax(b, -1) + 0.5 * c


CELLS = (several, elman.cells.get("lstm"))
SHAPE = Shape(steps=7, rows=5)


def laws() -> None:
    """The laws over two cells; the first that fails raises."""
    for cell in CELLS:
        pair = layers(cell, SHAPE.of(cell))
        given = sequence(pair[1], SHAPE)
        agree = {"values": VALUES, "slopes": SLOPES}
        assert_agree(pair, given, **agree, every=False)
        given.state = state_of(pair[1], given)
        assert_agree(pair, given, **agree)
        given.lengths, given.resets = lengths_of(SHAPE), resets_of(SHAPE)
        assert_agree(pair, given, **agree)
        with torch.no_grad():
            assert_close(*(call(layer, given) for layer in pair))
    # Threads, and more steps than a chunk.
    long = Shape(steps=70, rows=3)
    given = sequence(pair[1], long)
    with torch.no_grad():
        whole = call(pair[0], given, every=False)
        assert_close(whole, call(pair[1], given, every=False))
        alone = call(pair[0], given.rows(1, 2), every=False)
        assert_same_bits(alone, [value[:, 1:2] for value in whole])
    both = layers(cell, SHAPE.of(cell), bidirectional=True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_agree(pair, given.steps(0, 6), VALUES, SLOPES)
        assert_agree(both, given.steps(0, 6), VALUES, SLOPES)
    finally:
        torch.set_num_threads(before)


def test_the_laws_hold_without_a_mutant():
    forget()
    laws()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what)
def test_the_laws_catch(mutant: Mutant, monkeypatch):
    with mutated(monkeypatch, mutant), pytest.raises(AssertionError, match=r"differ|reference|bit"):
        laws()
