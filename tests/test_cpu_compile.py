"""Models with our layers under torch.compile and torch.export: the bits of the eager call.

ELMAN_FUZZ=1 tries more options, more cells, and inductor.
"""

from __future__ import annotations

import os
import shutil

import pytest
import torch
import torch._dynamo.testing
from layer_cases import as_tuple, flat
from tolerances import assert_close, assert_same_bits
from torch import nn

import elman
from elman.backends.cpu import custom

CAPTURES = ("eager", "aot_eager")
FUZZ = bool(os.environ.get("ELMAN_FUZZ"))


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Model(nn.Module):
    """A layer with something before and after it."""

    def __init__(self, layer: nn.Module, size: int):
        super().__init__()
        self.before, self.layer = nn.Linear(3, 3), layer
        self.after = nn.Linear(size, 2)

    def forward(self, x, state=None, **options):
        out, last, *states = self.layer(torch.tanh(self.before(x)), state, **options)
        return (self.after(out), *as_tuple(last), *flat(states))


def model(name="LSTM", dtype=torch.float64, hidden=5, **options) -> Model:
    torch.manual_seed(1)
    options = {"backend": "cpu", **options}
    if name == "narx":
        options["sizes"] = {"output": 2}
    if hasattr(elman, name):
        layer = getattr(elman, name)(3, hidden, **options)
    else:
        layer = elman.Recurrent(name, 3, hidden, **options)
    made = Model(layer, layer.output_size).to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    return made


def sequence(dtype=torch.float64, time=6, batch=3) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(time, batch, 3, dtype=dtype)


def outcome(run, made: Model, x, *arguments, dynamic=(), **options):
    """Results, and the gradients of x and of all parameters."""
    made.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    leaf = x.clone().requires_grad_()
    for place in dynamic:
        torch._dynamo.mark_dynamic(leaf, place)
    found = run(leaf, *arguments, **options)
    loss = sum((t * torch.arange(t.numel()).to(t).cos().view(t.shape)).sum() for t in found)
    loss.backward()
    grads = [p.grad for p in made.parameters()]
    return found, [leaf.grad, *(torch.zeros(1) if g is None else g for g in grads)]


def compare(made: Model, compiled, x, *arguments, **options) -> None:
    """Results to the bit; gradients too, but for the order in which two are added."""
    expected = outcome(made, made, x, *arguments, **options)
    got = outcome(compiled, made, x, *arguments, **options)
    assert_same_bits(got[0], expected[0])
    assert_close(got[1], expected[1])
    with torch.no_grad():
        torch.manual_seed(3)
        plain = compiled(x, *arguments, **options)
    assert_same_bits(plain, expected[0])


@pytest.mark.parametrize(
    ("name", "dtype", "backend"),
    [
        ("LSTM", torch.float32, "eager"),
        ("LSTM", torch.float64, "aot_eager"),
        ("GRU", torch.float32, "aot_eager"),
        ("RNN", torch.float64, "eager"),
        ("mgu", torch.float32, "aot_eager"),
    ],
)
def test_one_graph_forward_and_backward(name, dtype, backend):
    made = model(name, dtype)
    compare(made, torch.compile(made, backend=backend, fullgraph=True), sequence(dtype))


