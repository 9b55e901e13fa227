"""Correlations of errors: against numpy, how often chance leaves the bounds, and the picture."""

from __future__ import annotations

import numpy as np
import pytest

from elman.errors import InputError
from elman.plots.residuals import residuals
from elman.tasks.forecast.identify_residuals import autocorrelation, cross_correlation


def test_autocorrelation_is_that_of_numpy():
    e = np.random.default_rng(0).normal(size=60).cumsum()
    found = autocorrelation(e, most=10)
    centred = e - e.mean()
    whole = np.correlate(centred, centred, mode="full")[59:70]
    np.testing.assert_allclose(found.values, whole / whole[0], rtol=1e-12)
    assert found.bound == pytest.approx(1.96 / np.sqrt(60))
    assert found.delays.tolist() == list(range(11))


def test_cross_correlation_is_a_plain_sum_over_pairs():
    draw = np.random.default_rng(1)
    e, u = draw.normal(size=30), draw.normal(size=30)
    found = cross_correlation(e, u, most=5)
    a, b = e - e.mean(), u - u.mean()
    for k, value in zip(range(-5, 6), found.values, strict=True):
        pairs = sum(a[t] * b[t - k] for t in range(30) if 0 <= t - k < 30)
        assert value == pytest.approx(pairs / np.sqrt((a**2).sum() * (b**2).sum()))


def test_an_effect_that_is_missed_shows_at_its_delay():
    draw = np.random.default_rng(2)
    u = draw.normal(size=500)
    e = 0.8 * np.roll(u, 3) + 0.3 * draw.normal(size=500)
    found = cross_correlation(e, u, most=8)
    assert found.delays[np.abs(found.values).argmax()] == 3
    assert np.abs(found.values).max() > 5 * found.bound


def test_the_bounds_hold_95_per_cent_of_white_noise():
    draw = np.random.default_rng(3)
    own, other = [], []
    for _ in range(300):
        e = draw.normal(size=400)
        u = np.convolve(draw.normal(size=420), np.ones(10), mode="valid")[:400]  # a smooth input
        found = autocorrelation(e, most=20)
        own.append(np.abs(found.values[1:]) > found.bound)
        across = cross_correlation(e, u, most=20)
        other.append(np.abs(across.values) > across.bound)
    # 6,000 and 12,300 values, of which those of a smooth input depend on their neighbours
    assert 0.035 < np.mean(own) < 0.06
    assert 0.03 < np.mean(other) < 0.065


def test_the_share_outside_leaves_delay_0_of_a_series_with_itself_out():
    white = np.random.default_rng(4).normal(size=2000)
    assert autocorrelation(white).outside < 0.2
    assert autocorrelation(white.cumsum()).outside == 1.0


def test_missing_errors_are_left_out():
    e = np.random.default_rng(5).normal(size=100)
    holes = e.copy()
    holes[::7] = np.nan
    found = autocorrelation(holes, most=4)
    a = np.where(np.isfinite(holes), holes - np.nanmean(holes), 0.0)
    expected = [(a[k:] * a[: 100 - k]).sum() / (a**2).sum() for k in range(5)]
    np.testing.assert_allclose(found.values, expected)
    assert found.bound == pytest.approx(1.96 / np.sqrt(np.isfinite(holes).sum()))


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (np.zeros(7), "7 known errors"),
        (np.full(50, np.nan), "0 known errors"),
        (np.full(50, 3.0), "all alike"),
    ],
)
def test_errors_that_tell_nothing_are_refused(errors, words):
    with pytest.raises(InputError, match=words):
        autocorrelation(errors)


def test_inputs_of_another_length_are_refused():
    with pytest.raises(InputError, match="10 errors and 9 values"):
        cross_correlation(np.arange(10.0), np.arange(9.0))


def test_the_picture_is_drawn_also_with_an_input_that_never_changes(tmp_path):
    draw = np.random.default_rng(6)
    errors = draw.normal(size=80)
    errors[3] = np.nan
    inputs = {"rate": draw.normal(size=80), "flat": np.ones(80)}
    residuals(errors, inputs, tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")
