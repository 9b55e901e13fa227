"""How credit travels in time: a learning method owns the walk over a sequence."""

from elman.learning.bptt import BPTT

__all__ = ["BPTT"]
