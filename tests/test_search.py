"""Search over sequences: against all sequences there are, and against a plain loop."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from elman.errors import InputError
from elman.layers.decoder import Decoder
from elman.layers.search import beam_search

END = 1


def _network(seed=0, tokens=4):
    torch.manual_seed(seed)
    decoder = Decoder(tokens, 5, summary=3, memory=3, attention="multiplicative").double().eval()
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.mul_(3)
    return decoder


def _inputs(rows, seed):
    torch.manual_seed(seed)
    return torch.randn(rows, 3).double(), torch.randn(rows, 4, 3).double()


def _search(decoder, summary, keys, **options):
    """The search as a task does it: the rows' numbers are part of the state."""

    def step(last, state):
        rows, own = state
        beams = len(last) // len(rows.unique())
        memory = decoder.remember(keys[rows[::beams]])
        scores, own, _ = decoder.step(last, own, memory)
        return scores.log_softmax(1), (rows, own)

    start = torch.full((len(keys),), 2)
    with torch.no_grad():
        state = (torch.arange(len(keys)), decoder.begin(summary))
        return beam_search(step, state, start=start, end=END, **options)


def _every(decoder, summary, keys, most, alpha):
    """ln p and score of every sequence that ends within `most` tokens, the best first."""
    memory, found = decoder.remember(keys), []
    others = [token for token in range(4) if token != END]
    for length in range(most):
        for tokens in itertools.product(others, repeat=length):
            inputs = torch.tensor([[2, *tokens]])
            with torch.no_grad():
                told = decoder(inputs, decoder.begin(summary), memory)
                logs = decoder.logits(told.features[0]).log_softmax(1)
            log = sum(float(logs[i, t]) for i, t in enumerate([*tokens, END]))
            found.append((log / ((5 + length + 1) / 6) ** alpha, list(tokens), log))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(alpha):
    for seed in range(4):
        decoder, (summary, keys) = _network(seed), _inputs(1, seed)
        every = _every(decoder, summary, keys, 4, alpha)
        best = _search(decoder, summary, keys, width=27, most=4, length_penalty=alpha)[0]
        assert best[0].tokens == every[0][1]
        assert best[0].score == pytest.approx(every[0][0], rel=1e-9)
        assert best[0].log_probability == pytest.approx(every[0][2], rel=1e-9)
        known = {tuple(tokens): score for score, tokens, _ in every}
        for hypothesis in best:
            assert hypothesis.score == pytest.approx(known[tuple(hypothesis.tokens)], rel=1e-9)
        assert [h.score for h in best] == sorted((h.score for h in best), reverse=True)


def test_the_length_penalty_chooses_longer_sequences():
    lengths = []
    for alpha in (0.0, 3.0):
        found = [
            _search(_network(s), *_inputs(1, s), width=27, most=4, length_penalty=alpha)[0][0]
            for s in range(12)
        ]
        lengths.append(sum(len(h.tokens) for h in found))
    assert lengths[1] > lengths[0]


def test_width_one_is_greedy():
    decoder, (summary, keys) = _network(3), _inputs(5, 3)
    found = _search(decoder, summary, keys, width=1, most=6)
    for row in range(5):
        memory, state = decoder.remember(keys[row : row + 1]), decoder.begin(summary[row : row + 1])
        last, tokens, log = torch.tensor([2]), [], 0.0
        for _ in range(6):
            with torch.no_grad():
                scores, state, _ = decoder.step(last, state, memory)
            logs = scores.log_softmax(1)
            last = logs.argmax(1)
            log += float(logs[0, last])
            if int(last) == END:
                break
            tokens.append(int(last))
        assert found[row][0].tokens == tokens
        assert found[row][0].log_probability == pytest.approx(log, rel=1e-9)
        assert found[row][0].ended == (int(last) == END)


def test_a_row_of_a_batch_is_the_row_alone():
    decoder, (summary, keys) = _network(4), _inputs(7, 4)
    most = torch.tensor([5, 1, 9, 2, 5, 7, 3])
    together = _search(decoder, summary, keys, width=3, most=most)
    for row in range(7):
        one = slice(row, row + 1)
        alone = _search(decoder, summary[one], keys[one], width=3, most=int(most[row]))[0]
        assert [h.tokens for h in together[row]] == [h.tokens for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone])
        assert all(len(h.tokens) + h.ended <= int(most[row]) for h in alone)


def test_the_beam_that_is_left_is_ranked_among_all_at_each_step():
    """A trap for greedy search: the likeliest first token leads nowhere."""
    table = torch.tensor([
        [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.6, 0.4], [0.3, 0.3, 0.2, 0.2],
    ])  # fmt: skip
    table[2] = torch.tensor([0.0, 0.2, 0.45, 0.35])
    table[3] = torch.tensor([0.0, 0.9, 0.05, 0.05])
    found = {
        width: beam_search(
            lambda last, state: (table[last].log(), state), None, start=torch.tensor([2]), end=END,
            width=width, most=5, length_penalty=0.0,
        )[0][0]
        for width in (1, 2)
    }  # fmt: skip
    assert found[2].tokens == [3]
    assert found[2].log_probability == pytest.approx(math.log(0.35 * 0.9))
    assert found[1].log_probability < found[2].log_probability


def test_a_longer_sequence_may_win_by_its_length():
    """An end that is likely at once, or five sure steps: greedy takes the end, a beam the steps."""
    stay = [torch.tensor([0.0, 0.52, 0.48]), torch.tensor([0.0, 0.02, 0.98])]
    told = {0: stay[0], 5: torch.tensor([0.0, 0.98, 0.02])}

    def step(last, state):
        row = told.get(int(state[0]), stay[1]).log()
        return row.expand(len(last), 3), state + 1

    found = {
        (width, alpha): beam_search(
            step, torch.zeros(1), start=torch.tensor([2]), end=END, width=width, most=8,
            length_penalty=alpha,
        )[0][0].tokens
        for width, alpha in ((1, 2.0), (2, 2.0), (2, 0.0))
    }  # fmt: skip
    assert found == {(1, 2.0): [], (2, 2.0): [2] * 5, (2, 0.0): []}


def test_what_never_ends_is_cut_and_says_so():
    table = torch.tensor([0.2, 0.0, 0.5, 0.3]).log().expand(4, 4)
    found = beam_search(
        lambda last, state: (table[last], state), None, start=torch.tensor([2]), end=END,
        width=2, most=3,
    )[0]  # fmt: skip
    assert [h.ended for h in found] == [False, False]
    assert found[0].tokens == [2, 2, 2]


@pytest.mark.parametrize("options", [{"width": 0}, {"most": 0}, {"length_penalty": -1.0}])
def test_what_cannot_be_asked_is_said(options):
    with pytest.raises(InputError, match="expected at least 1, 0 and 1"):
        beam_search(lambda a, b: (a, b), None, start=torch.tensor([2]), end=1, **options)
