"""The baseline of graphs: the features without the edges, through logistic regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elman.tasks.graph.meaning import Batch
from elman.tasks.graph.measure import figures
from elman.tasks.graph.network import chosen, log_probabilities, nats

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
_STEPS = 100


def summed(batch: Batch) -> Batch:
    """Graphs as the sums of their nodes' features, beside the number of nodes."""
    graphs = len(batch.targets)
    whole = batch.x.new_zeros(graphs, batch.x.shape[1]).index_add(0, batch.graph, batch.x)
    sizes = torch.bincount(batch.graph, minlength=graphs).unsqueeze(1)
    x = torch.cat([whole, sizes.to(batch.x.dtype)], 1)
    return batch._replace(x=x, graph=torch.arange(graphs))


def fit(batch: Batch, classes: int, target: str, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and biases of least mean −ln p + penalty/2 Σ w², from zero."""
    weight = torch.zeros(classes, batch.x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        cost, count = nats(_logs(batch, weight, bias, target), batch, target)
        loss = cost / max(count, 1) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weight.detach(), bias.detach()


def _logs(batch: Batch, weight: Tensor, bias: Tensor, target: str) -> Tensor:
    logits = batch.x @ weight.T + bias
    return log_probabilities(logits[:, 0] if target == "selection" else logits, batch, target)


def baseline(train: Batch, valid: Batch, classes: int, target: str) -> dict[str, Any]:
    """Logistic regression on the same split, its penalty the best on the validation part itself.

    Of a class of graphs it sees the sums of the nodes' features and their number; of a choice the
    features of each node. Features are divided by their spread in training.
    """
    if target == "graph":
        train, valid = summed(train), summed(valid)
    scale = train.x.std(0, correction=0)
    scale = torch.where(scale > 1e-9, scale, 1.0) if target == "graph" else torch.ones_like(scale)
    train, valid = (b._replace(x=b.x / scale) for b in (train, valid))
    best: dict[str, Any] = {}
    for penalty in PENALTIES:
        size = 1 if target == "selection" else classes
        logs = _logs(valid, *fit(train, size, target, penalty), target)
        told, known = chosen(logs, valid, target)[0], valid.targets >= 0
        cost, count = nats(logs, valid, target)
        found = figures(int((told == valid.targets)[known].sum()), count, float(cost))
        if not best or found["accuracy"] > best["accuracy"]:
            best = {"penalty": penalty, **found}
    name = "logistic regression on the features, without the edges"
    return {"name": name, **best, "words": f"{name}: {best['accuracy']:.1%} of the labels right"}
