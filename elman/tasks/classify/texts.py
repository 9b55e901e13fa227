"""From a text to its tokens, in the way that suits the texts at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from elman.tasks.classify.options import ClassifyOptions

_MARKS = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]", re.UNICODE)
_DIGITS = re.compile(r"\d")
_STUCK = re.compile(r"\w[,.!?;:](?=\s|$)")
_ALONE = re.compile(r"(?:^|\s)[,.!?;:](?=\s|$)")
# Scripts that put no blanks between words: kana, ideographs, Thai, Lao, Khmer, Burmese.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
LOOKED_AT = 2000  # texts from which the way is chosen
_SHORT = 30  # characters of a text that may be a single word, as a name is
_SINGLE = 0.8  # share of such texts from which characters are read


@dataclass(frozen=True)
class Reading:
    """How texts become tokens.

    Args:
        level: "word" or "char".
        split: "blanks" or "punctuation", of words.
        lower: whether capitals are read as small letters.
        digits: whether digits are read as 0.
        longest: tokens that are read, at most; None is all.
    """

    level: Literal["word", "char"]
    split: Literal["blanks", "punctuation"]
    lower: bool
    digits: bool
    longest: int | None = None

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of a text; a text of blanks has none.

        Example:
            >>> Reading("word", "punctuation", True, True).tokens("It cost 25 dollars, no?")
            ['it', 'cost', '00', 'dollars', ',', 'no', '?']
            >>> Reading("char", "blanks", False, False).tokens(" Ana ")
            ['A', 'n', 'a']
        """
        if self.lower:
            text = text.lower()
        if self.digits:
            text = _DIGITS.sub("0", text)
        if self.level == "char":
            found = list(text.strip())
        elif self.split == "blanks":
            found = text.split()
        else:
            found = _MARKS.findall(text)
        return found if self.longest is None else found[: self.longest]


def choose(options: ClassifyOptions, texts: Sequence[str]) -> Reading:
    """Choose how to read texts, where the options leave it open; capitals become small letters.

    Args:
        options: what they name stays.
        texts: of the training part, or some of them.
    """
    some = [text.strip() for text in texts]
    some = [text for text in some if text]
    level = options.level
    if level == "auto":
        level = "char" if _single(some) or _unspaced(some) else "word"
    split = options.split
    if split == "auto":
        stuck = sum(len(_STUCK.findall(text)) for text in some)
        alone = sum(len(_ALONE.findall(text)) for text in some)
        split = "punctuation" if stuck > alone else "blanks"
    digits = options.digits if options.digits is not None else level == "word"
    lower = options.case == "lower" or (options.case == "auto" and level == "word")
    return Reading(level, split, lower, digits, options.longest)


def _single(texts: Sequence[str]) -> bool:
    """Whether nearly all texts are one short word."""
    single = sum(len(text) <= _SHORT and len(text.split()) == 1 for text in texts)
    return bool(texts) and single >= _SINGLE * len(texts)


def _unspaced(texts: Sequence[str]) -> bool:
    """Whether most letters are of scripts without blanks between words, and blanks are rare."""
    letters = sum(character.isalpha() for text in texts for character in text)
    unspaced = sum(len(_UNSPACED.findall(text)) for text in texts)
    blanks = sum(len(text.split()) - 1 for text in texts)
    return unspaced > 0.5 * letters and blanks < 0.2 * unspaced
