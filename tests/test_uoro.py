"""UORO: its two sweeps are the exact Jacobians, and its mean is the exact gradient."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from cases import SIZES
from layer_cases import DROPINS, PLAIN, gradients, layer_of
from tolerances import assert_close

import elman
from elman.layers import carried
from elman.learning.exact import _Sweep, values_of
from elman.learning.uoro import UORO, pull_signs, push

BOUND = {torch.float64: 1e-9}
TIME, BATCH = 5, 2


class Spy(UORO):
    """UORO that keeps what it was given."""

    def __init__(self):
        self.windows = []

    def advance(self, chain, influence, window):
        self.windows.append((chain, window))
        return super().advance(chain, influence, window)


def windows_of(monkeypatch, layer, x, **call):
    """The chains and windows of a call."""
    spy = Spy()
    monkeypatch.setattr(carried, "carrier_of", lambda carry, chain: spy)
    layer(x, **call)
    return spy.windows


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(
    "case", [*PLAIN, *DROPINS], ids=lambda c: c if isinstance(c, str) else c.id
)
def test_both_sweeps_are_the_exact_jacobians(case, window, monkeypatch):
    """A s̃ and νᵀ ∂s/∂θ of every window against the basis that carry='exact' sweeps with."""
    learning = elman.BPTT(window=window, carry="uoro")
    layer = layer_of(case, 2, learning=learning, initial_state="learned")
    numbers = torch.Generator().manual_seed(1)
    x = torch.randn(TIME, BATCH, SIZES["input"], generator=numbers, dtype=torch.float64)
    resets = torch.zeros(TIME, BATCH, dtype=torch.bool)
    resets[2, 0] = resets[4, 1] = True
    call = {"lengths": torch.tensor([TIME, 4]), "resets": resets}
    for chain, seen in windows_of(monkeypatch, layer, x, **call):
        with torch.no_grad():
            sweep = _Sweep(chain, seen)
            for start, stop in sweep.segments():
                sweep.back(start, stop)
            values = [
                values_of(p, v, s, seen)
                for p, v, s in zip(chain.places, chain.values, seen.seen, strict=True)
            ]
            tangent = torch.randn(BATCH, chain.rows, generator=numbers, dtype=torch.float64)
            moved = push(chain, seen, values, tangent)
            want = (sweep.jacobian() @ tangent[:, :, None])[:, :, 0]
            assert_close(moved, want, BOUND, "forward mode")
            found = pull_signs(chain, seen, values, tangent)
            parts = [
                torch.einsum("bs,bsp->bp", tangent[:, place.first :], m)
                for place, m in zip(chain.places, sweep.moved, strict=True)
            ]
            assert_close(found, torch.cat(parts, 1), BOUND, "reverse mode")


@pytest.mark.parametrize("window", [1, 2])
def test_the_mean_of_ten_thousand_draws_is_exact(window):
    """Every entry of M within 3 standard errors, allowing for the number of comparisons.

    Of n entries 0.27 % lie beyond 3 by chance. So no more may than has a probability of 1 in 1000,
    and none beyond the bound that one of n passes with a probability of 1 in 1000. The errors are
    small beside M, so that a bias would show.
    """
    draws = 10_000
    torch.manual_seed(5)
    options = {"initial_state": "learned", "dtype": torch.float64}
    exact = elman.Recurrent("lstm", 2, 2, learning=elman.RTRL(), **options)
    rough = elman.Recurrent("lstm", 2, 2, learning=elman.BPTT(window, "uoro"), **options)
    rough.load_state_dict(exact.state_dict())
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    want = exact(x)[1].influence[0][0]
    of_state, of_weights = rough(x.expand(4, draws, 2).contiguous())[1].influence
    found = torch.einsum("bs,bp->bsp", of_state, of_weights)
    mean, error = found.mean(0), found.std(0) / math.sqrt(draws)
    score = ((mean - want) / error).abs().flatten()
    n = score.numel()
    beyond = int((score > 3.0).sum())
    assert beyond <= chance_quantile(n, 0.0027, 0.999), f"{beyond} of {n} entries beyond 3"
    assert score.max() < NormalDist().inv_cdf(1 - 0.001 / (2 * n))
    assert error.norm() < 0.1 * want.norm()
    assert (mean - want).norm() < 2.0 * error.norm()


def chance_quantile(n: int, p: float, level: float) -> int:
    """The smallest k with P(binomial(n, p) ≤ k) ≥ level."""
    below = 0.0
    for k in range(n + 1):
        below += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if below >= level:
            return k
    return n


def test_the_signs_come_from_torchs_generator():
    layer = elman.Recurrent("lstm", 3, 4, learning=elman.RTRL("uoro"))
    x = torch.randn(5, 2, 3)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(layer(x)[1].influence)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


def test_what_it_weighs_is_what_it_holds():
    layer = elman.Recurrent("gru_cho", 3, 4, learning=elman.RTRL("uoro"))
    _, state = layer(torch.randn(5, 2, 3))
    of_state, of_weights = state.influence
    trained = sum(p.numel() for p in layer.parameters())
    assert of_state.shape == (2, 4)
    assert of_weights.shape == (2, trained)


def test_the_first_step_knows_nothing_of_the_past():
    """A stream of one window has the whole gradient, whatever the signs."""
    rough = elman.Recurrent("lstm", 3, 4, learning=elman.BPTT(carry="uoro"), dtype=torch.float64)
    whole = elman.Recurrent("lstm", 3, 4, dtype=torch.float64)
    whole.load_state_dict(rough.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    found, want = (gradients(layer, layer(x)[0].sin().sum()) for layer in (rough, whole))
    assert_close(tuple(found), tuple(want), BOUND, "gradients")


def test_a_row_that_has_ended_keeps_its_influence():
    layer = elman.Recurrent("lstm", 3, 4, learning=elman.BPTT(2, "uoro"), dtype=torch.float64)
    x = torch.randn(8, 2, 3, dtype=torch.float64)
    torch.manual_seed(4)
    shorter = layer(x[:4])[1].influence
    torch.manual_seed(4)
    found = layer(x, lengths=torch.tensor([8, 4]))[1].influence
    for one, other in zip(found, shorter, strict=True):
        assert_close(one[1], other[1], BOUND, "the ended row")
        assert not torch.equal(one[0], other[0])
