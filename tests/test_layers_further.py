"""Layers of cells with further inputs, matrix states, and outputs that are no state."""

import pytest
import torch
from tolerances import assert_close

import elman


def layer(name="cfc", hidden=4, **options):
    torch.manual_seed(5)
    return elman.Recurrent(name, 3, hidden, dtype=torch.float64, **options)


def sequence(time=7, batch=3):
    torch.manual_seed(6)
    x = torch.randn(time, batch, 3, dtype=torch.float64)
    return x, torch.rand(time, batch, dtype=torch.float64)


def test_further_inputs_in_every_form():
    net, (x, dt) = layer(num_layers=2), sequence()
    whole = net(x, inputs={"dt": dt})[0]
    first = layer(num_layers=2, batch_first=True)
    first.load_state_dict(net.state_dict())
    assert_close(first(x.transpose(0, 1), inputs={"dt": dt.T})[0].transpose(0, 1), whole)
    assert_close(net(x[:, 1], inputs={"dt": dt[:, 1]})[0], whole[:, 1])
    step = net.stepper()
    assert_close(torch.stack([step(a, {"dt": b}) for a, b in zip(x, dt, strict=True)]), whole)
    alone = net.stepper()
    rows = [alone(a[0], {"dt": b[0]}) for a, b in zip(x, dt, strict=True)]
    assert_close(torch.stack(rows), whole[:, 0])


def test_further_inputs_with_lengths_resets_and_both_directions():
    net, (x, dt) = layer(bidirectional=True), sequence()
    lengths = torch.tensor([4, 7, 2])
    spoilt = dt.masked_fill(torch.arange(7).unsqueeze(1) >= lengths, float("nan")).requires_grad_()
    out, last = net(x, lengths=lengths, inputs={"dt": spoilt})
    out.sum().backward()
    assert torch.isfinite(spoilt.grad).all()
    for row, length in enumerate(lengths.tolist()):
        alone, end = net(x[:length, [row]], inputs={"dt": dt[:length, [row]]})
        assert_close(out[:length, [row]], alone)
        assert_close(last[:, [row]], end)
    resets = torch.zeros(7, 3, dtype=torch.bool)
    resets[3] = True
    out, _ = net(x, resets=resets, inputs={"dt": dt})
    parts = [net(x[a:b], inputs={"dt": dt[a:b]})[0] for a, b in ((0, 3), (3, 7))]
    assert_close(out, torch.cat(parts))


def test_further_inputs_travel_through_windows():
    net, (x, dt) = layer(learning=elman.BPTT(window=2)), sequence()
    assert_close(net(x, inputs={"dt": dt})[0], layer()(x, inputs={"dt": dt})[0])


@pytest.mark.parametrize("name", ["mlstm", "lru", "slstm", "recurrent_highway"])
def test_states_of_any_shape_go_out_and_in(name):
    net = layer(name, num_layers=2, initial_state="learned", zoneout=0.1, layer_norm=True).eval()
    x, _ = sequence()
    whole, last, every = net(x, return_states=True)
    first, between = net(x[:3])
    second, end = net(x[3:], between)
    assert_close(torch.cat([first, second]), whole)
    assert_close(end, last)
    states = every if isinstance(every, tuple) else (every,)
    last = last if isinstance(last, tuple) else (last,)
    for one, other in zip(states, last, strict=True):
        assert_close(one[-1], other[-1])


def test_matrix_and_scalar_states_have_their_shapes():
    net = layer("mlstm", num_layers=2)
    x, _ = sequence()
    out, (matrix, vector, number) = net(x)
    assert out.shape == (7, 3, 4)
    assert (matrix.shape, vector.shape, number.shape) == ((2, 3, 4, 4), (2, 3, 4), (2, 3))
    both = layer("mlstm", bidirectional=True)
    shapes = [tuple(s.shape) for s in both(x, return_states=True)[2]]
    assert shapes == [(7, 3, 4, 8), (7, 3, 8), (7, 3, 2)]


def test_wrong_further_inputs_and_states_are_named():
    x, dt = sequence()
    for call, error, says in [
        (lambda: layer()(x), elman.InputError, "takes dt; inputs= gives none"),
        (lambda: layer()(x, inputs={"d": dt}), elman.InputError, "takes dt; inputs= gives d"),
        (lambda: layer()(x, inputs={"dt": dt[1:]}), elman.SizeError, r"expected \(7, 3\)"),
        (lambda: layer()(x, inputs={"dt": dt.float()}), elman.SizeError, "torch.float32"),
        (lambda: layer()(x, inputs={"dt": 1.0}), elman.InputError, "give a tensor"),
        (lambda: layer("gru")(x, inputs={"dt": dt}), elman.InputError, "no further inputs"),
        (lambda: layer("mlstm")(x, dt), elman.SizeError, "expected 3"),
        (lambda: layer("slstm", 5), elman.SizeError, "multiple of 4"),
        (lambda: layer().stepper()(x[0]), elman.InputError, "takes dt"),
    ]:
        with pytest.raises(error, match=says):
            call()
