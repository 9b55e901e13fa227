"""Every law on one cell, the smallest case in which one is broken, and the figures of its start."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from elman.diagnose import body, credit, laws, slopes
from elman.diagnose.compare import Comparison, Difference
from elman.diagnose.gain import Start, at_start
from elman.diagnose.trial import Trial, full_sizes, trials
from elman.equation import Cell
from elman.equation.adjoint import adjoint
from elman.equation.neighbours import gathers
from elman.equation.saving import saving
from elman.equation.sizes import shape_of
from elman.errors import ElmanError, InputError

FLOAT32 = 4


class Law(NamedTuple):
    """A law of every cell.

    Attributes:
        name: what equals what.
        says: the law, in a sentence.
        holds: tries it.
        remedy: what is usually wrong where it is broken.
        of_body: whether it needs the cell's Python.
        steps: the fewest steps it says anything about.
    """

    name: str
    says: str
    holds: Callable[[Trial], Comparison]
    remedy: str
    of_body: bool = False
    steps: int = 1


READ = Law(
    "read = used",
    "all that the body reads has an effect",
    body.read_is_used,
    "a gate or a term was written and then forgotten in what follows",
    of_body=True,
)
LAWS: tuple[Law, ...] = (
    READ,
    Law(
        "each time the same",
        "a second trace and a second call give the same",
        body.same_each_time,
        "a body may depend on its arguments alone: no random numbers, no globals that change, "
        "nothing kept from call to call, no writing in place (+=)",
        of_body=True,
    ),
    Law(
        "traced = called",
        "the body on tensors gives what its equation gives",
        body.traced_is_called,
        "the body takes another way on tensors than while it is traced: a branch on the type of a "
        "value, a global that changed since, a sum or softmax over other axes, += on a name that "
        "another name shares",
        of_body=True,
    ),
    Law(
        "gradient of the body",
        "autograd through the body is that through its equation",
        body.gradient_of_the_body,
        "the body cuts or replaces a gradient, which an equation does not carry: torch.no_grad, "
        "a torch.autograd.Function; learning=elman.BPTT(window=…) cuts gradients",
        of_body=True,
    ),
    Law(
        "gradient = slope",
        "gradients are difference quotients",
        slopes.gradient_is_slope,
        "an operation's derivative in torch does not belong to its value",
    ),
    Law(
        "adjoint = autograd",
        "a step's symbolic adjoint gives autograd's gradients",
        slopes.adjoint_is_autograd,
        "a rule in elman/equation/derivatives.py does not belong to its operation",
    ),
    Law(
        "carried = whole",
        "with a carry, gradients in windows are the whole's",
        credit.carried_is_whole,
        "a step's derivatives do not belong to its values: a rule in "
        "elman/equation/derivatives.py, or something that passes from step to step and is neither "
        "state nor delay line",
        steps=2,
    ),
    Law(
        "batch = alone",
        "a row does not see its neighbours",
        laws.row_is_alone,
        "an operation works over the rows of the batch",
    ),
    Law(
        "split = whole",
        "in parts, and step by step, a sequence gives the same",
        laws.split_is_whole,
        "something is carried from step to step that is neither state nor delay line",
        steps=2,
    ),
    Law(
        "padded = alone",
        "what stands past a row's end, NaN even, is not seen",
        laws.padded_is_alone,
        "an operation reads steps past a row's end",
        steps=2,
    ),
    Law(
        "resets = separate",
        "after a reset begins a sequence of its own",
        laws.reset_is_separate,
        "something passes a reset: a state or a delay line that is not made fresh",
        steps=2,
    ),
    Law(
        "file and back",
        "a model file holds this equation, to the bit",
        laws.file_and_back,
        "the JSON of the equation loses something",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What became of one law.

    Attributes:
        law: the law.
        holds: true or false; None where it does not apply to the cell.
        figure: the largest relative difference found; infinite where there is no number.
        tolerance: the largest that is allowed.
        said: what is wrong beside numbers, such as the error that was raised.
        case: where broken, the smallest trial in which it is.
        difference: where broken, the two numbers furthest apart in that trial.
        sides: what the two numbers are of.
        hint: where the difference comes from, as far as it is known.
    """

    law: Law
    holds: bool | None
    figure: float = 0.0
    tolerance: float = 0.0
    said: tuple[str, ...] = ()
    case: Trial | None = None
    difference: Difference | None = None
    sides: tuple[str, str] = ("", "")
    hint: str = ""


class Cost(NamedTuple):
    """What a cell needs at given sizes; operations and bytes are of one step and one row.

    Attributes:
        parameters: trained numbers.
        operations: of arithmetic, forwards.
        carried: bytes of the states and delay lines in single precision.
        kept: bytes that the backward pass needs of each step, in single precision.
    """

    parameters: int
    operations: int
    carried: int
    kept: int


