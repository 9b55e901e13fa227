"""Jacobians, spectra, Lyapunov exponents and saturation against independent code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cases import CASES
from test_diagnose_flow import by_case, double

import elman
from elman.backends.reference import Step
from elman.diagnose import activity, lyapunov, saturation, spectrum
from elman.diagnose.jacobians import jacobians
from elman.diagnose.watch import watch
from elman.errors import InputError


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_the_jacobian_of_a_step(case):
    """∂s'/∂s by autograd through the reference, delay lines of states included."""
    layer, x, extras = by_case(case)
    graph = case.graph
    state = layer(x[:1], inputs=None if extras is None else {k: v[:1] for k, v in extras.items()})[
        1
    ]
    place = watch(layer, x, state, inputs=extras).places[0]
    start = [v.detach() for v in place.call.carried]
    keep = [
        *range(len(graph.states)),
        *(len(graph.states) + i for i, line in enumerate(graph.lines) if line.kind == "state"),
    ]
    step = Step(graph, layer.equation_parameters(0, 0))

    def one_row(row, *parts):
        values = [v[row : row + 1] for v in start]
        for i, part in zip(keep, parts, strict=True):
            values[i] = part.unsqueeze(0)
        now = {k: v[0, row : row + 1] for k, v in (extras or {}).items()}
        new = step(x[0, row : row + 1], tuple(values), now)[1]
        return torch.cat([new[i][0].flatten() for i in keep])

    found = next(jacobians(place))
    for row in range(2):
        parts = tuple(start[i][row] for i in keep)
        expected = torch.autograd.functional.jacobian(lambda *p, r=row: one_row(r, *p), parts)
        expected = torch.cat([e.reshape(len(e), -1) for e in expected], 1)
        scale = max(float(expected.abs().max()), 1e-6)
        assert float((found[row] - expected).abs().max()) / scale < 1e-9


def test_a_linear_map_has_its_own_spectrum():
    """s ← A s: singular values and radius are A's, the exponents ln |eigenvalues|."""

    @elman.cell
    def linear(p, x, s):
        """s ← U s + 0 W x"""
        return p.U @ s + p.W @ x

    layer = double(elman.Recurrent(linear, 1, 4))
    a = layer.U_l0.detach().numpy()
    found = spectrum(layer, torch.zeros(3, 2, 1).double())[0]
    assert np.allclose(found.singular[1, 0], np.linalg.svd(a, compute_uv=False), rtol=1e-10)
    assert np.allclose(found.radius, np.abs(np.linalg.eigvals(a)).max(), rtol=1e-10)
    exponents = lyapunov(layer, torch.zeros(3000, 1, 1).double())[0]
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(a))))[::-1]
    assert np.allclose(exponents.values[0], expected, atol=2e-3)
    # Their sum is the volume's, exactly, at every step.
    assert abs(float(exponents.values.sum()) - math.log(abs(np.linalg.det(a)))) < 1e-9


def test_the_henon_map():
    """λ = 0.4192, −1.6232 (Hénon 1976's parameters); their sum is ln 0.3 exactly."""

    @elman.cell
    def henon(p, x, u, v):
        """u ← 1 − 1.4 u² + v, v ← 0.3 u"""
        return 1.0 - 1.4 * u * u + v + 0.0 * (p.W @ x), 0.3 * u

    layer = elman.Recurrent(henon, 1, 1).double()
    start = (torch.full((1, 1, 1), 0.1).double(), torch.full((1, 1, 1), 0.1).double())
    found = lyapunov(layer, torch.zeros(6000, 1, 1).double(), state=start, skip=100)[0]
    assert abs(float(found.values[0, 0]) - 0.4192) < 0.01
    assert abs(float(found.values.sum()) - math.log(0.3)) < 1e-9


