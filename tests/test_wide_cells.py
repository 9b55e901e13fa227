"""The wide cells against programs of their papers, outputs and gradients, and each one's own laws.

The programs are NumPy loops over rows, steps, units and heads, which share nothing with the
library but the parameters. Their gradients are complex steps, Im f(θ + iε)/ε, exact to rounding
where a program is analytic; the complex recurrence (lru) is written once more in torch instead.
sLSTM and mLSTM stand here without their stabiliser, in plain exponentials.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

import numpy as np
import pytest
import torch
from cases import Case, generator, random_carried, random_input, random_parameters, split_input
from tolerances import ORACLE, assert_close, assert_same_bits
from torch.autograd.functional import jacobian

import elman
from elman.backends.reference import initial_carried, run

TIME, BATCH, EPS = 9, 3, 1e-30
OPEN, SHUT = 1000.0, -1000.0  # a bias at which the logistic is 1 or 0 to the bit


def logistic(z):
    return 1.0 / (1.0 + np.exp(-z))


# --- the papers: p, the inputs of one row, what it starts with; outputs and what it ends with ---


def second_order(p, x, start, dt):
    """Giles et al. 1992, eq. 1: S_i = g(Σ_jk W_ijk S_j I_k), with a bias."""
    (s,), out = start, []
    size = len(s)
    for now in x:
        total = [p["b"][i] for i in range(size)]
        for i in range(size):
            for j in range(size):
                for k in range(len(now)):
                    total[i] = total[i] + p["T"][i, j, k] * s[j] * now[k]
        s = np.array([logistic(v) for v in total])
        out.append(s)
    return out, [s]


def multiplicative_lstm(p, x, start, dt):
    """Krause et al. 2016, section 3, with biases."""
    (h, c), out = start, []
    for now in x:
        m = (p["W_m"].dot(now)) * (p["U_m"].dot(h))
        net = {k: p[f"W_{k}"].dot(now) + p[f"U_{k}"].dot(m) + p[f"b_{k}"] for k in "gifo"}
        c = logistic(net["f"]) * c + logistic(net["i"]) * np.tanh(net["g"])
        h = np.tanh(c) * logistic(net["o"])
        out.append(h)
    return out, [h, c]


def recurrent_highway(p, x, start, dt):
    """Zilly et al. 2017, eqs. 6–9: s_l = h_l t_l + s_{l−1} c_l, c = 1 − t, depth 3."""
    (s,), out = start, []
    for now in x:
        for layer in (1, 2, 3):
            r_h, b_h, r_t, b_t = (p[f"{k}_{layer - 1}"] for k in ("R_h", "b_h", "R_t", "b_t"))
            first = 1.0 if layer == 1 else 0.0
            h = np.tanh(first * p["W_h"].dot(now) + r_h.dot(s) + b_h)
            t = logistic(first * p["W_t"].dot(now) + r_t.dot(s) + b_t)
            carry = 1.0 - t
            s = h * t + s * carry
        out.append(s)
    return out, [s]


def antisymmetric_rnn(p, x, start, dt, eps=0.1, gamma=0.01):
    """Chang et al. 2019: h_i gains ε tanh(Σ_j (w_ij − w_ji) h_j − γ h_i + v_i x + b_i)."""
    (h,), out = start, []
    for now in x:
        new = []
        for i in range(len(h)):
            total = p["V"][i].dot(now) + p["b"][i] - gamma * h[i]
            for j in range(len(h)):
                total = total + (p["W"][i, j] - p["W"][j, i]) * h[j]
            new.append(h[i] + eps * np.tanh(total))
        h = np.array(new)
        out.append(h)
    return out, [h]


def lipschitz_rnn(p, x, start, dt, eps=0.1, beta=0.75, gamma=0.001):
    """Erichson et al. 2021: ḣ = A h + tanh(W h + U x + b), A and W as whole matrices."""

    def stable(m):
        identity = np.eye(len(m))
        return (1 - beta) * (m + m.T) + beta * (m - m.T) - gamma * identity

    (h,), out = start, []
    a, w = stable(p["M_a"]), stable(p["M_w"])
    for now in x:
        h = h + eps * (a.dot(h) + np.tanh(w.dot(h) + p["V"].dot(now) + p["b"]))
        out.append(h)
    return out, [h]


def tau_gru(p, x, start, dt, tau=3):
    """Erichson et al. 2022: h_{n+1} of h_n, x_n and h_{n−τ}, with all states in one list."""
    newest, line = start
    history = [*line[::-1], newest]
    began = len(history)
    for now in x:
        h, old = history[-1], history[-1 - tau]
        net = {
            k: p[f"W_{k}"].dot(now) + p[f"U_{k}"].dot(old if k == "z" else h) + p[f"b_{k}"]
            for k in "uzag"
        }
        u, z, a, g = np.tanh(net["u"]), np.tanh(net["z"]), logistic(net["a"]), logistic(net["g"])
        history.append((1.0 - g) * h + g * (u + a * z))
    return history[began:], [history[-1], np.array([history[-2 - k] for k in range(tau)])]


def cfc(p, x, start, dt):
    """Hasani et al. 2022: x(t) = σ(−f t) g + [1 − σ(−f t)] h, three heads on one backbone."""
    (s,), out = start, []
    for now, t in zip(x, dt, strict=True):
        backbone = np.tanh(np.hstack([p["W"], p["U"]]).dot(np.concatenate([now, s])) + p["b"])
        f = p["F"].dot(backbone) + p["b_f"]
        g, h = (np.tanh(p[k.upper()].dot(backbone) + p[f"b_{k}"]) for k in "gh")
        s = np.array([logistic(-f[i] * t) * g[i] + (1 - logistic(-f[i] * t)) * h[i]
                      for i in range(len(s))])  # fmt: skip
        out.append(s)
    return out, [s]


def lru(p, x, start, dt):
    """Orvieto et al. 2023, with complex numbers."""
    s, out = start[0] + 1j * start[1], []
    b, c = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
    eigenvalues = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    gamma = (1 - np.abs(eigenvalues) ** 2) ** 0.5
    for now in x:
        s = np.array([eigenvalues[i] * s[i] + gamma[i] * b[i].dot(now) for i in range(len(s))])
        out.append(c.dot(s).real + p["D"].dot(now))
    return out, [s.real, s.imag]


def slstm(p, x, start, dt, heads=4):
    """Beck et al. 2024, eqs. 8–14, unstabilised: i = exp(ĩ), f = σ(f̃); m scales the start."""
    (h, c, n, m), out = start, []
    c, n, size = c * np.exp(m), n * np.exp(m), len(h) // heads
    for now in x:
        net = {k: p[f"W_{k}"].dot(now) + p[f"b_{k}"] for k in "zifo"}
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            for gate in net:
                net[gate][own] = net[gate][own] + p[f"R_{gate}"][own].dot(h[own])
        i, f, o = np.exp(net["i"]), logistic(net["f"]), logistic(net["o"])
        c = f * c + i * np.tanh(net["z"])
        n = f * n + i
        h = o * (c / n)
        out.append(h)
    return out, [h, c, n]


def mlstm(p, x, start, dt):
    """Beck et al. 2024, eqs. 19–27, unstabilised: h̃ = C q / max(|nᵀq|, 1); m scales the start."""
    (memory, n, m), out = start, []
    memory, n, size = memory * np.exp(m), n * np.exp(m), len(start[1])
    for now in x:
        q, k, v = (p[f"W_{a}"].dot(now) + p[f"b_{a}"] for a in "qkv")
        i, f = np.exp(p["w_i"].dot(now) + p["b_i"]), logistic(p["w_f"].dot(now) + p["b_f"])
        memory = np.array([[f * memory[a, b] + i * v[a] * k[b] for b in range(size)]
                           for a in range(size)])  # fmt: skip
        n = f * n + i * k
        match = n.dot(q)
        match = match if match.real >= 0 else -match  # |·|, kept analytic on each side
        o = logistic(p["W_o"].dot(now) + p["b_o"])
        out.append(o * (memory.dot(q) / (match if match.real > 1 else 1.0)))
    return out, [memory, n]


def lru_in_torch(p, x, start, dt):
    """Orvieto et al. 2023 once more, for torch's own differentiation of complex numbers."""
    s, out = torch.complex(*start), []
    b, c = torch.complex(p["B_re"], p["B_im"]), torch.complex(p["C_re"], p["C_im"])
    eigenvalues = torch.exp(torch.complex(-torch.exp(p["nu"]), torch.exp(p["theta"])))
    gamma = (1 - eigenvalues.abs() ** 2) ** 0.5
    for now in x:
        s = eigenvalues * s + gamma * (b @ now.to(b.dtype))
        out.append((c @ s).real + p["D"] @ now)
    return out, [s.real, s.imag]


