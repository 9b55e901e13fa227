r"""SnAp-1: the influence restricted to what a weight does to a state within one step.

Of $M = \partial s/\partial\theta$ the entries are kept that are not zero after one step: those of
a weight's own unit. With $P$ that pattern and $J$ the Jacobian of a step,

$$\hat M_t = P \odot (J_t \hat M_{t-1} + I_t),$$

so the influence is moved on by the diagonal of the Jacobian. With windows of one step the gradient
is $\delta_t^\top \hat M_t$, as published; a longer window is exact within itself, and $\hat M$
stands at its start. It is exact where no state enters a
product; else it leaves out what a weight does to other units and back. Each layer of a stack is
treated alone.

Source: Menick, Elsen, Evci, Osindero, Simonyan & Graves 2020, "Practical real time recurrent
learning with a sparse approximation to the Jacobian".
"""

from __future__ import annotations

from elman.learning.by_unit import SNAP1, ByUnit
from elman.learning.chain import Chain


def snap1(chain: Chain) -> ByUnit:
    """The carrier of SnAp-1 for a chain.

    Raises:
        InputError: a layer is not one product stage; the operation that hinders is named.
    """
    carrier = ByUnit(SNAP1)
    carrier.check(chain)
    return carrier
