"""Laws of the cells that need the wide language, each its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Case, generator, random_carried, random_input, random_parameters, split_input
from tolerances import assert_close, assert_same_bits
from torch.autograd.functional import jacobian
from wide_papers import (
    BATCH,
    OPEN,
    PAPERS,
    SHUT,
    TIME,
    far,
    of,
    setting,
    slstm,
    tau_gru,
)

from elman.backends.reference import initial_carried, run

# --- tools of the laws ---


def tensor(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def altered(case: Case, **values) -> dict[str, torch.Tensor]:
    """Random parameters of a case, some set to a constant or to a tensor."""
    parameters = random_parameters(case)
    for name, value in values.items():
        parameters[name] = torch.zeros_like(parameters[name]) + value
    return parameters


def started(case: Case, batch: int = 1, dtype=torch.float64):
    return initial_carried(case.graph, case.all_sizes, batch, dtype=dtype)


def step_jacobian(case: Case, parameters, x, h) -> torch.Tensor:
    """∂hₜ/∂hₜ₋₁ of a cell of one state, at one row's x and h."""

    def after(h):
        return run(case.graph, parameters, x[None, None], (h[None],))[1][0][0]

    return jacobian(after, h)


# --- second order ---


def test_second_order_on_symbols_is_a_matrix_per_symbol():
    case = Case("second_order", {"f": "linear"})
    p = altered(case, b=0.0)
    symbols = torch.randint(3, (12,), generator=generator(case))
    (h,) = random_carried(case, 1)
    out, _, _ = run(case.graph, p, torch.eye(3).double()[symbols][:, None], (h,))
    state = h[0]
    for t, symbol in enumerate(symbols):
        state = p["T"][:, :, symbol] @ state
        assert_close(out[t, 0], state)


def test_second_order_runs_a_parity_automaton_exactly():
    """Units: even, odd; symbols: 0 keeps, 1 changes. Weights ±100 from one unit to the next."""
    case = Case("second_order", sizes={"input": 2, "hidden": 2})
    weights = torch.full((2, 2, 2), -100.0, dtype=torch.float64)
    for state in (0, 1):
        for symbol in (0, 1):
            weights[(state + symbol) % 2, state, symbol] = 100.0
    bits = torch.randint(2, (500,), generator=generator(case))
    x, even = torch.eye(2).double()[bits][:, None], tensor([1.0, 0.0])
    out, _, _ = run(case.graph, {"T": weights, "b": torch.zeros(2).double()}, x, (even,))
    parity = bits.cumsum(0) % 2
    assert 100 < parity.sum() < 400
    assert torch.equal(out[:, 0].argmax(-1), parity)
    assert_close(out[:, 0], torch.eye(2).double()[parity], {torch.float64: 1e-40})


# --- multiplicative LSTM ---


def test_multiplicative_lstm_with_a_multiplier_of_one_is_the_lstm():
    """Behind a constant feature W_m x = 1, so that m = U_m h: an LSTM with U U_m for U."""
    case = Case("multiplicative_lstm")
    one = torch.zeros(4, 3, dtype=torch.float64)
    one[:, 2] = 1.0
    p = altered(case, W_m=one)
    x, carried = random_input(case, TIME, BATCH), random_carried(case, BATCH)
    x[..., 2] = 1.0
    plain = {f"{k}_{g}": p[f"{k}_{g}"] for k in "WUb" for g in "ifgo"}
    plain |= {f"U_{g}": p[f"U_{g}"] @ p["U_m"] for g in "ifgo"}
    ours = run(case.graph, p, x, carried)[:2]
    lstm = run(Case("lstm").graph, plain, x, carried)[:2]
    assert_close(ours[0], lstm[0])
    assert_close(ours[1], lstm[1])


def test_multiplicative_lstm_that_reads_zero_does_not_see_its_past():
    """m = (W_m 0) ⊙ … = 0: no bias stands in the factor."""
    case = Case("multiplicative_lstm")
    p, x = random_parameters(case), torch.zeros(1, 1, 3, dtype=torch.float64)
    (h, c), (other, _) = random_carried(case, 1), random_carried(case, 1, seed=5)
    assert_same_bits(run(case.graph, p, x, (h, c))[0], run(case.graph, p, x, (other, c))[0])


# --- recurrent highway ---