PAPERS = {
    second_order: Case("second_order"),
    multiplicative_lstm: Case("multiplicative_lstm"),
    recurrent_highway: Case("recurrent_highway", {"depth": 3}),
    antisymmetric_rnn: Case("antisymmetric_rnn"),
    lipschitz_rnn: Case("lipschitz_rnn"),
    tau_gru: Case("tau_gru", {"tau": 3}),
    cfc: Case("cfc"),
    lru: Case("lru"),
    slstm: Case("slstm", {"heads": 4}, {"hidden": 8}),
    mlstm: Case("mlstm"),
}


# --- outputs and gradients ---


def setting(case: Case) -> dict[str, torch.Tensor]:
    """All that a run depends on, by name: parameters, x, dt where there is one, the start."""
    x, extras = split_input(case, random_input(case, TIME, BATCH))
    start = random_carried(case, BATCH)
    if case.name == "slstm":  # the normaliser is a sum of positive numbers
        start = (*start[:2], start[2].abs() + 0.5, start[3])
    made = {f"p.{name}": value for name, value in random_parameters(case).items()}
    made |= {"x": x} | {name: value.abs() + 0.1 for name, value in extras.items()}
    return made | {f"start.{k}": value for k, value in enumerate(start)}


def of(named, prefix: str):
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def library(case: Case, named) -> list[torch.Tensor]:
    """Outputs (time, batch, size) and last states (batch, …); stabilised ones in plain scale."""
    extras = {"dt": named["dt"]} if "dt" in named else {}
    start = tuple(of(named, "start.").values())
    out, last, _ = run(case.graph, of(named, "p."), named["x"], start, extras=extras)
    if case.name in ("slstm", "mlstm"):
        *rest, m = last
        scale = torch.exp(m)
        last = [
            v * scale.reshape(scale.shape + (1,) * (v.dim() - scale.dim()))
            if state.name in "Cnc"
            else v
            for state, v in zip(case.graph.states, rest, strict=False)
        ]
    return [out, *last]


