"""Cells that are wrong, each in one way, and the law that must say so.

Three kinds: a file as a user could write it; a right body beside an altered equation; and a right
cell on machinery that is altered. Of a file that is no equation, the refusal must say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import elman
from elman.backends import reference
from elman.equation import OPERATIONS, Cell, Graph, Node, derivatives, serial
from elman.learning import exact, sweep

REFUSED = "refused"


@dataclass(frozen=True)
class Mutant:
    """One way of being wrong.

    Attributes:
        what: the mistake.
        law: which law is broken by it; or `REFUSED`, where the language does not take it.
        says: what the report, or the refusal, must contain.
        body: of a file: the lines of a cell's body, or all of the file.
        make: of an altered equation or machinery: the cell.
        patch: of altered machinery: what alters it.
    """

    what: str
    law: str
    says: str = ""
    body: str = ""
    make: Callable[[], Cell] | None = None
    patch: Callable[[pytest.MonkeyPatch], None] = lambda monkeypatch: None

    @property
    def file(self) -> str:
        """The text of the user's file; its cell is called `mine`."""
        if "@elman.cell" in self.body:
            return f"import random, elman, torch\n{self.body}"
        lines = "\n".join(f"    {line}" for line in self.body.splitlines())
        return f"import random, elman, torch\n@elman.cell\ndef mine(p, x, h, c):\n{lines}\n"


# --- files ---

GATES = """f = torch.sigmoid(p.W_f @ x + p.U_f @ h + p.b_f)
g = torch.tanh(p.W_g @ x + p.U_g @ h + p.b_g)
"""

FILES = (
    Mutant(
        "a detached state", REFUSED, "detach",
        body=GATES + "c = f * c.detach() + g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a dependence on the batch", REFUSED, "last size",
        body=GATES + "c = f * c + g - c.mean(0)\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a branch on data", REFUSED, "torch.where",
        body=GATES + "c = f * c + g if torch.sum(c) > 0 else c\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "noise of torch", REFUSED, "rand_like",
        body=GATES + "c = f * c + g + 0.1 * torch.rand_like(g)\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "an old state written in place", REFUSED, "in place",
        body=GATES + "c *= f\nc += g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "noise of Python", "each time the same", "another equation",
        body=GATES + "c = f * c + random.random() * g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a global that counts calls", "each time the same", "another equation",
        body="""calls = [0]
@elman.cell
def mine(p, x, h):
    calls[0] += 1
    return torch.tanh(p.W @ x + p.U @ h / calls[0])
""",
    ),
    Mutant(
        "a state kept from the first call", "each time the same", "tracing",
        body="""first = {}
@elman.cell
def mine(p, x, h):
    return torch.tanh(p.W @ x + p.U @ first.setdefault("h", h))
""",
    ),
    Mutant(
        "a constant changed after the cell", "traced = called", "differs is a",
        body="""SCALE = 0.5
@elman.cell
def mine(p, x, h):
    a = SCALE * (p.W @ x + p.U @ h)
    return torch.tanh(a)
SCALE = 0.6
""",
    ),
    Mutant(
        "a branch on the kind of a value", "traced = called", "differs is g",
        body="f = torch.sigmoid(p.U_f @ h)\ng = p.W_g @ x\n"
        "g = torch.tanh(g) if isinstance(g, torch.Tensor) else g\n"
        "c = f * c + g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a value changed in place under another name", "traced = called", "differs is old",
        body=GATES + "c = f * c\nold = c\nc += g\nreturn torch.tanh(c) - old, c",
    ),
    Mutant(
        "a mean over all of a matrix", "traced = called",
        body="""@elman.cell(sizes={"C": ("hidden", "hidden")}, output=True)
def mine(p, x, C):
    C = 0.9 * C + torch.outer(torch.tanh(p.V @ x), p.K @ x)
    return C @ (p.Q @ x) + p.b * C.sum(), C
""",
    ),
    Mutant(
        "a gate that was forgotten", "read = used", "reads p.W_f, and nothing",
        body=GATES + "c = c + g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a state without gradient", "gradient of the body", "torch.no_grad",
        body=GATES + "with torch.no_grad():\n    kept = f * c\n"
        "c = kept + g\nreturn torch.tanh(c), c",
    ),
    Mutant(
        "a gradient of its own", "gradient of the body", "Function",
        body="""class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return torch.relu(v)
    @staticmethod
    def backward(ctx, gradient):
        return gradient
@elman.cell
def mine(p, x, h):
    return Straight.apply(p.W @ x + p.U @ h + p.b)
""",
    ),
)  # fmt: skip


# --- altered equations ---


