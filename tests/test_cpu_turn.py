"""Functions side by side in one turn of the threads; both directions of a layer among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cpu_agree import (
    EVEN,
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
from layer_cases import FEW
from tolerances import EQUAL, ORACLE, assert_same_bits

import elman
from elman.backends import cpu
from elman.backends.call import Call
from elman.backends.cpu import autograd, engine, threads, turn
from elman.backends.cpu.machine import host
from elman.backends.cpu.sources import own

# tell: the word at 8 + thread holds the number of threads plus one, after a meeting where that was
# asked for. follow: adds what others have told to the word at 4, on its first thread.
IR = """
define void @tell(ptr %a, i64 %thread, i64 %threads) nounwind {
  %shared = icmp sgt i64 %threads, 1
  %p.meets = getelementptr i64, ptr %a, i64 1
  %meets = load i64, ptr %p.meets
  %asked = icmp ne i64 %meets, 0
  %both = and i1 %shared, %asked
  br i1 %both, label %meet, label %on
meet:
  %barrier = load ptr, ptr %a
  call void %barrier()
  br label %on
on:
  %mine = add i64 %thread, 8
  %p = getelementptr i64, ptr %a, i64 %mine
  %old = load i64, ptr %p
  %one = add i64 %old, 1
  %value = add i64 %threads, %one
  store i64 %value, ptr %p
  ret void
}