def paper(program, named, row: int):
    """Outputs and last states of one row by a paper's program."""
    dt = named["dt"][:, row] if "dt" in named else None
    start = [v[row] for v in of(named, "start.").values()]
    out, last = program(of(named, "p."), named["x"][:, row], start, dt)
    return [out, *last]


def random_weights(case: Case, like) -> list[torch.Tensor]:
    numbers = generator(case, 7)
    return [torch.randn(v.shape, generator=numbers, dtype=v.dtype) for v in like]


def complex_steps(program, named, weights) -> dict[str, np.ndarray]:
    """The gradient of the weighted sum of all rows' outputs and last states, entry by entry."""
    arrays = {k: v.numpy().astype(complex) for k, v in named.items()}
    weights = [w.numpy() for w in weights]

    def weighted(row):
        out, *last = paper(program, arrays, row)
        total = np.sum(weights[0][:, row] * np.stack(out))
        return total + sum(np.sum(w[row] * v) for w, v in zip(weights[1:], last, strict=True))

    gradients = {}
    for name, array in arrays.items():
        gradient = gradients[name] = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            rows = range(BATCH)
            if not name.startswith("p."):  # an entry of one row moves that row only
                rows = [place[0 if name.startswith("start.") else 1]]
            kept = array[place]
            array[place] = kept + 1j * EPS
            gradient[place] = sum(weighted(row).imag for row in rows) / EPS
            array[place] = kept
    return gradients


def complex_autograd(program, named, weights) -> dict[str, np.ndarray]:
    leaves = {k: v.clone().requires_grad_() for k, v in named.items()}
    total = torch.zeros((), dtype=torch.float64)
    for row in range(BATCH):
        out, *last = paper(program, leaves, row)
        total = total + (weights[0][:, row] * torch.stack(out)).sum()
        total = total + sum((w[row] * v).sum() for w, v in zip(weights[1:], last, strict=True))
    gradients = torch.autograd.grad(total, tuple(leaves.values()))
    return {k: g.numpy() for k, g in zip(leaves, gradients, strict=True)}


def far(ours, theirs) -> float:
    """The largest difference, relative to the largest entry; infinite for NaN and for shapes."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if ours.shape != theirs.shape or not np.isfinite(theirs).all():
        return np.inf
    largest = np.abs(theirs).max()
    difference = np.abs(ours - theirs).max()
    if largest == 0:
        return 0.0 if difference == 0 else np.inf
    return difference / largest if difference == difference else np.inf


def output_deviations(program, case: Case) -> dict[str, float]:
    """How far each tensor of the run is from the paper's program."""
    named = setting(case)
    arrays = {k: v.numpy() for k, v in named.items()}
    rows = [paper(program, arrays, row) for row in range(BATCH)]
    theirs = [np.stack([np.stack(row[0]) for row in rows], 1)]
    theirs += [np.stack(values) for values in zip(*(row[1:] for row in rows), strict=True)]
    ours = library(case, named)
    names = ["out", *(f"last.{k}" for k in range(len(ours) - 1))]
    return {n: far(o, t) for n, o, t in zip(names, ours, theirs, strict=True)}


