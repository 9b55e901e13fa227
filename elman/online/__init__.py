"""Models on endless streams: they predict, then learn from what came, in constant memory."""

from elman.online.learner import OnlineLearner

__all__ = ["OnlineLearner"]
