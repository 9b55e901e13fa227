"""The equation language: a cell is one equation, written once in plain torch.

`cell` traces a body into a `Graph`; from the graph everything else is derived.
"""

from elman.equation.cell import Cell, Parameters, block_diagonal, cell, delay, hyper_as_data
from elman.equation.graph import Counts, Graph, Input, Line, Node, Parameter, State
from elman.equation.initial import INITIALISERS, initialise
from elman.equation.neighbours import average, child, each, largest, total
from elman.equation.operations import ACTIVATIONS, OPERATIONS, linear, softmax
from elman.equation.rewrite import with_layer_norm, with_recurrent_dropout, with_zoneout
from elman.equation.serial import graph_from_json, graph_to_json
from elman.equation.write import equation, latex

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "OPERATIONS",
    "Cell",
    "Counts",
    "Graph",
    "Input",
    "Line",
    "Node",
    "Parameter",
    "Parameters",
    "State",
    "average",
    "block_diagonal",
    "cell",
    "child",
    "delay",
    "each",
    "equation",
    "graph_from_json",
    "graph_to_json",
    "hyper_as_data",
    "initialise",
    "largest",
    "latex",
    "linear",
    "softmax",
    "total",
    "with_layer_norm",
    "with_recurrent_dropout",
    "with_zoneout",
]
