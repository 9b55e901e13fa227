r"""RFLO: random feedback local online learning's influence, without the way through other units.

A weight's influence is moved on unit by unit as if there were no recurrent weights. For the leaky
network $h' = (1 - 1/\tau) h + (1/\tau)\,\phi(u)$, $u = U h + W x$, that is

$$P'_{ij} = (1 - 1/\tau)\, P_{ij} + (1/\tau)\,\phi'(u_i)\, h_j,$$

and for any step that is one product stage $\hat M' = \mathrm{diag}(E) \hat M + I$, with $E$ the
ways from old to new states that pass no product. A cell without such ways carries nothing: its
gradient is that of a window alone. With windows of one step the gradient is
$\delta^\top \hat M'$, as published; a longer window is exact within itself, and $\hat M$ stands at
its start. Credit from the loss to the state goes through the true readout
weights; the random feedback of the original concerns the readout, and is not part of this.

Source: Murray 2019, "Local online learning in recurrent networks with random feedback" (the local
eligibility trace of the recurrent weights).
"""

from __future__ import annotations

from elman.learning.by_unit import RFLO, ByUnit
from elman.learning.chain import Chain


def rflo(chain: Chain) -> ByUnit:
    """The carrier of RFLO for a chain.

    Raises:
        InputError: a layer is not one product stage; the operation that hinders is named.
    """
    carrier = ByUnit(RFLO)
    carrier.check(chain)
    return carrier
