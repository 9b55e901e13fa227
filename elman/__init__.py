"""Elman: recurrent networks in which a cell is one equation, written once in plain torch."""

from elman import cells
from elman.equation import Cell, cell, delay, linear
from elman.errors import ElmanError, EquationError, FileError, InputError, SizeError
from elman.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell
from elman.learning import BPTT

__version__ = "0.1.0"

__all__ = [
    "BPTT",
    "GRU",
    "LSTM",
    "RNN",
    "Cell",
    "ElmanError",
    "EquationError",
    "FileError",
    "GRUCell",
    "InputError",
    "LSTMCell",
    "RNNCell",
    "Recurrent",
    "SizeError",
    "cell",
    "cells",
    "delay",
    "linear",
]
