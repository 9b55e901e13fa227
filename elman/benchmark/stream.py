"""One step of a stream: our stepper beside torch.nn's module called a step at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from elman.benchmark import agree
from elman.benchmark.case import Case, Shape
from elman.benchmark.peers import Unserved, both_ways, torch_module
from elman.benchmark.quiet import QUIET
from elman.benchmark.turns import Call, Spread, in_turns, near_fastest

STEPS = 200
SHAPE = Shape(STEPS, 1, 64, 128)


@dataclass(frozen=True)
class Stream:
    """Microseconds of one step, and torch.nn's time over ours.

    Attributes:
        case: the case; its shape says rows, input and hidden size.
        difference: of the stepper from the reference, the largest, relative.
        ours, torch: microseconds a step; torch None where torch.nn has no such layer.
        ratio: torch.nn's time over ours, round by round.
        note: why torch.nn was not measured.
        others: cores that other processes kept busy meanwhile; None if unknown.
    """

    case: Case
    difference: float
    ours: Spread
    torch: Spread | None = None
    ratio: Spread | None = None
    setting: str = ""
    note: str = ""
    others: float | None = None


def measure(
    case: Case, *, rounds: int | None = None, seconds: float = 2.0, seed: int = 0
) -> Stream:
    """Time one step at a time over a stream, without gradients.

    Both run over the same steps from the zero state, under `torch.inference_mode`. That the
    stepper gives what the reference gives for the whole sequence is checked first.

    Args:
        case: its batch is the number of streams; its steps are not used.

    Raises:
        Disagreement: the stepper is wrong; nothing is reported.
    """
    case = replace(case, shape=case.shape._replace(steps=STEPS), ragged=False)
    steps, further = list(case.x.unbind(0)), _by_step(case)
    stepper = case.layer.eval().stepper()

    def ours() -> list:
        stepper.reset()
        with torch.inference_mode():
            return [stepper(x, **more) for x, more in zip(steps, further, strict=True)]

    difference = _check(case, torch.stack(ours()))
    calls: dict[tuple[str, str], Call] = {("elman", ""): ours}
    note = ""
    try:
        settings = near_fastest(both_ways(_torch(case)), seed=seed)
        calls.update({("torch", setting): call for setting, call in settings.items()})
    except Unserved as reason:
        note = str(reason)
    timed = in_turns(calls, rounds=rounds, seconds=seconds, seed=seed)
    found = timed.seconds
    own = found.pop(("elman", ""))
    result = Stream(case, difference, _microseconds(own), note=note, others=timed.others)
    if not found:
        return result
    (_, setting), theirs = min(found.items(), key=lambda item: Spread.of(item[1]).median)
    ratio = Spread.of_ratios(theirs, own)
    return replace(result, torch=_microseconds(theirs), ratio=ratio, setting=setting)


def _by_step(case: Case) -> list[dict[str, Any]]:
    """The further inputs of each step, as the stepper takes them."""
    if case.inputs is None:
        return [{}] * STEPS
    return [{"inputs": {k: v[t] for k, v in case.inputs.items()}} for t in range(STEPS)]


def _check(case: Case, out: torch.Tensor) -> float:
    expected = case.call(case.another("reference"), backward=False)()[0]
    far = agree.distance(out, expected)
    if not far <= agree.TOLERANCE[case.dtype]:
        raise agree.Disagreement(agree.words(case, "the output of stepper()", far))
    return far


def _torch(case: Case) -> Call:
    module: Any = torch_module(case).eval()
    steps = [x.unsqueeze(0) for x in case.x.unbind(0)]

    def one_by_one() -> None:
        state = None
        with torch.inference_mode():
            for x in steps:
                _, state = module(x, state)

    return one_by_one


def _microseconds(seconds: list[float]) -> Spread:
    return Spread.of([1e6 * s / STEPS for s in seconds])


def words(found: Stream) -> str:
    """What was measured, in a line or two."""
    shape, ours = found.case.shape, found.ours
    line = (
        f"{found.case.cell.name}, one step of {shape.batch} row{'s' * (shape.batch != 1)}, input "
        f"{shape.input}, hidden {shape.hidden}: elman {ours.median:.1f} µs "
        f"({ours.low:.1f}–{ours.high:.1f})"
    ) + (" (others at work)" if (found.others or 0.0) > QUIET else "")
    if found.torch is None or found.ratio is None:
        return f"{line}\n  torch: {found.note}."
    ratio = found.ratio
    return (
        f"{line}, torch.nn {found.torch.median:.1f} µs ({found.setting}): "
        f"{ratio.median:.2f} times as long ({ratio.low:.2f}–{ratio.high:.2f})"
    )


def as_data(found: Stream) -> dict[str, Any]:
    """What was measured, as plain data; the ratio is torch.nn's time over ours."""
    return {
        "cell": found.case.cell.name,
        "batch": found.case.shape.batch,
        "input": found.case.shape.input,
        "hidden": found.case.shape.hidden,
        "backend": found.case.backend,
        "difference_from_reference": found.difference,
        "elman_us": vars(found.ours),
        "torch_us": found.torch and vars(found.torch),
        "ratio": found.ratio and vars(found.ratio),
        "setting": found.setting,
        "note": found.note,
        "cores_of_others": found.others,
    }
