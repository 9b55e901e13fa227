"""Orders of delays: written, found on systems whose order is known, and told what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

from elman.errors import FileError, InputError
from elman.tasks.forecast.identify import Arx, fit_arx
from elman.tasks.forecast.lags import Order, choose, steadier, table
from elman.tasks.forecast.series import Series


def _series(y: np.ndarray, u: np.ndarray | None = None, *, past: bool = False) -> Series:
    none = np.zeros((len(y), 0))
    own = none if u is None else u.reshape(len(y), -1)
    return Series("s", 0, y, own if past else none, none if past else own)


def _arx(
    a: list[float],
    b: list[float],
    dead: int,
    *,
    rows: int = 1500,
    noise: float = 0.1,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A system of known order: y from its own last values and from white u after `dead` steps."""
    draw = np.random.default_rng(seed)
    u, e = draw.normal(size=rows), noise * draw.normal(size=rows)
    y = np.zeros(rows)
    for t in range(rows):
        own = sum(a[k] * y[t - 1 - k] for k in range(len(a)) if t > k)
        driven = sum(b[k] * u[t - dead - k] for k in range(len(b)) if t >= dead + k)
        y[t] = own + driven + e[t]
    return y, u


@pytest.mark.parametrize(
    ("a", "b", "dead"),
    [
        ([1.2, -0.5], [0.8], 3),
        ([0.9], [0.5, 0.4, 0.3], 0),
        ([0.6, 0.1, -0.3], [1.0, -0.4], 1),
    ],
)
def test_auto_finds_the_order_of_a_linear_system(a, b, dead):
    # AIC is not consistent: it may add weights that gain by chance, and never loses a true one
    found = []
    for seed in range(7):
        y, u = _arx(a, b, dead, seed=seed)
        found.append(choose([_series(y, u)]).order)
    true = Order(len(a), len(b), dead)
    for order in found:
        assert order.outputs >= true.outputs
        assert order.dead <= true.dead
        assert order.dead + order.inputs >= true.dead + true.inputs
    middle = np.median([(o.outputs, o.dead + o.inputs, o.dead) for o in found], axis=0)
    assert np.all(np.abs(middle - (true.outputs, true.dead + true.inputs, true.dead)) <= 1)
    assert true in found


def test_auto_finds_the_order_of_a_series_without_inputs():
    y, _ = _arx([0.5, 0.0, 0.0, 0.4], [0.0], 0, seed=1)
    order = choose([_series(y)]).order
    assert 4 <= order.outputs <= 6
    assert (order.inputs, order.dead) == (0, 0)


def test_the_criterion_is_that_of_each_fit_done_alone():
    y, u = _arx([1.2, -0.5], [0.8, 0.2], 2, rows=200)
    series = [_series(y, u)]
    choice = choose(series)
    n = choice.rows
    # the largest order that is compared reaches over 8 + 7 delays
    start = len(y) - n
    best, tried = None, 0
    for outputs in range(9):
        for dead in range(9):
            for inputs in range(1, 9):
                if dead + inputs > 16:
                    continue
                rows = [
                    [*(y[t - k] for k in range(1, outputs + 1)),
                     *(u[t - k] for k in range(dead, dead + inputs)), 1.0]
                    for t in range(start, len(y))
                ]  # fmt: skip
                x, told = np.array(rows), y[start:]
                off = told - x @ np.linalg.lstsq(x, told, rcond=None)[0]
                p = x.shape[1] + 1
                value = n * np.log(np.mean(off**2)) + 2 * p + 2 * p * (p + 1) / (n - p - 1)
                tried += 1
                if best is None or value < best[0] - 1e-9:
                    best = (value, Order(outputs, inputs, dead))
    assert best is not None
    assert choice.tried == tried
    assert choice.order == best[1]
    assert choice.criterion == pytest.approx(best[0], rel=1e-9)


def test_a_table_holds_every_delay_in_order_and_leaves_rows_with_holes_out():
    y, u = np.arange(10.0), 100 + np.arange(20.0).reshape(10, 2)
    y[4] = np.nan
    read, told = table([_series(y, u)], Order(2, 2, 1))
    # y at t-1, t-2, then both inputs at t-1, then at t-2; y[4] is missing at t = 4, 5 and 6
    assert told.tolist() == [2, 3, 7, 8, 9]
    assert read[0].tolist() == [1, 0, *u[1], *u[0]]
    assert read[-1].tolist() == [8, 7, *u[8], *u[7]]


def test_delays_never_cross_from_one_series_into_the_next():
    one, other = np.arange(5.0), 50 + np.arange(5.0)
    read, told = table([_series(one), _series(other)], Order(1))
    assert np.array_equal(read[:, 0] + 1, told)


def test_past_and_future_covariates_are_both_inputs():
    y, u = np.arange(6.0), np.arange(6.0) + 10
    read, _ = table([_series(y, u)], Order(1, 2, 0))
    assert read[0].tolist() == [0, 11, 10]
    # what is known up to the origin only is not known yet at delay 0
    read, _ = table([_series(y, u, past=True)], Order(1, 2, 0))
    assert read[0].tolist() == [0, 10, 10]


