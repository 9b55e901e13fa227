"""Training options: what they are, how they are checked, what is chosen where nothing was said."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from elman.errors import InputError, nearest
from elman.tasks.base import Budget, TaskOptions, parse_options

DEFAULT_MINUTES = 5.0

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Part = Annotated[float, Field(ge=0, le=1)]


class TrainingOptions(TaskOptions):
    """How a run trains; a plain number of YAML or the command line for each.

    Args:
        minutes: budget in wall-clock minutes, from the call to the finished model; however long
            the reading of data takes, learning has half of it.
        steps: budget in optimiser steps.
        epochs: budget in passes over the training data; a fraction is allowed. Of several budgets
            the first to be used up ends the run. With none, the run takes 5 minutes.
        optimizer: "adamw", "adam", "sgd", or "muon": orthogonalised momentum for the matrices of
            recurrent layers (see `elman.training.optimise.Muon`), adamw for everything else.
        lr: learning rate at the top of the schedule.
        muon_lr: that of the matrices under muon.
        beta1, beta2: decay of the averages of adam and adamw.
        momentum: of sgd and muon.
        weight_decay: of adamw and muon, on matrices only, not on biases and gains.
        schedule: "cosine", "linear", "trapezoid" or "constant"; see `elman.training.schedule.rate`.
        warmup: part of the budget over which the rate rises from 0.
        decay_from: progress at which the decay begins; null is the schedule's own.
        final_lr: factor on `lr` at the end of the decay.
        l1, l2: the penalty l1 Σ|w| + l2 Σ w² over all matrices is added to the loss. Losses in
            metrics and on the screen are without it.
        clip_norm: gradients longer than this are scaled back to it; 0 is off.
        clip_value: every entry of a gradient is held within ±this, before `clip_norm`; 0 is off.
        flow_penalty: weight of the penalty that holds the length of the gradient from step to step,
            Ω = mean of (‖δ_{k+1} ∂s_{k+1}/∂s_k‖ / ‖δ_{k+1}‖ - 1)² with δ = ∂loss/∂s, against
            vanishing and exploding (Pascanu, Mikolov & Bengio 2013, section 3.3); 0 is off.
        recurrent_init: how the recurrent matrices start: "orthogonal" (Saxe et al. 2014),
            "identity" (Le, Jaitly & Hinton 2015) or "uniform"; as the cell has it if not given.
        forget_bias: bias at the start of the gates that keep a state, against vanishing; 1 keeps
            73 % a step (Gers et al. 2000; Jozefowicz et al. 2015).
        chrono: longest time, in steps, over which something must be remembered; the gates that
            keep a state start spread over times up to it (Tallec & Ollivier 2018).
        fidelity: steps between comparisons of the run's gradient with the exact one of the whole
            stream, whose influence is carried beside the run; cosine and relative error go into
            metrics.jsonl. It costs what carry=exact costs; 0 is off.
        ema: weights are averaged over about this part of the steps done so far, and the average is
            what is validated and kept; 0 is off.
        patience: end the run after so many validations without a gain; 0 is off.
        precision: "32", "bf16" (matrix products in bfloat16, weights in float32), "64", or "auto":
            bf16 where the machine multiplies it in hardware.
        device: "auto", "cpu", "cuda" or "mps".
        seed: of the initial weights, the order of the data, and dropout.
        validate_every: steps between validations; 0 is ten times a run.
        checkpoint_every: steps between checkpoints; 0 is every 30 seconds and at each validation.
        flush_denormal: treat numbers below 1e-38 as 0, which saves time on a CPU.
    """

    minutes: Positive | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    epochs: Positive | None = None
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = "adamw"
    lr: Positive = 2e-3
    muon_lr: Positive = 0.04
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 0.01
    schedule: Literal["cosine", "linear", "trapezoid", "constant"] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    decay_from: Part | None = None
    final_lr: Part = 0.0
    l1: NotNegative = 0.0
    l2: NotNegative = 0.0
    clip_norm: NotNegative = 1.0
    clip_value: NotNegative = 0.0
    flow_penalty: NotNegative = 0.0
    recurrent_init: Literal["orthogonal", "identity", "uniform"] | None = None
    forget_bias: float | None = None
    chrono: Annotated[float, Field(gt=2)] | None = None
    fidelity: Annotated[int, Field(ge=0)] = 0
    ema: Part = 0.0
    patience: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "32", "bf16", "64"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    validate_every: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Annotated[int, Field(ge=0)] = 0
    flush_denormal: bool = True


BUDGET = ("minutes", "steps", "epochs")
# What may be said again when a run is resumed; everything else is what the run began with.
RESUMABLE = (
    *BUDGET,
    "lr",
    "muon_lr",
    "clip_norm",
    "clip_value",
    "flow_penalty",
    "patience",
    "validate_every",
    "checkpoint_every",
)
# How well these suit depends on the optimiser they were recommended for.
_OF_OPTIMIZER = ("lr", "muon_lr", "beta1", "beta2", "momentum", "weight_decay")
_OWN: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.5},
    "muon": {"lr": 8e-3, "momentum": 0.95},
}
_DECAYS_WEIGHTS = ("adamw", "muon")


def divide(
    given: Mapping[str, Any], task_fields: Collection[str] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide named options into those of the task and those of training; None means not given.

    Args:
        given: names and values.
        task_fields: names the task knows; None leaves it to the task to refuse names.

    Returns:
        options of the task, options of training.

    Raises:
        InputError: a name that neither knows; the nearest known one is suggested.
    """
    task, training = {}, {}
    for name, value in given.items():
        ours = name in TrainingOptions.model_fields
        if not ours and task_fields is not None and name not in task_fields:
            known = [*task_fields, *TrainingOptions.model_fields]
            raise InputError(f"train: unknown option {name!r}.{nearest(name, known)}")
        if value is not None:
            (training if ours else task)[name] = value
    return task, training


