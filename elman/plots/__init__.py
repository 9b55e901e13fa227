"""Pictures: how a run went, and when a network learned to hold the carry."""

from elman.plots.addition import addition
from elman.plots.runs import gradients, of_run, report, training

__all__ = ["addition", "gradients", "of_run", "report", "training"]
