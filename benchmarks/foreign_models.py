"""Models of other people's packages through `elman.convert` and back.

    python benchmarks/foreign_models.py [--only NAME ...] [--repeats 9] [--json FILE]

Each model is built by its own package, small and with a fixed seed (resemblyzer's comes trained),
and no line of it is changed. A second one, built alike, stays as it is. Checked for each: every
output, before and after the conversion; the `state_dict`, and checkpoints in both directions;
the weights after three steps of an optimiser that was made before the conversion; the types and
outputs after `elman.revert`. Timed, in turns: forward, and forward with backward; above 1 is
faster. A package that is not installed is skipped. The exit code is 1 where a check fails.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import elman

Run = Callable[[nn.Module], Any]
Loss = Callable[[list[Tensor]], Tensor]
LIMIT = 1e-5


def mean_square(found: list[Tensor]) -> Tensor:
    """A loss for models whose own needs more than their outputs."""
    return torch.stack([t.double().square().mean() for t in found if t.requires_grad]).sum()


def flair() -> tuple[nn.Module, Run, Loss]:
    """Sequence tagger: packed bidirectional LSTM of two layers, conditional random field."""
    from flair.data import Dictionary, Sentence
    from flair.embeddings import OneHotEmbeddings
    from flair.models import SequenceTagger

    words, tags = [f"w{i}" for i in range(50)], ["A", "N", "V"]
    vocabulary, labels = Dictionary(), Dictionary(add_unk=False)
    for word in words:
        vocabulary.add_item(word)
    for tag in tags:
        labels.add_item(tag)
    model = SequenceTagger(
        OneHotEmbeddings(vocabulary, embedding_length=32),
        labels,
        tag_type="pos",
        hidden_size=64,
        rnn_layers=2,
        reproject_embeddings=False,
    )

    def run(model: nn.Module) -> list[Tensor]:
        choose = random.Random(1)
        sentences = [Sentence([choose.choice(words) for _ in range(n)]) for n in range(20, 4, -1)]
        for sentence in sentences:
            for token in sentence:
                token.add_label("pos", choose.choice(tags))
        features, lengths = model._prepare_tensors(sentences)
        return [model(features, lengths), model.forward_loss(sentences)[0]]

    return model, run, lambda found: found[-1] / 16


def joeynmt() -> tuple[nn.Module, Run, Loss]:
    """Translation: packed bidirectional LSTM; attention decoder, an LSTM called step by step."""
    from joeynmt.model import build_model
    from joeynmt.vocabulary import Vocabulary

    special = SimpleNamespace(
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token=None,
        unk_id=0,
        pad_id=1,
        bos_id=2,
        eos_id=3,
        lang_tags=[],
    )
    vocabulary = Vocabulary([f"w{i}" for i in range(60)], special)
    part = {
        "type": "recurrent",
        "rnn_type": "lstm",
        "hidden_size": 64,
        "num_layers": 2,
        "dropout": 0.1,
        "embeddings": {"embedding_dim": 32},
    }
    decoder = {**part, "attention": "bahdanau", "init_hidden": "bridge"}
    model = build_model({"encoder": part, "decoder": decoder}, vocabulary, vocabulary)
    lengths = torch.tensor([20, 17, 9, 9, 4, 2])
    source = torch.randint(4, 60, (6, 20))
    source[torch.arange(20) >= lengths.unsqueeze(1)] = vocabulary.pad_index
    target = torch.randint(4, 60, (6, 15))

    def run(model: Any) -> Any:
        return model._encode_decode(
            src=source,
            trg_input=target,
            src_mask=(source != vocabulary.pad_index).unsqueeze(1),
            src_length=lengths,
            trg_mask=torch.ones_like(target).bool().unsqueeze(1),
        )

    return model, run, mean_square


def sb3_contrib() -> tuple[nn.Module, Run, Loss]:
    """Recurrent PPO's policy: one LSTM for the actor, one for the critic, cut at episodes."""
    from gymnasium.spaces import Box, Discrete
    from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    model = RecurrentActorCriticPolicy(
        Box(-1, 1, (8,), dtype=np.float32), Discrete(3), lambda _: 3e-4, lstm_hidden_size=64
    )
    steps, streams = 32, 4
    seen = torch.rand(steps * streams, 8) * 2 - 1
    actions = torch.randint(3, (steps * streams,))
    starts = (torch.rand(steps * streams) < 0.05).float()
    zeros = (torch.zeros(1, streams, 64), torch.zeros(1, streams, 64))

    def run(model: Any) -> Any:
        return model.evaluate_actions(seen, actions, RNNStates(zeros, zeros), starts)

    return model, run, mean_square


def torch_geometric() -> tuple[nn.Module, Run, Loss]:
    """AttentiveFP over molecules: three GRU cells between rounds of graph attention."""
    from torch_geometric.nn.models import AttentiveFP

    model = AttentiveFP(16, 64, 4, edge_dim=6, num_layers=2, num_timesteps=3, dropout=0.1)
    nodes, edges, graphs = 120, 400, 8
    inputs = (
        torch.randn(nodes, 16),
        torch.randint(nodes, (2, edges)),
        torch.randn(edges, 6),
        torch.arange(nodes) * graphs // nodes,
    )
    return model, lambda model: model(*inputs), mean_square