def test_recurrent_highway_of_depth_one_is_one_highway_layer():
    case = Case("recurrent_highway", {"depth": 1})
    p, x, (h,) = random_parameters(case), random_input(case, 1, BATCH), random_carried(case, BATCH)
    assert set(p) == {"W_h", "W_t", "R_h_0", "b_h_0", "R_t_0", "b_t_0"}
    new = torch.tanh(x[0] @ p["W_h"].T + h @ p["R_h_0"].T + p["b_h_0"])
    t = torch.sigmoid(x[0] @ p["W_t"].T + h @ p["R_t_0"].T + p["b_t_0"])
    assert_close(run(case.graph, p, x, (h,))[0][0], new * t + h * (1 - t))


def test_recurrent_highway_keeps_its_state_where_no_layer_transforms():
    case = Case("recurrent_highway")
    p = altered(case, b_t_0=SHUT, b_t_1=SHUT, b_t_2=SHUT)
    (h,) = random_carried(case, BATCH)
    out, _, _ = run(case.graph, p, random_input(case, TIME, BATCH), (h,))
    assert_same_bits(out, h.expand(TIME, -1, -1))


def test_recurrent_highway_reads_in_its_first_layer_only():
    case = Case("recurrent_highway")
    p, (h,) = altered(case, b_t_0=SHUT), random_carried(case, BATCH)
    one, other = (
        run(case.graph, p, random_input(case, 1, BATCH, seed), (h,))[0] for seed in (1, 2)
    )
    assert_same_bits(one, other)
    assert (one[0] - h).abs().max() > 0.01


# --- antisymmetric ---


def test_antisymmetric_part_turns_and_does_not_grow():
    """Everywhere ε⁻¹(J − I) = diag(tanh′)(W − Wᵀ), whose eigenvalues are imaginary."""
    eps = 0.1
    case = Case("antisymmetric_rnn", {"gamma": 0.0, "eps": eps})
    p, (h,) = random_parameters(case), random_carried(case, 1)
    turn = (step_jacobian(case, p, random_input(case, 1, 1)[0, 0], h[0]) - torch.eye(4)) / eps
    turns = torch.linalg.eigvals(turn)
    assert turns.real.abs().max() < 1e-12
    assert turns.imag.abs().max() > 0.3
    still = altered(case, b=0.0)
    zero = torch.zeros(4, dtype=torch.float64)
    step = step_jacobian(case, still, zero[:3], zero)
    skew = p["W"] - p["W"].T
    assert_close(step, torch.eye(4) + eps * skew)
    fastest = torch.linalg.matrix_norm(skew, 2)
    gains = torch.linalg.svdvals(step)
    assert_close(gains.max(), torch.sqrt(1 + (eps * fastest) ** 2))
    assert gains.min() > 1 - 1e-12  # a skew part never shrinks what passes


def test_antisymmetric_damping_moves_every_eigenvalue_by_gamma():
    free, damped = (Case("antisymmetric_rnn", {"gamma": g, "eps": 0.1}) for g in (0.0, 0.25))
    p, zero = altered(free, b=0.0), torch.zeros(4, dtype=torch.float64)
    difference = step_jacobian(free, p, zero[:3], zero) - step_jacobian(damped, p, zero[:3], zero)
    assert_close(difference, 0.1 * 0.25 * torch.eye(4).double())


# --- Lipschitz ---


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
def test_lipschitz_matrices_have_the_symmetric_part_that_beta_states(beta):
    """Far outside of tanh the Jacobian shows A; at its middle, with A taken off, it shows W."""
    case = Case("lipschitz_rnn", {"beta": beta, "gamma_a": 0.02, "gamma_w": 0.03, "eps": 0.5})
    zero, eye = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    far_out, middle = altered(case, b=OPEN), altered(case, b=0.0)
    a = (step_jacobian(case, far_out, zero[:3], zero) - eye) / 0.5
    w = (step_jacobian(case, middle, zero[:3], zero) - eye) / 0.5 - a
    for matrix, m, gamma in ((a, far_out["M_a"], 0.02), (w, far_out["M_w"], 0.03)):
        assert_close((matrix + matrix.T) / 2, (1 - beta) * (m + m.T) - gamma * eye)
        assert_close((matrix - matrix.T) / 2, beta * (m - m.T))
    if beta == 1.0:  # then all eigenvalues of A lie at the distance γ left of the imaginary axis
        assert (torch.linalg.eigvals(a).real + 0.02).abs().max() < 1e-12


