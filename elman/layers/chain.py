"""A chain of torch's modules and our layers, through whose whole depth credit can be carried."""

from __future__ import annotations

from torch import nn

from elman.errors import InputError
from elman.learning import BPTT


class Chain(nn.Module):
    """Modules one after another over a sequence, as nn.Sequential; state in, state out.

    `out, state = chain(x, state, lengths=None, resets=None)`; `state` is a tuple with one entry
    for each recurrent layer, in that layer's form; under a carry a `elman.learning.Carried` of
    that tuple and the influence.
    """

    def __init__(self, *modules: nn.Module, learning: BPTT | None = None):
        super().__init__()
        raise InputError("Chain is not built yet")
