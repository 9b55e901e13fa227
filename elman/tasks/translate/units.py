"""Units of one side: characters, words, or parts of words (byte-pair encoding)."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.trainers import BpeTrainer

from elman.data.lexicon import UNKNOWN, Lexicon
from elman.errors import FileError

MARKS = ("<s>", "</s>")
START, END = 2, 3
LEVELS = ("char", "word", "bpe")
# Pieces of a text; joined they are the text. A blank belongs to the word behind it.
SPLITS = {
    "punctuation": r" ?[\p{L}\p{M}]+['’]?| ?\p{N}+|\s?[^\s\p{L}\p{M}\p{N}]+|\s+",
    "blanks": r" ?\S+|\s+",
}
FIRST = 2 + len(MARKS)  # the number of the first unit
_AT_ONCE = 4096  # texts given to the tokeniser together
_MOST_LEARNED_FROM = 2_000_000  # texts


class Units:
    """The units of one side and their numbers; a text is the join of its units.

    Args:
        level: "char", "word" or "bpe".
        lexicon: of the units, with `MARKS` as its marks.
        split: how texts are cut before words or their parts are looked for, a key of `SPLITS`.
        merges: of byte-pair encoding, in order.

    Example:
        >>> units = Units.learn(["a pear, a plum"], "word")
        >>> ids = next(units.numbers(["a plum, a fig"]))
        >>> ids.tolist(), units.text(ids[:3])
        ([4, 6, 7, 4, 1], 'a plum,')
    """

    def __init__(
        self,
        level: str,
        lexicon: Lexicon,
        split: str = "punctuation",
        merges: Sequence[tuple[str, str]] = (),
    ):
        self.level, self.lexicon, self.split = level, lexicon, split
        self.merges = tuple(merges)

    def __len__(self) -> int:
        return len(self.lexicon)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        numbers = {token: i for i, token in enumerate(self.lexicon.tokens)}
        if self.level == "bpe":
            model: Any = BPE(numbers, list(self.merges), unk_token="<unk>")
        else:
            model = WordLevel(numbers, unk_token="<unk>")
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = Split(Regex(SPLITS[self.split]), "isolated")
        return tokenizer

    def numbers(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the numbers of the units of each text, int64, without start and end.

        A few thousand texts are read at a time.
        """
        return (numbers for numbers, _ in self._encode(texts, False))

    def pieces(self, text: str) -> list[str]:
        """Return the units of a text as they stand in it, known or not."""
        return next(self._encode([text], True))[1]

    def _encode(self, texts: Iterable[str], pieces: bool) -> Iterator[tuple[np.ndarray, list[str]]]:
        texts = iter(texts)
        while some := [tidy(text) for text in islice(texts, _AT_ONCE)]:
            if self.level == "char":
                yield from ((self.lexicon.numbers(text), list(text)) for text in some)
                continue
            some = [" " + text if text else "" for text in some]
            encode = self._tokenizer.encode_batch if pieces else self._tokenizer.encode_batch_fast
            for text, found in zip(some, encode(some), strict=True):
                numbers = np.array(found.ids, dtype=np.int64)
                numbers[numbers < FIRST] = UNKNOWN  # no text can write a mark
                yield numbers, [text[a:b] for a, b in found.offsets] if pieces else []

    def text(self, numbers: Iterable[int], unknown: Sequence[str] | None = None) -> str:
        """Return the text of units.

        Args:
            numbers: of the units; marks are left out.
            unknown: what stands for each unit if it is the unknown one; "" if not given.
        """
        parts = []
        for at, number in enumerate(numbers):
            if number == UNKNOWN and unknown is not None:
                parts.append(unknown[at])
            elif number >= FIRST:
                parts.append(self.lexicon.token(int(number)))
        return "".join(parts).strip()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values from which `from_json` builds equal units."""
        return {
            "level": self.level,
            "split": self.split,
            "units": self.lexicon.to_json(),
            "merges": [list(pair) for pair in self.merges],
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> Units:
        """Build units from `to_json`, checking every value.

        Raises:
            FileError: wrong types or keys, or merges that do not fit the units.
        """
        if not isinstance(value, dict) or set(value) != {"level", "split", "units", "merges"}:
            raise FileError(f"{where}: its vocabulary does not have the parts of one.")
        if value["level"] not in LEVELS or value["split"] not in SPLITS:
            raise FileError(f"{where}: its vocabulary is of an unknown kind.")
        lexicon = Lexicon.from_json(value["units"], len(MARKS), where)
        if lexicon.specials != MARKS:
            raise FileError(f"{where}: its vocabulary does not begin with {', '.join(MARKS)}.")
        merges = value["merges"]
        if not isinstance(merges, list) or not all(_is_merge(m, lexicon) for m in merges):
            raise FileError(f"{where}: its merges do not fit its vocabulary.")
        if value["level"] == "char" and any(len(t) != 1 for t in lexicon.tokens[FIRST:]):
            raise FileError(f"{where}: its vocabulary of characters holds more than characters.")
        return cls(value["level"], lexicon, value["split"], [(a, b) for a, b in merges])

    @classmethod
    def learn(
        cls,
        texts: Sequence[str],
        level: str,
        *,
        split: str = "punctuation",
        size: int = 8000,
        min_count: int = 1,
    ) -> Units:
        """Learn the units of texts; of more than two million, the first.

        Args:
            texts: read twice for "bpe".
            level: "char", "word" or "bpe".
            split: see `SPLITS`.
            size: words, or parts of words, at most.
            min_count: characters, words and pairs seen less often are not kept.
        """
        some = texts[:_MOST_LEARNED_FROM]
        if level == "bpe":
            return cls(level, *_parts(some, split, size, min_count))
        counts: Counter[str] = Counter()
        cutter = Split(Regex(SPLITS[split]), "isolated")
        for text in some:
            if level == "char":
                counts.update(tidy(text))
            else:
                counts.update(piece for piece, _ in cutter.pre_tokenize_str(" " + tidy(text)))
        return cls(level, _ranked(counts, size if level == "word" else None, min_count), split)


def tidy(text: str) -> str:
    """Return the text without white space at its ends; a tab or line end in it is a blank."""
    return re.sub(r"[\t\r\n\v\f]", " ", text).strip()


def _ranked(counts: Counter[str], size: int | None, min_count: int) -> Lexicon:
    ranked = sorted((-n, token) for token, n in counts.items() if n >= min_count)
    return Lexicon([token for _, token in ranked[:size]], MARKS)


def _parts(
    texts: Sequence[str], split: str, size: int, min_count: int
) -> tuple[Lexicon, str, list[tuple[str, str]]]:
    """The lexicon and merges of byte-pair encoding (Sennrich, Haddow & Birch 2016)."""
    letters: Counter[str] = Counter(" ")
    for text in texts:
        letters.update(tidy(text))
    alphabet = sorted(_ranked(letters, max(size // 2, 1), min_count).tokens[FIRST:])
    trainer = BpeTrainer(
        vocab_size=max(size, len(alphabet)),
        min_frequency=max(2, min_count),
        show_progress=False,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Split(Regex(SPLITS[split]), "isolated")
    tokenizer.train_from_iterator((" " + tidy(text) for text in texts), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    numbers: dict[str, int] = model["vocab"]
    lexicon = Lexicon(sorted(numbers, key=numbers.__getitem__), MARKS)
    merges = [(first, second) for first, second in model["merges"]]
    return lexicon, split, [m for m in merges if _is_merge([*m], lexicon)]


def _is_merge(merge: Any, lexicon: Lexicon) -> bool:
    if not isinstance(merge, list) or len(merge) != 2:
        return False
    if not all(isinstance(part, str) and part in lexicon for part in merge):
        return False
    return "".join(merge) in lexicon
