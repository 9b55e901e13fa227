"""Time stamps on an even grid: read, found, written, and told where they are not even."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import FileError, InputError
from elman.tasks.forecast.grid import Grid, check_dates, find_grid, read_stamps

DAY = 86_400_000_000


def _found(texts):
    stamps, dates = read_stamps(texts, "f")
    return find_grid([stamps], dates, "f"), stamps


def _dates(first, count, step):
    return [str(first + step * k) for k in range(count)]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (_dates(dt.datetime(2020, 2, 28), 60, dt.timedelta(hours=1)), "hour"),
        (_dates(dt.date(2020, 2, 28), 60, dt.timedelta(days=1)), "day"),
        (_dates(dt.date(2020, 2, 28), 60, dt.timedelta(days=7)), "week"),
        (_dates(dt.datetime(2020, 2, 28), 60, dt.timedelta(minutes=15)), "15 minutes"),
        ([f"{y}-{m:02d}-01" for y in (2020, 2021) for m in range(1, 13)], "month"),
        ([f"{y}-{m:02d}" for y in (2020, 2021) for m in range(1, 13)], "month"),
        ([f"{y}-{m:02d}-15" for y in (2020, 2021) for m in (1, 4, 7, 10)], "3 months"),
        (["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30", "2020-06-30"], "month"),
        ([f"{y}-12-31" for y in range(2000, 2010)], "year"),
        ([str(y) for y in range(1700, 1720)], "1"),
        ([f"{k * 0.1:.1f}" for k in range(50)], "0.1"),
        ([f"{d:02d}.01.2024" for d in range(1, 31)], "day"),
        ([f"01/{d:02d}/2024 13:00" for d in range(1, 31)], "day"),
        ([f"202401{d:02d}" for d in range(1, 31)], "day"),
        ([f"2024-01-{d:02d}T00:00:00Z" for d in range(1, 31)], "day"),
    ],
    ids=lambda v: v if isinstance(v, str) else v[0],
)
def test_the_step_of_time_is_found_and_every_stamp_is_on_it(texts, words):
    grid, stamps = _found(texts)
    assert grid.words() == words
    places, exact = grid.places(stamps)
    assert exact.all()
    assert places[0] == 0
    assert (np.diff(places) >= 1).all()
    np.testing.assert_allclose(grid.stamps(places), stamps)
    assert Grid.from_json(grid.to_json()) == grid


def test_weekdays_have_no_holes_at_weekends():
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=k) for k in range(60)]
    grid, stamps = _found([str(d) for d in days if d.weekday() < 5])
    assert grid.words() == "weekday"
    places, exact = grid.places(stamps)
    assert exact.all()
    assert (np.diff(places) == 1).all()
    assert grid.written(5) == "2024-01-08"  # from a Monday, five weekdays on


def test_month_ends_are_written_as_month_ends():
    grid, _ = _found(["2019-12-31", "2020-01-31", "2020-02-29", "2020-03-31"])
    assert [grid.written(k) for k in range(5)] == [
        "2019-12-31", "2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30",
    ]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 10_000_000), st.integers(-(10**9), 10**9),
    st.lists(st.integers(0, 500), min_size=2, max_size=60, unique=True),
)  # fmt: skip
def test_places_and_stamps_are_inverse(step, origin, places):
    grid = Grid("time", step * 1000, origin)
    stamps = grid.stamps(np.array(places))
    found, exact = grid.places(stamps)
    assert found.tolist() == places
    assert exact.all()


def test_stamps_a_little_off_go_to_the_nearest_step():
    rng = np.random.default_rng(0)
    stamps = np.arange(200) * DAY
    late = stamps + rng.integers(-DAY // 3, DAY // 3, 200) * (rng.random(200) < 0.3)
    grid = find_grid([np.sort(late)], True, "f")
    assert grid.words() == "day"
    places, exact = grid.places(late)
    assert 0 < (~exact).sum() < 100
    assert (np.abs(grid.stamps(places) - late) <= DAY / 2).all()


def test_without_a_common_step_the_middle_one_is_taken_made_round():
    rng = np.random.default_rng(1)
    stamps = np.cumsum(rng.integers(50, 70, 300)) * 60_000_000  # 50 to 70 minutes apart
    assert find_grid([stamps], True, "f").words() == "hour"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["2020-01-01", "", "2020-01-03"], "f: the time stamp of row 2 is missing"),
        (["2020-01-01", "soon"], "'soon' of row 2 is no number and no date"),
        (["01/02/2024", "02/02/2024"], "may be read as %m/%d/%Y or %d/%m/%Y"),
        (["2020-01-01", "2020-13-01"], "'2020-13-01' of row 2"),
    ],
)
def test_what_is_no_stamp_is_named(texts, message):
    with pytest.raises(FileError) as error:
        read_stamps(texts, "f")
    assert message in str(error.value)


def test_stamps_without_any_step_are_refused():
    with pytest.raises(FileError, match="too irregular for a series"):
        find_grid([np.array([0.0, 1.0, 2.0, 1e6])], False, "f")
    with pytest.raises(FileError, match="single time stamp"):
        find_grid([np.array([4.0])], False, "f")


def test_dates_and_numbers_are_not_mixed():
    with pytest.raises(InputError, match="are numbers; in training they were dates"):
        check_dates(False, Grid("time", DAY, 0), "f")


@pytest.mark.parametrize("value", [{}, {"kind": "time"}, {"kind": "x", "step": 1, "origin": 0,
    "within": [0, 0]}, {"kind": "time", "step": 0, "origin": 0, "within": [0, 0]}])  # fmt: skip
def test_a_grid_that_was_altered_is_refused(value):
    with pytest.raises(FileError, match="grid of time"):
        Grid.from_json(value, "m")