# --- τ-GRU ---


def test_tau_gru_with_the_gate_shut_keeps_its_state():
    case = PAPERS[tau_gru]
    carried = random_carried(case, BATCH)
    p, x = altered(case, b_g=SHUT), random_input(case, TIME, BATCH)
    out, _, _ = run(case.graph, p, x, carried)
    assert_same_bits(out, carried[0].expand(TIME, -1, -1))


def test_tau_gru_without_weight_on_the_delay_is_a_gated_unit():
    """a = 0: h moves by the gate g to tanh(W x + U h + b): the GRU with its update gate only."""
    case = PAPERS[tau_gru]
    p, x, carried = altered(case, b_a=SHUT), random_input(case, TIME, 2), random_carried(case, 2)
    gated = {f"{k}_n": p[f"{k}_u"] for k in "WUb"} | {f"{k}_z": -p[f"{k}_g"] for k in "WUb"}
    plain = run(Case("gru_update_only").graph, gated, x, carried[:1])
    assert_close(run(case.graph, p, x, carried)[0], plain[0])


@pytest.mark.parametrize("tau", [0, 1, 4])
def test_tau_gru_echoes_a_pulse_from_tau_states_before_the_last(tau):
    """Only the delayed state is fed back: a pulse comes again each τ + 1 steps, never between."""
    case = Case("tau_gru", {"tau": tau})
    p = altered(case, b_a=OPEN, b_g=OPEN, U_u=0.0, b_u=0.0, W_z=0.0, b_z=0.0)
    x = torch.zeros(14, 1, 3, dtype=torch.float64)
    x[1] = 1.0
    out, _, _ = run(case.graph, p, x, started(case))
    heard = out[:, 0].abs().amax(-1).nonzero().flatten().tolist()
    assert heard == list(range(1, 14, tau + 1))
    assert_close(out[2 + tau, 0], torch.tanh(p["U_z"] @ out[1, 0]))


# --- CfC ---


def heads_of_cfc(p, x, h):
    z = torch.tanh(x @ p["W"].T + h @ p["U"].T + p["b"])
    return (torch.tanh(z @ p[k].T + p[f"b_{k.lower()}"]) for k in "GH")


def test_cfc_goes_from_the_mean_of_its_heads_to_one_of_them():
    case = Case("cfc")
    x, _ = split_input(case, random_input(case, 1, BATCH))
    (h,) = random_carried(case, BATCH)
    for b_f, late in ((50.0, 1), (-50.0, 0)):  # f > 0 ends at the head H, f < 0 at G
        p = altered(case, b_f=b_f)
        ends = tuple(heads_of_cfc(p, x[0], h))

        def at(time, p=p):
            dt = torch.full((1, BATCH), time, dtype=torch.float64)
            return run(case.graph, p, x, (h,), extras={"dt": dt})[0][0]

        assert_close(at(0.0), (ends[0] + ends[1]) / 2)
        assert_close(at(1e-14), (ends[0] + ends[1]) / 2)
        assert_close(at(1e6), ends[late])
    assert (ends[0] - ends[1]).abs().max() > 0.1


def test_cfc_with_equal_times_has_them_in_its_rate():
    """dt times the rate is all there is: a clock twice as fast is a rate half as large."""
    case = Case("cfc")
    x, _ = split_input(case, random_input(case, TIME, BATCH))
    p, start = random_parameters(case), random_carried(case, BATCH)
    slow, even = torch.full((TIME, BATCH), 0.5), torch.ones(TIME, BATCH)
    halved = p | {"F": p["F"] / 2, "b_f": p["b_f"] / 2}
    one = run(case.graph, p, x, start, extras={"dt": slow.double()})[:2]
    other = run(case.graph, halved, x, start, extras={"dt": even.double()})[:2]
    assert_close(one[0], other[0])
    uneven = slow.double()
    uneven[3, 1] = 2.0  # of one row and step: nothing before it and no other row changes
    changed = run(case.graph, p, x, start, extras={"dt": uneven})[0]
    moved = (changed - one[0]).abs().amax(-1) > 0
    assert moved.nonzero().tolist() == [[t, 1] for t in range(3, TIME)]


# --- LRU ---


