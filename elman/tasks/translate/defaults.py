"""What is chosen where nothing was said: units, sizes and training, by the data and the time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from elman.tasks.base import Budget
from elman.tasks.translate.options import TranslateOptions
from elman.tasks.translate.units import tidy

_FEW_CHARACTERS = 32  # digits and signs, an alphabet in lower case
_FEW_WORDS = 400  # a closed set, such as number words or phonemes
_FEW_UNITS = 200  # of a side that is read letter by letter
_SPEED = 6000.0  # units a second that one thread learns from with 512 units of state, about
_ENOUGH_EPOCHS = 6.0
_SHORT = 40.0  # characters of a text without blanks that is read letter by letter


def level_of(texts: Iterable[str]) -> tuple[str, str]:
    """Choose the units of a side: characters, words of a closed set, or parts of words.

    Returns:
        the level, and how texts are cut into words (`elman.tasks.translate.units.SPLITS`).

    Example:
        >>> level_of(["12+9", "8+70"]), level_of(["DH AH0", "K AE1 T"] * 20)
        (('char', 'punctuation'), ('word', 'blanks'))
    """
    characters: set[str] = set()
    words: set[str] = set()
    count = letters = parts = 0
    for text in texts:
        own = tidy(text)
        split = own.split()
        characters.update(own)
        if len(words) <= 2 * _FEW_WORDS:
            words.update(split)
        count, letters, parts = count + 1, letters + len(own), parts + len(split)
    count = max(count, 1)
    few = len(words) <= _FEW_WORDS and parts >= 10 * len(words)
    if parts >= 1.5 * count and few and letters > 1.5 * parts:
        return "word", "blanks"
    if len(characters) <= _FEW_CHARACTERS:
        return "char", "punctuation"
    if parts < 2.5 * count and letters < _SHORT * count:
        return "char", "punctuation"
    return "bpe", "punctuation"


def units_of(level: str, pairs: int) -> int:
    """Choose how many units a side may have, by the number of pairs."""
    if level == "word":
        return 30_000
    return min(16_000, max(1000, int(12.5 * pairs**0.5)))


def settle(
    options: TranslateOptions, *, sizes: tuple[int, int], units: tuple[int, int], budget: Budget
) -> TranslateOptions:
    """Choose the sizes of the network and of a batch.

    Args:
        options: what was said.
        sizes: pairs to learn from, and units of their longer sides together.
        units: different units of source and target.
        budget: how much training is planned.
    """
    small = max(units) < _FEW_UNITS
    hidden = options.hidden or _hidden(sizes, small, budget)
    chosen: dict[str, Any] = {
        "cell": options.cell or "lstm",
        "hidden": hidden,
        "embedding": options.embedding or (64 if small else max(hidden // 2, 64)),
        "layers": options.layers or 1,
        "dropout": options.dropout if options.dropout is not None else 0.0 if small else 0.2,
        "smoothing": options.smoothing if options.smoothing is not None else 0.0 if small else 0.1,
        "tied": options.tied if options.tied is not None else not small,
        "pairs": options.pairs or (64 if small else 128),
        "tokens": options.tokens or 2500,
    }
    return options.model_copy(update=chosen)


def _hidden(sizes: tuple[int, int], small: bool, budget: Budget) -> int:
    """Units, so that the pairs can be read several times, and no more than they can fill."""
    pairs, total = sizes
    if small:
        return 128
    if pairs < 30_000:
        return 256
    if budget.minutes is None:
        return 512
    epochs = 60 * budget.minutes * _SPEED / total
    return 512 if epochs >= _ENOUGH_EPOCHS else 384 if epochs >= _ENOUGH_EPOCHS / 3 else 256


def learning(options: TranslateOptions, units: tuple[int, int]) -> dict[str, Any]:
    """Choose how the network is trained."""
    small = max(units) < _FEW_UNITS
    return {
        "optimizer": "adamw", "lr": 1e-2 if small else 5e-3, "beta2": 0.98, "weight_decay": 0.01,
        "schedule": "cosine", "warmup": 0.03, "clip_norm": 1.0, "ema": 0.02,
        "precision": "32" if small else "auto",
    }  # fmt: skip
