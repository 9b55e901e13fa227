"""The quick way of one layer on one stream, against the layer's own call under a carry."""

from __future__ import annotations

import pytest
import torch
from tolerances import EQUAL, assert_close
from torch import nn

import elman
from elman.errors import InputError
from elman.learning import space
from elman.online import quickly

DOUBLE = torch.float64
# Cells that the quick way must take; others may come to it with more operations.
TAKEN = ("simple", "irnn", "lstm", "peephole_lstm", "gru", "coupled_lstm", "janet", "cfn")


def learner_of(cell, hidden, delay, dtype=DOUBLE):
    torch.manual_seed(1)
    model = elman.Recurrent(cell, 3, hidden, learning=elman.RTRL(), dtype=dtype)
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(-0.6, 0.6)  # biases too, which some cells begin at zero
    size = model.output_size
    return elman.OnlineLearner(model, nn.Linear(size, 2, dtype=dtype), delay=delay, lr=0.02)


def run(learner, x, y):
    outs = [learner.step(x_t, y_t) for x_t, y_t in zip(x, y, strict=True)]
    return torch.stack(outs), [w.detach().clone() for w in learner.model.parameters()]


def stream(steps, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(steps, 3, dtype=dtype, generator=generator)
    return x, torch.randn(steps, 2, dtype=dtype, generator=generator)


@pytest.mark.parametrize("cell", elman.cells.names())
def test_it_is_the_layers_own_learning(cell, monkeypatch):
    graph = elman.cells.get(cell).graph
    if len(graph.inputs) > 1 or set(graph.sizes) - {"input", "hidden"}:
        pytest.skip("the quick way is for cells with one input")
    try:
        quick = learner_of(cell, 3, 1)
    except elman.InputError as error:  # cells that join x and h unit by unit
        pytest.skip(str(error))
    x, y = stream(8)
    outs, weights = run(quick, x, y)
    if quick._quick is None:
        assert cell not in TAKEN
        pytest.skip("this cell goes the general way")
    monkeypatch.setattr("elman.online.learner.quick_of", lambda model: None)
    general = learner_of(cell, 3, 1)
    expected, after = run(general, x, y)
    assert general._quick is None
    assert_close(outs, expected, EQUAL)
    assert_close(tuple(weights), tuple(after), EQUAL)
    for mine, theirs in zip(quick.carried.influence, general.carried.influence, strict=True):
        assert_close(mine, theirs, EQUAL)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("delay", [0, 1])
def test_it_is_so_with_the_kernel_too(dtype, delay, monkeypatch):
    x, y = stream(20, dtype)
    learner = learner_of("lstm", 24, delay, dtype)
    outs, weights = run(learner, x, y)
    assert learner._quick is not None
    monkeypatch.setattr("elman.online.learner.quick_of", lambda model: None)
    expected, after = run(learner_of("lstm", 24, delay, dtype), x, y)
    assert_close(outs, expected, EQUAL)
    assert_close(tuple(weights), tuple(after), EQUAL)


def test_the_state_goes_over_to_it_and_back():
    x, y = stream(12)
    whole, _ = run(learner_of("lstm", 4, 1), x, y)
    learner = learner_of("lstm", 4, 1)
    learner.model.backend = "reference"  # the general way
    first, _ = run(learner, x[:5], y[:5])
    assert learner._quick is None
    saved = learner.state_dict()
    again = learner_of("lstm", 4, 1)
    again.load_state_dict(saved)
    second, _ = run(again, x[5:], y[5:])
    assert again._quick is not None
    assert_close(torch.cat([first, second]), whole, EQUAL)
    # A weight that gets other memory ends the quick way, and the stream goes on.
    moved = learner_of("lstm", 4, 1)
    first, _ = run(moved, x[:5], y[:5])
    weight = moved.model.U_i_l0
    weight.data = weight.data.clone()
    second, _ = run(moved, x[5:], y[5:])
    assert moved._quick is None
    assert_close(torch.cat([first, second]), whole, EQUAL)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"dense": [4]},
        {"zoneout": 0.1},
        {"recurrent_dropout": 0.1},
        {"layer_norm": True},
        {"initial_state": "learned"},
        {"backend": "reference"},
    ],
    ids=str,
)
def test_what_it_does_not_serve(options):
    model = elman.Recurrent("lstm", 3, 4, learning=elman.RTRL(), **options)
    assert quickly.quick_of(model) is None


def test_weights_that_are_not_trained_or_not_its_own():
    model = elman.Recurrent("lstm", 3, 4, learning=elman.RTRL())
    model.U_f_l0.requires_grad_(False)
    assert quickly.quick_of(model) is None
    assert quickly.quick_of(elman.LSTM(3, 4, learning=elman.RTRL())) is None
    assert quickly.quick_of(elman.Recurrent("lstm", 3, 4)) is None
    assert (
        quickly.quick_of(elman.Recurrent("antisymmetric_rnn", 3, 4, learning=elman.RTRL())) is None
    )


def test_an_influence_that_has_no_room_is_refused_with_its_weight(monkeypatch):
    learner = learner_of("lstm", 40, 0)
    needed = 2 * learner.model.learning_bytes(1)
    monkeypatch.setattr(space, "room", lambda device: needed - 1)
    with pytest.raises(InputError, match=r"lstm.*2 times 4\.3 MiB"):
        learner.step([0.0, 0.0, 0.0])
    monkeypatch.setattr(space, "room", lambda device: needed)
    learner.step([0.0, 0.0, 0.0])
