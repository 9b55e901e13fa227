"""A graph and a cell as JSON, and back: what comes in is checked against the language."""

from __future__ import annotations

import math
from typing import Any, NoReturn

from elman.equation.graph import PARAMETER, Graph, Input, Node, Parameter, State
from elman.equation.initial import check_initialiser
from elman.equation.neighbours import CHILD, EACH, MOST_CHILDREN, REDUCTIONS
from elman.equation.operations import LANGUAGE, LEAVES
from elman.equation.sizes import NAME, SIZE, result_dims
from elman.errors import FileError, InputError

FORMAT = 1
MOST_NODES = 20_000
MOST_TEXT = 100_000


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """The graph as plain data: dictionaries, lists, texts and numbers."""
    return {
        "format": FORMAT,
        "name": graph.name,
        "nodes": [
            {
                "op": node.op,
                "args": list(node.args),
                "attributes": {k: _number_out(v) for k, v in node.attributes},
                "dims": list(node.dims),
                "name": node.name,
            }
            for node in graph.nodes
        ],
        "inputs": [{**i._asdict(), "dims": list(i.dims)} for i in graph.inputs],
        "states": [{**s._asdict(), "dims": list(s.dims)} for s in graph.states],
        "parameters": [{**p._asdict(), "dims": list(p.dims)} for p in graph.parameters],
        "output": graph.output,
        "new_states": list(graph.new_states),
        "equal": [list(pair) for pair in graph.equal],
    }


def graph_from_json(data: Any) -> Graph:
    """The graph of `graph_to_json`'s data.

    Every operation must be in the language, every operand come before its use, and every size
    follow from the operands.

    Raises:
        FileError: names the first thing that is not so.
    """
    if _get(data, "format", int, "the equation") != FORMAT:
        _bad(f"its format is {data['format']!r}, and this version reads format {FORMAT}")
    name = _name(data, "name", "the equation")
    inputs = tuple(
        Input(_name(d, "name", "an input"), _dims(d, 2), _varies(d))
        for d in _list(data, "inputs", 1)
    )
    states = tuple(
        State(_name(d, "name", "a state"), _dims(d, 2), _number(d, "initial"))
        for d in _list(data, "states", 1)
    )
    parameters = tuple(
        Parameter(_name(d, "name", "a parameter"), _dims(d, 3), _init(d))
        for d in _list(data, "parameters")
    )
    _distinct([v.name for v in (*inputs, *states, *parameters)])
    if len(inputs[0].dims) != 1:
        _bad("x is not a vector")
    given = {("input", i.name): i.dims for i in inputs}
    given |= {("state", s.name): s.dims for s in states}
    delayed = {k[1]: v for k, v in given.items()}
    given |= {("parameter", p.name): p.dims for p in parameters}
    nodes: list[Node] = []
    for entry in _list(data, "nodes", 1):
        node = _node(entry, len(nodes), {s.name for s in states})
        expected = _inferred(node, nodes, given, delayed)
        if node.dims != expected:
            _bad(f"node {len(nodes)} ({node.op}) has sizes {node.dims}, not {expected}")
        nodes.append(node)
    equal = tuple(_pair(pair) for pair in _list(data, "equal"))
    new_states = tuple(_index(i, nodes) for i in _list(data, "new_states", 1, kind=int))
    output = _index(_get(data, "output", int, "the equation"), nodes)
    if len(new_states) != len(states) or len(nodes[output].dims) != 1:
        _bad("it must give a new value for each state, and a vector as its output")
    for state, index in zip(states, new_states, strict=True):
        if nodes[index].dims != state.dims:
            _bad(f"the new {state.name} has sizes {nodes[index].dims}, not {state.dims}")
    graph = Graph(name, tuple(nodes), inputs, states, parameters, output, new_states, equal)
    _check_levels(graph)
    used = {n.attribute("name") for n in nodes if n.op == "parameter"}
    if used != {p.name for p in parameters}:
        _bad("the parameters that it lists are not those that it uses")
    return graph


