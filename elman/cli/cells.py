"""`elman cells`: the cells, and one of them in full."""

from __future__ import annotations

import math
import re
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from elman.cli.terminal import Json, print_json, table

if TYPE_CHECKING:
    from elman.equation import Cell
    from elman.equation.graph import Graph

_LETTERS = {"hidden": "h", "input": "x"}


def command(
    name: Annotated[
        str | None,
        Argument(help="A cell's name, or FILE.py:NAME for one of yours.", show_default=False),
    ] = None,
    input_size: Annotated[int, Option("--input", help="Input size for the counts.")] = 64,
    hidden_size: Annotated[int, Option("--hidden", help="Hidden size for the counts.")] = 128,
    hyper: Annotated[
        list[str] | None,
        Option("--hyper", help="A hyper-parameter, NAME=VALUE; repeat.", metavar="NAME=VALUE"),
    ] = None,
    latex: Annotated[bool, Option("--latex", help="Print the equation as LaTeX only.")] = False,
    as_json: Json = False,
) -> None:
    """List the cells, or show the equation of one and what follows from it.

    [bold]Examples[/bold]

      elman cells

      elman cells gru_cho --hidden 256

      elman cells mine.py:my_cell --latex
    """
    from elman.errors import InputError

    for flag, size in (("--input", input_size), ("--hidden", hidden_size)):
        if size < 1:
            raise InputError(f"cells: {flag} is {size}; expected a whole number >= 1.")
    if name is None:
        if latex or hyper:
            raise InputError("cells: name the cell; --latex and --hyper are of one cell.")
        _list(input_size, hidden_size, as_json)
        return
    from elman.cli.find_cell import find_cell, read_settings

    cell = find_cell(name).with_hyper(**read_settings(hyper or []))
    if as_json:
        print_json(_facts(cell, input_size, hidden_size) | {"cell": cell.to_json()})
    elif latex:
        print(cell.graph.latex())
    else:
        print(*_page(cell, input_size, hidden_size), sep="\n")


def _list(input_size: int, hidden_size: int, as_json: bool) -> None:
    from elman import cells

    kinds = ("sequences", "trees", "graphs")
    every = [cells.get(name) for kind in kinds for name in cells.names(kind)]
    facts = [_facts(cell, input_size, hidden_size, True) for cell in every]
    if as_json:
        print_json(facts)
        return
    rows = [
        (
            fact["name"],
            fact["family"],
            " ".join(fact["states"]),
            fact["formula"],
            "—" if fact["parameters"] is None else f"{fact['parameters']:,}",
            _reference(fact["source"]),
        )
        for fact in facts
    ]
    count = f"at x={input_size}, h={hidden_size}"
    head = ("cell", "family", "states", "parameters", count, "source")
    print(*table(head, rows), sep="\n")
    print("\nx: input size, h: hidden size, other letters: other sizes, counted as h.")
    sized = [fact["name"] for fact in facts if set(fact["sizes"]) - {"input", "hidden"}]
    print(f"{', '.join(sized)} take sizes= for those: elman.Recurrent(NAME, x, h, sizes={{…}}).")
    print("One cell in full: elman cells NAME. In Python: elman.Recurrent(NAME, x, h); of the")
    print("families tree and graph elman.Tree(NAME, x, h) and elman.Network(NAME, x, h).")


def _page(cell: Cell, input_size: int, hidden_size: int) -> list[str]:
    graph = cell.graph
    fact = _facts(cell, input_size, hidden_size)
    sizes = ", ".join(f"{name} {size}" for name, size in fact["sizes"].items())
    shapes = graph.parameter_shapes(fact["sizes"])
    rows = [
        (p.name, " × ".join(p.dims), " × ".join(map(str, shapes[p.name])), str(p.init))
        for p in graph.parameters
    ]
    lines = [
        f"{cell.name}: {cell.title}",
        f"family {cell.family or '—'}; states {', '.join(cell.states)}",
        "",
        *(f"    {line}" for line in graph.equation()),
        "",
        *table(("parameter", "shape", f"({sizes})", "starts as"), rows),
        "",
        f"{fact['formula']} = {fact['parameters']:,} parameters; {fact['operations']:,} operations "
        "a step and row",
    ]
    if graph.lines:
        delays = ", ".join(f"{line.name} up to {line.depth}" for line in graph.lines)
        lines.append(f"delay lines: {delays} steps")
    if fact["hyper"]:
        values = ", ".join(f"{name}={value}" for name, value in fact["hyper"].items())
        lines.append(f"hyper-parameters: {values}")
    rest = cell.doc.partition("\n")[2].strip("\n")
    return [*lines, "", *rest.splitlines()] if rest else lines


