"""What the textbook says of its cells: gates at their ends, Jacobians, and who becomes whom."""

from __future__ import annotations

import pytest
import torch
from cases import CELLS, Case, random_carried, random_input, random_parameters, run_case
from tolerances import assert_close, assert_same_bits
from torch.nn import functional as F

import elman
from elman.backends.reference import initial_carried
from elman.equation import initialise

# torch's own first use of forward mode loads decompositions written with torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

OPEN, SHUT = 1000.0, -1000.0  # a bias at which the logistic is 1 or 0 to the bit


def parameters_of(name: str, seed: int = 0, **constants: float):
    """Random parameters of a cell, some set to a constant."""
    parameters = random_parameters(Case(name), seed)
    for key, value in constants.items():
        parameters[key] = torch.full_like(parameters[key], value)
    return parameters


def shared(name: str, parameters, **constants: float):
    """The parameters of another cell by the same names, the missing ones set to a constant."""
    shapes = Case(name).graph.parameter_shapes(Case(name).all_sizes)
    made = {k: torch.full(s, constants[k], dtype=torch.float64) for k, s in shapes.items()
            if k in constants}  # fmt: skip
    return {k: made[k] if k in made else parameters[k] for k in shapes}


def outcome(name: str, parameters, time: int = 5, hyper: dict | None = None, carried=None):
    case = Case(name, hyper or {})
    x = random_input(Case("simple"), time, 2)
    carried = random_carried(Case("lstm"), 2) if carried is None else carried
    return run_case(case, parameters, x, carried[: len(case.graph.states)])


# --- gates at their ends ---


@pytest.mark.parametrize("name", ["lstm", "peephole_lstm", "lstm_projected"])
def test_lstm_that_forgets_and_reads_writes_the_candidate(name):
    case, p = Case(name), parameters_of(name, b_f=SHUT, b_i=OPEN)
    x, carried = random_input(case, 1, 2), random_carried(case, 2)
    _, (_, c) = run_case(case, p, x, carried)
    candidate = torch.tanh(x[0] @ p["W_g"].T + carried[0] @ p["U_g"].T + p["b_g"])
    assert_close(c, candidate)


@pytest.mark.parametrize("name", ["lstm", "peephole_lstm", "lstm_projected"])
def test_lstm_that_keeps_and_does_not_read_copies_the_cell(name):
    case, p = Case(name), parameters_of(name, b_f=OPEN, b_i=SHUT)
    carried = random_carried(case, 2)
    _, (_, c) = run_case(case, p, random_input(case, 9, 2), carried)
    assert_same_bits(c, carried[1])


@pytest.mark.parametrize("case", [c for c in CELLS if c.gate], ids=lambda c: c.id)
def test_gru_with_the_gate_at_keep_keeps_the_state(case):
    keep = OPEN if case.keeps else SHUT
    h = random_carried(case, 2)
    p = parameters_of(case.name, **{f"b_{case.gate}": keep})
    out, (last,) = run_case(case, p, random_input(case, 9, 2), h)
    assert_same_bits(last, h[0])
    assert_same_bits(out, h[0].expand(9, -1, -1))


def test_one_gate_memories_keep_the_state():
    h = random_carried(Case("simple"), 2)
    _, (kept,) = outcome("janet", parameters_of("janet", b_f=OPEN), carried=h)
    assert_same_bits(kept, h[0])
    _, (kept,) = outcome("minlstm", parameters_of("minlstm", b_f=OPEN, b_i=SHUT), carried=h)
    assert_same_bits(kept, h[0])


def test_gru_with_the_gate_at_new_is_the_simple_network():
    h = random_carried(Case("simple"), 2)
    p = parameters_of("gru", b_z=SHUT, b_r=OPEN)
    simple = {"W": p["W_n"], "U": p["U_n"], "b": p["b_n"] + p["c_n"]}
    assert_close(outcome("gru", p, carried=h), outcome("simple", simple, carried=h))
    for name, gates in {
        "gru_cho": {"b_z": SHUT, "b_r": OPEN},
        "gru_update_only": {"b_z": SHUT},
        "mgu": {"b_f": OPEN},
    }.items():
        p = parameters_of(name, **gates)
        simple = {"W": p["W_n"], "U": p["U_n"], "b": p["b_n"]}
        assert_close(outcome(name, p, carried=h), outcome("simple", simple, carried=h))


