"""The torch backend against the reference, the choice between them, and the words about it.

What the CPU's own kernels compute is under test in `test_cpu_laws.py` and its neighbours.
"""

from __future__ import annotations

import pytest
import torch
from layer_cases import DROPINS, as_tuple, flat, gradients, total
from tolerances import assert_close, assert_same_bits

import elman
from elman.backends import cpu, torch_kernel
from elman.backends.torch_kernel import KERNELS

LENGTHS = [4, 7, 1]
GENERIC = {
    "lstm": {},
    "gru": {},
    "simple": {},
    "simple relu": {"hyper": {"f": "relu"}},
    "lstm_projected": {"sizes": {"projection": 2}},
}
ON_TORCH = [*DROPINS, *GENERIC, "RNN relu", "LSTM projected"]


def both(name, **options):
    """A layer on each backend, with the same weights."""
    layers = []
    for backend in ("torch", "reference"):
        torch.manual_seed(2)
        given = {"num_layers": 2, "dtype": torch.float64, "backend": backend, **options}
        if name in GENERIC:
            cell = name.split()[0]
            layers.append(elman.Recurrent(cell, 3, 4, **GENERIC[name], **given))
        elif name == "RNN relu":
            layers.append(elman.RNN(3, 4, nonlinearity="relu", **given))
        elif name == "LSTM projected":
            layers.append(elman.LSTM(3, 4, proj_size=2, **given))
        else:
            layers.append(getattr(elman, name)(3, 4, **given))
    return layers


@pytest.fixture
def no_kernels(monkeypatch):
    """As on a machine where no kernel can be compiled: "auto" takes torch's, else the reference."""
    monkeypatch.setattr(cpu, "obstacles", lambda *_: ["nothing compiles here"])


def compare(layers, x, *, lengths=None, given_state=False, dtype=torch.float64):
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        state = None
        if given_state:
            torch.manual_seed(4)
            shapes = [s.shape for s in as_tuple(layer(x, lengths=lengths)[1])]
            state = tuple(torch.randn(s, dtype=dtype) for s in shapes)
            state = state if len(state) > 1 else state[0]
        out, last = layer(leaf, state, lengths=lengths)
        results.append((out, *as_tuple(last), *gradients(layer, total(out, last), leaf)))
    assert_close(results[0], results[1])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True},
        {"learning": elman.BPTT(window=3), "bidirectional": True},
        {"residual": True, "num_layers": 3},
        {"initial_state": "learned"},
        {"dense": 3},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
@pytest.mark.parametrize("name", ON_TORCH)
def test_torch_equals_the_reference(name, options, lengths):
    layers = both(name, **options)
    torch.manual_seed(1)
    x = torch.randn(7, 3, 3, dtype=torch.float64)
    if lengths:
        x[4:, 0], x[1:, 2] = float("nan"), float("inf")
    compare(layers, x, lengths=lengths, given_state="initial_state" not in options)


@pytest.mark.parametrize("name", ON_TORCH)
def test_torch_equals_the_reference_in_single_precision_with_lengths(name):
    layers = [layer.float() for layer in both(name, bidirectional=True)]
    x = torch.randn(50, 3, 3)
    with torch.no_grad():
        for a, b in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
            a.mul_(4)
            b.copy_(a)
    compare(layers, x, lengths=[50, 3, 17], dtype=torch.float32)


def test_a_growing_relu_network_does_not_spoil_gradients_past_its_end():
    layer = elman.RNN(1, 1, nonlinearity="relu", bias=False, backend="torch")
    with torch.no_grad():
        for p in layer.parameters():
            p.fill_(30.0)
    x = torch.zeros(200, 2, 1)
    x[:2, 1] = 1.0
    out, _ = layer(x, lengths=[200, 2])
    out[:2].sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_states_at_every_step_on_torch():
    for name in ("GRU", "RNN"):
        on_torch, reference = both(name, bidirectional=True)
        x = torch.randn(7, 3, 3, dtype=torch.float64)
        for lengths in (None, LENGTHS):
            got = on_torch(x, lengths=lengths, return_states="layers")
            assert_close(flat(got), flat(reference(x, lengths=lengths, return_states="layers")))


