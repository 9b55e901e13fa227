"""The carries that are cheaper than M: each against its own definition, by independent code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import CASES, generator
from chains import Layer, Run, chain_of, layer, nothing
from tolerances import EQUAL, assert_close

import elman
from elman.equation.jacobian import local
from elman.equation.split import split
from elman.errors import InputError
from elman.learning.by_unit import EXACT, RFLO, SNAP1, ByUnit, kept_of, serves_exactly
from elman.learning.rflo import rflo
from elman.learning.snap1 import snap1

STAGE = [
    case
    for case in CASES
    if not local(split(case.graph).inner).hindered
    and len(case.graph.inputs) == 1
    and not case.graph.lines
]
ALONE = [case for case in STAGE if local(split(case.graph).inner).elementwise]


def inputs(numbers, time=5, batch=2, width=3):
    return torch.randn(time, batch, width, generator=numbers, dtype=torch.float64)


def carried(carrier, run: Run, cuts: tuple[int, ...]):
    """The influence by a carrier after windows that end at `cuts`."""
    chain = chain_of(run.layers)
    influence = carrier.start(chain, run.x.shape[1])
    with torch.no_grad():
        for begin, end in zip((0, *cuts), cuts, strict=False):
            influence = carrier.advance(chain, influence, run.window(begin, end, chain))
    return chain, influence


def dense(chain, influence, method):
    """What is kept unit by unit as M, (batch, rows, columns), for each place."""
    held, found = iter(influence), []
    for place in chain.places:
        moved = chain.like.new_zeros(influence[0].shape[0], place.rows, place.columns)
        for kept in kept_of(place, method):
            block, units = next(held), kept.units
            for at, k in enumerate(kept.states):
                rows = moved[:, k * units : (k + 1) * units, kept.weight.columns]
                if kept.alone:
                    rows += block[:, at]
                else:
                    own = rows.unflatten(2, (units, -1)).diagonal(dim1=1, dim2=2)
                    own += block[:, at].transpose(1, 2)
        found.append(moved)
    return found


@pytest.mark.parametrize("cuts", [(1, 2, 3, 4), (4,), (3, 4)], ids=str)
@pytest.mark.parametrize("case", ALONE, ids=lambda case: case.id)
def test_elementwise_recurrences_are_exact(case, cuts):
    numbers = generator(case, 31)
    run = Run([layer(case.graph, case.all_sizes, numbers, learned=True)], inputs(numbers))
    chain, influence = carried(ByUnit(EXACT), run, cuts)
    assert serves_exactly(chain)
    assert_close(tuple(dense(chain, influence, EXACT)), tuple(run.influence(4)), EQUAL, "M")
    assert ByUnit(EXACT).bytes(chain, 2) == sum(8 * m.numel() for m in influence)
    assert sum(m.numel() for m in influence) <= 2 * chain.rows / 4 * chain.places[0].columns


def resets_at(*places: tuple[int, int]):
    resets = torch.zeros(5, 2, dtype=torch.bool)
    for t, row in places:
        resets[t, row] = True
    return resets


@pytest.mark.parametrize("name", ["indrnn", "minlstm", "unicornn"])
@pytest.mark.parametrize("cuts", [(1, 2, 3, 4, 5), (5,), (2, 5)], ids=str)
def test_resets_of_elementwise_recurrences(name, cuts):
    numbers = torch.Generator().manual_seed(32)
    made = layer(elman.cells.get(name).graph, {"input": 3, "hidden": 4}, numbers, learned=True)
    run = Run([made], inputs(numbers), resets=resets_at((0, 1), (2, 0), (4, 1)))
    chain, influence = carried(ByUnit(EXACT), run, cuts)
    assert_close(tuple(dense(chain, influence, EXACT)), tuple(run.influence(5)), EQUAL, "M")


@pytest.mark.parametrize("method", [EXACT, SNAP1, RFLO])
def test_a_row_that_ends_keeps_what_it_has(method):
    numbers = torch.Generator().manual_seed(33)
    name = "minlstm" if method == EXACT else "lstm"
    made = layer(elman.cells.get(name).graph, {"input": 3, "hidden": 4}, numbers, learned=True)
    run = Run([made], inputs(numbers))
    carrier = ByUnit(method)
    chain, before = carried(carrier, run, (2,))
    _, shorter = carried(carrier, run, (2, 3))
    window = run.window(2, 5, chain)
    lengths = torch.tensor([3, 1])
    found = carrier.advance(chain, before, type(window)(window.seen, lengths, None))
    _, whole = carried(carrier, run, (2, 5))
    for new, one, other in zip(found, whole, shorter, strict=True):
        assert_close(new[0], one[0], EQUAL)
        assert_close(new[1], other[1], EQUAL)


class Sparse:
    """M̂' = P ⊙ (J M̂ + I) by autograd's J and I, one step after the other: SnAp-1 as published."""

    def __init__(self, run: Run):
        (self.layer,) = run.layers
        self.run, self.chain = run, chain_of(run.layers)
        self.place = self.chain.places[0]
        self.old = nothing(self.chain, run.x.shape[1])[0]
        # Entries that one step can make other than zero, whatever the numbers.
        self.pattern = sum(self.jacobians(0, 7 + n)[1] != 0 for n in range(12)) > 0

    def jacobians(self, t: int, seed: int | None = None):
        """J and I of a step; with a seed at random states and parameters."""
        one, batch = self.layer, self.run.x.shape[1]
        window = self.run.window(t, t + 1, self.chain)
        start, parameters = window.seen[0].start, one.parameters
        if seed is not None:
            numbers = torch.Generator().manual_seed(seed)
            draw = lambda v: torch.randn(v.shape, generator=numbers, dtype=v.dtype)  # noqa: E731
            start, parameters = tuple(map(draw, start)), {n: draw(v) for n, v in parameters.items()}

        def step(states, parameters):
            from elman.backends.reference import Step

            _, new = Step(one.graph, parameters)(window.seen[0].x[0], states, {})
            return torch.cat(tuple(new), 1)

        of_states, of_parameters = torch.func.jacrev(step, (0, 1))(start, parameters)
        rows = torch.cat(of_states, 3)
        j = torch.stack([rows[b, :, b] for b in range(batch)])
        i = [of_parameters[w.name].reshape(batch, self.place.rows, -1) for w in self.place.weights]
        return j, torch.cat(i, 2)

    def after(self, steps: int):
        moved = self.old
        for t in range(steps):
            j, i = self.jacobians(t)
            moved = torch.where(self.pattern, j @ moved + i, 0.0)
        return moved


@pytest.mark.parametrize("cuts", [(1, 2, 3), (3,)], ids=str)
@pytest.mark.parametrize("case", STAGE, ids=lambda case: case.id)
def test_snap1_is_its_definition(case, cuts):
    numbers = generator(case, 34)
    run = Run([layer(case.graph, case.all_sizes, numbers)], inputs(numbers))
    chain, influence = carried(ByUnit(SNAP1), run, cuts)
    found = dense(chain, influence, SNAP1)[0]
    assert_close(found, Sparse(run).after(3), EQUAL, "what SnAp-1 keeps")


def test_snap1_is_exact_on_one_layer_of_indrnn():
    numbers = torch.Generator().manual_seed(35)
    made = layer(elman.cells.get("indrnn").graph, {"input": 3, "hidden": 4}, numbers)
    run = Run([made], inputs(numbers))
    chain, influence = carried(snap1(chain_of([made])), run, (1, 2, 3, 4, 5))
    assert_close(tuple(dense(chain, influence, SNAP1)), tuple(run.influence(5)), EQUAL, "M")
    other = Run([layer(elman.cells.get("simple").graph, {"input": 3, "hidden": 4}, numbers)], run.x)
    chain, influence = carried(ByUnit(SNAP1), other, (1, 2, 3, 4, 5))
    far = dense(chain, influence, SNAP1)[0] - other.influence(5)[0]
    assert far.abs().max() > 1e-3


@elman.cell
def leaky(p, x, h, *, tau=3.0):
    """h' = (1 − 1/τ) h + (1/τ) tanh(U h + W x)."""
    return (1.0 - 1.0 / tau) * h + (1.0 / tau) * torch.tanh(p.U @ h + p.W @ x)


