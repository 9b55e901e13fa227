"""Gradient flow against autograd, on code of its own."""

from __future__ import annotations

import time

import pytest
import torch
from cases import CASES, Case, random_input, random_parameters, split_input
from torch import nn

import elman
from elman.diagnose import gradient_flow, weight_terms
from elman.errors import InputError

CLOSE = 1e-9  # relative, float64


def apart(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


def double(layer, seed=0):
    """The layer in float64 with random weights."""
    torch.manual_seed(seed)
    layer = layer.double()
    for p in layer.parameters():
        nn.init.normal_(p, std=0.7)
    return layer


def rows_of(weight, count):
    return weight.chunk(count)


def lstm_by_hand(layer, x, shifts, depth=0, state=None):
    """An LSTM written out; `shifts` (time, batch, 4 hidden) are added to the pre-activations."""
    w, u = getattr(layer, f"weight_ih_l{depth}"), getattr(layer, f"weight_hh_l{depth}")
    b = getattr(layer, f"bias_ih_l{depth}") + getattr(layer, f"bias_hh_l{depth}")
    h = c = x.new_zeros(x.shape[1], u.shape[1])
    out = []
    for x_t, shift in zip(x, shifts, strict=True):
        z = x_t @ w.T + h @ u.T + b + shift
        i, f, g, o = z.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return torch.stack(out)


def norms_by_autograd(losses, shifts, parts, row):
    """‖∂L_t/∂z_k‖ of every part of the pre-activations for one row, (t, k) each."""
    found = {name: [] for name in parts}
    for value in losses:
        (g,) = torch.autograd.grad(value, shifts, retain_graph=True)
        for name, piece in zip(parts, g[:, row].chunk(len(parts), -1), strict=True):
            found[name].append(piece.norm(dim=-1))
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("row", [0, 1])
def test_two_lstm_layers_against_autograd(row):
    layer = double(elman.LSTM(3, 5, num_layers=2))
    x, target = torch.randn(9, 2, 3).double(), torch.randn(9, 2, 5).double()
    shifts = [torch.zeros(9, 2, 20).double().requires_grad_() for _ in range(2)]
    hidden = lstm_by_hand(layer, x, shifts[0])
    out = lstm_by_hand(layer, hidden, shifts[1], depth=1)
    losses = ((out - target) ** 2).sum(-1)[:, row]
    flow = gradient_flow(layer, x, target, lambda o, t: ((o - t) ** 2).sum(-1))
    for depth, place in enumerate(flow.places):
        expected = norms_by_autograd(losses, shifts[depth], "ifgo", row)
        assert list(place.gates) == list("ifgo")
        for gate, norms in expected.items():
            assert apart(place.gates[gate][row], norms) < CLOSE
    assert flow.places[0].gates["i"][row].triu(1).abs().max() == 0


def test_the_gru_has_two_parts_of_its_candidate():
    layer = double(elman.GRU(2, 4))
    x = torch.randn(7, 1, 2).double()
    w, u, b, c = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    into = torch.zeros(7, 1, 12).double().requires_grad_()
    back = torch.zeros(7, 1, 12).double().requires_grad_()
    h, out = x.new_zeros(1, 4), []
    for t in range(7):
        a = (x[t] @ w.T + b + into[t]).chunk(3, -1)
        e = (h @ u.T + c + back[t]).chunk(3, -1)
        r, z = (a[0] + e[0]).sigmoid(), (a[1] + e[1]).sigmoid()
        n = (a[2] + r * e[2]).tanh()
        h = (1 - z) * n + z * h
        out.append(h)
    losses = torch.stack(out).sum((-1, -2))
    flow = gradient_flow(layer, x, loss=lambda o, _: o.sum())[0]
    a = norms_by_autograd(losses, into, ("r", "z", "n: W_n"), 0)
    b = norms_by_autograd(losses, back, ("r", "z", "n: U_n"), 0)
    for name, expected in (a | b).items():
        assert apart(flow.gates[name][0], expected) < CLOSE


@pytest.mark.parametrize("lengths", [None, [6, 9, 2]])
def test_both_directions(lengths):
    """The flow of a simple network in both directions, by rows of their own length."""
    layer = double(elman.RNN(2, 3, bidirectional=True))
    x = torch.randn(9, 3, 2).double()
    target = torch.randn(9, 3, 6).double()
    flow = gradient_flow(layer, x, target, lambda o, t: (o * t).sum(-1), lengths=lengths)
    for row in range(3):
        n = 9 if lengths is None else lengths[row]
        for direction, end in enumerate(("", "_reverse")):
            w, u = (getattr(layer, f"weight_{k}_l0{end}") for k in ("ih", "hh"))
            b = getattr(layer, f"bias_ih_l0{end}") + getattr(layer, f"bias_hh_l0{end}")
            shift = torch.zeros(n, 3).double().requires_grad_()
            steps = range(n) if not direction else reversed(range(n))
            h, out = x.new_zeros(3), {}
            for t in steps:
                h = (w @ x[t, row] + u @ h + b + shift[t]).tanh()
                out[t] = h
            own = target[:, row, 3 * direction : 3 * direction + 3]
            found = flow.places[direction].whole[row]
            for t in range(n):
                (g,) = torch.autograd.grad((out[t] * own[t]).sum(), shift, retain_graph=True)
                assert apart(found[t, :n], g.norm(dim=-1)) < CLOSE
            assert found[n:].abs().sum() == 0
            assert found[:, n:].abs().sum() == 0


def by_case(case: Case):
    """A layer of a case with its random parameters, and its inputs."""
    sizes = {n: s for n, s in case.all_sizes.items() if n not in ("input", "hidden")}
    layer = elman.Recurrent(
        case.cell, case.all_sizes["input"], case.all_sizes["hidden"], sizes=sizes
    ).double()
    with torch.no_grad():
        for name, value in random_parameters(case).items():
            getattr(layer, f"{name}_l0").copy_(value)
    x, extras = split_input(case, random_input(case, 5, 2))
    return layer, x, extras or None


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_the_terms_of_every_weight_add_up(case):
    """∂L/∂W = Σ_t Σ_k δ_{t,k} v_kᵀ for every matrix of every cell, against autograd."""
    layer, x, extras = by_case(case)
    lengths = torch.tensor([5, 3])
    out = layer(x, lengths=lengths, inputs=extras)[0]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).double()
    (out * weights).sum().backward()
    tried = 0
    for name in (p.name for p in case.graph.parameters):
        try:
            terms = weight_terms(
                layer, x, name, weights, lambda o, w: (o * w).sum(),
                lengths=lengths, inputs=extras,
            )  # fmt: skip
        except InputError:
            continue
        gradient = getattr(layer, f"{name}_l0").grad
        assert terms.total().shape == gradient.shape
        scale = max(float(gradient.abs().max()), 1e-6)
        assert float((terms.total() - gradient).abs().max()) / scale < CLOSE
        tried += 1
    assert tried