def test_a_users_equal_equation_runs_on_torch(no_kernels):
    @elman.cell
    def mine(p, x, h):
        return torch.tanh(p.W @ x + p.U @ h + p.b)

    layer = elman.Recurrent(mine, 3, 4)
    assert "backend 'torch'" in layer.explain()
    layer(torch.randn(2, 1, 3))[0].sum().backward()
    assert layer.W_l0.grad.abs().max() > 0


def test_auto_takes_our_kernel_before_torchs_and_says_so():
    for layer in (elman.LSTM(3, 4, 2, dropout=0.2), elman.Recurrent("mgu", 3, 4, zoneout=0.1)):
        for asked in ({}, {"lengths": LENGTHS}, {"resets": True}, {"return_states": True}):
            said = layer.explain(**asked)
            assert "Elman's kernel for the CPU (backend 'cpu')" in said
            assert "fastest" in said
            assert "slower" not in said
    assert "was asked for" in elman.GRU(3, 4, backend="cpu").explain()
    half = elman.GRU(3, 4, dtype=torch.bfloat16)
    assert "backend 'torch'" in half.explain()
    assert "not bfloat16" in half.explain()
    matrices = elman.Recurrent("mlstm", 3, 3)
    assert "backend 'reference'" in matrices.explain()
    assert "the state 'C' is a matrix for each row" in matrices.explain()

    def inside(x):
        assert "torch.func" in elman.GRU(3, 4).explain()
        return x.sum()

    torch.func.grad(inside)(torch.randn(2, 1, 3))


def test_what_keeps_torchs_kernel_away_is_said(no_kernels):
    auto = elman.LSTM(3, 4, 2, dropout=0.2)
    assert "backend 'torch'" in auto.explain()
    assert "one after the other" in auto.explain()
    assert "one after the other" not in auto.eval().explain()
    assert "padded" in auto.explain(lengths=LENGTHS)
    for words, text in (
        ("reset the state", auto.explain(resets=True)),
        ("memory c of every step", auto.explain(return_states=True)),
        ("zoneout=0.1", elman.GRU(3, 4, zoneout=0.1).explain()),
        ("layer_norm", elman.GRU(3, 4, layer_norm=True).explain()),
        ("recurrent_dropout=0.1", elman.GRU(3, 4, recurrent_dropout=0.1).explain()),
        ("'mgu' is none of torch.nn's", elman.Recurrent("mgu", 3, 4).explain()),
        ("asked for", elman.GRU(3, 4, backend="reference").explain()),
    ):
        assert words in text
        assert "slower path" in text
    assert "slower" not in elman.GRU(3, 4, recurrent_dropout=0.1).eval().explain()
    assert "every 5 steps" in elman.GRU(3, 4, learning=elman.BPTT(window=5)).explain()

    def inside(x):
        assert "torch.func" in auto.explain()
        return auto(x)[0].sum()

    torch.func.grad(inside)(torch.randn(2, 1, 3))


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"zoneout": 0.1}, {}),
        ({"layer_norm": True}, {}),
        ({"recurrent_dropout": 0.1}, {}),
        ({}, {"resets": torch.zeros(2, 1, dtype=torch.bool)}),
        ({}, {"return_states": True}),
    ],
)
def test_an_explicit_backend_that_cannot_serve_raises(options, call):
    layer = elman.LSTM(3, 4, backend="torch", **options)
    with pytest.raises(elman.InputError, match="backend='torch' cannot run this call: "):
        layer(torch.randn(2, 1, 3), **call)
    with pytest.raises(elman.InputError, match="cannot run this call"):
        torch.func.grad(lambda x: elman.GRU(3, 4, backend="torch")(x)[0].sum())(torch.randn(2, 3))


