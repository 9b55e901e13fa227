"""The tokens that decided: what the answer owes to each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from elman.tasks.classify.trained import TrainedClassify

_MOST_TOKENS = 200_000  # read to judge one text; long texts are judged in runs of tokens
_SHADES = (253, 224, 217, 210, 203, 196), (253, 195, 159, 123, 81, 45)  # of red and of blue


@dataclass(frozen=True)
class Decided:
    """A sequence, its answer, and what the answer owes to each part.

    Args:
        label: the class that was told.
        probability: of it.
        tokens: of a text as it was read; of numbers the steps, "1", "2", ….
        weights: for each token by how much ln p(label) falls where it is left out; above 0 it
            spoke for the label. (tokens,)
    """

    label: str
    probability: float
    tokens: tuple[str, ...]
    weights: np.ndarray


def decided(model: TrainedClassify, data: Any) -> Decided:
    r"""Tell what decided, by leaving out one token after the other.

    .. math::

        w_t = \ln p(\hat y \,|\, x_{1:T}) - \ln p(\hat y \,|\, x_{1:t-1}, x_{t+1:T})

    This is occlusion, and holds for all that the model reads, n-grams too. A time step of numbers
    is not left out but set to the training mean. Of long sequences runs of neighbours are left
    out together and share what is found.

    Args:
        model: as `elman.load` returns it.
        data: a text, or an array (time, features).

    Source: Zeiler & Fergus 2014 (there of images); Li, Monroe & Jurafsky 2016, "Understanding
    neural networks through representation erasure".
    """
    sequence = model.meaning.sequence(data)
    count = len(sequence)
    runs = np.array_split(
        np.arange(count), max(1, min(count, max(8, _MOST_TOKENS // max(count, 1))))
    )
    without = [_without(sequence, run) for run in runs] if count else []
    logs = model.tell([sequence, *without])
    best = int(logs[0].argmax())
    weights = np.zeros(count)
    for run, row in zip(runs, logs[1:], strict=False):
        weights[run] = (logs[0, best] - row[best]) / max(len(run), 1)
    tokens = tuple(sequence) if model.meaning.reading else tuple(map(str, range(1, count + 1)))
    return Decided(model.meaning.classes[best], float(np.exp(logs[0, best])), tokens, weights)


def _without(sequence: Any, run: np.ndarray) -> Any:
    """A sequence without some tokens, or with some steps at their mean."""
    if isinstance(sequence, np.ndarray):
        changed = sequence.copy()
        changed[run] = 0
        return changed
    return [*sequence[: run[0]], *sequence[run[-1] + 1 :]]


def strengths(weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the weights over the largest of them, in [-1, 1].

    Example:
        >>> strengths([0.5, -1.0, 0.0]).tolist()
        [0.5, -1.0, 0.0]
    """
    found = np.asarray(weights, dtype=np.float64)
    most = np.abs(found).max(initial=0.0)
    return found / most if most > 0 else found


def coloured(found: Decided, space: str) -> str:
    """Return the tokens for a terminal: red speaks for the label, blue against it.

    Args:
        found: what decided.
        space: between tokens.
    """
    marked = []
    for token, strength in zip(found.tokens, strengths(found.weights), strict=True):
        shade = round(abs(float(strength)) * (len(_SHADES[0]) - 1))
        colour = _SHADES[0 if strength > 0 else 1][shade]
        marked.append(f"\033[38;5;{colour}m{token}\033[0m" if shade else token)
    return space.join(marked)
