"""Which columns of a table are the text, the label, the numbers of a time step."""

from __future__ import annotations

from dataclasses import dataclass

from elman.data.tables import Facts, Table
from elman.errors import InputError

_TEXTS = ("text", "sentence", "question", "review", "content", "body", "title", "message",
          "comment", "utterance", "document", "name", "x")  # fmt: skip
_LABELS = ("label", "class", "category", "target", "sentiment", "topic", "language",
           "nationality", "intent", "polarity", "y")  # fmt: skip
_IDS = ("id", "unique_id", "sequence", "sequence_id", "series")
_MOST_CLASSES = 1000
_MOST_NUMBERS = 30  # different numbers of a column that may be a class
_NUMERIC = 0.99  # share of cells that are numbers in a column of numbers
_VECTORS = 0.99


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Args:
        label: of the class; None where a file to be predicted has none.
        text: of the text, one or several; empty for numbers.
        vectors: of whole sequences as lists of numbers.
        id: that tells a sequence of rows.
        features: numbers of a time step.
    """

    label: str | None
    text: tuple[str, ...] = ()
    vectors: str | None = None
    id: str | None = None
    features: tuple[str, ...] = ()


def find(
    table: Table, text: str | None, label: str | None, id: str | None, features: str | None
) -> Columns:
    """Find the columns to learn from; what was named stays.

    Args:
        table: of the training data.
        text, label, id, features: as named by the user.

    Raises:
        InputError: a column that is not there, or none that could be what is looked for.
    """
    facts = {name: table.facts(name) for name in table.names}
    rows_are_steps = table.column(id, _IDS if features is not None else (), "id")
    if rows_are_steps is not None and text is None:
        return _of_steps(table, facts, label, rows_are_steps, features)
    if features is not None:
        raise InputError(
            "train classify: features are numbers of a time step; name the column that tells which "
            "rows are one sequence (id)."
        )
    named = () if text is None else _several(table, text, "text")
    found = _label(table, facts, label, taken=named)
    if named:
        whole = named[0] if len(named) == 1 and facts[named[0]].vectors >= _VECTORS else None
        return Columns(found, () if whole else named, whole)
    left = [name for name in table.names if name != found]
    vectors = next((name for name in left if facts[name].vectors >= _VECTORS), None)
    usual = table.column(None, [g for g in _TEXTS if g != (found or "").casefold()], "text")
    if usual is not None and usual != found:
        return Columns(found, (usual,))
    if vectors is not None:
        return Columns(found, (), vectors)
    wordy = [name for name in left if facts[name].numeric < _NUMERIC and facts[name].distinct]
    if not wordy:
        raise InputError(
            f"train classify: there is no column of text beside the label {found!r} among "
            f"{', '.join(map(repr, table.names))}; name it (text), or for sequences of numbers the "
            "column that tells which rows are one sequence (id)."
        )
    return Columns(found, (max(wordy, key=lambda n: (facts[n].words, facts[n].distinct)),))


def _of_steps(
    table: Table, facts: dict[str, Facts], label: str | None, id: str, features: str | None
) -> Columns:
    """Columns of a table with a row a time step."""
    named = () if features is None else _several(table, features, "features")
    found = _label(table, facts, label, taken=(id, *named))
    numbers = named or tuple(
        name for name in table.names if name not in (id, found) and facts[name].numeric >= _NUMERIC
    )
    if not numbers:
        raise InputError(
            f"train classify: beside {id!r} and {found!r} there is no column of numbers among "
            f"{', '.join(map(repr, table.names))}; name them (features)."
        )
    return Columns(found, id=id, features=numbers)


def _several(table: Table, given: str, what: str) -> tuple[str, ...]:
    """One column, or several with commas between."""
    names = [given] if given in table.names or "," not in given else given.split(",")
    return tuple(table.column(name.strip(), (), what) or name for name in names)


def _label(table: Table, facts: dict[str, Facts], given: str | None, taken: tuple[str, ...]) -> str:
    """The column of the class: the named one, a usual name, or that with the fewest values."""
    found = table.column(given, _LABELS, "label")
    if found is not None and found not in taken:
        return found
    if given is not None:
        raise InputError(f"train classify: {given!r} cannot be both the label and the data.")
    few = [
        (facts[name].distinct, place, name)
        for place, name in enumerate(table.names)
        if name not in taken
        and 2 <= facts[name].distinct <= min(_MOST_CLASSES, max(2, facts[name].rows // 2))
        and facts[name].vectors < _VECTORS
        and (facts[name].numeric < _NUMERIC or facts[name].distinct <= _MOST_NUMBERS)
    ]
    if not few:
        raise InputError(
            "train classify: no column looks like a class (two or more values that come again) "
            f"among {', '.join(map(repr, table.names))}; name it (label)."
        )
    return min(few)[2]