def check(given: Mapping[str, Any], where: str = "train") -> TrainingOptions:
    """Check given options, before any work is done; a whole number may stand for a float.

    Raises:
        InputError: in one line, what is wrong with the first option that cannot be used.
    """
    options = parse_options(TrainingOptions, given, where)
    if options.optimizer not in _DECAYS_WEIGHTS and given.get("weight_decay"):
        raise InputError(
            f"{where}: weight_decay belongs to adamw and muon; with {options.optimizer} use l2, "
            "the penalty l2 Σ w²."
        )
    if options.chrono is not None and options.forget_bias is not None:
        raise InputError(
            f"{where}: forget_bias and chrono both set the biases of the gates that keep a state; "
            "give one of them."
        )
    return options


def budget(given: Mapping[str, Any]) -> Budget:
    """Return the budget that was given, or five minutes."""
    named = {name: given[name] for name in BUDGET if given.get(name) is not None}
    return Budget(**(named or {"minutes": DEFAULT_MINUTES}))


def resolve(
    given: Mapping[str, Any], recommended: Mapping[str, Any], where: str = "train"
) -> TrainingOptions:
    """Settle every option: what was given, else what the task recommends, else the default.

    Recommended rates are left out where another optimiser was given than they are for.
    """
    recommended = dict(recommended)
    optimizer = given.get("optimizer", recommended.get("optimizer", "adamw"))
    if optimizer != recommended.get("optimizer", "adamw"):
        for name in _OF_OPTIMIZER:
            recommended.pop(name, None)
    own = _OWN.get(optimizer, {})
    if given.get("steps") is not None or given.get("epochs") is not None:
        for name in BUDGET:  # a length that was asked for is not cut short by advice
            recommended.pop(name, None)
    limits = {name: value for name, value in vars(budget(given)).items() if value is not None}
    merged = {**own, **recommended, **given, **limits}
    if optimizer not in _DECAYS_WEIGHTS:
        merged.setdefault("weight_decay", 0.0)
    merged["device"] = resolve_device(merged.get("device", "auto"))
    merged["precision"] = resolve_precision(merged.get("precision", "auto"), merged["device"])
    return check(merged, where)


def resolve_device(device: str) -> str:
    """Return the device to use: "auto" is the first accelerator there is, else the CPU.

    Raises:
        InputError: the device that was named is not there.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there.get(device, False):
        names = ", ".join(name for name, here in there.items() if here)
        raise InputError(f"train: there is no device {device!r} here; there is: {names}.")
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return the precision to use: "auto" is "bf16" where the hardware multiplies it, else "32"."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "32"
    if device == "cpu":
        return "bf16" if cpu_multiplies_bf16() else "32"
    return "32"


def cpu_multiplies_bf16() -> bool:
    """Return whether this CPU has matrix instructions for bfloat16 (AVX-512 BF16 or AMX)."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in older torch
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
