"""How credit travels in time: a learning method owns the walk over a sequence."""

import torch

from elman.learning.bptt import BPTT, RTRL
from elman.learning.fidelity import Fidelity, fidelity
from elman.learning.influence import Carried

__all__ = ["BPTT", "RTRL", "Carried", "Fidelity", "fidelity"]

# A stream's state can be saved by torch.save, and loaded by torch.load as it is.
torch.serialization.add_safe_globals([Carried])
