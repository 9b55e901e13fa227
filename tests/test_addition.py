"""The adding network: the notes' figures, what it learns, and when it holds the carry."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from elman import plots
from elman.errors import InputError
from elman.tasks.addition import learn
from elman.tasks.addition.carry import Holder, find_holders, half_way, silent_steps, swings
from elman.tasks.addition.learning import History, _examples, descend, notes_draws
from elman.tasks.addition.sums import add_digits, digits, digits_of, random_addends


@pytest.fixture(scope="module")
def binary():
    return learn()


@pytest.fixture(scope="module")
def decimal():
    return learn(base=10)


def test_the_errors_are_those_of_the_notes(binary):
    assert list(binary.printed) == list(range(0, 10_000, 1000))
    assert binary.printed[0] == pytest.approx(3.45638663, abs=1e-8)
    assert binary.printed[9000] == pytest.approx(0.21595037, abs=1e-8)


def _by_hand(seed: int, sums: int) -> tuple[list[float], list[np.ndarray]]:
    """An oracle: the same learning with the gradient written out, in NumPy."""
    rng = np.random.RandomState(seed)
    w, v, u = (2 * rng.random_sample(shape) - 1 for shape in ((2, 16), (16, 1), (16, 16)))
    errors = []
    for _ in range(sums):
        a, b = rng.randint(128), rng.randint(128)
        bits = [[n >> k & 1 for k in range(8)] for n in (a, b, a + b)]
        x, y = np.array(bits[:2]).T, np.array(bits[2])[:, None]
        hidden = [np.zeros(16)]
        for step in x:
            hidden.append(1 / (1 + np.exp(-(step @ w + hidden[-1] @ u))))
        h = np.stack(hidden[1:])
        out = 1 / (1 + np.exp(-(h @ v)))
        errors.append(float(np.abs(y - out).sum()))
        of_out = (out - y) * out * (1 - out)
        of_hidden, later = np.zeros_like(h), np.zeros(16)
        for t in reversed(range(8)):
            later = (of_out[t] @ v.T + later @ u.T) * h[t] * (1 - h[t])
            of_hidden[t] = later
        w -= 0.1 * x.T @ of_hidden
        v -= 0.1 * h.T @ of_out
        u -= 0.1 * np.stack(hidden[:-1]).T @ of_hidden
    return errors, [w, v, u]


def test_learning_equals_the_gradient_written_out():
    sums = 150
    weights, stream = notes_draws(3)
    history = History()
    descend(weights, *_examples([next(stream) for _ in range(sums)]), history)
    errors, (w, v, u) = _by_hand(3, sums)
    np.testing.assert_allclose(history.errors, errors, rtol=0, atol=1e-11)
    for name, value in (("W", w), ("V", v), ("U", u)):
        np.testing.assert_allclose(weights[name].numpy().T, value, rtol=0, atol=1e-11)


def test_the_binary_adder_adds(binary):
    assert binary.accuracy == 1.0
    assert binary.longer[16] == binary.longer[32] == 1.0
    assert binary.longer[64] >= 0.99
    assert binary.add(144, 177) == 321
    assert binary.add(2**64 - 1, 1) == 2**64


def test_the_decimal_adder_adds(decimal):
    assert decimal.accuracy == 1.0
    assert decimal.longer[64] >= 0.99
    assert decimal.add(144, 177) == 321
    assert decimal.add(10**40 - 1, 1) == 10**40


def test_the_error_falls_when_units_begin_to_hold_the_carry(binary):
    first = min(holder.since for holder in binary.holders)
    assert 4_000 < first < binary.fell < 6_500
    assert binary.told_fell < binary.fell - 1_000
    before = np.abs(binary.swing[binary.updates < 3_000])
    assert before.max() < 0.1 < 0.5 < np.abs(binary.swing[-1]).max()
    assert f"{binary.fell:,}" in binary.why()


@pytest.mark.parametrize(
    ("since", "says"),
    [
        ((35, 55), "unit 0 from update 35 and unit 1 from update 55 begin to hold it before"),
        ((180, 260), "unit 0 from update 180 and unit 1 from update 260 begin to hold it around"),
        ((300, 900), "unit 0 from update 300 and unit 1 from update 900 begin to hold it after"),
        ((35, 210), "35 begins to hold it before, unit 1 from update 210 begins to hold it around"),
    ],
)
def test_when_units_begin_is_said_as_it_was_measured(decimal, since, says):
    holders = [Holder(unit, update, 0.9 - unit / 10) for unit, update in enumerate(since)]
    told = dataclasses.replace(decimal, fell=215, holders=holders).why()
    assert says in told
    assert "add to 9" in told
    assert "wrong digits" in told


def test_the_demo_does_not_contradict_its_figures(binary, decimal):
    assert "begin to hold it around then" in binary.why()
    foremost = [holder.since for holder in decimal.holders[:2]]
    assert max(foremost) < 0.75 * decimal.fell
    assert "begin to hold it before" in decimal.why()


def test_the_figures_are_json(binary, decimal):
    for result in (binary, decimal):
        data = json.loads(json.dumps(result.to_json()))
        assert data["held_out_accuracy"] == 1.0
        assert len(data["curves"]["update"]) == len(data["curves"]["swing"])


def test_pictures_are_drawn(binary, decimal, tmp_path):
    for result in (binary, decimal):
        path = tmp_path / f"{result.base}.png"
        plots.addition(result, path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_where_the_first_sums_do_not_suffice_it_trains_on_and_gives_up(monkeypatch):
    monkeypatch.setattr("elman.tasks.addition.learning.SUMS", 1_000)
    monkeypatch.setattr("elman.tasks.addition.learning.LIMIT", 3_000)
    short = learn()
    assert 3_000 < short.sums <= 3_500
    assert short.accuracy < 1.0
    assert short.longest_carry < 64
    assert "then lost" in short.held()


@pytest.mark.parametrize("base", [2, 3, 10, 16])
def test_sums_are_those_of_whole_numbers(base):
    rng = np.random.default_rng(base)
    a, b = random_addends(rng, 50, 20, base, silent=0.3)
    total, _ = add_digits(a, b, base)
    for row in range(len(a)):
        numbers = [sum(int(d) * base**k for k, d in enumerate(n[row])) for n in (a, b, total)]
        assert numbers[0] + numbers[1] == numbers[2]


def test_digits_agree():
    for number in (0, 1, 9, 10, 4_095):
        first = digits(np.array([number]), 12, 2)[0].tolist()
        own = digits_of(number, 2)
        assert first == own + [0] * (12 - len(own))


def test_a_unit_that_is_the_carry_swings_by_its_whole_range():
    rng = np.random.default_rng(0)
    a, b = random_addends(rng, 200, 7, 2)
    carry = add_digits(a, b, 2)[1]
    perfect = torch.from_numpy(np.stack([carry.T, 1 - carry.T, a.T], -1)).double()
    swing = swings(perfect, a, b, 2)
    assert swing[:2].tolist() == [1.0, -1.0]
    assert abs(swing[2]) < 0.2


def test_silent_steps_say_nothing_about_the_carry():
    rng = np.random.default_rng(1)
    a, b = random_addends(rng, 4_000, 9, 10, silent=0.5)
    silent, carry = silent_steps(a, b, 10), add_digits(a, b, 10)[1]
    assert ((a + b)[silent] == 9).all()
    np.testing.assert_array_equal(carry[:, 1:][silent[:, 1:]], carry[:, :-1][silent[:, 1:]])


def test_moments():
    assert half_way(np.array([0, 10, 20, 30]), np.array([4.0, 3.0, 1.5, 1.0])) == 20
    updates, swing = np.arange(0, 600, 10), np.zeros((60, 3))
    swing[20:, 0], swing[30:, 1], swing[5:25, 2] = -0.5, 0.9, 0.8
    swing[45:47] = 0.0  # a moment's shaking
    found = [(holder.unit, holder.since) for holder in find_holders(updates, swing)]
    assert found == [(1, 300), (0, 200)]


@pytest.mark.parametrize(("base", "seed"), [(1, 0), (17, 0), (2, -1), (2, 2**32)])
def test_what_cannot_be_learned_is_refused(base, seed):
    with pytest.raises(InputError, match=r"base from 2 to 16|whole number from 0"):
        learn(base, seed)


def test_negative_numbers_are_refused(binary):
    with pytest.raises(InputError, match="whole numbers >= 0"):
        binary.add(-1, 2)