def gradient_deviations(program, case: Case) -> dict[str, float]:
    """How far the gradient by each parameter, input and initial state is from the program's."""
    named = {k: v.requires_grad_() for k, v in setting(case).items()}
    values = library(case, named)
    weights = random_weights(case, values)
    total = sum((w * v).sum() for w, v in zip(weights, values, strict=True))
    ours = torch.autograd.grad(total, tuple(named.values()))
    plain = {k: v.detach() for k, v in named.items()}
    if program is lru:
        theirs = complex_autograd(lru_in_torch, plain, weights)
    else:
        theirs = complex_steps(program, plain, weights)
    return {k: far(o, theirs[k]) for k, o in zip(named, ours, strict=True)}


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_outputs_are_those_of_the_paper(program):
    deviations = output_deviations(program, PAPERS[program])
    assert max(deviations.values()) <= ORACLE[torch.float64], deviations


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_gradients_are_those_of_the_paper(program):
    deviations = gradient_deviations(program, PAPERS[program])
    assert max(deviations.values()) <= ORACLE[torch.float64], deviations


def test_complex_numbers_in_torch_are_those_of_numpy():
    named = setting(PAPERS[lru])
    arrays = {k: v.numpy() for k, v in named.items()}
    one, other = paper(lru_in_torch, named, 0), paper(lru, arrays, 0)
    assert far(torch.stack(one[0]), np.stack(other[0])) < 1e-14


@pytest.mark.parametrize("program", PAPERS, ids=lambda program: program.__name__)
def test_a_body_has_at_most_twelve_lines(program):
    source = textwrap.dedent(inspect.getsource(elman.cells.get(program.__name__).body))
    (function,) = ast.parse(source).body
    first, *rest = function.body
    assert isinstance(first, ast.Expr)
    assert isinstance(first.value, ast.Constant)  # the docstring, which does not count
    assert rest[-1].end_lineno - rest[0].lineno + 1 <= 12


# --- tools of the laws ---


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def altered(case: Case, **values) -> dict[str, torch.Tensor]:
    """Random parameters of a case, some set to a constant or to a tensor."""
    parameters = random_parameters(case)
    for name, value in values.items():
        parameters[name] = torch.zeros_like(parameters[name]) + value
    return parameters


def started(case: Case, batch: int = 1, dtype=torch.float64):
    return initial_carried(case.graph, case.all_sizes, batch, dtype=dtype)


def step_jacobian(case: Case, parameters, x, h) -> torch.Tensor:
    """∂hₜ/∂hₜ₋₁ of a cell of one state, at one row's x and h."""

    def after(h):
        return run(case.graph, parameters, x[None, None], (h[None],))[1][0][0]

    return jacobian(after, h)


# --- second order ---


def test_second_order_on_symbols_is_a_matrix_per_symbol():
    case = Case("second_order", {"f": "linear"})
    p = altered(case, b=0.0)
    symbols = torch.randint(3, (12,), generator=generator(case))
    (h,) = random_carried(case, 1)
    out, _, _ = run(case.graph, p, torch.eye(3).double()[symbols][:, None], (h,))
    state = h[0]
    for t, symbol in enumerate(symbols):
        state = p["T"][:, :, symbol] @ state
        assert_close(out[t, 0], state)


def test_second_order_runs_a_parity_automaton_exactly():
    """Units: even, odd; symbols: 0 keeps, 1 changes. Weights ±100 from one unit to the next."""
    case = Case("second_order", sizes={"input": 2, "hidden": 2})
    weights = torch.full((2, 2, 2), -100.0, dtype=torch.float64)
    for state in (0, 1):
        for symbol in (0, 1):
            weights[(state + symbol) % 2, state, symbol] = 100.0
    bits = torch.randint(2, (500,), generator=generator(case))
    x, even = torch.eye(2).double()[bits][:, None], tensor([1.0, 0.0])
    out, _, _ = run(case.graph, {"T": weights, "b": torch.zeros(2).double()}, x, (even,))
    parity = bits.cumsum(0) % 2
    assert 100 < parity.sum() < 400
    assert torch.equal(out[:, 0].argmax(-1), parity)
    assert_close(out[:, 0], torch.eye(2).double()[parity], {torch.float64: 1e-40})


# --- multiplicative LSTM ---


