"""LSTMCell, GRUCell and RNNCell: one step of one layer, as torch.nn has them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from elman import equation
from elman.backends import cpu, torch_kernel
from elman.backends.call import Call
from elman.backends.choose import Choice, choose
from elman.backends.cpu.sources import own
from elman.backends.reference import Step
from elman.backends.torch_kernel import KERNELS, Kernel
from elman.errors import InputError, SizeError
from elman.layers import checks
from elman.layers.explain import explain
from elman.learning import BPTT


class _StackedCell(nn.Module):
    """What the three share: torch.nn's stacked parameters of one step."""

    nonlinearity: str
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def _build(
        self,
        kernel: Kernel,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        *,
        layer_norm: bool,
        zoneout: float,
        initial_state: str,
        backend: str,
    ) -> None:
        owner = self.owner
        checks.check_sizes(owner, input_size, hidden_size, 1)
        checks.check_flag(owner, "layer_norm", layer_norm)
        checks.check_choice(owner, "initial_state", initial_state, checks.INITIAL_STATES)
        checks.check_backend(owner, backend)
        self.zoneout = checks.check_probability(owner, "zoneout", zoneout)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bool(bias)
        self.layer_norm, self.initial_state, self.backend = layer_norm, initial_state, backend
        self.cell, self._kernel = kernel.own_cell, kernel
        graph = self.cell.graph
        plain = {p.name for p in graph.parameters}
        graph = equation.with_layer_norm(graph) if layer_norm else graph
        self._graph = equation.with_zoneout(graph) if zoneout else graph
        self._added = tuple(p for p in self._graph.parameters if p.name not in plain)
        rows = len(kernel.gates) * hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, hidden_size),
        }
        for name in ("bias_ih", "bias_hh"):
            if bias:
                shapes[name] = (rows,)
        shapes |= {p.name: (hidden_size,) for p in self._added}
        if initial_state == "learned":
            shapes |= {f"initial_{s}": (hidden_size,) for s in self.cell.states}
        for name, shape in shapes.items():
            value = torch.empty(shape, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(value))
        if not bias:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        self.reset_parameters()

    @property
    def owner(self) -> str:
        """The layer's name in errors."""
        return type(self).__name__

    def reset_parameters(self) -> None:
        """Start all weights anew, U(−1/√hidden, 1/√hidden), drawn in torch.nn's order."""
        bound = checks.uniform_bound(self.hidden_size)
        for weight in self._stacked():
            nn.init.uniform_(weight, -bound, bound)
        for p in self._added:
            equation.initialise(getattr(self, p.name), p.init, self.hidden_size)
        if self.initial_state == "learned":
            for state in self.cell.graph.states:
                nn.init.constant_(getattr(self, f"initial_{state.name}"), state.initial)

    def _stacked(self) -> list[Tensor]:
        weights = [self.weight_ih, self.weight_hh]
        return [*weights, self.bias_ih, self.bias_hh] if self.bias else weights

    def equation_parameters(self) -> dict[str, Tensor]:
        """The parameters by the equation's names, differentiable."""
        parameters = self._kernel.unstack(self._stacked())
        return {**parameters, **{p.name: getattr(self, p.name) for p in self._added}}

    def _choose(self) -> Choice:
        # For one step torch's kernel, which has less around it, is the faster.
        return choose(
            self.owner, self.backend, {"torch": self._obstacles, "cpu": self._cpu_obstacles}
        )

    def _obstacles(self) -> list[str]:
        """What keeps torch's kernel from the cell, each a phrase."""
        found = []
        if self.zoneout:
            found.append(f"zoneout={self.zoneout} changes the equation")
        if self.layer_norm:
            found.append("layer_norm changes the equation")
        if torch_kernel.in_transform():
            found.append(torch_kernel.TRANSFORM)
        return found

    def _cpu_obstacles(self) -> list[str]:
        """What keeps our kernel for the CPU from the cell, each a phrase."""
        found = cpu.obstacles(self._graph, self.weight_ih.device, self.weight_ih.dtype)
        if torch_kernel.in_transform():
            found.append(torch_kernel.TRANSFORM)
        if torch.compiler.is_compiling():
            found.append("torch.compile is at work")
        return found

    def explain(self) -> str:
        """Say which backend runs a call of this cell, and why."""
        return explain(self.owner, self._choose(), BPTT().words(), whole=True, lengths=False)

    def _step(self, x: Tensor, states: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        owner = self.owner
        if not isinstance(x, Tensor):
            raise checks.ArgumentTypeError(f"{owner}: x is a {type(x).__name__}; give a tensor")
        if x.dim() not in (1, 2):
            raise SizeError(
                f"{owner}: Expected input to be 1D or 2D, got {x.dim()}D instead. x has shape "
                f"{tuple(x.shape)}; give (batch, {self.input_size}) or ({self.input_size},)"
            )
        self._check_dims(states)
        checks.check_dtype(owner, x, self.weight_ih.dtype)
        batched = x.dim() == 2
        x = x if batched else x.unsqueeze(0)
        if x.shape[1] != self.input_size:
            raise SizeError(
                f"input has inconsistent input_size: got {x.shape[1]} expected {self.input_size}. "
                f"{owner}: x has shape {tuple(x.shape)}"
            )
        if states is None:
            states = self._initial(x)
        elif not batched:
            states = tuple(s.unsqueeze(0) for s in states)
        self._check_states(x, states)
        new = self._run(x, states)
        return new if batched else tuple(s.squeeze(0) for s in new)

    def _run(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        backend = self._choose().backend
        if backend == "torch":
            one = getattr(torch._VF, f"{self._kernel.name}_cell")
            hx = states if len(states) > 1 else states[0]
            new = one(x, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            return new if len(states) > 1 else (new,)
        extras = {}
        for extra in self._graph.inputs[1:]:
            z = x.new_full((x.shape[0], self.hidden_size), self.zoneout)
            extras[extra.name] = torch.bernoulli(z) if self.training else z
        if backend == "cpu":
            steps = {name: value.unsqueeze(0) for name, value in extras.items()}
            sizes = {"input": self.input_size, "hidden": self.hidden_size}
            parameters = own(self.equation_parameters())
            call = Call(x.unsqueeze(0), states, step_extras=steps)
            return cpu.run(cpu.kernels_of(self._graph), sizes, parameters, call).carried
        return Step(self._graph, self.equation_parameters())(x, states, extras)[1]

    def _initial(self, x: Tensor) -> tuple[Tensor, ...]:
        if self.initial_state == "learned":
            return tuple(
                getattr(self, f"initial_{s}").expand(x.shape[0], -1) for s in self.cell.states
            )
        zeros = x.new_zeros(x.shape[0], self.hidden_size)
        return (zeros,) * len(self.cell.states)

    def _check_dims(self, states: tuple[Tensor, ...] | None) -> None:
        several = len(self.cell.states) > 1
        for i, state in enumerate(states or ()):
            if state.dim() not in (1, 2):
                what = f"hx[{i}]" if several else "hidden"
                raise SizeError(
                    f"{self.owner}: Expected {what} to be 1D or 2D, got {state.dim()}D instead. "
                    f"It has shape {tuple(state.shape)}; give (batch, {self.hidden_size}) or "
                    f"({self.hidden_size},)"
                )

    def _check_states(self, x: Tensor, states: tuple[Tensor, ...]) -> None:
        owner = self.owner
        for i, (name, state) in enumerate(zip(self.cell.states, states, strict=True)):
            ours = f"{owner}: the state {name} has shape {tuple(state.shape)}, x {tuple(x.shape)}"
            if state.dim() != 2:
                raise SizeError(f"Expected hidden{i} to be 2D, got {state.dim()}D instead. {ours}")
            if state.shape[1] != self.hidden_size:
                raise SizeError(
                    f"hidden{i} has inconsistent hidden_size: got {state.shape[1]}, expected "
                    f"{self.hidden_size}. {ours}"
                )
            if state.shape[0] != x.shape[0]:
                raise SizeError(
                    f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size "
                    f"{state.shape[0]}. {ours}"
                )
            if state.dtype != x.dtype and not torch._C._is_any_autocast_enabled():
                raise SizeError(f"{ours}: they are of types {state.dtype} and {x.dtype}")

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        if not self.bias:
            parts.append("bias=False")
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            parts.append(f"nonlinearity={self.nonlinearity}")
        options = {
            "layer_norm": (self.layer_norm, False),
            "zoneout": (self.zoneout, 0.0),
            "initial_state": (self.initial_state, "zeros"),
            "backend": (self.backend, "auto"),
        }
        return ", ".join(
            [*parts, *(f"{name}={v}" for name, (v, plain) in options.items() if v != plain)]
        )


class LSTMCell(_StackedCell):
    r"""One step of a long short-term memory, a drop-in for torch.nn.LSTMCell; see `elman.LSTM`.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.LSTMCell.
        layer_norm, zoneout, initial_state, backend: as in `elman.Recurrent`. Options that belong
            to a sequence or a stack are those of `elman.LSTM`.

    Shapes:
        input: (batch, input) or (input,). h and c: (batch, hidden) or (hidden,).

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> cell = elman.LSTMCell(3, 4)
        >>> h, c = cell(torch.randn(2, 3))
        >>> h.shape
        torch.Size([2, 4])

    Source: as `elman.LSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        initial_state: str = "zeros",
        backend: str = "auto",
    ):
        super().__init__()
        self._build(
            KERNELS["lstm"],
            input_size,
            hidden_size,
            bias,
            device,
            dtype,
            layer_norm=layer_norm,
            zoneout=zoneout,
            initial_state=initial_state,
            backend=backend,
        )

    def forward(self, input: Tensor, hx: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """One step: the new states (h, c)."""
        if hx is not None and (isinstance(hx, Tensor) or len(hx) != 2):
            raise SizeError("LSTMCell: hx is a pair of tensors (h, c)")
        h, c = self._step(input, None if hx is None else (hx[0], hx[1]))
        return h, c


class GRUCell(_StackedCell):
    r"""One step of a gated recurrent unit, a drop-in for torch.nn.GRUCell; see `elman.GRU`.

    Args:
        input_size, hidden_size, bias, device, dtype: as in torch.nn.GRUCell.
        layer_norm, zoneout, initial_state, backend: as in `elman.Recurrent`. Options that belong
            to a sequence or a stack are those of `elman.GRU`.

    Shapes:
        input: (batch, input) or (input,). h: (batch, hidden) or (hidden,).

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> cell = elman.GRUCell(3, 4)
        >>> h = cell(torch.randn(2, 3))
        >>> h.shape
        torch.Size([2, 4])

    Source: as `elman.GRU`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        initial_state: str = "zeros",
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
            layer_norm=layer_norm,
            zoneout=zoneout,
            initial_state=initial_state,
            backend=backend,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step: the new state."""
        return self._step(input, None if hx is None else (hx,))[0]


class RNNCell(_StackedCell):
    r"""One step of a simple recurrent network, a drop-in for torch.nn.RNNCell; see `elman.RNN`.

    Args:
        input_size, hidden_size, bias, nonlinearity, device, dtype: as in torch.nn.RNNCell.
        layer_norm, zoneout, initial_state, backend: as in `elman.Recurrent`. Options that belong
            to a sequence or a stack are those of `elman.RNN`.

    Shapes:
        input: (batch, input) or (input,). h: (batch, hidden) or (hidden,).

    Raises:
        InputError, SizeError: what torch.nn refuses, in its words and then ours, and bad options.

    Example:
        >>> import elman, torch
        >>> cell = elman.RNNCell(3, 4)
        >>> h = cell(torch.randn(2, 3))
        >>> h.shape
        torch.Size([2, 4])

    Source: as `elman.RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        layer_norm: bool = False,
        zoneout: float = 0.0,
        initial_state: str = "zeros",
        backend: str = "auto",
    ):
        super().__init__()
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(
                f"Unknown nonlinearity: {nonlinearity}. RNNCell: it is 'tanh' or 'relu'"
            )
        self.nonlinearity = nonlinearity
        self._build(
            KERNELS[f"rnn_{nonlinearity}"],
            input_size,
            hidden_size,
            bias,
            device,
            dtype,
            layer_norm=layer_norm,
            zoneout=zoneout,
            initial_state=initial_state,
            backend=backend,
        )

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """One step: the new state."""
        return self._step(input, None if hx is None else (hx,))[0]
