"""What a cell does: its laws, its start, and how gradients, states and gates go over a sequence.

`check` tries all laws on a cell, also on somebody else's; `report` writes what it found.
`gradient_flow`, `weight_terms`, `spectrum`, `lyapunov`, `activity`, `saturation` look into a layer
or a whole model while it reads a sequence.
"""

from elman.diagnose.activity import Activity, Saturation, activity, saturation, unit_of
from elman.diagnose.advice import Advice, advice, advise
from elman.diagnose.check import LAWS, Cost, Law, Report, Verdict, check
from elman.diagnose.cures import Cure
from elman.diagnose.flow import Decay, Flow, PlaceFlow, gradient_flow
from elman.diagnose.gain import Gain, Start, at_start
from elman.diagnose.jacobians import Exponents, Spectrum, lyapunov, spectrum
from elman.diagnose.report import as_data, as_text
from elman.diagnose.terms import Terms, weight_terms

__all__ = [
    "LAWS",
    "Activity",
    "Advice",
    "Cost",
    "Cure",
    "Decay",
    "Exponents",
    "Flow",
    "Gain",
    "Law",
    "PlaceFlow",
    "Report",
    "Saturation",
    "Spectrum",
    "Start",
    "Terms",
    "Verdict",
    "activity",
    "advice",
    "advise",
    "as_data",
    "as_text",
    "at_start",
    "check",
    "gradient_flow",
    "lyapunov",
    "saturation",
    "spectrum",
    "unit_of",
    "weight_terms",
]
