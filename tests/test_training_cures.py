"""Cures as options of training: the penalty on the flow, starts, norms beside the loss."""

import json

import pytest
import torch
from torch import nn
from training_toy import Toy

import elman
from elman.errors import InputError
from elman.training import TrainingOptions, train
from elman.training.cures import start
from elman.training.flow import Flow
from elman.training.norms import GradientNorms, groups, state_norm
from elman.training.options import check

TEXT = ["an apple and a pear", "the salad is good", "a ripe pear is good"] * 30
SMALL = {"hidden": 8, "embedding": 4, "window": 8, "streams": 4, "dropout": 0.0, "steps": 6,
         "weight_dropout": 0.0, "dropout_input": 0.0, "precision": "32", "quiet": True,
         "reports": []}  # fmt: skip


def by_hand(u, w, b, x, s0, readout):
    """Ω of h' = tanh(W x + U h + b) with loss Σ (readout · h)², written out with its sums."""
    states, slopes = [s0], []
    for x_t in x:
        h = torch.tanh(x_t @ w.T + states[-1] @ u.T + b)
        slopes.append(1 - h * h)
        states.append(h)
    time = len(x)
    above = [2 * (h @ readout)[:, None] * readout for h in states[1:]]
    deltas = [None] * time
    later = torch.zeros_like(s0)
    for t in reversed(range(time)):
        deltas[t] = above[t] + later  # ∂L/∂h_{t+1}
        later = (deltas[t] * slopes[t]) @ u
    return states, deltas


def omega(u, w, b, x, states, deltas):
    """Ω as a function of the weights, states and δ given."""
    total, count = 0.0, 0
    for t, x_t in enumerate(x):
        h = torch.tanh(x_t @ w.T + states[t] @ u.T + b)
        handed = (deltas[t] * (1 - h * h)) @ u
        ratio = handed.norm(dim=1) / deltas[t].norm(dim=1)
        total, count = total + (ratio - 1).square().sum(), count + len(ratio)
    return total / count


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_the_penalty_is_that_of_the_paper(batch_first, given):
    torch.manual_seed(3)
    layer = elman.Recurrent("simple", 3, 4, batch_first=batch_first, dtype=torch.float64)
    readout = torch.randn(4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    s0 = torch.randn(2, 4, dtype=torch.float64) if given else torch.zeros(2, 4).double()
    flow = Flow(nn.ModuleList([layer]))
    with flow.watching():
        out, _ = layer(x.transpose(0, 1) if batch_first else x, s0[None] if given else None)
        loss = (out @ readout).square().sum()
    weights = {n: p.detach().clone().requires_grad_() for n, p in layer.named_parameters()}
    u, w, b = (weights[f"{n}_l0"] for n in "UWb")
    states, deltas = by_hand(u, w, b, x, s0, readout)
    states, deltas = ([v.detach() for v in values] for values in (states, deltas))
    expected = omega(u, w, b, x, states, deltas)
    expected.backward()
    loss.backward()
    before = {n: p.grad.clone() for n, p in layer.named_parameters()}
    found = flow.add_gradient(0.5)
    assert found == pytest.approx(expected.item(), rel=1e-12)
    for name, parameter in layer.named_parameters():
        added = parameter.grad - before[name]
        torch.testing.assert_close(added, 0.5 * weights[name].grad, rtol=1e-9, atol=1e-12)


def test_an_open_forget_gate_has_no_penalty_and_a_closed_one_has():
    """Where only c carries the gradient, ∂c'/∂c = f: Ω is near 0 as f is near 1."""
    found = []
    for bias in (30.0, -30.0):
        layer = elman.LSTM(2, 3, dtype=torch.float64)
        with torch.no_grad():
            layer.weight_hh_l0.zero_()
            layer.bias_hh_l0.zero_()
            layer.bias_ih_l0[3:6] = bias
            layer.bias_ih_l0[9:] = -40.0  # a closed output gate: h says nothing
        flow = Flow(nn.ModuleList([layer]))
        with flow.watching():
            _, (_, c) = layer(torch.randn(6, 2, 2, dtype=torch.float64))
            c.sum().backward()
        found.append(flow.add_gradient(1.0))
    assert found[0] < 1e-9
    assert found[1] > 0.5


def test_the_penalty_refuses_by_name():
    with pytest.raises(InputError, match="the model has none"):
        Flow(nn.LSTM(2, 3))
    with pytest.raises(InputError, match="RNN is bidirectional"):
        Flow(elman.RNN(2, 3, bidirectional=True))
    with pytest.raises(InputError, match="a stack in one module"):
        Flow(elman.RNN(2, 3, num_layers=2))
    with pytest.raises(InputError, match="delays"):
        Flow(elman.Recurrent("tdnn", 2, 3))
    layer = elman.RNN(2, 3)
    with pytest.raises(InputError, match="saw no call"):
        Flow(layer).add_gradient(1.0)
    flow = Flow(layer)
    with flow.watching(), pytest.raises(InputError, match="lengths"):
        layer(torch.randn(4, 2, 2), lengths=torch.tensor([4, 3]))


def test_gradients_of_that_hardly_are_one_have_a_direction_still():
    layer = elman.RNN(2, 3)
    flow = Flow(layer)
    with flow.watching():
        (layer(torch.randn(4, 2, 2))[0][-1].sum() * 1e-25).backward()
    assert 0 < flow.add_gradient(1.0) < 100
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recurrent_init": "identity"}, "recurrent matrices start identity"),
        ({"forget_bias": 2.5}, "start with the bias 2.5"),
        ({"chrono": 40.0, "recurrent_init": "orthogonal"}, "memories of up to 40 steps"),
    ],
)
def test_starts_of_any_model(options, says):
    model = nn.Sequential(elman.LSTM(2, 3), elman.GRU(3, 3))
    before = torch.get_rng_state()
    lines = start(model, TrainingOptions(**options))
    assert torch.equal(before, torch.get_rng_state())
    assert says in " ".join(lines)
    lstm, gru = model
    if options.get("recurrent_init") == "identity":
        assert torch.equal(gru.weight_hh_l0[6:], torch.eye(3))
    if "forget_bias" in options:
        assert (lstm.bias_ih_l0 + lstm.bias_hh_l0)[3:6].tolist() == [2.5] * 3
        assert (gru.bias_ih_l0 + gru.bias_hh_l0)[3:6].tolist() == [2.5] * 3
    if "chrono" in options:
        again = nn.Sequential(elman.LSTM(2, 3), elman.GRU(3, 3))
        start(again, TrainingOptions(**options))
        assert torch.equal(again[0].bias_ih_l0[:6], lstm.bias_ih_l0[:6])


