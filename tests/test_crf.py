"""The CRF against the enumeration of every sequence of labels."""

from __future__ import annotations

import itertools

import pytest
import torch

from elman.errors import InputError, SizeError
from elman.layers.crf import CRF

LABELS = 3
RULES = [
    [True, True, False, True],
    [False, True, True, True],
    [True, False, True, False],
    [True, True, False, True],
]


def _crf(allowed=None, seed: int = 0) -> CRF:
    crf = CRF(LABELS, allowed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in crf.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return crf


def _scores(batch: int, time: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, LABELS, generator=generator, dtype=torch.float64)


def _score(crf: CRF, scores: torch.Tensor, path) -> torch.Tensor:
    """The score of one sequence of labels, straight from the definition."""
    total = crf.begins[path[0]] + crf.ends[path[-1]]
    total = total + sum(scores[t, y] for t, y in enumerate(path))
    return total + sum(crf.transitions[a, b] for a, b in itertools.pairwise(path))


def _paths(length: int):
    return list(itertools.product(range(LABELS), repeat=length))


def _is_allowed(path) -> bool:
    steps = [(LABELS, path[0]), *itertools.pairwise(path), (path[-1], LABELS)]
    return all(RULES[a][b] for a, b in steps)


def _nats(crf: CRF, scores: torch.Tensor, known) -> torch.Tensor:
    """−ln of the probability of the sequences that agree with the known labels."""
    every = [(path, _score(crf, scores, path)) for path in _paths(len(known))]
    agree = [s for path, s in every if all(k in (-1, y) for k, y in zip(known, path, strict=True))]
    return torch.logsumexp(torch.stack([s for _, s in every]), 0) - torch.logsumexp(
        torch.stack(agree), 0
    )


@pytest.mark.parametrize("known", ["all", "some", "none"])
def test_the_loss_and_its_gradient_are_those_of_the_enumeration(known):
    crf, lengths = _crf(), torch.tensor([4, 1, 3])
    scores = _scores(3, 4).requires_grad_()
    tags = torch.tensor([[0, 2, 1, 1], [2, -1, -1, -1], [1, 0, 2, -1]])
    if known == "some":
        tags[0, 1] = tags[2, 0] = -1
    if known == "none":
        tags[1, 0] = -1
    ours = crf.loss(scores, tags, lengths)
    leaves = [scores, *crf.parameters()]
    found = torch.autograd.grad(ours, leaves)
    theirs = sum(
        _nats(crf, scores[row], tags[row, :n].tolist()) for row, n in enumerate(lengths.tolist())
    )
    expected = torch.autograd.grad(theirs / 8, leaves)
    torch.testing.assert_close(ours, theirs / 8, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_its_own_gradient_is_that_of_differences():
    crf = _crf()
    scores, lengths = _scores(2, 3).requires_grad_(), torch.tensor([3, 2])
    tags = torch.tensor([[0, 1, 2], [1, 1, -1]])
    assert torch.autograd.gradcheck(lambda s: crf.loss(s, tags, lengths), [scores])


@pytest.mark.parametrize("rules", [None, RULES])
def test_viterbi_finds_the_best_of_all_sequences(rules):
    crf, lengths = _crf(rules), [5, 1, 4, 2]
    scores = _scores(4, 5, seed=7)
    told = crf.decode(scores, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        paths = [path for path in _paths(length) if rules is None or _is_allowed(path)]
        best = max(paths, key=lambda path: float(_score(crf, scores[row], path).detach()))
        assert told[row] == list(best)
    if rules is not None:
        free = CRF(LABELS).double()
        free.load_state_dict(crf.state_dict())
        assert free.decode(scores, torch.tensor(lengths)) != told  # the rules matter here


@pytest.mark.parametrize("rules", [None, RULES])
def test_marginals_are_sums_over_sequences(rules):
    crf, scores = _crf(rules), _scores(1, 3, seed=3)
    paths = [path for path in _paths(3) if rules is None or _is_allowed(path)]
    chances = torch.stack([_score(crf, scores[0], path) for path in paths]).softmax(0).detach()
    expected = torch.zeros(3, LABELS, dtype=torch.float64)
    for chance, path in zip(chances, paths, strict=True):
        for t, label in enumerate(path):
            expected[t, label] += chance
    found = crf.marginals(scores, torch.tensor([3]))[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_what_stands_behind_an_end_is_never_read():
    crf, lengths = _crf(RULES), torch.tensor([2, 4])
    clean, dirty = _scores(2, 4), _scores(2, 6)
    dirty[:, :4] = clean
    dirty[0, 2:] = torch.nan
    dirty[1, 4:] = torch.inf
    tags = torch.tensor([[0, 1, -1, -1], [1, 2, 0, 1]])
    longer = torch.nn.functional.pad(tags, (0, 2), value=-1)
    leaf = dirty.clone().requires_grad_()
    loss = crf.loss(leaf, longer, lengths)
    (gradient,) = torch.autograd.grad(loss, leaf)
    torch.testing.assert_close(loss, crf.loss(clean, tags, lengths), rtol=0, atol=0)
    assert bool(torch.isfinite(gradient).all())
    assert not bool(gradient[0, 2:].any())
    assert crf.decode(dirty, lengths) == crf.decode(clean, lengths)
    torch.testing.assert_close(
        crf.marginals(dirty, lengths)[:, :4], crf.marginals(clean, lengths), rtol=0, atol=0
    )


def test_large_scores_and_long_sequences_stay_finite_in_float32():
    crf = CRF(LABELS, RULES)
    scores = 1e4 * _scores(1, 3000).float()
    scores.requires_grad_()
    lengths = torch.tensor([3000])
    tags = torch.tensor(crf.decode(scores, lengths))
    loss = crf.loss(scores, tags, lengths)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(scores.grad).all())
    sums = crf.marginals(scores, lengths).sum(2)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=2e-2)
    path = tags[0].tolist()
    assert all(RULES[a][b] for a, b in itertools.pairwise(path))


def test_float32_is_close_to_float64_over_a_long_sequence():
    crf, scores, lengths = _crf(), _scores(1, 2000), torch.tensor([2000])
    tags = torch.tensor([[t % LABELS for t in range(2000)]])
    exact = crf.loss(scores, tags, lengths)
    torch.testing.assert_close(
        crf.float().loss(scores.float(), tags, lengths).double(), exact, rtol=1e-5, atol=1e-5
    )


def test_bad_shapes_and_tables_are_refused():
    crf = CRF(LABELS)
    with pytest.raises(SizeError, match="scores have shape"):
        crf.decode(torch.zeros(2, 4, 5), torch.tensor([4, 4]))
    with pytest.raises(SizeError, match="lengths"):
        crf.decode(torch.zeros(2, 4, 3), torch.tensor([4, 5]))
    with pytest.raises(SizeError, match="tags"):
        crf.loss(torch.zeros(2, 4, 3), torch.zeros(2, 3, dtype=torch.int64), torch.tensor([4, 4]))
    with pytest.raises(InputError, match="allowed has shape"):
        CRF(3, [[True]])
    with pytest.raises(InputError, match="no sequence of one step"):
        CRF(1, [[True, False], [True, False]])
