"""Kneser-Ney against a slow transcription of Chen & Goodman's equations, and its laws."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elman.errors import InputError
from elman.tasks.lm import kneser_ney
from elman.tasks.lm.kneser_ney import KneserNey, baseline


class Slow:
    """Interpolated modified Kneser-Ney with dictionaries, straight from the equations."""

    def __init__(self, text, size, order):
        self.size, self.order = size, order
        raw = {k: self._grams(text, k) for k in range(1, order + 2)}
        self.counts = {}
        for k in range(1, order + 1):
            if k == order:
                self.counts[k] = raw[k]
            else:
                self.counts[k] = Counter(gram[1:] for gram in raw[k + 1])
        self.discounts = {k: self._discounts(c) for k, c in self.counts.items()}

    @staticmethod
    def _grams(text, k):
        return Counter(tuple(text[i : i + k]) for i in range(len(text) - k + 1))

    @staticmethod
    def _discounts(counts):
        n = Counter(counts.values())
        result = {1: 0.5, 2: 1.0, 3: 1.5}
        if n[1] + 2 * n[2] == 0:
            return result
        share = n[1] / (n[1] + 2 * n[2])
        for i in (1, 2, 3):
            if n[i]:
                d = i - (i + 1) * share * n[i + 1] / n[i]
                if 0 < d <= i:
                    result[i] = d
        return result

    def p(self, word, context, k=None):
        k = min(self.order, len(context) + 1) if k is None else k
        if k == 0:
            return 1 / self.size
        # A context shorter than the order is still looked up in the lower order's counts.
        head = tuple(context[len(context) - (k - 1) :])
        below = self.p(word, context, k - 1)
        counts, d = self.counts[k], self.discounts[k]
        after = [counts[(*head, v)] for v in range(self.size)]
        total = sum(after)
        if total == 0:
            return below
        own = counts[(*head, word)]
        kept = max(own - d[min(own, 3)], 0) if own else 0.0
        left = sum(d[min(c, 3)] for c in after if c)
        return kept / total + left / total * below


texts = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.just(size), st.lists(st.integers(0, size - 1), min_size=1, max_size=60)
    )
)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(1, 5), st.lists(st.integers(0, 1), max_size=6))
def test_equals_the_slow_reference(case, order, context):
    size, text = case
    model = KneserNey(np.array(text), size, order)
    slow = Slow(text, size, model.order)
    expected = [slow.p(w, context) for w in range(size)]
    np.testing.assert_allclose(model.distribution(context), expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(texts, st.integers(1, 6), st.lists(st.integers(0, 1), max_size=9), st.integers(1, 6))
def test_probabilities_sum_to_one(case, order, context, asked):
    size, text = case
    model = KneserNey(np.array(text), size, order)
    p = model.distribution(context, min(asked, model.order))
    assert (p > 0).all()
    assert abs(p.sum() - 1) < 1e-12


@settings(max_examples=40, deadline=None)
@given(texts, st.integers(1, 5), st.data())
def test_text_is_the_product_of_distributions(case, order, data):
    size, text = case
    model = KneserNey(np.array(text), size, order)
    new = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20))
    start = data.draw(st.integers(0, len(new) - 1))
    found = model.log_probabilities(np.array(new), start=start)
    expected = [math.log(model.distribution(new[:i])[new[i]]) for i in range(start, len(new))]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_every_order_at_once():
    rng = np.random.default_rng(0)
    text, new = rng.integers(0, 4, 500), rng.integers(0, 4, 80)
    model = KneserNey(text, 4, 6)
    for order in range(1, 7):
        alone = KneserNey(text, 4, order)
        np.testing.assert_allclose(
            model.log_probabilities(new, order=order), alone.log_probabilities(new), rtol=1e-12
        )


def test_large_vocabulary_and_random_contexts():
    rng = np.random.default_rng(1)
    text = np.minimum(rng.geometric(0.002, 20_000) - 1, 29_999)
    model = KneserNey(text, 30_000, 6)
    for _ in range(5):
        at = rng.integers(6, len(text))
        assert abs(model.distribution(text[at - 5 : at]).sum() - 1) < 1e-9
        assert abs(model.distribution(rng.integers(0, 30_000, 5)).sum() - 1) < 1e-9


def test_baseline_picks_the_best_order_and_needs_no_more_than_blocks(monkeypatch):
    rng = np.random.default_rng(2)
    text = np.tile(rng.integers(0, 6, 37), 60)
    train, valid = text[:1800], text[1800:]
    found = baseline(train, valid, 6, follows=True)
    model = KneserNey(train, 6)
    whole = np.concatenate([train, valid])
    for order, mean in enumerate(found.by_order, start=1):
        direct = -model.log_probabilities(whole, start=len(train), order=order).mean()
        assert mean == pytest.approx(direct, rel=1e-12)
    assert found.nats_per_token == min(found.by_order)
    assert found.by_order[found.order - 1] == found.nats_per_token
    assert found.tokens == len(valid)
    monkeypatch.setattr(kneser_ney, "BLOCK", 100)
    assert baseline(train, valid, 6, follows=True).by_order == pytest.approx(found.by_order)
    monkeypatch.setattr(kneser_ney, "MOST_TOKENS", 900)
    assert baseline(train, valid, 6, follows=True).trained_on == 900


def test_a_long_text_is_counted_and_judged_in_part(monkeypatch):
    text = np.random.default_rng(3).integers(0, 5, 5000)
    monkeypatch.setattr(kneser_ney, "MOST_PREDICTED", 300)
    monkeypatch.setattr(kneser_ney.space, "room", lambda device: 250 * 1999)
    monkeypatch.setattr(kneser_ney, "_LEAST", 10)
    found = baseline(text[:4000], text[4000:], 5, follows=True)
    assert (found.trained_on, found.tokens) == (1000, 300)
    model = KneserNey(text[3000:4000], 5)
    expected = -model.log_probabilities(text[3000:4300], start=1000, order=2).mean()
    assert found.by_order[1] == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(kneser_ney.space, "room", lambda device: None)
    assert baseline(text[:4000], text[4000:], 5, follows=True).trained_on == 4000


def test_tiny_texts_and_bad_orders():
    one = KneserNey(np.array([1]), 3, 6)
    assert one.distribution([]).sum() == pytest.approx(1)
    assert baseline(np.array([0, 1]), np.array([1]), 2, follows=False).tokens == 1
    with pytest.raises(InputError):
        KneserNey(np.array([1]), 3, 0)
    with pytest.raises(InputError):
        KneserNey(np.array([], dtype=int), 3)
    with pytest.raises(InputError, match="this model has 1 to 2"):
        KneserNey(np.array([1, 2, 1]), 3, 2).distribution([], 3)
