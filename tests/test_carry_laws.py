"""carry="exact" is full backpropagation through time, whatever the window, while weights rest.

The oracle is the same layer without a carry, on the reference backend: autograd through the whole
sequence. Every cell, one to three layers, ragged lengths, resets; float64, 1e-9 relative.
"""

from __future__ import annotations

import pytest
import torch
from cases import CELLS, SIZES, VARIANTS
from layer_cases import DROPINS, FEW, PLAIN, as_tuple, flat, gradients, layer_of, total
from tolerances import assert_close

import elman
from elman.learning import Carried

TIME, BATCH, INPUT = 8, 2, SIZES["input"]
BOUND = {torch.float64: 1e-9}
every_layer = pytest.mark.parametrize(
    "case",
    [*PLAIN, *(v for v in VARIANTS if len(v.graph.inputs) == 1), *DROPINS],
    ids=lambda c: c if isinstance(c, str) else c.id,
)
few_layers = pytest.mark.parametrize(
    "case", [*FEW, *DROPINS], ids=lambda c: c if isinstance(c, str) else c.id
)
windows = pytest.mark.parametrize("window", [1, 3, 7, TIME, None])


def sequence(time=TIME, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(time, BATCH, INPUT, generator=numbers, dtype=torch.float64)


def pair(case, window, num_layers=1, carry="exact", **options):
    """The layer that carries, and its oracle; the same weights."""
    learning = elman.BPTT(window=window, carry=carry)
    carries = layer_of(case, num_layers, learning=learning, **options)
    return carries, layer_of(case, num_layers, **options)


def assert_same_learning(carries, oracle, x, seed=None, **call):
    """Outputs, states and the gradients of all weights agree."""
    results = []
    for layer in (carries, oracle):
        if seed is not None:
            torch.manual_seed(seed)
        out, state = layer(x, **call)
        state = state.states if isinstance(state, Carried) else state
        results.append((out, state, gradients(layer, total(out.sin(), state))))
    assert_close(flat(results[0][:2]), flat(results[1][:2]), BOUND, "values")
    # Relative to each gradient's own size: all of them are of order one or larger here.
    assert_close(tuple(results[0][2]), tuple(results[1][2]), BOUND, "gradients")
    assert any(g.abs().max() > 0.01 for g in results[1][2])


@windows
@every_layer
def test_exact_is_the_whole_gradient(case, window):
    assert_same_learning(*pair(case, window), sequence())


@pytest.mark.parametrize("window", [1, 3])
@every_layer
def test_two_layers(case, window):
    assert_same_learning(*pair(case, window, 2), sequence())


@pytest.mark.parametrize("window", [1, 3])
@every_layer
def test_lengths_resets_and_learned_initial_states(case, window):
    layers = pair(case, window, 2, initial_state="learned")
    resets = torch.zeros(TIME, BATCH, dtype=torch.bool)
    resets[4, 0] = resets[2, 1] = resets[6, 1] = True
    lengths = torch.tensor([TIME, 5])
    assert_same_learning(*layers, sequence(), lengths=lengths, resets=resets)
