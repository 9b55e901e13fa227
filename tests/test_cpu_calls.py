"""What a call of the CPU's kernels may be given, and what becomes of its results.

Odd memory, odd types, odd sizes, gradients of some things only, copies, threads and forks: right
results, or the error that the reference gives.
"""

from __future__ import annotations

import copy
import math
import os
import pickle
import threading

import pytest
import torch
import torch.nn.functional as F
from cpu_agree import (
    ODD,
    Sequence,
    Shape,
    assert_agree,
    call,
    layers,
    lengths_of,
    outcome,
    resets_of,
    sequence,
    state_of,
)
from layer_cases import flat, total
from tolerances import EQUAL, ORACLE, assert_close, assert_same_bits

import elman
from elman.backends.cpu import maths

CELL = elman.cells.get("lstm")
DOUBLE = torch.float64


def pair_of(name="lstm", hidden=7, dtype=DOUBLE, **options):
    cell = elman.cells.get(name)
    return layers(cell, Shape(hidden=hidden).of(cell), dtype, **options)


def given_to(pair, **asked) -> Sequence:
    given = sequence(pair[1], ODD, pair[1]._weight().dtype)
    for name, value in asked.items():
        setattr(given, name, value)
    return given


def agree(pair, given, **options) -> None:
    dtype = pair[1]._weight().dtype
    assert_agree(pair, given, EQUAL[dtype], ORACLE[dtype], **options)


# --- memory ---