@pytest.mark.parametrize("name", ["gru", "gru_cho"])
def test_gru_that_resets_ignores_the_past(name):
    p = parameters_of(name, b_z=SHUT, b_r=SHUT)
    one = outcome(name, p, carried=random_carried(Case(name), 2, seed=2))
    other = outcome(name, p, carried=random_carried(Case(name), 2, seed=3))
    assert_same_bits(one, other)
    x = random_input(Case("simple"), 5, 2)
    assert_close(one[0], torch.tanh(x @ p["W_n"].T + p["b_n"]))


# --- Jacobians in the state ---


def state_jacobian(name: str, parameters, time: int):
    """∂h_T/∂h_0 of one row, by forward and by backward mode."""
    case = Case(name)
    x, (h,) = random_input(case, time, 1), random_carried(case, 1)

    def last(h):
        return run_case(case, parameters, x, (h.unsqueeze(0),))[1][0][0]

    return torch.func.jacfwd(last)(h[0]), torch.func.jacrev(last)(h[0])


@pytest.mark.parametrize("time", [1, 50])
def test_residual_on_the_input_has_the_identity_as_jacobian(time):
    for jacobian in state_jacobian("residual_input", parameters_of("residual_input"), time):
        assert_same_bits(jacobian, torch.eye(4, dtype=torch.float64))


def test_independent_units_have_a_diagonal_jacobian():
    p = parameters_of("indrnn", b=10.0)  # every relu is in its linear part
    for jacobian in state_jacobian("indrnn", p, 3):
        assert_close(jacobian, torch.diag(p["u"] ** 3))


def test_minimal_gru_is_linear_in_the_state():
    p = parameters_of("mingru")
    x = random_input(Case("mingru"), 4, 1)
    keep = torch.prod(1 - torch.sigmoid(x @ p["W_z"].T + p["b_z"]), 0)[0]
    for jacobian in state_jacobian("mingru", p, 4):
        assert_close(jacobian, torch.diag(keep))


# --- delays ---


@pytest.mark.parametrize(("K", "dilation"), [(0, 1), (2, 1), (3, 2), (2, 5)])
def test_delay_network_is_a_dilated_convolution(K, dilation):
    case = Case("tdnn", {"K": K, "dilation": dilation})
    p, x = random_parameters(case), random_input(case, 12, 3)
    start = initial_carried(case.graph, case.all_sizes, 3, dtype=x.dtype)
    out, _ = run_case(case, p, x, start)
    kernel = torch.stack([p[f"W_{k}"] for k in reversed(range(K + 1))], -1)
    padded = F.pad(x.permute(1, 2, 0), (K * dilation, 0))
    convolved = F.conv1d(padded, kernel, p["b"], dilation=dilation)
    assert_close(out, torch.tanh(convolved).permute(2, 0, 1))


def test_delay_network_sees_no_further_than_its_line():
    case = Case("tdnn", {"K": 2, "dilation": 2})
    x = random_input(case, 10, 1).requires_grad_()
    start = initial_carried(case.graph, case.all_sizes, 1, dtype=x.dtype)
    out, _ = run_case(case, random_parameters(case), x, start)
    (seen,) = torch.autograd.grad(out[9].sum(), x)
    assert seen.abs().sum((1, 2)).nonzero().flatten().tolist() == [5, 7, 9]


# --- who becomes whom ---


def test_lstm_family():
    vanilla = parameters_of("peephole_lstm")
    no_peepholes = vanilla | {v: torch.zeros_like(vanilla[v]) for v in ("v_i", "v_f", "v_o")}
    assert_close(outcome("lstm", shared("lstm", vanilla)), outcome("peephole_lstm", no_peepholes))
    for name, gate in {"input": "b_i", "forget": "b_f", "output": "b_o"}.items():
        name = f"lstm_no_{name}_gate"
        p = vanilla | {gate: torch.full_like(vanilla[gate], OPEN)}
        assert_close(outcome(name, shared(name, vanilla)), outcome("peephole_lstm", p))
    assert_close(
        outcome("lstm_1997", shared("lstm_1997", vanilla)),
        outcome("lstm_no_forget_gate", shared("lstm_no_forget_gate", no_peepholes)),
    )