def test_lru_eigenvalues_lie_inside_of_the_unit_circle():
    """What is left of a state after one silent step, at ν from very slow to very fast."""
    case = Case("lru", sizes={"hidden": 71})
    p = altered(case, nu=torch.linspace(-30, 5, 71), theta=torch.linspace(-6, 6, 71))
    start = random_carried(case, 1)
    zero = torch.zeros(1, 1, 3, dtype=torch.float64)
    _, last, _ = run(case.graph, p, zero, start)
    turned = torch.complex(*last) / torch.complex(*start)
    assert (torch.hypot(*last) < torch.hypot(*start)).all()
    wanted = torch.exp(torch.complex(-torch.exp(p["nu"]), torch.exp(p["theta"])))
    assert far(turned[0].numpy(), wanted.numpy()) < 1e-12


def test_lru_of_long_memory_is_as_exact_in_float32():
    """1 − |λ|² is small where the memory is long, and must not be a difference of near equals."""
    case = Case("lru")
    x = random_input(case, 20, 2)
    for nu in (-5.0, -10.0, -17.0, -30.0):
        found = []
        for dtype in (torch.float64, torch.float32):
            p = {k: v.to(dtype).requires_grad_() for k, v in altered(case, nu=nu).items()}
            _, (re, im), _ = run(case.graph, p, x.to(dtype), started(case, 2, dtype))
            gradients = torch.autograd.grad((re + im).sum(), (p["nu"], p["B_re"]))
            found.append((re.detach(), im.detach(), *gradients))
        exact, rounded = found
        for one, other in zip(rounded, exact, strict=True):
            assert far(one, other) < 1e-5


def kernel_of_lru(p, length: int):
    """K_k = Re(C λ^k γ B), with D added at k = 0, in closed form."""
    p = {k: v.numpy() for k, v in p.items()}
    b, c = p["B_re"] + 1j * p["B_im"], p["C_re"] + 1j * p["C_im"]
    rate = -np.exp(p["nu"]) + 1j * np.exp(p["theta"])
    gamma = np.sqrt(-np.expm1(2 * rate.real))
    kernel = [((c * np.exp(rate * k) * gamma) @ b).real for k in range(length)]
    kernel[0] = kernel[0] + p["D"]
    return np.stack(kernel)


def test_lru_is_a_convolution():
    case, time = Case("lru"), 40
    p, x = random_parameters(case), random_input(case, time, BATCH)
    out, _, _ = run(case.graph, p, x, started(case, BATCH))
    kernel = kernel_of_lru(p, time)
    convolved = np.stack(
        [sum(x[t - k].numpy() @ kernel[k].T for k in range(t + 1)) for t in range(time)]
    )
    assert far(out, convolved) < 1e-12


def test_lru_answers_an_impulse_with_its_kernel():
    case, time = Case("lru"), 25
    p = random_parameters(case)
    x = torch.zeros(time, 3, 3, dtype=torch.float64)
    x[0] = torch.eye(3)
    out, _, _ = run(case.graph, p, x, started(case, 3))
    assert far(out, kernel_of_lru(p, time).swapaxes(1, 2)) < 1e-12


# --- sLSTM ---


def test_slstm_heads_do_not_see_each_other():
    """Over three steps, all states by all states: nothing outside of the four blocks."""
    case = PAPERS[slstm]
    named = setting(case)
    p, start = of(named, "p."), tuple(v[:1] for v in of(named, "start.").values())

    def last(*start):
        return torch.cat(run(case.graph, p, named["x"][:3, :1], start)[1])

    for part in jacobian(last, start):  # (4 states, 8 units) by (1 row, 8 units)
        blocks = part[:, :, 0].reshape(4, 4, 2, 4, 2).abs().amax((0, 2, 4))
        assert_same_bits(blocks * (1 - torch.eye(4).double()), torch.zeros(4, 4).double())
    by_h = jacobian(last, start)[0][:, :, 0].reshape(4, 4, 2, 4, 2)[0].abs()
    assert all((by_h[k, :, k] > 1e-6).all() for k in range(4))  # and inside each sees each


