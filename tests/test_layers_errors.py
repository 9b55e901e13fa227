"""What a layer refuses, with shapes and names; the drop-ins in torch's words first."""

from __future__ import annotations

import re

import pytest
import torch

import elman

X = torch.zeros(5, 2, 3)


def layer():
    return elman.Recurrent("peephole_lstm", 3, 4)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("lsmt", 3, 4), {}, "Did you mean 'lstm'?"),
        ((7, 3, 4), {}, "cell is a int"),
        (("gru", 3, 0), {}, "hidden_size is 0; give 1 or more"),
        (("gru", 3.0, 4), {}, "input_size should be of type int, got: float"),
        (("gru", 3, 4, True), {}, "num_layers should be of type int, got: bool"),
        (("gru", 3, 4), {"bidirectional": 1}, "bidirectional should be of type bool, got: int"),
        (("gru", 3, 4, 2), {"dropout": 1.5}, "dropout is 1.5; give a number in [0, 1]"),
        (("gru", 3, 4), {"recurrent_dropout": 1.0}, "give a number in [0, 1)"),
        (("gru", 3, 4), {"zoneout": "a"}, "zoneout is 'a'"),
        (("gru", 3, 4), {"initial_state": "learnt"}, "Did you mean 'learned'?"),
        (("gru", 3, 4), {"backend": "cudnn"}, "backend is 'cudnn'; it is one of"),
        (("gru", 3, 4), {"backend": "gpu"}, "this version has none"),
        (("gru", 3, 4), {"dense": [3, 0]}, "each width must be 1 or more"),
        (("gru", 3, 4), {"dense": "3"}, "give the widths"),
        (("gru", 3, 4), {"dense": 3, "dense_activation": "rleu"}, "Did you mean 'relu'?"),
        (("gru", 3, 4), {"learning": 32}, "give elman.BPTT() or elman.BPTT(window=…)"),
        (("gru", 3, 4), {"hyper": {"g": 1}}, "no hyper-parameter 'g'"),
        (("gru", 3, 4), {"sizes": {"projection": 2}}, "there is no size 'projection'"),
        (("lstm_projected", 3, 4), {}, "the size 'projection' is not given"),
    ],
)
def test_bad_options(arguments, options, words):
    with pytest.raises(elman.InputError, match=re.escape(words)):
        elman.Recurrent(*arguments, **options)


def test_sizes_that_the_equation_joins():
    @elman.cell
    def adding(p, x, h):
        return h + torch.tanh(p.w * x)

    with pytest.raises(elman.SizeError, match="both sizes must agree; got"):
        elman.Recurrent(adding, 3, 4)
    with pytest.raises(elman.SizeError, match="both sizes must agree; got"):
        elman.Recurrent(adding, 4, 4, 2, bidirectional=True)
    elman.Recurrent(adding, 4, 4, 2)(torch.zeros(2, 4))


@pytest.mark.parametrize("window", [0, -1, 2.5, True, "4"])
def test_bad_windows(window):
    with pytest.raises(elman.InputError, match="window is"):
        elman.BPTT(window=window)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"x": X[..., :2]}, "x has 2 features in its last dimension (shape (5, 2, 2)); input_size"),
        ({"x": X.double()}, "does not match weight dtype (torch.float32)"),
        ({"x": X.long()}, "RNN input dtype (torch.int64)"),
        ({"x": X[0, 0]}, "Expected input to be 2D or 3D, got 1D"),
        ({"x": X[:0]}, "x has shape (0, 2, 3), so no step at all"),
        ({"x": [1.0]}, "x is a list; give a tensor"),
        ({"lengths": [5, 0]}, "lengths[1] is 0; each length must be at least 1 and at most 5"),
        ({"lengths": [6, 1]}, "lengths[0] is 6; each length must be at least 1 and at most 5"),
        ({"lengths": [5]}, "lengths has shape (1,); expected (2,)"),
        ({"lengths": [5.0, 1.0]}, "give whole numbers"),
        ({"lengths": ["a", "b"]}, "give one whole number for each of the 2 rows"),
        ({"resets": torch.zeros(5, 2)}, "resets is of type torch.float32"),
        ({"resets": torch.zeros(2, 5).bool()}, "resets has shape (2, 5); expected (5, 2)"),
        ({"state": torch.zeros(1, 2, 4)}, "the state has 1 tensor(s); expected 2 (h, c)"),
        ({"state": (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))}, "the state c has shape"),
        ({"state": (torch.zeros(2, 4), torch.zeros(2, 4))}, "hx and cx should also be 3-D"),
        ({"state": (torch.zeros(1, 2, 4), 0)}, "a state is made of tensors"),
        (
            {"state": (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4).double())},
            "the state c is of type torch.float64, x of type torch.float32",
        ),
        ({"return_states": "all"}, "return_states is 'all'"),
    ],
)
def test_bad_calls(call, words):
    with pytest.raises(elman.InputError, match=re.escape(words)):
        layer()(**{"x": X, **call})


