"""How credit travels in time: a learning method owns the walk over a sequence."""

from elman.learning.bptt import BPTT, RTRL
from elman.learning.fidelity import Fidelity, fidelity
from elman.learning.influence import Carried

__all__ = ["BPTT", "RTRL", "Carried", "Fidelity", "fidelity"]
