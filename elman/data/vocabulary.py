"""Vocabularies: characters or words, from text to ids and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from elman.errors import InputError

END = "\n"  # ends a sequence, and is the input before its first token
UNKNOWN = "<unk>"  # stands for rare and unseen tokens; never a character, so it cannot clash
Level = Literal["char", "word"]
Treatment = Literal["error", "use", "skip"]


class Vocabulary:
    r"""The tokens of a language model, each with its id.

    Characters are Unicode code points. Words are what white space separates; the end of a line is
    the token "\n". Both kinds hold "\n", with id 0: it marks the end of a sequence, and stands
    before its first token.

    Args:
        level: "char" or "word".
        tokens: all tokens by id, without repetition; "\n" first. "<unk>" may be among them.

    Raises:
        InputError: a token is repeated, not fit for the level, or "\n" is not the first.

    Example:
        >>> words = Vocabulary("word", ["\n", "the", "pear"])
        >>> words.encode("the pear\n").tolist()
        [1, 2, 0]
        >>> words.decode([1, 2, 0])
        'the pear\n'
    """

    def __init__(self, level: Level, tokens: Sequence[str]):
        if level not in ("char", "word"):
            raise InputError(f"vocabulary: level is {level!r}; expected 'char' or 'word'.")
        self.level: Level = level
        self.tokens = tuple(tokens)
        if not self.tokens or self.tokens[0] != END:
            raise InputError("vocabulary: the first token must be the end of a line.")
        for token in self.tokens:
            if token not in (END, UNKNOWN) and not _fits(token, level):
                raise InputError(f"vocabulary: {token!r} is not one {level}.")
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise InputError("vocabulary: a token is repeated.")
        self.unknown = self.ids.get(UNKNOWN)
        self.end = 0

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.level, self.tokens) == (other.level, other.tokens)

    def __hash__(self) -> int:
        return hash((self.level, self.tokens))

    def split(self, text: str) -> list[str]:
        r"""Return the tokens of a text as strings, seen in training or not."""
        return split(text, self.level)

    def unseen(self, text: str) -> list[tuple[int, str]]:
        """Return position (counted in tokens from 0) and token of what the vocabulary lacks."""
        return [(i, token) for i, token in enumerate(self.split(text)) if token not in self.ids]

    def encode(self, text: str, unknown: Treatment = "error", where: str = "text") -> np.ndarray:
        """Return the ids of a text as int64.

        Args:
            text: any text; it is not changed (no end mark is added).
            unknown: what to do with tokens unseen in training: "error" refuses them, "use" gives
                them the id of `<unk>`, "skip" leaves them out.
            where: what the text is, for the error.

        Raises:
            InputError: an unseen token under "error", or under "use" without an `<unk>`.
        """
        get, tokens = self.ids.get, self.split(text)
        if unknown == "use" and self.unknown is not None:
            return np.array([get(t, self.unknown) for t in tokens], dtype=np.int64)
        ids = np.array([get(t, -1) for t in tokens], dtype=np.int64)
        if unknown == "skip":
            return ids[ids >= 0]
        bad = np.flatnonzero(ids < 0)
        if bad.size:
            self._refuse(tokens, int(bad[0]), int(bad.size), unknown, where)
        return ids

    def _refuse(
        self, tokens: list[str], at: int, count: int, unknown: Treatment, where: str
    ) -> None:
        kind = "character" if self.level == "char" else "word"
        rare = "unseen" if self.unknown is None else "rare or unseen"
        more = f" ({count} such {kind}s in all)" if count > 1 else ""
        point = f" (U+{ord(tokens[at]):04X})" if self.level == "char" else ""
        if unknown == "use":
            advice = f"this model has no {UNKNOWN} to use for it; --unknown skip leaves it out."
        else:
            ways = "--unknown skip leaves it out"
            if self.unknown is not None:
                ways += f", --unknown use takes it as {UNKNOWN}"
            advice = f"{ways}."
        raise InputError(
            f"{where}: {kind} {at + 1} is {tokens[at]!r}{point}, {rare} in training{more}; {advice}"
        )

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids: characters as they are, words with spaces between them."""
        tokens = [self.tokens[i] for i in ids]
        return "".join(tokens) if self.level == "char" else join_words(tokens)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values from which `from_json` builds an equal vocabulary."""
        return {"level": self.level, "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, value: object) -> Vocabulary:
        """Build a vocabulary from `to_json`, checking every value.

        Raises:
            InputError: wrong types or keys, or tokens that make no vocabulary.
        """
        if not isinstance(value, dict) or set(value) != {"level", "tokens"}:
            raise InputError("vocabulary: expected the keys 'level' and 'tokens'.")
        level, tokens = value["level"], value["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
            raise InputError("vocabulary: tokens must be a list of strings.")
        return cls(level, tokens)


def _fits(token: str, level: Level) -> bool:
    return len(token) == 1 if level == "char" else token.split() == [token]


def split(text: str, level: Level) -> list[str]:
    r"""Return the characters of a text, or its words with "\n" for each end of a line.

    Example:
        >>> split("a pear\n", "word")
        ['a', 'pear', '\n']
    """
    if level == "char":
        return list(text)
    lines = text.split("\n")
    tokens = [token for line in lines for token in (*line.split(), END)]
    return tokens[:-1]


def join_words(tokens: Iterable[str]) -> str:
    r"""Join words by single spaces, none beside the end of a line.

    Example:
        >>> join_words(["a", "pear", "\n", "an", "apple"])
        'a pear\nan apple'
    """
    pieces, previous = [], END
    for token in tokens:
        if previous != END and token != END:
            pieces.append(" ")
        pieces.append(token)
        previous = token
    return "".join(pieces)


def count_characters(text: str, level: Level) -> int:
    r"""Return the characters that the tokens of a text stand for.

    Example:
        >>> count_characters("a  pear\n", "word")
        7
    """
    return len(text) if level == "char" else len(join_words(split(text, level)))
