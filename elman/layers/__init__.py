"""Layers: any cell in a stack, and drop-ins for torch.nn's recurrent layers."""

from elman.layers.chain import Chain
from elman.layers.convert import convert, revert
from elman.layers.dropins import GRU, LSTM, RNN
from elman.layers.network import Network, symmetric_weights
from elman.layers.recurrent import Recurrent
from elman.layers.single import GRUCell, LSTMCell, RNNCell
from elman.layers.stepper import Stepper
from elman.layers.tree import Tree

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Chain",
    "GRUCell",
    "LSTMCell",
    "Network",
    "RNNCell",
    "Recurrent",
    "Stepper",
    "Tree",
    "convert",
    "revert",
    "symmetric_weights",
]
