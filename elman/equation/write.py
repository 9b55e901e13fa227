"""The equation of a graph in writing: as lines of text, and as LaTeX."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from elman.equation.graph import PARAMETER, Graph, Node
from elman.equation.operations import CALL, LANGUAGE, MINUS, POWER, PRODUCT, SUM

# Operations that are as short as a name for what they give.
LIGHT = {"neg", "transpose", "row", "column"}
SUBSCRIPT = str.maketrans("t0123456789-", "ₜ₀₁₂₃₄₅₆₇₈₉₋")


@dataclass(frozen=True)
class Notation:
    """How names, times and operations are written."""

    symbol: Callable[[str], str]
    at: Callable[[str, int], str]
    each: Callable[[str], str]
    child: Callable[[str, int], str]
    template: Callable[[str], str]
    fraction: bool
    group: str


def _text_at(name: str, steps: int) -> str:
    return name + ("t" if not steps else f"t-{steps}").translate(SUBSCRIPT)


def _latex_symbol(name: str) -> str:
    head, *rest = name.split("_")
    head = head if len(head) == 1 else rf"\mathrm{{{head}}}"
    return head + (f"_{{{','.join(rest)}}}" if rest else "")


def _latex_at(name: str, steps: int) -> str:
    return _latex_index(name, "t" if not steps else f"t-{steps}")


def _latex_index(name: str, time: str) -> str:
    head, *rest = name.split("_")
    head = head if len(head) == 1 else rf"\mathrm{{{head}}}"
    return f"{head}_{{{','.join([*rest, time])}}}"


TEXT = Notation(
    str, _text_at, "{}ⱼ".format, "{}[{}]".format, lambda op: LANGUAGE[op].text, False, "({})"
)
LATEX = Notation(
    _latex_symbol,
    _latex_at,
    lambda name: _latex_index(name, "j"),
    lambda name, k: _latex_index(name, f"[{k}]"),
    lambda op: LANGUAGE[op].latex,
    True,
    r"\left({}\right)",
)


def equation(graph: Graph) -> list[str]:
    """The equation as lines of text, one for each value that the author named.

    Example:
        >>> import elman
        >>> equation(elman.cells.get("simple").graph)
        ['hₜ = tanh(W xₜ + U hₜ₋₁ + b)']
    """
    return [f"{left} = {right}" for left, right in _lines(graph, TEXT)]


def latex(graph: Graph) -> str:
    """The equation as a LaTeX `aligned` block.

    Example:
        >>> import elman
        >>> print(latex(elman.cells.get("simple").graph))
        \\begin{aligned}
        h_{t} &= \\tanh\\left(W x_{t} + U h_{t-1} + b\\right)
        \\end{aligned}
    """
    body = " \\\\\n".join(f"{left} &= {right}" for left, right in _lines(graph, LATEX))
    return f"\\begin{{aligned}}\n{body}\n\\end{{aligned}}"


def _lines(graph: Graph, notation: Notation) -> list[tuple[str, str]]:
    labels = _labels(graph, notation)
    lines = [(labels[i], _expression(graph, i, labels, notation)[0]) for i in sorted(labels)]
    for state, index in zip(graph.states, graph.new_states, strict=True):
        left = notation.at(state.name, 0)
        if labels.get(index) != left:
            lines.append((left, _operand(graph, index, labels, notation)[0]))
    if graph.output not in (*graph.new_states, *labels):
        left = notation.at("output", 0)
        lines.append((left, _operand(graph, graph.output, labels, notation)[0]))
    return lines


def _labels(graph: Graph, notation: Notation) -> dict[int, str]:
    """What each named value is called on the left side, by node; every name once."""
    labels, taken = {}, set()
    names = {graph.nodes[i].name for i in graph.new_states}
    for index in (*graph.new_states, *range(len(graph.nodes))):
        node = graph.nodes[index]
        if not node.name or index in labels:
            continue
        # A name that a later value also has would be read as that one.
        if node.name in taken or (index not in graph.new_states and node.name in names):
            continue
        taken.add(node.name)
        labels[index] = _label(graph, index, node.name, notation)
    uses = Counter(a for node in graph.nodes for a in node.args)
    for index, node in enumerate(graph.nodes):
        # A value without a name that is read twice would otherwise be written out twice.
        if uses[index] > 1 and index not in labels and node.op in LANGUAGE.keys() - LIGHT:
            name = next(n for k in count(1) if (n := f"a_{k}") not in taken)
            taken.add(name)
            labels[index] = _label(graph, index, name, notation)
    return labels


def _label(graph: Graph, index: int, name: str, notation: Notation) -> str:
    steady = graph.levels[index] == PARAMETER
    return notation.symbol(name) if steady else notation.at(name, 0)


def _leaf(graph: Graph, node: Node, notation: Notation) -> tuple[str, int]:
    if node.op == "constant":
        value = node.attribute("value")
        return f"{value:g}".replace("-", "−" if notation is TEXT else "-"), (
            CALL if value >= 0 else MINUS
        )
    name = node.attribute("name")
    if node.op == "parameter":
        return notation.symbol(name), CALL
    if node.op == "delayed":
        return notation.at(name, node.attribute("steps")), CALL
    if node.op == "each" or any(i.name == name and i.varies == "edge" for i in graph.inputs):
        return notation.each(name), CALL
    if node.op == "child":
        return notation.child(name, node.attribute("slot")), CALL
    if node.op == "input" and any(i.name == name and i.varies == "sequence" for i in graph.inputs):
        return notation.symbol(name), CALL
    return notation.at(name, int(node.op == "state")), CALL


def _operand(graph, index, labels, notation) -> tuple[str, int]:
    if index in labels:
        return labels[index], CALL
    return _expression(graph, index, labels, notation)


def _expression(graph: Graph, index: int, labels, notation: Notation) -> tuple[str, int]:
    """A node written out, and how tightly the writing binds."""
    node = graph.nodes[index]
    if node.op not in LANGUAGE:
        return _leaf(graph, node, notation)
    operation = LANGUAGE[node.op]
    binds = CALL if notation.fraction and node.op == "div" else operation.binds
    written = []
    for place, argument in enumerate(node.args):
        text, inner = _operand(graph, argument, labels, notation)
        sign = place == 1 and node.op in ("add", "sub") and text[0] in "−-"
        if sign or inner < _needed(node.op, place, notation):
            text = notation.group.format(text)
        written.append(text)
    values = {str(i): text for i, text in enumerate(written)}
    values |= {key: f"{value:g}" for key, value in node.attributes}
    template = notation.template(node.op)
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template), binds


def _needed(op: str, place: int, notation: Notation) -> int:
    """How tightly an operand must bind to stand without parentheses."""
    if op == "div" and notation.fraction:
        return 0
    last = place == 1
    return {
        "add": SUM,
        "sub": SUM + last,
        "mul": PRODUCT,
        "div": PRODUCT + last,
        "matmul": PRODUCT + last,
        "matvec": PRODUCT + last,
        "matmat": PRODUCT + last,
        "outer": PRODUCT + 1,
        "transpose": CALL,
        "row": CALL,
        "neg": PRODUCT,
        "pow": POWER + 1,
        "gt": SUM, "ge": SUM, "lt": SUM, "le": SUM,
    }.get(op, 0)  # fmt: skip
