"""Independent programs: each cell of the list written once more in NumPy, straight from its paper.

They share nothing with the library but the parameters: loops over rows and steps, sums written
out as the papers have them. The bound is 1e-10 in float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Case, random_input, random_parameters, run_case
from tolerances import ORACLE, assert_close

from elman.backends.reference import initial_carried

TIME, BATCH = 7, 3


def logistic(z):
    return 1.0 / (1.0 + np.exp(-z))


def simple(p, x, hidden):
    """Elman 1990: hidden units see the input and the copied hidden units."""
    context, out = np.zeros(hidden), []
    for now in x:
        context = np.tanh(p["W"].dot(now) + p["U"].dot(context) + p["b"])
        out.append(context)
    return out


def jordan(p, x, hidden):
    """Jordan 1986: the plan sees the network's own last output."""
    output, out = np.zeros(len(p["d"])), []
    for now in x:
        units = np.tanh(p["W"].dot(now) + p["U"].dot(output) + p["b"])
        output = np.tanh(p["V"].dot(units) + p["d"])
        out.append(output)
    return out


def indrnn(p, x, hidden):
    """Li et al. 2018: unit n, h_n,t = relu(w_n x_t + u_n h_n,t−1 + b_n)."""
    h, out = np.zeros(hidden), []
    for now in x:
        h = np.array(
            [max(0.0, p["W"][n].dot(now) + p["u"][n] * h[n] + p["b"][n]) for n in range(hidden)]
        )
        out.append(h)
    return out


def lstm(p, x, hidden):
    """Gers et al. 2000, with tanh for both squashing functions."""
    y, s, out = np.zeros(hidden), np.zeros(hidden), []
    for now in x:
        net = {k: p[f"W_{k}"].dot(now) + p[f"U_{k}"].dot(y) + p[f"b_{k}"] for k in "ifgo"}
        s = logistic(net["f"]) * s + logistic(net["i"]) * np.tanh(net["g"])
        y = logistic(net["o"]) * np.tanh(s)
        out.append(y)
    return out


def lstm_1997(p, x, hidden):
    """Hochreiter & Schmidhuber 1997: s_c(t) = s_c(t−1) + y_in g(net_c)."""
    y, s, out = np.zeros(hidden), np.zeros(hidden), []
    for now in x:
        net = {k: p[f"W_{k}"].dot(now) + p[f"U_{k}"].dot(y) + p[f"b_{k}"] for k in "igo"}
        s = s + logistic(net["i"]) * np.tanh(net["g"])
        y = logistic(net["o"]) * np.tanh(s)
        out.append(y)
    return out


def peephole_lstm(p, x, hidden):
    """Graves 2013, eqs. 7–11, with the diagonal peephole matrices as matrices."""
    h, c, out = np.zeros(hidden), np.zeros(hidden), []
    w_ci, w_cf, w_co = (np.diag(p[f"v_{k}"]) for k in "ifo")
    for now in x:
        i = logistic(p["W_i"] @ now + p["U_i"] @ h + w_ci @ c + p["b_i"])
        f = logistic(p["W_f"] @ now + p["U_f"] @ h + w_cf @ c + p["b_f"])
        c = f * c + i * np.tanh(p["W_g"] @ now + p["U_g"] @ h + p["b_g"])
        o = logistic(p["W_o"] @ now + p["U_o"] @ h + w_co @ c + p["b_o"])
        h = o * np.tanh(c)
        out.append(h)
    return out


def lstm_full_gate_recurrence(p, x, hidden):
    """Greff et al. 2015, FGR: the vanilla LSTM of section II-A, nine matrices added."""
    y, c, out = np.zeros(hidden), np.zeros(hidden), []
    gates = {k: np.zeros(hidden) for k in "ifo"}
    for now in x:
        net = {k: p[f"W_{k}"] @ now + p[f"U_{k}"] @ y + p[f"b_{k}"] for k in "ifgo"}
        for k in "ifo":
            net[k] = net[k] + sum(p[f"R_{k}{other}"] @ gates[other] for other in "ifo")
        i, f = (logistic(net[k] + p[f"v_{k}"] * c) for k in "if")
        c = np.tanh(net["g"]) * i + c * f
        o = logistic(net["o"] + p["v_o"] * c)
        y, gates = np.tanh(c) * o, {"i": i, "f": f, "o": o}
        out.append(y)
    return out