def test_rflo_is_its_published_formula():
    """P'_ij = (1 − 1/τ) P_ij + (1/τ) φ'(u_i) h_j, and so with x_j, on three units, in numpy."""
    numbers = torch.Generator().manual_seed(36)
    made = layer(leaky.graph, {"input": 2, "hidden": 3}, numbers)
    x = inputs(numbers, 6, 1, 2)
    chain, influence = carried(rflo(chain_of([made])), Run([made], x), (1, 2, 3, 4, 5, 6))
    recurrent, given = made.parameters["U"].numpy(), made.parameters["W"].numpy()
    h, p, q = np.zeros(3), np.zeros((3, 3)), np.zeros((3, 2))
    for t in range(6):
        u = recurrent @ h + given @ x[t, 0].numpy()
        slope = 1.0 - np.tanh(u) ** 2
        for i in range(3):
            for j in range(3):
                p[i, j] = (1 - 1 / 3) * p[i, j] + (1 / 3) * slope[i] * h[j]
            for j in range(2):
                q[i, j] = (1 - 1 / 3) * q[i, j] + (1 / 3) * slope[i] * x[t, 0, j].item()
        h = (1 - 1 / 3) * h + (1 / 3) * np.tanh(u)
    names = [w.name for w in chain.places[0].weights]
    for name, want in (("U", p), ("W", q)):
        found = influence[names.index(name)][0, 0]
        np.testing.assert_allclose(found.numpy(), want, rtol=1e-12, atol=1e-14)


