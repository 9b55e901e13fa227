"""A cell: one equation, its names, and what can be asked of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, overload

from torch import Tensor

from elman.equation.graph import Graph, Initialiser
from elman.equation.initial import check_initialiser
from elman.equation.operations import ACTIVATIONS, OPERATIONS
from elman.equation.symbols import Symbol, indexed_name
from elman.equation.trace import Declared, Shaped, signature, trace
from elman.errors import EquationError, InputError, nearest

_past: ContextVar[dict[int, tuple] | None] = ContextVar("past", default=None)


class Cell:
    """One recurrence, written once; made by `elman.cell`, or from a file by `Cell.from_json`.

    Attributes:
        name: the name of the equation.
        title: the first line of its docstring.
        doc: the docstring.
        source: where the equation comes from.
        family: the kind of cell, for listings.
        hyper: the values of its hyper-parameters.
        graph: one step, for these values.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        body: Callable | None = None,
        hyper: Mapping[str, Any] | None = None,
        declared: Declared | None = None,
        family: str = "",
        doc: str = "",
        source: str = "",
    ):
        self.graph = graph
        self.hyper = dict(hyper or {})
        self.family, self.doc, self.source = family, doc, source
        self._body, self._declared = body, declared or Declared()
        self._variants: dict[tuple, Cell] = {}

    @property
    def name(self) -> str:
        return self.graph.name

    @property
    def title(self) -> str:
        return self.doc.strip().split("\n", 1)[0]

    @property
    def body(self) -> Callable | None:
        """The function that the cell was made of; None for a cell that was loaded from a file."""
        return self._body

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of what the body takes after p: x, further inputs and states, in its order."""
        if self._body is None:
            return (*(i.name for i in self.graph.inputs), *self.states)
        return tuple(signature(self._body)[0])

    @property
    def states(self) -> tuple[str, ...]:
        return tuple(state.name for state in self.graph.states)

    def __repr__(self) -> str:
        hyper = "".join(f", {k}={v}" for k, v in hyper_as_data(self.hyper).items())
        return f"<elman cell {self.name}({', '.join(self.states)}{hyper})>"

    def __reduce__(self):
        # Pickle (of a whole layer, as torch users do) carries the equation, never the code.
        return _cell_from_json, (self.to_json(),)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cell):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.name, self.graph))

    def __call__(self, p, x: Tensor, *states: Tensor, past: Mapping | None = None):
        """Call the body itself on tensors: one row of one step, plain torch.

        Args:
            p: what hands out the parameters, such as `Parameters(tensors)`.
            x: the input, (input,).
            states: the further inputs and the old states, in the body's order.
            past: for a cell with delays, by name the values before the one given, newest first:
                x_{t−1}, x_{t−2}, … for an input and h_{t−2}, h_{t−3}, … for a state.

        Raises:
            InputError: the cell was loaded from a file and has no body.
        """
        if self._body is None:
            raise InputError(
                f"{self.name} was loaded from its equation and has no Python body to call; use "
                "elman.Recurrent, or the reference backend, which evaluates the equation"
            )
        history = {
            id(value): (
                value,
                tuple((past or {}).get(name, ())),
                "state" if name in self.states else "input",
            )
            for name, value in zip(self.arguments, (x, *states), strict=True)
        }
        token = _past.set(history)
        try:
            return self._body(p, x, *states, **self.hyper)
        finally:
            _past.reset(token)

    def with_hyper(self, **values: Any) -> Cell:
        """The same cell with other values of its hyper-parameters, traced anew (once a set).

        Args:
            values: numbers, flags, or activations by function or name.

        Raises:
            InputError: a name or value that the cell does not have.

        Example:
            >>> import elman
            >>> elman.cells.get("simple").with_hyper(f="relu").hyper["f"].__name__
            'relu'
        """
        if not values:
            return self
        for name in values:
            if name not in self.hyper:
                has = ", ".join(self.hyper) or "none"
                raise InputError(
                    f"{self.name} has no hyper-parameter {name!r}."
                    f"{nearest(name, self.hyper)} It has: {has}"
                )
        hyper = {k: _hyper_value(self.name, k, values.get(k, v), v) for k, v in self.hyper.items()}
        if hyper == self.hyper:
            return self
        if self._body is None:
            raise InputError(
                f"{self.name} was loaded from its equation, where the hyper-parameters are fixed "
                f"at {hyper_as_data(self.hyper)}"
            )
        key = tuple(hyper.items())
        if key not in self._variants:
            self._variants[key] = _traced(
                self._body, hyper, self._declared, self.family, self.doc, self.source
            )
        return self._variants[key]

    def traced_again(self) -> Cell:
        """The same cell of a fresh trace of its body; itself where it has none.

        Raises:
            EquationError: this time the body does what an equation cannot.
        """
        if self._body is None:
            return self
        given = self.hyper, self._declared, self.family, self.doc, self.source
        return _traced(self._body, *given)

    def to_json(self) -> dict[str, Any]:
        """Everything that rebuilds the cell without its code, as plain data."""
        from elman.equation.serial import graph_to_json

        return {
            "graph": graph_to_json(self.graph),
            "hyper": hyper_as_data(self.hyper),
            "family": self.family,
            "doc": self.doc,
            "source": self.source,
        }

    @staticmethod
    def from_json(data: Any) -> Cell:
        """The cell of `to_json`'s data, every part of which is checked.

        Raises:
            FileError: the data is no cell of this version's language.
        """
        from elman.equation.serial import cell_parts

        parts = cell_parts(data)
        return Cell(parts.pop("graph"), **parts)


def _cell_from_json(data) -> Cell:
    return Cell.from_json(data)


class Parameters:
    """The `p` of a body called on tensors: p.name and p["U", 2] hand out the tensors by name.

    Example:
        >>> p = Parameters({"W": 1.0, "U_2": 2.0})
        >>> p.W, p["U", 2]
        (1.0, 2.0)
    """

    def __init__(self, tensors: Mapping[str, Any]):
        self.__dict__.update(tensors)

    def __getitem__(self, key):
        return getattr(self, indexed_name(key))


@overload
def cell(body: Callable) -> Cell: ...
@overload
def cell(
    *,
    sizes: Mapping[str, Shaped] | None = None,
    shapes: Mapping[str, Shaped] | None = None,
    init: Mapping[str, Initialiser] | None = None,
    initial: Mapping[str, float] | None = None,
    inputs: Mapping[str, Shaped] | None = None,
    edges: Mapping[str, Shaped] | None = None,
    output: bool | str = False,
    family: str = "",
) -> Callable[[Callable], Cell]: ...
def cell(
    body: Callable | None = None,
    *,
    sizes: Mapping[str, Shaped] | None = None,
    shapes: Mapping[str, Shaped] | None = None,
    init: Mapping[str, Initialiser] | None = None,
    initial: Mapping[str, float] | None = None,
    inputs: Mapping[str, Shaped] | None = None,
    edges: Mapping[str, Shaped] | None = None,
    output: bool | str = False,
    family: str = "",
) -> Cell | Callable[[Callable], Cell]:
    """Make a recurrent cell of a function that computes one step in plain torch.

    The function takes `p`, which hands out parameters where they are used, the input x, and the
    old states by name; it returns the new states in the same order, and the first is the output.
    `p.W @ v` is a matrix, any other `p.name` a vector. Keyword-only arguments with defaults are
    hyper-parameters. The equation is traced here, with the defaults.

    A size is a name ("output"), or a part of one ("hidden/4"); a shape is a size for a vector, or
    a tuple: () for a number, two sizes for a matrix.

    Args:
        sizes: by name, the size of a state (or of x) that is not "hidden" (or "input"), or the
            shape of a state that is a matrix.
        shapes: the shape of a parameter, where its use leaves it open or it is a scalar.
        init: how parameters start, by name or by a pattern such as `b_*`: "uniform" (the
            default: torch.nn's, U(−1/√hidden, 1/√hidden)), "unit" (U(0, 1)), "identity",
            "orthogonal", "zeros", "ones", "xavier_uniform", "normal", or a number.
        initial: the constant with which a state starts; 0 if not given.
        inputs: the arguments that are not states but further inputs of each step, such as the
            time since the last one, {"dt": ()}, with their shapes.
        edges: the arguments that have a value for each edge of a graph, with their shapes.
        output: true where an output that is no state stands first in what is returned; or its
            size.
        family: a word that groups cells in listings.

    Returns:
        Cell: to be given to `elman.Recurrent`, or to `elman train … --cell file.py:name`.

    Raises:
        EquationError: the body does what an equation cannot; the error names the line and what
            to write instead.

    Example:
        >>> import elman, torch
        >>> @elman.cell
        ... def leaky(p, x, h, *, alpha=0.1):
        ...     return (1 - alpha) * h + alpha * torch.tanh(p.W @ x + p.U @ h + p.b)
        >>> leaky.graph.parameter_shapes({"input": 3, "hidden": 4})
        {'W': (4, 3), 'U': (4, 4), 'b': (4,)}
        >>> print(*leaky.graph.equation(), sep="\\n")
        hₜ = 0.9 ⊙ hₜ₋₁ + 0.1 ⊙ tanh(W xₜ + U hₜ₋₁ + b)

    Source: the form of the equations is that of the papers; see each cell's own.
    """
    declared = Declared(
        sizes or {}, shapes or {}, init or {}, initial or {}, inputs or {}, output, edges or {}
    )

    def make(body: Callable) -> Cell:
        if not inspect.isfunction(body):
            raise InputError(f"elman.cell decorates a function; got {type(body).__name__}")
        _, defaults = signature(body)
        hyper = {k: _hyper_value(body.__name__, k, v, v) for k, v in defaults.items()}
        doc = inspect.getdoc(body) or ""
        return _traced(body, hyper, declared, family, doc, _source(doc))

    return make if body is None else make(body)


def _traced(body, hyper, declared, family, doc, source) -> Cell:
    for name, value in declared.init.items():
        check_initialiser(f"{body.__name__}: init of {name}", value)
    graph = trace(body, hyper, declared)
    return Cell(
        graph, body=body, hyper=hyper, declared=declared, family=family, doc=doc, source=source
    )


def _source(doc: str) -> str:
    """The paragraph of a docstring that begins with "Source:"."""
    lines: list[str] = []
    for line in doc.splitlines():
        if line.strip().startswith("Source:"):
            lines = [line.split("Source:", 1)[1].strip()]
        elif lines and not line.strip():
            break
        elif lines:
            lines.append(line.strip())
    return " ".join(lines).strip()


def _hyper_value(cell: str, name: str, value: Any, default: Any) -> Any:
    """A hyper-parameter's value: number, flag, text, tuple of whole numbers, or activation."""
    if callable(default):
        if isinstance(value, str):
            if value not in ACTIVATIONS:
                raise InputError(
                    f"{cell}: {name}={value!r} is no activation.{nearest(value, ACTIVATIONS)} "
                    f"There are: {', '.join(ACTIVATIONS)}"
                )
            return ACTIVATIONS[value]
        if callable(value):
            return value
        raise InputError(f"{cell}: {name} is an activation, such as torch.tanh; got {value!r}")
    if isinstance(default, bool) or isinstance(value, bool):
        good = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        good = isinstance(value, (int, float)) and math.isfinite(value)
        value = float(value) if good else value
    elif isinstance(default, tuple):
        value = tuple(value) if isinstance(value, list) else value
        good = isinstance(value, tuple) and all(isinstance(v, int) for v in value)
    else:
        good = isinstance(value, type(default)) and isinstance(value, (int, str))
    if not good:
        raise InputError(
            f"{cell}: the hyper-parameter {name} is {value!r}; expected a value like {default!r}"
        )
    return value


def hyper_as_data(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Hyper-parameters as plain data: an activation becomes its name."""
    names = {function: name for name, function in ACTIVATIONS.items()}
    return {
        key: (names.get(value) or getattr(value, "__name__", "custom"))
        if callable(value)
        else list(value)
        if isinstance(value, tuple)
        else value
        for key, value in hyper.items()
    }


def block_diagonal(blocks, heads: int):
    """The square matrix of a parameter's blocks, so that each head reads its own units only.

    Of R with shape (hidden, hidden/heads) the k-th block of hidden/heads rows multiplies the k-th
    part of the units: `elman.block_diagonal(p.R, heads) @ h`.

    Args:
        blocks: a parameter.
        heads: the number of blocks, a whole number from 1 to 10,000 that divides hidden.

    Example:
        >>> import torch
        >>> block_diagonal(torch.tensor([[1.0], [2.0]]), 2).tolist()
        [[1.0, 0.0], [0.0, 2.0]]

    Source: the heads of sLSTM in Beck et al. 2024, section 2.2.
    """
    if isinstance(blocks, Symbol):
        return blocks.recorder.block_diagonal(blocks, heads)
    return OPERATIONS["block_diagonal"].evaluate(blocks, heads)


def delay(v, k: int):
    """The delay unit: the value that an input or a state had k steps ago.

    For an input x of a body, `delay(x, k)` is x_{t−k}, and `delay(x, 0)` is x itself. For a
    state, `delay(h, k)` is h_{t−k}, so that `delay(h, 1)` is the argument h itself, the state of
    one step ago. Before the start of a sequence a delayed input is zero, and a delayed state holds
    the initial state.

    Args:
        v: an argument of the body: x, or a state.
        k: the number of steps, a whole number ≥ 0 (for a state ≥ 1) and ≤ 10,000.

    Raises:
        EquationError: v is no argument of the body, or k is out of range.

    Example:
        >>> import elman, torch
        >>> @elman.cell
        ... def two_taps(p, x, h):
        ...     return torch.tanh(p.W_0 @ x + p.W_1 @ elman.delay(x, 1))
        >>> print(*two_taps.graph.equation())
        hₜ = tanh(W_0 xₜ + W_1 xₜ₋₁)

    Source: Waibel et al. 1989, section II: the time delays D_1 … D_N of a TDNN unit.
    """
    if isinstance(v, Symbol):
        return _delayed_symbol(v, k)
    history = _past.get() or {}
    if id(v) not in history:
        raise EquationError(
            "elman.delay(v, k) works inside a cell's body, on x or on a state; got "
            f"{type(v).__name__}"
        )
    value, past, kind = history[id(v)]
    steps = k - (kind == "state")
    if steps == 0:
        return value
    if not 0 < steps <= len(past):
        raise InputError(f"elman.delay reaches {k} steps back; past= gives {len(past)} value(s)")
    return past[steps - 1]


def _delayed_symbol(v: Symbol, k: int) -> Symbol:
    def fail(message: str) -> NoReturn:
        v.recorder.fail(message)

    op = v.entry[0]
    if op not in ("input", "state"):
        fail("elman.delay takes an argument of the body, x or a state, not a value made of them")
    if isinstance(k, bool) or not isinstance(k, int):
        fail(f"elman.delay needs a whole number of steps; got {k!r}")
    least = 0 if op == "input" else 1
    if not least <= k <= 10_000:
        fail(
            f"elman.delay({v.name}, {k}): {'an input' if op == 'input' else 'a state'} can be "
            f"delayed by {least} to 10,000 steps"
        )
    if k == least:
        return v
    return v.recorder.add("delayed", (), v.shape, name=v.name, steps=k)
