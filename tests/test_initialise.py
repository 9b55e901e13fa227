"""How recurrent layers start: the gates and matrices that are found, held against autograd."""

import math

import pytest
import torch
from cases import CELLS, SIZES, initial_carried, random_input, run_case

import elman
from elman.errors import InputError
from elman.layers.gates import keeping, state_matrices
from elman.layers.initialise import chrono_, forget_bias_, identity_, orthogonal_, uniform_

# Their candidate hands the old state on as well, so the gate is not all that keeps it.
TWO_WAYS = {"brc", "nbrc"}
GATED = [case for case in CELLS if keeping(case.graph)]
ONE_WAY = [case for case in GATED if case.name not in TWO_WAYS]
# Cells whose papers have a logistic gate on the old state; what no longer is found fails here.
KNOWN = {
    "lstm", "peephole_lstm", "coupled_lstm", "coupled_peephole_lstm", "lstm_projected", "gru",
    "gru_cho", "mgu", "mingru", "ugrnn", "light_ru", "mut1", "mut2", "mut3", "janet", "ran", "sru",
    "minimal_rnn", "qrnn_fo", "fast_grnn", "lem",
}  # fmt: skip


def layer_of(case):
    sizes = {**SIZES, **case.sizes}
    further = {n: sizes[n] for n in case.graph.sizes if n not in ("input", "hidden")}
    return elman.Recurrent(
        case.cell, sizes["input"], sizes["hidden"], sizes=further, dtype=torch.float64
    )


def kept(case, parameters):
    """The diagonal of ∂s'/∂s of each state at the start, by autograd."""
    x = 0 * random_input(case, 1, 1)
    carried = initial_carried(case.graph, case.all_sizes, 1, dtype=torch.float64)
    carried = tuple(value.detach().requires_grad_() for value in carried)
    _, last = run_case(case, parameters, x, carried)
    found = {}
    for state, old, new in zip(case.graph.states, carried, last, strict=False):
        slopes = [
            torch.autograd.grad(v, old, retain_graph=True)[0].flatten() for v in new.flatten()
        ]
        found[state.name] = torch.stack(slopes).diagonal()
    return found


def only_biases(layer, case):
    """The layer's parameters, all zero but for the biases of the keeping gates."""
    names = {name for found in keeping(case.graph) for name in found.keep.biases}
    parameters = layer.equation_parameters(0, 0)
    return {n: p if n in names else torch.zeros_like(p) for n, p in parameters.items()}


def test_the_gates_of_the_papers_are_found():
    assert {case.name for case in GATED} >= KNOWN


@pytest.mark.parametrize("case", ONE_WAY, ids=lambda case: case.id)
@pytest.mark.parametrize("value", [-0.5, 2.0])
def test_a_forget_bias_keeps_as_much_as_it_says(case, value):
    layer = forget_bias_(layer_of(case), value)
    slopes = kept(case, only_biases(layer, case))
    for found in keeping(case.graph):
        slope = slopes[found.keep.state]
        expected = 1 / (1 + math.exp(-value))
        torch.testing.assert_close(slope, torch.full_like(slope, expected), rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", [c for c in GATED if c.gate], ids=lambda case: case.id)
def test_the_sign_is_the_one_that_the_cell_declares(case):
    ((keep, _),) = keeping(case.graph)
    assert keep.sign == (1 if case.keeps == 1 else -1)


def test_chrono_spreads_the_times_of_an_lstm():
    torch.manual_seed(0)
    layer = chrono_(elman.LSTM(1, 4000), longest=50)
    h = layer.hidden_size
    bias = (layer.bias_ih_l0 + layer.bias_hh_l0).detach()
    write, keep = bias[:h], bias[h : 2 * h]
    assert torch.equal(write, -keep)
    times = keep.exp()  # uniform between 1 and 49
    assert 1 <= times.min() < 1.2
    assert 48.5 < times.max() <= 49.001
    assert abs(times.mean() - 25) < 3 * 48 / math.sqrt(12 * h)
    assert torch.equal(layer.bias_hh_l0[: 2 * h], torch.zeros(2 * h))


def test_chrono_of_a_gate_that_counts_the_other_way():
    layers = elman.Recurrent("gru_cho", 1, 5), elman.Recurrent("mingru", 1, 5)
    torch.manual_seed(0)
    one = chrono_(layers[0], longest=9).b_z_l0
    torch.manual_seed(0)
    other = chrono_(layers[1], longest=9).b_z_l0
    assert torch.equal(one, -other)


def test_janet_writes_by_its_forget_gate():
    layer = chrono_(elman.Recurrent("janet", 1, 5), longest=9)
    assert bool((layer.b_f_l0 > 0).all())


@pytest.mark.parametrize("kind", [elman.LSTM, elman.GRU, elman.RNN])
@pytest.mark.parametrize("layers", [1, 2])
def test_matrices_of_the_drop_ins_gate_by_gate(kind, layers):
    layer = kind(3, 4, num_layers=layers, bidirectional=True)
    before = {n: p.clone() for n, p in layer.named_parameters()}
    orthogonal_(layer)
    for name, value in layer.named_parameters():
        if not name.startswith("weight_hh"):
            assert torch.equal(value, before[name])
            continue
        for block in value.split(4):
            torch.testing.assert_close(block @ block.T, torch.eye(4), atol=1e-5, rtol=0)
    identity_(layer, 0.25)
    assert torch.equal(layer.weight_hh_l0_reverse[:4], 0.25 * torch.eye(4))
    uniform_(layer, 0.01)
    assert layer.weight_hh_l0.abs().max() <= 0.01
    assert layer.weight_hh_l0.std() > 0.003


def test_all_of_a_stack_and_what_is_not_square():
    layer = elman.Recurrent("lstm_projected", 3, 4, num_layers=2, sizes={"projection": 2})
    before = layer.U_i_l1.clone()
    with pytest.raises(InputError, match="no square matrix"):
        identity_(layer)
    orthogonal_(layer)
    assert not torch.equal(layer.U_i_l1, before)
    torch.testing.assert_close(layer.U_i_l1.T @ layer.U_i_l1, torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.P_l0 @ layer.P_l0.T, torch.eye(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("lstm", "U_i U_f U_g U_o"),
        ("gru_cho", "U_r U_z U_n"),
        ("irnn", "U"),
        ("jordan", "U V"),
        ("lstm_projected", "U_i U_f U_g U_o P"),
        ("mingru", ""),
        ("antisymmetric_rnn", ""),
    ],
)
def test_the_matrices_of_the_state(cell, names):
    assert state_matrices(elman.cells.get(cell).graph) == tuple(names.split())


def test_refusals_name_the_cell_and_what_to_do():
    with pytest.raises(InputError, match="'simple' has no logistic gate"):
        forget_bias_(elman.RNN(2, 3))
    with pytest.raises(InputError, match="no biases"):
        chrono_(elman.LSTM(2, 3, bias=False), 10)
    with pytest.raises(InputError, match="no matrix of 'indrnn'"):
        orthogonal_(elman.Recurrent("indrnn", 2, 3))
    with pytest.raises(InputError, match="longest is 2"):
        chrono_(elman.LSTM(2, 3), 2)
    with pytest.raises(InputError, match="value is nan"):
        forget_bias_(elman.LSTM(2, 3), math.nan)
    with pytest.raises(InputError, match=r"elman\.convert"):
        orthogonal_(torch.nn.LSTM(2, 3))
    with pytest.raises(InputError, match="scale is 0"):
        identity_(elman.RNN(2, 3), 0)
