"""Drawing text from a language model, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from elman.data import END, Vocabulary
from elman.errors import InputError
from elman.tasks.lm.network import LanguageModel

_SMALL = 8_000_000  # weights


@contextmanager
def one_thread(network: LanguageModel) -> Iterator[None]:
    """Run steps of a small network on one thread: to wake others takes longer than a step."""
    threads = torch.get_num_threads()
    small = sum(weight.numel() for weight in network.parameters()) < _SMALL
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def check(length: int, temperature: float, top_k: int | None, seed: int, index: int) -> None:
    """Refuse values out of range, naming the first."""
    for name, value, least in (("length", length, 0), ("seed", seed, 0), ("index", index, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"generate: {name} is {value!r}; expected a whole number >= {least}.")
    if not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise InputError(f"generate: temperature is {temperature!r}; expected a number >= 0.")
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise InputError(f"generate: top_k is {top_k!r}; expected a whole number >= 1, or None.")


def draw(
    network: LanguageModel,
    vocabulary: Vocabulary,
    prompt: np.ndarray,
    *,
    length: int,
    temperature: float,
    top_k: int | None,
    seed: tuple[int, ...],
    sentence: bool,
) -> Iterator[int]:
    """Yield ids one by one; arguments as in `TrainedLM.generate`."""
    random = np.random.default_rng(seed)
    device = network.device
    token = torch.empty(1, dtype=torch.int64, device=device)
    context = np.concatenate([[vocabulary.end], prompt])
    with torch.inference_mode():
        logits, states = network(torch.from_numpy(context).to(device)[:, None])
        last, steppers = logits[-1], network.steppers(states)
    for _ in range(length):
        chosen = _choose(last.flatten(), vocabulary.unknown, temperature, top_k, random)
        if sentence and chosen == vocabulary.end:
            return
        yield chosen
        with torch.inference_mode(), one_thread(network):  # not held while the caller has it
            last = network.step(token.fill_(chosen), steppers)


def _choose(
    logits: torch.Tensor,
    banned: int | None,
    temperature: float,
    top_k: int | None,
    random: np.random.Generator,
) -> int:
    z = logits.cpu().numpy().astype(np.float64)
    if banned is not None:
        z[banned] = -np.inf
    best = int(z.argmax())
    if temperature == 0:
        return best
    p = np.exp((z - z[best]) / max(temperature, 1e-300))
    if top_k is not None and top_k < len(p):
        p[np.argpartition(p, -top_k)[:-top_k]] = 0.0
    below = p.cumsum()
    chosen = int(below.searchsorted(random.random() * below[-1], side="right"))
    # A product rounded up to the total would fall beyond the last token that can be drawn.
    return chosen if chosen < len(p) else int(below.searchsorted(below[-1]))


def pieces(
    prompt: str, ids: np.ndarray, drawn: Iterable[int], vocabulary: Vocabulary
) -> Iterator[str]:
    """Yield the prompt and the text of ids, words with the spaces between them."""
    if prompt:
        yield prompt
    words = vocabulary.level == "word"
    open_line = words and bool(prompt) and not prompt[-1].isspace()
    for i in drawn:
        text = vocabulary.tokens[i]
        space = " " if open_line and text != END else ""
        open_line = words and text != END
        yield space + text
