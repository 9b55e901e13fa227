"""The synthetic sequences, against closed forms, symmetry, and other ways of integrating."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from elman.data.synthetic import adding, copying, lorenz, mackey_glass
from elman.errors import InputError, SizeError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_adding_marks_one_in_each_half_and_asks_for_their_sum():
    x, y = adding(2000, 11, seeded())
    numbers, marks = x.unbind(-1)
    assert x.shape == (11, 2000, 2)
    assert y.shape == (2000, 1)
    assert set(marks.unique().tolist()) == {0.0, 1.0}
    assert (marks[:5].sum(0) == 1).all()
    assert (marks[5:].sum(0) == 1).all()
    chosen = [numbers[marks[:, row] == 1, row].sum() for row in range(2000)]
    torch.testing.assert_close(torch.stack(chosen), y[:, 0])
    # Every place is marked about as often as the others: 400 and 333 times, within 5 deviations.
    often = marks.sum(1)
    assert ((often[:5] - 400).abs() < 5 * math.sqrt(320)).all()
    assert ((often[5:] - 2000 / 6).abs() < 5 * math.sqrt(278)).all()
    # The baseline: the sum of two uniform numbers has the variance 1/6 (here within 5 errors).
    assert abs(float(((y - 1) ** 2).mean()) - 1 / 6) < 5 * 0.2 / math.sqrt(2000)


def test_copying_asks_for_the_symbols_after_the_delay():
    tokens, targets = copying(500, 5, 3, 7, seeded())
    assert tokens.shape == targets.shape == (13, 500)
    assert (tokens[3:10] == 5).all()
    assert (tokens[10:] == 6).all()
    assert (targets[:10] == -100).all()
    assert torch.equal(targets[10:], tokens[:3])
    assert set(tokens[:3].unique().tolist()) == set(range(5))
    # Equal scores cost log 5 nats for each symbol asked for, and nothing elsewhere.
    nats = F.cross_entropy(torch.zeros(13 * 500, 7)[:, :5], targets.flatten())
    assert abs(float(nats) - math.log(5)) < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda g: adding(3, 6, g)[0],
        lambda g: copying(3, 4, 2, 2, g)[0].double(),
        lambda g: mackey_glass(20, batch=3, discard=0, generator=g),
        lambda g: lorenz(20, batch=3, generator=g),
    ],
)
def test_a_seed_gives_the_same_data_and_another_seed_other_data(make):
    assert torch.equal(make(seeded(1)), make(seeded(1)))
    assert not torch.equal(make(seeded(1)), make(seeded(2)))
    rows = make(seeded(1))
    assert not torch.equal(rows[:, 0], rows[:, 1]), "the rows of a batch are not different"


def test_mackey_glass_is_the_closed_form_within_the_first_delay():
    # Before t = tau the delayed value is the constant c: a linear equation.
    c, beta, gamma = torch.tensor([0.5, 1.2]), 0.2, 0.1
    series = mackey_glass(17, batch=2, history=c, discard=0)[..., 0]
    a = beta * c.double() / (1 + c.double() ** 10) / gamma
    time = torch.arange(17, dtype=torch.float64)[:, None]
    exact = a + (c.double() - a) * torch.exp(-gamma * time)
    torch.testing.assert_close(series, exact, rtol=1e-8, atol=1e-8)


def test_mackey_glass_stays_at_its_fixed_point_and_decays_without_feedback():
    still = mackey_glass(200, history=torch.ones(1), discard=0)
    assert float((still - 1).abs().max()) < 1e-12
    falling = mackey_glass(50, beta=0.0, history=torch.ones(1), discard=0)[:, 0, 0]
    torch.testing.assert_close(
        falling, torch.exp(-0.1 * torch.arange(50, dtype=torch.float64)), rtol=1e-7, atol=0
    )


def test_mackey_glass_converges_with_order_four_to_a_slow_method():
    def at(substeps: int) -> torch.Tensor:
        return mackey_glass(120, batch=2, history=torch.tensor([0.6, 1.3]), discard=0,
                            substeps=substeps)  # fmt: skip

    fine = at(64)
    errors = [float((at(s) - fine).abs().max()) for s in (2, 4, 8)]
    assert errors[1] < 1e-5
    for coarse, finer in itertools.pairwise(errors):
        assert 9 < coarse / finer < 30, errors
    # Heun's method, written apart, with very small steps and no interpolation.
    h, lag = 1 / 100, 1700
    x = np.full((119 * 100 + lag + 1, 2), [0.6, 1.3])

    def feedback(v):
        return 0.2 * v / (1 + v**10)

    for n in range(lag, len(x) - 1):
        guess = x[n] + h * (feedback(x[n - lag]) - 0.1 * x[n])
        both = feedback(x[n - lag]) - 0.1 * x[n] + feedback(x[n + 1 - lag]) - 0.1 * guess
        x[n + 1] = x[n] + h / 2 * both
    heun = torch.from_numpy(x[lag::100])
    assert float((fine[..., 0] - heun).abs().max()) < 1e-4


def test_mackey_glass_is_settled_at_a_short_delay_and_restless_at_a_long_one():
    calm = mackey_glass(100, tau=2.0, discard=500)
    restless = mackey_glass(1000, tau=17.0, discard=500)
    assert float((calm - 1).abs().max()) < 1e-3
    assert 0.2 < float(restless.std()) < 0.3


def test_lorenz_keeps_its_fixed_points_its_axis_and_its_symmetry():
    place = math.sqrt(8 / 3 * 27)
    starts = torch.tensor([[place, place, 27.0], [0.0, 0.0, 5.0], [1.0, 2.0, 3.0], [-1, -2, 3]])
    path = lorenz(100, batch=4, start=starts, discard=0)
    assert float((path[:, 0] - starts[0].double()).abs().max()) < 1e-3  # the start is float32
    axis = 5 * torch.exp(-8 / 3 * 0.02 * torch.arange(100, dtype=torch.float64))
    torch.testing.assert_close(path[:, 1, 2], axis, rtol=1e-6, atol=1e-9)
    assert float(path[:, 1, :2].abs().max()) == 0
    mirrored = path[:, 3] * torch.tensor([-1.0, -1.0, 1.0])
    assert torch.equal(path[:, 2], mirrored)


def test_lorenz_converges_with_order_four():
    def at(substeps: int) -> torch.Tensor:
        return lorenz(50, batch=2, start=torch.tensor([[1.0, 1, 1], [5, 5, 30]]),
                      discard=0, substeps=substeps)  # fmt: skip

    fine = at(64)
    errors = [float((at(s) - fine).abs().max()) for s in (2, 4, 8)]
    assert errors[0] < 1e-2
    for coarse, finer in itertools.pairwise(errors):
        assert 11 < coarse / finer < 24, errors
    # The origin attracts all where rho < 1.
    assert float(lorenz(1, rho=0.5, discard=2000).abs().max()) < 1e-6


def test_lorenz_shrinks_volumes_at_the_rate_of_its_divergence():
    # The divergence is the constant -(sigma + 1 + beta).
    base = torch.tensor([[2.0, 3.0, 20.0]], dtype=torch.float64)
    starts = torch.cat((base, base + 1e-6 * torch.eye(3, dtype=torch.float64)))
    path = lorenz(11, batch=4, start=starts, discard=0)
    edges = (path[:, 1:] - path[:, :1]) / 1e-6
    volume = torch.linalg.det(edges)
    expected = torch.exp(-(10 + 1 + 8 / 3) * 0.02 * torch.arange(11, dtype=torch.float64))
    torch.testing.assert_close(volume, expected, rtol=1e-3, atol=0)


def test_discarded_samples_are_the_first_ones():
    whole = lorenz(30, start=torch.ones(1, 3), discard=0)
    assert torch.equal(lorenz(20, start=torch.ones(1, 3), discard=10), whole[10:])
    whole = mackey_glass(30, history=torch.ones(1) / 2, discard=0)
    assert torch.equal(mackey_glass(20, history=torch.ones(1) / 2, discard=10), whole[10:])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: adding(0, 5), InputError, "adding: batch is 0; give a whole number ≥ 1"),
        (lambda: adding(2, 1), InputError, "steps is 1"),
        (lambda: copying(1, 1, 2, 3), InputError, "symbols is 1"),
        (lambda: copying(1, 2, 2, -1), InputError, "delay is -1"),
        (lambda: mackey_glass(5, tau=17.1), InputError, "no multiple of the integration step 0.25"),
        (lambda: mackey_glass(5, interval=0.0), InputError, "interval is 0.0"),
        (lambda: mackey_glass(5, history=torch.ones(2)), SizeError, r"must be \(1,\)"),
        (lambda: lorenz(5, substeps=True), InputError, "substeps is True"),
        (lambda: lorenz(5, start=torch.ones(3)), SizeError, r"must be \(1, 3\)"),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()