def test_a_tanh_network_by_numpy():
    """The exponents of a driven tanh network by a loop of one's own with numpy's QR."""
    layer = double(elman.RNN(2, 6), seed=3)
    w, u = layer.weight_ih_l0.detach().numpy(), layer.weight_hh_l0.detach().numpy()
    b = (layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy()
    x = torch.randn(400, 1, 2).double()
    h, q, total = np.zeros(6), np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0], 0
    for t, row in enumerate(x[:, 0].numpy()):
        h = np.tanh(w @ row + u @ h + b)
        q, r = np.linalg.qr((1 - h**2)[:, None] * u @ q)
        if t >= 40:
            total = total + np.log(np.abs(np.diag(r)))
    found = lyapunov(layer, x)[0]
    assert found.skipped == 40
    # Both converge to the same from different directions; the sum does not depend on them.
    assert abs(float(found.values.sum()) - total.sum() / 360) < 1e-9
    assert np.allclose(found.values[0], np.sort(total / 360)[::-1], atol=0.05)
    assert np.allclose(lyapunov(layer, x, count=2)[0].values[0], found.values[0, :2], atol=0.05)


def test_what_forgets_at_once():
    found = lyapunov(elman.Recurrent("tdnn", 2, 3), torch.randn(6, 1, 2))[0]
    assert bool((found.values == -math.inf).all())


def test_layers_and_directions():
    layer = elman.GRU(2, 3, num_layers=2, bidirectional=True)
    found = spectrum(layer, torch.randn(9, 2, 2), most=3)
    names = ["layer 1", "layer 1 backwards", "layer 2", "layer 2 backwards"]
    assert [s.name for s in found] == names
    assert found[1].steps == (0, 4, 8)
    assert found[1].singular.shape == (3, 2, 3)


def test_activity_is_the_layers_own():
    """States are what the layer returns, gates what the equation says, both in order of time."""
    layer = double(elman.LSTM(2, 3, num_layers=2, bidirectional=True))
    x, lengths = torch.randn(6, 2, 2).double(), torch.tensor([6, 4])
    layer.backend = "reference"
    with torch.no_grad():
        out, _, states = layer(x, lengths=lengths, return_states="layers")
    found = activity(layer, x, lengths=lengths)
    real = torch.arange(6).unsqueeze(1) < lengths
    for place, (depth, part) in zip(found, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        for i, name in enumerate("hc"):
            expected = states[depth][i][..., 3 * part : 3 * part + 3]
            assert float((place.states[name] - expected)[real].abs().max()) < 1e-12
    top = found[2]
    c, o = top.states["c"], top.gates["o"]
    assert float((o * c.tanh() - out[..., :3])[real].abs().max()) < 1e-12
    assert torch.equal(top.keeps["c"], top.gates["f"])
    h = top.states["h"]
    assert torch.allclose(top.norms()["h"], (h**2).sum(-1).sqrt())


def test_saturation_by_counting():
    layer = double(elman.GRU(2, 5), seed=1)
    with torch.no_grad():
        layer.bias_ih_l0[:2] = 40.0  # two units of r stuck open
        layer.bias_ih_l0[5] = -40.0  # one of z stuck shut
    x = torch.randn(30, 3, 2).double()
    one = activity(layer, x)[0]
    found = saturation(layer, x)["layer 1"]
    for name in "rz":
        values = one.gates[name].numpy()
        assert math.isclose(found[name].low, (values < 0.1).mean(), abs_tol=1e-12)
        assert math.isclose(found[name].high, (values > 0.9).mean(), abs_tol=1e-12)
    assert found["r"].stuck >= 0.4
    assert 0.2 <= found["z"].stuck < 0.4
    values = one.gates["n"].numpy()
    assert math.isclose(found["n"].share, (np.abs(values) > 0.8).mean(), abs_tol=1e-12)
    # A GRU keeps by z; an MGU, whose gate says how much is new, by 1 − f.
    assert torch.equal(one.keeps["h"], one.gates["z"])
    mgu = activity(elman.Recurrent("mgu", 2, 3), torch.randn(4, 1, 2))[0]
    assert torch.equal(mgu.keeps["h"], 1 - mgu.gates["f"])


def test_errors():
    layer, x = elman.GRU(2, 3), torch.randn(5, 1, 2)
    with pytest.raises(InputError, match="most is 0; give a whole number"):
        spectrum(layer, x, most=0)
    with pytest.raises(InputError, match="skip is 9 and the sequence has 5 steps"):
        lyapunov(layer, x, skip=9)
    with pytest.raises(InputError, match="a Jacobian that is not finite"):
        spectrum(layer, x * math.inf)