def test_multiplicative_lstm_with_a_multiplier_of_one_is_the_lstm():
    """Behind a constant feature W_m x = 1, so that m = U_m h: an LSTM with U U_m for U."""
    case = Case("multiplicative_lstm")
    one = torch.zeros(4, 3, dtype=torch.float64)
    one[:, 2] = 1.0
    p = altered(case, W_m=one)
    x, carried = random_input(case, TIME, BATCH), random_carried(case, BATCH)
    x[..., 2] = 1.0
    plain = {f"{k}_{g}": p[f"{k}_{g}"] for k in "WUb" for g in "ifgo"}
    plain |= {f"U_{g}": p[f"U_{g}"] @ p["U_m"] for g in "ifgo"}
    ours = run(case.graph, p, x, carried)[:2]
    lstm = run(Case("lstm").graph, plain, x, carried)[:2]
    assert_close(ours[0], lstm[0])
    assert_close(ours[1], lstm[1])


def test_multiplicative_lstm_that_reads_zero_does_not_see_its_past():
    """m = (W_m 0) ⊙ … = 0: no bias stands in the factor."""
    case = Case("multiplicative_lstm")
    p, x = random_parameters(case), torch.zeros(1, 1, 3, dtype=torch.float64)
    (h, c), (other, _) = random_carried(case, 1), random_carried(case, 1, seed=5)
    assert_same_bits(run(case.graph, p, x, (h, c))[0], run(case.graph, p, x, (other, c))[0])


# --- recurrent highway ---


def test_recurrent_highway_of_depth_one_is_one_highway_layer():
    case = Case("recurrent_highway", {"depth": 1})
    p, x, (h,) = random_parameters(case), random_input(case, 1, BATCH), random_carried(case, BATCH)
    assert set(p) == {"W_h", "W_t", "R_h_0", "b_h_0", "R_t_0", "b_t_0"}
    new = torch.tanh(x[0] @ p["W_h"].T + h @ p["R_h_0"].T + p["b_h_0"])
    t = torch.sigmoid(x[0] @ p["W_t"].T + h @ p["R_t_0"].T + p["b_t_0"])
    assert_close(run(case.graph, p, x, (h,))[0][0], new * t + h * (1 - t))


def test_recurrent_highway_keeps_its_state_where_no_layer_transforms():
    case = Case("recurrent_highway")
    p = altered(case, b_t_0=SHUT, b_t_1=SHUT, b_t_2=SHUT)
    (h,) = random_carried(case, BATCH)
    out, _, _ = run(case.graph, p, random_input(case, TIME, BATCH), (h,))
    assert_same_bits(out, h.expand(TIME, -1, -1))


def test_recurrent_highway_reads_in_its_first_layer_only():
    case = Case("recurrent_highway")
    p, (h,) = altered(case, b_t_0=SHUT), random_carried(case, BATCH)
    one, other = (
        run(case.graph, p, random_input(case, 1, BATCH, seed), (h,))[0] for seed in (1, 2)
    )
    assert_same_bits(one, other)
    assert (one[0] - h).abs().max() > 0.01


# --- antisymmetric ---


def test_antisymmetric_part_turns_and_does_not_grow():
    """Everywhere ε⁻¹(J − I) = diag(tanh′)(W − Wᵀ), whose eigenvalues are imaginary."""
    eps = 0.1
    case = Case("antisymmetric_rnn", {"gamma": 0.0, "eps": eps})
    p, (h,) = random_parameters(case), random_carried(case, 1)
    turn = (step_jacobian(case, p, random_input(case, 1, 1)[0, 0], h[0]) - torch.eye(4)) / eps
    turns = torch.linalg.eigvals(turn)
    assert turns.real.abs().max() < 1e-12
    assert turns.imag.abs().max() > 0.3
    still = altered(case, b=0.0)
    zero = torch.zeros(4, dtype=torch.float64)
    step = step_jacobian(case, still, zero[:3], zero)
    skew = p["W"] - p["W"].T
    assert_close(step, torch.eye(4) + eps * skew)
    fastest = torch.linalg.matrix_norm(skew, 2)
    gains = torch.linalg.svdvals(step)
    assert_close(gains.max(), torch.sqrt(1 + (eps * fastest) ** 2))
    assert gains.min() > 1 - 1e-12  # a skew part never shrinks what passes


def test_antisymmetric_damping_moves_every_eigenvalue_by_gamma():
    free, damped = (Case("antisymmetric_rnn", {"gamma": g, "eps": 0.1}) for g in (0.0, 0.25))
    p, zero = altered(free, b=0.0), torch.zeros(4, dtype=torch.float64)
    difference = step_jacobian(free, p, zero[:3], zero) - step_jacobian(damped, p, zero[:3], zero)
    assert_close(difference, 0.1 * 0.25 * torch.eye(4).double())


