"""The network of a language model: token vectors, recurrent layers, output layer."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

import elman.cells
from elman.equation import Cell
from elman.errors import InputError
from elman.layers import GRU, LSTM, Recurrent
from elman.layers.base import RecurrentLayer
from elman.layers.chain import Chain
from elman.layers.states import write_state
from elman.layers.stepper import Stepper
from elman.learning import BPTT, Carried, space
from elman.tasks.lm.options import LMOptions

State = Any  # a tensor or a tuple of tensors, each (1, batch, ...)

# Cells whose equation is torch.nn's: these layers run on its kernel.
_EXACT = {"lstm": LSTM, "gru": GRU}


class LanguageModel(nn.Module):
    r"""Predicts each next token of parallel texts.

    .. math::

        e_t = E_{w_t}, \qquad h^l_t = cell^l(h^{l-1}_t, h^l_{t-1}), \qquad
        \ln p(w_{t+1} | w_{\le t}) = \mathrm{logsoftmax}(A h^L_t + b)_{w_{t+1}}

    with :math:`h^0 = e`, dropout where the options say (one mask for all steps of a window: Gal &
    Ghahramani 2016), and A = E (times a projection, where sizes differ) if tied.

    Args:
        tokens: size of the vocabulary.
        options: resolved options (`hidden`, `layers`, `embedding`, ... are numbers).
        cell: the cell of every recurrent layer.
    """

    def __init__(self, tokens: int, options: LMOptions, cell: Cell):
        super().__init__()
        self.tokens, self.options = tokens, options
        hidden, embedding = options.hidden or 1, options.embedding or 0
        self.embedding = nn.Embedding(tokens, embedding) if embedding else None
        size, layers = embedding or tokens, []
        for _ in range(options.layers or 1):
            layer = _layer(cell, size, hidden, options)
            size = layer.output_size
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(size) if options.output_norm else None
        self.bridge = None
        if options.tied and self.embedding is not None:
            self.bias = nn.Parameter(torch.zeros(tokens))
            if size != embedding:
                self.bridge = nn.Linear(size, embedding, bias=False)
        else:
            self.output = nn.Linear(size, tokens)
        self._initialise()
        # In a tuple, so that no weight is registered twice.
        self._exactly: tuple[Chain, ...] = ()
        self._carrying: tuple[Chain, ...] = ()
        if options.carry is not None:
            self._carrying = (self._chain(options.carry),)

    @torch.no_grad()
    def _initialise(self) -> None:
        """Orthogonal recurrent matrices a gate, forget biases 1; readout biases 0."""
        if self.embedding is not None:
            size = self.embedding.embedding_dim
            # A tied matrix also makes logits: their variance at the start should be near one.
            nn.init.normal_(self.embedding.weight, std=size**-0.5 if self.options.tied else 1.0)
        if not self.options.tied:
            nn.init.zeros_(self.output.bias)
        for layer in self.recurrent:
            if not isinstance(layer, LSTM | GRU):
                continue  # a cell says itself how its parameters start
            for gate in layer.get_parameter("weight_hh_l0").split(layer.hidden_size):
                nn.init.orthogonal_(gate)
            for name in ("bias_ih_l0", "bias_hh_l0"):
                nn.init.zeros_(layer.get_parameter(name))
            if isinstance(layer, LSTM):
                forget = slice(layer.hidden_size, 2 * layer.hidden_size)
                layer.get_parameter("bias_ih_l0")[forget] = 1.0

    @property
    def recurrent(self) -> list[RecurrentLayer]:
        """The recurrent layers, each one deep."""
        return cast("list[RecurrentLayer]", list(self.layers))

    def _chain(self, carry: str) -> Chain:
        """Token vectors and recurrent layers as one chain, through which credit is carried.

        Raises:
            InputError: an option that cannot be carried, named.
        """
        options = self.options
        hindrances = (
            ("weight_dropout", options.weight_dropout, "weights dropped anew in every window"),
            ("residual", options.residual and len(self.layers) > 1, "sums around layers"),
        )
        for name, there, what in hindrances:
            if there:
                raise InputError(
                    f"carry={carry}: {name}={getattr(options, name)} makes {what}, through which "
                    f"nothing is carried; leave {name} out, or carry."
                )
        modules: list[nn.Module] = [] if self.embedding is None else [self.embedding]
        if self.embedding is not None and options.dropout_input:
            modules.append(nn.Dropout(options.dropout_input))
        for i, layer in enumerate(self.recurrent):
            if i and options.dropout_between:
                modules.append(nn.Dropout(options.dropout_between))
            modules.append(layer)
        return Chain(*modules, learning=BPTT(carry=carry))

    def influence_bytes(self, streams: int) -> int:
        """Return what the carry of so many streams weighs beside their states; 0 without one."""
        return sum(chain.learning_bytes(streams) for chain in self._carrying)

    def check_room(self, streams: int) -> None:
        """See that the influence has room, before any of it is made.

        Raises:
            InputError: it does not fit; the number is said, and what to do.
        """
        # One is kept until the backward pass is through while the next is made.
        needed, there = 2 * self.influence_bytes(streams), space.room(self.device)
        if there is not None and needed > there:
            raise InputError(
                f"carry={self.options.carry}: the influence of {streams} streams needs "
                f"{space.in_words(needed)}, and {space.in_words(there)} are free; choose a smaller "
                "hidden, fewer streams, a smaller embedding, or carry=snap1 or uoro."
            )

    def _exact_chain(self) -> Chain:
        """The chain of the exact gradient, with which another is compared."""
        options = self.options
        if not self._exactly:
            inner = ("dropout_input", "dropout_between", "recurrent_dropout", "zoneout")
            drops = [name for name in inner if getattr(options, name)]
            if options.carry is None and drops:
                raise InputError(
                    f"fidelity: {drops[0]}={getattr(options, drops[0])} draws other masks with a "
                    f"carry than without one, so gradients do not compare; set {drops[0]}=0."
                )
            self._exactly = (self._chain("exact"),)
        return self._exactly[0]

    def learn(self, tokens: Tensor, states: Any, anew: Tensor | None, *, exact: bool = False):
        """Return the logits of every next token and what is carried on, for learning with a carry.

        Args:
            tokens: ids, (time, batch), int64.
            states: what was returned before, or the states to begin with.
            anew: (batch,), true where a stream begins anew with the first token; None is nowhere.
            exact: learn by the exact carry, whatever the options say.

        Returns:
            logits, and a `Carried` of the states and the influence.
        """
        if not isinstance(states, Carried):
            anew = torch.ones(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        resets = None
        if anew is not None and bool(anew.any()):
            resets = torch.zeros_like(tokens, dtype=torch.bool)
            resets[0] = anew
        x = tokens if self.embedding is not None else self._vectors(tokens)
        chain = self._exact_chain() if exact else self._carrying[0]
        out, carried = chain(x, states, resets=resets)
        rate = self.options.dropout_output if self.training else 0.0
        return self._logits(_locked_dropout(out, rate)), carried

    def forward(self, tokens: Tensor, states: tuple[State, ...] | None = None):
        """Return the logits of every next token, and the new states.

        Args:
            tokens: ids, (time, batch), int64.
            states: one entry a layer, as returned before; None begins anew.

        Shapes:
            logits: (time, batch, tokens), float32 (or the model's wider type).

        Returns:
            logits and states.
        """
        options, training = self.options, self.training
        x = _locked_dropout(self._vectors(tokens), options.dropout_input if training else 0.0)
        new = []
        for i, layer in enumerate(self.recurrent):
            out, state = self._run(layer, x, None if states is None else states[i])
            new.append(state)
            if options.residual and i > 0:
                out = out + x
            last = i + 1 == len(self.layers)
            rate = options.dropout_output if last else options.dropout_between
            x = _locked_dropout(out, rate if training else 0.0)
        return self._logits(x), tuple(new)

    def _run(self, layer: RecurrentLayer, x: Tensor, state: State | None):
        rate = self.options.weight_dropout or 0.0
        if not (self.training and rate):
            return layer(x, state)
        weights = {
            name: functional.dropout(layer.get_parameter(name), rate)
            for name in _recurrent_matrices(layer)
        }
        return torch.func.functional_call(layer, weights, (x, state))

    def steppers(self, states: tuple[State, ...]) -> list[Stepper]:
        """Return one stepper a layer, which go on from states that `forward` returned."""
        return [layer.stepper(s) for layer, s in zip(self.recurrent, states, strict=True)]

    def step(self, tokens: Tensor, steppers: list[Stepper]) -> Tensor:
        """Read one token of each row (batch,) in evaluation, and return the logits of the next.

        The states are kept by the steppers; logits are (batch, tokens).
        """
        x = self._vectors(tokens)
        for i, step in enumerate(steppers):
            out = step(x)
            x = out + x if self.options.residual and i > 0 else out
        return self._logits(x)

    def _vectors(self, tokens: Tensor) -> Tensor:
        if self.embedding is None:
            return functional.one_hot(tokens, self.tokens).to(self.dtype)
        return self.embedding(tokens)

    def _logits(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        if not self.options.tied or self.embedding is None:
            logits = self.output(x)
        else:
            x = x if self.bridge is None else self.bridge(x)
            logits = functional.linear(x, self.embedding.weight, self.bias)
        return logits if logits.dtype == torch.float64 else logits.float()

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def fresh(self, batch: int) -> tuple[State, ...]:
        """Return the states before the first token, for `batch` rows."""
        like = next(self.parameters())
        result = []
        for layer in self.recurrent:
            states = write_state(layer.cell.graph, layer.initial_carried(batch, like), 1)
            result.append(states if len(states) > 1 else states[0])
        return tuple(result)


def _layer(cell: Cell, size: int, hidden: int, options: LMOptions) -> LSTM | GRU | Recurrent:
    """Make one recurrent layer; an equation of torch.nn's without extras gets its drop-in."""
    kind = _drop_in(cell, options)
    if kind is not None:
        return kind(size, hidden)
    return Recurrent(
        cell,
        size,
        hidden,
        sizes=further_sizes(cell, options),
        recurrent_dropout=options.recurrent_dropout,
        zoneout=options.zoneout,
        layer_norm=options.layer_norm,
        initial_state=options.initial_state,
    )


def _drop_in(cell: Cell, options: LMOptions) -> type[LSTM] | type[GRU] | None:
    extras = options.recurrent_dropout or options.zoneout or options.layer_norm
    if extras or options.initial_state != "zeros":
        return None
    kinds = (kind for name, kind in _EXACT.items() if cell.graph == elman.cells.get(name).graph)
    return next(kinds, None)


def has_drop_in(cell: Cell, options: LMOptions) -> bool:
    """Return whether layers with these options run on torch's own kernel."""
    return _drop_in(cell, options) is not None


def _recurrent_matrices(layer: RecurrentLayer) -> list[str]:
    """Return the names of the matrices that multiply a state."""
    if isinstance(layer, LSTM | GRU):
        return ["weight_hh_l0"]
    parameters = layer.cell.graph.parameters
    return [f"{p.name}_l0" for p in parameters if len(p.dims) == 2 and p.dims[1] != "input"]


def further_sizes(cell: Cell, options: LMOptions) -> dict[str, int]:
    """Return the sizes of a cell besides input and hidden: as named, else half of hidden."""
    half = max(1, (options.hidden or 1) // 2)
    names = [name for name in cell.graph.sizes if name not in ("input", "hidden")]
    return dict.fromkeys(names, half) | options.sizes


def _locked_dropout(x: Tensor, rate: float | None) -> Tensor:
    """Dropout on (time, batch, size) with one mask for all steps of a window."""
    if not rate:
        return x
    return x * functional.dropout(x.new_ones(1, *x.shape[1:]), rate)


def detached(states: State) -> State:
    """Return nested tuples of tensors without their history; an influence has none."""
    if isinstance(states, Carried):
        return Carried(detached(states.states), states.influence)
    if isinstance(states, tuple):
        return tuple(detached(state) for state in states)
    return states.detach()


def begin_anew(states: State, fresh: State, rows: Tensor) -> State:
    """Return states in which the rows marked true are replaced by fresh ones.

    Args:
        states, fresh: nested tuples of tensors, (1, batch, ...).
        rows: (batch,), bool.
    """
    if isinstance(states, tuple):
        return tuple(begin_anew(s, f, rows) for s, f in zip(states, fresh, strict=True))
    rows = rows.view(1, -1, *[1] * (states.ndim - 2))
    return torch.where(rows, fresh.to(states.dtype), states)