def _check_levels(graph: Graph) -> None:
    """Matrices of parameters stand where one product serves all rows; results vary with time."""
    for node in graph.nodes:
        if node.op == "matmul" and graph.levels[node.args[0]] != PARAMETER:
            _bad("a product has a matrix that changes where it needs parameters")
        if node.op in ("bilinear", "block_diagonal") and graph.levels[node.args[0]] != PARAMETER:
            _bad(f"a {node.op} has a first operand that is not made of parameters")
    if any(graph.levels[i] == PARAMETER for i in (graph.output, *graph.new_states)):
        _bad("a new state is made of parameters alone")
    if any(graph.of_edges[i] for i in (graph.output, *graph.new_states)):
        _bad("a new state has a value for each edge")
    summed = [False] * len(graph.nodes)
    for index, node in enumerate(graph.nodes):
        summed[index] = node.op in REDUCTIONS or any(summed[a] for a in node.args)
        if node.op in REDUCTIONS and (not graph.of_edges[node.args[0]] or summed[node.args[0]]):
            _bad(f"a {node.op} is not over values of edges alone")


def cell_parts(data: Any) -> dict[str, Any]:
    """The checked parts of `Cell.to_json`'s data, as arguments of Cell."""
    hyper = _get(data, "hyper", dict, "the cell")
    for key, value in hyper.items():
        values = value if isinstance(value, list) else [value]
        if not NAME.fullmatch(key) or len(values) > 1000:
            _bad(f"its hyper-parameter {key!r} is not a name with a value")
        if not all(isinstance(v, (str, int, float, type(None))) for v in values):
            _bad(f"the hyper-parameter {key} is not made of numbers and names")
    return {
        "graph": graph_from_json(_get(data, "graph", dict, "the cell")),
        "hyper": {k: tuple(v) if isinstance(v, list) else v for k, v in hyper.items()},
        "family": _text(data, "family"),
        "doc": _text(data, "doc"),
        "source": _text(data, "source"),
    }


def _bad(message: str) -> NoReturn:
    raise FileError(f"this is no equation of Elman's: {message}; the file was altered or is newer")


