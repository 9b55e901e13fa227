"""The meter of fidelity: its figures against gradients taken by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional as F

import elman
from elman.errors import InputError
from elman.learning import fidelity


def pieces(count=6, steps=2, batch=2, seed=0):
    numbers = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=numbers, dtype=torch.float64)

    return [(draw(steps, batch, 3), draw(steps, batch, 4)) for _ in range(count)]


def layer_of(name="lstm", learning=None, **options):
    torch.manual_seed(1)
    return elman.Recurrent(name, 3, 4, learning=learning, dtype=torch.float64, **options)


def test_exact_against_the_whole_past_is_one():
    layer = layer_of(learning=elman.BPTT(1, "exact"))
    found = fidelity(layer, pieces(), F.mse_loss, against=elman.BPTT())
    assert all(abs(c - 1.0) < 1e-9 for c in found.cosine)
    assert all(e < 1e-9 for e in found.error)
    assert len(found.loss) == 6


def test_the_figures_are_those_of_gradients_taken_by_hand():
    """Truncation against the whole past: cosine and error from two plain backward passes."""
    layer = layer_of(learning=elman.BPTT())
    run = pieces(3)
    found = fidelity(layer, run, F.mse_loss, learning=elman.BPTT(2), against=elman.BPTT())
    state = None
    for place, (x, target) in enumerate(run):
        out, new = layer(x, state)
        cut = torch.autograd.grad(F.mse_loss(out, target), list(layer.parameters()))
        state = tuple(s.detach() for s in new)
        whole = torch.cat([piece for piece, _ in run[: place + 1]])
        exact = torch.autograd.grad(
            F.mse_loss(layer(whole)[0][-2:], target), list(layer.parameters())
        )
        one, other = (torch.cat([g.flatten() for g in gs]) for gs in (cut, exact))
        cosine = float(one @ other / one.norm() / other.norm())
        assert found.cosine[place] == pytest.approx(cosine, abs=1e-12)
        error = float((one - other).norm() / other.norm())
        assert found.error[place] == pytest.approx(error, abs=1e-9)
    assert found.cosine[0] == pytest.approx(1.0)
    assert found.cosine[2] < 1.0 - 1e-6


@pytest.mark.parametrize("carry", ["snap1", "rflo", "uoro"])
def test_an_approximation_is_below_one_and_along_its_own_run(carry):
    layer = layer_of("simple", elman.RTRL(carry))
    before = [p.detach().clone() for p in layer.parameters()]
    sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
    torch.manual_seed(2)
    found = fidelity(layer, pieces(12, 1), F.mse_loss, optimizer=sgd)
    assert any(not torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))
    if carry == "uoro":  # the signs are noise from the first step on
        assert abs(found.cosine[0]) < 0.99
    else:
        assert found.cosine[0] == pytest.approx(1.0)
    assert found.mean_cosine(1) < 0.9999
    assert max(found.error[1:]) > 1e-3


def test_the_weights_move_as_without_the_meter():
    runs = []
    for measured in (True, False):
        layer = layer_of("simple", elman.RTRL("snap1"), dropout=0.5, num_layers=2)
        sgd = torch.optim.SGD(layer.parameters(), lr=0.1)
        torch.manual_seed(3)
        if measured:
            fidelity(layer, pieces(5, 1), F.mse_loss, optimizer=sgd)
        else:
            state = None
            for x, target in pieces(5, 1):
                out, state = layer(x, state)
                sgd.zero_grad()
                F.mse_loss(out, target).backward()
                sgd.step()
        runs.append([p.detach().clone() for p in layer.parameters()])
    for one, other in zip(*runs, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-14)


def test_exact_has_the_methods_masks():
    """With dropout between layers, exact beside exact is one: both draw the same masks."""
    layer = layer_of(learning=elman.RTRL(), num_layers=2, dropout=0.5, recurrent_dropout=0.3)
    found = fidelity(layer, pieces(5, 1), F.mse_loss)
    assert all(abs(c - 1.0) < 1e-9 for c in found.cosine)


def test_the_layer_keeps_its_own_method_and_gradients():
    layer = layer_of(learning=elman.BPTT(3))
    fidelity(layer, pieces(2), F.mse_loss, learning=elman.RTRL("uoro"))
    assert layer.learning == elman.BPTT(3)
    assert all(p.grad is None for p in layer.parameters())


def test_batch_first_and_a_readout():
    layer = layer_of(learning=elman.RTRL(), batch_first=True)
    readout = torch.nn.Linear(4, 4).double()
    run = [(x.transpose(0, 1), y.transpose(0, 1)) for x, y in pieces(4)]
    found = fidelity(layer, run, lambda out, y: F.mse_loss(readout(out), y), against=elman.BPTT())
    assert all(abs(c - 1.0) < 1e-9 for c in found.cosine)


def test_words_and_data():
    layer = layer_of("simple", elman.RTRL("snap1"))
    run = [(x, y) for x, y in pieces(3, 1)]
    found = fidelity(layer, run, lambda out, y: (out - y).square().mean())
    assert "SnAp-1" in found.words()
    assert "3 pieces" in found.words()
    data = json.loads(json.dumps(found.data(), allow_nan=False))
    assert len(data["cosine"]) == 3
    assert set(data["by_weight"]) == {n for n, _ in layer.named_parameters()}
    nothing = fidelity(layer, run[:1], lambda out, y: 0.0 * out.sum())
    assert math.isnan(nothing.mean_cosine())
    assert nothing.data()["cosine"] == [None]
    assert "no piece had a gradient" in nothing.words()


def test_what_does_not_learn_is_refused():
    with pytest.raises(InputError, match="no `learning`"):
        fidelity(torch.nn.LSTM(3, 4), [], F.mse_loss)
    still = layer_of(learning=elman.RTRL()).requires_grad_(False)
    with pytest.raises(InputError, match="no weight that requires a gradient"):
        fidelity(still, [], F.mse_loss)
