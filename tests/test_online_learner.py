"""A learner on a stream: its gradient against autograd, its memory, going on to the same bits."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import ORACLE, assert_close
from torch import nn

import elman
from elman.online.descent import SGD, Adam
from elman.online.running import Mean, Moments

DOUBLE = torch.float64
STEPS = 13


class Watch(torch.optim.Optimizer):
    """Keeps the gradients it is given, and changes nothing."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.0})
        self.seen = []

    def step(self, closure=None):
        self.seen.append([p.grad.clone() for g in self.param_groups for p in g["params"]])


def network(learning=None, cell="lstm", out=2, seed=3, **options):
    torch.manual_seed(seed)
    model = elman.Recurrent(cell, 2, 4, learning=learning, dtype=DOUBLE, **options)
    return model, nn.Linear(4, out, dtype=DOUBLE)


def stream(batch=None, out=2, steps=STEPS, seed=5):
    generator = torch.Generator().manual_seed(seed)
    shape = () if batch is None else (batch,)
    x = torch.randn(steps, *shape, 2, dtype=DOUBLE, generator=generator)
    return x, torch.randn(steps, *shape, out, dtype=DOUBLE, generator=generator)


def everything(learner):
    return [*learner.model.parameters(), *learner.readout.parameters()]


def whole_gradient(model, readout, x, y, loss):
    """Of the sum of `loss(out_t, y_t)`, by autograd through an unrolled copy of the network."""
    plain = elman.Recurrent(model.cell, 2, 4, model.num_layers, dtype=DOUBLE, backend="reference")
    plain.load_state_dict(model.state_dict())
    out, _ = plain(x if x.dim() == 3 else x.unsqueeze(1))
    out = readout(out if x.dim() == 3 else out.squeeze(1))
    total = sum(loss(o, t) for o, t in zip(out, y, strict=True))
    return torch.autograd.grad(total, [*plain.parameters(), *readout.parameters()])


def close(found, expected):
    assert_close(tuple(found), tuple(expected), ORACLE)


CARRIED = [elman.RTRL(), elman.BPTT(window=3, carry="exact")]


@pytest.mark.parametrize("learning", CARRIED, ids=str)
@pytest.mark.parametrize("delay", [0, 1, 3])
@pytest.mark.parametrize("batch", [None, 3])
def test_gradients_add_up_to_that_of_all_the_past(learning, delay, batch):
    model, readout = network(learning)
    watch = Watch([*model.parameters(), *readout.parameters()])
    learner = elman.OnlineLearner(model, readout, optimizer=watch, clip=None, delay=delay)
    x, y = stream(batch, steps=12 + delay)
    for x_t, y_t in zip(x, y, strict=True):
        learner.step(x_t, y_t)
    # The loss of a window is a mean over its steps.
    size = learning.window
    found = [size * sum(parts) for parts in zip(*watch.seen, strict=True)]
    mean = nn.functional.mse_loss
    close(found, whole_gradient(model, readout, x[:12], y[delay:], mean))
    assert learner.updates == len(watch.seen) == 12 // size


@pytest.mark.parametrize("learning", CARRIED, ids=str)
def test_a_gradient_of_two_layers_reaches_all_of_the_past(learning):
    model, readout = network(learning, num_layers=2, cell="gru")
    watch = Watch([*model.parameters(), *readout.parameters()])
    learner = elman.OnlineLearner(model, readout, optimizer=watch, clip=None)
    x, y = stream(steps=6)
    for x_t, y_t in zip(x, y, strict=True):
        learner.step(x_t, y_t)
    found = [learning.window * sum(parts) for parts in zip(*watch.seen, strict=True)]
    close(found, whole_gradient(model, readout, x, y, nn.functional.mse_loss))


def test_missing_targets_are_left_out():
    model, readout = network(elman.RTRL())
    watch = Watch([*model.parameters(), *readout.parameters()])
    learner = elman.OnlineLearner(model, readout, optimizer=watch, clip=None)
    x, y = stream(3)
    y[2, 1, 0] = y[5, :, 1] = y[7] = math.nan
    given = [None if t in (7, 9) else y[t] for t in range(STEPS)]
    for x_t, y_t in zip(x, given, strict=True):
        learner.step(x_t, y_t)
    y[9] = math.nan

    def present(out, target):
        there = ~target.isnan()
        return (out - target)[there].square().sum() / there.sum().clamp_min(1)

    found = [sum(parts) for parts in zip(*watch.seen, strict=True)]
    close(found, whole_gradient(model, readout, x, y, present))
    assert len(watch.seen) == STEPS - 2