# --- Lipschitz ---


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
def test_lipschitz_matrices_have_the_symmetric_part_that_beta_states(beta):
    """Far outside of tanh the Jacobian shows A; at its middle, with A taken off, it shows W."""
    case = Case("lipschitz_rnn", {"beta": beta, "gamma_a": 0.02, "gamma_w": 0.03, "eps": 0.5})
    zero, eye = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    far_out, middle = altered(case, b=OPEN), altered(case, b=0.0)
    a = (step_jacobian(case, far_out, zero[:3], zero) - eye) / 0.5
    w = (step_jacobian(case, middle, zero[:3], zero) - eye) / 0.5 - a
    for matrix, m, gamma in ((a, far_out["M_a"], 0.02), (w, far_out["M_w"], 0.03)):
        assert_close((matrix + matrix.T) / 2, (1 - beta) * (m + m.T) - gamma * eye)
        assert_close((matrix - matrix.T) / 2, beta * (m - m.T))
    if beta == 1.0:  # then all eigenvalues of A lie at the distance γ left of the imaginary axis
        assert (torch.linalg.eigvals(a).real + 0.02).abs().max() < 1e-12


# --- τ-GRU ---


def test_tau_gru_with_the_gate_shut_keeps_its_state():
    case = PAPERS[tau_gru]
    carried = random_carried(case, BATCH)
    p, x = altered(case, b_g=SHUT), random_input(case, TIME, BATCH)
    out, _, _ = run(case.graph, p, x, carried)
    assert_same_bits(out, carried[0].expand(TIME, -1, -1))


def test_tau_gru_without_weight_on_the_delay_is_a_gated_unit():
    """a = 0: h moves by the gate g to tanh(W x + U h + b): the GRU with its update gate only."""
    case = PAPERS[tau_gru]
    p, x, carried = altered(case, b_a=SHUT), random_input(case, TIME, 2), random_carried(case, 2)
    gated = {f"{k}_n": p[f"{k}_u"] for k in "WUb"} | {f"{k}_z": -p[f"{k}_g"] for k in "WUb"}
    plain = run(Case("gru_update_only").graph, gated, x, carried[:1])
    assert_close(run(case.graph, p, x, carried)[0], plain[0])


@pytest.mark.parametrize("tau", [0, 1, 4])
def test_tau_gru_echoes_a_pulse_from_tau_states_before_the_last(tau):
    """Only the delayed state is fed back: a pulse comes again each τ + 1 steps, never between."""
    case = Case("tau_gru", {"tau": tau})
    p = altered(case, b_a=OPEN, b_g=OPEN, U_u=0.0, b_u=0.0, W_z=0.0, b_z=0.0)
    x = torch.zeros(14, 1, 3, dtype=torch.float64)
    x[1] = 1.0
    out, _, _ = run(case.graph, p, x, started(case))
    heard = out[:, 0].abs().amax(-1).nonzero().flatten().tolist()
    assert heard == list(range(1, 14, tau + 1))
    assert_close(out[2 + tau, 0], torch.tanh(p["U_z"] @ out[1, 0]))


# --- CfC ---


def heads_of_cfc(p, x, h):
    z = torch.tanh(x @ p["W"].T + h @ p["U"].T + p["b"])
    return (torch.tanh(z @ p[k].T + p[f"b_{k.lower()}"]) for k in "GH")


def test_cfc_goes_from_the_mean_of_its_heads_to_one_of_them():
    case = Case("cfc")
    x, _ = split_input(case, random_input(case, 1, BATCH))
    (h,) = random_carried(case, BATCH)
    for b_f, late in ((50.0, 1), (-50.0, 0)):  # f > 0 ends at the head H, f < 0 at G
        p = altered(case, b_f=b_f)
        ends = tuple(heads_of_cfc(p, x[0], h))

        def at(time, p=p):
            dt = torch.full((1, BATCH), time, dtype=torch.float64)
            return run(case.graph, p, x, (h,), extras={"dt": dt})[0][0]

        assert_close(at(0.0), (ends[0] + ends[1]) / 2)
        assert_close(at(1e-14), (ends[0] + ends[1]) / 2)
        assert_close(at(1e6), ends[late])
    assert (ends[0] - ends[1]).abs().max() > 0.1


