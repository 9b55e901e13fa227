"""Windows of one step learn by g = δᵀM̂, with M̂ the approximate influence on the new state: the
gradients of RFLO, SnAp-1 and UORO as they were published, by code in numpy of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import elman

INPUT, UNITS, STEPS = 2, 3, 9
TIGHT = {"rtol": 1e-12, "atol": 1e-14}


@elman.cell
def leaky(p, x, h, *, tau=3.0):
    """h' = (1 − 1/τ) h + (1/τ) tanh(U h + W x + b)."""
    return (1.0 - 1.0 / tau) * h + (1.0 / tau) * torch.tanh(p.U @ h + p.W @ x + p.b)


@elman.cell(output=True)
def apart(p, x, h):
    """The simple network, whose output is none of its states."""
    new = torch.tanh(p.U @ h + p.W @ x + p.b)
    return 2.0 * new, new


def series(width=INPUT, batch=1, seed=51):
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(STEPS, batch, width, generator=numbers, dtype=torch.float64)
    return x, torch.randn(STEPS, batch, UNITS, generator=numbers, dtype=torch.float64)


def layer_of(cell, learning, width=INPUT, layers=1, **options):
    torch.manual_seed(52)
    return elman.Recurrent(
        cell, width, UNITS, layers, learning=learning, dtype=torch.float64, **options
    )


def learned(layer, x, weights, *, whole=False, **marks):
    """The gradients of a loss at every step: Σ_t w_t · sin(out_t)."""
    layer.zero_grad()
    if whole:
        out, _ = layer(x, **marks)
        (out.sin() * weights).sum().backward()
    else:
        state = None
        for now, weight in zip(x, weights, strict=True):
            out, state = layer(now[None], state)
            (out[0].sin() * weight).sum().backward()
    return {name: p.grad.numpy().copy() for name, p in layer.named_parameters()}


def own(layer, number=0):
    """W, U and b of a layer, by numpy."""
    end = f"_l{number}"
    named = {n.removesuffix(end): p for n, p in layer.named_parameters() if n.endswith(end)}
    return {n: p.detach().numpy() for n, p in named.items()}


