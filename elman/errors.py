"""The errors of Elman: each is one sentence that says what came, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ElmanError(Exception):
    """Base of every error that Elman raises on purpose.

    At the command line it becomes one line, and `exit_code` the exit code: 1 where something
    failed, 2 where what came in cannot be used.
    """

    exit_code = 1


class InputError(ElmanError, ValueError):
    """Something given to Elman cannot be used: an option, a name, a value."""

    exit_code = 2


class EquationError(InputError):
    """A cell's body cannot be turned into an equation; `file` and `line` say where."""

    def __init__(self, message: str, file: str | None = None, line: int | None = None):
        self.file, self.line = file, line
        super().__init__(f"{file}:{line}: {message}" if file else message)


class SizeError(InputError, RuntimeError):
    """Shapes, sizes or number types of tensors do not fit each other or the layer."""


class FileError(InputError):
    """A file is missing, empty, cut short, altered, or not what it was taken for."""


class RunError(InputError):
    """A run folder cannot be used as asked."""


class TrainingStopped(ElmanError):
    """Training cannot go on, for instance because the loss is no longer finite."""


def nearest(word: str, candidates: Iterable[str], cutoff: float = 0.5) -> str:
    """A hint " Did you mean 'x'?" for the candidate closest to `word`, or "" where none is close.

    Close is a likeness, as `difflib` measures it, of `cutoff` (0 to 1) or more.

    Example:
        >>> nearest("lsmt", ["gru", "lstm"])
        " Did you mean 'lstm'?"
        >>> nearest("zzz", ["gru", "lstm"])
        ''
    """
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return f" Did you mean {close[0]!r}?" if close else ""
