"""Batches by length, the split by content, lexicons and bootstrap intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.data.batches import Batches, in_order, pad
from elman.data.lexicon import UNKNOWN, Lexicon
from elman.data.parts import held_out
from elman.errors import FileError, InputError
from elman.tasks.intervals import bootstrap

LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=200)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.one_of(st.none(), st.integers(1, 2000)))
def test_every_example_comes_once_an_epoch_within_the_limits(lengths, size, tokens):
    batches = Batches(lengths, size=size, tokens=tokens, seed=1)
    for epoch in range(2):
        steps = range(epoch * len(batches), (epoch + 1) * len(batches))
        chosen = [batches.examples(step) for step in steps]
        assert sorted(np.concatenate(chosen)) == list(range(len(lengths)))
        for rows in chosen:
            wide = max(lengths[i] for i in rows) * len(rows)
            assert len(rows) <= size
            assert tokens is None or len(rows) == 1 or wide <= tokens
    ordered = in_order(lengths, size=size, tokens=tokens)
    assert sorted(np.concatenate(ordered)) == list(range(len(lengths)))


def test_a_step_depends_on_seed_and_number_alone():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    one, other = (Batches(lengths, size=8, seed=5) for _ in range(2))
    later = one.examples(3 * len(one) + 4)
    one.examples(0)
    assert other.examples(3 * len(one) + 4).tolist() == later.tolist()
    assert one.examples(3 * len(one) + 4).tolist() == later.tolist()
    assert Batches(lengths, size=8, seed=6).examples(0).tolist() != one.examples(0).tolist()


def test_epochs_differ_in_order_and_in_company():
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    batches = Batches(lengths, size=8)
    first = {frozenset(batches.examples(s).tolist()) for s in range(len(batches))}
    second = {frozenset(batches.examples(s + len(batches)).tolist()) for s in range(len(batches))}
    assert len(first & second) < 5


def test_little_is_padded():
    lengths = np.random.default_rng(0).integers(1, 200, 5000)
    batches = Batches(lengths, size=64, tokens=4000)
    real = padded = 0
    for step in range(len(batches)):
        found = lengths[batches.examples(step)]
        real, padded = real + found.sum(), padded + found.max() * len(found)
    assert real / padded > 0.92
    assert len(batches) < 1.2 * lengths.sum() / 4000


def test_padding_of_vectors_and_numbers():
    x, lengths = pad([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)])
    assert x.shape == (2, 4, 3)
    assert x.dtype == torch.float32
    assert x.sum() == 18
    assert x[0, 2:].abs().sum() == 0
    assert lengths.tolist() == [2, 4]


def test_batches_of_nothing():
    with pytest.raises(InputError, match="no example"):
        Batches([], size=3)
    with pytest.raises(InputError, match="at least 1"):
        Batches([1], size=0)
    assert in_order([], size=3) == []


# -- the split ---------------------------------------------------------------------------------


def test_equal_texts_stay_together_and_the_share_is_right():
    keys = [f"text {i % 3000}" for i in range(9000)]
    held = held_out(keys, 0.2)
    assert abs(held.mean() - 0.2) < 0.03
    sides = {}
    for key, side in zip(keys, held, strict=True):
        assert sides.setdefault(key, side) == side
    assert held_out([*keys, "new"], 0.2)[:9000].tolist() == held.tolist()
    assert held_out(keys, 0.2, seed=1).tolist() != held.tolist()


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_both_sides_have_something(fraction):
    held = held_out(["a", "b", "c", "a"], fraction)
    assert 0 < held.sum() < 4


def test_what_cannot_be_split():
    for keys in ([], ["a"], ["a", "a"]):
        with pytest.raises(InputError, match="cannot be divided"):
            held_out(keys, 0.5)
    with pytest.raises(InputError, match="between 0 and 1"):
        held_out(["a", "b"], 1.0)


# -- lexicons ----------------------------------------------------------------------------------


def test_frequent_tokens_first_and_marks_cannot_be_written():
    lexicon = Lexicon.count([["b", "a", "a"], ["<s>", "<pad>", "c", "b", "b"]], specials=["<s>"])
    assert lexicon.tokens == ("<pad>", "<unk>", "<s>", "b", "a", "c")
    assert lexicon.numbers(["<s>", "<pad>", "b", "x"]).tolist() == [UNKNOWN, UNKNOWN, 3, UNKNOWN]
    again = Lexicon.from_json(lexicon.to_json(), 1)
    assert again.tokens == lexicon.tokens
    assert Lexicon.count([["b", "a", "a"]], min_count=2).to_json() == ["a"]
    assert Lexicon.count([["b", "a", "a"]], most=1).to_json() == ["a"]


@pytest.mark.parametrize("value", [None, [1], ["a", "a"], ["<pad>"], "ab"])
def test_damaged_lexicons(value):
    with pytest.raises(FileError):
        Lexicon.from_json(value)
    with pytest.raises(FileError, match="too short"):
        Lexicon.from_json(["a"], 2)


# -- intervals ---------------------------------------------------------------------------------


def test_the_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, 2000)
    sums = np.stack([values, np.ones(2000)], axis=1)
    low, high = bootstrap(sums, lambda s: s[:, 0] / s[:, 1])
    error = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.15 * error)


def test_blocks_widen_the_interval_of_a_series_that_remembers():
    draw = np.random.default_rng(0)
    noise = draw.normal(size=5000)
    series = np.zeros(5000)
    for t in range(1, 5000):
        series[t] = 0.9 * series[t - 1] + noise[t]
    sums = np.stack([series, np.ones(5000)], axis=1)
    spread = []
    for block in (1, 100):
        low, high = bootstrap(sums, lambda s: s[:, 0] / s[:, 1], block=block)
        spread.append(high - low)
    # the deviation of the mean of such a series is 1/((1 - 0.9) √n)
    assert spread[1] == pytest.approx(2 * 1.96 * 10 / math.sqrt(5000), rel=0.25)
    assert spread[0] < 0.4 * spread[1]


def test_blocks_that_do_not_divide_the_rows_keep_their_number():
    sums = np.ones((10, 1))
    assert bootstrap(sums, lambda s: s[:, 0], block=4) == (10.0, 10.0)
    assert bootstrap(sums, lambda s: s[:, 0], block=40) == (10.0, 10.0)


def test_no_interval_of_nothing():
    assert all(map(math.isnan, bootstrap(np.zeros((0, 2)), lambda s: s[:, 0])))
    assert all(map(math.isnan, bootstrap(np.zeros((3, 2)), lambda s: s[:, 0] / s[:, 1])))
