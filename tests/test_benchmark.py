"""What a time is made of: turns, quiet rounds, peers that compute the same, and the refusal."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from tolerances import EQUAL, ORACLE, assert_close
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import elman
from elman.benchmark import (
    Case,
    Disagreement,
    Found,
    Plan,
    Row,
    Shape,
    agree,
    first_call,
    measure,
    report,
    stream,
)
from elman.benchmark import peers as benchmark_peers
from elman.benchmark.measure import Time
from elman.benchmark.quiet import QUIET, Watch
from elman.benchmark.turns import Spread, geometric_mean, in_turns, near_fastest
from elman.errors import ElmanError, InputError
from elman.layers.base import RecurrentLayer

SMALL = Shape(5, 3, 4, 6)
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "simple": nn.RNN}


def case_of(name: str, **options) -> Case:
    return Case(elman.cells.get(name), options.pop("shape", SMALL), **options)


# -- turns -----------------------------------------------------------------------------------------


def test_a_spread_is_median_and_quartiles():
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(2.0, 3.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    # Pair by pair: a round in which everything was slow says the same as the others.
    assert Spread.of_ratios([2.0, 4.0, 200.0], [1.0, 2.0, 100.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread(2.0, 4.0, 8.0).inverse() == Spread(0.125, 0.25, 0.5)
    assert geometric_mean([1.0, 4.0]) == pytest.approx(2.0)


def test_calls_take_turns_in_another_order_each_round():
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) or _wait(5e-3) for name in "abc"}
    found = in_turns(calls, rounds=6, seed=1)
    assert {name: len(times) for name, times in found.seconds.items()} == dict.fromkeys("abc", 6)
    rounds = ["".join(made[i : i + 3]) for i in range(12, len(made), 3)]
    assert len(rounds) == 6  # after four calls of each to warm up
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1
    assert all(5e-3 <= t < 1.0 for times in found.seconds.values() for t in times)


def test_a_short_call_is_timed_many_at_once():
    made = []
    found = in_turns({"a": lambda: made.append(1) or _wait(2e-4)}, rounds=5)
    assert len(made) > 50
    # It is the time of one, not of the twenty in a turn.
    assert 2e-4 <= min(found.seconds["a"]) < 2e-3


def test_rounds_beside_other_processes_do_not_count(monkeypatch):
    busy = iter([0.0, 1.4, 0.0, 0.0, 1.0] + [0.0] * 99)
    monkeypatch.setattr(Watch, "others", lambda self: next(busy))
    monkeypatch.setattr("elman.benchmark.quiet._BLOCK", 0.0)  # every round is a block
    found = in_turns({"a": lambda: _wait(5e-3)}, rounds=8)
    assert (len(found.seconds["a"]), found.left_out, found.others) == (6, 2, 0.0)


def test_where_all_rounds_are_beside_others_they_count_and_it_is_told(monkeypatch):
    monkeypatch.setattr(Watch, "others", lambda self: 1.5)
    found = in_turns({"a": lambda: _wait(5e-3)}, rounds=6)
    assert (len(found.seconds["a"]), found.left_out, found.others) == (6, 0, 1.5)
    row = measure([case_of("mgu")], Plan(("products",), (False,), rounds=2)).rows[0]
    assert row.others is not None
    assert row.others > QUIET


def test_slow_settings_leave_after_the_trial():
    settings = {"slow": lambda: _wait(3e-2), "fast": lambda: _wait(6e-3)}
    assert list(near_fastest(settings)) == ["fast"]


def _wait(seconds: float) -> None:
    import time

    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# -- cases and peers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_a_pass_gives_torch_nns_values_and_gradients(name, ragged):
    case = case_of(name, dtype=torch.float64, ragged=ragged)
    out, x_slope, *slopes = case.call(case.layer, backward=True)()
    theirs = KINDS[name](SMALL.input, SMALL.hidden, dtype=torch.float64)
    theirs.load_state_dict(case.layer.state_dict())
    x = case.x.clone().requires_grad_()
    lengths = case.lengths if case.lengths is not None else torch.full((SMALL.batch,), SMALL.steps)
    packed = theirs(pack_padded_sequence(x, lengths, enforce_sorted=False))[0]
    expected = nn.utils.rnn.pad_packed_sequence(packed, total_length=SMALL.steps)[0]
    wanted = torch.autograd.grad(expected, [x, *theirs.parameters()], case.slope)
    assert_close(out, expected, ORACLE)
    assert_close((x_slope, *slopes), wanted, ORACLE, "gradients")
    assert_close(case.call(case.layer, backward=False)()[0], expected, ORACLE)


def test_lengths_are_drawn_evenly_from_one_to_all_steps():
    case = case_of("gru", shape=Shape(4, 4000, 2, 2), ragged=True)
    counts = torch.bincount(case.lengths, minlength=5)
    assert counts[0] == 0
    assert counts.numel() == 5
    assert all(900 < int(n) < 1100 for n in counts[1:])
    assert case.real_steps == int(case.lengths.sum())


@pytest.mark.parametrize("name", KINDS)
def test_torch_peers_compute_what_we_do(name):
    case = case_of(name, dtype=torch.float64)
    for backward in (False, True):
        ours = case.call(case.layer, backward=backward)()
        for call in benchmark_peers.torch_padded(case, backward).values():
            found = call()
            found = found if backward else (found,)
            assert_close(tuple(found), tuple(ours), ORACLE)


def test_the_packed_peer_computes_what_we_do():
    case = case_of("lstm", dtype=torch.float64, ragged=True)
    out, x_slope, *slopes = case.call(case.layer, backward=True)()
    order = case.lengths.argsort(descending=True)

    def packed(t):
        return pack_padded_sequence(t[:, order], case.lengths[order]).data

    for call in benchmark_peers.torch_packed(case, True).values():
        found = call()
        assert_close(found[0], packed(out), ORACLE)
        assert_close(found[1], packed(x_slope), ORACLE, "the gradient of x")
        assert_close(tuple(found[2:]), tuple(slopes), ORACLE, "the gradients of weights")


@pytest.mark.parametrize(
    ("name", "hyper"), [("lstm", {}), ("gru", {}), ("simple", {}), ("simple", {"f": "relu"})]
)
def test_the_jax_peer_computes_what_torch_nn_does(name, hyper):
    pytest.importorskip("jax")
    import numpy as np

    case = Case(elman.cells.get(name).with_hyper(**hyper), SMALL, torch.float64)
    expected = benchmark_peers.torch_padded(case, True)["oneDNN off"]()
    calls = benchmark_peers.jax_scan(case, True)
    assert len(calls) == 6
    for words, call in calls.items():
        out, (weights, x_slope) = call()
        found = [torch.from_numpy(np.asarray(t).copy()) for t in (out, x_slope, *weights)]
        if "by features" in words:
            found[2:4] = [t.mT for t in found[2:4]]
        assert_close(tuple(found), tuple(expected), ORACLE, words)
    alone = next(iter(benchmark_peers.jax_scan(case, False).values()))()
    assert_close(torch.from_numpy(np.asarray(alone).copy()), expected[0], ORACLE)


def test_the_products_are_those_of_an_lstm():
    case = case_of("lstm")
    columns = 4 * SMALL.hidden
    assert benchmark_peers.product_weights(case) == (SMALL.input + SMALL.hidden) * columns
    counted = []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counted.append((func.overloadpacket.__name__, [tuple(t.shape) for t in args]))
            return func(*args, **(kwargs or {}))

    for backward, times in ((False, 1), (True, 3)):
        for call in benchmark_peers.products(case, backward).values():
            counted.clear()
            with Count():
                call()
            inner = SMALL.input + SMALL.hidden
            shapes = [(SMALL.steps * SMALL.batch, inner), (inner, columns)]
            assert counted == [("mm", shapes)] * times


def test_torchrecurrent_runs_its_layer_and_its_cell():
    pytest.importorskip("torchrecurrent")
    assert list(benchmark_peers.torchrecurrent(case_of("mgu"), True)) == ["layer", "cell in a loop"]
    with pytest.raises(benchmark_peers.Unserved, match="no cell of the name 'cfc'"):
        benchmark_peers.torchrecurrent(case_of("cfc"), True)
    with pytest.raises(benchmark_peers.Unserved, match="does not run at 5, 3, 4, 6"):
        benchmark_peers.torchrecurrent(case_of("intersection_rnn"), True)


# -- the measurement -------------------------------------------------------------------------------


def test_a_measurement_has_all_times_and_ratios():
    found = measure([case_of("gru", ragged=True)], Plan(("torch", "packed", "products"), rounds=3))
    assert [row.backward for row in found.rows] == [False, True]
    for row in found.rows:
        assert list(row.times) == ["elman", "whole", "torch", "packed", "products"]
        assert list(row.ratios) == list(row.times)[1:]
        assert all(0 < t.ms.low <= t.ms.median <= t.ms.high for t in row.times.values())
        assert row.difference <= EQUAL[torch.float32]
    assert found.notes == ()


def test_a_peer_counts_at_its_fastest_setting():
    def near(case, backward):
        return {"slower": lambda: _wait(2.3e-2), "faster": lambda: _wait(2e-2)}

    plan = Plan(("near",), (False,), rounds=5, peers={"near": near})
    time = measure([case_of("gru")], plan).rows[0].times["near"]
    assert time.setting == "faster"
    assert 20.0 <= time.ms.median < 22.9


def test_the_table_tells_products_as_parts_of_our_time():
    ms = Time(Spread(1.0, 1.0, 1.0), 3)
    ratios = {"torch": Spread(3.0, 4.0, 5.0), "products": Spread(0.25, 0.5, 0.5)}
    times = {"elman": ms, "torch": ms, "products": ms}
    row = Row(case_of("gru"), True, 0.0, times, ratios, 0.0, "cpu", "")
    other = replace(row, ratios={"torch": Spread(1.0, 1.0, 1.0), "products": Spread(0.1, 0.2, 0.3)})
    (title, table), *rest = report.tables(Found((row, other), ()))
    assert title == "gru, forward + backward, on backend cpu"
    assert rest == []
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    lines = [line.split() for line in console.file.getvalue().splitlines() if line.strip()]
    assert lines[3][-4:] == ["(3.00–5.00)", "1", "2.00", "(2.00–4.00)"]
    assert lines[-1] == ["mean,", "worst", "2.00,", "1.00", "3.16,", "5.00"]


def test_a_ratio_is_the_peers_time_over_ours():
    def slow(case, backward):
        call = case.call(case.layer, backward=backward)
        return {"four times": lambda: [call() for _ in range(4)]}

    case = case_of("gru", shape=Shape(40, 4, 8, 8))
    plan = Plan(("slow",), (True,), rounds=9, peers={"slow": slow})
    assert 2.0 < measure([case], plan).rows[0].ratios["slow"].median < 8.0


def test_an_unknown_peer_is_named():
    with pytest.raises(InputError, match=r"named 'jaxx'\. Did you mean 'jax'\?"):
        measure([case_of("gru")], Plan(("jaxx",)))


def test_a_peer_that_is_not_installed_is_noted(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    found = measure([case_of("gru")], Plan(("jax", "products"), (False,), rounds=2))
    assert found.notes == ('jax: jax is not installed; pip install "elman[bench]" brings it.',)
    assert list(found.rows[0].times) == ["elman", "products"]


class _WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, slope):
        return 1.001 * slope


@pytest.fixture(params=["output", "gradient"])
def broken(request, monkeypatch):
    """Every layer but those on the reference is wrong by a thousandth."""
    right = RecurrentLayer._forward

    def wrong(self, x, *rest):
        if self.backend == "reference":
            return right(self, x, *rest)
        if request.param == "output":
            out, *states = right(self, x, *rest)
            return (1.001 * out, *states)
        return right(self, _WrongSlope.apply(x), *rest)

    monkeypatch.setattr(RecurrentLayer, "_forward", wrong)
    return "the output" if request.param == "output" else "the gradient of x"


@pytest.mark.parametrize("name", ["lstm", "mgu"])
def test_a_wrong_kernel_is_refused(broken, name):
    with pytest.raises(Disagreement, match=f"{name} at 5, 3, 4, 6: {broken} on backend 'auto'"):
        measure([case_of(name)], Plan(("products",), rounds=2))
    with pytest.raises(Disagreement, match="No time is reported"):
        agree.check(case_of(name, dtype=torch.float64))


def test_an_equation_that_magnifies_rounding_is_not_a_wrong_kernel(monkeypatch):
    """A logistic map: after 60 steps two right programs in single precision have nothing alike."""

    @elman.cell
    def chaotic(p, x, h):
        """The logistic map with a breath of input. Source: a test."""
        return 3.9 * h * (1 - h) + 0.01 * torch.sigmoid(p.w * x)

    def parted(self, x, *rest):
        out, *states = right(self, x * (1 + nudge * (self.backend != "reference")), *rest)
        return (out, *states)

    right = RecurrentLayer._forward
    monkeypatch.setattr(RecurrentLayer, "_forward", parted)
    nudge, case = 1e-7, Case(chaotic, Shape(60, 2, 4, 4), seed=1)
    reference = case.call(case.another("reference"), backward=False)()[0]
    assert agree.distance(case.call(case.layer, backward=False)()[0], reference) > 1e-2
    agree.check(case, backward=False)
    nudge = 3e-2  # is found over fewer steps
    with pytest.raises(Disagreement):
        agree.check(case, backward=False)


def test_what_is_no_number_agrees_with_nothing_else():
    nan, one = torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0])
    assert agree.distance(nan, nan) == 0.0
    assert agree.distance(nan, one) == agree.distance(one, nan) == float("inf")
    assert agree.distance(one, one[:1]) == float("inf")
    huge = torch.tensor([float("inf"), 1.0])
    assert agree.distance(huge, huge) == 0.0
    assert agree.distance(one, huge) == float("inf")


# -- single steps, and the first call --------------------------------------------------------------


def test_a_stream_is_timed_beside_torch_nn():
    found = stream.measure(case_of("lstm", shape=Shape(1, 1, 3, 4)), rounds=2)
    assert found.difference <= EQUAL[torch.float32]
    assert found.torch is not None
    assert found.ratio is not None
    assert 0 < found.ours.median < 1e5
    assert "torch.nn" in stream.words(found)
    other = stream.measure(case_of("cfc", shape=Shape(1, 2, 3, 4)), rounds=2)
    assert other.torch is None
    assert "torch.nn has no layer" in stream.words(other)


def test_a_wrong_stepper_is_refused(monkeypatch):
    right = elman.layers.Stepper.__call__
    monkeypatch.setattr(
        elman.layers.Stepper, "__call__", lambda self, x, *rest: right(self, 1.01 * x, *rest)
    )
    with pytest.raises(Disagreement, match=r"the output of stepper\(\)"):
        stream.measure(case_of("gru"), rounds=1)


def test_the_first_call_is_timed_in_new_processes():
    cells = [elman.cells.get("mgu"), elman.cells.get("cfc")]
    found = first_call.measure(cells, shape=(2, 1, 4, 4), repeats=1)
    assert [one.cell for one in found] == ["mgu", "cfc"]
    assert all(0 < one.second < 60 and one.fresh > 0 and one.cached > 0 for one in found)
    assert "mgu, first call in a new process" in first_call.words(found[0])


def test_a_failing_first_call_says_why():
    with pytest.raises(ElmanError, match=r"process for the first call failed: .*backend"):
        first_call.measure([elman.cells.get("mgu")], backend="torch", repeats=1)