OPTIONS = {
    "stack": ("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.3}),
    "options": (
        "GRU",
        {"layer_norm": True, "zoneout": 0.2, "recurrent_dropout": 0.3, "batch_first": True},
    ),
    "delays of states": ("narx", {}),
    "work on parameters": ("antisymmetric_rnn", {}),
    "output that is no state": ("scrn", {}),
    "learned": ("RNN", {"initial_state": "learned", "residual": True, "num_layers": 2, "dense": 4}),
    "window": ("LSTM", {"learning": elman.BPTT(window=4)}),
    "projection": ("LSTM", {"proj_size": 2, "bias": False}),
    "delays of x": ("tdnn", {"bidirectional": True}),
}


@pytest.mark.parametrize("name", OPTIONS if FUZZ else list(OPTIONS)[:5])
def test_options_in_one_graph(name):
    cell, options = OPTIONS[name]
    made = model(cell, **options)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    compare(made, compiled, sequence())
    compare(made.eval(), compiled, sequence(), return_states="layers")


def test_given_states_and_further_inputs():
    made = model("cfc")
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    x, dt = sequence(), torch.rand(6, 3, dtype=torch.float64).requires_grad_()
    state = torch.randn(1, 3, 5, dtype=torch.float64).requires_grad_()
    grads = []
    for run in (made, compiled):
        run(x, state, inputs={"dt": dt})[0].square().sum().backward()
        grads.append((dt.grad, state.grad))
        dt.grad = state.grad = None
    assert_close(*grads)
    compare(made, compiled, x, state.detach(), inputs={"dt": dt.detach()})


@pytest.mark.parametrize("name", ["LSTM", "narx"] if FUZZ else ["narx"])
def test_a_graph_for_all_shapes(name):
    made = model(name)
    count = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(made, backend=count, fullgraph=True)
    for time, batch in ((6, 3), (9, 4), (3, 2), (2, 7)):
        x = sequence(time=time, batch=batch)
        expected, got = outcome(made, made, x), outcome(compiled, made, x, dynamic=(0, 1))
        assert_same_bits(got[0], expected[0])
        assert_close(got[1], expected[1])
    assert count.frame_count == 1


def test_other_modes_are_captured_anew():
    made = model(zoneout=0.3)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    for training in (True, False, True):
        made.train(training)
        compare(made, compiled, sequence())
    made.eval().layer.backend = "reference"
    assert_close(compiled(sequence(time=2)), made(sequence(time=2)))
    made.layer.backend = "cpu"
    compare(made.float(), compiled, sequence(torch.float32))
    with torch.no_grad():
        made.layer.weight_hh_l0.mul_(0.5)
    compare(made, compiled, sequence(torch.float32))


# torch itself looks at the gradient of what enters the second graph.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("backend", CAPTURES)
def test_lengths_and_resets_run_outside_of_the_graph(backend):
    made = model(bidirectional=True)
    resets = torch.zeros(6, 3, dtype=torch.bool)
    resets[2, 1] = resets[4, 0] = True
    compiled = torch.compile(made, backend=backend)
    for lengths in (torch.tensor([4, 6, 1]), torch.tensor([2, 2, 5])):
        compare(made, compiled, sequence(), lengths=lengths)
        compare(made, compiled, sequence(), lengths=lengths, resets=resets)
    compare(made, compiled, sequence(), resets=resets.flip(0))
    packed = nn.utils.rnn.pack_padded_sequence(sequence(), [6, 4, 1])
    layer = torch.compile(made.layer, backend=backend)
    assert_same_bits(layer(packed)[0].data, made.layer(packed)[0].data)
    whole = torch.compile(made, backend=backend, fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="outside of the captured graph"):
        whole(sequence(), resets=resets)


def test_autocast():
    made = model(dtype=torch.float32, num_layers=2)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    x = sequence(torch.float32)
    with torch.autocast("cpu"):
        assert_same_bits(compiled(x), made(x))
        with torch.inference_mode():
            assert_same_bits(compiled(x), made(x))


def test_no_rows():
    made = model("GRU")
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    compare(made, compiled, sequence(batch=0))


def test_errors_are_those_of_the_eager_call():
    made = model()
    compiled = torch.compile(made.layer, backend="eager")
    for wrong in (sequence()[..., :2], sequence(torch.float32)):
        with pytest.raises(elman.SizeError):
            made.layer(wrong)
        with pytest.raises(elman.SizeError):
            compiled(wrong)


def test_a_second_derivative_of_a_graph_that_is_run_as_it_is():
    """torch.compile itself has none behind AOTAutograd."""
    made = model()
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    x = sequence().requires_grad_()
    found = []
    for run in (compiled, made):
        (slope,) = torch.autograd.grad(run(x)[0].square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), x))
    assert_close(*found)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["lstm", "narx", "antisymmetric_rnn"])
