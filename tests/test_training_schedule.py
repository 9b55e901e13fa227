"""The learning rate over a run, and what ends one."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elman.training.options import TrainingOptions
from elman.training.schedule import (
    SCHEDULES,
    Limit,
    final_part,
    planned_steps,
    rate,
    validation_interval,
)

PROGRESS = st.floats(0, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_is_a_straight_line_to_the_top(schedule):
    assert rate(0.05, schedule, warmup=0.2) == pytest.approx(0.25)
    assert rate(0.2, schedule, warmup=0.2) == pytest.approx(1.0)
    assert 0 < rate(0.0, schedule, warmup=0.2) < 0.01


def test_cosine_by_hand():
    for progress in (0.1, 0.325, 0.55, 0.775, 1.0):
        expected = 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
        assert rate(progress, "cosine", warmup=0.1) == pytest.approx(expected, abs=1e-12)


def test_linear_and_trapezoid_by_hand():
    assert rate(0.75, "linear", decay_from=0.5) == pytest.approx(0.5)
    assert rate(0.5, "linear", decay_from=0.5) == 1.0
    assert rate(0.6, "trapezoid", warmup=0.1) == 1.0
    assert rate(0.85, "trapezoid", warmup=0.1) == pytest.approx(0.5)
    assert rate(0.99, "constant", warmup=0.1) == 1.0


def test_the_last_rate_is_the_final_one():
    for schedule in ("cosine", "linear", "trapezoid"):
        assert rate(1.0, schedule, warmup=0.1, final=0.25) == pytest.approx(0.25)
        assert rate(1.0, schedule, decay_from=1.0, final=0.25) == 1.0


@given(PROGRESS, PROGRESS, st.sampled_from(SCHEDULES), st.floats(0, 0.9), PROGRESS)
def test_after_warm_up_the_rate_never_rises(first, second, schedule, warmup, final):
    early, late = sorted((first, second))
    if early >= warmup:
        before = rate(early, schedule, warmup=warmup, final=final)
        after = rate(late, schedule, warmup=warmup, final=final)
        assert 0 <= after <= before + 1e-12 <= 1 + 1e-12


def test_progress_follows_the_scarcer_budget():
    assert Limit(10, None).progress(5, 1e9) == 0.5
    assert Limit(None, 60.0).progress(10**9, 15.0) == 0.25
    assert Limit(10, 60.0).progress(5, 45.0) == 0.75
    assert Limit(0, None).progress(0, 0.0) == 1.0
    assert Limit(10, 60.0).progress(99, 0.0) == 1.0


def test_budgets_become_steps():
    assert planned_steps(TrainingOptions(minutes=1.0), 7) is None
    assert planned_steps(TrainingOptions(epochs=1.5), 7) == 11
    assert planned_steps(TrainingOptions(epochs=1.5, steps=4), 7) == 4


def test_validations_are_tenths_of_a_run_or_epochs():
    assert validation_interval(5, 100) == 1
    assert validation_interval(1000, 1000) == 100
    assert validation_interval(1000, 30) == 30
    assert validation_interval(10_000, 3) == 200
    assert final_part(0.05) == pytest.approx(0.4)
    assert final_part(0.5) == 1.0