def strange(values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors of one shape whose memory is unlike that of a fresh one."""
    steps, rows, units = values.shape
    wide = torch.zeros(steps, rows, 2 * units, dtype=values.dtype)
    wide[..., ::2] = values
    shifted = torch.zeros(values.numel() + 3, dtype=values.dtype)[3:].view_as(values)
    # Not even on the edge of a number.
    raw = torch.frombuffer(bytearray(values.numel() * values.itemsize + 4), dtype=torch.uint8)
    torn = torch.frombuffer(raw.numpy()[4:], dtype=values.dtype).view_as(values)
    return {
        "transposed": values.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        "batch first": values.transpose(0, 1).contiguous().transpose(0, 1),
        "strided": wide[..., ::2],
        "flipped": values.flip(0),
        "shifted": shifted.copy_(values),
        "torn": torn.copy_(values),
        "one row for all": values[:, :1].expand_as(values),
        "one number for all": values[:1, :1, :1].expand_as(values),
        "overlapping": values.flatten().as_strided(values.shape, (2, 3, 1)),
        "negated": torch._neg_view(values),
    }


KINDS = tuple(strange(torch.zeros(2, 2, 2)))


@pytest.mark.parametrize("hidden", [7, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_x_and_of_states(kind, hidden):
    pair = pair_of(hidden=hidden)
    given = given_to(pair)
    given.x = strange(given.x)[kind]
    given.state = tuple(strange(s)[kind] for s in state_of(pair[1], given))
    # Not through `outcome`, whose leaves are copies.
    with torch.no_grad():
        assert_close(*(call(layer, given) for layer in pair))
    given.lengths = lengths_of(ODD)
    assert_close(*(call(layer, given) for layer in pair))
    x = given.x.detach().requires_grad_()
    given = Sequence(x, {}, given.state)
    slopes = [torch.autograd.grad(total(call(layer, given)), x) for layer in pair]
    assert_close(*slopes, ORACLE)


@pytest.mark.parametrize("kind", ["transposed", "part", "expanded", "turned"])
def test_memory_of_weights(kind):
    pair = pair_of("peephole_lstm", hidden=8)
    for layer in pair:
        for p in layer.parameters():
            wide = torch.zeros(*(3 * n for n in p.shape), dtype=p.dtype)
            wide[tuple(slice(None, None, 3) for _ in p.shape)] = p.data
            views = {
                "transposed": p.data.mT.contiguous().mT if p.dim() > 1 else p.data,
                "part": wide[tuple(slice(None, None, 3) for _ in p.shape)],
                "expanded": p.data[:1].expand_as(p),
                "turned": p.data.flip(0),
            }
            p.data = views[kind]
    agree(pair, given_to(pair))
    agree(pair, given_to(pair, lengths=lengths_of(ODD)))


@pytest.mark.parametrize("name", ["lstm", "gru_cho"])
def test_tied_weights(name):
    pair = pair_of(name, hidden=8)
    for layer in pair:
        squares = [n for n, p in layer.named_parameters() if p.shape == (8, 8)]
        for other in squares[1:]:
            setattr(layer, other, getattr(layer, squares[0]))
    agree(pair, given_to(pair))


@pytest.mark.parametrize("kind", ["type", "shape", "device"])
def test_a_parameter_that_is_no_longer_what_it_was(kind):
    wrong = {
        "type": torch.zeros(7, 7),
        "shape": torch.zeros(3, 3, dtype=DOUBLE),
        "device": torch.zeros(7, 7, dtype=DOUBLE, device="meta"),
    }[kind]
    for layer in pair_of():
        given = sequence(layer, ODD)
        layer.U_f_l0 = torch.nn.Parameter(wrong)
        if layer.backend == "reference" and kind == "device":
            continue  # torch lets such a product pass
        with pytest.raises((RuntimeError, elman.ElmanError)):
            call(layer, given)


# --- modes and types ---


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    pair = pair_of("narx")
    for given in (given_to(pair), given_to(pair, lengths=lengths_of(ODD), resets=resets_of(ODD))):
        with mode():
            found = [call(layer, given) for layer in pair]
            assert not any(f.requires_grad for f in found[0])
            assert_close(*found)
        # What was kept from that call serves one with gradients.
        agree(pair, given)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_goes_elsewhere_and_says_so(dtype):
    layer = elman.Recurrent("peephole_lstm", 5, 7, dtype=dtype)
    assert f"not {str(dtype).removeprefix('torch.')}" in layer.explain()
    assert layer(torch.ones(2, 3, 5, dtype=dtype))[0].dtype == dtype
    layer.backend = "cpu"
    with pytest.raises(elman.InputError, match="float32 or float64"):
        layer(torch.ones(2, 3, 5, dtype=dtype))


@pytest.mark.parametrize("state", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("x", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["lstm", "minimal_rnn", "antisymmetric_rnn"])
def test_autocast(name, x, state):
    """As full precision is asked for by the weights, it is kept: inputs in half are widened."""
    pair = pair_of(name, dtype=torch.float32)
    given = given_to(pair)
    given.state = tuple(s.to(state) for s in state_of(pair[1], given))
    given.x = given.x.to(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = call(pair[0], given)
    given.x, given.state = given.x.float(), tuple(s.float() for s in given.state)
    assert_close(found, call(pair[1], given))
    total(found).backward()
    assert all(p.grad.isfinite().all() for p in pair[0].parameters())


# --- gradients ---


@pytest.mark.parametrize("names", [["x"], ["U_f_l0"], ["b_f_l0"], ["W_i_l0", "x"], ["state"], []])
def test_gradients_of_some_things_only(names):
    pair = pair_of()
    found = []
    for layer in pair:
        given = given_to(pair)
        given.state = state_of(pair[1], given)
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(name in names)
        leaves = [p for p in layer.parameters() if p.requires_grad]
        if "x" in names:
            leaves.append(given.x.requires_grad_())
        if "state" in names:
            leaves.append(given.state[1].requires_grad_())
        results = call(layer, given)
        assert all(r.requires_grad == bool(names) for r in results)
        if names:
            total(results).backward()
            assert all(p.grad is None for p in layer.parameters() if not p.requires_grad)
            found.append([leaf.grad for leaf in leaves])
    if names:
        assert_close(*found, ORACLE)


@pytest.mark.parametrize(
    "name", ["lstm", "gru", "peephole_lstm", "narx", "jordan", "lstm_projected"]
)
def test_gradients_from_some_results_only(name):
    pair = pair_of(name)
    for lengths in (None, lengths_of(ODD)):
        given = given_to(pair, lengths=lengths)
        with torch.no_grad():
            count = len(call(pair[1], given))
        for place in range(count):
            agree(pair, given, loss=lambda results, place=place: results[place].sin().sum())


def test_backward_more_than_once():
    layer = pair_of()[0]
    given = given_to((layer, layer))
    given.x.requires_grad_()
    loss = total(call(layer, given))
    leaves = [given.x, *layer.parameters()]
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=True) for _ in range(2))
    assert_same_bits(first, second)
    loss.backward()
    assert_same_bits([leaf.grad for leaf in leaves], first)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("kind", ["whole", "lengths", "resets"])
def test_higher_derivatives_come_from_the_reference(kind):
    layer = layers(CELL, {"input": 2, "hidden": 3})[0]
    small = Shape(3, 2, 2, 3)
    given = sequence(layer, small)
    given.lengths = torch.tensor([3, 2]) if kind == "lengths" else None
    given.resets = resets_of(small) if kind == "resets" else None
    given.state = state_of(layer, given)
    names = [name for name, _ in layer.named_parameters()]

    def function(x, h, c, *weights):
        return tuple(
            flat(
                torch.func.functional_call(
                    layer, dict(zip(names, weights, strict=True)), (x, (h, c)),
                    {"lengths": given.lengths, "resets": given.resets},
                )
            )
        )  # fmt: skip

    values = [given.x, *given.state, *(p.detach() for p in layer.parameters())]
    values = [v.clone().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, values, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, values, fast_mode=True)


@pytest.mark.parametrize("hidden", [7, 16])
@pytest.mark.parametrize("name", ["lstm", "gru", "simple"])
def test_results_changed_in_place(name, hidden):
    """The gradient needs nothing that the caller was given, so it may be changed."""
    pair = pair_of(name, hidden)
    given = given_to(pair)
    given.x.requires_grad_()
    count = len(call(pair[1], given))
    wanted = torch.autograd.grad(total(call(pair[1], given)), given.x)
    for place in range(count):
        for change in (lambda r: r.mul_(2), lambda r: r.detach().zero_(), _without_graph):
            results = call(pair[0], given)
            loss = total(results)
            change(results[place])
            assert_close(torch.autograd.grad(loss, given.x), wanted, ORACLE)


def _without_graph(result: torch.Tensor) -> None:
    with torch.no_grad():
        result.zero_()


@pytest.mark.parametrize("what", ["x", "state", "weight"])
def test_what_was_given_changed_in_place(what):
    layer = pair_of()[0]
    given = given_to((layer, layer))
    given.state = state_of(layer, given)
    loss = total(call(layer, given))
    changed = {"x": given.x, "state": given.state[0], "weight": layer.U_f_l0}[what]
    with torch.no_grad():
        changed.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_results_are_memory_of_their_own():
    layer = pair_of(hidden=16)[0]
    given = given_to((layer, layer))
    with torch.no_grad():
        results = call(layer, given, every=False)
        before = [r.clone() for r in results]
        results[0].zero_()
        assert_same_bits(results[1:], before[1:])
        assert_same_bits(call(layer, given, every=False), before)


# --- sizes ---


@pytest.mark.parametrize("lengths", [None, torch.zeros(0, dtype=torch.long)])
def test_no_rows(lengths):
    pair = pair_of(bidirectional=True)
    given = Sequence(torch.zeros(3, 0, 5, dtype=DOUBLE), {}, lengths=lengths)
    ours, theirs = (outcome(layer, given) for layer in pair)
    for one, other in zip(ours, theirs, strict=True):
        assert {n: v.shape for n, v in one.items()} == {n: v.shape for n, v in other.items()}
        assert_same_bits(list(one.values()), list(other.values()))


def test_no_steps():
    for layer in pair_of():
        with pytest.raises(elman.InputError, match="no step at all"):
            layer(torch.zeros(0, 3, 5, dtype=DOUBLE))


@pytest.mark.parametrize("shape", [(2**45, 1, 5), (1, 2**45, 5), (2**40, 2**20, 5)], ids=str)
def test_sizes_that_no_memory_holds(shape):
    x = torch.zeros(1, dtype=DOUBLE).expand(*shape)
    for layer in pair_of():
        with pytest.raises((RuntimeError, MemoryError)):
            layer(x)


@pytest.mark.parametrize("lengths", [[0, 1, 2, 3, 4], [7, 1, 1, 1, 1], [1, 2], [-1, 1, 1, 1, 1]])
def test_wrong_lengths(lengths):
    said = []
    for layer in pair_of():
        with pytest.raises(elman.InputError) as caught:
            layer(sequence(layer, ODD).x, lengths=lengths)
        said.append(str(caught.value))
    assert said[0] == said[1]


# --- copies, threads, forks ---


def test_a_layer_is_copied_after_a_call():
    layer = pair_of()[0]
    given = given_to((layer, layer))
    wanted = [r.detach() for r in call(layer, given)]
    fresh = pair_of()[0]
    fresh.load_state_dict(layer.state_dict())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh):
        assert_same_bits([r.detach() for r in call(other, given)], wanted)
        with torch.no_grad():
            other.U_f_l0.add_(1.0)
    assert_same_bits([r.detach() for r in call(layer, given)], wanted)


def test_new_weights_are_seen_at_once():
    pair = pair_of()
    given = given_to(pair)
    for _ in range(2):
        agree(pair, given)
        for layer in pair:
            with torch.no_grad():
                for p in layer.parameters():
                    p.add_(0.1)
    for layer in pair:
        for p in layer.parameters():
            p.data = p.data.clone() * 0.5
    agree(pair, given)


def test_python_threads_share_a_layer():
    layer = pair_of()[0]
    many = [given_to((layer, layer), x=torch.randn(6, 4, 5, dtype=DOUBLE)) for _ in range(4)]
    wanted = [outcome(layer, given) for given in many]
    wrong = []

    def work(place: int) -> None:
        for _ in range(10):
            for one, other in zip(outcome(layer, many[place]), wanted[place], strict=True):
                if not all(torch.equal(one[name], other[name]) for name in other):
                    wrong.append(place)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(many))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_fork_after_use():
    layer = pair_of()[0]
    given = given_to((layer, layer))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            wanted = call(layer, given)
            child = os.fork()
            if child == 0:
                same = False
                try:
                    same = all(map(torch.equal, call(layer, given), wanted))
                finally:
                    os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("hidden", [5, 32])
@pytest.mark.parametrize(
    "options", [{}, {"return_states": True}, {"lengths": torch.tensor([3, 2])}]
)
def test_outputs_may_be_changed_in_place(hidden, options):
    layer, x, found = elman.LSTM(4, hidden), torch.randn(3, 2, 4), []
    for change in (lambda out: out * 2, lambda out: out.mul_(2)):
        layer.zero_grad()
        change(layer(x, **options)[0]).sum().backward()
        found.append(layer.weight_hh_l0.grad.clone())
    assert torch.equal(*found)


def test_a_cotangent_without_memory_is_zeros():
    layer = elman.LSTM(4, 5)
    out, _ = layer(torch.randn(3, 2, 4))
    out.backward(torch._efficientzerotensor(out.shape))
    assert not layer.weight_ih_l0.grad.any()


def test_an_operation_without_code_for_vectors_runs_on_the_reference(monkeypatch):
    """An operation of the language that the emitter does not know yet is named, and no error."""
    monkeypatch.delitem(maths.ELEMENTWISE, "softplus")

    @elman.cell
    def soft(p, x, h):
        return F.softplus(p.W @ x + p.U @ h)

    layer = elman.Recurrent(soft, 3, 4)
    said = layer.explain()
    assert "backend 'reference'" in said
    assert "the operation 'softplus' has no code for vectors" in said
    assert layer(torch.randn(5, 2, 3))[0].shape == (5, 2, 4)
    layer.backend = "cpu"
    with pytest.raises(elman.InputError, match="softplus"):
        layer(torch.randn(5, 2, 3))


def test_the_slope_of_elu_at_nan_is_nan():
    @elman.cell
    def bent(p, x, h):
        return F.elu(x + p.u * h, 0.7)

    found = []
    for backend in ("cpu", "reference"):
        layer = elman.Recurrent(bent, 16, 16, backend=backend)
        x = torch.full((1, 2, 16), math.nan, requires_grad=True)
        layer(x)[0].sum().backward()
        found.append(x.grad)
    assert all(slope.isnan().all() for slope in found)
