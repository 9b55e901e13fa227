"""`elman.convert` and `elman.revert`: what a model had before, it has after, and again once back.

The models are small, of the shapes that packages have; benchmarks/foreign_models.py has real ones.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref

import pytest
import torch
from tolerances import EQUAL
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import elman

LAYERS = {
    "LSTM": lambda **o: nn.LSTM(3, 4, 2, bidirectional=True, **o),
    "LSTM projected": lambda **o: nn.LSTM(3, 4, proj_size=2, batch_first=True, **o),
    "LSTM without bias": lambda **o: nn.LSTM(3, 4, bias=False, **o),
    "GRU": lambda **o: nn.GRU(3, 4, 2, batch_first=True, **o),
    "RNN": lambda **o: nn.RNN(3, 4, bidirectional=True, **o),
    "RNN relu": lambda **o: nn.RNN(3, 4, nonlinearity="relu", **o),
}
CELLS = {
    "LSTMCell": lambda **o: nn.LSTMCell(3, 4, **o),
    "GRUCell": lambda **o: nn.GRUCell(3, 4, bias=False, **o),
    "RNNCell": lambda **o: nn.RNNCell(3, 4, **o),
    "RNNCell relu": lambda **o: nn.RNNCell(3, 4, nonlinearity="relu", **o),
}
ALL = {**LAYERS, **CELLS}
TORCH = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
OURS = (elman.LSTM, elman.GRU, elman.RNN, elman.LSTMCell, elman.GRUCell, elman.RNNCell)

each_kind = pytest.mark.parametrize("kind", list(ALL))
# torch's kernel for projections is not oneDNN's, and it says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


class Tagger(nn.Module):
    """Packed bidirectional LSTM, dropout between its layers; the decoder's cell goes word by word.

    `forward` asks for the class of a module, as joeynmt's decoder does.
    """

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 3)
        self.rnn = nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, dropout=0.5)
        self.decoder = nn.ModuleDict({"rnn": nn.GRU(8, 5, batch_first=True)})
        self.cell = nn.LSTMCell(5, 5)
        self.out = nn.Linear(5, 6)
        self.lengths = [4, 3, 1]

    def forward(self, words):
        packed = pack_padded_sequence(self.embed(words), self.lengths, batch_first=True)
        out, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        out, h = self.decoder["rnn"](out)
        state = (h[0], h[0]) if isinstance(self.cell, nn.LSTMCell) else h[0]
        steps = []
        for x in out.unbind(1):
            state = self.cell(x, state)
            steps.append(state[0])
        return {"scores": self.out(torch.stack(steps, 1)), "state": state}


def tagger(seed=0):
    torch.manual_seed(seed)
    return Tagger()


WORDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0], [8, 0, 0, 0]])


def flat(value):
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in (value.values() if isinstance(value, dict) else value) for t in flat(v)]


def results(model, *x):
    """Outputs, and the gradients of all parameters."""
    out = flat(model(*x))
    total = sum((o * torch.cos(torch.arange(o.numel())).view_as(o)).sum() for o in out)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return [*out, *torch.autograd.grad(total, wanted)]


def assert_close(got, expected):
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        tolerance = EQUAL[e.dtype]
        torch.testing.assert_close(g, e, rtol=tolerance, atol=tolerance)


def sample_of(kind, dtype):
    torch.manual_seed(1)
    return torch.randn(*((5, 2) if kind in LAYERS else (2,)), 3, dtype=dtype)


def own(module):
    """What a module holds, but for bookkeeping whose identity torch changes by itself."""
    return {
        k: v for k, v in vars(module).items() if k not in ("_flat_weights", "_flat_weight_refs")
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@each_kind
def test_a_module_alone_computes_the_same_and_comes_back(kind, dtype):
    module = ALL[kind](dtype=dtype)
    x, cls, before = sample_of(kind, dtype), type(module), dict(own(module))
    expected, state = results(module, x), copy.deepcopy(module.state_dict())
    parameters = list(module.parameters())
    report = elman.convert(module)
    assert report.model is module
    assert len(report.replaced) == 1
    assert isinstance(module, OURS[TORCH.index(cls)])
    assert isinstance(module, cls)
    assert type(module).__name__ == cls.__name__
    assert_close(results(module, x), expected)
    assert list(module.state_dict()) == list(state)
    assert all(p is q for p, q in zip(module.parameters(), parameters, strict=True))
    elman.revert(module)
    assert type(module) is cls
    assert own(module) == before
    assert_close(results(module, x), expected)


@each_kind
def test_on_the_reference_backend_it_computes_the_same(kind):
    module = ALL[kind](dtype=torch.float64)
    x = sample_of(kind, torch.float64)
    expected = results(module, x)
    elman.convert(module, backend="reference")
    assert module.backend == "reference"
    assert_close(results(module, x), expected)


def test_a_model_is_converted_throughout_and_trains_on_as_it_would_have():
    model, other = tagger(), tagger()
    pairs = [(m, torch.optim.Adam(m.parameters(), lr=1e-2)) for m in (model, other)]
    for step in range(6):
        if step == 2:
            report = elman.convert(model)
            assert [r.names for r in report.replaced] == [("rnn",), ("decoder.rnn",), ("cell",)]
        if step == 4:
            elman.revert(model)
        for m, optimiser in pairs:
            torch.manual_seed(step)
            optimiser.zero_grad()
            m(WORDS)["scores"].square().sum().backward()
            optimiser.step()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=name)


def test_checkpoints_load_both_ways():
    plain, converted = tagger(1), elman.convert(tagger(2)).model
    first = copy.deepcopy(plain.state_dict())
    converted.load_state_dict(first)
    for a, b in zip(converted.state_dict().items(), first.items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])
    fresh = tagger(3)
    fresh.load_state_dict(converted.state_dict())
    fresh.eval(), converted.eval()
    assert_close(results(fresh, WORDS), results(converted, WORDS))
    assert converted.state_dict()._metadata == first._metadata


def test_hooks_stay_and_their_handles_still_remove_them():
    model, calls = tagger(), []

    def note(name):
        return lambda *args, **kwargs: calls.append(name)

    rnn = model.decoder["rnn"]
    handles = {
        "pre": rnn.register_forward_pre_hook(note("pre")),
        "forward": rnn.register_forward_hook(note("forward"), with_kwargs=True),
        "backward": rnn.register_full_backward_hook(note("backward")),
        "state": rnn.register_state_dict_post_hook(note("state")),
        "load pre": rnn.register_load_state_dict_pre_hook(note("load pre")),
        "load": rnn.register_load_state_dict_post_hook(note("load")),
    }

    def all_calls():
        calls.clear()
        results(model, WORDS)
        model.load_state_dict(model.state_dict())
        return set(calls)

    assert all_calls() == set(handles)
    elman.convert(model)
    assert all_calls() == set(handles)
    handles.pop("pre").remove()
    handles.pop("load").remove()
    handles["later"] = rnn.register_forward_hook(note("later"))
    assert all_calls() == set(handles)
    elman.revert(model)
    assert all_calls() == set(handles)
    for handle in handles.values():
        handle.remove()
    assert all_calls() == set()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRUCell"])
@pytest.mark.parametrize(
    ("lay", "lift"),
    [
        (nn.utils.weight_norm, nn.utils.remove_weight_norm),
        (parametrizations.weight_norm, parametrize.remove_parametrizations),
        (parametrizations.orthogonal, parametrize.remove_parametrizations),
        (nn.utils.spectral_norm, nn.utils.remove_spectral_norm),
        (lambda m, name: prune.random_unstructured(m, name, 0.5), prune.remove),
    ],
    ids=["weight norm", "parametrized weight norm", "orthogonal", "spectral norm", "pruned"],
)
def test_what_lies_over_a_weight_stays_and_can_be_lifted(kind, lay, lift):
    torch.manual_seed(0)
    name = "weight_hh" if kind.endswith("Cell") else "weight_hh_l0"
    model = nn.ModuleList([lay(ALL[kind](dtype=torch.float64), name)]).eval()
    module, x = model[0], sample_of(kind, torch.float64)
    expected, keys, cls = results(module, x), list(model.state_dict()), type(module)
    report = elman.convert(model)
    assert len(report.replaced) == 1
    assert not report.left
    assert_close(results(module, x), expected)
    assert list(model.state_dict()) == keys
    elman.revert(model)
    assert type(module).__mro__[1:] == cls.__mro__[1:]
    assert_close(results(module, x), expected)
    elman.convert(model)
    lift(module, name)
    assert isinstance(module, OURS)
    assert_close(flat(module(x)), expected[: len(flat(module(x)))])
    lay(module, name)
    elman.revert(model)
    lift(module, name)
    assert type(module) in TORCH


def test_parametrized_modules_do_not_share_their_class_with_a_converted_copy():
    model = nn.Sequential(parametrizations.weight_norm(nn.GRU(3, 4), "weight_hh_l0"))
    x = torch.randn(5, 2, 3)
    other = elman.convert(model, inplace=False).model
    expected = results(model, x)
    assert_close(results(other, x), expected)
    assert not isinstance(model[0], elman.GRU)
    assert isinstance(other[0], elman.GRU)
    parametrize.remove_parametrizations(other[0], "weight_hh_l0")
    assert_close(results(model, x), expected)


def test_shared_modules_and_shared_weights_stay_shared():
    shared = nn.GRU(3, 3)
    model = nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared, nn.GRU(3, 3)])})
    model["b"][1].weight_hh_l0 = shared.weight_hh_l0
    report = elman.convert(model)
    assert [r.names for r in report.replaced] == [("a", "b.0"), ("b.1",)]
    assert "a (also b.0)" in str(report)
    assert model["a"] is model["b"][0] is shared
    assert model["b"][1].weight_hh_l0 is shared.weight_hh_l0
    copied = elman.convert(elman.revert(model).model, inplace=False).model
    assert copied["a"] is copied["b"][0]
    assert copied["b"][1].weight_hh_l0 is copied["a"].weight_hh_l0


def test_flags_types_buffers_and_attributes_stay():
    model = tagger().double()
    model.rnn.eval()
    model.cell.bias_hh.requires_grad_(False)
    model.rnn.note = {"mine": 1}
    model.rnn.register_buffer("seen", torch.arange(3))
    model.rnn.extra = nn.Linear(2, 2).double()
    model.rnn.flatten_parameters = lambda: None
    names = [name for name, _ in model.named_modules()]
    elman.convert(model)
    assert [name for name, _ in model.named_modules()] == names
    assert (model.training, model.rnn.training, model.cell.training) == (True, False, True)
    assert not model.cell.bias_hh.requires_grad
    assert model.rnn.note == {"mine": 1}
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert torch.equal(dict(model.named_buffers())["rnn.seen"], torch.arange(3))
    model.float()
    elman.revert(model)
    assert model.rnn.weight_ih_l0.dtype == torch.float32
    assert model.rnn._flat_weights[0] is model.rnn.weight_ih_l0
    assert not model.rnn.training
    assert "seen" in model.rnn._buffers


def test_options_that_change_between_calls_are_the_modules_own():
    torch.manual_seed(0)
    module = elman.convert(nn.LSTM(3, 4, 2)).model
    plain = nn.LSTM(3, 4, 2, dropout=0.5, batch_first=True)
    plain.load_state_dict(module.state_dict())
    module.dropout, module.batch_first = 0.5, True
    x, outputs = torch.randn(2, 5, 3), []
    for m in (module, plain):
        torch.manual_seed(2)
        outputs.append(m(x)[0])
    assert_close(*([o] for o in outputs))


def test_a_copy_leaves_the_model_alone():
    model = tagger().eval()
    expected = results(model, WORDS)
    report = elman.convert(model, inplace=False)
    assert type(model.rnn) is nn.LSTM
    assert not {id(p) for p in model.parameters()} & {id(p) for p in report.model.parameters()}
    assert_close(results(report.model, WORDS), expected)
    back = elman.revert(report.model, inplace=False).model
    assert type(back.rnn) is nn.LSTM
    assert isinstance(report.model.rnn, elman.LSTM)


def test_a_converted_model_is_copied_pickled_and_saved():
    model = elman.convert(tagger()).model.eval()
    expected = results(model, WORDS)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    copies.append(torch.load(file, weights_only=False))
    for other in copies:
        assert isinstance(other.rnn, elman.LSTM)
        assert_close(results(other, WORDS), expected)
        elman.revert(other)
        assert type(other.rnn) is nn.LSTM
        assert own(other.rnn).keys() == own(nn.LSTM(3, 4)).keys()
        assert_close(results(other, WORDS), expected)


def test_a_converted_module_is_freed_and_can_build_another_of_its_kind():
    module = elman.convert(nn.RNN(3, 4, nonlinearity="relu")).model
    other = type(module)(3, 4, num_layers=2)
    assert isinstance(other, elman.RNN)
    assert other.mode == "RNN_TANH"
    assert other(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    assert type(elman.revert(other).model) is nn.RNN
    seen = weakref.ref(module)
    del module, other
    gc.collect()
    assert seen() is None


def test_transforms_of_torch_work_on_a_converted_model():
    torch.manual_seed(0)
    module = elman.convert(nn.LSTM(3, 4, dtype=torch.float64)).model
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    weights = {k: 2 * v.detach() for k, v in module.named_parameters()}
    out = torch.func.functional_call(module, weights, x)[0]
    plain = nn.LSTM(3, 4, dtype=torch.float64)
    plain.load_state_dict(weights)
    assert_close([out], [plain(x)[0]])
    each = torch.func.vmap(lambda row: module(row)[0], in_dims=1, out_dims=1)(x)
    assert_close([each], [module(x)[0]])