def test_classes_and_functions_as_losses():
    x, _ = stream(3)
    classes = torch.randint(0, 5, (STEPS, 3), generator=torch.Generator().manual_seed(1))
    classes[4, 1] = -1
    ignoring = nn.CrossEntropyLoss(ignore_index=-1)
    for loss in ("cross_entropy", ignoring):
        model, readout = network(elman.RTRL(), out=5)
        watch = Watch([*model.parameters(), *readout.parameters()])
        learner = elman.OnlineLearner(
            model, readout, optimizer=watch, clip=None,
            loss=loss if isinstance(loss, str) else lambda o, t: ignoring(o[0], t[0].long()),
        )  # fmt: skip
        for x_t, y_t in zip(x, classes, strict=True):
            learner.step(x_t, y_t)
        found = [sum(parts) for parts in zip(*watch.seen, strict=True)]
        close(found, whole_gradient(model, readout, x, classes, ignoring))


def test_a_chain_learns_classes_from_class_numbers():
    torch.manual_seed(0)
    chain = elman.Chain(nn.Embedding(5, 3), elman.GRU(3, 4), nn.Linear(4, 5)).double()
    watch = Watch([*chain.parameters()])
    learner = elman.OnlineLearner(chain, optimizer=watch, clip=None, loss="cross_entropy", delay=1)
    assert chain.learning == elman.RTRL()
    words = torch.randint(0, 5, (STEPS,), generator=torch.Generator().manual_seed(1))
    for word in words:
        assert learner.step(word, word).shape == (5,)
    plain = elman.Chain(*chain.links)
    plain.set_learning(elman.BPTT())
    out, _ = plain(words[:-1].unsqueeze(1))
    total = nn.functional.cross_entropy(out[:, 0], words[1:], reduction="sum")
    expected = torch.autograd.grad(total, [*plain.parameters()])
    close([sum(parts) for parts in zip(*watch.seen, strict=True)], expected)


def test_a_chain_goes_on_to_the_same_bits(tmp_path):
    def made():
        torch.manual_seed(0)
        top = elman.LSTM(4, 3, num_layers=2)
        chain = elman.Chain(nn.Embedding(5, 3), elman.GRU(3, 4), top, nn.Linear(3, 5))
        return elman.OnlineLearner(chain, loss="cross_entropy", delay=1, lr=0.05)

    words = torch.randint(0, 5, (12,), generator=torch.Generator().manual_seed(1))
    learner = made()
    whole = [learner.step(word, word) for word in words]
    broken = made()
    parts = [broken.step(word, word) for word in words[:6]]
    broken.save(tmp_path / "s")
    again = made()
    again.load(tmp_path / "s")
    parts += [again.step(word, word) for word in words[6:]]
    assert all(map(torch.equal, parts, whole))


def by_hand(model, readout, x, y, lr, clip, delay):
    """The learner at window 1 without carry, written anew on torch.nn alone."""
    cell = nn.LSTMCell(2, 4, dtype=DOUBLE)
    with torch.no_grad():
        for name, letter in (("weight_ih", "W"), ("weight_hh", "U"), ("bias_ih", "b")):
            blocks = [getattr(model, f"{letter}_{gate}_l0") for gate in "ifgo"]
            getattr(cell, name).copy_(torch.cat(blocks))
        cell.bias_hh.zero_()
    cell.bias_hh.requires_grad_(False)
    weights = [p for p in (*cell.parameters(), *readout.parameters()) if p.requires_grad]
    adam = torch.optim.Adam(weights, lr=lr)
    h = c = torch.zeros(1, 4, dtype=DOUBLE)
    outs = []
    last = None

    def learn(out, target):
        adam.zero_grad()
        (out - target).square().mean().backward()
        nn.utils.clip_grad_norm_(weights, clip)
        adam.step()

    for x_t, y_t in zip(x, y, strict=True):
        if delay and last is not None:
            learn(last, y_t)
        h, c = cell(x_t.unsqueeze(0), (h.detach(), c.detach()))
        last = readout(h)[0]
        outs.append(last.detach())
        if not delay:
            learn(last, y_t)
    return torch.stack(outs)


