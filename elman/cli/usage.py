"""Errors of usage, in one line, with the nearest word that would have been right."""

from __future__ import annotations

import re
from typing import Any

import typer

from elman.errors import nearest

# Some versions of typer bring a click of their own; its classes are reached through typer's.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def explain(error: Any) -> str:
    """Say a usage error in one line.

    Args:
        error: of typer's command line parser.
    """
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "elman"
    verb = path.removeprefix("elman").strip()
    where = f"{verb}: " if verb else ""
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        names = _options(context)
        return f"{where}there is no option {option!r}.{nearest(option, names)}{_see(path)}"
    message = error.format_message()
    unknown = re.match(r"No such command '([^']*)'", message)
    if unknown and context is not None:
        verbs = context.command.list_commands(context)
        hint = nearest(unknown[1], verbs) or f" There are: {', '.join(verbs)}."
        return f"{where}there is no command {unknown[1]!r}.{hint}"
    return f"{where}{message[:1].lower()}{message[1:].rstrip('.')}.{_see(path)}"


def _options(context: Any) -> list[str]:
    if context is None:
        return []
    return [name for p in context.command.get_params(context) for name in p.opts]


def _see(path: str) -> str:
    return f" See {path} --help."