def test_one_term_and_its_norm():
    """A term is δ h_{k−1}ᵀ: by autograd on a network with a weight of its own at each step."""
    layer = double(elman.Recurrent("simple", 2, 3))
    x = torch.randn(6, 2, 2).double()
    us = layer.U_l0.detach().repeat(6, 1, 1).requires_grad_()
    h, losses = x.new_zeros(2, 3), []
    for t in range(6):
        h = (x[t] @ layer.W_l0.T + h @ us[t].T + layer.b_l0).tanh()
        losses.append((h**3).sum())
    terms = weight_terms(layer, x, "U", loss=lambda o, _: (o**3).sum())
    norms, by_lag = terms.norms(), torch.zeros(6, 3, 3).double()
    for t, value in enumerate(losses):
        (g,) = torch.autograd.grad(value, us, retain_graph=True)
        for k in range(t + 1):
            assert (terms.term(t, k) - g[k]).abs().max() < 1e-12
            assert abs(float(norms[t, k] - g[k].norm())) < 1e-9
            by_lag[t - k] += g[k]
    assert apart(terms.by_lag(), by_lag) < CLOSE


def test_states_and_inputs():
    """What reaches the state and the input: an accumulator passes all of it on."""

    @elman.cell
    def adder(p, x, s):
        """s ← s + W x"""
        return s + p.W @ x

    layer = elman.Recurrent(adder, 2, 2).double()
    with torch.no_grad():
        layer.W_l0.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    flow = gradient_flow(layer, torch.randn(5, 1, 2).double(), loss=lambda o, _: o.sum())
    lower = torch.ones(5, 5).double().tril()
    assert apart(flow[0].states["s"][0], lower * 2**0.5) < CLOSE
    assert apart(flow[0].inputs[0], lower * 5) < CLOSE
    assert flow[0].decay("s").word == "steady"