@pytest.mark.parametrize("delay", [0, 1])
def test_predictions_are_those_of_a_loop_written_by_hand(delay):
    x, y = stream(steps=30)
    model, readout = network(elman.BPTT(window=1))
    expected = by_hand(model, readout, x, y, 0.05, 0.3, delay)
    model, readout = network(elman.BPTT(window=1))
    learner = elman.OnlineLearner(model, readout, lr=0.05, clip=0.3, delay=delay)
    found = torch.stack([learner.step(x_t, y_t) for x_t, y_t in zip(x, y, strict=True)])
    # clip_grad_norm_ adds 1e-6 to the norm.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[:-1], found[1:])
    assert learner.loss.count == learner.updates == 30 - delay


WAYS = [
    (elman.RTRL(), 0),
    (elman.RTRL(), 1),
    (elman.RTRL(), 2),
    (elman.RTRL("uoro"), 1),
    (elman.RTRL("snap1"), 1),
    (elman.BPTT(window=1), 1),
    (elman.BPTT(window=4), 0),
    (elman.BPTT(window=4, carry="exact"), 3),
]


@pytest.mark.parametrize(("learning", "delay"), WAYS, ids=str)
@pytest.mark.parametrize("stop", [0, 1, 2, 7])
def test_a_learner_goes_on_to_the_same_bits(learning, delay, stop, tmp_path):
    def made():
        torch.manual_seed(0)
        model = elman.Recurrent("lstm", 2, 4, learning=learning, recurrent_dropout=0.0)
        return elman.OnlineLearner(model, nn.Linear(4, 2), delay=delay, lr=0.1)

    x, y = (v.float() for v in stream(steps=15))

    def steps(learner, start, end):
        return [learner.step(x[t], None if t == 6 else y[t]) for t in range(start, end)]

    learner = made()
    whole = steps(learner, 0, 15)
    broken = made()
    parts = steps(broken, 0, stop)
    broken.save(tmp_path / "s.safetensors", {"line": stop})
    torch.manual_seed(99)
    again = made()
    assert again.load(tmp_path / "s.safetensors") == {"line": stop}
    parts += steps(again, stop, 15)
    assert all(map(torch.equal, parts, whole))
    assert (again.steps, again.updates, again.loss) == (15, learner.updates, learner.loss)
    assert all(map(torch.equal, everything(again), everything(learner)))


def test_saving_changes_nothing_and_shares_nothing():
    x, y = (v.float() for v in stream())

    def run(saving):
        torch.manual_seed(0)
        model = elman.Recurrent("lstm", 2, 4, learning=elman.RTRL())
        learner = elman.OnlineLearner(model, nn.Linear(4, 2), delay=1, lr=0.1)
        outs = []
        for t in range(STEPS):
            outs.append(learner.step(x[t], y[t]))
            if saving:
                for tensor in learner.state_dict()["model"].values():
                    tensor.zero_()
        return outs

    assert all(map(torch.equal, run(False), run(True)))


@pytest.mark.parametrize(("learning", "delay"), WAYS, ids=str)
def test_memory_does_not_grow(learning, delay):
    def weight(tree):
        if isinstance(tree, torch.Tensor):
            return tree.untyped_storage().nbytes()
        if isinstance(tree, dict):
            return sum(map(weight, tree.values()))
        return sum(map(weight, tree)) if isinstance(tree, list | tuple) else 1

    model, readout = network(learning, cell="gru")
    learner = elman.OnlineLearner(model, readout, delay=delay)
    x, y = stream(steps=48)
    weights = []
    for t in range(48):
        learner.step(x[t], y[t])
        if t % 12 == 11:
            weights.append(weight(learner.state_dict()))
    assert len({*weights}) == 1


@pytest.mark.parametrize("clip", [None, 0.5])
def test_what_is_not_finite_changes_nothing(clip):
    model, readout = network(elman.BPTT(window=1))
    learner = elman.OnlineLearner(model, readout, clip=clip, loss=lambda o, t: (o / 0.0).sum())
    before = [w.clone() for w in everything(learner)]
    learner.step([1.0, 2.0], [0.0, 0.0])
    assert (learner.refused, learner.updates) == (1, 0)
    assert all(map(torch.equal, everything(learner), before))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("window", "delay"), [(1, 0), (1, 1), (2, 0), (1, 3)])