def test_rflo_of_an_lstm_goes_through_the_forget_gate_alone():
    """∂c'/∂U_f: P' = f P + c f (1 − f) hᵀ, and h' has o (1 − tanh² c') P', in numpy."""
    numbers = torch.Generator().manual_seed(37)
    made = layer(elman.cells.get("lstm").graph, {"input": 2, "hidden": 3}, numbers)
    x = inputs(numbers, 5, 1, 2)
    chain, influence = carried(rflo(chain_of([made])), Run([made], x), (2, 5))
    w = {n: v.numpy() for n, v in made.parameters.items()}
    h, c, p = np.zeros(3), np.zeros(3), np.zeros((3, 3))

    def gate(name, v):
        return w["W_" + name] @ v + w["U_" + name] @ h + w["b_" + name]

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for v in x[:5, 0].numpy():
        i, f, o = (sigmoid(gate(n, v)) for n in "ifo")
        p = f[:, None] * p + (c * f * (1 - f))[:, None] * h[None]
        c = f * c + i * np.tanh(gate("g", v))
        of_h = (o * (1 - np.tanh(c) ** 2))[:, None] * p
        h = o * np.tanh(c)
    found = influence[[v.name for v in chain.places[0].weights].index("U_f")]
    np.testing.assert_allclose(found[0, 1].numpy(), p, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[0, 0].numpy(), of_h, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("method", [SNAP1, RFLO])
def test_gradient_is_the_cotangents_times_what_is_kept(method):
    numbers = torch.Generator().manual_seed(38)
    graph = elman.cells.get("fast_rnn").graph
    layers = [
        layer(graph, {"input": 3, "hidden": 4}, numbers, learned=True),
        layer(elman.cells.get("lstm").graph, {"input": 4, "hidden": 4}, numbers),
    ]
    run = Run(layers, inputs(numbers))
    carrier = ByUnit(method)
    chain, influence = carried(carrier, run, (2, 5))
    cotangents = torch.randn(2, chain.rows, generator=numbers, dtype=torch.float64)
    found = carrier.gradient(chain, influence, cotangents)
    place = 0
    for one, moved in zip(chain.places, dense(chain, influence, method), strict=True):
        own = cotangents[:, one.first : one.first + one.rows]
        want = torch.einsum("bs,bsp->p", own, moved)
        for weight in one.weights:
            assert_close(found[place], want[weight.columns].view(weight.shape), EQUAL, weight.name)
            place += 1
    assert place == len(found)


@pytest.mark.parametrize("make", [snap1, rflo])
def test_what_has_no_pattern_is_refused_by_name(make):
    numbers = torch.Generator().manual_seed(39)
    made = layer(elman.cells.get("gru_cho").graph, {"input": 3, "hidden": 4}, numbers)
    with pytest.raises(InputError, match="gru_cho: the product of 'U_n'"):
        make(chain_of([made]))


def test_exact_carry_by_unit_is_for_one_layer_without_products_of_states():
    numbers = torch.Generator().manual_seed(40)

    def one(name) -> Layer:
        return layer(elman.cells.get(name).graph, {"input": 4, "hidden": 4}, numbers)

    assert serves_exactly(chain_of([one("sru")]))
    assert not serves_exactly(chain_of([one("lstm")]))
    assert not serves_exactly(chain_of([one("sru"), one("sru")]))
