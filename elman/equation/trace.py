"""From a body to a graph: run it once on symbols, then give every size its name."""

from __future__ import annotations

import inspect
import keyword
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from elman.equation.graph import PARAMETER, Graph, Initialiser, Input, Node, Parameter, State
from elman.equation.symbols import Recorder, Shape, Size, Symbol, TracedParameters
from elman.errors import EquationError, nearest

# What a body may raise while it runs on symbols; anything else is not about the equation.
BODY_ERRORS = (
    TypeError, AttributeError, ValueError, RuntimeError, NameError, LookupError, ArithmeticError,
)  # fmt: skip
NAME = re.compile(r"[^\W\d]\w{0,63}")


def signature(body: Callable) -> tuple[list[str], dict[str, Any]]:
    """The names of x and of the states, and the hyper-parameters with their defaults."""
    file, line = where(body)
    positional, hyper = [], {}
    for parameter in inspect.signature(body).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                raise EquationError(
                    f"{body.__name__}: the hyper-parameter {parameter.name!r} needs a default",
                    file, line,
                )  # fmt: skip
            hyper[parameter.name] = parameter.default
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise EquationError(
                f"{body.__name__}: *{parameter.name} is not allowed; name every state", file, line
            )
        else:
            positional.append(parameter.name)
    if len(positional) < 3:
        raise EquationError(
            f"{body.__name__}: a cell takes p, x and at least one state, as in "
            f"def {body.__name__}(p, x, h); got ({', '.join(positional)})",
            file, line,
        )  # fmt: skip
    return positional[1:], hyper


def where(body: Callable) -> tuple[str, int]:
    """The file and the first line of a body."""
    code = body.__code__
    return code.co_filename, code.co_firstlineno


def trace(
    body: Callable,
    hyper: Mapping[str, Any],
    sizes: Mapping[str, str],
    init: Mapping[str, Initialiser],
    initial: Mapping[str, float],
) -> Graph:
    """Run `body` on symbols and return the graph of one step.

    Args:
        body: the cell's function, of p, x and the states.
        hyper: a value for each of its keyword-only arguments.
        sizes: the names of sizes other than "input" for x and "hidden" for the states.
        init: initialisers by parameter name, or by a pattern that ends in *.
        initial: initial values by state.

    Raises:
        EquationError: what the body does cannot be written as a graph; names the line.
    """
    names, _ = signature(body)
    recorder = Recorder(body.__name__, *where(body))
    named: dict[str, Size] = {}
    for name in names:
        default = "input" if name == names[0] else "hidden"
        named.setdefault(sizes.get(name, default), Size(sizes.get(name, default)))
    for what, given in (("sizes", sizes), ("initial", initial)):
        for name in given:
            if name not in names:
                recorder.fail(
                    f"{what} names {name!r}, which is no argument of the body."
                    f"{nearest(name, names)} There are: {', '.join(names)}"
                )
    symbols = []
    for name in names:
        size = named[sizes.get(name, "input" if name == names[0] else "hidden")]
        op = "input" if name == names[0] else "state"
        symbols.append(recorder.add(op, (), Shape((size,)), name=name))
    returned, local = _run(recorder, body, symbols, hyper)
    new_states = _new_states(recorder, returned, symbols[1:], names[1:])
    return _graph(recorder, names, symbols, new_states, local, init, initial)


def _run(recorder: Recorder, body: Callable, symbols: list[Symbol], hyper: Mapping[str, Any]):
    """Call the body; also catch its local names, which name the lines of the written equation."""
    local: dict[str, Any] = {}

    def watch(frame, event, _):
        if event == "return" and frame.f_code is body.__code__:
            local.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        return body(TracedParameters(recorder), *symbols, **hyper), local
    except EquationError:
        raise
    except BODY_ERRORS as error:
        raise EquationError(
            f"{recorder.cell}: {type(error).__name__}: {error}; a body is torch code on the values "
            "of one step, without branches on data",
            recorder.file,
            _line_of(error, recorder),
        ) from error
    finally:
        sys.setprofile(before)


