"""Which layers a learner runs the quick way, and how their state goes over to it and back."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from elman.layers.base import RecurrentLayer
from elman.layers.links import chain_of, links_of
from elman.learning import RTRL, Carried
from elman.learning.exact import Exact
from elman.learning.quick import Quick, serves
from elman.learning.space import refuse_what_does_not_fit


def quick_of(model: nn.Module) -> Quick | None:
    """The quick way for a model that learns one stream by exact RTRL; None where it cannot serve.

    It serves a single layer without masks, dense layers and learned beginnings, in a backend that
    Elman chooses, whose step is one product stage made of the module's own parameters.

    Raises:
        InputError: the influence has no room; the number is named.
    """
    if not isinstance(model, RecurrentLayer) or not _plain(model):
        return None
    chain, weights = chain_of(links_of(model)), [*model.parameters()]
    if not serves(chain, weights):
        return None
    # It holds two: the one that is, and the one that is made.
    refuse_what_does_not_fit(model.owner, Exact(), chain, 1, 2, model.learning)
    return Quick(chain, weights)


def _plain(layer: RecurrentLayer) -> bool:
    masks = layer.recurrent_dropout or layer.zoneout
    watched = layer._forward_hooks or layer._forward_pre_hooks
    return (
        layer.learning == RTRL()
        and layer.num_layers == 1
        and layer.dense is None
        and layer.initial_state == "zeros"
        and layer.backend in ("auto", "cpu")
        and not masks
        and not watched
    )


def still_quick(quick: Quick, model: nn.Module) -> bool:
    """Whether what held when the quick way began still does."""
    return quick.current() and model.learning == RTRL()


def begin_quickly(quick: Quick, model: nn.Module, carried: Any) -> None:
    """Hand the state over, or the initial one."""
    if not isinstance(model, RecurrentLayer):
        raise ValueError("only a layer goes the quick way")
    if carried is None:
        quick.begin(model.initial_carried(1, model._weight())[0], ())
        return
    influence = carried.influence if isinstance(carried, Carried) else ()
    states = carried.states if isinstance(carried, Carried) else carried
    quick.begin((states,) if isinstance(states, Tensor) else states, influence)


def carried_of(quick: Quick, before: bool = False) -> Carried:
    """The state in the layer's form, after the last step or before it."""
    states, influence = quick.carried(before)
    return Carried(states[0] if len(states) == 1 else states, influence)