@pytest.mark.parametrize(
    ("text", "inputs", "order"),
    [
        ("4", 0, Order(4)),
        ("4", 1, Order(4, 4, 0)),
        ("4,2", 1, Order(4, 2, 0)),
        ("4,2,3", 2, Order(4, 2, 3)),
        ("4,2,3", 0, Order(4)),
        (" 1, 1 ", 1, Order(1, 1, 0)),
    ],
)
def test_an_order_is_read_as_written_and_again_as_it_is_kept(text, inputs, order):
    assert Order.read(text, inputs) == order
    assert Order.read(str(order), inputs) == order


@pytest.mark.parametrize("text", ["", "two", "1.5", "1,2,3,4", "-1", "2,-1", "0"])
def test_lags_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="lags is"):
        Order.read(text, 0)


def test_reach_covers_outputs_and_late_inputs():
    assert Order(2, 3, 4).reach == 6
    assert Order(0, 1, 0).reach == 1
    assert Order(7, 1, 0).reach == 7


def test_too_few_rows_are_said():
    with pytest.raises(InputError, match="give more data, or lags"):
        choose([_series(np.arange(4.0))])


def test_a_constant_series_has_an_order():
    assert choose([_series(np.zeros(60))]).order.outputs == 1


def test_a_few_rows_bound_the_order():
    y, u = _arx([1.2, -0.5], [0.8], 0, rows=60)
    assert choose([_series(y, u)]).order.count(1) <= 6


def test_arx_does_not_count_on_an_input_that_is_not_known_yet():
    y, u = _arx([0.5], [1.0], 0, rows=400, noise=0.05)
    known, late = _series(y, u), _series(y, u, past=True)
    assert choose([known]).order.dead == 0
    order = Order(1, 1, 0)
    assert fit_arx([known], order).weights[1] > 0.9
    # y at t-1 and u at t-1 tell nothing of u at t, which is white
    assert abs(fit_arx([late], order).weights[1]) < 0.15


# -- the linear model --------------------------------------------------------------------------


def test_arx_is_least_squares():
    y, u = _arx([1.2, -0.5], [0.8, 0.3], 1, rows=300, seed=3)
    rows = np.array([[y[t - 1], y[t - 2], u[t - 1], u[t - 2], 1.0] for t in range(2, 300)])
    expected = np.linalg.lstsq(rows, y[2:], rcond=None)[0]
    found = fit_arx([_series(y, u)], Order(2, 2, 1))
    np.testing.assert_allclose(found.weights.numpy(), expected, rtol=1e-9, atol=1e-12)
    # and near what the data were made of
    np.testing.assert_allclose(found.weights.numpy(), [1.2, -0.5, 0.8, 0.3, 0.0], atol=0.05)


def test_arx_without_rows_is_refused():
    with pytest.raises(InputError, match="fewer lags"):
        fit_arx([_series(np.arange(3.0))], Order(5))


def test_names_of_linear_models():
    y, u = _arx([0.5], [0.8], 0, rows=50)
    assert fit_arx([_series(y)], Order(3)).name == "linear AR(3)"
    assert fit_arx([_series(y, u)], Order(3, 2, 1)).name == "linear ARX (3, 2, 1)"


def test_arx_comes_back_from_its_file_and_a_wrong_file_is_refused():
    y, u = _arx([0.5], [0.8], 0, rows=50)
    arx = fit_arx([_series(y, u)], Order(2, 1, 1))
    notes, weights = arx.to_file()
    again = Arx.from_file(notes, weights, "b.safetensors")
    assert again.order == arx.order
    assert again.weights.equal(weights)
    for wrong in ({}, {"order": "2"}, {"order": "9,1,1"}, {"order": "2,-1,0"}, {"order": "x"}):
        with pytest.raises(FileError, match=r"b\.safetensors"):
            Arx.from_file(wrong, weights, "b.safetensors")


# -- the scale ---------------------------------------------------------------------------------


def test_the_scale_with_even_errors_is_found():
    draw = np.random.default_rng(5)
    level = np.zeros(400)
    for t in range(1, 400):
        level[t] = 0.8 * level[t - 1] + draw.normal()
    assert steadier([_series(level)]) == "standard"  # values below 0
    assert steadier([_series(level - level.min() + 1)]) == "standard"
    assert steadier([_series(np.exp(0.3 * level))]) == "log"
    assert steadier([_series(np.square(0.2 * (level - level.min())))]) == "sqrt"


def test_the_scale_of_nothing_and_of_little_is_the_plain_one():
    assert steadier([_series(np.full(20, np.nan))]) == "standard"
    assert steadier([_series(np.full(20, 3.0))]) == "standard"
    assert steadier([_series(np.arange(3.0))]) == "standard"
