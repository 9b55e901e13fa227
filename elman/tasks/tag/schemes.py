"""Spans written as tags: BIO, IOB1, BIOES and their kin; how each is read, written and told apart.

Tags are read as conlleval reads them, so that tags that break their scheme still mean something: a
span begins at B or S, at any other tag behind O, behind an end, or behind another type, and ends
before what begins or is O, and after E or S.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from elman.errors import InputError

SCHEMES = ("bio", "iob1", "bioes", "bilou")
_TAG = re.compile(r"O|[BIESLU](-.+)?", re.DOTALL)
_BILOU = {"L": "E", "U": "S"}
_FROM_BILOU = {"E": "L", "S": "U"}


class Span(NamedTuple):
    """Words from `start` up to before `end` that are one thing of a `type`."""

    type: str
    start: int
    end: int


def spans(tags: Iterable[str]) -> list[Span]:
    """Return the spans that tags of any scheme mean, as conlleval reads them.

    Args:
        tags: of one sentence; "O", or a letter of B, I, E, S (or L, U), a hyphen and a type.

    Example:
        >>> [tuple(span) for span in spans(["B-x", "I-x", "I-y", "O", "I-x"])]
        [('x', 0, 2), ('y', 2, 3), ('x', 4, 5)]

    Source: Tjong Kim Sang & Buchholz 2000, the program conlleval of the shared task.
    """
    found: list[Span] = []
    start, before, before_type, at = -1, "O", "", 0
    for at, tag in enumerate(tags):
        letter, kind = _parts(tag)
        if start >= 0 and (letter in "BSO" or before in "ES" or kind != before_type):
            found.append(Span(before_type, start, at))
            start = -1
        if start < 0 and letter != "O":
            start = at
        before, before_type = letter, kind
    if start >= 0:
        found.append(Span(before_type, start, at + 1))
    return found


def _parts(tag: str) -> tuple[str, str]:
    """The letter and the type of a tag."""
    if tag == "O":
        return "O", ""
    letter = tag[:1]
    return _BILOU.get(letter, letter), tag[2:] or "_"


def written(found: Iterable[Span], length: int, scheme: str) -> list[str]:
    """Return spans as the tags of a scheme.

    Args:
        found: spans in order, none over another.
        length: words of the sentence.
        scheme: one of SCHEMES.

    Example:
        >>> both = [Span("x", 0, 2), Span("x", 2, 3)]
        >>> for scheme in SCHEMES:
        ...     print(*written(both, 4, scheme))
        B-x I-x B-x O
        I-x I-x B-x O
        B-x E-x S-x O
        B-x L-x U-x O
    """
    tags = ["O"] * length
    end_before, type_before = -1, ""
    for kind, start, end in found:
        letters = ["I"] * (end - start)
        if scheme == "iob1":
            letters[0] = "B" if (start, kind) == (end_before, type_before) else "I"
        elif scheme == "bio":
            letters[0] = "B"
        else:
            letters[0], letters[-1] = "B", "E"
            if len(letters) == 1:
                letters = ["S"]
            if scheme == "bilou":
                letters = [_FROM_BILOU.get(letter, letter) for letter in letters]
        tail = "" if kind == "_" else f"-{kind}"
        tags[start:end] = [letter + tail for letter in letters]
        end_before, type_before = end, kind
    return tags


def is_of_spans(labels: Iterable[str]) -> bool:
    """Return whether labels are tags of spans: "O" and a letter with a type, and of both some."""
    found = set(labels)
    typed = [label for label in found if label != "O"]
    return (
        "O" in found
        and all(_TAG.fullmatch(label) for label in found)
        and (any("-" in label for label in typed) or {"B", "I"} <= found)
    )


def detect(sentences: Iterable[Sequence[str]]) -> str:
    """Return the scheme that tags of spans are written in.

    Args:
        sentences: the tags of each.

    Example:
        >>> detect([["B-x", "I-x", "O"]]), detect([["I-x", "B-x", "O"]]), detect([["S-x", "O"]])
        ('bio', 'iob1', 'bioes')
    """
    letters: Counter[str] = Counter()
    begun = {"B": 0, "I": 0}  # spans that begin where no tag of their type stands before
    for tags in sentences:
        before = ""
        for tag in tags:
            letters[tag[:1]] += 1
            kind = "" if tag == "O" else tag[2:] or "_"
            if kind and kind != before and tag[:1] in begun:
                begun[tag[:1]] += 1
            before = kind
    if letters["L"] or letters["U"]:
        return "bilou"
    if letters["E"] or letters["S"]:
        return "bioes"
    return "iob1" if begun["I"] > begun["B"] else "bio"


def breaks(tags: Sequence[str], scheme: str) -> list[int]:
    """Return the places where tags are not as their scheme writes the spans that they mean.

    Example:
        >>> breaks(["O", "I-x", "I-x", "B-y"], "bio"), breaks(["B-x", "O"], "bioes")
        ([1], [0])
    """
    if all(tag == "O" for tag in tags):
        return []
    proper = written(spans(tags), len(tags), scheme)
    return [at for at, (is_, should) in enumerate(zip(tags, proper, strict=True)) if is_ != should]


def allowed(labels: Sequence[str], scheme: str) -> list[list[bool]]:
    """Return which labels may follow which, the begin and the end of a sentence among them.

    Args:
        labels: tags of the scheme.
        scheme: "bio" or "bioes".

    Returns:
        a square table of labels + 1 rows: row i, column j is whether label j may follow label i;
        the last row is the begin of a sentence, the last column its end.

    Raises:
        InputError: another scheme.

    Example:
        >>> allowed(["O", "B-x", "I-x"], "bio")[0]
        [True, True, False, True]
    """
    if scheme not in ("bio", "bioes"):
        raise InputError(f"scheme {scheme!r}: expected bio or bioes.")
    marks = [*(_parts(label) for label in labels), ("O", "")]
    return [[_may_follow(one, other, scheme) for other in marks] for one in marks]


def _may_follow(one: tuple[str, str], other: tuple[str, str], scheme: str) -> bool:
    inside = other[0] in "IE"
    if scheme == "bio":
        return not inside or (one[0] in "BI" and one[1] == other[1])
    if one[0] in "BI":
        return inside and one[1] == other[1]
    return not inside


def is_tag(label: str) -> bool:
    """Return whether a label is a tag of spans: "O", or a letter with or without a type."""
    return _TAG.fullmatch(label) is not None