def test_options_that_do_not_go_together():
    with pytest.raises(InputError, match="give one of them"):
        check({"forget_bias": 1.0, "chrono": 10.0})
    with pytest.raises(InputError, match="chrono should be greater than 2"):
        check({"chrono": 2.0})
    with pytest.raises(InputError, match="the model has none"):
        start(nn.LSTM(2, 3), TrainingOptions(forget_bias=1.0))


def test_a_run_begins_as_asked_and_writes_its_norms(tmp_path):
    run = tmp_path / "run"
    result = train(
        "lm", TEXT, run=run, forget_bias=3.0, recurrent_init="orthogonal", flow_penalty=0.1, **SMALL
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "train"]
    assert len(rows) == SMALL["steps"]
    names = {"embedding", "layers.0.recurrent", "layers.0.input", "layers.0.biases", "output"}
    for row in rows:
        assert set(row["gradient_norms"]) == names
        whole = sum(norm**2 for norm in row["gradient_norms"].values()) ** 0.5
        assert whole == pytest.approx(row["gradient_norm"], rel=1e-5)
        assert row["state_norm"] > 0
        assert row["flow"] > 0
    assert "the bias 3" in (run / "train.log").read_text(encoding="utf-8")
    bias = result.model.network.layers[0].bias_ih_l0
    assert bias[8:16].mean() > 2.5
    with pytest.raises(InputError, match="nothing is left to start"):
        train("lm", TEXT, run=tmp_path / "b", init_from=run, forget_bias=1.0, **SMALL)
    assert not (tmp_path / "b").exists()


def test_the_penalty_holds_the_flow_of_a_run(tmp_path):
    """With a heavy weight Ω falls; without one it stays where it was."""
    flows = {}
    for weight in (1e-9, 3.0):
        run = tmp_path / f"{weight}"
        options = SMALL | {"steps": 60}
        train("lm", TEXT, run=run, cell="simple", flow_penalty=weight, optimizer="adam", lr=0.01,
              **options)  # fmt: skip
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        flows[weight] = [row["flow"] for row in rows if row["kind"] == "train"]
    assert flows[3.0][-1] < 0.5 * flows[3.0][0]
    assert flows[1e-9][-1] > 2 * flows[3.0][-1]


def test_a_killed_run_that_had_not_begun_starts_as_asked(tmp_path):
    run = tmp_path / "run"
    once = train("lm", TEXT, run=run, chrono=30.0, **SMALL)
    other = tmp_path / "other"
    train("lm", TEXT, run=other, chrono=30.0, **SMALL)
    for part in ("checkpoints/last.safetensors", "checkpoints/best.safetensors", "metrics.jsonl",
                 "model.safetensors", "result.json"):  # fmt: skip
        (other / part).unlink()
    again = train("lm", run=other, resume=True, quiet=True, reports=[])
    for a, b in zip(once.model.network.parameters(), again.model.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_norms_of_groups_against_autograd():
    model = nn.ModuleDict(
        {"ours": elman.LSTM(2, 3, num_layers=2), "theirs": nn.GRU(3, 3), "out": nn.Linear(3, 1)}
    )
    x = torch.randn(4, 2, 2)
    model["out"](model["theirs"](model["ours"](x)[0])[0]).sum().backward()
    total, norms = GradientNorms(model).measure()
    names = groups(model)
    for group in set(names.values()):
        parts = [p.grad.flatten() for n, p in model.named_parameters() if names[n] == group]
        assert norms[group] == pytest.approx(torch.cat(parts).norm().item(), rel=1e-5)
    assert names["ours.weight_hh_l1"] == "ours.1.recurrent"
    assert names["theirs.weight_ih_l0"] == "theirs.input"
    assert names["out.bias"] == "out"
    whole = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert total == pytest.approx(whole, rel=1e-5)


def test_norm_of_the_states():
    carry = (torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), (torch.tensor([[[6.0, 8.0]]]), None))
    assert state_norm(carry) == pytest.approx((5 + 0 + 10) / 3)
    assert state_norm(None) is None


def test_a_run_of_torchs_own_layers_has_norms_too(tmp_path):
    train(Toy(), run=tmp_path / "toy", steps=3, quiet=True, reports=[])
    row = json.loads((tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()[0])
    assert set(row["gradient_norms"]) == {
        "embed", "lstm.recurrent", "lstm.input", "lstm.biases", "head",
    }  # fmt: skip