def gluonts() -> tuple[nn.Module, Run, Loss]:
    """DeepAR: LSTM of two layers over lagged values; a Student-t distribution a step."""
    from gluonts.torch.model.deepar.module import DeepARModel

    model = DeepARModel(
        freq="D", context_length=48, prediction_length=12, hidden_size=64, cardinality=[5]
    )
    # The package names its inputs' shapes; the values stand in for a random walk and its calendar.
    shapes = {name: i.shape for name, i in model.describe_inputs(16).data.items()}
    inputs = {name: torch.randn(shape) for name, shape in shapes.items()}
    inputs["feat_static_cat"] = torch.randint(5, shapes["feat_static_cat"])
    inputs["past_target"] = inputs["past_target"].cumsum(1)
    inputs["past_observed_values"] = torch.ones(shapes["past_observed_values"])
    future = torch.randn(16, 12)

    def run(model: Any) -> Any:
        return model.unroll_lagged_rnn(**inputs, future_target=future)

    return model, run, mean_square


def resemblyzer() -> tuple[nn.Module, Run, Loss]:
    """Speaker encoder, with the trained weights of the package: LSTM of three layers, 256 wide."""
    from resemblyzer import VoiceEncoder

    model = VoiceEncoder("cpu", verbose=False)
    mels = torch.rand(4, 160, 40)
    return model, lambda model: model(mels), mean_square


# By name: what to install, and the model.
CASES = {
    "flair SequenceTagger": ("flair", flair),
    "joeynmt recurrent": ("joeynmt", joeynmt),
    "sb3-contrib RecurrentPPO": ("sb3-contrib", sb3_contrib),
    "torch_geometric AttentiveFP": ("torch-geometric", torch_geometric),
    "gluonts DeepAR": ("gluonts", gluonts),
    "resemblyzer VoiceEncoder": ("resemblyzer", resemblyzer),
}


@dataclass
class Row:
    """What is reported of a model."""

    model: str
    version: str
    replaced: str
    output: float
    step: float
    state_dict: bool
    reverted: bool
    forward: float
    forward_backward: float

    @property
    def right(self) -> bool:
        return max(self.output, self.step) <= LIMIT and self.state_dict and self.reverted


def built(build: Callable[[], tuple[nn.Module, Run, Loss]]) -> tuple[nn.Module, Run, Loss]:
    """A model, always the same one."""
    seed()
    return build()


def seed() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (the packages draw from it)
    torch.manual_seed(0)


def tensors(value: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [t for part in value for t in tensors(part)]
    return []


def outputs(model: nn.Module, run: Run) -> list[Tensor]:
    training = model.training
    model.eval()
    seed()
    with torch.no_grad():
        found = [t.clone() for t in tensors(run(model))]
    model.train(training)
    return found


def farthest(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest absolute difference."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def train(model: nn.Module, run: Run, loss: Loss, optimiser: torch.optim.Optimizer) -> None:
    """Three steps in training mode, with the model's own dropout."""
    model.train()
    seed()
    for _ in range(3):
        optimiser.zero_grad()
        loss(tensors(run(model))).backward()
        optimiser.step()


def same_states(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models hold the same, and load each other's checkpoints."""
    one, two = model.state_dict(), other.state_dict()
    same = list(one) == list(two) and all(
        torch.equal(one[k], two[k]) for k in one if isinstance(one[k], Tensor)
    )
    model.load_state_dict(two)
    other.load_state_dict(one)
    return same


def examine(name: str, package: str, build: Callable, repeats: int) -> Row:
    """Take one model there and back."""
    (model, run, loss), (other, run_other, _) = built(build), built(build)
    types = [type(m) for m in model.modules()]
    before = outputs(model, run)
    optimisers = [torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9) for m in (model, other)]
    report = elman.convert(model)
    output, states = farthest(outputs(model, run), before), same_states(model, other)
    train(model, run, loss, optimisers[0])
    train(other, run_other, loss, optimisers[1])
    step = farthest(list(model.parameters()), list(other.parameters()))
    trained = outputs(model, run)
    elman.revert(model)
    reverted = [type(m) for m in model.modules()] == types
    reverted &= farthest(outputs(model, run), trained) <= LIMIT
    states &= list(model.state_dict()) == list(other.state_dict())
    timed = elman.convert(model, run, repeats=repeats)
    if timed.forward is None or timed.forward_backward is None:
        raise RuntimeError(f"{name}: {timed.note or 'nothing was replaced'}")
    return Row(
        name,
        metadata.version(package),
        f"{len(report.replaced)} of {len(report.replaced) + len(report.left)}",
        output,
        step,
        states,
        reverted,
        timed.forward.ratio,
        timed.forward_backward.ratio,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="parts of the models' names")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.repeats} turns")
    print(
        f"{'model':28} {'version':8} {'replaced':8} {'outputs':>8} {'3 steps':>8} "
        f"{'states':6} {'revert':6} {'forward':>7} {'+ back':>6}"
    )
    for name, (package, build) in CASES.items():
        if args.only and not any(part in name for part in args.only):
            continue
        try:
            row = examine(name, package, build, args.repeats)
        except ImportError as error:
            print(f"{name:28} skipped: {error}; pip install {package}")
            continue
        rows.append(row)
        print(
            f"{name:28} {row.version:8} {row.replaced:8} {row.output:8.1e} {row.step:8.1e} "
            f"{'same' if row.state_dict else 'DIFFER':6} {'yes' if row.reverted else 'NO':6} "
            f"{row.forward:7.2f} {row.forward_backward:6.2f}"
        )
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    wrong = [row.model for row in rows if not row.right]
    print(f"{len(rows) - len(wrong)} of {len(rows)} right" + (f"; not {wrong}" if wrong else ""))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
