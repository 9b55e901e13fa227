"""A recurrent network learns to add, digit by digit, and shows when it begins to hold the carry.

Base 2 is the program of the well-known study notes, to eight decimals: two bits a step, the least
significant first, 16 logistic units without biases, half the squared error, one sum an update.
Other bases take one-hot digits and a softmax a digit.
"""

from elman.tasks.addition.carry import Holder
from elman.tasks.addition.learning import learn
from elman.tasks.addition.result import Result

__all__ = ["Holder", "Result", "learn"]