def test_slstm_stabiliser_cancels():
    case = PAPERS[slstm]
    named = setting(case)
    p, x, (h, c, n, m) = of(named, "p."), named["x"], of(named, "start.").values()
    plain, _, _ = run(case.graph, p, x, (h, c, n, m))
    for by in (-3.0, 0.7, 20.0):
        scale = torch.exp(tensor(-by))
        moved, _, _ = run(case.graph, p, x, (h, c * scale, n * scale, m + by))
        assert_close(moved, plain)
    zero = torch.zeros_like(c)
    plain, _, _ = run(case.graph, p, x, (h, zero, zero, zero))
    for by in (-3.0, 0.7, 20.0):  # with an empty memory m alone says nothing
        assert_close(run(case.graph, p, x, (h, zero, zero, zero + by))[0], plain)


EXTREMES = [(i, f) for i in (-500.0, 0.0, 500.0) for f in (-500.0, 0.0, 500.0)]


def finite_at(case: Case, b_i: float, b_f: float, dtype):
    """Outputs and gradients of a run from nothing, with the gates held at these values."""
    p = {k: v.to(dtype).requires_grad_() for k, v in altered(case, b_i=b_i, b_f=b_f).items()}
    x = random_input(case, 60, 2, dtype=dtype)
    out, last, _ = run(case.graph, p, x, started(case, 2, dtype))
    assert all(v.isfinite().all() for v in (out, *last))
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), tuple(p.values())))
    return p, x, out.detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("b_i", "b_f"), EXTREMES)
def test_slstm_does_not_overflow(b_i, b_f, dtype):
    """c/n is a mean of values inside of (−1, 1), whatever the gates say."""
    case = Case("slstm")
    _, _, out = finite_at(case, b_i, b_f, dtype)
    assert out.abs().max() < 1
    assert out.abs().max() > 0.01


# --- mLSTM ---


def test_mlstm_gives_back_the_value_of_an_orthonormal_key():
    """i = f = 1: three values under three keys, one a step; then each key asks for its own."""
    case = Case("mlstm", sizes={"input": 6, "hidden": 3})
    numbers = generator(case)
    keys = torch.linalg.qr(torch.randn(3, 3, generator=numbers, dtype=torch.float64))[0]
    values = torch.randn(3, 3, generator=numbers, dtype=torch.float64)  # one a row
    none = torch.zeros(3, 3, dtype=torch.float64)
    gates = {"w_i": 0.0, "b_i": 0.0, "w_f": 0.0, "b_f": OPEN, "W_o": 0.0, "b_o": OPEN}
    p = altered(
        case, **gates, b_q=0.0, b_k=0.0, b_v=0.0,
        W_k=torch.cat([keys.T, none], 1), W_v=torch.cat([values.T, none], 1),
        W_q=torch.cat([none, keys.T], 1),
    )  # fmt: skip
    order = [0, 1, 2, 3, 5, 4, 3]
    x = torch.eye(6).double()[order][:, None]
    out, (memory, n, _), _ = run(case.graph, p, x, started(case))
    assert_close(out[3:, 0], values[[0, 2, 1, 0]])
    assert_close(memory[0], sum(torch.outer(values[k], keys[k]) for k in range(3)))
    assert_close(n[0], keys.sum(0))


def test_mlstm_stabiliser_cancels():
    case = Case("mlstm")
    named = setting(case)
    p, x, (memory, n, m) = of(named, "p."), named["x"], of(named, "start.").values()
    plain, _, _ = run(case.graph, p, x, (memory, n, m))
    for by in (-3.0, 0.7, 20.0):
        scale = torch.exp(tensor(-by))
        moved, _, _ = run(case.graph, p, x, (memory * scale, n * scale, m + by))
        assert_close(moved, plain)


def test_mlstm_oracle_stands_on_both_sides_of_its_bound():
    """Else one branch of max(|nᵀq|, 1), or one sign of nᵀq, would be untested above."""
    case = Case("mlstm")
    named = setting(case)
    p, x = of(named, "p."), named["x"]
    _, _, (_, n, m) = run(
        case.graph, p, x, tuple(of(named, "start.").values()), return_states=True
    )  # fmt: skip
    match = (n * (x @ p["W_q"].T + p["b_q"])).sum(-1) * torch.exp(m)
    assert (match > 1).any()
    assert (match < -1).any()
    assert (match.abs() < 1).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("b_i", "b_f"), EXTREMES)
def test_mlstm_does_not_overflow(b_i, b_f, dtype):
    finite_at(Case("mlstm"), b_i, b_f, dtype)