def _get(data: Any, key: str, kind: type, what: str) -> Any:
    if not isinstance(data, dict):
        _bad(f"{what} is {type(data).__name__}, not a table")
    if key not in data:
        _bad(f"{what} lacks {key!r}")
    value = data[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        _bad(f"{key!r} of {what} is {type(value).__name__}, not {kind.__name__}")
    return value


def _list(data: Any, key: str, least: int = 0, kind: type = object) -> list:
    values = _get(data, key, list, "the equation")
    if not least <= len(values) <= MOST_NODES:
        _bad(f"{key!r} has {len(values)} entries; {least} to {MOST_NODES} are allowed")
    if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
        _bad(f"{key!r} must hold {kind.__name__}s only")
    return values


def _text(data: Any, key: str) -> str:
    text = _get(data, key, str, "the cell")
    if len(text) > MOST_TEXT:
        _bad(f"{key!r} has {len(text)} characters; {MOST_TEXT} are allowed")
    return text


def _name(data: Any, key: str, what: str) -> str:
    name = _get(data, key, str, what)
    if not NAME.fullmatch(name):
        _bad(f"{key!r} of {what} is {name[:80]!r}, which is no name")
    return name


def _dims(data: Any, most: int) -> tuple[str, ...]:
    dims = _get(data, "dims", list, "a value")
    if len(dims) > most or not all(isinstance(d, str) and SIZE.fullmatch(d) for d in dims):
        _bad(f"the sizes {str(dims)[:80]} are not up to {most} names")
    return tuple(dims)


def _pair(data: Any) -> tuple[str, str]:
    pair = _dims({"dims": data}, 2)
    if len(pair) != 2:
        _bad("'equal' must list pairs of sizes")
    return pair[0], pair[1]


def _number_out(value: Any) -> Any:
    """Infinities have no JSON; they bound a clamp, and are written as text."""
    return repr(value) if isinstance(value, float) and math.isinf(value) else value


def _number_in(value: Any, key: str) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    # Single precision must hold it too; and NaN fails every comparison.
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e30
    if not good:
        _bad(f"{key!r} is {str(value)[:80]!r}, not a number up to 1e30")
    return float(value)


def _number(data: Any, key: str) -> float:
    value = _number_in(_get(data, key, object, "the equation"), key)
    if math.isinf(value):
        _bad(f"{key!r} is infinite")
    return value


def _varies(data: Any) -> str:
    varies = _get(data, "varies", str, "an input")
    if varies not in ("step", "sequence", "edge"):
        _bad(f"an input varies by {varies[:80]!r}, not by step, sequence or edge")
    return varies


def _init(data: Any):
    try:
        return check_initialiser("a parameter", _get(data, "init", object, "a parameter"))
    except InputError as error:
        _bad(str(error))


def _distinct(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            _bad(f"the name {name!r} is given twice")


def _index(value: Any, nodes: list[Node]) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(nodes):
        _bad(f"it refers to node {value!r}, and has nodes 0 to {len(nodes) - 1}")
    return value


def _node(entry: Any, position: int, states: set[str]) -> Node:
    op = _get(entry, "op", str, f"node {position}")
    if op not in LANGUAGE and op not in LEAVES:
        _bad(f"node {position} is {op[:80]!r}, which is no operation of the language")
    args = tuple(_get(entry, "args", list, f"node {position}"))
    arity = LANGUAGE[op].arity if op in LANGUAGE else 0
    good = all(isinstance(a, int) and not isinstance(a, bool) and 0 <= a < position for a in args)
    if len(args) != arity or not good:
        _bad(f"node {position} ({op}) needs {arity} operands among the nodes before it; has {args}")
    schema = LANGUAGE[op].attributes if op in LANGUAGE else LEAVES[op]
    given = _get(entry, "attributes", dict, f"node {position}")
    if set(given) != set(schema):
        _bad(f"node {position} ({op}) needs the attributes {list(schema)}, has {list(given)[:9]}")
    attributes = tuple(
        (k, _number_in(given[k], k) if kind is float else _get(given, k, kind, f"node {position}"))
        for k, kind in schema.items()
    )
    if op == "block_diagonal" and not 1 <= given["heads"] <= 10_000:
        _bad(f"node {position} has {given['heads']} heads")
    if op == "delayed":
        name, steps = given["name"], given["steps"]
        if not (1 + (name in states)) <= steps <= 10_000:
            _bad(f"node {position} delays {name[:80]} by {steps} steps")
    if op in (EACH, CHILD) and given["kind"] not in ("input", "state"):
        _bad(f"node {position} reads the {given['kind'][:80]} of a neighbour")
    if op == CHILD and not 0 <= given["slot"] < MOST_CHILDREN:
        _bad(f"node {position} reads the child {given['slot']}")
    label = _get(entry, "name", str, f"node {position}")
    if label and not NAME.fullmatch(label):
        _bad(f"node {position} is called {label[:80]!r}, which is no name")
    return Node(op, args, attributes, _dims(entry, 3), label)


def _inferred(node: Node, nodes: list[Node], given: dict, delayed: dict) -> tuple[str, ...]:
    """The sizes that follow from the operands; the check of every node that is read."""
    operands = [nodes[a] for a in node.args]
    dims = [operand.dims for operand in operands]
    if node.op == "constant":
        return ()
    if node.op in LEAVES:
        name = node.attribute("name")
        kind = node.attribute("kind") if node.op in (EACH, CHILD) else node.op
        known = delayed.get(name) if node.op == "delayed" else given.get((kind, name))
        if known is None:
            _bad(f"it uses the {node.op} {name[:80]!r}, which it does not list")
        return known
    booleans = [o.op in LANGUAGE and LANGUAGE[o.op].boolean for o in operands]
    if booleans != [node.op == "where" and place == 0 for place in range(len(operands))]:
        _bad(f"a {node.op} has a comparison in the wrong place")
    result = result_dims(node.op, dims, dict(node.attributes))
    if result is None or all(o.op == "constant" for o in operands):
        _bad(f"the operands of {node.op} have sizes {dims}")
    return result