def test_the_operator_keeps_torchs_rules(name, training):
    """Shapes and strides as told, no memory shared, the gradient that of finite differences."""
    # Whole vectors: what a walk gives could lie in the planes that it keeps.
    graph = elman.cells.get(name).graph
    text = custom.text_of(graph, {"input": 3, "hidden": 32, "output": 32})
    program = custom.program_of(text)
    inner, depth = program.kernels.inner, program.kernels.depth
    numbers = torch.Generator().manual_seed(1)

    def random(*shape):
        value = torch.randn(*shape, generator=numbers, dtype=torch.float64)
        return value.requires_grad_(training)

    steps, batch = 2, 2
    rows = [random(steps * batch, 3) for i in inner.inputs if i.varies == "step"]
    beginnings = [random(depth * batch, 32) for _ in inner.states]
    shapes = inner.parameter_shapes(dict(program.sizes))
    parameters = [random(*shapes[name]) for name in program.places]
    arguments = (text, parameters, rows, [], beginnings, steps, batch, True, False, training)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.elman.walk.default, arguments, test_utils=tests)
    with torch.no_grad():
        found = torch.ops.elman.walk(*arguments)
        apart(found, (*parameters, *rows, *beginnings))
        if training:
            kept = found[-len(inner.states) - 1 :]
            grads = [torch.ones_like(t) for t in found[: -len(kept)]]
            needed = [True] * len((*parameters, *rows, *beginnings))
            given = (text, parameters, rows, [], beginnings, kept, grads, needed)
            back = torch.ops.elman.walk_back(*given, steps, batch, True, False)
            assert [g.shape for g in back] == [t.shape for t in (*parameters, *rows, *beginnings)]
            apart(back, (*parameters, *rows, *beginnings, *kept, *grads))


def apart(found, given) -> None:
    """Fail where two results share memory, or one with what was given, or one has gaps."""
    places = [t.untyped_storage().data_ptr() for t in (*found, *given) if t.numel()]
    assert len(set(places)) == len(places)
    assert all(t.is_contiguous() for t in found)


def test_export():
    made = model(dtype=torch.float32, num_layers=2).eval()
    x = sequence(torch.float32)
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(made, (x,), dynamic_shapes=({1: rows},), strict=True)
    assert any("elman" in str(node.target) for node in program.graph.nodes)
    other = sequence(torch.float32, batch=7)
    with torch.no_grad():
        assert_same_bits(program.module()(x), made(x))
        assert_same_bits(program.module()(other), made(other))


def test_a_stepper_in_a_graph():
    layer, x = model("GRU").layer, sequence()

    def walk(x):
        step = layer.stepper()
        return torch.stack([step(x_t) for x_t in x[:2]])

    compiled = torch.compile(walk, backend="aot_eager", fullgraph=True)
    assert_same_bits(compiled(x), layer(x[:2])[0])
    with torch.no_grad():
        assert_same_bits(compiled(x), layer(x[:2])[0])


@pytest.mark.parametrize("name", ["GRU", "mlstm"])
def test_the_reference_in_one_graph(name):
    made = model(name, backend="reference")
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    x = sequence(time=2)
    assert_close(outcome(compiled, made, x), outcome(made, made, x))


# Loading inductor, torch meets its own old ways.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: no g++")
@pytest.mark.skipif(not FUZZ, reason="inductor is slow: set ELMAN_FUZZ=1")
def test_inductor(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    made = model("GRU", torch.float32, hidden=16)
    compiled = torch.compile(made, fullgraph=True)
    x = sequence(torch.float32)
    expected, got = outcome(made, made, x), outcome(compiled, made, x)
    assert_close(got[0], expected[0])
    assert_close(got[1], expected[1])
