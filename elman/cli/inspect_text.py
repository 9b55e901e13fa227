"""The text that `elman inspect` reads, and the file of figures that it writes."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elman.cli.terminal import check_text
from elman.errors import FileError, InputError

if TYPE_CHECKING:
    from elman.tasks.lm import TrainedLM

_PER_TOKEN = 40  # characters of a file to look at for each token; words are shorter
_DIGITS = 5


@dataclass(frozen=True)
class Reading:
    """A model and what it is to read.

    Attributes:
        name: of the run.
        model: the language model, in float64, so that small gradients keep their digits.
        ids: the end of line that a text begins with, and the text's tokens.
        tokens: the same as text.
        unseen: tokens that the vocabulary lacks.
        used: whether these were taken as `<unk>`.
        notes: what a user should know.
    """

    name: str
    model: TrainedLM
    ids: list[int]
    tokens: list[str]
    unseen: list[str]
    used: bool
    notes: tuple[str, ...]


def read(run: str, text: str | None, file: str | None, most: int, unknown: str) -> Reading:
    """Load a run and the text it is to read.

    Args:
        run: a run folder or a model file.
        text, file: what was asked for; with neither the run's own validation text.
        most: tokens to read at most.
        unknown: what to do with tokens that the vocabulary lacks, as for `TrainedLM`.

    Raises:
        FileError: no model there, or the text cannot be read.
        InputError: no language model, no token to read, tokens that the vocabulary lacks.
    """
    from elman.tasks import load
    from elman.tasks.lm import TrainedLM

    model = load(run)
    if not isinstance(model, TrainedLM):
        raise InputError(
            f"inspect: {run} holds a {type(model).__name__}; this inspects language models; "
            "elman.diagnose inspects any model from Python."
        )
    model.network.double()
    given, where, notes = _text(run, text, file, most)
    if not given.strip("\n"):
        raise InputError(f"inspect: {where} is empty; give a text of one token at least.")
    vocabulary = model.vocabulary
    ids = vocabulary.encode(given, _treatment(model, unknown), where)[:most].tolist()
    if not ids:
        raise InputError(f"inspect: no token of {where} was seen in training.")
    if len(vocabulary.encode(given, "skip")) > most:
        notes = (*notes, f"only the first {most} tokens are read (--steps)")
    unseen = [token for _, token in vocabulary.unseen(given)]
    ids = [vocabulary.end, *ids]
    tokens = [vocabulary.tokens[i] for i in ids]
    used = _treatment(model, unknown) == "use"
    name = Path(run).resolve()
    return Reading(
        name.stem if name.is_file() else name.name, model, ids, tokens, unseen, used, notes
    )


def _treatment(model: TrainedLM, unknown: str) -> Any:
    if unknown not in ("auto", "error", "use", "skip"):
        raise InputError(f"unknown is {unknown!r}; expected auto, error, use or skip.")
    if unknown != "auto":
        return unknown
    return "error" if model.vocabulary.unknown is None else "use"


def _text(
    run: str, text: str | None, file: str | None, most: int
) -> tuple[str, str, tuple[str, ...]]:
    """The text, what to call it in errors, and notes on it."""
    from elman.data import read_text

    if text is not None and text != "-":
        return check_text(text, "--text"), "--text", ()
    if file is not None or text == "-":
        name = file or "-"
        return read_text(name)[: most * _PER_TOKEN], "standard input" if name == "-" else name, ()
    return _validation(run, most)


def _validation(run: str, most: int) -> tuple[str, str, tuple[str, ...]]:
    """The beginning of what the run was validated on."""
    from elman.data import read_text
    from elman.training import config
    from elman.training.folder import RunFolder

    folder = RunFolder(run)
    if not folder.config.is_file():
        raise InputError("inspect: there is no text; give --text or --file.")
    settings = config.read(folder.config)
    source = settings.also[0].path if settings.also else settings.data[-1].path
    try:
        whole = read_text(source)
    except FileError as error:
        raise FileError(
            f"{error} The run's own text is not there; give --text or --file."
        ) from None
    fraction = 1.0 if settings.also else float(settings.options.get("valid_fraction") or 0.1)
    begin = int(len(whole) * (1 - fraction))
    begin = whole.find("\n", begin) + 1 if begin else 0
    notes = (f"no text was given; the run's validation part is read, from {source}",)
    return whole[begin : begin + most * _PER_TOKEN], source, notes


def write(path: Path, data: dict[str, Any]) -> Path:
    """Write the figures as JSON, aside and renamed."""
    from elman.training.folder import write_text

    write_text(path, json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Tensors and numbers as JSON can hold them: five digits, what is not finite as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
