"""What is chosen where the user named nothing: from the data and the planned time."""

from __future__ import annotations

from typing import Any, NamedTuple

from elman.tasks.base import Budget
from elman.tasks.classify.network import REACHES, ClassifyModel
from elman.tasks.classify.options import ClassifyOptions

LEARNING: dict[str, Any] = {
    "optimizer": "adamw", "lr": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.02,
    "clip_norm": 1.0, "ema": 0.03, "precision": "32",
}  # fmt: skip

# Of questions, which a few words in a row decide.
_SHORT: dict[str, Any] = {
    "embedding": 128, "pieces": 20_000, "hidden": 100, "members": 1, "delay_members": 3,
    "dropout_input": 0.3, "smoothing": 0.05, "batch": 32, "ngrams": False,
}  # fmt: skip
_LONG = 15.0  # tokens of a text, on average, of which some can be dropped without harm
_ENOUGH = 1000  # examples from which on words seen once are left out
_EPOCHS = {"short": 5.0, "long": 4.0, "char": 12.0, "numbers": 40.0}
_SPEED = 2.5e10  # floating-point operations a second of one thread, of a whole step of training
_SHARE = 0.6  # of the minutes that members may be expected to take
_MEMBERS = 5  # at most; more give little
_MINUTES = 5.0  # if no budget is given


class Facts(NamedTuple):
    """What is known of the training part.

    Args:
        kind: "word", "char" or "numbers".
        examples: how many.
        classes: how many.
        steps: tokens or time steps of all examples.
    """

    kind: str
    examples: int
    classes: int
    steps: int

    @property
    def length(self) -> str:
        """What the number of passes goes by."""
        if self.kind != "word":
            return self.kind
        return "long" if self.steps >= _LONG * self.examples else "short"


def choose(options: ClassifyOptions, facts: Facts, budget: Budget) -> ClassifyOptions:
    """Return the options with everything chosen.

    Word dropout, passes and pieces were tried on validation parts of questions, snippets of
    reviews and names. Members are as many, up to five, as are expected to learn in the time given.
    """
    kind = facts.kind
    own: dict[str, Any] = {
        "word": {"embedding": 100, "pieces": 10_000, "hidden": 128, "pool": "max",
                 "dropout_words": 0.2 if facts.length == "long" else 0.0, "dropout_input": 0.5,
                 "dropout_output": 0.5, "batch": 50},
        "char": {"embedding": 48, "pieces": 0, "hidden": 128, "pool": "max",
                 "dropout_words": 0.0, "dropout_input": 0.2, "dropout_output": 0.3, "batch": 50},
        "numbers": {"embedding": 1, "pieces": 0, "hidden": 64, "pool": "mean", "members": 1,
                    "dropout_words": 0.0, "dropout_input": 0.0, "dropout_output": 0.2, "batch": 32},
    }[kind]  # fmt: skip
    if facts.length == "short":
        own |= _SHORT
    own |= {"delay_members": 0, "smoothing": 0.0, "ngrams": kind != "numbers"} | own
    own |= {"layers": 1, "bidirectional": True, "dropout_recurrent": 0.0, "skip": False,
            "min_count": 1}  # fmt: skip
    if facts.length == "short" and options.pieces != 0 and facts.examples >= _ENOUGH:
        own["min_count"] = 2  # of words seen once their pieces say as much, and mislead less
    if options.one_hot:
        own |= {"pieces": 0, "embedding": None, "min_count": 1}
    if options.dropout is not None:
        own |= {f"dropout_{n}": options.dropout for n in ("words", "input", "output", "recurrent")}
    chosen = {name: value for name, value in own.items() if getattr(options, name) is None}
    found = options.model_copy(update=chosen)
    if found.members is None:
        found = found.model_copy(update={"members": _members(found, facts, budget)})
    return found


def _members(options: ClassifyOptions, facts: Facts, budget: Budget) -> int:
    """As many networks as are expected to learn within most of the time."""
    if budget.steps is not None or budget.epochs is not None:
        return 3
    hidden, width = options.hidden or 1, options.embedding or options.hidden or 1
    weights = 4 * hidden * (width + hidden) * (2 if options.bidirectional else 1)
    weights *= options.layers or 1
    seconds = 6 * weights * facts.steps * _EPOCHS[facts.length] / _SPEED
    affordable = _SHARE * 60 * (budget.minutes or _MINUTES) / max(seconds, 1e-9)
    return int(min(max(affordable, 1), _MEMBERS))


def training(facts: Facts, budget: Budget) -> dict[str, Any]:
    """Return recommended options of training."""
    found = dict(LEARNING)
    if budget.steps is None and budget.epochs is None:
        found["epochs"] = _EPOCHS[facts.length]
    return found


def in_words(
    options: ClassifyOptions, facts: Facts, model: ClassifyModel, steps_per_epoch: int
) -> list[str]:
    """Say what the network is, in lines."""
    weights = sum(weight.numel() for weight in model.parameters())
    reads = f"{model.shape.width} numbers a step"
    if model.vectors is not None:
        reads = model.vectors.cost()
    if options.pieces:
        reads += f" and those of {options.pieces:,} pieces of words"
    both = "both directions" if options.bidirectional else "one direction"
    layers = f"{options.layers} layers" if (options.layers or 1) > 1 else "1 layer"
    members = options.members or 1
    many = f"; {members} such networks side by side" if members > 1 else ""
    delays = options.delay_members or 0
    if delays:
        of = "a delay network" if delays == 1 else f"{delays} delay networks"
        many += f"; beside {of} whose units look at {REACHES[0]} to {REACHES[-1]} steps"
    skip = " of outputs and vectors" if options.skip and options.pool != "last" else ""
    name = options.cell if isinstance(options.cell, str) else "own cell"
    lines = [
        f"model: {reads}; {name}, {layers} of {options.hidden} units, {both}, "
        f"{options.pool} over time{skip}{many}; {weights:,} weights in all"
    ]
    if options.ngrams:
        lines.append(
            "n-grams: log probabilities of naive Bayes are added to the network's logits, with a "
            "learned factor; in training those of counts without the very text (--no-ngrams "
            "leaves them out)"
        )
    drop = [f"{getattr(options, f'dropout_{n}'):g} {n}" for n in ("words", "input", "output")]
    balanced = "; classes weigh the same" if options.class_weights == "balanced" else ""
    lines.append(
        f"training: {options.batch} sequences a batch, {steps_per_epoch:,} steps a pass; dropout "
        f"{', '.join(drop)}{balanced}"
    )
    return lines
