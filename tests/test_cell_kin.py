"""What holds of single cells of the catalogue: who becomes whom, what is kept, what is bounded."""

from __future__ import annotations

import pytest
import torch
from cases import Case, random_carried, random_input, random_parameters, run_case
from tolerances import assert_close, assert_same_bits
from torch.autograd.functional import jacobian

import elman
from elman.backends.reference import initial_carried
from elman.errors import EquationError, InputError

OPEN, SHUT = 1000.0, -1000.0  # a bias at which the logistic is 1 or 0 to the bit
TIME, BATCH = 6, 2


def parameters_of(case: Case, **values):
    """Random parameters, some set to a number or to a tensor."""
    parameters = random_parameters(case)
    for name, value in values.items():
        parameters[name] = torch.zeros_like(parameters[name]) + value
    return parameters


def renamed(parameters, **names: str):
    """The parameters of another cell: z_to="f_" makes W_f of W_z, and so on."""
    made = {}
    for name, value in parameters.items():
        stem, _, gate = name.rpartition("_")
        made[f"{stem}_{names[gate]}" if gate in names else name] = value
    return made


def outputs(case: Case, parameters, x=None, carried=None):
    """Outputs and all that is carried on, on the input and from the states of one cell for all."""
    x = random_input(Case("simple"), TIME, BATCH) if x is None else x
    if carried is None:
        carried = initial_carried(case.graph, case.all_sizes, x.shape[1], dtype=x.dtype)
    return run_case(case, parameters, x, carried)


def eye(rows: int, columns: int) -> torch.Tensor:
    return torch.eye(rows, columns, dtype=torch.float64)


# --- who becomes whom ---


def test_update_gate_networks_are_one_equation():
    p = parameters_of(Case("ugrnn"))
    same = renamed(p, g="z", c="n")
    assert_close(outputs(Case("ugrnn"), p), outputs(Case("gru_update_only"), same))
    assert_close(
        outputs(Case("li_gru"), same), outputs(Case("gru_update_only", {"f": "relu"}), same)
    )


def test_second_mutant_with_a_trained_product_is_the_gru_turned_around():
    p = parameters_of(Case("mut2"))
    turned = {name: -v if name.endswith("_z") else v for name, v in p.items()}
    assert_close(outputs(Case("mut2"), p), outputs(Case("gru_cho"), turned))


def test_third_mutant_of_a_small_state_is_the_second():
    """tanh h = h for h near 0, and the candidate of z = 0 keeps it there."""
    p = parameters_of(Case("mut3"))
    h = (1e-6 * random_carried(Case("mut3"), BATCH)[0],)
    x = random_input(Case("mut3"), 1, BATCH)
    one, other = (outputs(Case(name), p, x, h)[0] for name in ("mut2", "mut3"))
    assert_close(one, other)
    far = (3.0 + h[0],)
    one, other = (outputs(Case(name), p, x, far)[0] for name in ("mut2", "mut3"))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mut1", "mut2", "intersection_rnn", "sru", "sru_2017"])
def test_the_product_that_the_paper_has_not_starts_as_the_identity(name):
    matrix = {"mut1": "W_n_l0", "mut2": "W_r_l0"}.get(name, "W_x_l0")
    layer = elman.Recurrent(name, 5, 5)
    assert torch.equal(layer.get_parameter(matrix), torch.eye(5))


def test_first_mutant_with_the_identity_is_the_paper():
    """Jozefowicz et al. 2015: tanh(W_hh(r ⊙ h) + tanh(x) + b_h) ⊙ z + h ⊙ (1 − z)."""
    case = Case("mut1", sizes={"hidden": 3})
    p, x, (h,) = parameters_of(case, W_n=eye(3, 3)), random_input(case, TIME, 1), (torch.zeros(3),)
    out, _ = outputs(case, p, x)
    h = h.double()
    for t, now in enumerate(x[:, 0]):
        z = torch.sigmoid(p["W_z"] @ now + p["b_z"])
        r = torch.sigmoid(p["W_r"] @ now + p["U_r"] @ h + p["b_r"])
        h = torch.tanh(p["U_n"] @ (r * h) + torch.tanh(now) + p["b_n"]) * z + h * (1 - z)
        assert_close(out[t, 0], h)