def _facts(
    cell: Cell, input_size: int, hidden_size: int, one_of_many: bool = False
) -> dict[str, Any]:
    """What is told of a cell, as plain JSON values; in a list also where the sizes do not fit."""
    from elman.equation import hyper_as_data
    from elman.errors import SizeError

    graph = cell.graph
    sizes = _sizes(graph, input_size, hidden_size)
    try:
        parameters, operations = graph.count(sizes)
    except SizeError:
        if not one_of_many:
            raise
        parameters = operations = None
    return {
        "name": cell.name,
        "title": cell.title,
        "family": cell.family,
        "states": list(cell.states),
        "equation": graph.equation(),
        "latex": graph.latex(),
        "parameter_shapes": {p.name: list(p.dims) for p in graph.parameters},
        "hyper": hyper_as_data(cell.hyper),
        "sizes": sizes,
        "formula": formula(graph),
        "parameters": parameters,
        "operations": operations,
        "source": cell.source,
    }


def _sizes(graph: Graph, input_size: int, hidden_size: int) -> dict[str, int]:
    """Numbers for the sizes of an equation; those that it forces to agree are the hidden size."""
    sizes = dict.fromkeys(graph.sizes, hidden_size) | {"input": input_size}
    for pair in graph.equal:
        sizes.update(dict.fromkeys(pair, hidden_size))
    return {name: sizes[name] for name in graph.sizes}


def formula(graph: Graph) -> str:
    """The number of parameters as a sum of products of sizes.

    Example:
        >>> import elman
        >>> formula(elman.cells.get("gru").graph)
        '3hx + 3h² + 4h'
    """
    letters: dict[str, str] = {}
    for size in graph.sizes:
        free = [c for c in (_LETTERS.get(size), *size) if c and c not in letters.values()]
        letters[size] = free[0] if free else size
    order = {letter: k for k, letter in enumerate(dict.fromkeys(["h", *letters.values()]))}
    terms: dict[tuple[str, ...], Fraction] = {}
    for p in graph.parameters:
        parts = [size.partition("/") for size in p.dims if size != "1"]
        term = tuple(sorted((letters[name] for name, _, _ in parts), key=lambda c: order[c]))
        share = Fraction(1, math.prod(int(n or 1) for _, _, n in parts))
        terms[term] = terms.get(term, Fraction(0)) + share

    def written(term: tuple[str, ...], times: Fraction) -> str:
        powers = Counter(term)
        product = "".join(
            letter + ("²" if n == 2 else "³" * (n == 3)) for letter, n in powers.items()
        )
        count = str(times.numerator) if times.numerator > 1 or not product else ""
        return f"{count}{product}" + (f"/{times.denominator}" if times.denominator > 1 else "")

    matrices_first = sorted(terms.items(), key=lambda item: (-len(item[0]), -len(set(item[0]))))
    return " + ".join(written(term, times) for term, times in matrices_first) or "0"


def _reference(source: str) -> str:
    """The authors and year with which a source begins; of very many authors the first.

    Example:
        >>> _reference("Sak & Senior 2014, section 2"), _reference("torch (and cuDNN), its GRU")
        ('Sak & Senior 2014', 'torch')
        >>> _reference("Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares & Bengio 2014, 2")
        'Cho et al. 2014'
    """
    found = re.match(r"(.{1,200}?)\b((?:19|20)\d\d)\b", source)
    first = source.partition(",")[0].partition(" (")[0][:60]
    if found is None:
        return first
    many = len(found[0]) > 60 and "&" in found[1] and "." not in found[1]
    return f"{first} et al. {found[2]}" if many else found[0] if len(found[0]) <= 60 else first