def test_resets_cut_the_flow():
    layer = double(elman.GRU(2, 3))
    x, resets = torch.randn(8, 2, 2).double(), torch.zeros(8, 2, dtype=torch.bool)
    resets[4, 1] = True
    norms = gradient_flow(layer, x, resets=resets)[0].whole
    plain = gradient_flow(layer, x)[0].whole
    assert apart(norms[0], plain[0]) < CLOSE
    assert norms[1, 4:, :4].abs().sum() == 0
    assert (norms[1, 4:, 4:].tril() > 0).sum() == 10


@pytest.mark.parametrize("name", ["narx", "tdnn", "lstm"])
def test_after_a_reset_it_is_a_new_sequence(name):
    """Delay lines too are cut: the flow behind a reset is that of the rest alone."""
    sizes = {"output": 3} if name == "narx" else None
    layer = double(elman.Recurrent(name, 2, 3, sizes=sizes))
    x, resets = torch.randn(9, 1, 2).double(), torch.zeros(9, 1, dtype=torch.bool)
    resets[4] = True
    whole = gradient_flow(layer, x, resets=resets, loss=lambda o, _: (o**2).sum())[0]
    rest = gradient_flow(layer, x[4:], loss=lambda o, _: (o**2).sum())[0]
    for what in (None, "inputs"):
        assert apart(whole.of(what)[:, 4:, 4:], rest.of(what)) < CLOSE
        assert whole.of(what)[:, 4:, :4].abs().max() == 0


class Translator(nn.Module):
    """An encoder whose last state starts a decoder, with a readout that looks at all steps."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = elman.GRU(2, 3), elman.LSTM(3, 3)
        self.read = nn.Linear(3, 2)

    def forward(self, x):
        first, last = self.encoder(x)
        out, _ = self.decoder(first.flip(0), (last, torch.zeros_like(last)))
        return self.read(out.cumsum(0))


def test_a_module_of_ones_own():
    """Everything between the layers is autograd's: against losses of a perturbed embedding."""
    model = double(Translator())
    x = torch.randn(6, 1, 2).double().requires_grad_()
    out = model(x)
    flow = gradient_flow(model, x.detach(), loss=lambda o, _: (o**2).sum())
    assert [p.name for p in flow.places] == ["layer 1", "layer 2"]
    for t in range(6):
        (g,) = torch.autograd.grad((out[t] ** 2).sum(), x, retain_graph=True)
        assert apart(flow[0].inputs[0, t], g[:, 0].norm(dim=-1)) < CLOSE


@pytest.mark.parametrize("learning", [elman.BPTT(), elman.BPTT(window=3, carry="exact")])
def test_a_chain(learning):
    """Through an embedding, layers, an activation and a readout, whatever carries its credit."""
    torch.manual_seed(0)
    links = nn.Embedding(5, 3), elman.GRU(3, 4), nn.Tanh(), elman.LSTM(4, 4), nn.Linear(4, 2)
    chain = elman.Chain(*links, learning=learning).double()
    tokens = torch.randint(0, 5, (7, 2))
    flow = gradient_flow(chain, tokens, loss=lambda o, _: o.sum())
    x = links[0](tokens).detach().requires_grad_()
    out = links[4](links[3](torch.tanh(links[1](x)[0]))[0])
    for t in range(7):
        (g,) = torch.autograd.grad(out[t].sum(), x, retain_graph=True)
        assert apart(flow[0].inputs[:, t].T, g.norm(dim=-1)) < CLOSE
    assert "forward" not in vars(chain)


