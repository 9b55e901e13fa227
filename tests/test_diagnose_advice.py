"""Advice: the right word, the right lag, and numbers that were measured."""

from __future__ import annotations

import math
import re

import pytest
import torch

import elman
from elman.diagnose import advice, gradient_flow, spectrum
from elman.layers.initialise import chrono_, forget_bias_


@pytest.fixture
def x():
    return torch.randn(120, 2, 4, generator=torch.Generator().manual_seed(0))


def seeded(layer, scale=1.0):
    torch.manual_seed(0)
    layer.reset_parameters()
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if "hh" in name and p.dim() == 2:
                p.mul_(scale)
    return layer


def options(found):
    return [cure.option for cure in found.cures]


def test_a_tanh_network_vanishes(x):
    layer = seeded(elman.RNN(4, 32))
    (found,) = advice(layer, x)
    decay = gradient_flow(layer, x)[0].decay()
    assert (found.word, found.lag) == ("vanishing", decay.horizon)
    assert f"below 1 % from lag {decay.horizon} (× {decay.rate:.3g} a step)" in found.found[0]
    radius = float(spectrum(layer, x, most=16)[0].radius.median())
    assert f"spectral radius is {radius:.3g} " in found.found[1]
    assert options(found)[0] == "--recurrent-init orthogonal"
    assert "--cell lstm (or gru)" in options(found)
    assert "--forget-bias 1" not in options(found)


def test_an_lstm_is_told_to_open_its_gate(x):
    (found,) = advice(seeded(elman.LSTM(4, 32)), x, needed=80)
    assert found.word == "vanishing"
    assert options(found)[:2] == ["--chrono 80", "--forget-bias 1"]
    percent = int(re.search(r"gate f keeps (\d+) % of c", " ".join(found.found)).group(1))
    assert 45 <= percent <= 55
    assert "--recurrent-init orthogonal" not in options(found)


@pytest.mark.parametrize("name", ["lstm", "gru", "mgu", "peephole_lstm"])
def test_the_cure_cures(x, name):
    """What is told is true: a gate opened by the advised option reaches further."""
    layer = elman.Recurrent(name, 4, 32)
    forget_bias_(layer, 0.0)
    (before,) = advice(layer, x)
    assert before.cures[0].option == f"--chrono {len(x) - 1}"
    chrono_(layer, len(x) - 1)
    (after,) = advice(layer, x)
    assert after.lag is None or after.lag > 2 * before.lag


def test_a_network_built_to_explode(x):
    (found,) = advice(seeded(elman.RNN(4, 32, nonlinearity="relu"), 6.0), x)
    assert found.word == "exploding"
    assert options(found)[0] == "--clip-norm 1"
    assert "--cell simple" in options(found)
    assert (
        found.lag
        == gradient_flow(seeded(elman.RNN(4, 32, nonlinearity="relu"), 6.0), x)[0].decay().explodes
    )


def test_overflow_is_exploding(x):
    (found,) = advice(seeded(elman.RNN(4, 32, nonlinearity="relu"), 1e6), x)
    assert (found.word, found.lag) == ("exploding", 1)


def test_what_is_well_needs_no_cure(x):
    (found,) = advice(elman.Recurrent("irnn", 4, 32), x[:50])
    assert (found.word, found.lag, found.cures) == ("steady", None, ())
    (far,) = advice(seeded(elman.RNN(4, 32)), x, needed=3)
    assert far.word == "vanishing"
    assert not far.cures  # it reaches the three steps that are needed


def test_saturation_is_told(x):
    layer = seeded(elman.RNN(4, 32))
    with torch.no_grad():
        layer.weight_ih_l0.mul_(20)
    (found,) = advice(layer, x)
    assert any("values of h (tanh) are near its bounds" in s for s in found.found)


def test_what_carries_nothing(x):
    (found,) = advice(elman.Recurrent("tdnn", 4, 8), x)
    assert options(found) == ["--cell lstm (or gru)"]
    (none,) = advice(seeded(elman.RNN(4, 8)), x, loss=lambda o, _: 0 * o.sum())
    assert none.word == "none"


def test_a_loss_at_the_end_alone(x):
    """Steps without a loss have no part in the mean."""
    layer = seeded(elman.RNN(4, 16)).double()
    last = [0.0] * (len(x) - 1) + [1.0]
    decay = gradient_flow(layer, x.double(), last, lambda o, w: w * o.sum())[0].decay()
    norms = gradient_flow(layer, x.double(), loss=lambda o, _: o.sum())[0].whole[:, -1]
    assert torch.allclose(decay.mean, norms.mean(0).flip(0))
    assert 0 < decay.rate < 1


def test_lines_and_data(x):
    (found,) = advice(seeded(elman.RNN(4, 16)), x)
    assert found.lines()[0] == f"layer 1: vanishing from lag {found.lag}"
    data = found.to_json()
    assert data["cures"][0].keys() == {"option", "words"}
    assert not any(math.isnan(v) for v in data.values() if isinstance(v, float))
