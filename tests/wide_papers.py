"""Programs of the papers of the wide cells, and what compares the cells with them.

The programs are NumPy loops over rows, steps, units and heads, which share nothing with the
library but the parameters. Their gradients are complex steps, Im f(θ + iε)/ε, exact to rounding
where a program is analytic; the complex recurrence (lru) is written once more in torch instead.
sLSTM and mLSTM stand here without their stabiliser, in plain exponentials.
"""

from __future__ import annotations

import numpy as np
import torch
from cases import Case, generator, random_carried, random_input, random_parameters, split_input

from elman.backends.reference import run

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
