"""The cell that a command line names: one of Elman's, or one of a file of the user's."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import elman
from elman.equation import Cell
from elman.errors import EquationError, FileError, InputError, nearest


def find_cell(name: str) -> Cell:
    """Return the cell of a name, or of FILE.py:NAME.

    Args:
        name: "lstm", "mine.py:my_cell", or "mine.py" where the file holds one cell.

    Raises:
        InputError: no such cell; the nearest is named. The file fails when it is run.
        FileError: no such file.
        EquationError: a cell of the file is no equation.
    """
    path, colon, attribute = name.rpartition(":")
    if name.endswith(".py"):
        path, attribute = name, ""
    if not path.endswith(".py"):
        if colon:
            raise InputError(f"--cell {name}: expected a cell's name, or FILE.py:NAME.")
        return elman.cells.get(name)
    module = _load(Path(path))
    found = {key: value for key, value in vars(module).items() if isinstance(value, Cell)}
    here = ", ".join(found) or "no cell at all"
    if not attribute:
        if len(found) == 1:
            return next(iter(found.values()))
        raise InputError(f"{path}: name the cell, as in {path}:NAME; it has {here}.")
    if attribute in found:
        return found[attribute]
    if hasattr(module, attribute):
        kind = type(getattr(module, attribute)).__name__
        hint = ": put @elman.cell above it" if kind == "function" else ""
        raise InputError(f"{path}: {attribute} is a {kind}, not a cell{hint}.")
    raise InputError(f"{path}: has no {attribute!r}.{nearest(attribute, found)} It has {here}.")


def _load(path: Path) -> ModuleType:
    """Run a user's file, as Python runs a script: modules beside it can be imported."""
    if not path.is_file():
        there = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise FileError(f"{path}: {what}.{nearest(path.name, there)}")
    spec = importlib.util.spec_from_file_location(f"elman_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FileError(f"{path}: Python cannot load this file.")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (EquationError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's file may raise anything, or sys.exit
        raise InputError(f"{path}:{_line(error, path)} {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    return module


def _line(error: BaseException, path: Path) -> str:
    """The last line of the user's file that the error came through."""
    if isinstance(error, SyntaxError):
        return f"{error.lineno}:"
    at, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).name == path.name:
            at = trace.tb_lineno
        trace = trace.tb_next
    return f"{at}:" if at is not None else ""


def read_settings(settings: list[str], option: str = "--hyper") -> dict[str, Any]:
    """What an option that may be repeated gives as NAME=VALUE.

    Example:
        >>> read_settings(["f=relu", "alpha=0.1", "depth=3", "taps=[1, 2]"])
        {'f': 'relu', 'alpha': 0.1, 'depth': 3, 'taps': [1, 2]}
    """
    out = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"{option} {setting}: expected NAME=VALUE, such as f=relu.")
        try:
            out[name] = json.loads(value)
        except ValueError:
            out[name] = {"True": True, "False": False}.get(value, value)
    return out
