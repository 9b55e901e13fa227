"""Laws of every layer: a row alone, a segment alone, a step alone, a direction alone.

Each holds for the outputs, the states and, where it matters, all gradients, in float64.
"""

from __future__ import annotations

import pytest
import torch
from cases import SIZES
from layer_cases import DROPINS, FEW, PLAIN, as_tuple, flat, gradients, layer_of, rows, total
from tolerances import assert_close, assert_same_bits

import elman

TIME, BATCH, INPUT = 6, 3, SIZES["input"]
LENGTHS = torch.tensor([4, 6, 1])

every_layer = pytest.mark.parametrize(
    "case", [*PLAIN, *DROPINS], ids=lambda c: c if isinstance(c, str) else c.id
)
few_layers = pytest.mark.parametrize(
    "case", [*FEW, *DROPINS], ids=lambda c: c if isinstance(c, str) else c.id
)
directions = pytest.mark.parametrize("bidirectional", [False, True])


def sequence(time=TIME, batch=BATCH, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(time, batch, INPUT, generator=numbers, dtype=torch.float64)


def one_row(state, row):
    return rows(state, row, row + 1)


@directions
@every_layer
def test_a_row_with_a_length_is_the_row_alone(case, bidirectional):
    layer = layer_of(case, bidirectional=bidirectional)
    x = sequence()
    past = torch.arange(TIME).unsqueeze(1) >= LENGTHS
    # What stands in the padding must not matter, not even to gradients.
    x = x.masked_fill(past.unsqueeze(-1), float("nan")).requires_grad_()
    out, state = layer(x, lengths=LENGTHS)
    assert (out[past] == 0).all()
    loss = total(out[:4, 0], out[:, 1], out[:1, 2], state)
    together = gradients(layer, loss, x)
    alone = [torch.zeros_like(p) for p in (x, *layer.parameters())]
    weights = [torch.cos(torch.arange(s.numel()).to(s)).view(s.shape) for s in as_tuple(state)]
    for row, length in enumerate(LENGTHS.tolist()):
        one = x[:length, row : row + 1].detach().requires_grad_()
        out_one, state_one = layer(one)
        assert_close(out[:length, row : row + 1], out_one)
        assert_close(as_tuple(one_row(state, row)), as_tuple(state_one))
        loss = total(out_one[:, 0])
        for w, s in zip(weights, as_tuple(state_one), strict=True):
            loss = loss + (w[:, row : row + 1] * s).sum()
        first, *others = gradients(layer, loss, one)
        alone[0][:length, row] += first[:, 0]
        for mine, more in zip(alone[1:], others, strict=True):
            mine += more
    assert_close(tuple(together), tuple(alone), what="gradients")


@every_layer
def test_split_is_whole(case):
    layer = layer_of(case)
    x = sequence()
    out, state = layer(x)
    first, middle = layer(x[:2])
    second, last = layer(x[2:], middle)
    assert_close(torch.cat([first, second]), out)
    assert_close(as_tuple(last), as_tuple(state))


@every_layer
def test_stepper_is_whole(case):
    layer = layer_of(case)
    x = sequence()
    out, state = layer(x)
    step = layer.stepper()
    assert_close(torch.stack([step(x_t) for x_t in x]), out)
    assert_close(as_tuple(step.state), as_tuple(state))
    step.reset()
    assert_close(torch.stack([step(x_t[0]) for x_t in x]), out[:, 0])
    assert_close(as_tuple(step.state), tuple(s[:, 0] for s in as_tuple(state)))
    later = layer.stepper(layer(x[:3])[1])
    with torch.no_grad():
        assert_close(torch.stack([later(x_t) for x_t in x[3:]]), out[3:])


@directions
@every_layer
def test_a_segment_after_a_reset_is_a_call_of_its_own(case, bidirectional):
    layer = layer_of(case, num_layers=1, bidirectional=bidirectional)
    x, cut = sequence(), 3
    resets = torch.zeros(TIME, BATCH, dtype=torch.bool)
    resets[cut, 0] = True
    start = layer(sequence(seed=5))[1]
    out, state = layer(x, start, resets=resets)
    plain, plain_state = layer(x, start)
    assert_close(out[:, 1:], plain[:, 1:])
    assert_close(as_tuple(rows(state, 1, BATCH)), as_tuple(rows(plain_state, 1, BATCH)))
    one, half = x[:, :1], out.shape[-1] // 2 if bidirectional else out.shape[-1]
    first, first_state = layer(one[:cut], one_row(start, 0))
    second, second_state = layer(one[cut:])
    assert_close(out[:cut, :1, :half], first[..., :half])
    assert_close(out[cut:, :1, :half], second[..., :half])
    for got, expected in zip(as_tuple(state), as_tuple(second_state), strict=True):
        assert_close(got[0, 0], expected[0, 0])
    if bidirectional:
        # This direction comes from the end: it starts with the state given, and leaves the
        # second segment at its first step.
        second, _ = layer(one[cut:], one_row(start, 0))
        first, first_state = layer(one[:cut])
        assert_close(out[cut:, :1, half:], second[..., half:])
        assert_close(out[:cut, :1, half:], first[..., half:])
        for got, expected in zip(as_tuple(state), as_tuple(first_state), strict=True):
            assert_close(got[1, 0], expected[1, 0])


@few_layers
def test_resets_with_lengths_in_a_bidirectional_stack(case):
    layer = layer_of(case, bidirectional=True, initial_state="learned")
    x = sequence()
    resets = torch.zeros(TIME, BATCH, dtype=torch.bool)
    resets[2] = True
    resets[5, 0] = True  # in the padding
    out, _ = layer(x, lengths=LENGTHS, resets=resets)
    for row, length in enumerate(LENGTHS.tolist()):
        parts = [layer(p[:, row : row + 1])[0] for p in (x[:2], x[2:length]) if row < 2]
        if row == 2:
            parts = [layer(x[:1, 2:])[0]]
        parts = torch.cat(parts) if row < 2 else parts[0]
        assert_close(out[:length, row : row + 1], parts)
    first = layer(x[:1], resets=torch.ones(1, BATCH, dtype=torch.bool))[1]
    begin = layer.initial_carried(BATCH, x)
    assert_close(as_tuple(first)[0][1], begin[1][0])  # left at its first step
    # A mark behind a row's end, even right behind it, is no reset of its last segment.
    marks = torch.arange(TIME).unsqueeze(1) >= LENGTHS
    start = layer(sequence(seed=6))[1]
    assert_close(
        flat(layer(x, start, lengths=LENGTHS, resets=marks)), flat(layer(x, start, lengths=LENGTHS))
    )


@every_layer
def test_two_directions_exchange_nothing(case):
    both = layer_of(case, num_layers=1, bidirectional=True)
    x = sequence().requires_grad_()
    out, state = both(x)
    half = out.shape[-1] // 2
    for direction, suffix in enumerate(("", "_reverse")):
        one = layer_of(case, num_layers=1)
        one.load_state_dict({name: both.state_dict()[name + suffix] for name in one.state_dict()})
        seen = x.flip(0) if direction else x
        alone, alone_state = one(seen)
        alone = alone.flip(0) if direction else alone
        part = out[..., direction * half : (direction + 1) * half]
        assert_close(part, alone)
        for got, expected in zip(as_tuple(state), as_tuple(alone_state), strict=True):
            assert_close(got[direction], expected[0])
        others = [
            p for n, p in both.named_parameters() if n.endswith("_reverse") != bool(direction)
        ]
        found = torch.autograd.grad(part.sum(), others, retain_graph=True, allow_unused=True)
        assert all(f is None or (f == 0).all() for f in found)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@directions
@few_layers
def test_windows_cut_the_gradient_and_change_no_value(case, bidirectional, lengths):
    whole = layer_of(case, bidirectional=bidirectional)
    cut = layer_of(case, bidirectional=bidirectional, learning=elman.BPTT(window=2))
    x = sequence().requires_grad_()
    assert_close(flat(whole(x, lengths=lengths)), flat(cut(x, lengths=lengths)))
    single = layer_of(case, num_layers=1, learning=elman.BPTT(window=2))
    out, state = single(x, lengths=lengths)
    found = gradients(single, total(out, state), x)
    plain = layer_of(case, num_layers=1)
    if lengths is None:
        parts, carried = [], None
        for start in (0, 2, 4):
            part, carried = plain(x[start : start + 2], carried)
            parts.append(part)
            last, carried = carried, _detached(carried)
        loss = total(torch.cat(parts), last)
        assert_close(tuple(found), tuple(gradients(plain, loss, x)))
        return
    weights = [torch.cos(torch.arange(s.numel()).to(s)).view(s.shape) for s in as_tuple(state)]
    scale = torch.cos(torch.arange(out.numel()).to(out)).view(out.shape)
    loss = 0
    for row, length in enumerate(lengths.tolist()):
        one, last = single(x[:length, row : row + 1])
        loss = loss + (scale[:length, row : row + 1] * one).sum()
        for w, s in zip(weights, as_tuple(last), strict=True):
            loss = loss + (w[:, row : row + 1] * s).sum()
    assert_close(tuple(found), tuple(gradients(single, loss, x)))


def _detached(state):
    parts = tuple(s.detach() for s in as_tuple(state))
    return parts[0] if len(parts) == 1 else parts


# torch's own forward mode imports torch.jit.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
@every_layer
def test_double_backward_forward_mode_and_vmap(case):
    layer = layer_of(case, num_layers=1, bidirectional=True)
    x = sequence(3, 2)
    parameters = dict(layer.named_parameters())

    def run(x, parameters):
        return torch.func.functional_call(layer, parameters, (x,))[0]

    reverse = torch.func.jacrev(run)(x, parameters)
    assert_close(torch.func.jacfwd(run)(x, parameters), reverse)
    tangent = sequence(3, 2, seed=8)
    zeros = {n: torch.zeros_like(p) for n, p in parameters.items()}
    _, along = torch.func.jvp(run, (x, parameters), (tangent, zeros))
    assert_close(along, torch.einsum("tboqrs,qrs->tbo", reverse, tangent))
    many = torch.stack([x, tangent])
    mapped = torch.func.vmap(run, in_dims=(0, None))(many, parameters)
    assert_close(mapped, torch.stack([run(x, parameters), run(tangent, parameters)]))
    x = x.requires_grad_()
    (first,) = torch.autograd.grad(total(layer(x)[0].sin()), x, create_graph=True)
    (second,) = torch.autograd.grad((first * tangent).sum(), x)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        (slope,) = torch.autograd.grad(total(layer(dual)[0].sin()), dual, create_graph=True)
        twice = torch.autograd.forward_ad.unpack_dual(slope).tangent
    assert_close(second, twice)


@every_layer
def test_layouts_are_views_of_one_thing(case):
    layer = layer_of(case, bidirectional=True)
    first = layer_of(case, bidirectional=True, batch_first=True)
    x = sequence()
    resets = sequence(seed=4)[..., 0] > 0.5
    out, state, states = layer(x, lengths=LENGTHS, resets=resets, return_states=True)
    out_first, state_first, states_first = first(
        x.transpose(0, 1), lengths=LENGTHS, resets=resets.T, return_states=True
    )
    assert_same_bits(out_first.transpose(0, 1), out)
    assert_same_bits(as_tuple(state_first), as_tuple(state))
    assert_same_bits(tuple(s.transpose(0, 1) for s in as_tuple(states_first)), as_tuple(states))
    if isinstance(case, str) or case.graph.output == case.graph.new_states[0]:
        assert_close(as_tuple(states)[0], out)
    assert all(s.shape[:2] == out.shape[:2] for s in as_tuple(states))
    alone, alone_state = layer(x[:, 0], resets=resets[:, 0])
    assert_close(alone, layer(x, resets=resets)[0][:, 0])
    again = layer(x[:, 0], alone_state)[0]
    assert_close(
        again, layer(x[:, :1], tuple(s.unsqueeze(1) for s in as_tuple(alone_state)))[0][:, 0]
    )
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    packed_out, packed_state = layer(packed)
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(packed_out)
    expected, expected_state = layer(x, lengths=LENGTHS)
    assert torch.equal(lengths, LENGTHS)
    assert_same_bits(padded, expected)
    assert_same_bits(as_tuple(packed_state), as_tuple(expected_state))


@few_layers
def test_final_states_are_the_states_of_the_last_real_step(case):
    layer = layer_of(case, bidirectional=True)
    out, state, every = layer(sequence(), lengths=LENGTHS, return_states="layers")
    assert len(every) == layer.num_layers
    for level, states in enumerate(every):
        for last, along in zip(as_tuple(state), as_tuple(states), strict=False):
            half = along.shape[-1] // 2
            for row, length in enumerate(LENGTHS.tolist()):
                assert_close(along[length - 1, row, :half], last[2 * level, row])
                assert_close(along[0, row, half:], last[2 * level + 1, row])
                assert (along[length:, row] == 0).all()
    assert_close(out, as_tuple(every[-1])[0])
