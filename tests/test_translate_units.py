"""Units of texts: nothing is lost, marks cannot be written, a file of them is checked."""

from __future__ import annotations

import json

import numpy as np
import pytest

from elman.errors import FileError
from elman.tasks.translate.defaults import level_of
from elman.tasks.translate.units import LEVELS, Units, tidy

TEXTS = [
    "J'ai vu l'arbre, ce matin\u202f!",
    "Où est-il ? Là-bas… (peut-être)",
    "12,5 % de 3 000 : « 375 »",
    "我喜欢梨。他不喜欢。",
    "naïve  café\u00a0— z̈",
    "a",
] * 3


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("split", ["punctuation", "blanks"])
def test_a_text_is_the_join_of_its_units(level, split):
    units = Units.learn(TEXTS, level, split=split, size=120)
    for text, numbers in zip(TEXTS, units.numbers(TEXTS), strict=True):
        assert (numbers > 1).all()
        assert units.text(numbers) == tidy(text)
        assert "".join(units.pieces(text)).strip() == tidy(text)
        assert len(units.pieces(text)) == len(numbers)


def test_parts_of_words_are_learned_from_what_is_frequent():
    units = Units.learn(["lower lowest newer newest"] * 5, "bpe", size=14)
    pieces = units.pieces("lower newest lowing")
    assert pieces[:2] == [" lo", "wer"] or " lowe" in pieces
    assert len(units) == 14 + 4
    assert len(pieces) < len("lower newest lowing")


def test_words_are_kept_by_frequency_and_the_others_are_unknown():
    units = Units.learn(["b b b a a c"], "word", size=2)
    assert units.lexicon.tokens[4:] == (" b", " a")
    assert next(units.numbers(["c a"])).tolist() == [1, 5]
    assert units.text([1, 5]) == "a"
    assert units.text([1, 5], ["plum", ""]) == "plum a"


def test_no_text_can_write_a_mark():
    for level in ("char", "word", "bpe"):
        units = Units.learn(["<s> a </s> b <unk> <pad>"] * 4, level, split="blanks", size=60)
        assert not np.isin(next(units.numbers(["<s> </s> <pad> a"])), [0, 2, 3]).any()


def test_what_training_had_not_is_unknown_not_an_error():
    for level in LEVELS:
        units = Units.learn(["abc abd"] * 3, level, size=20)
        numbers = next(units.numbers(["ab \U0001f41f 日"]))
        assert (numbers == 1).any()
        assert (numbers < len(units)).all()


def test_the_empty_text_has_no_units():
    for level in LEVELS:
        units = Units.learn(["abc abd"] * 3, level, size=20)
        assert [n.tolist() for n in units.numbers(["", " \t"])] == [[], []]


@pytest.mark.parametrize("level", LEVELS)
def test_units_come_back_from_their_json(level):
    units = Units.learn(TEXTS, level, size=90)
    again = Units.from_json(json.loads(json.dumps(units.to_json())), "m")
    for one, two in zip(units.numbers(TEXTS), again.numbers(TEXTS), strict=True):
        assert one.tolist() == two.tolist()
    assert again.to_json() == units.to_json()


def _broken():
    good = Units.learn(["ab ab abc"] * 3, "bpe", size=12).to_json()
    return [
        [], {}, {**good, "level": "byte"}, {**good, "split": "(a+)+$"}, {**good, "units": "ab"},
        {**good, "units": good["units"][2:]}, {**good, "merges": [["a"]]},
        {**good, "merges": [["a", "q"]]}, {**good, "merges": {}},
        {**good, "units": [*good["units"], good["units"][-1]]},
        {**good, "level": "char"}, {**good, "more": 1},
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(12))
def test_damaged_units_are_refused(number):
    with pytest.raises(FileError, match=r"^m: its (vocabulary|merges)"):
        Units.from_json(_broken()[number], "m")


@pytest.mark.parametrize(
    ("texts", "level"),
    [
        (["12+9=", "8+70="], "char"),
        (["walk", "run", "sing"], "char"),
        (["twenty one", "thirty two", "one"] * 40, "word"),
        (["我喜欢梨。", "他不喜欢。"] * 9, "char"),
        (
            [f"The {i} dogs were barking at the Postman, {chr(65 + i % 26)}nna said"
             for i in range(500)],
            "bpe",
        ),
    ],
    ids=["sums", "words", "numbers", "chinese", "sentences"],
)  # fmt: skip
def test_the_level_is_chosen_by_the_texts(texts, level):
    assert level_of(texts)[0] == level
