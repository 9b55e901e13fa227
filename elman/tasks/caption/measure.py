"""How well a model of captions predicts texts and writes them, beside its baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elman.data.batches import in_order, pad
from elman.tasks.caption.baseline import Baseline, Texts
from elman.tasks.caption.corpus import Meaning
from elman.tasks.caption.likeness import chrf, compare
from elman.tasks.caption.network import CaptionModel
from elman.tasks.intervals import bootstrap

_ROWS, _TOKENS = 256, 16384  # of a batch that is judged at once


def conditions(texts: Texts) -> tuple[Tensor, Tensor]:
    """Return classes and vectors as tensors; zeros, or of no size, where there are none."""
    rows = texts.rows()
    labels = np.zeros(rows, np.int64) if texts.labels is None else texts.labels
    vectors = np.zeros((rows, 0), np.float32) if texts.vectors is None else texts.vectors
    return torch.from_numpy(labels), torch.from_numpy(vectors)


def scaled(network: CaptionModel, texts: Texts) -> Texts:
    """Return texts with their vectors as the network scales them."""
    if texts.vectors is None:
        return texts
    mean, deviation = network.mean.cpu().numpy(), network.deviation.cpu().numpy()
    return texts._replace(vectors=(texts.vectors - mean) / deviation)


@torch.no_grad()
def nats_of(network: CaptionModel, texts: Texts, end: int) -> np.ndarray:
    """Return −ln p of each text, its end included, (texts,); the network in evaluation mode."""
    device = network.mean.device
    found = np.zeros(len(texts.tokens))
    lengths = [len(text) + 1 for text in texts.tokens]
    for rows in in_order(lengths, size=_ROWS, tokens=_TOKENS):
        some = texts.some(rows)
        labels, vectors = (part.to(device) for part in conditions(some))
        targets, steps = (p.to(device) for p in pad([np.append(t, end) for t in some.tokens]))
        inputs = pad([np.insert(text, 0, end) for text in some.tokens])[0].to(device)
        told = network(network.condition(labels, vectors), inputs, steps)
        logits = network.decoder.logits(told.features).float()
        loss = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        real = torch.arange(loss.shape[1], device=device) < steps[:, None]
        found[rows] = torch.where(real, loss, 0.0).double().sum(1).cpu().numpy()
    return found


def figures(
    nats: np.ndarray, characters: np.ndarray, compared: np.ndarray | None
) -> dict[str, Any]:
    """Return the measures, and their intervals by the bootstrap over texts.

    Args:
        nats: of each text.
        characters: of each, with its end.
        compared: of each text that was written, of `likeness.compare`; None where there is not one
            right text.
    """
    char = float(nats.sum() / characters.sum())
    both = np.stack([nats, characters], 1)
    ends = bootstrap(both, lambda s: s[:, 0] / s[:, 1])
    found: dict[str, Any] = {"nats_per_char": char, "bits_per_char": char / math.log(2)}
    intervals = {"nats_per_char": list(ends), "bits_per_char": [e / math.log(2) for e in ends]}
    if compared is not None:
        found["exact"] = float(compared[:, 0].mean())
        found["chrf"] = float(chrf(compared[:, 1:].sum(0)))
        count = len(compared)
        intervals["exact"] = list(bootstrap(compared[:, :1], lambda s: s[:, 0] / count))
        intervals["chrf"] = list(bootstrap(compared[:, 1:], chrf))
    return {**found, "intervals": intervals}


def judged(
    baseline: Baseline,
    texts: Texts,
    characters: np.ndarray,
    right: Sequence[str],
    meaning: Meaning,
    ours: tuple[np.ndarray, np.ndarray | None] | None = None,
) -> dict[str, Any]:
    """Measure the baseline on texts whose vectors are scaled; n-grams of all orders beside it.

    Args:
        baseline: fitted.
        texts: scaled.
        characters: of each, with its end.
        right: the texts as they are written.
        meaning: of the tokens.
        ours: of the model, nats of each text and what the first of them were written as
            (`likeness.compare`); then the intervals of the differences are "gain" and "gain_exact".
    """
    compared = None
    if meaning.single:
        compared = compare([meaning.text(text.tolist()) for text in baseline.tell(texts)], right)
    nats = baseline.judge(texts)
    found = figures(nats, characters, compared)
    if ours is not None:
        found["gain"] = difference(ours[0], nats, characters)
        if compared is not None and ours[1] is not None:
            more = ours[1][:, 0] - compared[: len(ours[1]), 0]
            found["gain_exact"] = list(bootstrap(more, lambda s: s[:, 0] / len(more)))
    given, plain = {}, {}
    for order, name in ((2, "bigram"), (3, "trigram"), (baseline.order, f"{baseline.order}-gram")):
        p, q, _ = baseline.ngrams.probabilities(texts, order)
        w = baseline.weights[order - 1] if texts.labels is not None else 0.0
        given[name] = float(-np.log(w * p + (1 - w) * q).sum() / characters.sum())
        plain[name] = float(-np.log(q).sum() / characters.sum())
    found["name"] = baseline.name()
    found["nats_per_char_by_ngram"] = plain
    if texts.labels is not None:
        found["nats_per_char_by_ngram_given_class"] = given
    found["words"] = _in_words(found, given if texts.labels is not None else None, plain)
    return found


def _in_words(
    found: Mapping[str, Any], given: Mapping[str, float] | None, plain: Mapping[str, float]
) -> str:
    words = f"{found['name']}: {found['nats_per_char']:.3f} nats a character"
    if "exact" in found:
        words += f", {found['exact']:.1%} exact, chrF {found['chrf']:.1f}"
    if given is not None:
        words += f"; bigram given the class {given['bigram']:.3f}"
    return words + f"; bigram {plain['bigram']:.3f}"


def difference(nats: np.ndarray, theirs: np.ndarray, characters: np.ndarray) -> list[float]:
    """Return the 95 % interval of how many nats a character the baseline needs more, text by text.

    Args:
        nats, theirs: −ln p of each text, of the model and of the baseline.
        characters: of each text.
    """
    both = np.stack([theirs - nats, characters], 1)
    return list(bootstrap(both, lambda s: s[:, 0] / s[:, 1]))


def against(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Say in words which is ahead, by nats a character and, where told, by exact texts.

    Where the baseline has the interval of a difference ("gain", "gain_exact"), it must not reach 0.
    Of exact texts that are level, and no fewer than the baseline's, nats decide.
    """
    ours, theirs, name = metrics["nats_per_char"], baseline["nats_per_char"], baseline["name"]
    words = f"{ours:.3f} against {theirs:.3f} nats a character"
    if "exact" in metrics and "exact" in baseline:
        words += f", {metrics['exact']:.1%} against {baseline['exact']:.1%} exact"
        more = metrics["exact"] - baseline["exact"]
        surely = baseline.get("gain_exact", [more])[0] > 0
    else:
        more, surely = 0.0, False
    if surely or (more >= 0 and baseline.get("gain", [theirs - ours - 5e-4])[0] > 0):
        return f"{words}: this model is ahead of {name}."
    return f"{words}: {name} is level or ahead. Use the baseline, train longer, or find more texts."