@pytest.mark.parametrize("name", [*DROPINS, "LSTM projected"])
def test_the_whole_stack_takes_torchs_bits(name):
    theirs = {"LSTM projected": lambda **o: torch.nn.LSTM(3, 4, 2, proj_size=2, **o)}.get(
        name, lambda **o: getattr(torch.nn, name)(3, 4, 2, **o)
    )(bidirectional=True, dtype=torch.float64)
    ours = both(name, bidirectional=True)[0]
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(7, 3, 3, dtype=torch.float64)
    assert_same_bits(flat(ours(x)), flat(theirs(x)))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", list(KERNELS))
def test_the_twice_differentiable_kernel(name, batch_first):
    """What cuDNN needs: a second derivative from the reference. Here around the CPU's kernel."""
    torch.manual_seed(0)
    kernel = KERNELS[name]
    sizes = {"input": 3, "hidden": 4, "projection": 2}
    wide = {**sizes, "input": 2 * sizes[kernel.own_cell.graph.output_size]}
    weights = []
    for layer in (sizes, wide):
        for _ in range(2):
            shapes = kernel.own_cell.graph.parameter_shapes(layer)
            parameters = {n: torch.randn(s, dtype=torch.float64) for n, s in shapes.items()}
            weights += kernel.stack(parameters)
    x = torch.randn(2, 2, 3, dtype=torch.float64)
    states = tuple(
        torch.randn(4, 2, sizes[s.dims[0]], dtype=torch.float64)
        for s in kernel.own_cell.graph.states
    )
    tensors = [t.requires_grad_() for t in (x, *states, *weights)]

    def run(*tensors):
        shape = (2, True, batch_first)
        return torch_kernel._Twice.apply(kernel, shape, len(states), *tensors)

    assert torch.autograd.gradcheck(run, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, tensors, fast_mode=True)
    loss = total(run(*tensors)[0])
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_float32_lstm_differentiates_twice_on_the_whole_stack(no_kernels):
    layer = elman.LSTM(3, 4, 2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(layer(x)[0].pow(2).sum(), x, create_graph=True)
    got = torch.autograd.grad(first.pow(2).sum(), list(layer.parameters()))
    layer.backend = "reference"
    (first,) = torch.autograd.grad(layer(x)[0].pow(2).sum(), x, create_graph=True)
    assert_close(got, torch.autograd.grad(first.pow(2).sum(), list(layer.parameters())))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("name", DROPINS)
def test_auto_takes_the_reference_where_kernels_cannot_follow(name, kernels, request):
    if not kernels:
        request.getfixturevalue("no_kernels")
    torch.manual_seed(0)
    auto, reference = (getattr(elman, name)(3, 4, 2, backend=b) for b in ("auto", "reference"))
    reference.load_state_dict(auto.state_dict())
    x, tangent = torch.randn(2, 5, 2, 3)

    def along(layer):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, tangent)
            return torch.autograd.forward_ad.unpack_dual(layer(dual)[0]).tangent

    assert_same_bits(along(auto), along(reference))
    many = torch.stack([x, tangent])
    for transform in (
        lambda f: torch.func.vmap(f)(many),
        lambda f: torch.func.jvp(f, (x,), (tangent,))[1],
        lambda f: torch.func.jacfwd(f)(x),
        lambda f: torch.func.hessian(lambda x: f(x).pow(2).sum())(x[:2]),
    ):
        assert_same_bits(*(transform(lambda x, m=m: m(x)[0]) for m in (auto, reference)))


def test_a_projection_as_large_as_the_hidden_size_stays_on_the_reference(no_kernels):
    layer = elman.Recurrent("lstm_projected", 3, 4, sizes={"projection": 4})
    assert layer(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    assert "as large as the hidden size" in layer.explain()
    wanted = elman.Recurrent("lstm_projected", 3, 4, sizes={"projection": 4}, backend="torch")
    with pytest.raises(elman.InputError, match="as large as the hidden size"):
        wanted(torch.randn(5, 2, 3))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_batch_without_rows_may_have_lengths(backend):
    layer = elman.LSTM(3, 4, backend=backend)
    out, (h, _) = layer(torch.randn(5, 0, 3), lengths=torch.zeros(0, dtype=torch.long))
    assert out.shape == (5, 0, 4)
    assert h.shape == (1, 0, 4)