def test_cfc_with_equal_times_has_them_in_its_rate():
    """dt times the rate is all there is: a clock twice as fast is a rate half as large."""
    case = Case("cfc")
    x, _ = split_input(case, random_input(case, TIME, BATCH))
    p, start = random_parameters(case), random_carried(case, BATCH)
    slow, even = torch.full((TIME, BATCH), 0.5), torch.ones(TIME, BATCH)
    halved = p | {"F": p["F"] / 2, "b_f": p["b_f"] / 2}
    one = run(case.graph, p, x, start, extras={"dt": slow.double()})[:2]
    other = run(case.graph, halved, x, start, extras={"dt": even.double()})[:2]
    assert_close(one[0], other[0])
    uneven = slow.double()
    uneven[3, 1] = 2.0  # of one row and step: nothing before it and no other row changes
    changed = run(case.graph, p, x, start, extras={"dt": uneven})[0]
    moved = (changed - one[0]).abs().amax(-1) > 0
    assert moved.nonzero().tolist() == [[t, 1] for t in range(3, TIME)]


# --- LRU ---


def test_lru_eigenvalues_lie_inside_of_the_unit_circle():
    """What is left of a state after one silent step, at ν from very slow to very fast."""
    case = Case("lru", sizes={"hidden": 71})
    p = altered(case, nu=torch.linspace(-30, 5, 71), theta=torch.linspace(-6, 6, 71))
    start = random_carried(case, 1)
    zero = torch.zeros(1, 1, 3, dtype=torch.float64)
    _, last, _ = run(case.graph, p, zero, start)
    turned = torch.complex(*last) / torch.complex(*start)
    assert (torch.hypot(*last) < torch.hypot(*start)).all()
    wanted = torch.exp(torch.complex(-torch.exp(p["nu"]), torch.exp(p["theta"])))
    assert far(turned[0].numpy(), wanted.numpy()) < 1e-12


def test_lru_of_long_memory_is_as_exact_in_float32():
    """1 − |λ|² is small where the memory is long, and must not be a difference of near equals."""
    case = Case("lru")
    x = random_input(case, 20, 2)
    for nu in (-5.0, -10.0, -17.0, -30.0):
        found = []
        for dtype in (torch.float64, torch.float32):
            p = {k: v.to(dtype).requires_grad_() for k, v in altered(case, nu=nu).items()}
            _, (re, im), _ = run(case.graph, p, x.to(dtype), started(case, 2, dtype))
            gradients = torch.autograd.grad((re + im).sum(), (p["nu"], p["B_re"]))
            found.append((re.detach(), im.detach(), *gradients))
        exact, rounded = found
        for one, other in zip(rounded, exact, strict=True):
            assert far(one, other) < 1e-5


def kernel_of_lru(p, length: int):
    """K_k = Re(C λ^k γ B), with D added at k = 0, in closed form."""
    p = {k: v.numpy() for k, v in p.items()}
    b, c = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
    rate = -np.exp(p["nu"]) + 1j * np.exp(p["theta"])
    gamma = np.sqrt(-np.expm1(2 * rate.real))
    kernel = [((c * np.exp(rate * k) * gamma) @ b).real for k in range(length)]
    kernel[0] = kernel[0] + p["D"]
    return np.stack(kernel)


def test_lru_is_a_convolution():
    case, time = Case("lru"), 40
    p, x = random_parameters(case), random_input(case, time, BATCH)
    out, _, _ = run(case.graph, p, x, started(case, BATCH))
    kernel = kernel_of_lru(p, time)
    convolved = np.stack(
        [sum(x[t - k].numpy() @ kernel[k].T for k in range(t + 1)) for t in range(time)]
    )
    assert far(out, convolved) < 1e-12


def test_lru_answers_an_impulse_with_its_kernel():
    case, time = Case("lru"), 25
    p = random_parameters(case)
    x = torch.zeros(time, 3, 3, dtype=torch.float64)
    x[0] = torch.eye(3)
    out, _, _ = run(case.graph, p, x, started(case, 3))
    assert far(out, kernel_of_lru(p, time).swapaxes(1, 2)) < 1e-12


# --- sLSTM ---


def test_slstm_heads_do_not_see_each_other():
    """Over three steps, all states by all states: nothing outside of the four blocks."""
    case = PAPERS[slstm]
    named = setting(case)
    p, start = of(named, "p."), tuple(v[:1] for v in of(named, "start.").values())

    def last(*start):
        return torch.cat(run(case.graph, p, named["x"][:3, :1], start)[1])

    for part in jacobian(last, start):  # (4 states, 8 units) by (1 row, 8 units)
        blocks = part[:, :, 0].reshape(4, 4, 2, 4, 2).abs().amax((0, 2, 4))
        assert_same_bits(blocks * (1 - torch.eye(4).double()), torch.zeros(4, 4).double())
    by_h = jacobian(last, start)[0][:, :, 0].reshape(4, 4, 2, 4, 2)[0].abs()
    assert all((by_h[k, :, k] > 1e-6).all() for k in range(4))  # and inside each sees each


