"""LSTM, GRU and RNN as torch.nn has them: its signatures, state_dict keys, initial weights.

They hold torch's stacked tensors. The equation's parameters are a fixed linear map of them (row
blocks; b = b_ih + b_hh), so gradients pass through it. Every option of `Recurrent` follows
torch.nn's own arguments, by keyword.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman.backends.cpu.sources import Parameters, stacked
from elman.backends.torch_kernel import KERNELS, Kernel
from elman.equation import initialise
from elman.errors import InputError
from elman.layers import checks
from elman.layers.base import DIRECTIONS, RecurrentLayer
from elman.learning import BPTT


class _Stacked(RecurrentLayer):
    """What the three drop-ins share: torch.nn's stacked parameters."""

    mode: str
    proj_size = 0

    def _build(
        self,
        kernel: Kernel,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device,
        dtype,
        **options,
    ) -> None:
        checks.check_flag(self.owner, "bias", bias)
        self.bias, self._kernel = bias, kernel
        sizes = {"input": input_size, "hidden": hidden_size}
        if self.proj_size:
            sizes["projection"] = self.proj_size
        self._set_up(kernel.own_cell, sizes, **options)
        plain = {p.name for p in self.cell.graph.parameters}
        self._added = tuple(p for p in self._graphs[0].parameters if p.name not in plain)
        for layer in range(self.num_layers):
            for suffix in DIRECTIONS[: self.directions]:
                for weight, shape in self._shapes(layer).items():
                    value = torch.empty(shape, device=device, dtype=dtype)
                    self.register_parameter(f"{weight}_l{layer}{suffix}", nn.Parameter(value))
        for layer, sizes in enumerate(self._sizes):
            for suffix in DIRECTIONS[: self.directions]:
                for p in self._added:
                    value = torch.empty([sizes[d] for d in p.dims], device=device, dtype=dtype)
                    self.register_parameter(f"{p.name}_l{layer}{suffix}", nn.Parameter(value))
        self._weight_names = tuple(
            tuple(f"{weight}_l{layer}{suffix}" for weight in self._shapes(layer))
            for layer in range(self.num_layers)
            for suffix in DIRECTIONS[: self.directions]
        )
        self._add_shared_parameters(device, dtype)
        self.reset_parameters()

    def _shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """torch.nn's tensors of one layer and direction, in its order."""
        rows = len(self._kernel.gates) * self.hidden_size
        width = self._sizes[layer]["input"]
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, width),
            "weight_hh": (rows, self.proj_size or self.hidden_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def reset_parameters(self) -> None:
        """Start all weights anew, U(−1/√hidden, 1/√hidden), drawn in torch.nn's order."""
        bound = checks.uniform_bound(self.hidden_size)
        for names in self._weight_names:
            for name in names:
                nn.init.uniform_(getattr(self, name), -bound, bound)
        for layer in range(self.num_layers):
            for suffix in DIRECTIONS[: self.directions]:
                for p in self._added:
                    value = getattr(self, f"{p.name}_l{layer}{suffix}")
                    initialise(value, p.init, self.hidden_size)
        self._reset_shared_parameters()

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """torch.nn's tensors of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._weight_names]

    def stacked_parameters(self, layer: int, direction: int) -> list[Tensor]:
        names = self._weight_names[layer * self.directions + direction]
        return [getattr(self, name) for name in names]

    def equation_parameters(self, layer: int, direction: int) -> dict[str, Tensor]:
        parameters = self._kernel.unstack(self.stacked_parameters(layer, direction))
        end = f"_l{layer}{DIRECTIONS[direction]}"
        for p in self._added:
            parameters[p.name] = getattr(self, p.name + end)
        return parameters

    def _cpu_parameters(self, layer: int, direction: int) -> Parameters:
        kernel, end = self._kernel, f"_l{layer}{DIRECTIONS[direction]}"
        tensors = self.stacked_parameters(layer, direction)
        added = tuple(p.name for p in self._added)
        places = stacked(
            kernel.gates, tuple(kernel.second_biases.items()), kernel.projection, self.hidden_size,
            self.bias, added,
        )  # fmt: skip
        return Parameters((*tensors, *(getattr(self, name + end) for name in added)), places)

    def _weight(self) -> Tensor:
        return getattr(self, self._weight_names[0][0])

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | Sequence[Tensor] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | PackedSequence | None = None,
        return_states: bool | str = False,
    ):
        """Run over a sequence; see `Recurrent.forward`. `input` and `hx` are torch.nn's names."""
        return self._forward(input, hx, lengths, resets, return_states)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bias": self.bias,
            **self.options(),
        }

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if self.proj_size:
            parts.append(f"proj_size={self.proj_size}")
        if not self.bias:
            parts.append("bias=False")
        return ", ".join([*parts, *self._option_words()])


