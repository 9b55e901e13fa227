"""From a body to a graph: run it once on symbols, then give every size its name."""

from __future__ import annotations

import inspect
import keyword
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elman.equation.graph import PARAMETER, Graph, Initialiser, Input, Node, Parameter, State
from elman.equation.neighbours import of_edges
from elman.equation.sizes import NAME, SIZE, Shape, Size, as_dims
from elman.equation.symbols import Recorder, Symbol, TracedParameters
from elman.errors import EquationError, nearest

# What a body may raise while it runs on symbols; anything else is not about the equation.
BODY_ERRORS = (
    TypeError, AttributeError, ValueError, RuntimeError, NameError, LookupError, ArithmeticError,
)  # fmt: skip


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


Shaped = str | Sequence[str]


@dataclass(frozen=True)
class Declared:
    """What `elman.cell` was told besides the body.

    Attributes:
        sizes: the size of x or of a state by name, or its shape as a tuple.
        shapes: the shape of a parameter by name, where use cannot show it.
        init: initialisers by parameter name, or by a pattern that ends in *.
        initial: initial constants by state.
        inputs: the arguments that are further inputs of a step, with their shapes.
        output: whether an output that is no state stands first in what is returned; or its size.
        edges: the arguments that have a value for each edge of a graph, with their shapes.
    """

    sizes: Mapping[str, Shaped] = field(default_factory=dict)
    shapes: Mapping[str, Shaped] = field(default_factory=dict)
    init: Mapping[str, Initialiser] = field(default_factory=dict)
    initial: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, Shaped] = field(default_factory=dict)
    output: bool | str = False
    edges: Mapping[str, Shaped] = field(default_factory=dict)


def trace(body: Callable, hyper: Mapping[str, Any], declared: Declared) -> Graph:
    """Run `body` on symbols and return the graph of one step.

    Args:
        body: the cell's function, of p, x, further inputs and the states.
        hyper: a value for each of its keyword-only arguments.
        declared: what use cannot show.

    Raises:
        EquationError: what the body does cannot be written as a graph; names the line.
    """
    names, _ = signature(body)
    recorder = Recorder(body.__name__, *where(body))
    _check_declared(recorder, names, declared)
    recorder.edges = frozenset(declared.edges)
    further = {**declared.inputs, **declared.edges}
    named: dict[str, Size] = {}

    def shape(dims: Shaped) -> Shape:
        return Shape(tuple(_size(recorder, size, named) for size in as_dims(dims)))

    symbols = {}
    for name in names:
        is_input = name == names[0] or name in further
        usual = further.get(name, "input" if name == names[0] else "hidden")
        given = shape(declared.sizes.get(name, usual))
        symbols[name] = recorder.add("input" if is_input else "state", (), given, name=name)
    shapes = {name: shape(dims) for name, dims in declared.shapes.items()}
    p = TracedParameters(recorder, shapes)
    returned, local = _run(recorder, body, p, list(symbols.values()), hyper)
    states = {n: s for n, s in symbols.items() if s.entry[0] == "state"}
    output, new_states = _returned(recorder, returned, states, declared)
    if isinstance(declared.output, str):
        recorder.join_shapes(output.shape, shape(declared.output), "the output")
    return _graph(recorder, symbols, output, new_states, local, declared)


def _size(recorder: Recorder, size: str, named: dict[str, Size]) -> Size:
    """The size of a declared name, one for each name: "hidden", "hidden/4", "1"."""
    if not isinstance(size, str) or not SIZE.fullmatch(size):
        recorder.fail(f"{size!r} is no size; give a name, or a part such as 'hidden/4'")
    if size not in named:
        whole, _, parts = size.partition("/")
        named[size] = (
            Size(whole=_size(recorder, whole, named), parts=int(parts)) if parts else Size(size)
        )
    return named[size]


def _check_declared(recorder: Recorder, names: list[str], declared: Declared) -> None:
    for what in ("sizes", "initial", "inputs", "edges"):
        for name in getattr(declared, what):
            if name not in names:
                recorder.fail(
                    f"{what} names {name!r}, which is no argument of the body."
                    f"{nearest(name, names)} There are: {', '.join(names)}"
                )
    for what in ("inputs", "edges"):
        if names[0] in getattr(declared, what):
            recorder.fail(f"{what} names {names[0]!r}, which is the input already")
    if set(names[1:]) <= {*declared.inputs, *declared.edges}:
        recorder.fail("every argument is an input; a cell has at least one state")


def _run(recorder: Recorder, body: Callable, p, symbols: list[Symbol], hyper: Mapping[str, Any]):
    """Call the body; also catch its local names, which name the lines of the written equation."""
    local: dict[str, Any] = {}

    def watch(frame, event, _):
        if frame.f_code is not body.__code__:
            return None
        if event == "return":
            local.update(frame.f_locals)
        return watch

    # A profiler written in C, such as cProfile, could not be put back: then the tracing hook.
    before: Any = sys.getprofile()
    put: Callable[[Any], None] = sys.setprofile
    if before is not None and not callable(before):
        before, put = sys.gettrace(), sys.settrace
    put(watch)
    try:
        return body(p, *symbols, **hyper), local
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
        put(before)