def _line_of(error: BaseException, recorder: Recorder) -> int:
    line, step = recorder.line, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == recorder.file:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _new_states(recorder: Recorder, returned: Any, states: list[Symbol], names: list[str]):
    values = returned if isinstance(returned, tuple) else (returned,)
    wanted = "return " + ", ".join(names)
    if len(values) != len(names):
        recorder.fail(
            f"the body returns {len(values)} value(s); it has {len(names)} state(s), and returns "
            f"the new value of each, in order: {wanted}"
        )
    for name, value, state in zip(names, values, states, strict=True):
        if not isinstance(value, Symbol) or value.recorder is not recorder:
            recorder.fail(f"the new {name} is {type(value).__name__}, not a value; {wanted}")
        if value.boolean or value.shape.sizes == () or value.is_parameter:
            recorder.fail(
                f"the new {name} must be a vector made of inputs or states, not a plain number, a "
                "comparison or a bare parameter"
            )
        recorder.join_shapes(value.shape, state.shape, f"the new {name}")
    return values


def _graph(recorder, names, symbols, new_states, local, init, initial) -> Graph:
    """Name the sizes, what stayed free "hidden"; keep the nodes that the new states need."""

    def dims(index: int) -> tuple[str, ...]:
        sizes = recorder.shapes[index].root().sizes
        sizes = (Size(),) if sizes is None else sizes
        return tuple(size.root().name or "hidden" for size in sizes)

    keep = _needed(recorder, [s.index for s in (*symbols, *new_states)])
    place = {index: position for position, index in enumerate(keep)}
    labels = {s.index: name for name, s in local.items() if isinstance(s, Symbol)}
    labels |= {value.index: name for name, value in zip(names[1:], new_states, strict=True)}
    nodes, parameters = [], []
    for index in keep:
        op, args, attributes = recorder.entries[index]
        label = labels.get(index, "") if args else ""
        nodes.append(Node(op, tuple(place[a] for a in args), attributes, dims(index), label))
        if op == "parameter":
            name = dict(attributes)["name"]
            if not NAME.fullmatch(name) or keyword.iskeyword(name):
                recorder.fail(f"{name!r} cannot name a parameter; use letters, digits and _")
            parameters.append(Parameter(name, dims(index), _initialiser(name, init)))
    _check_names(recorder, names, parameters, init)
    new = tuple(place[value.index] for value in new_states)
    sizes = [dims(s.index)[0] for s in symbols]
    states = tuple(
        State(name, size, float(initial.get(name, 0.0)))
        for name, size in zip(names[1:], sizes[1:], strict=True)
    )
    graph = Graph(
        recorder.cell,
        tuple(nodes),
        (Input(names[0], sizes[0]),),
        states,
        tuple(parameters),
        new[0],
        new,
        tuple(recorder.equal),
    )
    for state, index in zip(states, new, strict=True):
        if graph.levels[index] == PARAMETER:
            recorder.fail(
                f"the new {state.name} is made of parameters alone; it needs x or a state"
            )
    return graph


def _check_names(recorder, names, parameters, init) -> None:
    for pattern in init:
        if not any(_matches(pattern, parameter.name) for parameter in parameters):
            recorder.fail(
                f"init names {pattern!r}, and no parameter is called so."
                f"{nearest(pattern, [q.name for q in parameters])} There are: "
                f"{', '.join(q.name for q in parameters)}"
            )
    for parameter in parameters:
        if parameter.name in names:
            recorder.fail(f"p.{parameter.name} has the name of an argument; rename one of them")


def _needed(recorder: Recorder, roots: list[int]) -> list[int]:
    """The nodes that `roots` are computed from, in the order of computation."""
    keep, waiting = set(), list(roots)
    while waiting:
        index = waiting.pop()
        if index not in keep:
            keep.add(index)
            waiting.extend(recorder.entries[index][1])
    return sorted(keep)


def _matches(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _initialiser(name: str, init: Mapping[str, Initialiser]) -> Initialiser:
    if name in init:
        return init[name]
    for pattern, value in init.items():
        if _matches(pattern, name):
            return value
    return "uniform"