def test_coupled_gates_are_two_gates_that_mirror_each_other():
    p = parameters_of("coupled_lstm")
    both = p | {f"{k}_i": -p[f"{k}_f"] for k in ("W", "U", "b")}
    assert_close(outcome("coupled_lstm", p), outcome("lstm", both))
    p = parameters_of("coupled_peephole_lstm")
    both = p | {f"{k}_f": -p[f"{k}_i"] for k in ("W", "U", "v", "b")}
    assert_close(outcome("coupled_peephole_lstm", p), outcome("peephole_lstm", both))


def test_full_gate_recurrence_without_it_is_the_peephole_lstm():
    p = parameters_of("peephole_lstm")
    matrices = {f"R_{a}{b}": torch.zeros(4, 4, dtype=torch.float64) for a in "ifo" for b in "ifo"}
    states = random_carried(Case("lstm_full_gate_recurrence"), 2)
    states = tuple(torch.cat([s, s], -1)[:, :4] for s in states)
    out, last = outcome("lstm_full_gate_recurrence", p | matrices, carried=states)
    plain, plain_last = outcome("peephole_lstm", p, carried=states)
    assert_close(out, plain)
    assert_close(last[:2], plain_last)


def test_lstm_without_activations_squashes_nothing():
    """Its activations are linear: far inside of tanh both kinds agree, far outside they do not."""
    small = {k: v * 1e-5 for k, v in parameters_of("peephole_lstm").items()}
    start = tuple(1e-5 * s for s in random_carried(Case("lstm"), 2))
    for name in ("lstm_no_input_activation", "lstm_no_output_activation"):
        one = outcome(name, small, carried=start)
        assert_close(one, outcome("peephole_lstm", small, carried=start))
    large = parameters_of("peephole_lstm", b_g=50.0, b_i=OPEN, b_f=SHUT, b_o=OPEN)
    _, (_, c) = outcome("lstm_no_input_activation", large)
    assert (c > 20).all()
    large = parameters_of("peephole_lstm", b_i=SHUT, b_f=OPEN, b_o=OPEN)
    states = (start[0], torch.full_like(start[1], 30.0))
    out, _ = outcome("lstm_no_output_activation", large, carried=states)
    assert_close(out, torch.full_like(out, 30.0))


def test_projection_by_the_identity_is_the_lstm():
    case = Case("lstm_projected", sizes={"projection": 4})
    p = parameters_of("lstm")
    x, carried = random_input(case, 5, 2), random_carried(case, 2)
    projected = run_case(case, p | {"P": torch.eye(4, dtype=torch.float64)}, x, carried)
    assert_close(projected, run_case(Case("lstm"), p, x, carried))


def test_reset_before_and_after_agree_for_a_diagonal_matrix():
    p = parameters_of("gru", c_n=0.0)
    p["U_n"] = torch.diag(torch.diagonal(p["U_n"]))
    assert_close(outcome("gru_cho", shared("gru_cho", p)), outcome("gru", p))


def test_janet_without_offset_is_the_simplified_gru():
    p = parameters_of("janet")
    renamed = {k.replace("_f", "_z").replace("_g", "_n"): v for k, v in p.items()}
    assert_close(outcome("janet", p, hyper={"beta": 0.0}), outcome("gru_update_only", renamed))


def test_minimal_lstm_with_mirrored_gates_is_the_minimal_gru():
    """i = z and f = 1 − z sum to one already."""
    p = parameters_of("mingru")
    lstm = {"W_i": p["W_z"], "b_i": p["b_z"], "W_f": -p["W_z"], "b_f": -p["b_z"]}
    lstm |= {"W_g": p["W_n"], "b_g": p["b_n"]}
    assert_close(outcome("minlstm", lstm), outcome("mingru", p))


def test_simple_family():
    p = parameters_of("simple")
    assert_close(outcome("irnn", p), outcome("simple", p, hyper={"f": "relu"}))
    halved = p | {"U": p["U"] / 2}
    assert_close(outcome("irnn", p, hyper={"scale": 0.5}), outcome("irnn", halved))
    no_past = p | {"U": torch.zeros_like(p["U"])}
    assert_close(outcome("residual", no_past), outcome("residual_input", p))
    diagonal = p | {"U": torch.diag(p["b"]), "u": p["b"]}
    assert_close(outcome("indrnn", diagonal), outcome("simple", diagonal, hyper={"f": "relu"}))