define void @follow(ptr %a, i64 %thread, i64 %threads) nounwind {
  %first = icmp eq i64 %thread, 0
  br i1 %first, label %look, label %done
look:
  %p.told = getelementptr i64, ptr %a, i64 2
  %told = load ptr, ptr %p.told
  %p.value = getelementptr i64, ptr %told, i64 8
  %value = load i64, ptr %p.value
  %p = getelementptr i64, ptr %a, i64 4
  store i64 %value, ptr %p
  br label %done
done:
  ret void
}
"""


@pytest.fixture(scope="module")
def code():
    return engine.compile_module("turn test", lambda: IR, ["tell", "follow"], host(), cached=False)


@pytest.fixture(params=["openmp", "own"])
def team(request, monkeypatch):
    usual = threads._openmp()
    if request.param == "openmp":
        if usual is None:
            pytest.skip("torch has no OpenMP that can be called here")
        monkeypatch.setattr(threads, "_team", usual)
        yield
        return
    pool = threads._Pool()
    monkeypatch.setattr(threads, "_team", pool)
    yield
    pool.close()
    if usual is not None:
        threads._openmp()  # sets the barrier again


def told(blocks: list[np.ndarray]) -> list[list[int]]:
    """Of each block how many threads each of its threads saw."""
    return [[int(value) - 1 for value in block[8:] if value] for block in blocks]


@pytest.mark.parametrize("meetings", [0, 1])
@pytest.mark.parametrize(
    ("functions", "most", "count", "wanted"),
    [
        (1, 4, 4, [[4, 4, 4, 4]]),
        (1, 2, 4, [[2, 2]]),
        (2, 2, 2, [[1], [1]]),
        (2, 2, 4, [[2, 2], [2, 2]]),
        (2, 2, 5, [[2, 2], [2, 2]]),
        (2, 3, 7, [[3, 3, 3], [3, 3, 3]]),
        (2, 1, 7, [[1], [1]]),
        (2, 4, 1, [[1], [1]]),
        (5, 4, 2, [[1]] * 5),
        (3, 4, 2, [[1]] * 3),
    ],
)
def test_each_function_has_its_share(team, code, functions, most, count, wanted, meetings):
    blocks = [np.zeros(24, np.int64) for _ in range(functions)]
    after = np.zeros(8, np.int64)
    for block in blocks:
        block[:2] = threads.barrier_address(), meetings
    after[2] = blocks[-1].ctypes.data
    made = [turn.Function(code.address("tell"), block) for block in blocks]
    last = turn.Stage([turn.Function(code.address("follow"), after)], count)
    for _ in range(20):  # an order that is right by chance is not so twenty times
        for block in blocks:
            block[8:] = 0
        turn.run([turn.Stage(made, most, meetings), last], count)
        assert told(blocks) == wanted
        assert after[4] - 1 == wanted[-1][0], "the second stage began before the first was over"
        for block in blocks:
            block[8:] = 0
        turn.run([turn.Stage(made, most, meetings)], count)
        assert told(blocks) == wanted


@pytest.fixture(params=[1, 2, 3])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def both_ways(case, shape: Shape, wanted: set[str], **options):
    pair = layers(case.cell, shape.of(case.cell), bidirectional=True, **options)
    given = sequence(pair[1], shape)
    given.lengths = lengths_of(shape) if "lengths" in wanted else None
    given.resets = resets_of(shape) if "resets" in wanted else None
    given.state = state_of(pair[1], given) if "state" in wanted else None
    return pair, given


LSTM = next(case for case in FEW if case.name == "lstm")
DELAYED = next(case for case in FEW if case.name == "narx")


def _in_words(wanted: set[str]) -> str:
    """A set in one order, whatever the process."""
    return "-".join(sorted(wanted)) or "plain"


@pytest.mark.parametrize(
    "wanted", [set(), {"lengths"}, {"resets"}, {"lengths", "resets"}], ids=_in_words
)
@pytest.mark.parametrize("case", [LSTM, DELAYED], ids=lambda case: case.id)
def test_both_directions_agree_with_the_reference(case, wanted, count):
    for shape in (ODD, Shape(EVEN.steps, 1, EVEN.input, EVEN.hidden)):
        pair, given = both_ways(case, shape, wanted | {"state"}, num_layers=2)
        assert_agree(pair, given, EQUAL[torch.float64], ORACLE[torch.float64])


@pytest.mark.parametrize("wanted", [set(), {"lengths"}, {"resets"}], ids=_in_words)
def test_a_row_has_the_same_bits_whatever_runs_beside(wanted):
    """Both directions at once, each alone in a layer of its own, on one, two and three threads."""
    (both, _), given = both_ways(LSTM, ODD, wanted)
    hidden = ODD.hidden
    single = layers(LSTM.cell, ODD.of(LSTM.cell))[0]
    with torch.no_grad():
        for name, value in single.named_parameters():
            value.copy_(getattr(both, name))
        alone = call(single, given, every=False)[0]
    found = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results, slopes = outcome(both, given)
        found.append([*results.values(), slopes["x"]])
    torch.set_num_threads(1)
    for other in found[1:]:
        assert_same_bits(other, found[0])
    assert_same_bits([found[0][0][..., :hidden]], [alone])


@pytest.mark.parametrize("seen", [0, 1])
def test_a_direction_that_no_loss_sees_is_not_walked_back(seen, monkeypatch):
    """Its weights have no gradient, as where each direction is a call of its own."""
    layer = layers(LSTM.cell, ODD.of(LSTM.cell))[0]
    kernels = cpu.kernels_of(layer.cell.graph)
    x = sequence(layer, ODD).x
    walked: list[int] = []
    old = autograd.backward
    monkeypatch.setattr(
        autograd, "backward", lambda walks, *rest: walked.append(len(walks)) or old(walks, *rest)
    )
    weights = [
        {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}
        for _ in range(2)
    ]
    begin = [layer.initial_carried(ODD.rows, x)[0]] * 2
    calls = [Call(x, begin[0]), Call(x, begin[1], backwards=True)]
    names = layer.equation_parameters(0, 0)

    def run(calls, weights):
        held = [own({n: w[f"{n}_l0"] for n in names}) for w in weights]
        return cpu.run_beside(kernels, layer._sizes[0], held, calls)

    out = run(calls, weights)[seen].out
    leaf = [value for own_ in weights for value in own_.values()]
    found = torch.autograd.grad(out.sin().sum(), leaf, allow_unused=True)
    assert walked == [1]
    half = len(leaf) // 2
    mine, others = found[seen * half :][:half], found[(1 - seen) * half :][:half]
    assert all(g is None for g in others)
    alone = run([calls[seen]], [weights[seen]])[0].out
    wanted = torch.autograd.grad(alone.sin().sum(), list(weights[seen].values()))
    assert_same_bits(list(mine), list(wanted))


def test_second_derivatives_of_both_directions():
    (ours, theirs), given = both_ways(LSTM, Shape(3, 2, 3, 4), set())
    found = []
    for layer in (ours, theirs):
        x = given.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(x)[0].sin().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), x)[0])
    assert (found[0] - found[1]).abs().max() < 1e-11


def test_the_same_call_twice_with_a_kept_graph(count):
    (ours, _), given = both_ways(LSTM, ODD, {"lengths"})
    x = given.x.clone().requires_grad_()
    loss = call(ours, Sequence(x, {}, lengths=given.lengths))[0].sin().sum()
    leaf = [x, *ours.parameters()]
    one = torch.autograd.grad(loss, leaf, retain_graph=True)
    assert_same_bits(list(torch.autograd.grad(loss, leaf)), list(one))


def test_autocast_and_a_batch_without_rows():
    (ours, theirs), given = both_ways(LSTM, ODD, set())
    empty = given.x[:, :0]
    assert ours(empty)[0].shape == theirs(empty)[0].shape == (ODD.steps, 0, 2 * ODD.hidden)
    layer = elman.Recurrent("lstm", 3, 4, bidirectional=True, backend="cpu")
    x = torch.randn(5, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x.bfloat16())[0]
    assert_same_bits([half], [layer(x.bfloat16().float())[0]])


def test_two_directions_take_no_more_threads_than_torch_has(monkeypatch):
    taken = []
    run = threads.run
    monkeypatch.setattr(
        threads,
        "run",
        lambda address, words, count: (taken.append(count), run(address, words, count)),
    )
    before = torch.get_num_threads()
    layer = elman.LSTM(4, 5, bidirectional=True, backend="cpu")
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            taken.clear()
            layer(torch.randn(3, 2, 4), lengths=[3, 2])[0].sum().backward()
            assert max(taken) == count
    finally:
        torch.set_num_threads(before)