def test_slstm_stabiliser_cancels():
    case = PAPERS[slstm]
    named = setting(case)
    p, x, (h, c, n, m) = of(named, "p."), named["x"], of(named, "start.").values()
    plain, _, _ = run(case.graph, p, x, (h, c, n, m))
    for by in (-3.0, 0.7, 20.0):
        scale = torch.exp(tensor(-by))
        moved, _, _ = run(case.graph, p, x, (h, c * scale, n * scale, m + by))
        assert_close(moved, plain)
    zero = torch.zeros_like(c)
    plain, _, _ = run(case.graph, p, x, (h, zero, zero, zero))
    for by in (-3.0, 0.7, 20.0):  # with an empty memory m alone says nothing
        assert_close(run(case.graph, p, x, (h, zero, zero, zero + by))[0], plain)


EXTREMES = [(i, f) for i in (-500.0, 0.0, 500.0) for f in (-500.0, 0.0, 500.0)]


def finite_at(case: Case, b_i: float, b_f: float, dtype):
    """Outputs and gradients of a run from nothing, with the gates held at these values."""
    p = {k: v.to(dtype).requires_grad_() for k, v in altered(case, b_i=b_i, b_f=b_f).items()}
    x = random_input(case, 60, 2, dtype=dtype)
    out, last, _ = run(case.graph, p, x, started(case, 2, dtype))
    assert all(v.isfinite().all() for v in (out, *last))
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), tuple(p.values())))
    return p, x, out.detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("b_i", "b_f"), EXTREMES)
def test_slstm_does_not_overflow(b_i, b_f, dtype):
    """c/n is a mean of values inside of (−1, 1), whatever the gates say."""
    case = Case("slstm")
    _, _, out = finite_at(case, b_i, b_f, dtype)
    assert out.abs().max() < 1
    assert out.abs().max() > 0.01


# --- mLSTM ---


def test_mlstm_gives_back_the_value_of_an_orthonormal_key():
    """i = f = 1: three values under three keys, one a step; then each key asks for its own."""
    case = Case("mlstm", sizes={"input": 6, "hidden": 3})
    numbers = generator(case)
    keys = torch.linalg.qr(torch.randn(3, 3, generator=numbers, dtype=torch.float64))[0]
    values = torch.randn(3, 3, generator=numbers, dtype=torch.float64)  # one a row
    none = torch.zeros(3, 3, dtype=torch.float64)
    gates = {"w_i": 0.0, "b_i": 0.0, "w_f": 0.0, "b_f": OPEN, "W_o": 0.0, "b_o": OPEN}
    p = altered(
        case, **gates, b_q=0.0, b_k=0.0, b_v=0.0,
        W_k=torch.cat([keys.T, none], 1), W_v=torch.cat([values.T, none], 1),
        W_q=torch.cat([none, keys.T], 1),
    )  # fmt: skip
    order = [0, 1, 2, 3, 5, 4, 3]
    x = torch.eye(6).double()[order][:, None]
    out, (memory, n, _), _ = run(case.graph, p, x, started(case))
    assert_close(out[3:, 0], values[[0, 2, 1, 0]])
    assert_close(memory[0], sum(torch.outer(values[k], keys[k]) for k in range(3)))
    assert_close(n[0], keys.sum(0))


def test_mlstm_stabiliser_cancels():
    case = Case("mlstm")
    named = setting(case)
    p, x, (memory, n, m) = of(named, "p."), named["x"], of(named, "start.").values()
    plain, _, _ = run(case.graph, p, x, (memory, n, m))
    for by in (-3.0, 0.7, 20.0):
        scale = torch.exp(tensor(-by))
        moved, _, _ = run(case.graph, p, x, (memory * scale, n * scale, m + by))
        assert_close(moved, plain)


def test_mlstm_oracle_stands_on_both_sides_of_its_bound():
    """Else one branch of max(|nᵀq|, 1), or one sign of nᵀq, would be untested above."""
    case = Case("mlstm")
    named = setting(case)
    p, x = of(named, "p."), named["x"]
    _, _, (_, n, m) = run(
        case.graph, p, x, tuple(of(named, "start.").values()), return_states=True
    )  # fmt: skip
    match = (n * (x @ p["W_q"].T + p["b_q"])).sum(-1) * torch.exp(m)
    assert (match > 1).any()
    assert (match < -1).any()
    assert (match.abs() < 1).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("b_i", "b_f"), EXTREMES)
def test_mlstm_does_not_overflow(b_i, b_f, dtype):
    finite_at(Case("mlstm"), b_i, b_f, dtype)
