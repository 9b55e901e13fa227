"""Streams on the CPU's kernels: the bits of the whole call, and what is kept between steps."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import CASES
from cpu_agree import EVEN, ODD, ON_THE_REFERENCE, layers, sequence, shape_for
from layer_cases import FEW, as_tuple
from tolerances import assert_close, assert_same_bits

import elman
from elman.backends.cpu import stream

SERVED = [case for case in CASES if case.name not in ON_THE_REFERENCE]
SHAPES = {"odd": ODD, "even": EVEN}


def made(case, shape=ODD, dtype=torch.float64, **options):
    """A layer on the kernels, the same on the reference, and a sequence."""
    shape = shape_for(case, shape)
    pair = layers(case.cell, shape.of(case.cell), dtype, **options)
    return *pair, sequence(pair[1], shape, dtype)


def walked(step, given, steps=None) -> torch.Tensor:
    """The outputs of a stepper, one step after the other."""
    chosen = range(len(given.x)) if steps is None else steps
    return torch.stack(
        [step(given.x[t], {n: v[t] for n, v in given.inputs.items()} or None) for t in chosen]
    )


def streams(step) -> bool:
    """Whether the state lies in the memory of the kernels."""
    return step._streams.running


def lstm(**options) -> tuple[elman.LSTM, torch.Tensor]:
    torch.manual_seed(2)
    layer = elman.LSTM(5, 19, backend="cpu", **options)
    return layer, torch.randn(9, 3, 5, dtype=options.get("dtype", torch.float32))


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, ("odd", "even")[place % 2]) for place, case in enumerate(SERVED)]
    + [(case, "even") for case in FEW],
    ids=lambda value: getattr(value, "id", value),
)
def test_a_stream_has_the_bits_of_the_whole_call(case, name):
    layer, _, given = made(case, SHAPES[name], num_layers=2)
    with torch.no_grad():
        out, state = layer(given.x, inputs=given.inputs or None)
        step = layer.stepper()
        assert_same_bits(walked(step, given), out)
        assert streams(step)
        assert_same_bits(as_tuple(step.state), as_tuple(state))
        # From a state, and rows alone.
        half = layer(given.steps(0, 3).x, inputs=given.steps(0, 3).inputs or None)[1]
        later = layer.stepper(half)
        rest = range(3, len(given.x))
        assert_same_bits(walked(later, given, rest), out[3:])
        assert_same_bits(as_tuple(later.state), as_tuple(state))
        one = given.rows(1, 2)
        one.x, one.inputs = one.x[:, 0], {n: v[:, 0] for n, v in one.inputs.items()}
        step.reset()
        assert_same_bits(walked(step, one), out[:, 1])
        assert_same_bits(as_tuple(step.state), tuple(s[:, 1] for s in as_tuple(state)))


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)
def test_gradients_flow_through_steps_on_the_kernels(case):
    results = []
    for layer, given in zip(made(case)[:2], (made(case)[2],) * 2, strict=True):
        x = given.x.clone().requires_grad_()
        given.x, plain = x, given.x
        step = layer.stepper()
        out = walked(step, given)
        loss = (out * out).sum() + sum((s * s).sum() for s in as_tuple(step.state))
        loss.backward()
        given.x = plain
        results.append((out, x.grad, *(p.grad for p in layer.parameters())))
        assert not streams(step)
    assert_close(*results)
    layer, _, given = made(case)
    whole = layer(given.x)[0]
    assert_same_bits(walked(layer.stepper(), given), whole)


@pytest.mark.parametrize("case", FEW, ids=lambda case: case.id)
def test_the_state_goes_with_the_mode(case):
    """Steps with gradients and without, in turns."""
    layer, _, given = made(case, num_layers=2)
    out, state = layer(given.x)
    step, got, ways = layer.stepper(), [], []
    for t in range(len(given.x)):
        with torch.set_grad_enabled(t % 3 == 1):
            got.append(walked(step, given, [t])[0])
        ways.append(streams(step))
    assert ways[:3] == [True, False, True]
    assert_same_bits(torch.stack(got), out)
    assert_same_bits(as_tuple(step.state), as_tuple(state))


def test_frozen_weights_need_no_gradient():
    layer, x = lstm()
    layer.requires_grad_(False)
    step = layer.stepper()
    step(x[0]), step(x[1])
    assert streams(step)
    leaf = x[2].clone().requires_grad_()
    out = step(leaf)
    out.sum().backward()
    assert not streams(step)
    assert leaf.grad.abs().sum() > 0
    step(x[3])
    assert not streams(step)  # the state has a gradient
    step.detach()
    step(x[4])
    assert streams(step)
    layer.requires_grad_(True)
    assert step(x[5]).requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_results_are_never_written_again(mode):
    layer, x = lstm(num_layers=2)
    with mode():
        expected = layer(x)[0]
        step = layer.stepper()
        results, states = [], []
        for t in range(len(x)):
            results.append(step(x[t]))
            states.append(step.state)
        assert_same_bits(torch.stack(results), expected)
        assert_same_bits(states[2], layer(x[:3])[1])
        # Nor do they lead back to what is kept.
        step.reset()
        for t in range(len(x)):
            out = step(x[t])
            assert_same_bits(out, expected[t])
            out.fill_(float("nan"))
            step.state[1].fill_(float("nan"))


def test_streams_outlive_the_mode_they_began_in():
    layer, x = lstm()
    step = layer.stepper()
    with torch.inference_mode():
        out = [step(x[0]), step(x[1].transpose(0, 1).contiguous().transpose(0, 1))]
    with torch.no_grad():
        out += [step(x[2]), step(x[3])]
        layer.weight_hh_l0.mul_(1.0)
        out += [step(x[4])]
    out += [step(x[5])]
    assert_same_bits(torch.stack([o.clone() for o in out]), layer(x[:6])[0])


def test_weights_made_in_inference_mode():
    with torch.inference_mode():
        layer, x = lstm()
        step = layer.stepper()
        step(x[0])
        state = step.state
        layer.bias_ih_l0.add_(1.0)
        assert_same_bits(step(x[1]), layer(x[1:2], state)[0][0])


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.weight_hh_l0.mul_(0.5),
        lambda layer: layer.bias_hh_l1.add_(1.0),
        lambda layer: layer.load_state_dict(elman.LSTM(5, 19, 2).state_dict()),
        lambda layer: setattr(layer, "weight_ih_l0", torch.nn.Parameter(torch.ones(76, 5))),
        lambda layer: layer.weight_ih_l0.set_(torch.ones(76, 5)),
        lambda layer: torch.nn.utils.parametrize.register_parametrization(
            layer, "weight_hh_l0", torch.nn.Tanh()
        ),
        lambda layer: layer.register_parameter("weight_hh_l1", layer.weight_hh_l0),
    ],
)
def test_changed_weights_are_seen_at_the_next_step(change):
    layer, x = lstm(num_layers=2)
    with torch.no_grad():
        step = layer.stepper()
        step(x[0]), step(x[1])
        state = step.state
        change(layer)
        out, last = layer(x[2:], state)
        assert_same_bits(torch.stack([step(x_t) for x_t in x[2:]]), out)
        assert_same_bits(step.state, last)


def test_weights_written_past_torch_are_seen_after_a_reset():
    layer, x = lstm()
    with torch.no_grad():
        step = layer.stepper()
        step(x[0])
        layer.weight_hh_l0.data.numpy()[:] *= 2
        step.reset()
        assert_same_bits(torch.stack([step(x_t) for x_t in x]), layer(x)[0])


def test_a_layer_of_another_type():
    layer, x = lstm()
    with torch.no_grad():
        step = layer.stepper()
        step(x[0])
        layer.double()
        with pytest.raises(elman.SizeError, match="does not match weight dtype"):
            step(x[1])
        step.reset()
        assert_same_bits(step(x[1].double()), layer(x[1:2].double())[0][0])


@pytest.mark.parametrize("units", [5, 16])
def test_inputs_in_any_memory(units):
    torch.manual_seed(4)
    layer = elman.GRU(units, 16, backend="cpu")
    x = torch.randn(6, 4, units)
    expected = layer(x)[0]
    odd = torch.frombuffer(bytearray(4 * units * 4 + 1), dtype=torch.float32, offset=1)
    odd = odd.view(4, units).copy_(x[3])
    negated = torch._neg_view(-x[4])
    assert negated.is_neg()
    assert negated.is_contiguous()
    with torch.no_grad():
        step = layer.stepper()
        got = [
            step(x[0]),
            step(x[1].t().contiguous().t()),
            step(torch.stack([x[2], x[2]], -1)[..., 0]),
            step(odd),
            step(negated),
            step(torch.nn.Parameter(x[5])),
        ]
    assert_same_bits(torch.stack(got), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast(dtype):
    layer, x = lstm(num_layers=2)
    x = x.to(dtype)
    with torch.no_grad(), torch.autocast("cpu"):
        out = layer(x)[0]
        step = layer.stepper()
        assert_same_bits(torch.stack([step(x_t) for x_t in x]), out)
        assert streams(step)
        assert out.dtype is torch.float32


def test_masks_are_drawn_as_on_the_reference():
    options = {"zoneout": 0.3, "recurrent_dropout": 0.4, "dropout": 0.5, "num_layers": 2}
    layer, x = lstm(dtype=torch.float64, residual=True, dense=3, **options)
    results = []
    for training in (True, False):
        layer.train(training)
        for backend, modes in (("reference", [False]), ("cpu", [False, True])):
            layer.backend = backend
            for grad in modes:
                with torch.set_grad_enabled(grad):
                    torch.manual_seed(11)
                    step = layer.stepper()
                    out = torch.stack([step(x_t) for x_t in x])
                    results.append((out, *step.state))
                assert streams(step) == (backend == "cpu" and not grad)
    for place, expected in ((0, results[0]), (3, results[3])):
        assert_close(results[place + 1], expected)
        assert_close(results[place + 2], expected)


def test_training_and_evaluation_in_one_stream():
    layer, x = lstm(zoneout=0.5)
    outs = []
    for backend in ("reference", "cpu"):
        layer.backend = backend
        torch.manual_seed(3)
        step = layer.stepper()
        with torch.no_grad():
            outs.append(torch.stack([layer.train(t % 3 > 1) and step(x[t]) for t in range(9)]))
    assert_close(outs[1], outs[0])


def test_dropout_begins_and_the_backend_changes_within_a_stream():
    layer, x = lstm(recurrent_dropout=0.5, dtype=torch.float64)
    layer.eval()
    with torch.no_grad():
        step = layer.stepper()
        step(x[0])
        out = step(x[1])
        assert_same_bits(out, layer(x[:2])[0][1])
        state = step.state
        layer.train()
        assert not torch.equal(step(x[2]), layer.eval()(x[2:3], state)[0][0])
        state, layer.backend = step.state, "reference"
        assert_close(step(x[3]), layer(x[3:4], state)[0][0])
        assert not streams(step)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_and_threads(threads):
    layer, _ = lstm()
    x, before = torch.randn(6, 5, 5), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            step = layer.stepper()
            got = [step(x_t) for x_t in x[:3]]
            torch.set_num_threads(3 - threads)
            got += [step(x_t) for x_t in x[3:]]
            alone = layer.stepper()
            assert_same_bits(torch.stack([alone(x_t) for x_t in x[:, 2]]), torch.stack(got)[:, 2])
            assert_same_bits(torch.stack(got), layer(x)[0])
    finally:
        torch.set_num_threads(before)


def test_copies_go_their_own_ways():
    layer, x = lstm(num_layers=2)
    with torch.no_grad():
        expected = layer(x)[0]
        step = layer.stepper()
        for t in range(4):
            step(x[t])
        others = [copy.copy(step), copy.deepcopy(step), pickle.loads(pickle.dumps(step))]
        step(torch.zeros_like(x[4]))
        for other in others:
            assert_same_bits(torch.stack([other(x_t) for x_t in x[4:]]), expected[4:])


def test_no_rows():
    layer, x = lstm()
    with torch.no_grad():
        step = layer.stepper()
        assert step(x[0, :0]).shape == (0, 19)
        assert step(x[1, :0]).shape == (0, 19)
        assert step.state[0].shape == (1, 0, 19)


def test_other_shapes_and_places_are_refused():
    layer, x = lstm()
    with torch.no_grad():
        step = layer.stepper()
        step(x[0]), step(x[1])
        with pytest.raises(elman.SizeError, match="the steps before had"):
            step(x[0, :2])
        with pytest.raises(elman.SizeError, match="the steps before had"):
            step(x[0, 0])
        with pytest.raises(elman.SizeError, match="dtype"):
            step(x[0].double())
        with pytest.raises((elman.InputError, RuntimeError)):
            step(x[2].to("meta"))
        assert_same_bits(step(x[2]), layer(x[:3])[0][2])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_transforms_step_on_the_reference():
    layer, x = lstm()
    layer.backend = "auto"
    step = layer.stepper()
    with torch.no_grad():
        step(x[0])
        state = step.state

        def again(x_t):
            return layer.stepper(state)(x_t)

        out, slope = torch.func.jvp(again, (x[1],), (torch.ones_like(x[1]),))
        far = 1e-3
        near = (again(x[1] + far) - again(x[1] - far)) / (2 * far)
        torch.testing.assert_close(slope, near, atol=1e-3, rtol=1e-3)
        assert_close(step(x[1]), out)


@pytest.mark.parametrize(("hidden", "threads"), [(16, 1), (512, 2)])
def test_a_small_step_wakes_no_thread(hidden, threads, monkeypatch):
    asked = []
    run = stream.threads.run
    monkeypatch.setattr(
        stream.threads, "run", lambda a, b, count: asked.append(count) or run(a, b, count)
    )
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        layer = elman.Recurrent("simple", hidden, hidden, backend="cpu")
        step = layer.stepper()
        with torch.no_grad():
            step(torch.randn(16, hidden))
    finally:
        torch.set_num_threads(before)
    assert asked == [threads]
