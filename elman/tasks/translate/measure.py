"""How good translations are: BLEU, chrF and the share that is exact, with intervals, by length."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elman.errors import InputError
from elman.tasks.intervals import bootstrap

_ORDERS, _LETTERS = 4, 6  # of the n-grams of BLEU, in words, and of chrF, in characters
_BETA = 2.0  # of chrF
_BINS = ((1, 3), (4, 6), (7, 9), (10, 14), (15, 24), (25, None))
_TOKENIZERS = {"Han": "zh", "Kana": "char", "Hangul": "char", "Thai": "char", "Lao": "char"}


def tokenizer_of(texts: Sequence[str]) -> str:
    """Choose sacrebleu's tokeniser by the script of the references: "zh", "char" or "13a".

    Example:
        >>> tokenizer_of(["我喜欢梨"]), tokenizer_of(["J'aime les poires."])
        ('zh', '13a')
    """
    found: Counter[str] = Counter()
    for text in texts[:1000]:
        found.update(map(_script, text[:200]))
    letters = sum(n for name, n in found.items() if name)
    if not letters:
        return "13a"
    if found["Kana"] > 0.1 * letters:
        return "char"
    best = max(_TOKENIZERS, key=lambda name: found[name])
    return _TOKENIZERS[best] if found[best] > 0.3 * letters else "13a"


def _script(letter: str) -> str:
    if not letter.isalpha():
        return ""
    if letter < "\u0e00":
        return "other"
    name = unicodedata.name(letter, "")
    for start, script in (("CJK", "Han"), ("HIRAGANA", "Kana"), ("KATAKANA", "Kana"),
                          ("HANGUL", "Hangul"), ("THAI", "Thai"), ("LAO", "Lao")):  # fmt: skip
        if name.startswith(start):
            return script
    return "other"


def measure(
    told: Sequence[str],
    right: Sequence[str],
    *,
    tokenizer: str,
    sources: Sequence[str] | None = None,
    intervals: bool = True,
) -> dict[str, Any]:
    """Measure translations against one reference each.

    Args:
        told: the translations.
        right: the references.
        tokenizer: of sacrebleu.
        sources: their lengths, in words (characters where there are no blanks), divide the table.
        intervals: whether to draw the bootstrap.

    Returns:
        "bleu" and "chrf" as sacrebleu has them (0 to 100), "exact" (0 to 1), "signature", and, if
        asked for, "intervals" of the three and "by_length".

    Raises:
        InputError: nothing to measure, or of different numbers.
    """
    from sacrebleu.metrics import BLEU, CHRF

    if not right or len(told) != len(right):
        raise InputError(
            f"evaluate: {len(told)} translations of {len(right)} references; expected as many, and "
            "at least one."
        )
    bleu, chrf = BLEU(tokenize=tokenizer, effective_order=True), CHRF()
    sums = _sums(bleu, told, right)
    corpus = BLEU(tokenize=tokenizer)
    found: dict[str, Any] = {
        "bleu": corpus.corpus_score(list(told), [list(right)]).score,
        "chrf": chrf.corpus_score(list(told), [list(right)]).score,
        "exact": float(sums[:, -2].mean()),
        "sentences": len(right),
        "signature": f"{corpus.get_signature()}; {chrf.get_signature()}",
    }
    if intervals:
        figures: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "bleu": bleu_of, "chrf": chrf_of, "exact": exact_of
        }  # fmt: skip
        found["intervals"] = {name: list(bootstrap(sums, of)) for name, of in figures.items()}
    if sources is not None:
        found["by_length"] = _by_length(sources, sums)
    return found


def _sums(bleu: Any, told: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """What each sentence adds: counts for BLEU (10), for chrF (18), whether exact, and 1."""
    rows = []
    for ours, theirs in zip(told, right, strict=True):
        score = bleu.sentence_score(ours, [theirs])
        row = [score.sys_len, score.ref_len, *score.counts, *score.totals]
        rows.append([*row, *_letters(ours, theirs), ours.strip() == theirs.strip(), 1])
    return np.array(rows, dtype=np.float64)


def _letters(ours: str, theirs: str) -> list[int]:
    """Of each order the n-grams of characters that are told, right, and both."""
    a, b = "".join(ours.split()), "".join(theirs.split())
    found = []
    for n in range(1, _LETTERS + 1):
        one = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        two = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        # sacrebleu counts what is told only where the reference has n-grams of the order
        found += [one.total() if two else 0, two.total(), (one & two).total()]
    return found


def bleu_of(sums: np.ndarray) -> np.ndarray:
    r"""Return BLEU of summed counts, (draws, sums) to (draws,), 0 to 100.

    100 BP (∏ pₙ)^(1/4), with BP = exp(min(0, 1 − r/c)); the k-th order without a match counts as
    2⁻ᵏ matches.

    Source: Papineni et al. 2002; the smoothing is NIST's, as in sacrebleu (Post 2018).
    """
    told, right = sums[:, 0], sums[:, 1]
    matched, total = sums[:, 2 : 2 + _ORDERS], sums[:, 2 + _ORDERS : 2 + 2 * _ORDERS]
    with np.errstate(divide="ignore", invalid="ignore"):
        misses = np.cumsum(matched == 0, axis=1)
        matched = np.where(matched == 0, 0.5**misses, matched)
        logs = np.where(total > 0, np.log(matched / total), -np.inf)
        brevity = np.minimum(0.0, 1 - right / told)
        found = 100 * np.exp(brevity + logs.mean(axis=1))
    nothing = (sums[:, 2 : 2 + _ORDERS].sum(axis=1) == 0) | (told == 0)
    return np.where(nothing, 0.0, found)


def chrf_of(sums: np.ndarray) -> np.ndarray:
    """Return chrF2 of summed counts, (draws, sums) to (draws,), 0 to 100.

    Source: Popović 2015; averaged over the orders that both sides have, as in sacrebleu.
    """
    parts = sums[:, 2 + 2 * _ORDERS : -2].reshape(len(sums), _LETTERS, 3)
    told, right, both = parts.transpose(2, 0, 1)
    there = (told > 0) & (right > 0)
    count = np.maximum(there.sum(axis=1), 1)
    precision = np.where(there, both / np.maximum(told, 1), 0).sum(axis=1) / count
    recall = np.where(there, both / np.maximum(right, 1), 0).sum(axis=1) / count
    factor = _BETA**2
    divisor = factor * precision + recall
    return np.where(
        divisor > 0, 100 * (1 + factor) * precision * recall / np.maximum(divisor, 1e-300), 0.0
    )


def exact_of(sums: np.ndarray) -> np.ndarray:
    """Return the share of translations that are their reference, (draws, sums) to (draws,)."""
    return sums[:, -2] / sums[:, -1]


def _by_length(sources: Sequence[str], sums: np.ndarray) -> list[dict[str, Any]]:
    blanks = any(" " in text.strip() for text in sources[:1000])
    lengths = np.array([len(text.split()) if blanks else len(text.strip()) for text in sources])
    unit, found = "words" if blanks else "characters", []
    for low, high in _BINS:
        rows = (lengths >= low) & (lengths <= (high or np.inf))
        if not rows.any():
            continue
        total = sums[rows].sum(axis=0, keepdims=True)
        found.append({
            unit: f"{low} to {high}" if high else f"{low} and more",
            "sentences": int(rows.sum()),
            "bleu": float(bleu_of(total)[0]),
            "chrf": float(chrf_of(total)[0]),
            "exact": float(exact_of(total)[0]),
        })  # fmt: skip
    return found
