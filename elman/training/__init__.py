"""Training: the loop over windows, its options, its run folder, and exact resume."""

from elman.training.options import TrainingOptions
from elman.training.runs import Result, report_always, train
from elman.training.signals import Interrupted

__all__ = ["Interrupted", "Result", "TrainingOptions", "report_always", "train"]