def test_bad_packed_sequences():
    pack = torch.nn.utils.rnn.pack_padded_sequence
    with pytest.raises(elman.InputError, match="a PackedSequence knows its lengths"):
        layer()(pack(X, torch.tensor([5, 4])), lengths=[5, 4])
    with pytest.raises(elman.SizeError, match="the packed x has 2 features; input_size is 3"):
        layer()(pack(X[..., :2], torch.tensor([5, 4])))
    with pytest.raises(elman.SizeError, match="input must have 2 dimensions, got 3"):
        layer()(pack(X.unsqueeze(-1), torch.tensor([5, 4])))


def test_bad_delay_lines():
    narx = elman.Recurrent("narx", 3, 4, sizes={"output": 4})
    y, *lines = narx(X)[1]
    with pytest.raises(elman.SizeError, match="the state of the delay of"):
        narx(X, (y, *(line[:, :1] for line in lines)))
    with pytest.raises(elman.SizeError, match="with the delay lines"):
        narx(X, (y, y, y, y, y))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: m(x[0, 0]),
        lambda m, x: m(x[..., :2]),
        lambda m, x: m(x.double()),
        lambda m, x: m(x[:0]),
        lambda m, x: m(x, state_of(m, 1, 3, 4)),
        lambda m, x: m(x, state_of(m, 2, 4)),
        lambda m, x: m(x[:, 0], state_of(m, 1, 2, 4)),
        lambda m, x: type(m)(3, 4, dropout=2),
        lambda m, x: type(m)(3, 4, -1),
        lambda m, x: type(m)("a", 4),
    ],
)
def test_dropins_raise_torchs_class_and_sentence_first(name, call):
    with pytest.raises((ValueError, RuntimeError, TypeError)) as theirs:
        call(getattr(torch.nn, name)(3, 4), X)
    for backend in ("auto", "reference"):
        with pytest.raises(theirs.type) as ours:
            call(getattr(elman, name)(3, 4, backend=backend), X)
        assert isinstance(ours.value, elman.InputError)
        assert str(ours.value).startswith(str(theirs.value))
        assert f"{name}: " in str(ours.value)


def state_of(module, *shape):
    state = torch.zeros(shape)
    return (state, state) if "LSTM" in type(module).__name__ else state


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda nn: nn.LSTM(3, 4, proj_size=-1), "proj_size should be a positive integer or zero"),
        (lambda nn: nn.LSTM(3, 4, proj_size=4), "proj_size has to be smaller than hidden_size"),
        (lambda nn: nn.RNN(3, 4, nonlinearity="gelu"), "Unknown nonlinearity 'gelu'."),
    ],
)
def test_dropins_own_options(make, words):
    for library in (torch.nn, elman):
        with pytest.raises(ValueError, match=words):
            make(library)


def test_bad_steps():
    step = elman.LSTM(3, 4).stepper()
    with pytest.raises(elman.SizeError, match="one step is"):
        step(torch.zeros(5, 2, 3))
    step(torch.zeros(2, 3))
    with pytest.raises(elman.SizeError, match=re.escape("the steps before had (2, 3)")):
        step(torch.zeros(4, 3))
    with pytest.raises(elman.InputError, match="a bidirectional layer has no stepper"):
        elman.LSTM(3, 4, bidirectional=True).stepper()
    with pytest.raises(elman.InputError, match="x is a int"):
        step(3)


def test_bad_configurations():
    config = elman.Recurrent("gru", 3, 4).config()
    with pytest.raises(elman.InputError, match=r"Did you mean 'zoneout'\?"):
        elman.Recurrent.from_config({**config, "zonout": 0.1})
    with pytest.raises(elman.InputError, match="the entry 'cell' is missing"):
        elman.Recurrent.from_config({"input_size": 3})


def test_cells_of_one_step_refuse_like_torch():
    pair = (torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(RuntimeError, match="hidden1 batch size 3"):
        elman.LSTMCell(3, 4)(torch.zeros(2, 3), pair)
    with pytest.raises(elman.SizeError, match="hx is a pair"):
        elman.LSTMCell(3, 4)(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(elman.InputError, match="Unknown nonlinearity: gelu"):
        elman.RNNCell(3, 4, nonlinearity="gelu")
    with pytest.raises(elman.InputError, match="cannot run this call: layer_norm"):
        elman.GRUCell(3, 4, layer_norm=True, backend="torch")(torch.zeros(2, 3))
