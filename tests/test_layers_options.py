"""The options of a layer: what each computes, in training and in evaluation."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from cases import SIZES, Case
from layer_cases import DROPINS, FEW, as_tuple, flat, layer_of, total
from tolerances import assert_close, assert_same_bits
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import elman

TIME, BATCH, INPUT, HIDDEN = 6, 3, SIZES["input"], SIZES["hidden"]
LENGTHS = torch.tensor([4, 6, 1])

few_layers = pytest.mark.parametrize(
    "case", [*FEW, *DROPINS], ids=lambda c: c if isinstance(c, str) else c.id
)


def sequence(time=TIME, batch=BATCH, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    return torch.randn(time, batch, INPUT, generator=numbers, dtype=torch.float64)


# --- the initial state


@few_layers
def test_a_learned_initial_state_is_a_given_state_and_is_trained(case):
    layer = layer_of(case, bidirectional=True, initial_state="learned")
    x = sequence()
    learned = [n for n, _ in layer.named_parameters() if n.startswith("initial_")]
    assert len(learned) == 4 * len(layer.cell.states)
    given = tuple(
        torch.stack(
            [
                getattr(layer, f"initial_{s}_l{i}{end}").expand(BATCH, -1)
                for i in range(2)
                for end in ("", "_reverse")
            ]
        )
        for s in layer.cell.states
    )
    out, state = layer(x)
    plain, plain_state = layer(x, given if len(given) > 1 else given[0])
    assert_close(out, plain)
    assert_close(as_tuple(state), as_tuple(plain_state))
    total(out, state).backward()
    for name in learned:
        if layer.cell.name == "tdnn":  # reads no state
            continue
        assert getattr(layer, name).grad.abs().max() > 0, name
    layer.reset_parameters()
    assert all((getattr(layer, name) == 0).all() for name in learned)


def test_a_cells_declared_constant_is_its_initial_state():
    @elman.cell(initial={"h": 0.5})
    def decay(p, x, h):
        return 0.5 * h + 0.0 * (p.W @ x)

    layer = elman.Recurrent(decay, 2, 3)
    out, _ = layer(torch.ones(2, 1, 2), resets=torch.tensor([[False], [True]]))
    assert torch.equal(out, torch.full((2, 1, 3), 0.25))
    assert (elman.Recurrent(decay, 2, 3, initial_state="learned").initial_h_l0 == 0.5).all()


# --- dropout


def test_dropout_between_layers_draws_the_bits_of_torch():
    x = torch.randn(7, 4, 3)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 7, 5, 1]), False, False)
    for name in DROPINS:
        theirs = getattr(torch.nn, name)(3, 5, 3, dropout=0.4, bidirectional=True)
        for backend in ("auto", "reference"):
            ours = getattr(elman, name)(3, 5, 3, dropout=0.4, bidirectional=True, backend=backend)
            ours.load_state_dict(theirs.state_dict())
            for given in (x, packed):
                torch.manual_seed(11)
                expected = theirs(given)
                torch.manual_seed(11)
                got = ours(given)
                if given is packed:
                    expected, got = (expected[0].data, *expected[1:]), (got[0].data, *got[1:])
                assert_close(flat(got), flat(expected))


def test_dropout_is_at_work_in_training_only_and_not_after_the_last_layer():
    layer = layer_of("GRU", dropout=0.5)
    x = sequence()
    assert not torch.equal(layer(x)[0], layer(x)[0])
    assert (layer(x)[0] != 0).all()
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])


@few_layers
def test_recurrent_dropout_has_one_mask_a_sequence(case):
    layer = layer_of(case, num_layers=1, recurrent_dropout=0.5)
    plain = layer_of(case, num_layers=1)
    plain.load_state_dict(layer.state_dict())
    masks = [i for i in layer._graphs[True].inputs if i.name.startswith("dropout_")]
    assert all(m.varies == "sequence" for m in masks)
    x = sequence().requires_grad_()
    assert_close(layer.eval()(x)[0], plain(x)[0])
    layer.train()
    if not masks:  # no state enters a product
        assert_close(layer(x)[0], plain(x)[0])
        return
    # With the mask of a seed known, the layer is the plain one on matrices with masked columns.
    torch.manual_seed(0)
    out, _ = layer(x[:, :1])
    torch.manual_seed(0)
    size = {m.name: layer._sizes[0][m.dims[0]] for m in masks}
    mask = {n: torch.dropout(x.new_ones(1, s), 0.5, True)[0] for n, s in size.items()}
    if case in ("GRU", "RNN", "LSTM"):
        weight = layer.weight_hh_l0 * mask["dropout_h"]
        same = torch.func.functional_call(plain, {"weight_hh_l0": weight}, (x[:, :1],))[0]
        assert_close(out, same)
    torch.manual_seed(0)
    step = layer.stepper()
    assert_close(torch.stack([step(x_t) for x_t in x[:, :1]]), out)


# --- zoneout


@few_layers
def test_zoneout_in_evaluation_is_the_expected_update(case):
    layer = layer_of(case, num_layers=1, zoneout=0.3).eval()
    plain = layer_of(case, num_layers=1).eval()
    x, p = sequence(), 0.3
    state = as_tuple(plain(sequence(seed=3))[1])
    count = len(plain.cell.states)
    for x_t in x:
        _, new = plain(x_t.unsqueeze(0), state)
        mixed = [p * s + (1 - p) * n for s, n in zip(state[:count], as_tuple(new), strict=False)]
        _, got = layer(x_t.unsqueeze(0), state)
        assert_close(as_tuple(got)[:count], tuple(mixed))
        state = as_tuple(got)


@few_layers
def test_zoneout_in_training_keeps_some_units_and_renews_the_others(case):
    layer = layer_of(case, num_layers=1, zoneout=0.3)
    plain = layer_of(case, num_layers=1)
    x = sequence(1, 500)
    state = as_tuple(plain(sequence(1, 500, seed=3))[1])
    new, kept = as_tuple(plain(x, state)[1]), as_tuple(layer(x, state)[1])
    for old, renewed, got, _ in zip(state, new, kept, plain.cell.states, strict=False):
        stays = got == old
        assert torch.equal(torch.where(stays, old, renewed), got)
        assert abs(stays.double().mean() - 0.3) < 0.05


# --- layer norm


def test_layer_norm_against_a_handwritten_lstm():
    layer = layer_of("LSTM", num_layers=1, layer_norm=True)
    x = sequence()
    p = dict(layer.named_parameters())
    h = c = x.new_zeros(BATCH, HIDDEN)
    outputs = []
    for x_t in x:
        gates = {}
        for k, gate in enumerate("ifgo"):
            block = slice(k * HIDDEN, (k + 1) * HIDDEN)
            parts = []
            for kind, value, stacked in (("W", x_t, "weight_ih_l0"), ("U", h, "weight_hh_l0")):
                gain, bias = p[f"{kind}_{gate}_gain_l0"], p[f"{kind}_{gate}_bias_l0"]
                parts.append(F.layer_norm(value @ p[stacked][block].T, (HIDDEN,), gain, bias))
            gates[gate] = sum(parts) + p["bias_ih_l0"][block] + p["bias_hh_l0"][block]
        c = gates["f"].sigmoid() * c + gates["i"].sigmoid() * gates["g"].tanh()
        h = gates["o"].sigmoid() * c.tanh()
        outputs.append(h)
    out, (last_h, last_c) = layer(x)
    assert_close(out, torch.stack(outputs))
    assert_close((last_h[0], last_c[0]), (h, c))
    layer.reset_parameters()
    assert (layer.W_i_gain_l0 == 1).all()
    assert (layer.U_o_bias_l0 == 0).all()


# --- residual connections and dense layers


@few_layers
def test_residual_connections_add_the_layer_below(case):
    layer = layer_of(case, num_layers=3, residual=True)
    x = sequence()
    out, _, states = layer(x, return_states="layers")
    hidden = [as_tuple(s)[0] for s in states]
    assert_close(out, sum(hidden))
    step = layer.stepper()
    assert_close(torch.stack([step(x_t) for x_t in x]), out)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_dense_layers_on_top_of_each_step(backend):
    layer = layer_of("GRU", dense=[5, 2], dense_activation="relu", backend=backend)
    x = sequence()
    h = layer_of("GRU", backend=backend)
    h.load_state_dict({k: v for k, v in layer.state_dict().items() if "dense" not in k})
    hidden, last = h(x)
    first, second = layer.dense
    expected = torch.relu(
        torch.relu(hidden @ first.weight.T + first.bias) @ second.weight.T + second.bias
    )
    out, state = layer(x)
    assert_close(out, expected)
    assert_close(state, last)
    assert layer.output_size == 2
    out, _ = layer(x, lengths=LENGTHS)
    assert (out[4:, 0] == 0).all()
    assert_close(out[:4, 0], expected[:4, 0])
    step = layer.stepper()
    assert_close(torch.stack([step(x_t) for x_t in x]), expected)


# --- what torch.nn's modules can, ours can


@few_layers
def test_copies_and_pickles_are_equal(case):
    options = {"zoneout": 0.1, "layer_norm": True, "initial_state": "learned", "dense": 3}
    layer = layer_of(case, bidirectional=True, learning=elman.BPTT(2), **options).eval()
    x = sequence()
    expected = flat(layer(x, lengths=LENGTHS))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_same_bits(flat(other(x, lengths=LENGTHS)), expected)
        assert str(other) == str(layer)


@few_layers
def test_config_rebuilds_the_layer(case):
    if isinstance(case, str):
        layer = layer_of(case, bias=False, zoneout=0.2, residual=True)
        config = layer.config()
        learning = elman.BPTT(**config.pop("learning"))
        other = getattr(elman, case)(**config, learning=learning).double()
    else:
        layer = layer_of(case, zoneout=0.2, residual=True, learning=elman.BPTT(window=3))
        other = elman.Recurrent.from_config(layer.config()).double()
        assert other.learning == elman.BPTT(window=3)
    other.load_state_dict(layer.state_dict())
    assert str(other) == str(layer)
    x = sequence()
    assert_same_bits(flat(other.eval()(x)), flat(layer.eval()(x)))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("name", DROPINS)
def test_parametrizations_as_in_torch(name, backend):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(3, 4, 2, dtype=torch.float64)
    ours = getattr(elman, name)(3, 4, 2, dtype=torch.float64, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    for module in (theirs, ours):
        parametrizations.weight_norm(module, "weight_hh_l0")
        parametrizations.orthogonal(module, "weight_hh_l1")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    results = []
    for module in (theirs, ours):
        with torch.no_grad():
            module.parametrizations.weight_hh_l0.original0.mul_(1.5)
        out, _ = module(x)
        found = torch.autograd.grad(out.pow(2).sum(), list(module.parameters()))
        results.append((out, *found))
    assert_close(results[1], results[0])


def test_parametrizations_on_a_generic_weight():
    layer = elman.Recurrent("gru_cho", 3, 4)
    parametrizations.orthogonal(layer, "U_n_l0")
    layer(torch.randn(2, 1, 3))[0].sum().backward()
    eye = layer.U_n_l0 @ layer.U_n_l0.T
    torch.testing.assert_close(eye, torch.eye(4))
    assert layer.parametrizations.U_n_l0.original.grad.abs().max() > 0


@pytest.mark.parametrize("name", DROPINS)
def test_weights_are_listed_as_in_torch(name):
    ours, theirs = getattr(elman, name)(3, 4, 2), getattr(torch.nn, name)(3, 4, 2)
    ours.flatten_parameters()
    assert [[w.shape for w in row] for row in ours.all_weights] == [
        [w.shape for w in row] for row in theirs.all_weights
    ]
    assert ours.all_weights[1][0] is ours.weight_ih_l1


def test_generic_parameters_carry_the_equations_names():
    layer = elman.Recurrent("lstm", 3, 4, 2, bidirectional=True)
    assert layer.W_i_l0.shape == (4, 3)
    assert layer.U_i_l1_reverse.shape == (4, 4)
    assert layer.W_o_l1.shape == (4, 8)
    assert (layer.b_f_l0 == 1).all()
    assert layer.b_i_l0.abs().max() <= 0.5
    assert len(layer.all_weights) == 4


@pytest.mark.parametrize("name", [*DROPINS, "generic"])
def test_nan_passes_through(name):
    backends = ("auto", "reference")
    for backend in backends:
        layer = (
            elman.Recurrent("peephole_lstm", 3, 4)
            if name == "generic"
            else getattr(elman, name)(3, 4, backend=backend)
        )
        x = torch.randn(5, 2, 3)
        x[2, 0, 1] = float("nan")
        out, _ = layer(x)
        assert out[:2].isfinite().all()
        assert out[:, 1].isfinite().all()
        assert out[2:, 0].isnan().all()


def test_dropout_with_one_layer_warns_as_torch_does():
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        elman.LSTM(3, 4, dropout=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        elman.LSTM(3, 4, 2, dropout=0.5)


# --- cells of one step


@pytest.mark.parametrize("name", DROPINS)
def test_one_step_cells_are_one_step_of_the_layer(name):
    for options in ({}, {"layer_norm": True}, {"zoneout": 0.2}, {"initial_state": "learned"}):
        layer = layer_of(name, num_layers=1, **options).eval()
        one = getattr(elman, f"{name}Cell")(INPUT, HIDDEN, **options).double().eval()
        one.load_state_dict({k.replace("_l0", ""): v for k, v in layer.state_dict().items()})
        x, state = sequence(), None
        outputs = []
        for x_t in x:
            state = one(x_t, state)
            outputs.append(as_tuple(state)[0])
        assert_close(torch.stack(outputs), layer(x)[0])
        words = one.explain()
        expected = "cpu" if set(options) & {"layer_norm", "zoneout"} else "torch"
        assert f"backend '{expected}'" in words


def test_zoneout_of_a_cell_in_training_draws_masks():
    one = elman.GRUCell(3, 50, zoneout=0.5)
    h = torch.randn(20, 50)
    stays = one(torch.randn(20, 3), h) == h
    assert 0.4 < stays.double().mean() < 0.6


def test_a_case_is_itself():
    """The helper must build what it says, or the laws would test something else."""
    assert layer_of(Case("gru_cho")).cell.name == "gru_cho"