@dataclass(frozen=True)
class Report:
    """The laws on one cell, and what it does and needs at its start.

    `start` and `cost` are None where a broken law keeps the equation from being run.
    """

    cell: Cell
    seed: int
    verdicts: tuple[Verdict, ...]
    sizes: Mapping[str, int]
    start: Start | None
    cost: Cost | None
    seconds: float = field(compare=False, default=0.0)

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The verdicts on the laws that do not hold."""
        return tuple(v for v in self.verdicts if v.holds is False)

    @property
    def holds(self) -> bool:
        return not self.broken


def check(
    cell: Cell | str, *, input_size: int = 64, hidden_size: int = 128, seed: int = 0
) -> Report:
    """Try every law on a cell, and measure it at its start.

    The laws run in double precision at small sizes: all different, and all equal; with random
    weights, inputs and states, of usual size and large enough to saturate.

    Args:
        cell: a cell, or a name of `elman.cells`.
        input_size: for the figures of cost and of the start, ≥ 1.
        hidden_size: likewise.
        seed: of all random values.

    Returns:
        Report: `holds`, `broken`, and a verdict for each law; `elman.diagnose.report` writes it.

    Raises:
        InputError: no such cell, or sizes that it cannot have.

    Example:
        >>> import elman
        >>> report = check("lstm", input_size=4, hidden_size=8)
        >>> report.holds, report.cost.parameters
        (True, 416)
    """
    import elman.cells

    began = time.perf_counter()
    cell = elman.cells.get(cell) if isinstance(cell, str) else cell
    if gathers(cell.graph):
        raise InputError(
            f"check: {cell.name} is a cell of trees or graphs, and the laws are those of "
            "sequences; torch.autograd.gradcheck on elman.Tree or elman.Network tries its "
            "gradients"
        )
    sizes = full_sizes(cell.graph, input_size, hidden_size)
    tries = trials(cell, seed)
    read = judge(READ, tries)
    # With something to read that the equation does not have, the body cannot be called.
    verdicts = tuple(
        Verdict(law, None) if law.of_body and read.holds is not True else judge(law, tries)
        for law in LAWS[1:]
    )
    verdicts = (read, *verdicts)
    start, cost = None, None
    try:
        start, cost = at_start(cell.graph, sizes, seed), cost_of(cell, sizes)
    except Exception:
        if all(v.holds is not False for v in verdicts):
            raise
    return Report(cell, seed, verdicts, sizes, start, cost, time.perf_counter() - began)


def judge(law: Law, tries: Sequence[Trial]) -> Verdict:
    """Try a law on all trials; where it is broken, find the smallest trial in which it is."""
    if law.of_body and tries[0].cell.body is None:
        return Verdict(law, None)
    found = [(trial, attempt(law, trial)) for trial in tries]
    broken = [pair for pair in found if not pair[1].holds]
    if broken:
        # Two numbers that differ tell more than an error.
        return _verdict(law, *_shrunk(law, *min(broken, key=lambda pair: len(pair[1].said))))
    worst = max((comparison for _, comparison in found), key=lambda comparison: comparison.figure)
    return Verdict(law, True, worst.figure, worst.tolerance)


def attempt(law: Law, trial: Trial) -> Comparison:
    """One law on one trial; an error that is raised breaks it."""
    try:
        return law.holds(trial)
    except Exception as error:  # a user's body may raise anything, and it is to be told
        result = Comparison("", "", 0.0)
        words = str(error).strip().split("\n", 1)[0]
        ours = isinstance(error, ElmanError)
        result.fail(words if ours else f"raises {type(error).__name__}: {words}")
        return result


def _shrunk(law: Law, trial: Trial, found: Comparison) -> tuple[Trial, Comparison]:
    """A trial that is broken too, and of which no smaller one is."""
    while True:
        for smaller in trial.smaller():
            if smaller.time < law.steps:
                continue
            again = attempt(law, smaller)
            # A smaller case that goes wrong in another way would tell of something else.
            if not again.holds and bool(again.said) == bool(found.said):
                trial, found = smaller, again
                break
        else:
            return trial, found


def _verdict(law: Law, trial: Trial, found: Comparison) -> Verdict:
    return Verdict(
        law, False, found.figure, found.tolerance, tuple(found.said), trial, found.worst,
        found.sides, found.hint,
    )  # fmt: skip


def cost_of(cell: Cell, sizes: Mapping[str, int]) -> Cost:
    """Count what a cell needs; see `Cost`."""
    graph = cell.graph
    counts = graph.count(sizes)

    def entries(dims) -> int:
        return int(torch.Size(shape_of(dims, sizes)).numel())

    carried = sum(entries(s.dims) for s in graph.states)
    carried += sum(line.depth * entries(line.dims) for line in graph.lines)
    backward = adjoint(graph)
    chosen = saving(backward, sizes)
    kept = sum(entries(backward.nodes[i].dims) for i in {*chosen.saved, *chosen.given})
    return Cost(counts.parameters, counts.operations, FLOAT32 * carried, FLOAT32 * kept)
