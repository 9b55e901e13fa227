"""The parts of forecasting, each against an independent computation: windows, scales, ridge,
baselines, outputs, measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge as TheirRidge

from elman.errors import InputError
from elman.tasks.forecast.base import Sizes, Window
from elman.tasks.forecast.baseline import Baselines, naive_errors, run_on
from elman.tasks.forecast.encoder_decoder import EncoderDecoder
from elman.tasks.forecast.grid import Grid
from elman.tasks.forecast.judge import gain
from elman.tasks.forecast.lengths import season
from elman.tasks.forecast.linear import Features, fit
from elman.tasks.forecast.measure import Sums, Told, Units, judge
from elman.tasks.forecast.network import error_quantiles, told_of_points
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.outputs import Output, ends, pinball, read_levels
from elman.tasks.forecast.recurrent import RecurrentForecaster, make
from elman.tasks.forecast.series import Scale, Series
from elman.tasks.forecast.windows import Windows

NAN = float("nan")


def series(y, past=None, future=None, name="a", first=0):
    y = np.asarray(y, dtype=np.float64)
    none = np.zeros((len(y), 0))
    shape = [none if c is None else np.asarray(c, np.float64).reshape(len(y), -1)
             for c in (past, future)]  # fmt: skip
    return Series(name, first, y, *shape)


def random_series(seed, count, covariates=0, holes=0.0):
    rng = np.random.default_rng(seed)
    y = rng.normal(size=count).cumsum()
    y[1:][rng.random(count - 1) < holes] = NAN
    return series(y, rng.normal(size=(count, covariates)), rng.normal(size=(count, covariates)))


# Windows.


def test_windows_are_the_pieces_a_loop_would_cut():
    one = random_series(0, 40, covariates=2)
    windows = Windows([one], [(15, 36)], 4, 3)
    found = [
        (one.y[k - 4 : k], one.past[k - 4 : k], one.future[k - 4 : k + 3], one.y[k : k + 3])
        for k in range(15, 36 - 3 + 1)
    ]
    assert len(windows) == len(found)
    window = windows.window(slice(None))
    for part, column in zip(window[:4], zip(*found, strict=True), strict=True):
        np.testing.assert_array_equal(part.numpy(), np.stack(column))
    assert window.observed.all()
    assert windows.count() == 3 * len(found)


def test_nothing_behind_the_origin_is_read_even_where_values_are_missing():
    one = random_series(1, 60, covariates=1, holes=0.3)
    windows = Windows([one], [(10, 60)], 6, 4)
    whole = windows.window(slice(None))
    for k, origin in enumerate(windows.origin):
        assert np.isfinite(one.y[origin])
        cut = one.y.copy()
        cut[origin + 1 :] = 1e6  # another future
        past = one.past.copy()
        past[origin + 1 :] = 1e6
        other = Windows([series(cut, past, one.future)], [(10, 60)], 6, 4)
        at = int(np.flatnonzero(other.origin == origin)[0])
        window = other.window(np.array([at]))
        np.testing.assert_array_equal(window.y[0], whole.y[k])
        np.testing.assert_array_equal(window.past[0], whole.past[k])


def test_missing_values_are_neither_scored_nor_nan():
    one = random_series(2, 50, holes=0.4)
    windows = Windows([one], [(8, 50)], 5, 3)
    window = windows.window(slice(None))
    assert all(torch.isfinite(part).all() for part in window[:4])
    for k, origin in enumerate(windows.origin):
        came = one.y[origin + 1 : origin + 4]
        np.testing.assert_array_equal(window.observed[k], np.isfinite(came))
        np.testing.assert_array_equal(window.target[k], np.nan_to_num(came))
    assert windows.count() == int(window.observed.sum())


def test_holes_are_filled_on_the_line_between_neighbours():
    filled = series([1, NAN, NAN, 4, NAN], [5, NAN, 6, NAN, NAN], [NAN, 1, NAN, 3, NAN]).filled()
    assert filled.y.tolist() == [1, 2, 3, 4, 4]
    assert filled.past[:, 0].tolist() == [5, 5, 6, 6, 6]
    assert filled.future[:, 0].tolist() == [1, 1, 2, 3, 3]


def test_a_short_series_reads_its_first_value_again():
    windows = Windows([series([1, 2, 3, 4, 5])], [(0, 5)], 8, 2)
    window = windows.window(slice(None))
    assert window.y[0].tolist()[-1] == 1 + windows.origin[0]
    assert window.y[0].tolist()[0] == 1
    assert window.target[-1].tolist() == [4, 5]


def test_windows_of_several_series_do_not_mix():
    parts = [series(np.arange(10.0), name="a"), series(100 + np.arange(12.0), name="b")]
    windows = Windows(parts, [(0, 10), (0, 12)], 3, 2)
    window = windows.window(slice(None))
    for k, number in enumerate(windows.number):
        both = np.concatenate([window.y[k], window.target[k]])
        assert (both >= 100).all() if windows.names[number] == "b" else (both < 100).all()
    windows.keep(2)
    assert np.bincount(windows.number).tolist() == [2, 2]


# Scales.


@pytest.mark.parametrize("kind", ["standard", "sqrt", "log", "none"])
def test_a_scale_is_undone(kind):
    one = series(np.abs(random_series(3, 30).y) + 0.1)
    scale = Scale.of([one.part(0, 20)], kind)
    scaled = scale.apply(one)
    np.testing.assert_allclose(scale.undo("a", scaled.y), one.y)
    if kind == "standard":
        assert abs(scaled.y[:20].mean()) < 1e-12
        assert scaled.y[:20].std() == pytest.approx(1)


def test_a_constant_is_only_centred_and_a_root_needs_no_values_below_0():
    scale = Scale.of([series([0.1 + 0.2] * 5)])
    assert scale.y["a"] == (0.1 + 0.2, 1.0)
    with pytest.raises(InputError, match="series 'a' has the value -1"):
        Scale.of([series([4.0, -1.0])], "sqrt")


# Ridge regression and the other simple forecasts.


@pytest.mark.parametrize("anchor", [False, True])
@pytest.mark.parametrize("covariates", [0, 2])
def test_ridge_is_that_of_sklearn(anchor, covariates):
    one = random_series(4, 300, covariates)
    train, valid = (Windows([one], [p], 5, 3) for p in ((0, 200), (200, 300)))
    found = fit(train, valid, Features.of(5, 3, covariates, covariates, anchor))

    def table(windows):
        w = windows.window(slice(None))
        base = w.y[:, -1:].numpy() * anchor
        parts = [w.y.numpy() - base, w.past.flatten(1).numpy(), w.future.flatten(1).numpy()]
        return np.concatenate(parts, 1), w.target.numpy() - base, base

    x, y, _ = table(train)
    theirs = TheirRidge(alpha=found.strength).fit(x, y)
    np.testing.assert_allclose(found.weights.T, theirs.coef_, atol=1e-8)
    x, y, base = table(valid)
    told = found.tell(valid.window(slice(None))).numpy()
    np.testing.assert_allclose(told, theirs.predict(x) + base, atol=1e-8)
    for strength in (found.strength / 10, found.strength * 10):
        other = TheirRidge(alpha=strength).fit(*table(train)[:2]).predict(x)
        assert np.square(other - y).mean() >= found.error * (1 - 1e-9) or strength < 1e-2
    np.testing.assert_allclose(found.deviation, np.sqrt(np.square(told - base - y).mean(0)))


def test_ridge_with_missing_targets_is_fitted_to_those_there_are():
    one = random_series(5, 200, holes=0.2)
    train, valid = (Windows([one], [p], 4, 2) for p in ((0, 140), (140, 200)))
    found = fit(train, valid, Features.of(4, 2, 0, 0, False))
    w = train.window(slice(None))
    for h in range(2):
        rows = w.observed[:, h].numpy()
        assert 0 < rows.sum() < len(rows)
        theirs = TheirRidge(alpha=found.strength).fit(w.y.numpy()[rows], w.target.numpy()[rows, h])
        np.testing.assert_allclose(found.weights[:, h], theirs.coef_, atol=1e-8)


def test_simple_forecasts_are_what_they_are_called(tmp_path):
    y = np.arange(30) % 4 + 0.01 * np.arange(30)
    windows = Windows([series(y)], [(20, 30)], 8, 6)
    ridge = fit(windows, windows, Features.of(8, 6, 0, 0, True))
    baselines = Baselines(ridge, 4)
    assert baselines.names() == ["persistence", "seasonal naive (4)", "ridge on 8 lags"]
    window = windows.window(slice(None))
    last, naive, linear = baselines.tell(window)
    for k, origin in enumerate(windows.origin):
        assert last[k].tolist() == [y[origin]] * 6
        assert naive[k].tolist() == [y[origin + h - 4 * math.ceil(h / 4)] for h in range(1, 7)]
    torch.testing.assert_close(linear, ridge.tell(window))
    again = Baselines.from_file(*baselines.to_file(), "f")
    torch.testing.assert_close(again.tell(window)[2], linear)


def test_a_one_step_ridge_goes_on_from_its_own_values_as_a_loop_would():
    one = random_series(6, 120, covariates=1)
    one = series(one.y, None, one.future)
    train = Windows([one], [(0, 80)], 3, 1)
    ridge = fit(train, train, Features.of(3, 1, 0, 1, False))
    window = Windows([one], [(80, 100)], 3, 20).window(slice(None))
    told = run_on(ridge, window)[0]
    y = one.y[:80].tolist()
    u = one.future[:, 0]
    for t in range(80, 100):
        x = np.concatenate([y[t - 3 : t], u[t - 3 : t + 1]])
        y.append(float(x @ ridge.weights[:, 0].numpy() + ridge.bias[0].item()))
    np.testing.assert_allclose(told, y[80:], atol=1e-10)


def test_naive_errors_are_what_mase_divides_by():
    one = series([1, 2, 4, NAN, 5, 9])
    assert naive_errors([one], 2) == {"a": np.mean([3, 1])}  # 4 − 1 and 5 − 4


def test_the_season_is_the_clearest_of_the_calendar_or_of_all():
    rng = np.random.default_rng(7)
    t = np.arange(600)
    hour = Grid("time", 3_600_000_000)
    daily = np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=600) + 0.01 * t
    assert season([series(daily)], hour) == 24
    assert season([series(rng.normal(size=600).cumsum())], hour) == 1
    eleven = np.sin(2 * np.pi * t / 11) + 0.3 * rng.normal(size=600)
    assert season([series(eleven)], Grid("numbers", 1, 1700)) == 11
    assert season([series(np.ones(5))], hour) == 1


@pytest.mark.parametrize("grid", [Grid("time", 3_600_000_000), Grid("months", 1, 0, (1, 0)),
                                  Grid("numbers", 1)], ids=lambda g: g.kind)  # fmt: skip
def test_noise_and_random_walks_have_no_season(grid):
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=300)
        assert season([series(noise)], grid) == 1
        assert season([series(noise.cumsum())], grid) == 1


# Outputs.


def test_the_gaussian_loss_and_quantiles_are_those_of_scipy():
    output = Output("gaussian", (80.0, 95.0))
    told = torch.randn(5, 3, 2, dtype=torch.float64)
    target = torch.randn(5, 3, dtype=torch.float64)
    deviation = torch.nn.functional.softplus(told[..., 1]) + 1e-3
    theirs = stats.norm(told[..., 0].numpy(), deviation.numpy())
    np.testing.assert_allclose(output.losses(told, target), -theirs.logpdf(target.numpy()))
    found = output.quantiles(told)
    for i, p in enumerate((0.025, 0.1, 0.9, 0.975)):
        np.testing.assert_allclose(found[..., i], theirs.ppf(p))


def test_quantiles_never_cross_and_their_loss_is_least_at_the_quantile():
    output = Output("quantile", read_levels("95,50,80"))
    told = 5 * torch.randn(50, 4, output.size)
    found = torch.cat([output.quantiles(told), told[..., :1]], -1).sort(-1).values
    torch.testing.assert_close(found[..., 3], told[..., 0])
    assert (output.quantiles(told).diff(dim=-1) >= 0).all()
    y = torch.randn(20_000, dtype=torch.float64)
    grid = torch.linspace(-3, 3, 241, dtype=torch.float64)
    for p in (0.1, 0.5, 0.975):
        losses = [float(pinball(torch.full((20_000, 1), float(q)), y, (p,)).mean()) for q in grid]
        assert float(grid[int(np.argmin(losses))]) == pytest.approx(float(y.quantile(p)), abs=0.03)
    assert ends((50.0, 80.0, 95.0)) == (0.025, 0.1, 0.25, 0.75, 0.9, 0.975)


@pytest.mark.parametrize("kind", ["gaussian", "quantile"])
def test_intervals_begin_as_those_of_a_normal_distribution(kind):
    output = Output(kind, (80.0, 95.0))
    deviation = torch.tensor([0.5, 2.0], dtype=torch.float64)
    found = output.quantiles(output.begin(deviation))
    for h, d in enumerate((0.5, 2.0)):
        np.testing.assert_allclose(found[h], stats.norm(0, d).ppf(ends((80.0, 95.0))), atol=1e-6)


@pytest.mark.parametrize("text", ["", "a", "0,50", "80,100"])
def test_levels_are_percentages(text):
    with pytest.raises(InputError, match="levels is"):
        read_levels(text)


@pytest.mark.parametrize("kind", ["point", "gaussian", "quantile"])
def test_what_is_not_observed_adds_nothing_to_the_loss(kind):
    output = Output(kind, (80.0,))
    told, target = torch.randn(4, 3, output.size), torch.randn(4, 3)
    observed = torch.rand(4, 3) < 0.5
    observed[0, 0] = True
    loss, count = output.loss(told, target, observed)
    torch.testing.assert_close(loss, output.losses(told, target)[observed].mean())
    assert count == int(observed.sum())
    other, _ = output.loss(told, torch.where(observed, target, 1e3), observed)
    torch.testing.assert_close(other, loss)


# Measures.


def test_figures_are_those_of_plain_formulas():
    parts = [random_series(8, 60, holes=0.1), series(50 * random_series(9, 70).y, name="b")]
    scale = Scale.of(parts)
    units = Units(scale, naive_errors(parts, 1))
    windows = Windows([scale.apply(s) for s in parts], [(20, 60), (20, 70)], 4, 5)
    rng = np.random.default_rng(10)
    noise = {}

    def tell(window: Window):
        middle = window.target + torch.from_numpy(rng.normal(size=window.target.shape))
        noise["off"] = (middle - window.target).numpy()
        spread = torch.tensor([-2.0, -0.5, 0.5, 2.0])
        return [Told(middle, middle[..., None] + spread)]

    sums = judge(tell, windows, units, (38.0, 95.0))[0]
    found = sums.total()
    known = windows.window(slice(None)).observed.numpy()
    names = [windows.names[i] for i in windows.number]
    wide = np.array([[scale.y[n][1]] for n in names])
    naive = np.array([[units.naive[n]] for n in names])
    off = noise["off"]
    assert found["mse"] == pytest.approx(np.square(off * wide)[known].mean())
    assert found["rmse"] == pytest.approx(np.sqrt(found["mse"]))
    assert found["mae"] == pytest.approx(np.abs(off * wide)[known].mean())
    assert found["mse_scaled"] == pytest.approx(np.square(off)[known].mean())
    assert found["mase"] == pytest.approx((np.abs(off * wide) / naive)[known].mean())
    assert found["coverage_38"] == pytest.approx((np.abs(off) <= 0.5)[known].mean())
    assert found["coverage_95"] == pytest.approx((np.abs(off) <= 2)[known].mean())
    sure = sums.intervals(5)
    assert sure["rmse"][0] < found["rmse"] < sure["rmse"][1]


def test_the_gain_over_a_simple_forecast_is_paired():
    rng = np.random.default_rng(0)
    hard = 5 * rng.exponential(size=4000)  # of each window, for both
    more = 0.1 + rng.normal(size=4000) * 0.5
    rows = np.ones((2, 4000, 7))
    rows[:, :, 1] = hard, hard + more
    ours, theirs = (Sums(part, ()) for part in rows)
    error = more.std() / np.sqrt(4000)
    expected = more.mean() + np.array([-1.96, 1.96]) * error
    np.testing.assert_allclose(gain(ours, theirs, "mse", 1), expected, atol=0.2 * error)
    assert gain(theirs, ours, "rmse", 1)[1] < 0
    assert gain(Sums(rows[0, :1], ()), Sums(rows[1, :1], ()), "mse", 1) is None
    low, high = gain(Sums(rows[0, :10], ()), Sums(rows[1, :10], ()), "mse", 24)
    assert low < high  # though a block is longer than all rows


def test_quantiles_of_errors_cover_what_they_say():
    rng = np.random.default_rng(11)
    errors = rng.normal(size=(4000, 2)) * [1, 3]
    errors[rng.random(errors.shape) < 0.1] = NAN
    spread = error_quantiles(errors, (80.0, 95.0))
    np.testing.assert_allclose(spread[0], stats.norm.ppf(ends((80.0, 95.0))), atol=0.12)
    target = torch.from_numpy(rng.normal(size=(4000, 2)) * [1, 3])
    told = told_of_points(torch.zeros(4000, 2, dtype=torch.float64), spread,
                          torch.tensor([1.0, 3.0], dtype=torch.float64),
                          Output("gaussian", (80.0, 95.0)), target)  # fmt: skip
    inside = (told.ends[..., 0] <= target) & (target <= told.ends[..., 3])
    assert float(inside.double().mean()) == pytest.approx(0.95, abs=0.015)
    theirs = -stats.norm(0, [1.0, 3.0]).logpdf(target.numpy())
    np.testing.assert_allclose(told.losses, theirs)


# Networks.


def _window(batch, lags, steps, past=0, future=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype)

    return Window(random(batch, lags), random(batch, lags, past),
                  random(batch, lags + steps, future), random(batch, steps),
                  torch.ones(batch, steps, dtype=torch.bool))  # fmt: skip


def _recurrent(anchor=True, linear=True, past=1, future=1) -> RecurrentForecaster:
    options = ForecastOptions(horizon=4, lags="6", hidden=5, layers=1, dropout=0.0, anchor=anchor,
                              linear=linear)  # fmt: skip
    torch.manual_seed(0)
    network = make(options, Sizes(past, future, 2)).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.uniform_(-0.5, 0.5)
    return network


def test_the_recurrent_network_is_its_equation():
    network, window = _recurrent(), _window(3, 6, 4, 1, 1)
    last = window.y[:, -1:]
    read = torch.cat([(window.y - last)[..., None], window.past, window.future[:, :6]], 2)
    state = network.layer(read)[0][:, -1]
    u = torch.cat([window.y - last, window.past.flatten(1), window.future.flatten(1)], 1)
    for h in range(4):
        ahead = network.ahead(window.future[:, 6 + h])
        mixed = network.mixed(torch.tanh(network.state(state) + ahead))
        own = network.head(state)[:, 2 * h : 2 * h + 2] + mixed
        linear = u @ network.linear.weight[h] + network.linear.bias[h]
        told = network(window)[:, h]
        torch.testing.assert_close(told[:, 0], last[:, 0] + linear + own[:, 0])
        torch.testing.assert_close(told[:, 1], own[:, 1])


@pytest.mark.parametrize("linear", [False, True])
def test_an_anchored_network_moves_with_the_level_and_another_does_not(linear):
    window = _window(3, 6, 4, 1, 1)
    up = window._replace(y=window.y + 10)
    for anchor in (True, False):
        network = _recurrent(anchor, linear)
        off = network(up)[..., 0] - network(window)[..., 0]
        assert torch.allclose(off, torch.full_like(off, 10.0)) is anchor


def test_a_ridge_is_taken_over_exactly_and_a_new_network_tells_what_it_does():
    one = random_series(12, 200, covariates=1)
    windows = Windows([one], [(0, 200)], 6, 4)
    ridge = fit(windows, windows, Features.of(6, 4, 1, 1, True))
    options = ForecastOptions(horizon=4, lags="6", hidden=5, layers=1, anchor=True, linear=True)
    network = make(options, Sizes(1, 1, 1)).double().eval()
    network.take_linear(ridge)
    window = windows.window(slice(0, 20))
    torch.testing.assert_close(network(window)[..., 0], ridge.tell(window))


def _decoder(teacher_forcing=0.0, linear=False) -> EncoderDecoder:
    import elman.cells

    torch.manual_seed(1)
    network = EncoderDecoder(elman.cells.get("gru"), Sizes(1, 1, 1), lags=6, hidden=5, layers=2,
                             dropout=0.0, anchor=True, teacher_forcing=teacher_forcing,
                             linear=linear)  # fmt: skip
    with torch.no_grad():
        for weight in network.parameters():
            weight.uniform_(-0.5, 0.5)
    return network.double()


def test_the_decoder_is_fed_what_it_told_and_under_forcing_what_came():
    window = _window(3, 6, 4, 1, 1)
    network, forced = _decoder(), _decoder(1.0)
    free = network(window)
    # fed with its own values as if they were measured, forcing changes nothing
    own = window._replace(target=free[..., 0].detach())
    torch.testing.assert_close(forced.learned(own), free)
    # one step after another by hand
    last, state = (
        window.y[:, -1:],
        network.encoder(
            torch.cat(
                [(window.y - window.y[:, -1:])[..., None], window.past, window.future[:, :6]], 2
            )
        )[1],
    )
    previous = last
    for h in range(4):
        x = torch.cat([previous - last, torch.zeros(3, 1, dtype=torch.float64),
                       window.future[:, 6 + h]], 1)  # fmt: skip
        out, state = network.decoder(x[:, None], state)
        previous = previous + network.head(out[:, 0])
        torch.testing.assert_close(free[:, h], previous)
    assert not torch.allclose(forced.learned(window), free)
    torch.testing.assert_close(forced(window), free)


def test_the_decoder_begins_as_a_ridge_regression_that_goes_on_from_its_own_values():
    import elman.cells

    one = random_series(13, 120, covariates=1)
    one = series(one.y, None, one.future)
    train = Windows([one], [(0, 100)], 6, 1)
    ridge = fit(train, train, Features.of(6, 1, 0, 1, True))
    for forcing in (0.0, 0.5, 1.0):
        network = EncoderDecoder(elman.cells.get("gru"), Sizes(0, 1, 1), lags=6, hidden=3,
                                 layers=1, dropout=0.0, anchor=True, teacher_forcing=forcing,
                                 linear=True).double()  # fmt: skip
        network.take_step(ridge)
        window = Windows([one], [(100, 120)], 6, 8).window(slice(None))
        told = run_on(ridge, window)
        torch.testing.assert_close(network(window)[..., 0], told)
        torch.testing.assert_close(network.learned(window._replace(target=told))[..., 0], told)


def test_a_hole_in_what_is_fed_is_the_value_before_it():
    network = _decoder(1.0)
    window = _window(2, 6, 4, 1, 1)
    observed = torch.tensor([[False, True, True, True], [True, False, False, True]])
    filled = window.target.clone()
    filled[0, 0] = window.y[0, -1]
    filled[1, 1:3] = window.target[1, 0]
    found = network.learned(window._replace(observed=observed))
    torch.testing.assert_close(found, network.learned(window._replace(target=filled)))


def test_more_steps_begin_with_the_same():
    network = _decoder()
    window = _window(2, 6, 7, 1, 1)
    short = window._replace(future=window.future[:, :9], target=window.target[:, :3],
                            observed=window.observed[:, :3])  # fmt: skip
    torch.testing.assert_close(network(window)[:, :3], network(short))
