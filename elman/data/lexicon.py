"""Tokens and their numbers: padding, the unknown, marks of a task, then words by frequency."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from elman.errors import FileError, InputError

PADDING, UNKNOWN = 0, 1
_NAMES = ("<pad>", "<unk>")
_MOST_COUNTED = 5_000_000  # distinct tokens held at once while counting


class Lexicon:
    """Numbers for tokens: 0 pads, 1 is every token that is not known, then marks, then tokens.

    A token of a text that is spelled like a mark ("<pad>", or one of `specials`) is unknown, so
    that no text can write a mark.

    Args:
        tokens: the known tokens, each once.
        specials: marks of a task, such as "<s>"; their numbers are 2, 3, ….

    Attributes:
        tokens: all of them, in the order of their numbers.
        specials: the marks.

    Raises:
        InputError: a token twice.

    Example:
        >>> lexicon = Lexicon(["pear", "apple"], specials=["<s>"])
        >>> lexicon.numbers(["apple", "plum", "<s>"]).tolist(), lexicon.number_of_mark("<s>")
        ([4, 1, 1], 2)
        >>> lexicon.token(3), len(lexicon), "plum" in lexicon
        ('pear', 5, False)
    """

    def __init__(self, tokens: Sequence[str], specials: Sequence[str] = ()):
        marks = (*_NAMES, *specials)
        known = [token for token in tokens if token not in marks]
        self.specials = tuple(specials)
        self.tokens: tuple[str, ...] = (*marks, *known)
        self._first = len(marks)
        self._numbers = {token: i for i, token in enumerate(known, self._first)}
        if len(self._numbers) != len(known) or len({*marks}) != len(marks):
            raise InputError("lexicon: a token stands in it twice.")

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers

    def number(self, token: str) -> int:
        """Return the number of a token, 1 where it is not known."""
        return self._numbers.get(token, UNKNOWN)

    def numbers(self, tokens: Iterable[str]) -> np.ndarray:
        """Return the numbers of tokens, (tokens,), int64."""
        known = self._numbers
        return np.fromiter((known.get(token, UNKNOWN) for token in tokens), dtype=np.int64)

    def token(self, number: int) -> str:
        """Return the token of a number."""
        return self.tokens[number]

    def number_of_mark(self, mark: str) -> int:
        """Return the number of one of `specials`.

        Raises:
            ValueError: there is no such mark.
        """
        return len(_NAMES) + self.specials.index(mark)

    def to_json(self) -> list[str]:
        """Return the tokens after the first two as plain JSON, marks first."""
        return list(self.tokens[len(_NAMES) :])

    @classmethod
    def from_json(cls, value: Any, specials_count: int = 0, where: str = "lexicon") -> Lexicon:
        """Return the lexicon that `to_json` wrote.

        Args:
            value: what was read.
            specials_count: how many of the first tokens are marks.
            where: what it was read from, for errors.

        Raises:
            FileError: no list of distinct strings, or too short for its marks.
        """
        if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
            raise FileError(f"{where}: its vocabulary is no list of tokens.")
        marks, tokens = value[:specials_count], value[specials_count:]
        taken = {*_NAMES, *value}
        if len(marks) < specials_count or len(taken) != len(_NAMES) + len(value):
            raise FileError(f"{where}: its vocabulary is too short, or has a token twice.")
        return cls(tokens, marks)

    @classmethod
    def count(
        cls,
        sequences: Iterable[Iterable[str]],
        *,
        min_count: int = 1,
        most: int | None = None,
        specials: Sequence[str] = (),
    ) -> Lexicon:
        """Make a lexicon of the tokens of sequences, the frequent first, ties in order of text.

        Beyond five million distinct tokens those seen least are forgotten on the way.

        Args:
            sequences: read once.
            min_count: tokens seen less often are left out, >= 1.
            most: how many tokens to keep; None keeps all.
            specials: marks.

        Example:
            >>> Lexicon.count([["b", "a"], ["a"]], specials=["<s>"]).to_json()
            ['<s>', 'a', 'b']
        """
        counts: Counter[str] = Counter()
        for sequence in sequences:
            counts.update(sequence)
            if len(counts) > _MOST_COUNTED:
                counts = Counter({t: n for t, n in counts.items() if n > 1})
        ranked = sorted((-n, token) for token, n in counts.items() if n >= min_count)
        return cls([token for _, token in ranked[:most]], specials)
