"""Cures that begin before training: how the recurrent weights and the gates of a layer start.

Each works on any layer with any cell, by reading the equation: which matrices multiply the state,
which bias opens the gate that keeps it (`elman.layers.gates`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import init

from elman.errors import InputError
from elman.layers.base import DIRECTIONS, RecurrentLayer
from elman.layers.dropins import GRU, LSTM, RNN
from elman.layers.gates import Gate, Keeping, keeping, state_matrices

_DROP_INS = (LSTM, GRU, RNN)


def orthogonal_(layer: RecurrentLayer, gain: float = 1.0) -> RecurrentLayer:
    r"""Start every recurrent matrix at a random orthogonal one, :math:`U^\top U = gain^2 I`.

    An orthogonal matrix neither shrinks nor stretches what it carries, so that at the start the
    gradient of a linear network goes through any number of steps unchanged.

    Args:
        layer: any recurrent layer; its matrices that multiply something of the state are filled
            in place, one by one (a matrix that is not square gets orthonormal rows or columns).
        gain: factor on the matrix, > 0.

    Returns:
        the layer.

    Raises:
        InputError: no matrix of the cell multiplies its state.

    Example:
        >>> import elman, torch
        >>> from elman.layers.initialise import orthogonal_
        >>> layer = orthogonal_(elman.Recurrent("simple", 2, 3))
        >>> torch.allclose(layer.U_l0 @ layer.U_l0.T, torch.eye(3), atol=1e-6)
        True

    Source: Saxe, McClelland & Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning
    in deep linear neural networks" (orthogonal weights for deep networks); Henaff, Szlam & LeCun
    2016, "Recurrent orthogonal networks and long-memory tasks".
    """
    _positive("orthogonal_", "gain", gain)
    return _fill_matrices(layer, "orthogonal_", lambda matrix: init.orthogonal_(matrix, gain))


def identity_(layer: RecurrentLayer, scale: float = 1.0) -> RecurrentLayer:
    """Start every square recurrent matrix at `scale` times the identity.

    With relu units, W small and b = 0 this is the IRNN: at first the state only adds up what is
    read. Matrices of the state that are not square stay as they are.

    Args:
        layer: any recurrent layer, changed in place.
        scale: of the identity, > 0; below 1 the state is forgotten at that rate.

    Returns:
        the layer.

    Raises:
        InputError: no square matrix of the cell multiplies its state.

    Example:
        >>> import elman
        >>> from elman.layers.initialise import identity_
        >>> identity_(elman.RNN(1, 2), scale=0.5).weight_hh_l0.tolist()
        [[0.5, 0.0], [0.0, 0.5]]

    Source: Le, Jaitly & Hinton 2015, "A simple way to initialize recurrent networks of rectified
    linear units".
    """
    _positive("identity_", "scale", scale)

    def fill(matrix: Tensor) -> None:
        init.eye_(matrix).mul_(scale)

    return _fill_matrices(layer, "identity_", fill, square=True)


def uniform_(layer: RecurrentLayer, bound: float | None = None) -> RecurrentLayer:
    """Start every recurrent matrix at U(−bound, bound), as torch.nn does.

    Args:
        layer: any recurrent layer, changed in place.
        bound: > 0; 1/√hidden if not given.

    Returns:
        the layer.

    Raises:
        InputError: no matrix of the cell multiplies its state.

    Example:
        >>> import elman
        >>> from elman.layers.initialise import uniform_
        >>> bool(uniform_(elman.Recurrent("gru", 2, 4)).U_r_l0.abs().max() <= 0.5)
        True
    """
    bound = 1 / math.sqrt(layer.hidden_size) if bound is None else bound
    _positive("uniform_", "bound", bound)
    return _fill_matrices(layer, "uniform_", lambda matrix: init.uniform_(matrix, -bound, bound))


def forget_bias_(layer: RecurrentLayer, value: float = 1.0) -> RecurrentLayer:
    r"""Start the bias of every gate that keeps a state so that, without input, it keeps σ(value).

    .. math:: s_t = k \odot s_{t-1} + \dots, \qquad k = \sigma(\dots + b)

    The forget gate of an LSTM and the update gate of a GRU are such gates. Where the gate counts
    the other way round, k = 1 − σ(… + b), its bias becomes −value.

    Args:
        layer: any recurrent layer whose cell has such a gate, changed in place.
        value: 1 keeps 73 % at first, 3 keeps 95 %.

    Returns:
        the layer.

    Raises:
        InputError: the cell has no such gate, or the layer no biases.

    Example:
        >>> import elman
        >>> from elman.layers.initialise import forget_bias_
        >>> forget_bias_(elman.Recurrent("mgu", 1, 2), 2.0).b_f_l0.tolist()
        [-2.0, -2.0]

    Source: Gers, Schmidhuber & Cummins 2000, "Learning to forget"; Jozefowicz, Zaremba & Sutskever
    2015, "An empirical exploration of recurrent network architectures" (a forget bias of 1).
    """
    if not math.isfinite(value):
        raise InputError(f"forget_bias_: value is {value}; give a finite number")
    for place, found in _gates(layer, "forget_bias_"):
        place.set(found.keep, torch.full_like(place.like(found.keep), value))
    return layer


def chrono_(layer: RecurrentLayer, longest: float) -> RecurrentLayer:
    r"""Start the gates so that the units remember over times spread from 2 steps to `longest`.

    .. math:: b_{keep} \sim \ln U(1,\, T_{max} - 1), \qquad b_{write} = -b_{keep}

    A gate k = σ(b) forgets over about 1/(1 − k) = 1 + eᵇ steps. Where another gate writes (an
    LSTM's input gate) it gets the opposite bias; with coupled gates and in a GRU the keeping gate
    alone is set.

    Args:
        layer: any recurrent layer whose cell has such a gate, changed in place, with torch's
            random numbers.
        longest: T_max, in steps, > 2: the longest time over which anything must be remembered.

    Returns:
        the layer.

    Raises:
        InputError: the cell has no such gate, or the layer no biases; longest is not above 2.

    Example:
        >>> import elman
        >>> from elman.layers.initialise import chrono_
        >>> layer = chrono_(elman.Recurrent("lstm", 1, 8), longest=100)
        >>> bool((layer.b_i_l0 == -layer.b_f_l0).all()), bool((layer.b_f_l0 <= 4.6).all())
        (True, True)

    Source: Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", the chrono
    initialisation of LSTMs and gated networks.
    """
    if not (math.isfinite(longest) and longest > 2):
        raise InputError(f"chrono_: longest is {longest}; give a number of steps above 2")
    for place, found in _gates(layer, "chrono_"):
        like = place.like(found.keep)
        bias = torch.empty_like(like).uniform_(1.0, longest - 1.0).log_()
        place.set(found.keep, bias)
        for gate in found.write:
            if place.like(gate).shape == bias.shape:
                place.set(gate, -bias)
    return layer


# -- where the equation's parameters lie in a layer --------------------------------------------


class _Place:
    """The parameters of one layer and direction, each as the tensors whose sum it is."""

    def __init__(self, layer: RecurrentLayer, number: int, direction: int):
        end = f"_l{number}{DIRECTIONS[direction]}"
        self._parts: dict[str, list[Tensor]] = {}
        if not isinstance(layer, _DROP_INS):
            for parameter in layer.cell.graph.parameters:
                name = parameter.name
                self._parts[name] = [layer.get_parameter(name + end).data]
            return
        kernel, rows = layer._kernel, len(layer._kernel.gates)
        into, back = (
            layer.get_parameter(f"weight_{kind}{end}").data.chunk(rows) for kind in ("ih", "hh")
        )
        first = second = None
        if layer.bias:
            first, second = (
                layer.get_parameter(f"bias_{kind}{end}").data.chunk(rows) for kind in ("ih", "hh")
            )
        for i, (w, u, b) in enumerate(kernel.gates):
            self._parts |= {w: [into[i]], u: [back[i]]}
            if first is None or second is None:
                continue
            inner = kernel.second_biases.get(i)
            self._parts |= {b: [first[i]]} if inner else {b: [first[i], second[i]]}
            if inner:
                self._parts[inner] = [second[i]]
        if kernel.projection is not None:
            self._parts[kernel.projection] = [layer.get_parameter(f"weight_hr{end}").data]

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def matrix(self, name: str) -> Tensor:
        return self._parts[name][0]

    def like(self, gate: Gate) -> Tensor:
        """The first bias of a gate."""
        return self._parts[gate.biases[0]][0]

    def set(self, gate: Gate, value: Tensor) -> None:
        """Make the sum of a gate's biases what opens it by `value`."""
        parts = [part for name in gate.biases for part in self._parts[name]]
        parts[0].copy_(gate.sign * value)
        for part in parts[1:]:
            part.zero_()


def _places(layer: RecurrentLayer) -> Iterator[_Place]:
    for number in range(layer.num_layers):
        for direction in range(layer.directions):
            yield _Place(layer, number, direction)


@torch.no_grad()
def _fill_matrices(
    layer: RecurrentLayer, what: str, fill: Callable[[Tensor], object], square: bool = False
) -> RecurrentLayer:
    _check_layer(layer, what)
    names = state_matrices(layer.cell.graph)
    filled = 0
    for place in _places(layer):
        for name in names:
            matrix = place.matrix(name)
            if matrix.ndim == 2 and (matrix.shape[0] == matrix.shape[1] or not square):
                fill(matrix)
                filled += 1
    if not filled:
        raise InputError(
            f"{what}: no {'square ' if square else ''}matrix of {layer.cell.name!r} multiplies its "
            "state, so there is nothing to start so; leave this option out for this cell"
        )
    return layer


def _gates(layer: RecurrentLayer, what: str) -> Iterator[tuple[_Place, Keeping]]:
    """Each place of a layer with each gate that keeps a state there, checked before any change."""
    _check_layer(layer, what)
    found = keeping(layer.cell.graph)
    if not found:
        raise InputError(
            f"{what}: {layer.cell.name!r} has no logistic gate with a bias that keeps its state "
            "(s' = σ(… + b) ⊙ s + …), so there is none to set; take a cell that has one, such as "
            "lstm or gru"
        )
    places = list(_places(layer))
    if found[0].keep.biases[0] not in places[0]:
        raise InputError(f"{what}: this {layer.owner} has no biases (bias=False); build it with")
    for place in places:
        for entry in found:
            yield place, entry


def _check_layer(layer: object, what: str) -> None:
    if not isinstance(layer, RecurrentLayer):
        raise InputError(
            f"{what}: expected a recurrent layer of Elman, got {type(layer).__name__}; "
            "elman.convert makes one of torch.nn's"
        )


def _positive(what: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{what}: {name} is {value}; give a number above 0")