def gru(p, x, hidden):
    """The documentation of torch.nn.GRU."""
    h, out = np.zeros(hidden), []
    for now in x:
        r = logistic(p["W_r"] @ now + p["b_r"] + p["U_r"] @ h)
        z = logistic(p["W_z"] @ now + p["b_z"] + p["U_z"] @ h)
        n = np.tanh(p["W_n"] @ now + p["b_n"] + r * (p["U_n"] @ h + p["c_n"]))
        h = (1 - z) * n + z * h
        out.append(h)
    return out


def gru_cho(p, x, hidden):
    """Cho et al. 2014, eqs. 5–8, unit j by unit j."""
    h, out = np.zeros(hidden), []
    for now in x:
        r = logistic(p["W_r"] @ now + p["U_r"] @ h + p["b_r"])
        new = np.empty(hidden)
        for j in range(hidden):
            z = logistic(p["W_z"][j] @ now + p["U_z"][j] @ h + p["b_z"][j])
            reset = sum(p["U_n"][j, k] * r[k] * h[k] for k in range(hidden))
            candidate = np.tanh(p["W_n"][j] @ now + reset + p["b_n"][j])
            new[j] = z * h[j] + (1 - z) * candidate
        h = new
        out.append(h)
    return out


def mgu(p, x, hidden):
    """Zhou et al. 2016: one gate on [h, x], used twice."""
    h, out = np.zeros(hidden), []
    gate, state = (np.hstack([p[f"U_{k}"], p[f"W_{k}"]]) for k in "fn")
    for now in x:
        f = logistic(gate @ np.concatenate([h, now]) + p["b_f"])
        candidate = np.tanh(state @ np.concatenate([f * h, now]) + p["b_n"])
        h = (1 - f) * h + f * candidate
        out.append(h)
    return out


def janet(p, x, hidden):
    """van der Westhuizen & Lasenby 2018, β = 1."""
    c, out = np.zeros(hidden), []
    for now in x:
        s = p["U_f"] @ c + p["W_f"] @ now + p["b_f"]
        candidate = np.tanh(p["U_g"] @ c + p["W_g"] @ now + p["b_g"])
        c = logistic(s) * c + (1 - logistic(s - 1.0)) * candidate
        out.append(c)
    return out


def mingru(p, x, hidden):
    """Feng et al. 2024, section 3.1, as the sum over the past that the recurrence solves to."""
    z = [logistic(p["W_z"] @ now + p["b_z"]) for now in x]
    candidates = [p["W_n"] @ now + p["b_n"] for now in x]
    return [
        sum(
            np.prod([1 - z[j] for j in range(k + 1, t + 1)], axis=0) * z[k] * candidates[k]
            for k in range(t + 1)
        )
        for t in range(len(x))
    ]


def minlstm(p, x, hidden):
    """Feng et al. 2024, section 3.2: gates scaled by their sum."""
    h, out = np.zeros(hidden), []
    for now in x:
        f, i = (logistic(p[f"W_{k}"] @ now + p[f"b_{k}"]) for k in "fi")
        scaled_f, scaled_i = f / (f + i), i / (f + i)
        h = scaled_f * h + scaled_i * (p["W_g"] @ now + p["b_g"])
        out.append(h)
    return out


def narx(p, x, hidden, Kx=2, Ky=2):
    """Siegelmann et al. 1997: a perceptron over windows of inputs and outputs, zeros before."""
    zero, y = np.zeros(x.shape[1]), [np.zeros(len(p["d"]))] * Ky
    for t in range(len(x)):
        total = p["b"].copy()
        for k in range(Kx + 1):
            total += p[f"W_{k}"].dot(x[t - k] if t >= k else zero)
        for k in range(1, Ky + 1):
            total += p[f"U_{k}"].dot(y[-k])
        y.append(p["V"].dot(np.tanh(total)) + p["d"])
    return y[Ky:]