def test_after_an_explosion_it_begins_anew(backend, window, delay):
    torch.manual_seed(0)
    learning = elman.BPTT(window=window, carry="exact")
    model = elman.Recurrent("irnn", 2, 4, learning=learning, backend=backend)
    with torch.no_grad():
        model.U_l0.mul_(3.0)  # 3 to the power of 81 is beyond float32
    learner = elman.OnlineLearner(model, nn.Linear(4, 2), delay=delay, lr=1e-6)
    finite = [bool(learner.step([0.5, 1.0], [0.0, 1.0]).isfinite().all()) for _ in range(300)]
    assert 1 <= learner.refused <= 40
    assert sum(finite) > 280
    assert learner.updates * window > 200


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (lambda w: Adam(w, 0.01), lambda w: torch.optim.Adam(w, 0.01)),
        (lambda w: SGD(w, 0.01), lambda w: torch.optim.SGD(w, 0.01)),
        (lambda w: SGD(w, 0.01, 0.9), lambda w: torch.optim.SGD(w, 0.01, 0.9)),
    ],
    ids=["adam", "sgd", "momentum"],
)
def test_descents_are_torchs(ours, torchs):
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,), ()]
    a = [torch.randn(s, dtype=DOUBLE, generator=generator).requires_grad_() for s in shapes]
    b = [w.detach().clone().requires_grad_() for w in a]
    descent, optimizer = ours(a), torchs(b)
    for _ in range(20):
        gradients = [torch.randn(s, dtype=DOUBLE, generator=generator) for s in shapes]
        descent.step(torch.cat([g.reshape(-1) for g in gradients]))
        for w, g in zip(b, gradients, strict=True):
            w.grad = g
        optimizer.step()
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_running_figures():
    numbers = torch.randn(200, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 3 + 1e6
    moments, mean = Moments(), Mean(span=10)
    recent = 0.0
    for n, x in enumerate(numbers.tolist(), 1):
        moments.take(x)
        mean.take(x)
        recent = recent + (x - recent) / min(n, 10)
    assert moments.mean == pytest.approx(float(numbers.mean()), rel=1e-12)
    assert moments.variance == pytest.approx(float(numbers.var(correction=0)), rel=1e-9)
    assert (mean.overall, mean.recent) == (pytest.approx(moments.mean), recent)
    assert Moments.from_state_dict(moments.state_dict()) == moments


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": nn.LSTM(2, 4)}, "the model is a LSTM"),
        ({"model": elman.LSTM(2, 4, bidirectional=True)}, "bidirectional"),
        ({"model": elman.LSTM(2, 4, batch_first=True)}, "batch_first"),
        ({"readout": "linear"}, "readout is a str"),
        ({"learning": elman.BPTT()}, "needs a window"),
        ({"loss": "msee"}, "Did you mean 'mse'"),
        ({"optimizer": "adan"}, "Did you mean 'adam'"),
        ({"optimizer": torch.optim.SGD([nn.Parameter(torch.ones(1))])}, "other weights"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"delay": -1}, "delay is -1"),
        ({"delay": True}, "delay is True"),
    ],
)
def test_what_cannot_be_used_is_said(change, words):
    arguments = {"model": elman.LSTM(2, 4), "readout": nn.Linear(4, 1), **change}
    with pytest.raises(elman.InputError, match=words):
        elman.OnlineLearner(arguments.pop("model"), arguments.pop("readout"), **arguments)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        ([1.0, 2.0, 3.0], [0.0], "2"),
        ([[[1.0, 2.0]]], [0.0], r"x has shape \(1, 1, 2\)"),
        ([1.0, 2.0], [0.0, 1.0], "target has shape"),
        ([[1.0, 2.0]], [[0.0]], "before there was one stream"),
    ],
)
def test_steps_that_do_not_fit_are_said(x, y, words):
    learner = elman.OnlineLearner(elman.LSTM(2, 4), nn.Linear(4, 1), learning=elman.BPTT(window=1))
    learner.step([0.0, 0.0], [0.0])
    with pytest.raises(elman.SizeError, match=words):
        learner.step(x, y)


def test_learning_is_rtrl_unless_the_model_says_otherwise():
    def of(model, **options):
        return elman.OnlineLearner(model, **options).model.learning

    assert of(elman.GRU(2, 4)) == elman.RTRL()
    assert of(elman.GRU(2, 4, learning=elman.BPTT(window=5))) == elman.BPTT(window=5)
    assert of(elman.GRU(2, 4), learning=elman.RTRL("snap1")) == elman.RTRL("snap1")


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    elman.OnlineLearner(elman.LSTM(2, 4, learning=elman.BPTT(window=1))).save(path)
    with pytest.raises(elman.FileError, match="does not fit the learner"):
        elman.OnlineLearner(elman.LSTM(2, 5, learning=elman.BPTT(window=1))).load(path)
    with pytest.raises(elman.FileError, match="no such file"):
        elman.OnlineLearner(elman.LSTM(2, 5, learning=elman.BPTT(window=1))).load(path / "none")
