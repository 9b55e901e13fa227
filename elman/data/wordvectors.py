"""Word vectors from text files: GloVe, word2vec, fastText."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from elman.data.lexicon import UNKNOWN, Lexicon
from elman.data.reading import open_bytes
from elman.errors import FileError

_LEAST = 2  # numbers of a vector; a line of one number is a header or no vectors at all


def read_vectors(path: str | Path, wanted: Iterable[str]) -> tuple[dict[str, np.ndarray], int]:
    """Return the vectors of wanted words; the file is read line by line.

    Each line has a word and its numbers with blanks between. A first line of two whole numbers, how
    many words and how many numbers, is left out, as word2vec and fastText write it. A word may
    contain blanks, as some do in large GloVe files: the numbers are the last ones. Where a word
    stands twice, its first vector counts.

    Args:
        path: a text file in UTF-8.
        wanted: words.

    Returns:
        vectors by word, (size,) float32, of those that are there; and the size.

    Raises:
        FileError: missing, no text, no vectors, or a line of another size or with something that is
            no finite number; the line is named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/v.txt").write_text("2 3\\ndog 1 0 .5\\ncat 0 1 .5\\n")
        ...     read_vectors(f"{folder}/v.txt", ["dog", "cow"])
        ({'dog': array([1. , 0. , 0.5], dtype=float32)}, 3)
    """
    missing = set(wanted)
    found: dict[str, np.ndarray] = {}
    size = 0
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            fields = line.rstrip().split(b" ")
            if number == 1 and len(fields) == 2 and all(f.isdigit() for f in fields):
                continue
            if not size:
                size = _size(fields, f"{path}, line {number}")
            elif fields == [b""]:
                continue
            if len(fields) <= size:
                found_here = len(fields) - 1
                raise FileError(
                    f"{path}, line {number}: {found_here} numbers, not {size} as before."
                )
            word = b" ".join(fields[:-size]).decode("utf-8", "replace")
            if word in missing:
                found[word] = _numbers(fields[-size:], f"{path}, line {number}")
                missing.discard(word)
    if not size:
        raise FileError(f"{path}: holds no vectors.")
    return found, size


def _size(fields: list[bytes], place: str) -> int:
    """The numbers at the end of the first line with a vector."""
    count = 0
    for field in reversed(fields[1:]):
        try:
            float(field)
        except ValueError:
            break
        count += 1
    if count < _LEAST:
        raise FileError(
            f"{place}: expected a word and its numbers with blanks between, got "
            f"{b' '.join(fields)[:40].decode('utf-8', 'replace')!r}."
        )
    return count


def _numbers(fields: list[bytes], place: str) -> np.ndarray:
    try:
        vector = np.array([float(field) for field in fields], dtype=np.float32)
    except ValueError:
        vector = np.array([np.nan])
    if not np.isfinite(vector).all():
        raise FileError(f"{place}: a number of the vector is none, or is not finite.")
    return vector


def table_of(path: str | Path, lexicon: Lexicon) -> tuple[np.ndarray, str]:
    """Return vectors for all tokens of a lexicon, from a file where it has them.

    A token that the file lacks is looked for in small letters, and else begins at random, with the
    deviation of the others; padding is zero.

    Args:
        path: as `read_vectors` takes it.
        lexicon: the tokens.

    Returns:
        (tokens, size) float32; and in words, how many there are.

    Raises:
        FileError: what `read_vectors` refuses, or a file with none of the tokens.
    """
    known = lexicon.tokens[UNKNOWN + 1 :]
    found, size = read_vectors(path, {*known, *(word.lower() for word in known)})
    table = np.zeros((len(lexicon), size), np.float32)
    there = 0
    for number, word in enumerate(known, UNKNOWN + 1):
        vector = found.get(word, found.get(word.lower()))
        if vector is not None:
            table[number], there = vector, there + 1
    if not there:
        raise FileError(f"{path}: has a vector of none of the words of these texts.")
    deviation = float(table[table.any(1)].std()) or 1.0
    draw = np.random.default_rng(0)
    lacking = np.flatnonzero(~table.any(axis=1))[1:]  # padding, the first, stays zero
    table[lacking] = draw.normal(0, deviation, (len(lacking), size)).astype(np.float32)
    share = there / len(known)
    return table, f"vectors: {path}: {size} numbers, of {share:.0%} of the vocabulary"