def sru_2017(p, x, hidden):
    """Lei et al. 2017, first version, g = tanh, with x brought to the hidden size."""
    c, out = np.zeros(hidden), []
    for now in x:
        f, r = (logistic(p[f"W_{k}"].dot(now) + p[f"b_{k}"]) for k in "fr")
        c = f * c + (1 - f) * p["W"].dot(now)
        out.append(r * np.tanh(c) + (1 - r) * p["W_x"].dot(now))
    return out


def sru(p, x, hidden):
    """Lei et al. 2018, eqs. 1–4, unit by unit: each sees nothing of the others."""
    out = np.empty((len(x), hidden))
    for j in range(hidden):
        c = 0.0
        for t, now in enumerate(x):
            f, r = (
                logistic(p[f"W_{k}"][j].dot(now) + p[f"v_{k}"][j] * c + p[f"b_{k}"][j])
                for k in "fr"
            )
            c = f * c + (1 - f) * p["W"][j].dot(now)
            out[t, j] = r * c + (1 - r) * p["W_x"][j].dot(now)
    return list(out)


def convolved(p, x, gate, width=2):
    """Bradbury et al. 2017: a masked convolution, as one product with a window of the input."""
    padded = np.concatenate([np.zeros((width - 1, x.shape[1])), x])
    windows = np.stack([padded[t : t + width].ravel() for t in range(len(x))])
    kernel = np.hstack([p[f"W_{gate}_{k}"] for k in reversed(range(width))])
    return windows @ kernel.T + p[f"b_{gate}"]


def qrnn_f(p, x, hidden):
    """Bradbury et al. 2017, f-pooling, as the sum over the past that it solves to."""
    z, f = np.tanh(convolved(p, x, "z")), logistic(convolved(p, x, "f"))
    return [
        sum(np.prod(f[k + 1 : t + 1], axis=0) * (1 - f[k]) * z[k] for k in range(t + 1))
        for t in range(len(x))
    ]


def qrnn_fo(p, x, hidden):
    """Bradbury et al. 2017, fo-pooling: f-pooling, times the output gate."""
    o = logistic(convolved(p, x, "o"))
    return [o[t] * c for t, c in enumerate(qrnn_f(p, x, hidden))]


def qrnn_ifo(p, x, hidden):
    """Bradbury et al. 2017, ifo-pooling: c_t = f_t ⊙ c_{t−1} + i_t ⊙ z_t."""
    z = np.tanh(convolved(p, x, "z"))
    i, f, o = (logistic(convolved(p, x, k)) for k in "ifo")
    c, out = np.zeros(hidden), []
    for t in range(len(x)):
        c = f[t] * c + i[t] * z[t]
        out.append(o[t] * c)
    return out


ORACLES = (
    simple, jordan, indrnn, lstm, lstm_1997, peephole_lstm, lstm_full_gate_recurrence, gru,
    gru_cho, mgu, janet, mingru, minlstm, narx, sru_2017, sru, qrnn_f, qrnn_fo, qrnn_ifo,
)  # fmt: skip


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.__name__)
def test_cell_is_the_paper(oracle):
    case = Case(oracle.__name__)
    parameters, x = random_parameters(case), random_input(case, TIME, BATCH)
    start = initial_carried(case.graph, case.all_sizes, BATCH, dtype=x.dtype)
    out, _ = run_case(case, parameters, x, start)
    arrays = {name: value.numpy() for name, value in parameters.items()}
    hidden = case.all_sizes["hidden"]
    rows = [np.stack(oracle(arrays, x[:, row].numpy(), hidden)) for row in range(BATCH)]
    assert_close(out, torch.from_numpy(np.stack(rows, 1)), ORACLE)


def test_longer_narx_is_the_paper():
    case = Case("narx", {"Kx": 3, "Ky": 5})
    parameters, x = random_parameters(case), random_input(case, 12, 1)
    start = initial_carried(case.graph, case.all_sizes, 1, dtype=x.dtype)
    out, _ = run_case(case, parameters, x, start)
    arrays = {name: value.numpy() for name, value in parameters.items()}
    ours = np.stack(narx(arrays, x[:, 0].numpy(), 4, Kx=3, Ky=5))
    assert_close(out[:, 0], torch.from_numpy(ours), ORACLE)
