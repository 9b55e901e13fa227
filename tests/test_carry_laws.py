"""carry="exact" is full backpropagation through time, whatever the window, while weights rest.

The oracle is the same layer without a carry, on the reference backend: autograd through the whole
sequence. Every cell, one to three layers, ragged lengths, resets; float64, 1e-9 relative to each
gradient's own largest entry.
"""

from __future__ import annotations

import pytest
import torch
from cases import CELLS, SIZES, VARIANTS
from layer_cases import DROPINS, FEW, as_tuple, flat, gradients, layer_of, total

import elman
from elman.equation.sizes import shape_of
from elman.learning import Carried
from elman.learning import exact as exact_carry

TIME, BATCH, INPUT = 8, 2, SIZES["input"]
BOUND = 1e-9
RESETS = torch.zeros(TIME, BATCH, dtype=torch.bool)
RESETS[4, 0] = RESETS[2, 1] = RESETS[6, 1] = True
LENGTHS = torch.tensor([TIME, 5])


def name_of(case):
    return case if isinstance(case, str) else case.id


every_layer = pytest.mark.parametrize("case", [*CELLS, *VARIANTS, *DROPINS], ids=name_of)
few_layers = pytest.mark.parametrize("case", [*FEW, *DROPINS], ids=name_of)


def sequence(time=TIME, seed=0, width=INPUT):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(time, BATCH, width, generator=numbers, dtype=torch.float64)


def further(case):
    """What a call gives besides x: the cell's further inputs."""
    declared = [] if isinstance(case, str) else case.graph.inputs[1:]
    shapes = {i.name: shape_of(i.dims, case.all_sizes) for i in declared}
    inputs = {
        name: sequence(seed=7, width=max(1, *shape)).abs() if shape else sequence(seed=7)[..., 0]
        for name, shape in shapes.items()
    }
    return {"inputs": inputs} if inputs else {}


def pair(case, learning, num_layers=1, **options):
    """The layer that carries, and its oracle; the same weights."""
    carries = layer_of(case, num_layers, learning=learning, **options)
    return carries, layer_of(case, num_layers, **{**options, "backend": "reference"})


def exact(window):
    return elman.BPTT(window=window, carry="exact")


def assert_same(found, expected, bound=BOUND):
    """Each tensor within `bound` of its own largest entry."""
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        # What is smaller than this beside the largest of all is rounding of larger ones.
        least = 1e-4 * max(float(e.detach().abs().max()) for e in expected)
        scale = max(float(other.detach().abs().max()), least)
        far = float((one - other).detach().abs().max()) / scale
        assert far <= bound, f"tensor {place} differs by {far:.3g}, relative; allowed {bound:.0e}"


def learn(layer, x, **call):
    """Outputs and states, and the gradients of a sum that weighs all of them differently."""
    out, state = layer(x, **call)
    state = state.states if isinstance(state, Carried) else state
    return flat((out, state)), gradients(layer, total(out.sin(), state))


def assert_same_learning(carries, oracle, x, bound=BOUND, seed=None, **call):
    results = []
    for layer in (carries, oracle):
        if seed is not None:
            torch.manual_seed(seed)
        results.append(learn(layer, x, **call))
    assert_same(results[0][0], results[1][0], bound)
    assert_same(results[0][1], results[1][1], bound)


@pytest.mark.parametrize("window", [1, 3, 7])
@every_layer
def test_exact_is_the_whole_gradient(case, window):
    assert_same_learning(*pair(case, exact(window)), sequence(), **further(case))


@pytest.mark.parametrize("window", [1, 3])
@every_layer
def test_two_layers_with_lengths_resets_and_learned_initial_states(case, window):
    layers = pair(case, exact(window), 2, initial_state="learned")
    call = {"lengths": LENGTHS, "resets": RESETS, **further(case)}
    assert_same_learning(*layers, sequence(), **call)


@pytest.mark.parametrize("window", [1, 3, 7, TIME, None])
@few_layers
def test_three_layers_with_every_option(case, window):
    options = {
        "dropout": 0.4, "recurrent_dropout": 0.3, "zoneout": 0.2, "layer_norm": True,
        "residual": True, "initial_state": "learned", "dense": [3],
    }  # fmt: skip
    layers = pair(case, exact(window), 3, **options)
    assert_same_learning(*layers, sequence(), seed=4, lengths=LENGTHS, resets=RESETS)


@pytest.mark.parametrize("window", [1, 3])
@few_layers
def test_on_our_kernels(case, window):
    layers = pair(case, exact(window), 2, backend="auto")
    assert_same_learning(*layers, sequence(), lengths=LENGTHS, resets=RESETS)


@few_layers
def test_in_single_precision(case):
    layers = pair(case, exact(3), dtype=torch.float32)
    assert_same_learning(*layers, sequence().float(), bound=2e-4)


@pytest.mark.parametrize("learning", [exact(None), exact(2), elman.RTRL()], ids=str)
@few_layers
def test_calls_of_a_stream_add_up_to_the_whole(case, learning):
    # Each call learns for itself, from a loss of its own, and holds one influence.
    carries, oracle = pair(case, learning, 2, initial_state="learned")
    x, state, sums = sequence(), None, None
    for start, stop in ((0, 3), (3, 4), (4, TIME)):
        out, state = carries(x[start:stop], state, resets=RESETS[start:stop])
        assert isinstance(state, Carried)
        assert not any(t.requires_grad for t in state.influence)
        found = gradients(carries, out.sin().sum())
        sums = found if sums is None else [a + b for a, b in zip(sums, found, strict=True)]
    out, _ = oracle(x, resets=RESETS)
    assert_same(sums, gradients(oracle, out.sin().sum()))


@few_layers
def test_a_stream_that_begins_with_a_state_of_its_own(case):
    # Of a state from outside no learned initial state is the cause.
    carries, oracle = pair(case, exact(3), initial_state="learned")
    start = oracle(sequence(seed=5))[1]
    start = as_tuple(start)
    start = tuple(s.detach() for s in start)
    start = start[0] if len(start) == 1 else start
    call = {"hx": start} if isinstance(case, str) else {"state": start}
    assert_same_learning(carries, oracle, sequence(), **call)


def test_the_rows_of_a_stream_are_each_their_own():
    # An influence put to zero in a row is a stream begun anew there.
    carries, oracle = pair("LSTM", exact(2), 2)
    x = sequence()
    state = carries(x[:4])[1]
    influence = tuple(t.clone() for t in state.influence)
    for tensor in influence:
        tensor[0] = 0
    out, _ = carries(x[4:], Carried(state.states, influence))
    found = gradients(carries, out.sin().sum())
    _, middle = oracle(x[:4])
    first = [s.detach()[:, :1] for s in middle]
    states = tuple(torch.cat([a, s[:, 1:]], 1) for a, s in zip(first, middle, strict=True))
    out, _ = oracle(x[4:], states)
    assert_same(found, gradients(oracle, out.sin().sum()))


@few_layers
def test_a_long_window_is_walked_in_parts(case, monkeypatch):
    def parts(sweep):
        return [(max(0, stop - 3), stop) for stop in range(sweep.window.time, 0, -3)]

    monkeypatch.setattr(exact_carry._Sweep, "segments", parts)
    layers = pair(case, exact(7), 2, initial_state="learned")
    assert_same_learning(*layers, sequence(), lengths=LENGTHS, resets=RESETS)
