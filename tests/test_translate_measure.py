"""BLEU and chrF against sacrebleu's own, and the translation memory against brute force."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from itertools import pairwise

import pytest
from sacrebleu.metrics import BLEU, CHRF

from elman.errors import FileError, InputError
from elman.tasks.translate import measure
from elman.tasks.translate.memory import TranslationMemory

FRENCH = ["le chat dort sur le lit .", "je ne sais pas", "où est la gare ?", "merci", "il pleut"]


def _sentences(count, seed):
    draw = random.Random(seed)
    words = ["le", "la", "chat", "chien", "dort", "sur", "un", "lit", ",", ".", "grand"]
    right = [" ".join(draw.choices(words, k=draw.randint(1, 12))) for _ in range(count)]
    told = []
    for text in right:
        own = [w if draw.random() < 0.7 else draw.choice(words) for w in text.split()]
        told.append(
            " ".join(
                own[: draw.randint(0, len(own) + 1)] + draw.choices(words, k=draw.randint(0, 2))
            )
        )
    return told, right


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2, 40])
def test_figures_are_sacrebleus(count, seed):
    told, right = _sentences(count, seed)
    found = measure.measure(told, right, tokenizer="13a", sources=right)
    assert found["bleu"] == BLEU().corpus_score(told, [right]).score
    assert found["chrf"] == CHRF().corpus_score(told, [right]).score
    assert found["exact"] == sum(a == b for a, b in zip(told, right, strict=True)) / count
    # Our own sums, which the intervals and the lengths rest on, say the same.
    sums = measure._sums(BLEU(effective_order=True), told, right).sum(axis=0, keepdims=True)
    assert measure.bleu_of(sums)[0] == pytest.approx(found["bleu"], abs=1e-9)
    assert measure.chrf_of(sums)[0] == pytest.approx(found["chrf"], abs=1e-9)
    for name in ("bleu", "chrf", "exact"):
        low, high = found["intervals"][name]
        assert low <= found[name] <= high or count < 3
    assert sum(row["sentences"] for row in found["by_length"]) == count


def test_the_lengths_divide_the_sentences():
    told, right = _sentences(60, 9)
    found = measure.measure(told, right, tokenizer="13a", sources=right)["by_length"]
    rows = [i for i, text in enumerate(right) if 4 <= len(text.split()) <= 6]
    part = next(row for row in found if row["words"] == "4 to 6")
    ours, theirs = [told[i] for i in rows], [right[i] for i in rows]
    assert part["sentences"] == len(rows)
    assert part["bleu"] == pytest.approx(BLEU().corpus_score(ours, [theirs]).score)
    assert part["chrf"] == pytest.approx(CHRF().corpus_score(ours, [theirs]).score)


@pytest.mark.parametrize(
    ("texts", "name"),
    [(["我喜欢吃苹果。", "ok"], "zh"), (FRENCH, "13a"), (["私は梨が好きです"], "char"),
     (["나는 배를 좋아해"], "char"), (["123", "45"], "13a"), ([], "13a"), (["груша"], "13a")],
    ids=["chinese", "french", "japanese", "korean", "digits", "none", "russian"],
)  # fmt: skip
def test_the_tokeniser_is_chosen_by_the_script(texts, name):
    assert measure.tokenizer_of(texts) == name


def test_chinese_is_measured_by_characters_and_its_signature_says_so():
    told, right = ["我喜欢吃苹果。", "他在家里。"], ["我爱吃苹果。", "他在家里。"]
    found = measure.measure(told, right, tokenizer="zh")
    assert found["bleu"] == BLEU(tokenize="zh").corpus_score(told, [right]).score
    assert "tok:zh" in found["signature"]


def test_nothing_to_measure_is_said():
    with pytest.raises(InputError, match="at least one"):
        measure.measure([], [], tokenizer="13a")
    with pytest.raises(InputError, match="2 translations of 1 references"):
        measure.measure(["a", "b"], ["a"], tokenizer="13a")


# The translation memory.


def _plainly(source, text):
    """The likest source by the cosine of idf-weighted words and pairs, computed one by one."""

    def features(t):
        words = t.lower().split()
        return {*words, *(f"{a} {b}" for a, b in pairwise(words))}

    counts = Counter(f for t in source for f in features(t))
    idf = {f: math.log(len(source) / n) + 1e-6 for f, n in counts.items()}
    scores = []
    for t in source:
        own = features(t)
        shared = sum(idf[f] ** 2 for f in own & features(text))
        scores.append(shared / math.sqrt(sum(idf[f] ** 2 for f in own)))
    return scores


def test_the_memory_finds_the_likest_source():
    source, queries = _sentences(200, 1)[1], _sentences(60, 2)[1]
    memory = TranslationMemory(source, [f"{i}" for i in range(200)])
    for query in queries:
        scores = _plainly(source, query)
        assert scores[int(memory.answer([query])[0])] == pytest.approx(max(scores), rel=1e-9)
    assert memory.source == source


def test_texts_without_blanks_are_compared_by_characters():
    memory = TranslationMemory(["我喜欢梨", "他在家里", "12+34"], ["a", "b", "c"])
    assert memory.answer(["她在家", "12+35", "梨", "zzz"]) == ["b", "c", "a", "a"]


def test_the_memory_comes_back_from_what_was_kept():
    memory = TranslationMemory(["a b", "c\u2028d", "e"], ["1\n2", "", "3"])
    metadata, tensors = memory.kept()
    again = TranslationMemory.of_kept(json.loads(json.dumps(metadata)), tensors, "f")
    assert (again.source, again.target) == (["a b", "c\u2028d", "e"], ["1 2", "", "3"])


@pytest.mark.parametrize("what", ["tensors", "type", "cut", "count"])
def test_a_damaged_memory_is_refused(what):
    metadata, tensors = TranslationMemory(["a", "b"], ["c", "d"]).kept()
    if what == "tensors":
        tensors = {}
    elif what == "type":
        tensors = {"text": tensors["text"].float()}
    elif what == "cut":
        tensors = {"text": tensors["text"][:-6].clone()}
    else:
        metadata = {**metadata, "pairs": 3}
    with pytest.raises(FileError, match=r"^f: "):
        TranslationMemory.of_kept(metadata, tensors, "f")