def _line_of(error: BaseException, recorder: Recorder) -> int:
    line, step = recorder.line, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == recorder.file:
            line = step.tb_lineno
        step = step.tb_next
    return line


def _returned(recorder: Recorder, returned: Any, states: dict[str, Symbol], declared: Declared):
    """The output, and the new states, of what the body returned."""
    values = list(returned) if isinstance(returned, tuple) else [returned]
    names = [*(["the output"] if declared.output else []), *states]
    wanted = "return " + ", ".join(n.replace("the output", "y") for n in names)
    if len(values) != len(names):
        hint = ""
        if not declared.output and len(values) == len(names) + 1:
            hint = "; an output that is no state is declared, @elman.cell(output=True)"
        recorder.fail(
            f"the body returns {len(values)} value(s); it has {len(states)} state(s), and returns "
            f"the new value of each, in order: {wanted}{hint}"
        )
    for name, value in zip(names, values, strict=True):
        what = name if name == "the output" else f"the new {name}"
        if not isinstance(value, Symbol) or value.recorder is not recorder:
            recorder.fail(f"{what} is {type(value).__name__}, not a value; {wanted}")
        scalar = name in states and states[name].shape.sizes == ()
        if of_edges(recorder, value.index):
            recorder.fail(
                f"{what} has a value for each edge; bring them together with elman.total(…), "
                "elman.average(…) or elman.largest(…)"
            )
        if value.boolean or value.is_parameter or (value.shape.sizes == () and not scalar):
            recorder.fail(
                f"{what} must be a vector made of inputs or states, not a plain number, a "
                "comparison or a bare parameter"
            )
        if name in states:
            recorder.join_shapes(value.shape, states[name].shape, what)
    if len(values[0].shape.sizes or ()) != 1:
        recorder.fail("the output, which is the first that is returned, must be a vector")
    return values[0], values[int(bool(declared.output)) :]


def _graph(recorder, symbols, output, new_states, local, declared) -> Graph:
    """Name the sizes, what stayed free "hidden"; keep the nodes that are needed."""

    def dims(index: int) -> tuple[str, ...]:
        sizes = recorder.shapes[index].root().sizes
        return tuple(size.name for size in ((Size(),) if sizes is None else sizes))

    states = {n: s for n, s in symbols.items() if s.entry[0] == "state"}
    keep = _needed(recorder, [s.index for s in (*symbols.values(), output, *new_states)])
    place = {index: position for position, index in enumerate(keep)}
    labels = {s.index: name for name, s in local.items() if isinstance(s, Symbol)}
    labels |= {value.index: name for name, value in zip(states, new_states, strict=True)}
    nodes, parameters = [], []
    for index in keep:
        op, args, attributes = recorder.entries[index]
        label = labels.get(index, "") if args else ""
        nodes.append(Node(op, tuple(place[a] for a in args), attributes, dims(index), label))
        if op == "parameter":
            name = dict(attributes)["name"]
            if not NAME.fullmatch(name) or keyword.iskeyword(name):
                recorder.fail(f"{name!r} cannot name a parameter; use letters, digits and _")
            parameters.append(Parameter(name, dims(index), _initialiser(name, declared.init)))
    _check_names(recorder, list(symbols), parameters, declared)
    graph = Graph(
        recorder.cell,
        tuple(nodes),
        tuple(
            Input(n, dims(s.index), "edge" if n in declared.edges else "step")
            for n, s in symbols.items()
            if n not in states
        ),
        tuple(
            State(name, dims(symbol.index), float(declared.initial.get(name, 0.0)))
            for name, symbol in states.items()
        ),
        tuple(parameters),
        place[output.index],
        tuple(place[value.index] for value in new_states),
        _equal(recorder),
    )
    returned = dict(zip(states, graph.new_states, strict=True)) | {"output": graph.output}
    for name, index in returned.items():
        if graph.levels[index] == PARAMETER:
            recorder.fail(f"the new {name} is made of parameters alone; it needs x or a state")
    return graph


def _equal(recorder: Recorder) -> tuple[tuple[str, str], ...]:
    """The pairs of sizes that were joined although each has a name: the lost name and the kept."""
    pairs = []
    for one, other, first, second in recorder.equal:
        kept = {one.root().name, other.root().name}
        pairs += [tuple(sorted({first, second}, key=lambda n: n in kept))]
    return tuple(dict.fromkeys(pairs))


def _check_names(recorder, names, parameters, declared) -> None:
    for what, pattern in [("init", n) for n in declared.init] + [
        ("shapes", n) for n in declared.shapes
    ]:
        if not any(_matches(pattern, parameter.name) for parameter in parameters):
            recorder.fail(
                f"{what} names {pattern!r}, and no parameter is called so."
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