class LSTM(_Stacked):
    r"""Long short-term memory, a drop-in for torch.nn.LSTM with more options.

    $i, f, o = \sigma(W x_t + b + U h_{t-1} + b')$, $g = \tanh(\ldots)$,
    $c_t = f \odot c_{t-1} + i \odot g$, $h_t = o \odot \tanh(c_t)$, projected by $W_{hr}$ where
    `proj_size` is positive.

    Args:
        input_size: this and what follows up to `dtype` as in torch.nn.LSTM.
        recurrent_dropout: this and all that follows as in `elman.Recurrent`.

    Shapes:
        As in torch.nn.LSTM; `lengths` (batch,), `resets` as the input without its features.

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> layer = elman.LSTM(3, 4, num_layers=2, initial_state="learned", recurrent_dropout=0.2)
        >>> out, (h, c) = layer(torch.randn(7, 2, 3), lengths=[7, 5])
        >>> out.shape, h.shape
        (torch.Size([7, 2, 4]), torch.Size([2, 2, 4]))

    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2000; Sak et al. 2014 (projection).
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initial_state: str = "zeros",
        residual: bool = False,
        dense: Sequence[int] | int | None = None,
        dense_activation: str = "tanh",
        learning: BPTT | None = None,
        backend: str = "auto",
    ):
        super().__init__()
        self.proj_size = _checked_projection(proj_size, hidden_size)
        self._build(
            KERNELS["lstm_projected" if proj_size else "lstm"],
            input_size,
            hidden_size,
            bias,
            device,
            dtype,
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


class GRU(_Stacked):
    r"""Gated recurrent unit, a drop-in for torch.nn.GRU with more options.

    $r, z = \sigma(W x_t + b + U h_{t-1} + b')$,
    $n = \tanh(W_n x_t + b_n + r \odot (U_n h_{t-1} + b'_n))$,
    $h_t = (1 - z) \odot n + z \odot h_{t-1}$: z = 1 keeps the old state.

    Args:
        input_size: this and what follows up to `dtype` as in torch.nn.GRU.
        recurrent_dropout: this and all that follows as in `elman.Recurrent`.

    Shapes:
        As in torch.nn.GRU; `lengths` (batch,), `resets` as the input without its features.

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> layer = elman.GRU(3, 4, bidirectional=True, batch_first=True)
        >>> out, h = layer(torch.randn(2, 7, 3))
        >>> out.shape, h.shape
        (torch.Size([2, 7, 8]), torch.Size([2, 2, 4]))

    Source: Cho et al. 2014, with the reset after the product, as cuDNN has it.
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initial_state: str = "zeros",
        residual: bool = False,
        dense: Sequence[int] | int | None = None,
        dense_activation: str = "tanh",
        learning: BPTT | None = None,
        backend: str = "auto",
    ):
        super().__init__()
        self._build(
            KERNELS["gru"],
            input_size,
            hidden_size,
            bias,
            device,
            dtype,
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


class RNN(_Stacked):
    r"""Simple recurrent network, a drop-in for torch.nn.RNN with more options.

    $h_t = f(W x_t + b + U h_{t-1} + b')$ with f tanh or relu.

    Args:
        input_size: this and what follows up to `dtype` as in torch.nn.RNN.
        recurrent_dropout: this and all that follows as in `elman.Recurrent`.

    Shapes:
        As in torch.nn.RNN; `lengths` (batch,), `resets` as the input without its features.

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> out, h = elman.RNN(3, 4, nonlinearity="relu")(torch.randn(7, 3))
        >>> out.shape, h.shape
        (torch.Size([7, 4]), torch.Size([1, 4]))

    Source: Elman 1990.
    """

    mode = "RNN_TANH"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        recurrent_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        initial_state: str = "zeros",
        residual: bool = False,
        dense: Sequence[int] | int | None = None,
        dense_activation: str = "tanh",
        learning: BPTT | None = None,
        backend: str = "auto",
    ):
        super().__init__()
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'. RNN: for "
                'another activation use Recurrent("simple", …, hyper={"f": …})'
            )
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"
        self._build(
            KERNELS[f"rnn_{nonlinearity}"],
            input_size,
            hidden_size,
            bias,
            device,
            dtype,
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


def _checked_projection(proj_size: int, hidden_size: int) -> int:
    if not isinstance(proj_size, int) or isinstance(proj_size, bool):
        raise checks.ArgumentTypeError(
            f"LSTM: proj_size is a {type(proj_size).__name__}; give a whole number ≥ 0"
        )
    if proj_size < 0:
        raise InputError(
            "proj_size should be a positive integer or zero to disable projections. LSTM: "
            f"proj_size is {proj_size}"
        )
    if isinstance(hidden_size, int) and 0 < hidden_size <= proj_size:
        raise InputError(
            "proj_size has to be smaller than hidden_size. LSTM: proj_size is "
            f"{proj_size}, hidden_size {hidden_size}"
        )
    return proj_size