def test_intersection_with_the_identity_passes_the_input_on():
    case = Case("intersection_rnn", sizes={"hidden": 3})
    p = parameters_of(case, W_x=eye(3, 3), b_gy=OPEN, b_gh=OPEN)
    x, carried = random_input(case, TIME, BATCH), random_carried(case, BATCH)
    out, last = outputs(case, p, x, carried)
    assert_same_bits(out, x)
    assert_same_bits(last, carried)


def test_simple_recurrent_units_agree_where_a_unit_does_not_see_itself():
    p = parameters_of(Case("sru"), v_f=0.0, v_r=0.0)
    plain = {k: v for k, v in p.items() if not k.startswith("v")}
    one = outputs(Case("sru"), p)
    assert_close(one, outputs(Case("sru_2017", {"g": "linear"}), plain))


def test_pooling_family():
    p = parameters_of(Case("qrnn_fo"))
    f_only = {k: v for k, v in p.items() if "_o" not in k}
    c, _ = outputs(Case("qrnn_f"), f_only)
    opened = p | {"b_o": torch.full_like(p["b_o"], OPEN)}
    assert_close(outputs(Case("qrnn_fo"), opened)[0], c)
    mirrored = p | {k.replace("_f", "_i"): -v for k, v in p.items() if "_f" in k}
    assert_close(outputs(Case("qrnn_ifo"), mirrored)[0], outputs(Case("qrnn_fo"), p)[0])


def test_a_window_of_one_is_the_minimal_gru_with_tanh():
    case = Case("qrnn_f", {"width": 1})
    p = parameters_of(case)
    out, _ = outputs(case, p)
    x, h = random_input(Case("simple"), TIME, BATCH), torch.zeros(BATCH, 4).double()
    for t in range(TIME):
        f = torch.sigmoid(x[t] @ p["W_f_0"].T + p["b_f"])
        h = f * h + (1 - f) * torch.tanh(x[t] @ p["W_z_0"].T + p["b_z"])
        assert_close(out[t], h)


@pytest.mark.parametrize("width", [0, -1, True, 2.0])
def test_a_window_has_a_width(width):
    with pytest.raises((EquationError, InputError), match="width"):
        elman.cells.get("qrnn_fo").with_hyper(width=width)


def test_strongly_typed_cells_without_the_last_input():
    zero = {f"V_{k}": 0.0 for k in "zfo"}
    p = parameters_of(Case("t_lstm"), **zero, b_z=0.0)
    c = outputs(Case("t_rnn"), {k: p[k] for k in ("W_z", "W_f", "b_f")})[0]
    x = random_input(Case("simple"), TIME, BATCH)
    shown = torch.tanh(x @ p["W_o"].T + p["b_o"])
    assert_close(outputs(Case("t_lstm"), p)[0], c * shown)


def test_working_memory_without_its_matrices_is_the_lstm():
    case = Case("wmc_lstm")
    p = parameters_of(case, V_i=0.0, V_f=0.0, V_o=0.0)
    plain = {k: v for k, v in p.items() if not k.startswith("V")}
    assert_close(outputs(case, p), outputs(Case("lstm"), plain))


def test_residual_lstm_without_a_shortcut_is_the_peephole_lstm():
    case = Case("res_lstm")
    p = parameters_of(case, R=0.0, P=eye(4, 4))
    plain = {k: v for k, v in p.items() if k not in ("R", "P")}
    assert_close(outputs(case, p), outputs(Case("peephole_lstm"), plain))


def test_memory_controller_with_equal_gates_is_the_lstm():
    p = parameters_of(Case("lstm"))
    both = p | {f"{k}_m": p[f"{k}_o"] for k in "WUb"}
    assert_close(outputs(Case("mc_lstm"), both), outputs(Case("lstm"), p))


def test_minion_units():
    p = parameters_of(Case("miru2"))
    plain = outputs(Case("simple"), p)
    assert_close(outputs(Case("miru2", {"update": 0.0, "reset": 1.0}), p), plain)
    gated = parameters_of(Case("miru1"), b_r=OPEN)
    same = {"W": gated["W_n"], "U": gated["U_n"], "b": gated["b_n"]}
    assert_close(outputs(Case("miru1"), gated), outputs(Case("miru2", {"reset": 1.0}), same))


def test_fast_network_at_its_ends():
    p = parameters_of(Case("fast_rnn"), alpha=OPEN, beta=SHUT)
    plain = {k: p[k] for k in ("W", "U", "b")}
    assert_close(outputs(Case("fast_rnn"), p), outputs(Case("simple"), plain))
    assert_close(
        outputs(Case("fast_rnn"), p | {"beta": torch.tensor(OPEN).double()}),
        outputs(Case("residual"), plain),
    )