class Simple:
    """h' = λ h + κ tanh(W x + U h + b), and what RFLO or SnAp-1 keeps of W, U and b."""

    def __init__(self, weights, method, leak=0.0):
        self.w, self.method, self.leak = weights, method, leak
        units = len(weights["b"])
        self.h = np.zeros(units)
        self.kept = {n: np.zeros((units, v.size // units)) for n, v in weights.items()}
        self.g = dict(self.kept)

    def step(self, x):
        f = np.tanh(self.w["W"] @ x + self.w["U"] @ self.h + self.w["b"])
        self.slope = (1 - self.leak) * (1 - f**2)
        self.jacobian = self.leak * np.eye(len(f)) + self.slope[:, None] * self.w["U"]
        way = np.diag(self.jacobian) if self.method == "snap1" else self.leak
        way = np.broadcast_to(way, f.shape)[:, None]
        seen = {"W": x[None], "U": self.h[None], "b": np.ones((1, 1))}
        self.before = self.kept
        self.now = {n: self.slope[:, None] * v for n, v in seen.items()}
        self.kept = {n: way * self.kept[n] + self.now[n] for n in seen}
        self.h = self.leak * self.h + (1 - self.leak) * f
        return self.h

    def learn(self, delta):
        """g += δᵀM̂; the cotangent of x."""
        self.g = {n: self.g[n] + delta[:, None] * self.kept[n] for n in self.g}
        return self.w["W"].T @ (self.slope * delta)

    def learn_before(self, delta):
        """g += δᵀI + (δᵀJ)M̂ of the step before."""
        back = self.jacobian.T @ delta
        for n in self.g:
            self.g[n] = self.g[n] + delta[:, None] * self.now[n] + back[:, None] * self.before[n]


def same(found, layers):
    for number, one in enumerate(layers):
        for name, want in one.g.items():
            got = found[f"{name}_l{number}"]
            np.testing.assert_allclose(got, np.reshape(want, got.shape), **TIGHT, err_msg=name)


@pytest.mark.parametrize("whole", [False, True], ids=["calls of one step", "one call"])
@pytest.mark.parametrize("method", ["snap1", "rflo"])
@pytest.mark.parametrize(("cell", "leak"), [("simple", 0.0), (leaky, 2 / 3)], ids=["0", "leak"])
def test_simple_and_leaky_networks(cell, leak, method, whole):
    layer, (x, weights) = layer_of(cell, elman.RTRL(method)), series()
    other = Simple(own(layer), method, leak)
    for now, weight in zip(x[:, 0].numpy(), weights[:, 0].numpy(), strict=True):
        other.learn(np.cos(other.step(now)) * weight)
    same(learned(layer, x, weights, whole=whole), [other])


def test_rflo_of_a_network_without_leak_is_a_window_alone():
    layer, (x, weights) = layer_of("simple", elman.RTRL("rflo")), series()
    found = learned(layer, x, weights)
    layer.set_learning(elman.BPTT(window=1))
    for name, want in learned(layer, x, weights, whole=True).items():
        np.testing.assert_allclose(found[name], want, **TIGHT)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("method", ["snap1", "rflo"])
def test_layers_of_a_stack_have_the_credit_of_this_step_between_them(method, residual):
    layer = layer_of(leaky, elman.RTRL(method), UNITS, 2, residual=residual)
    x, weights = series(UNITS)
    lower, upper = (Simple(own(layer, n), method, 2 / 3) for n in range(2))
    for now, weight in zip(x[:, 0].numpy(), weights[:, 0].numpy(), strict=True):
        below = lower.step(now)
        out = upper.step(below) + (below if residual else 0)
        error = np.cos(out) * weight
        lower.learn(upper.learn(error) + (error if residual else 0))
    same(learned(layer, x, weights), [lower, upper])
    same(learned(layer, x, weights, whole=True), [lower, upper])


def test_modules_below_have_the_credit_of_this_step():
    torch.manual_seed(53)
    dense = torch.nn.Linear(INPUT, INPUT).double()
    layer = layer_of("simple", None)
    chain = elman.Chain(dense, torch.nn.Tanh(), layer, learning=elman.RTRL("snap1"))
    x, weights = series()
    other, of_weight, of_bias = Simple(own(layer), "snap1"), 0.0, 0.0
    for now, weight in zip(x[:, 0].numpy(), weights[:, 0].numpy(), strict=True):
        y = np.tanh(dense.weight.detach().numpy() @ now + dense.bias.detach().numpy())
        back = other.learn(np.cos(other.step(y)) * weight) * (1 - y**2)
        of_weight, of_bias = of_weight + back[:, None] * now, of_bias + back
    found = learned(chain, x, weights)
    np.testing.assert_allclose(found["links.0.weight"], of_weight, **TIGHT)
    np.testing.assert_allclose(found["links.0.bias"], of_bias, **TIGHT)
    same({n.removeprefix("links.2."): g for n, g in found.items()}, [other])


@pytest.mark.parametrize("method", ["snap1", "rflo"])
def test_an_output_that_is_no_state_keeps_the_form_of_a_window(method):
    layer, (x, weights) = layer_of(apart, elman.RTRL(method)), series()
    other = Simple(own(layer), method)
    for now, weight in zip(x[:, 0].numpy(), weights[:, 0].numpy(), strict=True):
        other.learn_before(2 * np.cos(2 * other.step(now)) * weight)
    same(learned(layer, x, weights), [other])
    assert "output is no state" in layer.explain()


@pytest.mark.parametrize("method", ["snap1", "rflo", "exact"])
def test_rows_that_end_and_begin_anew_are_streams_of_their_own(method):
    layer = layer_of("lstm", elman.RTRL(method), layers=2)
    x, weights = series(batch=3)
    lengths, resets = torch.tensor([9, 4, 6]), torch.zeros(STEPS, 3, dtype=torch.bool)
    resets[3, 2] = resets[5, 0] = True
    found = learned(layer, x, weights, whole=True, lengths=lengths, resets=resets)
    pieces = [(0, 0, 5), (0, 5, 9), (1, 0, 4), (2, 0, 3), (2, 3, 6)]
    total = {}
    for row, start, stop in pieces:
        one = slice(start, stop), slice(row, row + 1)
        for name, g in learned(layer, x[one], weights[one]).items():
            total[name] = total.get(name, 0) + g
    for name, want in total.items():
        np.testing.assert_allclose(found[name], want, rtol=1e-11, atol=1e-13, err_msg=name)


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def test_snap1_of_an_lstm():
    """M̂ ← P ⊙ (J M̂ + I) with the whole J, on s = (h, c); W_o has no entry on c."""
    layer, (x, weights) = layer_of("lstm", elman.RTRL("snap1")), series()
    w = own(layer)
    h, c, n = np.zeros(UNITS), np.zeros(UNITS), UNITS
    kept = {name: np.zeros((2 * n, *v.shape)) for name, v in w.items()}
    g = {name: np.zeros(v.shape) for name, v in w.items()}
    for now, weight in zip(x[:, 0].numpy(), weights[:, 0].numpy(), strict=True):
        sums = {k: w["W_" + k] @ now + w["U_" + k] @ h + w["b_" + k] for k in "ifgo"}
        i, f, o = (sigmoid(sums[k]) for k in "ifo")
        new = np.tanh(sums["g"])
        state = f * c + i * new
        of_c = {"i": new * i * (1 - i), "f": c * f * (1 - f), "g": i * (1 - new**2), "o": 0 * o}
        slope = o * (1 - np.tanh(state) ** 2)
        of_h = {k: slope * of_c[k] for k in "ifg"} | {"o": np.tanh(state) * o * (1 - o)}
        onto_c = np.hstack([sum(of_c[k][:, None] * w["U_" + k] for k in "ifg"), np.diag(f)])
        onto_h = slope[:, None] * onto_c
        onto_h[:, :n] += of_h["o"][:, None] * w["U_o"]
        jacobian = np.vstack([onto_h, onto_c])
        seen = {"W": now, "U": h, "b": None}
        for name in w:
            kind, gate = name.split("_")
            immediate, pattern = np.zeros_like(kept[name]), np.zeros(kept[name].shape, bool)
            for unit in range(n):
                v = 1.0 if seen[kind] is None else seen[kind]
                immediate[unit, unit] = of_h[gate][unit] * v
                immediate[n + unit, unit] = of_c[gate][unit] * v
                pattern[unit, unit], pattern[n + unit, unit] = True, gate != "o"
            moved = np.tensordot(jacobian, kept[name], 1) + immediate
            kept[name] = np.where(pattern, moved, 0.0)
        h, c = o * np.tanh(state), state
        delta = np.concatenate([np.cos(h) * weight, np.zeros(n)])
        g = {name: g[name] + np.tensordot(delta, kept[name], 1) for name in w}
    for whole in (False, True):
        found = learned(layer, x, weights, whole=whole)
        for name, want in g.items():
            np.testing.assert_allclose(found[f"{name}_l0"], want, **TIGHT, err_msg=name)


@pytest.mark.parametrize("cell", ["simple", apart], ids=["output is the state", "output apart"])
def test_uoro_for_the_signs_that_were_drawn(cell):
    """s̃ ← ρ₀ J s̃ + ρ₁ ν, θ̃ ← θ̃/ρ₀ + νᵀI/ρ₁ and g = (δᵀs̃) θ̃."""
    layer, (x, weights) = layer_of(cell, elman.RTRL("uoro")), series()
    w, scale = own(layer), 1 if cell == "simple" else 2
    torch.manual_seed(54)
    signs = [torch.randint(0, 2, (1, UNITS))[0].numpy() * 2.0 - 1.0 for _ in range(STEPS)]
    h, s, t, g = np.zeros(UNITS), np.zeros(UNITS), np.zeros(UNITS * (INPUT + UNITS + 1)), 0.0
    for now, weight, sign in zip(x[:, 0].numpy(), weights[:, 0].numpy(), signs, strict=True):
        seen, before = np.concatenate([now, h, [1.0]]), (s, t)
        h = np.tanh(w["W"] @ now + w["U"] @ h + w["b"])
        slope = 1 - h**2
        moved, own_part = slope * (w["U"] @ s), np.outer(sign * slope, seen).ravel()
        first = np.sqrt(np.linalg.norm(t) / np.linalg.norm(moved)) if moved.any() else 0.0
        second = np.sqrt(np.linalg.norm(own_part) / np.linalg.norm(sign))
        s = first * moved + second * sign
        t = (t / first if first else 0.0) + own_part / second
        delta = scale * np.cos(scale * h) * weight
        if cell == "simple":
            g = g + (delta @ s) * t
        else:
            back = w["U"].T @ (slope * delta)
            g = g + np.outer(delta * slope, seen).ravel() + (back @ before[0]) * before[1]
    torch.manual_seed(54)
    found = learned(layer, x, weights)
    want = dict(zip("WUb", np.split(g.reshape(UNITS, -1), [INPUT, INPUT + UNITS], 1), strict=True))
    for name, value in want.items():
        got = found[f"{name}_l0"]
        np.testing.assert_allclose(got, value.reshape(got.shape), **TIGHT, err_msg=name)


@pytest.mark.parametrize("method", ["snap1", "rflo"])
def test_longer_windows_are_exact_within(method):
    """∂L/∂θ|s₀ + (∂L/∂s₀)ᵀM̂ with autograd for both derivatives."""
    layer, (x, weights) = layer_of("simple", elman.BPTT(window=3, carry=method)), series()
    found = learned(layer, x, weights, whole=True)
    other, plain, state = Simple(own(layer), method), layer_of("simple", None), None
    total = dict.fromkeys(other.g, 0.0)
    for start in range(0, STEPS, 3):
        kept = other.kept
        begun = torch.zeros(1, 1, UNITS, dtype=torch.float64) if state is None else state.detach()
        begun.requires_grad_()
        out, state = plain(x[start : start + 3], begun)
        loss = (out.sin() * weights[start : start + 3]).sum()
        *own_part, back = torch.autograd.grad(loss, [*plain.parameters(), begun])
        for (name, _), part in zip(plain.named_parameters(), own_part, strict=True):
            name = name.removesuffix("_l0")
            carried = back[0, 0].numpy()[:, None] * kept[name]
            total[name] = total[name] + part.numpy() + carried.reshape(part.shape)
        for now in x[start : start + 3, 0].numpy():
            other.step(now)
    for name, want in total.items():
        np.testing.assert_allclose(found[f"{name}_l0"], want, **TIGHT, err_msg=name)
