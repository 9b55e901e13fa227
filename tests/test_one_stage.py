"""The fused influence over one step equals autograd's, for every cell that is one product stage."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, generator
from chains import Run, chain_of, layer, nothing
from tolerances import EQUAL, assert_close

import elman
from elman.backends.cpu import influence as kernel
from elman.equation import with_recurrent_dropout
from elman.equation.jacobian import local
from elman.equation.split import split
from elman.learning import one_stage

STAGE = [
    case
    for case in CASES
    if not local(split(case.graph).inner).hindered
    and len(case.graph.inputs) == 1
    and not case.graph.lines
]


def carried(run: Run, steps: int):
    """M by the fused update, step after step."""
    chain = chain_of(run.layers)
    batch = run.x.shape[1]
    influence = nothing(chain, batch)
    with torch.no_grad():
        for t in range(steps):
            window = run.window(t, t + 1, chain)
            influence = one_stage.advance(chain, influence, window, lambda: nothing(chain, batch))
    return influence


def check(run: Run, steps: int) -> None:
    found, expected = carried(run, steps), run.influence(steps)
    assert_close(tuple(found), tuple(expected), EQUAL, "influence")


def inputs(numbers, time=5, batch=2, width=3):
    return torch.randn(time, batch, width, generator=numbers, dtype=torch.float64)


@pytest.mark.parametrize("case", STAGE, ids=lambda case: case.id)
def test_influence_is_autograds(case):
    numbers = generator(case, 21)
    check(Run([layer(case.graph, case.all_sizes, numbers)], inputs(numbers)), 4)


def graph_of(name: str):
    return elman.cells.get(name).graph


def stack(numbers, *names: str, hidden=(4, 4, 4), residual=False, learned=False):
    width, layers = 3, []
    for number, (name, units) in enumerate(zip(names, hidden, strict=False)):
        sizes = {"input": width, "hidden": units}
        own = residual and number > 0
        layers.append(layer(graph_of(name), sizes, numbers, residual=own, learned=learned))
        width = units
    return layers


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "names",
    [("lstm", "lstm"), ("simple", "gru", "lstm"), ("gru", "peephole_lstm", "indrnn")],
    ids=str,
)
def test_stacks(names, residual):
    numbers = torch.Generator().manual_seed(3)
    check(Run(stack(numbers, *names, residual=residual), inputs(numbers)), 4)


def test_a_layer_whose_input_goes_unit_by_unit():
    numbers = torch.Generator().manual_seed(4)
    check(Run(stack(numbers, "lstm", "residual_input", "sru"), inputs(numbers)), 4)


def test_dropout_between_layers():
    numbers = torch.Generator().manual_seed(5)
    layers = stack(numbers, "gru", "lstm", "simple")
    masks = {n: 2.0 * torch.randint(0, 2, (5, 2, 4), generator=numbers).double() for n in (1, 2)}
    check(Run(layers, inputs(numbers), masks=masks), 4)


def test_learned_initial_states_and_resets():
    numbers = torch.Generator().manual_seed(6)
    layers = stack(numbers, "lstm", "gru", learned=True)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[2, 0] = resets[4, 1] = True
    check(Run(layers, inputs(numbers), resets=resets), 5)


def test_resets_without_learned_states():
    numbers = torch.Generator().manual_seed(7)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[3, 1] = True
    check(Run(stack(numbers, "peephole_lstm"), inputs(numbers), resets=resets), 5)


def test_a_row_that_has_ended_keeps_its_influence():
    numbers = torch.Generator().manual_seed(8)
    run = Run(stack(numbers, "lstm", "simple"), inputs(numbers))
    chain = chain_of(run.layers)
    before = carried(run, 2)
    window = run.window(2, 3, chain)
    ended = type(window)(window.seen, torch.tensor([1, 0]), None)
    after = one_stage.advance(chain, before, ended, lambda: nothing(chain, 2))
    whole = one_stage.advance(chain, before, window, lambda: nothing(chain, 2))
    for old, new, all_of_it in zip(before, after, whole, strict=True):
        assert torch.equal(new[1], old[1])
        assert torch.equal(new[0], all_of_it[0])
        assert not torch.equal(all_of_it[1], old[1])


def test_recurrent_dropout_masks_where_a_state_enters_a_product():
    numbers = torch.Generator().manual_seed(9)
    graph = with_recurrent_dropout(graph_of("lstm"))
    made = layer(graph, {"input": 3, "hidden": 4}, numbers)
    assert not one_stage.hindrance(chain_of([made]))
    assert local(made.graph).into


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("gru_cho",), "made of other products"),
        (("lstm", "mgu"), "mgu: the product of 'U_n'"),
        (("mc_lstm", "lstm"), "mc_lstm: its output is no state"),
    ],
)
def test_what_hinders_is_named(names, words):
    numbers = torch.Generator().manual_seed(1)
    assert words in one_stage.hindrance(chain_of(stack(numbers, *names)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 31, 128, 1000, 5003])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_kernel_is_torchs_product(dtype, columns, threads):
    """Both parts of the sum, tails that fill no panel, memory that is NaN, rows of a larger M."""
    numbers = torch.Generator().manual_seed(columns)

    def draw(*shape):
        return torch.randn(shape, generator=numbers, dtype=dtype)

    batch, rows, k = 3, 20, 7
    old, left, factors = draw(batch, 24, columns), draw(batch, rows, k), draw(batch, 21)
    terms, order = kernel.Terms.of(rows, [(0, 3, 10), (5, 0, 10), (19, 20, 1)])
    new = torch.full((batch, rows + 2, columns), float("nan"), dtype=dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        target = new[:, 1:-1]
        kernel.moved(left, old, 4, target, terms=terms, factors=factors[:, order])
        expected = left @ old[:, 4:11]
        at = 0
        for first, source, count in [(0, 3, 10), (5, 0, 10), (19, 20, 1)]:
            expected[:, first : first + count] += (
                factors[:, at : at + count, None] * old[:, source : source + count]
            )
            at += count
        assert_close(target, expected, EQUAL, "the product")
        kernel.moved(left, old, 0, target, add=True)
        assert_close(target, expected + left @ old[:, :7], EQUAL, "the sum")
    finally:
        torch.set_num_threads(before)
    assert new[:, 0].isnan().all()
    assert new[:, -1].isnan().all()


def test_the_kernel_serves_a_large_product():
    old, new = torch.zeros(2, 64, 4096), torch.zeros(2, 64, 4096)
    assert kernel.serves(torch.zeros(2, 64, 64), old, new)
    assert not kernel.serves(torch.zeros(2, 64, 64, dtype=torch.float16), old, new)


def test_threads_have_memory_of_their_own():
    """Eight threads that take each other's turns, again and again, give the bits of one."""
    numbers = torch.Generator().manual_seed(2)
    old = torch.randn(4, 64, 8192, generator=numbers)
    left = torch.randn(4, 64, 64, generator=numbers)
    before, wrong = torch.get_num_threads(), 0
    alone, new = torch.empty_like(old), torch.empty_like(old)
    try:
        torch.set_num_threads(1)
        kernel.moved(left, old, 0, alone)
        torch.set_num_threads(8)
        for _ in range(60):
            kernel.moved(left, old, 0, new.fill_(float("nan")))
            wrong += not torch.equal(alone, new)
    finally:
        torch.set_num_threads(before)
    assert not wrong
    assert_close(alone, left @ old, {torch.float32: 1e-4}, "the product")


def test_a_parameter_that_is_a_part_of_another_weight():
    """p.v counts where it stands alone, and within exp(p.v) only through that."""

    @elman.cell
    def tied(p, x, h):
        return torch.tanh(p.W @ x + p.U @ h + p.v) * torch.exp(p.v)

    torch.manual_seed(0)
    layer = elman.Recurrent(tied, 3, 4, learning=elman.RTRL(), dtype=torch.float64)
    whole = elman.Recurrent(tied, 3, 4, dtype=torch.float64)
    whole.load_state_dict(layer.state_dict())
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for one in (layer, whole):
        one(x)[0].sin().sum().backward()
    for (name, p), q in zip(layer.named_parameters(), whole.parameters(), strict=True):
        assert_close(p.grad, q.grad, EQUAL, name)