def test_narx_with_one_delay_is_a_jordan_network_with_linear_output():
    case = Case("narx", {"Kx": 0, "Ky": 1})
    p = random_parameters(case)
    x, carried = random_input(case, 5, 2), random_carried(case, 2)
    renamed = p | {"W": p["W_0"], "U": p["U_1"]}
    jordan = run_case(Case("jordan", {"g": "linear"}), renamed, x, carried)
    assert_close(run_case(case, p, x, carried), jordan)


def test_identity_network_adds_up_at_its_start():
    case = Case("irnn")
    shapes = {q.name: (q, torch.empty(4, 3 if q.name == "W" else 4)) for q in case.graph.parameters}
    p = {name: tensor[0] if name == "b" else tensor for name, (_, tensor) in shapes.items()}
    for parameter, _ in shapes.values():
        initialise(p[parameter.name], parameter.init, hidden=4)
    p = {name: tensor.double() for name, tensor in p.items()}
    p["W"] = p["W"].abs()
    x = random_input(case, 9, 2).abs()
    start = initial_carried(case.graph, case.all_sizes, 2, dtype=x.dtype)
    out, _ = run_case(case, p, x, start)
    assert_close(out, (x @ p["W"].T).cumsum(0))


# --- torch.nn ---


@pytest.mark.parametrize(
    ("name", "module", "gates"),
    [
        ("simple", torch.nn.RNN(3, 4), ("",)),
        ("lstm", torch.nn.LSTM(3, 4), ("_i", "_f", "_g", "_o")),
        ("lstm_projected", torch.nn.LSTM(3, 4, proj_size=2), ("_i", "_f", "_g", "_o")),
        ("gru", torch.nn.GRU(3, 4), ("_r", "_z", "_n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equation_is_that_of_torch(name, module, gates):
    case, module = Case(name), module.double()
    parameters = random_parameters(case)
    torch_names = {"weight_ih_l0": "W", "weight_hh_l0": "U", "bias_ih_l0": "b", "bias_hh_l0": "c"}
    with torch.no_grad():
        for theirs, ours in torch_names.items():
            blocks = [parameters.get(f"{ours}{g}", torch.zeros(4).double()) for g in gates]
            getattr(module, theirs).copy_(torch.cat(blocks))
        if name == "lstm_projected":
            module.weight_hr_l0.copy_(parameters["P"])
    x, carried = random_input(case, 6, 2), random_carried(case, 2)
    state = tuple(c.unsqueeze(0) for c in carried)
    with torch.no_grad():
        out, last = module(x, state if len(state) > 1 else state[0])
    last = last if isinstance(last, tuple) else (last,)
    ours, our_last = run_case(case, parameters, x, carried)
    assert_close(ours, out)
    assert_close(our_last, tuple(v[0] for v in last))


# --- directions ---


def test_directions_exchange_nothing():
    layer = elman.Recurrent("gru", 3, 4, bidirectional=True, backend="reference").double()
    x = random_input(Case("gru"), 6, 2).requires_grad_()
    out, _ = layer(x)
    named = dict(layer.named_parameters())
    backwards = {n: p for n, p in named.items() if n.endswith("_reverse")}
    forwards = {n: p for n, p in named.items() if n not in backwards}
    assert len(forwards) == len(backwards) > 0
    for half, other in ((out[..., :4], backwards), (out[..., 4:], forwards)):
        gradients = torch.autograd.grad(
            half.sum(), tuple(other.values()), retain_graph=True, allow_unused=True
        )
        assert all(g is None or not g.any() for g in gradients)
    # In time too: the forward half at a step has not seen the steps after it.
    (seen,) = torch.autograd.grad(out[2, :, :4].sum(), x, retain_graph=True)
    assert not seen[3:].any()
    (seen,) = torch.autograd.grad(out[2, :, 4:].sum(), x)
    assert not seen[:2].any()
    with torch.no_grad():
        for parameter in backwards.values():
            parameter.add_(1.0)
        changed, _ = layer(x)
    assert_same_bits(changed[..., :4], out[..., :4])
    assert not torch.equal(changed[..., 4:], out[..., 4:])
