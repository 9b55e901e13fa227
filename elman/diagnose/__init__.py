"""What a cell does: the laws that every equation keeps, and how its gradients start.

`check` tries all laws on a cell, also on somebody else's; `report` writes what it found.
"""

from elman.diagnose.check import LAWS, Cost, Law, Report, Verdict, check
from elman.diagnose.flow import Decay, Flow, PlaceFlow, gradient_flow
from elman.diagnose.gain import Gain, Start, at_start
from elman.diagnose.report import as_data, as_text
from elman.diagnose.terms import Terms, weight_terms

__all__ = [
    "LAWS",
    "Cost",
    "Gain",
    "Law",
    "Report",
    "Start",
    "Verdict",
    "as_data",
    "as_text",
    "at_start",
    "check",
]