def altered(name: str | Cell, change: Callable[[Graph], Graph], **hyper) -> Callable[[], Cell]:
    """A cell whose body is right and whose equation is not."""

    def make() -> Cell:
        cell = elman.cells.get(name) if isinstance(name, str) else name
        return Cell(
            change(cell.graph), body=cell.body, hyper=cell.hyper | hyper, doc=cell.doc,
            declared=cell._declared,
        )  # fmt: skip

    return make


def change_node(graph: Graph, wanted: Callable[[int, Node], bool], **new) -> Graph:
    """The graph with the first node that is wanted replaced in some fields."""
    index = next(i for i, node in enumerate(graph.nodes) if wanted(i, node))
    nodes = list(graph.nodes)
    nodes[index] = nodes[index]._replace(**new)
    return replace(graph, nodes=tuple(nodes))


def a_sign(graph: Graph) -> Graph:
    return change_node(graph, lambda i, n: n.op == "sub", op="add")


def swapped_gates(graph: Graph) -> Graph:
    places = {node.name: i for i, node in enumerate(graph.nodes) if node.name in ("i", "f")}
    swap = {places["i"]: places["f"], places["f"]: places["i"]}
    nodes = (node._replace(args=tuple(swap.get(a, a) for a in node.args)) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def lost_term(graph: Graph) -> Graph:
    """The last sum becomes its first summand plus nothing."""
    index = max(i for i, n in enumerate(graph.nodes) if n.op == "add" and i in _gates(graph))
    nodes = list(graph.nodes)
    first = nodes[index].args[0]
    nodes[index] = nodes[index]._replace(op="minimum", args=(first, first))
    return replace(graph, nodes=tuple(nodes))


def _gates(graph: Graph) -> set[int]:
    return {a for n in graph.nodes if n.op in ("sigmoid", "tanh") for a in n.args}


def a_constant(graph: Graph) -> Graph:
    return change_node(graph, lambda i, n: n.op == "constant", attributes=(("value", 1.0 + 1e-7),))


def another_activation(graph: Graph) -> Graph:
    return change_node(graph, lambda i, n: n.op == "tanh", op="sigmoid")


def another_weight(graph: Graph) -> Graph:
    """The forget gate reads the state through the weights of the input gate."""
    place = {n.attribute("name"): i for i, n in enumerate(graph.nodes) if n.op == "parameter"}
    return change_node(
        graph,
        lambda i, n: n.op == "matmul" and n.args[0] == place["U_f"],
        args=(place["U_i"], next(i for i, n in enumerate(graph.nodes) if n.op == "state")),
    )


def a_delay(graph: Graph) -> Graph:
    return change_node(
        graph,
        lambda i, n: n.op == "delayed" and n.attribute("steps") == 1,
        attributes=(("name", "x"), ("steps", 2)),
    )


def exchanged_states(graph: Graph) -> Graph:
    return replace(graph, new_states=graph.new_states[::-1])


def the_old_state(graph: Graph) -> Graph:
    """The output gate looks at the memory of before the step."""
    old = next(
        i for i, n in enumerate(graph.nodes) if n.op == "state" and n.attribute("name") == "c"
    )
    new = graph.new_states[1]
    readers = (i for i, n in enumerate(graph.nodes) if n.op == "mul" and new in n.args)
    index = next(readers)
    nodes = list(graph.nodes)
    args = tuple(old if a == new else a for a in nodes[index].args)
    nodes[index] = nodes[index]._replace(args=args)
    return replace(graph, nodes=tuple(nodes))


def an_initial_constant(graph: Graph) -> Graph:
    state = graph.states[0]._replace(initial=1.0)
    return replace(graph, states=(state, *graph.states[1:]))


def same(graph: Graph) -> Graph:
    return graph


def sizes_of_a_scalar(graph: Graph) -> Graph:
    """A number of each row is taken for one of each unit: with as many rows as units it fits."""
    return change_node(graph, lambda i, n: n.op == "sum", dims=("hidden",))


@elman.cell
def scaled(p, x, h):
    return torch.tanh(p.W @ x + p.U @ h) * torch.dot(p.v, h)


EQUATIONS = (
    Mutant("a sign", "traced = called", make=altered("gru", a_sign)),
    Mutant("swapped gates", "traced = called", make=altered("lstm", swapped_gates)),
    Mutant("a lost term", "traced = called", make=altered("simple", lost_term)),
    Mutant("a constant, in the seventh place", "traced = called", make=altered("gru", a_constant)),
    Mutant("another weight", "traced = called", make=altered("lstm", another_weight)),
    Mutant("another activation", "traced = called", make=altered("lstm", another_activation)),
    Mutant("a delay of one step more", "traced = called", make=altered("tdnn", a_delay)),
    Mutant("states exchanged", "traced = called", make=altered("lstm", exchanged_states)),
    Mutant(
        "an old state for a new", "traced = called", make=altered("peephole_lstm", the_old_state)
    ),
    Mutant(
        "another initial state", "each time the same", make=altered("simple", an_initial_constant)
    ),
    Mutant(
        "a hyper-parameter that was not traced",
        "traced = called",
        make=altered("irnn", same, scale=0.5),
    ),
    Mutant(
        "a number of a row for one of a unit",
        "batch = alone",
        make=altered(scaled, sizes_of_a_scalar),
    ),
)


# --- altered machinery ---


def operation(name: str, evaluate: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """An operation of the language computes something else."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = replace(OPERATIONS[name], evaluate=evaluate)
        monkeypatch.setitem(OPERATIONS, name, wrong)

    return patch


def a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """The derivative of tanh is 1 − tanh in place of 1 − tanh²."""
    monkeypatch.setitem(derivatives.RULES, "tanh", lambda d, y, v: (d * (1.0 - y),))


def lost_delay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed on after a call has empty delay lines."""
    final = reference._Run.final_lines

    def empty(self, *given):
        return [torch.zeros_like(line) for line in final(self, *given)]

    monkeypatch.setattr(reference._Run, "final_lines", empty)


def a_line_that_no_reset_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    reset = reference._Past.reset

    def keeps(self, states, fresh, now):
        lines = dict(self.lines)
        new = reset(self, states, fresh, now)
        self.lines = lines
        return new

    monkeypatch.setattr(reference._Past, "reset", keeps)


def rows_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_alive", lambda lengths, t, alive: alive)


def an_influence_that_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """M' = ∂s_T/∂θ|s₀, without A M."""
    monkeypatch.setattr(exact, "_add_moved", lambda *arguments: None)


def a_reset_that_cuts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep._Walk, "_reset", lambda walk, now: None)


def a_file_without_initial_states(monkeypatch: pytest.MonkeyPatch) -> None:
    written = serial.graph_to_json

    def loses(graph):
        data = written(graph)
        return data | {"states": [s | {"initial": 0.0} for s in data["states"]]}

    monkeypatch.setattr(serial, "graph_to_json", loses)


def a_file_with_rounded_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    number = serial._number_out
    monkeypatch.setattr(
        serial, "_number_out", lambda v: float(f"{v:.6g}") if isinstance(v, float) else number(v)
    )


def leaky(p, x, h, *, alpha=1 / 3):
    return (1 - alpha) * h + alpha * torch.tanh(p.W @ x + p.U @ h)


MACHINERY = (
    Mutant(
        "an operation over the rows", "batch = alone",
        make=lambda: elman.cells.get("simple").with_hyper(f="softmax"),
        patch=operation("softmax", lambda v: torch.softmax(v, 0)),
    ),
    Mutant(
        "an operation with another's derivative", "gradient = slope",
        make=lambda: elman.cells.get("gru"),
        patch=operation("tanh", lambda v: torch.tanh(v).detach() + v - v.detach()),
    ),
    Mutant(
        "a rule of the adjoint", "adjoint = autograd",
        make=lambda: elman.cells.get("lstm"), patch=a_rule,
    ),
    Mutant(
        "an influence that stays behind", "carried = whole",
        make=lambda: elman.cells.get("gru_cho"), patch=an_influence_that_stays_behind,
    ),
    Mutant(
        "an influence of a step that passes a reset", "carried = whole",
        make=lambda: elman.cells.get("gru_cho"), patch=a_reset_that_cuts_nothing,
    ),
    Mutant(
        "delay lines lost between calls", "split = whole",
        make=lambda: elman.cells.get("tdnn"), patch=lost_delay_lines,
    ),
    Mutant(
        "a delay line that no reset reaches", "resets = separate",
        make=lambda: elman.cells.get("narx"), patch=a_line_that_no_reset_reaches,
    ),
    Mutant(
        "rows that never end", "padded = alone",
        make=lambda: elman.cells.get("gru"), patch=rows_that_never_end,
    ),
    Mutant(
        "an initial state lost in the file", "file and back",
        make=lambda: elman.cell(initial={"h": 1.0})(leaky), patch=a_file_without_initial_states,
    ),
    Mutant(
        "numbers rounded in the file", "file and back",
        make=lambda: elman.cell(leaky), patch=a_file_with_rounded_numbers,
    ),
)  # fmt: skip

MUTANTS = FILES + EQUATIONS + MACHINERY
