"""Elman: recurrent networks in which a cell is one equation, written once in plain torch."""

from elman import cells
from elman.equation import Cell, cell, delay, linear
from elman.errors import ElmanError, EquationError, FileError, InputError, SizeError

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "ElmanError",
    "EquationError",
    "FileError",
    "InputError",
    "SizeError",
    "cell",
    "cells",
    "delay",
    "linear",
]
