"""Spans and their schemes against seqeval, and a way there and back."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from elman.tasks.tag.labels import Labels
from elman.tasks.tag.measure import Score, span_f1
from elman.tasks.tag.schemes import (
    SCHEMES,
    Span,
    allowed,
    breaks,
    detect,
    is_of_spans,
    spans,
    written,
)


def _random_tags(draw: random.Random, letters: str, length: int) -> list[str]:
    """Tags in any order, so that most of them break every scheme."""
    return [
        "O" if (letter := draw.choice(letters)) == "O" else f"{letter}-{draw.choice('xy')}"
        for _ in range(length)
    ]


@pytest.mark.parametrize("letters", ["BIO", "BIESO", "IO", "BIESOOO"])
def test_spans_of_random_tags_are_those_of_seqeval(letters):
    draw = random.Random(1)
    for _ in range(400):
        tags = _random_tags(draw, letters, draw.randrange(1, 12))
        theirs = [(kind, first, last + 1) for kind, first, last in get_entities(tags)]
        assert [tuple(span) for span in spans(tags)] == theirs


@pytest.mark.parametrize("letters", ["BIO", "BIESO"])
def test_scores_of_random_tags_are_those_of_seqeval(letters):
    draw = random.Random(2)
    lengths = [draw.randrange(1, 15) for _ in range(60)]
    gold = [_random_tags(draw, letters, n) for n in lengths]
    told = [
        [tag if draw.random() < 0.6 else other for tag, other in
         zip(tags, _random_tags(draw, letters, len(tags)), strict=True)]
        for tags in gold
    ]  # fmt: skip
    score = Score(spans=True)
    for one, other in zip(gold, told, strict=True):
        score.add(one, other)
    found = score.figures()
    assert found["span_f1"] == pytest.approx(f1_score(gold, told), abs=1e-12)
    assert found["span_precision"] == pytest.approx(precision_score(gold, told), abs=1e-12)
    assert found["span_recall"] == pytest.approx(recall_score(gold, told), abs=1e-12)
    assert found["accuracy"] == pytest.approx(accuracy_score(gold, told), abs=1e-12)
    assert 0.1 < found["span_f1"] < 0.9
    each = score.by_type()
    theirs = f1_score(gold, told, average=None)
    assert [each[kind]["f1"] for kind in "xy"] == pytest.approx(list(theirs), abs=1e-12)
    low, high = score.intervals()["span_f1"]
    assert low < found["span_f1"] < high


def test_where_there_are_no_spans_the_score_is_nothing():
    assert span_f1([["O", "O"]], [["O", "O"]]) == 0.0
    assert span_f1([["O", "B-x"]], [["O", "O"]]) == 0.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_says_the_spans_it_was_given(scheme):
    draw = random.Random(3)
    for _ in range(300):
        length, at, found = draw.randrange(1, 15), 0, []
        while at < length:
            end = min(length, at + draw.randrange(1, 4))
            if draw.random() < 0.6:
                found.append(Span(draw.choice("xy"), at, end))
            at = end
        tags = written(found, length, scheme)
        assert spans(tags) == found
        assert breaks(tags, scheme) == []


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_is_known_by_its_tags(scheme):
    draw = random.Random(4)
    sentences = []
    for _ in range(50):
        found = [Span(draw.choice("xy"), k, k + 2) for k in range(0, 10, 2) if draw.random() < 0.5]
        sentences.append(written(found, 11, scheme))
    assert detect(sentences) == scheme


def test_some_broken_tags_do_not_change_the_scheme():
    good = [["B-x", "I-x", "O"]] * 20
    assert detect([*good, ["O", "I-x"]]) == "bio"
    assert breaks(["O", "I-x", "B-x"], "bio") == [1]
    assert breaks(["B-x", "I-y"], "bio") == [1]
    assert breaks(["B-x", "I-x"], "bioes") == [1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["O", "B-x", "I-x"], True),
        (["O", "B", "I"], True),
        (["O", "I-x"], True),
        (["NOUN", "VERB", "O"], False),
        (["B-x", "I-x"], False),
        (["O", "B"], False),
        (["O", "X-y"], False),
        (["O", "B-x-y"], True),
    ],
)
def test_labels_are_of_spans_or_not(labels, expected):
    assert is_of_spans(labels) is expected


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_what_may_follow_is_what_no_writer_breaks(scheme):
    inner = Labels(("O", "B-x", "I-x", "B-y"), "bio", scheme).inner
    table = np.array(allowed(inner, scheme))
    draw = random.Random(5)
    seen = np.zeros_like(table)
    for _ in range(3000):
        at, found = 0, []
        while at < 5:
            end = at + draw.randrange(1, 5)
            if draw.random() < 0.7 and end <= 5:
                found.append(Span(draw.choice("xy"), at, end))
            at = end
        tags = [inner.index(tag) for tag in written(found, 5, scheme)]
        marks = [len(inner), *tags, len(inner)]
        for one, other in pairwise(marks):
            seen[one, other] = True
    seen[-1, -1] = table[-1, -1]
    assert (seen == table).all()


@pytest.mark.parametrize("inner", ["bio", "bioes"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_labels_go_to_the_network_and_come_back(scheme, inner):
    tags = written([Span("x", 0, 2), Span("x", 2, 3), Span("y", 4, 5)], 6, scheme)
    labels = Labels(sorted(set(tags)), scheme, inner)
    numbers = labels.numbers(tags)
    assert labels.written(numbers.tolist()) == tags
    partly = labels.numbers([None, *tags[1:]])
    assert partly[0] == -1
    assert labels.numbers([*tags, "S-new"])[-1] == -1
