"""NARX and delay networks: what they compute, their gradients, and how they begin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from elman.errors import InputError
from elman.tasks.base import Budget
from elman.tasks.forecast import delay_network, narx
from elman.tasks.forecast.base import Sizes, Window
from elman.tasks.forecast.delay_network import Delays, read_delays
from elman.tasks.forecast.free_run import inputs_of
from elman.tasks.forecast.identify import Arx, fit_arx
from elman.tasks.forecast.identify_open import OpenLoop, levenberg_marquardt
from elman.tasks.forecast.lags import Order
from elman.tasks.forecast.narx import Narx
from elman.tasks.forecast.options import ForecastOptions
from elman.tasks.forecast.series import Data, Scale, Series
from elman.tasks.forecast.windows import Windows

ORDERS = [
    pytest.param(Order(3, 2, 0), 1, 0, id="one input at once"),
    pytest.param(Order(1, 1, 2), 2, 0, id="two inputs, late"),
    pytest.param(Order(4), 0, 0, id="no input"),
    pytest.param(Order(2, 3, 1), 1, 2, id="past and future"),
    pytest.param(Order(1), 0, 0, id="one delay alone"),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _network(order: Order, future: int, past: int = 0, **options) -> Narx:
    given = {"hidden": 5, "linear": True, "training": "closed", "window": 9, "horizon": 1}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Narx(order, Sizes(past, future, options.pop("outputs", 1)), **(given | options))
        network = network.double()
        with torch.no_grad():  # all weights at work, and a loop that stays small
            for weight in network.parameters():
                weight.uniform_(-0.3, 0.3)
    return network


def _window(network: Narx, future: int, past: int, steps: int, batch: int = 3) -> Window:
    draw = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    lags = network.lags + 2  # more than is read changes nothing
    return Window(
        normal(batch, lags), normal(batch, lags, past), normal(batch, lags + steps, future),
        normal(batch, steps), torch.ones(batch, steps, dtype=torch.bool),
    )  # fmt: skip


def _by_hand(network: Narx, window: Window, fed: str) -> Tensor:
    """The equation in a plain loop; `fed` is "own" or "measured"."""
    lags, steps = window.y.shape[1], window.target.shape[1]
    order, weight = network.order, network.weight
    held = window.past[:, -1:].expand(-1, steps, -1)
    u = torch.cat([torch.cat([window.past, held], 1), window.future], 2)
    y = list(window.y.unbind(1))
    told = []
    for t in range(lags, lags + steps):
        a, ell = weight("b"), weight("d")
        for k in range(order.dead, order.dead + order.inputs):
            a = a + u[:, t - k] @ weight(f"W_{k}").T
            if network.linear:
                ell = ell + u[:, t - k] @ weight(f"B_{k}").T
        for k in range(1, order.outputs + 1):
            a = a + y[t - k][:, None] @ weight(f"U_{k}").T
            if network.linear:
                ell = ell + y[t - k][:, None] @ weight(f"A_{k}").T
        unit = a - torch.tanh(a) if network.linear else torch.tanh(a)
        now = (ell + unit @ weight("V").T)[:, 0]
        told.append(now)
        y.append(now if fed == "own" else window.target[:, t - lags])
    return torch.stack(told, 1)


def _shifted(window: Window, by: int) -> Window:
    """One step of a window, `by` steps behind its origin, with measured values before."""
    lags = window.y.shape[1]
    y = torch.cat([window.y, window.target], 1)[:, by : by + lags]
    held = window.past[:, -1:].expand(-1, by, -1)
    past = torch.cat([window.past, held], 1)[:, by:]
    future = window.future[:, by : by + lags + 1]
    return Window(y, past, future, window.target[:, by : by + 1], window.observed[:, :1])


@pytest.mark.parametrize(("order", "future", "past"), ORDERS)
@pytest.mark.parametrize("linear", [True, False], ids=["beside a line", "catalogue"])
def test_the_closed_loop_is_the_equation_in_a_loop(order, future, past, linear):
    if not linear and order.dead:
        order = Order(order.outputs, order.inputs + order.dead)
    network = _network(order, future, past, linear=linear)
    window = _window(network, future, past, steps=12)
    with torch.no_grad():
        found = network(window)[..., 0]
        torch.testing.assert_close(found, _by_hand(network, window, "own"), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("order", "future", "past"), ORDERS)
def test_the_open_loop_is_the_equation_on_measured_values(order, future, past):
    network = _network(order, future, past)
    window = _window(network, future, past, steps=6)
    expected = _by_hand(network, window, "measured")
    with torch.no_grad():
        for by in range(6):
            found = network(_shifted(window, by))[:, 0, 0]
            torch.testing.assert_close(found, expected[:, by], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("order", "future", "past"), ORDERS[:4])
def test_the_gradient_of_the_closed_loop_is_that_of_the_loop(order, future, past):
    network = _network(order, future, past)
    window = _window(network, future, past, steps=15)
    weights = dict(network.named_parameters())
    found = torch.autograd.grad(
        (network(window)[..., 0] - window.target).square().sum(), list(weights.values()),
        allow_unused=True,
    )  # fmt: skip
    expected = torch.autograd.grad(
        (_by_hand(network, window, "own") - window.target).square().sum(), list(weights.values()),
        allow_unused=True,
    )  # fmt: skip
    assert any(g is not None and g.abs().max() > 1e-3 for g in expected)
    for name, one, other in zip(weights, found, expected, strict=True):
        if other is None:
            assert one is None or not one.any(), name
        else:
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10, msg=name)


def test_free_run_is_one_step_after_another_from_its_own():
    network = _network(Order(3, 2, 1), 1)
    window = _window(network, 1, 0, steps=8)
    lags, y = window.y.shape[1], window.y
    with torch.no_grad():
        whole = network(window)[..., 0]
        for step in range(8):
            future = window.future[:, step : step + lags + 1]
            one = Window(y[:, step:], window.past, future, y[:, :1], window.observed[:, :1])
            y = torch.cat([y, network(one)[..., 0]], 1)
    torch.testing.assert_close(y[:, lags:], whole, rtol=1e-12, atol=1e-12)


def test_nothing_behind_the_origin_is_read_of_the_target():
    network = _network(Order(3, 2), 1)
    window = _window(network, 1, 0, steps=5)
    other = window._replace(target=torch.full_like(window.target, 1e6))
    with torch.no_grad():
        assert network(window).equal(network(other))


def test_a_row_does_not_depend_on_its_neighbours():
    network = _network(Order(3, 2), 1)
    window = _window(network, 1, 0, steps=5, batch=4)
    alone = Window(*(part[2:3] for part in window))
    with torch.no_grad():
        assert network(window)[2:3].equal(network(alone))


def test_inputs_without_any_are_one_of_zeros():
    network = _network(Order(2), 0)
    window = _window(network, 0, 0, steps=3)
    assert inputs_of(window).shape == (3, network.lags + 2 + 3, 1)
    assert not inputs_of(window).any()


def test_a_free_run_that_leaves_all_bounds_has_a_finite_error():
    network = _network(Order(2, 1), 1).eval()
    with torch.no_grad():
        network.weight("A_1").fill_(-30.0)
        window = _window(network, 1, 0, steps=300)
        told = network(window)
        assert told.isfinite().all()
        assert told.abs().max() == 1e6
        assert network.train()(window).isfinite().logical_not().any()  # training is not deceived
    arx = fit_arx([_duffing(50, noise=0.1)], Order(1, 1))
    wild = Arx(arx.order, torch.tensor([-30.0, 0.0, 1.0], dtype=torch.float64))
    assert wild.tell(window).isfinite().all()


# -- how it begins -----------------------------------------------------------------------------


def _duffing(rows: int, seed: int = 0, noise: float = 0.0, cubic: float = 0.4) -> Series:
    """A driven oscillator on a stiffening spring, in steps."""
    draw = np.random.default_rng(seed)
    u = np.convolve(draw.normal(size=rows + 4), np.ones(5) / 5, mode="valid")
    y = np.zeros(rows)
    for t in range(2, rows):
        y[t] = 1.5 * y[t - 1] - 0.7 * y[t - 2] + 0.4 * u[t - 1] - cubic * y[t - 1] ** 3 / 3
    y = y + noise * draw.normal(size=rows)
    return Series("s", 0, y, np.zeros((rows, 0)), u[:, None])


def _one_step(series: Series, lags: int) -> Window:
    windows = Windows([series], [(0, len(series))], lags, 1)
    return windows.window(slice(None))


@pytest.mark.parametrize("order", [Order(2, 2, 0), Order(3, 1, 1)])
def test_it_begins_as_the_linear_model(order):
    series = _duffing(300, noise=0.01)
    network = Narx(order, Sizes(0, 1, 1), hidden=4, linear=True, training="closed", window=10,
                   horizon=1).double()  # fmt: skip
    network.begin(_one_step(series, network.lags))
    arx = fit_arx([series], order)
    window = Windows([series], [(0, 300)], network.lags, 25).window(slice(0, None, 30))
    with torch.no_grad():
        torch.testing.assert_close(network(window)[..., 0], arx.tell(window), rtol=1e-6, atol=1e-8)


def test_arx_in_free_run_is_a_plain_loop():
    series = _duffing(80, noise=0.02)
    arx = fit_arx([series], Order(2, 2, 1))
    a1, a2, b1, b2, d = arx.weights.tolist()
    window = Windows([series], [(0, 80)], 4, 20).window(slice(10, 12))
    for row in range(2):
        y, u = window.y[row].tolist(), window.future[row, :, 0].tolist()
        for t in range(4, 24):
            y.append(a1 * y[t - 1] + a2 * y[t - 2] + b1 * u[t - 1] + b2 * u[t - 2] + d)
        np.testing.assert_allclose(arx.tell(window)[row].numpy(), y[4:], rtol=1e-9)


def test_weights_go_into_a_vector_and_come_back():
    network = _network(Order(2, 2, 1), 2)
    before = {n: w.clone() for n, w in network.named_parameters()}
    vector = network.as_vector()
    assert len(vector) == sum(OpenLoop(2 + 2 * 2, 5, True).sizes())
    network.take_vector(torch.zeros_like(vector))
    assert not network.as_vector().any()
    network.take_vector(vector)
    for name, weight in network.named_parameters():
        assert weight.equal(before[name]), name


@pytest.mark.parametrize("linear", [True, False], ids=["beside a line", "catalogue"])
def test_the_fitted_vector_is_the_network(linear):
    network = _network(Order(3, 2, 0), 2, linear=linear)
    window = _window(network, 2, 0, steps=1, batch=6)
    read, _ = network.rows(window)
    loop = OpenLoop(read.shape[1], 5, linear)
    with torch.no_grad():
        told = loop.tell(network.as_vector(), read)
        torch.testing.assert_close(told, network(window)[:, 0, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("linear", [True, False], ids=["beside a line", "catalogue"])
def test_the_jacobian_is_that_of_autograd(linear):
    loop = OpenLoop(3, 4, linear)
    draw = torch.Generator().manual_seed(0)
    theta = torch.randn(sum(loop.sizes()), generator=draw, dtype=torch.float64)
    read = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(lambda t: loop.tell(t, read), theta)
    torch.testing.assert_close(loop.jacobian(theta, read), expected, rtol=1e-10, atol=1e-12)


def _fitted(series: Series, hidden: int = 6) -> tuple[float, float]:
    """Mean squared errors of one step of the linear model and after Levenberg–Marquardt."""
    order = Order(2, 1, 1)
    network = Narx(order, Sizes(0, 1, 1), hidden=hidden, linear=True, training="open", window=1,
                   horizon=1).double()  # fmt: skip
    windows = _one_step(series, network.lags)
    network._take_least_squares(windows)
    read, told = network.rows(windows)
    loop, theta = OpenLoop(3, hidden, True), network.as_vector()
    before = (told - loop.tell(theta, read)).square().mean()
    after = (told - loop.tell(levenberg_marquardt(loop, theta, read, told), read)).square().mean()
    return float(before), float(after)


def test_levenberg_marquardt_finds_what_the_linear_model_leaves():
    before, after = _fitted(_duffing(600))
    assert after < 0.01 * before


def test_levenberg_marquardt_leaves_noise_alone():
    before, after = _fitted(_duffing(200, noise=0.1, cubic=0.0), hidden=8)
    assert 0.93 * before < after <= before  # 33 further weights would fit away a sixth


def test_spread_is_told_for_every_step_also_beyond_training():
    network = _network(Order(2, 1), 1, outputs=3, window=4)
    window = _window(network, 1, 0, steps=7)
    told = network(window)
    assert told.shape == (3, 7, 3)
    assert told[0, 3, 1:].equal(told[1, 6, 1:])
    assert not told[0, 0, 1:].equal(told[0, 1, 1:])


# -- what is chosen ----------------------------------------------------------------------------


def _data(series: Series) -> Data:
    scale = Scale.of([series])
    scaled = scale.apply(series)
    return Data((scaled,), (scaled,), (len(series) - 20,), scale, 1)


def _settled(series: Series, **given) -> dict:
    options = ForecastOptions(model="narx", future="u", **given)
    return narx.settle(options, _data(series), Budget())


def test_settled_options_settle_to_themselves_and_make_the_network():
    series = _duffing(400)
    first = _settled(series)
    assert first["training"] == "closed"
    options = ForecastOptions(**{"model": "narx", "future": "u", **first})
    again = narx.settle(options, _data(series), Budget())
    assert {k: first[k] for k in again} == again
    network = narx.make(options, Sizes(0, 1, 1))
    assert str(network.order) == first["lags"]
    assert network.training_steps(1) == 400 // 3
    assert "closed loop" in network.describe()


def test_without_inputs_one_step_is_trained_open():
    y = np.sin(np.arange(200) / 3) + 0.1 * np.random.default_rng(0).normal(size=200)
    series = Series("s", 0, y, np.zeros((200, 0)), np.zeros((200, 0)))
    options = ForecastOptions(model="narx")
    found = narx.settle(options, _data(series), Budget())
    assert found["training"] == "open"
    longer = narx.settle(ForecastOptions(model="narx", horizon=6), _data(series), Budget())
    assert (longer["training"], longer["window"]) == ("closed", 6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cell": "lstm"}, "equation of its own"),
        ({"lags": "x"}, "lags is 'x'"),
        ({"lags": "0,2,1"}, "nothing to feed back"),
        ({"training": "open", "output": "gaussian", "horizon": 3}, "train it closed"),
    ],
)
def test_what_does_not_go_together_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        _settled(_duffing(100), **given)


def test_the_catalogues_cell_reads_inputs_from_delay_0():
    assert _settled(_duffing(200), linear=False, lags="2,2,3")["lags"] == "2,5,0"


# -- the delay network -------------------------------------------------------------------------


def test_layers_of_delays_are_causal_convolutions():
    torch.manual_seed(0)
    net = Delays(2, 3, (2, 0, 4)).double()
    x = torch.randn(2, 12, 2, dtype=torch.float64)
    with torch.no_grad():
        found = net(x)[0]
        h = x.mT
        for layer, most in zip(net.layers, net.delays, strict=True):
            taps = [getattr(layer, f"W_{k}_l0") for k in reversed(range(most + 1))]
            kernel = torch.stack(taps, 2)
            h = torch.tanh(functional.conv1d(functional.pad(h, (most, 0)), kernel, layer.b_l0))
    torch.testing.assert_close(found, h.mT, rtol=1e-10, atol=1e-12)


def test_a_delay_network_reaches_as_far_back_as_it_says():
    net = Delays(1, 4, (2, 3))
    assert net.reach == 6
    x = torch.randn(1, 10, 1, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x)[0][0, -1].sum(), x)
    assert slope[0, :4].abs().max() == 0
    assert slope[0, 4].abs() > 0


@pytest.mark.parametrize("text", ["", "a", "2,-1", "1.5"])
def test_delays_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="delays is"):
        read_delays(text)


def test_delays_and_lags_are_settled_together():
    data = _data(_duffing(300))

    def settled(**given) -> dict:
        return delay_network.settle(ForecastOptions(model="tdnn", **given), data, Budget())

    given = settled(delays="2,3", lags="4")
    assert (given["delays"], given["lags"]) == ("2,3", "6")
    auto = settled(lags="9")
    assert sum(read_delays(auto["delays"])) < int(auto["lags"])
    with pytest.raises(InputError, match="leave cell"):
        settled(layers=2)
