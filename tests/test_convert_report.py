"""What `elman.convert` leaves alone, what its report says, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import elman
from elman.layers.convert import ConvertedGRU

WORDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 3)
        self.rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5)
        self.decoder = nn.ModuleDict({"rnn": nn.GRU(8, 5, batch_first=True)})
        self.out = nn.Linear(5, 6)

    def forward(self, words):
        return {"scores": self.out(self.decoder["rnn"](self.rnn(self.embed(words))[0])[0])}


def tagger():
    torch.manual_seed(0)
    return Tagger()


class Subclass(nn.LSTM):
    pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_cannot_be_replaced_is_left_alone_and_named():
    patched = nn.GRU(3, 4)
    patched.forward = lambda x: (x, None)
    named = nn.LSTM(3, 4)
    named.zoneout = 0.1
    holding = nn.GRUCell(3, 4)
    holding.register_buffer("explain", torch.zeros(1))
    bent = nn.RNNCell(3, 4)
    bent.weight_hh = nn.Parameter(torch.zeros(4, 5))
    model = nn.ModuleDict(
        {
            "subclass": Subclass(3, 4),
            "bare": nn.RNNBase("LSTM", 3, 4),
            "quantised": torch.ao.nn.quantized.dynamic.LSTM(3, 4),
            "scripted": torch.jit.script(nn.Sequential(nn.LSTM(3, 4))),
            "patched": patched,
            "named": named,
            "holding": holding,
            "bent": bent,
            "ours": elman.GRU(3, 4),
            "fine": nn.GRU(3, 4),
        }
    )
    kept = {id(m): dict(vars(m)) for k, m in model.items() if k not in ("scripted", "fine")}
    report = elman.convert(model)
    assert [r.names for r in report.replaced] == [("fine",)]
    reasons = {left.names[0]: left.reason for left in report.left}
    words = {
        "subclass": "subclass of torch.nn.LSTM",
        "bare": "no kernel",
        "quantised": "quantisation",
        "scripted.0": "torch.jit",
        "patched": "'forward' is replaced",
        "named": "'zoneout' has the name",
        "holding": "'explain' has the name",
        "bent": "weight_hh is of shape (4, 5); (4, 4)",
        "ours": "Elman's already",
    }
    assert reasons.keys() == words.keys()
    for name, word in words.items():
        assert word in reasons[name]
        assert f"{name}: " in str(report)
    assert all(vars(m) == kept[id(m)] for m in model.values() if id(m) in kept)
    again = elman.convert(model)
    assert not again.replaced
    assert len(again.left) == 10
    back = elman.revert(model)
    assert [r.names for r in back.replaced] == [("fine",)]
    assert [left.names for left in back.left] == [("ours",)]


def test_the_report_compares_and_times_and_leaves_no_trace():
    model = tagger()
    model.norm = nn.BatchNorm1d(6)
    model.register_forward_hook(lambda m, _, out: m.norm(out["scores"].transpose(1, 2)))
    model.rnn.eval()
    model.out.weight.grad = torch.ones_like(model.out.weight)
    flags = [m.training for m in model.modules()]
    buffers = copy.deepcopy(dict(model.named_buffers()))
    random = torch.get_rng_state()
    report = elman.convert(model, WORDS, repeats=2)
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.modules()] == flags
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert torch.equal(model.out.weight.grad, torch.ones(6, 5))
    assert model.rnn.weight_ih_l0.grad is None
    assert isinstance(model.rnn, elman.LSTM)
    assert report.difference <= 1e-5
    assert report.scale > 0
    for speed in (report.forward, report.forward_backward):
        assert min(speed.before, speed.after, speed.ratio) > 0
    assert report.note is None
    for words in ("2 of 2 recurrent modules", "rnn: torch.nn.LSTM(3, 4, ", "largest output diff"):
        assert words in str(report)
    assert "forward and backward: " in str(report)


def test_the_difference_is_really_measured(monkeypatch):
    def off(self, x, hx=None):
        out, h = nn.GRU.forward(self, x, hx)
        return out + 0.25, h

    monkeypatch.setattr(ConvertedGRU, "forward", off)
    report = elman.convert(nn.GRU(3, 4), torch.randn(5, 2, 3), repeats=0)
    assert report.difference == pytest.approx(0.25, abs=1e-6)
    assert report.forward is None


def test_samples_come_in_every_form():
    x, h = torch.randn(5, 2, 3), torch.randn(1, 2, 4)
    packed = pack_padded_sequence(x, [5, 2])
    for sample in (x, packed, (x, h), {"input": x, "hx": h}, lambda m: [m(x)[0].sum()]):
        report = elman.convert(nn.GRU(3, 4), sample, repeats=0)
        assert report.difference <= 1e-6
    frozen = nn.GRU(3, 4).requires_grad_(False).eval()
    report = elman.convert(frozen, x, repeats=1)
    assert report.forward_backward is None
    assert "forward and backward is not timed: no output depends" in str(report)
    drift = nn.GRU(3, 4)
    drift.register_forward_hook(lambda m, args, out: (out[0] + next(ticks), out[1]))
    ticks = iter(range(3))
    report = elman.convert(drift, x, repeats=0)
    assert report.difference == pytest.approx(2, abs=1e-6)
    assert "differs from itself by 1.0e+00" in str(report)
    fussy = nn.Sequential(nn.GRUCell(3, 4), nn.BatchNorm1d(4))
    report = elman.convert(fussy, torch.randn(1, 3), repeats=1)
    assert "not timed: ValueError" in report.note


def test_a_sample_that_fails_leaves_the_model_as_it_came(monkeypatch):
    model = tagger()
    flags = [m.training for m in model.modules()]
    with pytest.raises(elman.InputError, match=r"model as it came \(IndexError"):
        elman.convert(model, torch.tensor([[99] * 4] * 2))
    with pytest.raises(elman.InputError, match="no tensors"):
        elman.convert(model, lambda m: m(WORDS) and None)
    with pytest.raises(elman.InputError, match="sample is a list; give a tensor, a tuple"):
        elman.convert(model, [WORDS])

    def broken(self, *args):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(ConvertedGRU, "forward", broken)
    with pytest.raises(elman.InputError, match=r"with Elman's layers.*no such luck"):
        elman.convert(model, WORDS)
    assert type(model.rnn) is nn.LSTM
    assert type(model.decoder["rnn"]) is nn.GRU
    assert [m.training for m in model.modules()] == flags


def test_bad_input_is_refused_in_one_sentence():
    for verb in (elman.convert, elman.revert):
        name = verb.__name__
        with pytest.raises(elman.InputError, match=f"{name}: model must be .*; this is a dict"):
            verb({})
        with pytest.raises(TypeError, match="this is the class LSTM; give an instance"):
            verb(nn.LSTM)
        with pytest.raises(
            TypeError, match=r"this is the report of a conversion; give its \.model"
        ):
            verb(elman.convert(nn.Linear(2, 2)))
        with pytest.raises(elman.InputError, match="inplace should be of type bool"):
            verb(nn.GRU(3, 4), inplace=1)
    with pytest.raises(elman.InputError, match="backend is 'fast'"):
        elman.convert(nn.GRU(3, 4), backend="fast")
    with pytest.raises(elman.InputError, match="repeats is -1"):
        elman.convert(nn.GRU(3, 4), repeats=-1)
    model = nn.Linear(2, 2)
    model.cache = model(torch.ones(2))
    with pytest.raises(elman.InputError, match=r"model cannot be copied \(RuntimeError"):
        elman.convert(model, inplace=False)
    report = elman.convert(nn.GRU(3, 4))
    with pytest.raises(AttributeError, match=r"the model is its \.model\.parameters"):
        report.parameters()


def test_a_model_without_recurrence_is_no_error():
    report = elman.convert(nn.Linear(2, 2), torch.ones(2))
    assert str(report) == "0 of 0 recurrent modules replaced"
