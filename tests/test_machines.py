"""Networks with weights that are written down do what they are said to, by other means checked."""

from __future__ import annotations

import itertools
import random
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import elman

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(autouse=True, scope="module")
def examples():
    """The examples are scripts beside each other: they are found where they lie."""
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def interpret(machine, tape: list[str], limit: int = 100_000) -> tuple[str, str, int]:
    """A Turing machine run the plain way: state, tape without outer blanks, steps."""
    cells, place, state = dict(enumerate(tape)), 0, machine.start
    for steps in range(limit):
        rule = machine.rules.get((state, cells.get(place, "_")))
        if rule is None:
            word = "".join(cells.get(i, "_") for i in range(min(cells, default=0), max(cells) + 1))
            return state, word.strip("_"), steps
        state, cells[place], move = rule
        place += move
    raise AssertionError("no halt")


def words(longest: int) -> list[list[str]]:
    return [list(w) for n in range(1, longest + 1) for w in itertools.product("01", repeat=n)]


def test_turing_machines_are_their_interpreters():
    from constructed import increment, palindrome
    from machines import run_exactly

    for machine, tapes in ((increment(), words(5)), (palindrome(), words(5))):
        for tape in tapes:
            state, out = run_exactly(machine, tape, 1000)
            assert (state, "".join(out).strip("_")) == interpret(machine, tape)[:2]


def test_busy_beaver():
    """The busy beaver of three states, which starts on no tape and passes blanks between ones."""
    from constructed import TuringMachine
    from machines import run_exactly

    rules = {
        ("a", "_"): ("b", "1", 1),
        ("a", "1"): ("halt", "1", 1),
        ("b", "_"): ("c", "_", 1),
        ("b", "1"): ("b", "1", 1),
        ("c", "_"): ("c", "1", -1),
        ("c", "1"): ("a", "1", -1),
    }
    machine = TuringMachine(rules, "a", ("1", "_"))
    state, out = run_exactly(machine, [], 200, room=20)
    told, word, steps = interpret(machine, [])
    assert (state, "".join(out).strip("_")) == (told, word)
    assert word.count("1") == 6
    assert 10 < steps < 25


def test_layer_and_exact_numbers_agree_step_by_step():
    from constructed import increment, load_tape, turing
    from exactly import ExactNetwork

    machine = increment()
    net = turing(machine)
    load_tape(net, machine, list("10110111"))
    layer, start = net.layer()
    states, _ = layer(torch.zeros(60, 1, 1, dtype=torch.float64), start)
    network = ExactNetwork(net, bits=3 * 12)
    for t in range(60):
        network.step()
        exact = [float(network.value(name)) for name in net.units]
        assert states[t, 0].tolist() == exact


def test_exact_numbers_refuse_what_they_would_round():
    from constructed import increment, load_tape, turing
    from exactly import ExactNetwork

    machine = increment()
    net = turing(machine)
    load_tape(net, machine, list("1011"))
    network = ExactNetwork(net, bits=12)
    steps = [network.step] * 20
    with pytest.raises(ValueError, match="12 bits are too few"):
        [step() for step in steps]
    net.units["L"]["R"] = Fraction(1, 3)
    with pytest.raises(ValueError, match="not dyadic"):
        ExactNetwork(net, bits=60)


def test_stacks_go_to_numbers_and_back():
    from constructed import increment

    machine = increment()
    for symbols in (list("01_1"), [], ["_"], list("1" * 50)):
        value = machine.stack(symbols)
        assert 0 <= value < 1
        assert machine.unstack(value) == symbols


@pytest.mark.parametrize("logistic", [False, True])
def test_automaton_of_any_rules(logistic):
    """Random automata, against a walk through their table."""
    from constructed import automaton

    draw = random.Random(3)
    for states in (2, 5):
        rules = {(str(q), s): str(draw.randrange(states)) for q in range(states) for s in "abc"}
        net = automaton(rules, "0")
        if logistic:
            net.bias = {name: bias - 0.5 for name, bias in net.bias.items()}
            cell = elman.cells.get("simple").with_hyper(f="sigmoid")
            layer, start = net.layer(cell, gain=20.0)
        else:
            layer, start = net.layer()
        word = [draw.choice("abc") for _ in range(200)]
        x = torch.nn.functional.one_hot(torch.tensor(["abc".index(s) for s in word]), 3).double()
        out, _ = layer(x[:, None], start)
        state, names = "0", list(net.units)
        for t, symbol in enumerate(word):
            on = [n for n, v in zip(names, out[t, 0].tolist(), strict=True) if v > 0.5]
            assert on == [f"{state},{symbol}"]
            state = rules[(state, symbol)]


def test_parity_and_counter_on_every_short_word():
    from constructed import counter, parity

    bits = torch.tensor(list(itertools.product((0, 1), repeat=10))).T
    layer, start = parity().layer()
    out, _ = layer(bits[..., None].double(), start.expand(1, bits.shape[1], -1).contiguous())
    assert torch.equal(out[..., 0] - out[..., 1], (bits.cumsum(0) % 2).double())

    layer, start = counter().layer(elman.cells.get("simple").with_hyper(f="relu"))
    x = torch.stack((bits == 1, bits == 0), -1).double()
    out, _ = layer(x, start.expand(1, bits.shape[1], -1).contiguous())
    for row in range(bits.shape[1]):
        depth, good = 0, True
        for t, bit in enumerate(bits[:, row].tolist()):
            depth += 1 if bit else -1
            good = good and depth >= 0
            assert bool((out[t, row] == 0).all()) == (good and depth == 0)


def test_long_words():
    from machines import balanced, multiples_of_seven, odd_ones, plus_one, run_exactly

    for shares in (odd_ones(9), balanced(9), multiples_of_seven(9, logistic=True)):
        assert shares == [1.0] * len(shares)
    from constructed import increment

    tape = [random.Random(9).choice("01") for _ in range(1_995)] + ["1"] * 5
    state, out = run_exactly(increment(), tape, 4_010)
    assert (state, "".join(out).strip("_")) == ("halt", plus_one(tape))