def test_gated_antisymmetric_with_an_open_gate_is_the_plain_one():
    p = parameters_of(Case("gated_antisymmetric_rnn"), b_z=OPEN)
    plain = {k: p[k] for k in "WVb"}
    assert_close(
        outputs(Case("gated_antisymmetric_rnn"), p), outputs(Case("antisymmetric_rnn"), plain)
    )


# --- what is kept ---


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("minimal_rnn", {"b_u": OPEN}),
        ("brc", {"b_c": OPEN}),
        ("nbrc", {"b_c": OPEN}),
        ("gated_antisymmetric_rnn", {"b_z": SHUT}),
        ("lem", {"b_1": SHUT, "b_2": SHUT}),
        ("qrnn_f", {"b_f": OPEN}),
        ("t_rnn", {"b_f": OPEN}),
    ],
)
def test_a_gate_at_its_end_keeps_the_state(name, gates):
    case = Case(name)
    carried = random_carried(case, BATCH)
    _, last = outputs(case, parameters_of(case, **gates), carried=carried)
    count = len(case.graph.states)
    assert_same_bits(last[:count], carried[:count])


def test_context_units_forget_at_their_rate_alone():
    case = Case("scrn", {"alpha": 0.75})
    p, carried = parameters_of(case), random_carried(case, BATCH)
    _, (_, s) = outputs(case, p, torch.zeros(TIME, BATCH, 3).double(), carried)
    assert_close(s, 0.75**TIME * carried[1])


def test_oscillators_lose_nothing():
    """The map of a unit's (y, z) has determinant 1, whatever the weights (symplectic Euler)."""
    case = Case("unicornn", {"dt": 0.7})
    p, x, carried = parameters_of(case), random_input(case, 1, 1), random_carried(case, 1)

    def step(y, z):
        return outputs(case, p, x, (y, z))[1]

    (yy, yz), (zy, zz) = jacobian(step, carried)
    size = case.all_sizes["hidden"]
    whole = torch.cat([torch.cat([a.view(size, size) for a in row], 1)
                       for row in ((yy, yz), (zy, zz))])  # fmt: skip
    assert_close(torch.linalg.det(whole), torch.tensor(1.0).double())


def test_undriven_oscillators_of_co_rnn_lose_energy_by_their_damping():
    case = Case("co_rnn", {"dt": 0.01, "epsilon": 0.5})
    zeros = dict.fromkeys("WZVb", 0.0)
    y, z = outputs(case, parameters_of(case, **zeros), torch.zeros(400, 1, 3).double(),
                   random_carried(case, 1))[1]  # fmt: skip
    before = sum((v**2).sum() for v in random_carried(case, 1))
    assert ((y**2 + z**2).sum() < before * torch.exp(torch.tensor(-1.5))).all()


# --- what is bounded ---


def test_chaos_free_network_decays_without_input():
    """With x = 0 and zero biases in the gates' products, |hₜ| ≤ |tanh hₜ₋₁| unit by unit."""
    case = Case("cfn")
    h = (3 * random_carried(case, BATCH)[0],)
    out, _ = outputs(case, parameters_of(case), torch.zeros(50, BATCH, 3).double(), h)
    sizes = torch.cat([h[0].abs()[None], out.abs()])
    assert (sizes[1:] <= torch.tanh(sizes[:-1])).all()
    assert sizes[-1].max() < 0.3


def test_bistable_unit_latches_with_strong_feedback_and_forgets_with_weak():
    """a = 2: of x = 0 the values ±0.9575 stay; a = 1/2: all go to 0 (c = 1/2)."""
    for bias, ends in ((OPEN, 0.9575040240772687), (-0.5493061443340549, 0.0)):
        case = Case("brc")
        p = parameters_of(case, W=0.0, W_a=0.0, W_c=0.0, w_a=0.0, w_c=0.0, b_a=bias, b_c=0.0)
        h = torch.tensor([[0.1, -0.1, 2.0, -2.0]]).double()
        out, _ = outputs(case, p, torch.zeros(200, 1, 3).double(), (h,))
        assert_close(out[-1], ends * torch.sign(h))


def test_long_expressive_memory_of_dt_one_stays_within_one():
    case = Case("lem")
    p = {k: 20 * v for k, v in parameters_of(case).items()}
    out, (_, z) = outputs(case, p)
    assert out.abs().max() <= 1
    assert z.abs().max() <= 1