def test_residual_stack_dense_and_delays():
    layer = double(
        elman.Recurrent("narx", 3, 3, num_layers=3, sizes={"output": 3}, residual=True, dense=[2])
    )
    x = torch.randn(8, 2, 3).double().requires_grad_()
    out = layer(x)[0]
    flow = gradient_flow(layer, x.detach(), loss=lambda o, _: o.sum())
    for t in range(8):
        (g,) = torch.autograd.grad(out[t].sum(), x, retain_graph=True)
        for row in range(2):
            assert apart(flow[0].inputs[row, t], g[:, row].norm(dim=-1)) < CLOSE


def test_the_layer_is_left_as_it_was():
    layer = elman.LSTM(2, 3, num_layers=2, dropout=0.5, learning=elman.BPTT(window=2))
    x = torch.randn(4, 1, 2)
    gradient_flow(layer, x)
    assert layer.training
    assert "_forward" not in vars(layer)
    torch.manual_seed(0)
    before = layer(x)[0]
    torch.manual_seed(0)
    assert torch.equal(layer(x)[0], before)


@pytest.mark.parametrize("batch_first", [False, True])
def test_forms(batch_first):
    layer = double(elman.GRU(2, 3, batch_first=batch_first))
    x = torch.randn(6, 2, 2).double()
    both = gradient_flow(layer, x.transpose(0, 1) if batch_first else x, loss=lambda o, _: o.sum())
    alone = gradient_flow(layer, x[:, 1], loss=lambda o, _: o.sum())
    assert apart(both[0].whole[1], alone[0].whole[0]) < CLOSE


def test_decay_of_a_known_network():
    """h ← a h + x: ‖∂L_t/∂h_k‖ falls by a at each step, and the horizons follow."""

    @elman.cell
    def leak(p, x, h, *, a=0.5):
        """h ← a h + W x"""
        return a * h + p.W @ x

    def decay(a):
        layer = elman.Recurrent(leak, 1, 1, hyper={"a": a}).double()
        return gradient_flow(layer, torch.randn(50, 1, 1).double(), loss=lambda o, _: o.sum())[
            0
        ].decay("h")

    half = decay(0.5)
    assert abs(half.rate - 0.5) < 1e-9
    assert (half.e_fold, half.horizon, half.explodes, half.word) == (2, 7, None, "vanishing")
    double_ = decay(2.0)
    assert (double_.e_fold, double_.horizon, double_.explodes) == (None, None, 7)
    assert double_.word == "exploding"
    assert decay(0.95).word == "steady"
    assert decay(0.95).e_fold == 20


def test_speed():
    """The matrix of 200 steps and 128 units takes under 2 seconds."""
    layer, x = elman.LSTM(64, 128), torch.randn(200, 1, 64)
    gradient_flow(layer, x[:5])
    begun = time.perf_counter()
    flow = gradient_flow(layer, x)
    assert flow[0].whole.shape == (1, 200, 200)
    assert time.perf_counter() - begun < 6  # of a busy machine; 2 on a quiet one


def test_errors():
    layer, x = elman.GRU(2, 3), torch.randn(5, 1, 2)
    with pytest.raises(InputError, match="no recurrent layer of Elman ran in Linear"):
        gradient_flow(nn.Linear(2, 2), x)
    with pytest.raises(InputError, match="PackedSequence; give a padded x"):
        gradient_flow(layer, nn.utils.rnn.pack_sequence([x[:, 0]]))
    with pytest.raises(InputError, match="loss gave float at step 0"):
        gradient_flow(layer, x, loss=lambda o, _: 1.0)
    with pytest.raises(InputError, match="no loss depends"):
        gradient_flow(layer, x, loss=lambda o, _: torch.zeros(1))
    with pytest.raises(InputError, match="5 outputs and 4 targets"):
        gradient_flow(layer, x, x[:4], lambda o, t: (o.sum() - t.sum()) ** 2)
    with pytest.raises(InputError, match=r"no product with 'U_q'; there are .* Did you mean 'U_"):
        weight_terms(layer, x, "U_q")
    with pytest.raises(InputError, match="place is 3; give a number from 0 to 0"):
        weight_terms(layer, x, "U_r", place=3)
    with pytest.raises(InputError, match="has no 'q'; there are r, z, "):
        gradient_flow(layer, x)[0].matrix("q")
