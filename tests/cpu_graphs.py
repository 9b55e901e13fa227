"""Random cells of the language for the fuzz: bodies written line by line, as a user would.

A body is text, so that what fails can be read and kept. Values have one of the sizes "input",
"hidden", "other", or are one number a row, ""; every parameter's shape is declared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st

import elman

SIZES = ("input", "hidden", "other")
UNARY = (
    "torch.tanh({0})", "torch.sigmoid({0})", "torch.relu({0})", "F.leaky_relu({0}, 0.2)",
    "F.elu({0}, 0.7)", "F.softplus({0}, 2.0)", "F.hardsigmoid({0})", "F.hardtanh({0})",
    "F.silu({0})", "F.logsigmoid({0})", "torch.exp(-torch.abs({0}))", "torch.exp(torch.sin({0}))",
    "torch.log(1.2 + {0} * {0})", "torch.sqrt(0.3 + {0} * {0})", "torch.abs({0})",
    "torch.sin({0})", "torch.cos({0})", "-{0}", "1 - {0}", "0.5 * {0}",
    "torch.clamp({0}, -0.4, 0.6)",
    "{0} ** 2", "{0} ** 3", "(0.5 + torch.abs({0})) ** 1.5", "(0.7 + {0} * {0}) ** -0.5",
    "1.3 ** {0}", "1 / (1.5 + torch.sin({0}))",
)  # fmt: skip
BINARY = (
    "{0} + {1}", "{0} - {1}", "{0} * {1}", "{0} / (1.6 + torch.cos({1}))",
    "torch.minimum({0}, {1})", "torch.maximum({0}, {1} + 0.01)", "(1.1 + torch.sin({0})) ** {1}",
    "torch.where({0} > {1}, {1}, 0.3 * {0})", "torch.where({0} <= 0.1, {1}, -{0})",
    "torch.where({1} >= {0}, 1.0, 0.25) * {0}", "torch.where({0} < {1}, {0}, 0.0)",
    "{1} - torch.tanh({0})",
)  # fmt: skip
OVER = ("torch.softmax({0}, -1)", "F.layer_norm({0}, (1,))")
TO_NUMBER = ("torch.sum({0}, -1)", "torch.mean({0}, -1)", "torch.dot({0}, {0})")
OF_PARAMETERS = ("{0}", "torch.exp(-{0} * {0})", "torch.sigmoid({0})", "(1 - {0})")
OF_SQUARES = ("{0}", "{0}.T", "({0} - {0}.T)", "(0.5 * {0} + {0}.T)")
KEEPS = ("{1}", "0.6 * {0} + 0.4 * torch.tanh({1})", "torch.tanh({1})", "{0} + 0.1 * {1}", "{0}")


WORD = re.compile(r"\w+")


@dataclass
class Body:
    """A random cell: its lines, and what `elman.cell` must be told.

    `values` are the names at hand by size; a state's line is read as `elman.delay` of its name.
    """

    arguments: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, object] = field(default_factory=dict)
    shapes: dict[str, object] = field(default_factory=dict)
    initial: dict[str, float] = field(default_factory=dict)
    output: bool = False

    def text(self) -> str:
        lines = "\n".join(f"    {line}" for line in self.lines)
        return f"def body(p, {', '.join(self.arguments)}):\n{lines}\n"

    def __repr__(self) -> str:
        told = f"sizes={self.sizes}, inputs={self.inputs}, shapes={self.shapes}"
        return f"@elman.cell({told}, initial={self.initial}, output={self.output})\n{self.text()}"

    def cell(self):
        names = {"elman": elman, "torch": torch, "F": torch.nn.functional}
        exec(self.text(), names)
        return elman.cell(
            sizes=self.sizes, inputs=self.inputs, shapes=self.shapes, initial=self.initial,
            output=self.output,
        )(names["body"])  # fmt: skip

    def value(self, expression: str, size: str) -> str:
        """A new line that names a value."""
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        self.values.setdefault(size, []).append(name)
        return name

    def parameter(self, *dims: str) -> str:
        name = f"P{len(self.shapes)}"
        self.shapes[name] = dims[0] if len(dims) == 1 else dims
        return f"p.{name}"

    def prune(self) -> None:
        """Leave out the lines and the parameters that nothing reads."""
        used, kept = set(WORD.findall(self.lines[-1])), self.lines[-1:]
        for line in reversed(self.lines[:-1]):
            name, expression = line.split(" = ", 1)
            if name in used:
                used |= set(WORD.findall(expression))
                kept.insert(0, line)
        self.lines = kept
        self.shapes = {name: shape for name, shape in self.shapes.items() if name in used}

    def known(self, *dims: str) -> list[str]:
        """The parameters of a shape, to be shared."""
        wanted = dims[0] if len(dims) == 1 else dims
        return [f"p.{name}" for name, shape in self.shapes.items() if shape == wanted]


def _one(draw, choices):
    return draw(st.sampled_from(list(choices)))


def _value(draw, body: Body, size: str) -> str:
    """A value of a size, more often one of the last."""
    values = body.values[size]
    return _one(draw, values[-2:] if draw(st.integers(0, 2)) else values)


def _parameter(draw, body: Body, *dims: str) -> str:
    known = body.known(*dims)
    if known and draw(st.integers(0, 3)) == 0:
        return _one(draw, known)
    return body.parameter(*dims)


def _vector_size(draw, body: Body) -> str:
    return _one(draw, [size for size in SIZES if body.values.get(size)])


def _product(draw, body: Body) -> None:
    source, target = _vector_size(draw, body), _one(draw, SIZES[1:])
    matrix = _parameter(draw, body, target, source)
    if source == target:
        matrix = _one(draw, OF_SQUARES).format(matrix)
    expression = f"{matrix} @ {_value(draw, body, source)}"
    if body.values.get(target) and draw(st.booleans()):
        other = _vector_size(draw, body)
        second = f"{_parameter(draw, body, target, other)} @ {_value(draw, body, other)}"
        expression = f"{expression} {_one(draw, '+-')} {second}"
    if draw(st.booleans()):
        expression += f" + {_parameter(draw, body, target)}"
    body.value(expression, target)


def _pointwise(draw, body: Body) -> None:
    size = _one(draw, body.values)
    value = _value(draw, body, size)
    body.value(_one(draw, UNARY).format(value), size)


def _of_two(draw, body: Body) -> None:
    size = _one(draw, body.values)
    one = _value(draw, body, size)
    partners = [v for v in body.values[size] + body.values.get("", []) if v != one]
    other = _one(draw, partners) if partners else f"({one} - 0.5)"
    operands = (other, one) if draw(st.booleans()) else (one, other)
    body.value(_one(draw, BINARY).format(*operands), size)


def _with_parameter(draw, body: Body) -> None:
    size = _one(draw, body.values)
    dims = (size,) if size and draw(st.integers(0, 4)) else ()
    known = [f"p.{n}" for n, s in body.shapes.items() if s == (size if dims else ())]
    if known and draw(st.booleans()):
        name = _one(draw, known)
    elif dims:
        name = body.parameter(size)
    else:
        name = f"p.P{len(body.shapes)}"
        body.shapes[name[2:]] = ()
    term = _one(draw, OF_PARAMETERS).format(name)
    body.value(f"{_value(draw, body, size)} {_one(draw, '+*-')} {term}", size)


def _over_units(draw, body: Body) -> None:
    size = _vector_size(draw, body)
    value = _value(draw, body, size)
    if draw(st.booleans()):
        body.value(_one(draw, OVER).format(value), size)
    else:
        body.value(_one(draw, TO_NUMBER).format(value), "")


def _delayed(draw, body: Body) -> None:
    name = _one(draw, body.arguments)
    size = next(size for size, names in body.values.items() if name in names)
    state = name != "x" and name not in body.inputs
    body.value(f"elman.delay({name}, {draw(st.integers(2 if state else 1, 3))})", size)


KINDS = (_product, _product, _product, _pointwise, _pointwise, _of_two, _of_two,
         _with_parameter, _over_units, _delayed)  # fmt: skip


@st.composite
def bodies(draw, most: int = 10) -> Body:
    """A cell of one to three states, some of other sizes or single numbers."""
    body = Body(["x"], values={"input": ["x"]})
    if draw(st.integers(0, 3)) == 0:
        body.inputs["dt"], size = _one(draw, (((), ""), ("other", "other"), ("hidden", "hidden")))
        body.arguments.append("dt")
        body.values.setdefault(size, []).append("dt")
    states = []
    for name in ("h", "c", "s")[: draw(st.integers(1, 3))]:
        size = "hidden" if name == "h" else _one(draw, ("hidden", "hidden", "other", ""))
        if size != "hidden":
            body.sizes[name] = size or ()
        if draw(st.booleans()):
            body.initial[name] = 0.5
        body.arguments.append(name)
        body.values.setdefault(size, []).append(name)
        states.append((name, size))
    body.value(f"{body.parameter('hidden', 'input')} @ x", "hidden")
    for _ in range(draw(st.integers(1, most))):
        _one(draw, KINDS)(draw, body)
    body.output = draw(st.integers(0, 3)) == 0
    returned = []
    if body.output:
        returned.append(_one(draw, [v for s in SIZES[1:] for v in body.values.get(s, [])]))
    for name, size in states:
        value = _one(draw, body.values[size][-3:])
        if draw(st.booleans()):
            value = f"({value} * {_value(draw, body, size)})"
        returned.append(_one(draw, KEEPS).format(name, value))
    body.lines.append(f"return {', '.join(returned)}")
    body.prune()
    return body
