"""The general layer: any cell, in a stack, in one direction or both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman import cells
from elman.equation import Cell, hyper_as_data, initialise
from elman.equation import cell as make_cell
from elman.equation.neighbours import gathers
from elman.errors import InputError, nearest
from elman.layers.base import DIRECTIONS, RecurrentLayer
from elman.layers.checks import ArgumentTypeError
from elman.learning import BPTT


class Recurrent(RecurrentLayer):
    r"""A stack of recurrent layers with any cell.

    Layer l computes $s^l_t = F(s^l_{t-1}, x^l_t;\, \theta^l)$ with its cell F, and its output, the
    first state, is the input of the next: $x^{l+1}_t = D(h^l_t)$ with dropout D; with `residual`
    its output is $h^l_t + x^l_t$ from the second layer on. With `bidirectional` a second cell
    runs from the end, and both outputs are put together. `dense` puts layers
    $y = f(V y + d)$ on top of each step: the deep recurrent network of the lecture notes.

    Args:
        cell: the name of a cell (see `elman.cells.names()`), a Cell, or a function that
            `elman.cell` would take.
        input_size: features of x, ≥ 1.
        hidden_size: units of the state, ≥ 1.
        num_layers: layers of the stack, ≥ 1.
        sizes: sizes by name which the cell has besides, such as {"projection": 32}.
        hyper: hyper-parameters of the cell by name, such as {"f": "relu"}.
        bidirectional: whether each layer also runs from the end to the start.
        batch_first: x and the outputs as (batch, time, …) instead of (time, batch, …).
        dropout: probability in [0, 1], on the outputs of all layers but the last, in training.
        recurrent_dropout: probability in [0, 1), one mask a sequence on each state where it
            enters a product, in training.
        zoneout: probability in [0, 1) with which each unit of each state keeps its old value.
        layer_norm: normalise each product of x and of the state.
        initial_state: "zeros" (or the constants that the cell declares), or "learned".
        residual: add a layer's input to its output, from the second layer on.
        dense: widths of dense layers on top of each step, such as [64, 32].
        dense_activation: what follows each of them, by name.
        learning: how credit travels in time; `elman.BPTT()` if not given.
        backend: "auto", "reference", or "torch" (equations of torch.nn only).

    Shapes:
        x: (time, batch, input), (batch, time, input) with batch_first, (time, input) without a
        batch, or a PackedSequence. out: the same with directions·size features. state: one tensor
        (layers·directions, batch, size), or a tuple of them in the order of the cell's states. A
        cell with delays continues the tuple with (directions, batch, depth, size) for each layer
        and delay line. lengths: (batch,). resets: as x without features.

    Raises:
        InputError: an option or name that cannot be used.
        SizeError: a size that is missing or does not fit.

    Example:
        >>> import elman, torch
        >>> layer = elman.Recurrent("peephole_lstm", 3, 4, num_layers=2)
        >>> out, (h, c) = layer(torch.randn(7, 2, 3), lengths=torch.tensor([7, 5]))
        >>> out.shape, h.shape
        (torch.Size([7, 2, 4]), torch.Size([2, 2, 4]))
        >>> layer.W_i_l0.shape
        torch.Size([4, 3])

    Source: dropout between layers as torch.nn; recurrent dropout Gal & Ghahramani 2016; zoneout
    Krueger et al. 2016; layer normalisation Ba et al. 2016; both directions Schuster & Paliwal
    1997; dense layers on each step Pascanu et al. 2014, section 3.3.
    """

    def __init__(
        self,
        cell: str | Cell | Callable,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        sizes: Mapping[str, int] | None = None,
        hyper: Mapping[str, Any] | None = None,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initial_state: str = "zeros",
        residual: bool = False,
        dense: Sequence[int] | int | None = None,
        dense_activation: str = "tanh",
        learning: BPTT | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.cell = _as_cell(cell).with_hyper(**dict(hyper or {}))
        if gathers(self.cell.graph):
            raise InputError(
                f"{self.owner}: this is a cell of trees or graphs, whose nodes read several "
                "others; use elman.Tree or elman.Network"
            )
        self._set_up(
            self.cell,
            _all_sizes(self.owner, self.cell, input_size, hidden_size, sizes),
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            zoneout=zoneout,
            layer_norm=layer_norm,
            initial_state=initial_state,
            residual=residual,
            dense=dense,
            dense_activation=dense_activation,
            learning=learning,
            backend=backend,
        )
        self._graph_parameters = tuple(p.name for p in self._graphs[0].parameters)
        for layer in range(num_layers):
            shapes = self._graphs[0].parameter_shapes(self._sizes[layer])
            for suffix in DIRECTIONS[: self.directions]:
                for name, shape in shapes.items():
                    value = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(f"{name}_l{layer}{suffix}", nn.Parameter(value))
        self._add_shared_parameters(device, dtype)
        self.reset_parameters()

    @property
    def owner(self) -> str:
        return f"Recurrent({self.cell.name!r})"

    def reset_parameters(self) -> None:
        """Start all parameters anew, as the cell says."""
        for layer in range(self.num_layers):
            for suffix in DIRECTIONS[: self.directions]:
                for parameter in self._graphs[0].parameters:
                    value = getattr(self, f"{parameter.name}_l{layer}{suffix}")
                    initialise(value, parameter.init, self.hidden_size)
        self._reset_shared_parameters()

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The parameters of each layer and direction."""
        return [
            list(self.equation_parameters(layer, direction).values())
            for layer in range(self.num_layers)
            for direction in range(self.directions)
        ]

    def equation_parameters(self, layer: int, direction: int) -> dict[str, Tensor]:
        end = f"_l{layer}{DIRECTIONS[direction]}"
        return {name: getattr(self, name + end) for name in self._graph_parameters}

    def stacked_parameters(self, layer: int, direction: int) -> list[Tensor]:
        return self._torch_kernel().stack(self.equation_parameters(layer, direction))

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: Tensor | Sequence[Tensor] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | PackedSequence | None = None,
        return_states: bool | str = False,
        inputs: Mapping[str, Tensor] | None = None,
    ):
        """Run over a sequence.

        Args:
            x: the inputs.
            state: what to start with; the initial state if not given.
            lengths: real steps of each row, 1 to time, in any order. Outputs past the end are
                zero, the final state is that of the last real step, the reverse direction starts
                there.
            resets: booleans, true at the first step of a segment: the state becomes the initial
                state before that step, in the reverse direction after it.
            return_states: True adds every state of the last layer at every step, in the state's
                order and shaped like the outputs; "layers" a tuple of that for every layer.
            inputs: the cell's further inputs by name, such as {"dt": dt}, shaped as x with the
                input's own sizes in place of the features; every layer of the stack reads them.

        Returns:
            (out, state), or (out, state, states).

        Raises:
            SizeError: shapes, number types or lengths that do not fit, named.
        """
        return self._forward(x, state, lengths, resets, return_states, inputs)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, the cell as its equation.

        Example:
            >>> import elman
            >>> layer = elman.Recurrent("gru", 2, 3)
            >>> elman.Recurrent.from_config(layer.config()).cell.name
            'gru'
        """
        own = ("input", "hidden")
        return {
            "cell": self.cell.to_json(),
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "sizes": {k: v for k, v in self._sizes[0].items() if k not in own},
            **self.options(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Recurrent:
        """A layer with new weights from the data of `config`.

        Raises:
            InputError: an unknown or missing entry.
        """
        values = dict(config)
        known = [n for n in inspect.signature(cls).parameters if n not in ("device", "dtype")]
        for name in values:
            if name not in known:
                raise InputError(
                    f"Recurrent.from_config: there is no option {name!r}.{nearest(name, known)}"
                )
        for name in ("cell", "input_size", "hidden_size"):
            if name not in values:
                raise InputError(f"Recurrent.from_config: the entry {name!r} is missing")
        if isinstance(values["cell"], Mapping):
            values["cell"] = Cell.from_json(values["cell"])
        if isinstance(values.get("learning"), Mapping):
            values["learning"] = BPTT(**values["learning"])
        return cls(**values)

    def extra_repr(self) -> str:
        hyper = "".join(f", {k}={v}" for k, v in hyper_as_data(self.cell.hyper).items())
        parts = [f"{self.cell.name!r}{hyper}, {self.input_size}, {self.hidden_size}"]
        return ", ".join([*parts, *self._option_words()])


def _as_cell(cell: str | Cell | Callable) -> Cell:
    if isinstance(cell, str):
        return cells.get(cell)
    if isinstance(cell, Cell):
        return cell
    if inspect.isfunction(cell):
        return make_cell(cell)
    raise ArgumentTypeError(
        f"Recurrent: cell is a {type(cell).__name__}; give a cell's name, a cell, or a function "
        "as elman.cell takes it"
    )


def _all_sizes(
    owner: str, cell: Cell, input_size: int, hidden_size: int, sizes: Mapping[str, int] | None
) -> dict[str, int]:
    further = [s for s in cell.graph.sizes if s not in ("input", "hidden")]
    for name in sizes or ():
        if name not in further:
            has = ", ".join(map(repr, further)) or "none"
            raise InputError(
                f"{owner}: there is no size {name!r} to give; the further sizes of this cell: "
                f"{has}.{nearest(str(name), further)}"
            )
    return {"input": input_size, "hidden": hidden_size, **dict(sizes or {})}
