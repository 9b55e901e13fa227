"""What all recurrent layers share: options, the call, the choice of backend, its explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from elman import equation
from elman.backends import cpu, reference, torch_kernel
from elman.backends.call import Carried as Kept
from elman.backends.choose import Choice, choose
from elman.backends.cpu.sources import Parameters, own
from elman.backends.torch_kernel import Kernel
from elman.equation import Cell, Graph
from elman.equation.sizes import number, shape_of
from elman.errors import InputError
from elman.layers import calls, checks
from elman.layers.explain import explain
from elman.layers.forms import further_inputs, given
from elman.layers.stepper import Stepper
from elman.learning import BPTT, Carried

DIRECTIONS = ("", "_reverse")


class RecurrentLayer(nn.Module):
    """The base of `Recurrent` and of the drop-ins: a stack of one cell, walked over time.

    A subclass makes the parameters and answers `equation_parameters` and `stacked_parameters`.
    """

    def _set_up(
        self,
        cell: Cell,
        sizes: dict[str, int],
        *,
        num_layers: int,
        bidirectional: bool,
        batch_first: bool,
        dropout: float,
        recurrent_dropout: float,
        zoneout: float,
        layer_norm: bool,
        initial_state: str,
        residual: bool,
        dense: Sequence[int] | int | None,
        dense_activation: str,
        learning: BPTT | None,
        backend: str,
    ) -> None:
        """Check and keep the options; the parameters come after."""
        owner = self.owner
        checks.check_sizes(owner, sizes["input"], sizes["hidden"], num_layers)
        for name, value in (
            ("batch_first", batch_first),
            ("bidirectional", bidirectional),
            ("layer_norm", layer_norm),
            ("residual", residual),
        ):
            checks.check_flag(owner, name, value)
        checks.check_choice(owner, "initial_state", initial_state, checks.INITIAL_STATES)
        checks.check_backend(owner, backend)
        checks.check_learning(owner, learning, bidirectional=bidirectional)
        checks.check_activation(owner, dense_activation)
        self.input_size, self.hidden_size = sizes["input"], sizes["hidden"]
        self.num_layers, self.bidirectional = num_layers, bidirectional
        self.batch_first = batch_first
        self.dropout = checks.check_dropout(owner, dropout, num_layers)
        self.recurrent_dropout = checks.check_probability(
            owner, "recurrent_dropout", recurrent_dropout
        )
        self.zoneout = checks.check_probability(owner, "zoneout", zoneout)
        self.layer_norm, self.initial_state, self.residual = layer_norm, initial_state, residual
        self.dense_activation = dense_activation
        self.learning = BPTT() if learning is None else learning
        self.backend = backend
        self.cell = cell
        self._dense_widths = checks.check_dense(owner, dense)
        self._keep_graphs(cell.graph, sizes)

    def _keep_graphs(self, base: Graph, sizes: dict[str, int]) -> None:
        """The step in training and in evaluation, and torch's kernel for each, if there is one."""
        base.check_sizes(sizes)
        output = number(base.output_size, sizes)
        self.output_size = output * self.directions
        wide = {**sizes, "input": self.output_size}
        self._sizes = (sizes, *[wide] * (self.num_layers - 1))
        if self.num_layers > 1:
            base.check_sizes(wide)
        shape = equation.with_layer_norm(base) if self.layer_norm else base
        graphs = []
        for training in (False, True):
            graph = shape
            if training and self.recurrent_dropout:
                graph = equation.with_recurrent_dropout(graph)
            graphs.append(equation.with_zoneout(graph) if self.zoneout else graph)
        self._graphs = tuple(graphs)
        self._choices: dict[tuple, Choice] = {}
        kernels = [torch_kernel.kernel_of(g) for g in graphs]
        plain = torch_kernel.kernel_of(base)
        self._size_obstacle = (
            None if plain is None else torch_kernel.obstacle_of_sizes(plain, sizes)
        )
        self._kernels = tuple(None if self._size_obstacle else k for k in kernels)
        self._keep_ways()

    def _keep_ways(self) -> None:
        """Which short ways through a call the options allow."""
        # Nothing between or around the layers that torch's kernel for a whole stack cannot do.
        self._single = (
            self.num_layers == 1
            and not self.bidirectional
            and not self._dense_widths
            and not self.cell.graph.lines
            and self.learning == BPTT()
        )
        self._bare = not (self.residual and self.num_layers > 1) and self.learning == BPTT()

    def set_learning(self, learning: BPTT) -> None:
        """Let credit travel in time in another way from the next call on.

        Args:
            learning: as the layer takes it when it is built.

        Raises:
            InputError: it cannot serve this layer.

        Example:
            >>> import elman
            >>> layer = elman.LSTM(2, 3)
            >>> layer.set_learning(elman.RTRL())
            >>> layer
            LSTM(2, 3, learning=BPTT(window=1, carry='exact'))
        """
        checks.check_learning(self.owner, learning, bidirectional=self.bidirectional)
        self.learning = learning
        self._keep_ways()

    @property
    def owner(self) -> str:
        """The layer's name in errors."""
        return type(self).__name__

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def equation_parameters(self, layer: int, direction: int) -> dict[str, Tensor]:
        """The parameters of one layer and direction by the equation's names, differentiable."""
        raise InputError(f"{self.owner} is a base class; use Recurrent, LSTM, GRU or RNN")

    def stacked_parameters(self, layer: int, direction: int) -> list[Tensor]:
        """The parameters of one layer and direction as torch's kernel stacks them."""
        raise InputError(f"{self.owner} is a base class; use Recurrent, LSTM, GRU or RNN")

    def options(self) -> dict[str, Any]:
        """The options that all layers share, as plain data; those of `Recurrent`, by name."""
        return {
            "bidirectional": self.bidirectional,
            "batch_first": self.batch_first,
            "dropout": self.dropout,
            **self._own_options(),
        }

    def _own_options(self) -> dict[str, Any]:
        return {
            "recurrent_dropout": self.recurrent_dropout,
            "zoneout": self.zoneout,
            "layer_norm": self.layer_norm,
            "initial_state": self.initial_state,
            "residual": self.residual,
            "dense": list(self._dense_widths) or None,
            "dense_activation": self.dense_activation,
            "learning": self.learning.options(),
            "backend": self.backend,
        }

    def _option_words(self) -> list[str]:
        """The options that differ from their defaults, for the printed layer."""
        values = {"num_layers": self.num_layers, **self.options()}
        values["learning"] = self.learning
        plain = {
            "num_layers": 1,
            "initial_state": "zeros",
            "dense_activation": "tanh" if self._dense_widths else self.dense_activation,
            "learning": BPTT(),
            "backend": "auto",
        }
        return [
            f"{name}={value}"
            for name, value in values.items()
            if value != plain.get(name, False) and value is not None
        ]

    # What is above the last recurrent layer, and what starts it.

    def _add_shared_parameters(self, device: Any, dtype: Any) -> None:
        """Make the learned initial states and the dense layers, after all else."""
        if self.initial_state == "learned":
            for layer, sizes in enumerate(self._sizes):
                for direction in range(self.directions):
                    for state in self.cell.graph.states:
                        name = f"initial_{state.name}_l{layer}{DIRECTIONS[direction]}"
                        value = torch.empty(shape_of(state.dims, sizes), device=device, dtype=dtype)
                        self.register_parameter(name, nn.Parameter(value))
        if self._dense_widths:
            widths = (self.output_size, *self._dense_widths)
            self.dense = nn.ModuleList(
                nn.Linear(a, b, device=device, dtype=dtype) for a, b in pairwise(widths)
            )
            self.output_size = widths[-1]
        else:
            self.dense = None

    @torch.no_grad()
    def _reset_shared_parameters(self) -> None:
        if self.initial_state == "learned":
            for layer in range(self.num_layers):
                for direction in range(self.directions):
                    for state in self.cell.graph.states:
                        name = f"initial_{state.name}_l{layer}{DIRECTIONS[direction]}"
                        getattr(self, name).fill_(state.initial)
        for linear in self.dense or ():
            if isinstance(linear, nn.Linear):
                linear.reset_parameters()

    def initial_carried(self, batch: int, like: Tensor) -> list[Kept]:
        """What each layer and direction starts a sequence with: constants, or learned states."""
        graph, result = self.cell.graph, []
        for layer, sizes in enumerate(self._sizes):
            for suffix in DIRECTIONS[: self.directions]:
                if self.initial_state == "zeros":
                    result.append(
                        reference.initial_carried(
                            graph, sizes, batch, dtype=like.dtype, device=like.device
                        )
                    )
                    continue
                learned = [
                    getattr(self, f"initial_{s.name}_l{layer}{suffix}") for s in graph.states
                ]
                states = tuple(value.expand(batch, *value.shape) for value in learned)
                result.append(reference.with_initial_states(graph, states, sizes))
        return result

    def flatten_parameters(self) -> None:
        """As in torch.nn, where it makes the weights one piece of GPU memory; here nothing."""

    # The call.

    def _forward(
        self,
        x: Tensor | PackedSequence,
        state: Tensor | Sequence[Tensor] | None,
        lengths: Tensor | Sequence[int] | None,
        resets: Tensor | PackedSequence | None,
        return_states: bool | str,
        inputs: Mapping[str, Tensor] | None = None,
    ):
        if return_states not in (False, True, "layers"):
            raise InputError(
                f"{self.owner}: return_states is {return_states!r}; give True for the states of "
                "the last layer, 'layers' for those of every layer, or False"
            )
        further = further_inputs(self.owner, self.cell.graph, self._sizes[0], inputs)
        if self.learning.carry is not None:
            if torch.compiler.is_compiling():
                from elman.layers.captured import aside

                return aside(self, x, state, lengths, resets, return_states, inputs)
            from elman.layers.carried import run_stack

            return run_stack(self, x, state, lengths, resets, return_states, further)
        if isinstance(state, Carried):
            raise InputError(
                f"{self.owner}: the state is that of a layer that learns with a carry, and this "
                f"one's learning is {self.learning}; give state.states"
            )
        choice = self._choose(resets is not None, bool(return_states))
        captured = torch.compiler.is_compiling()
        if captured and choice.backend != "reference":
            ragged = lengths is not None or resets is not None or not isinstance(x, Tensor)
            if ragged or choice.backend == "torch":
                from elman.layers.captured import aside

                return aside(self, x, state, lengths, resets, return_states, inputs)
        plain = lengths is None and not return_states and isinstance(x, Tensor)
        if plain and self._is_whole(choice):
            return calls.run_whole(self, x, state)
        if (
            plain
            and choice.backend == "cpu"
            and self._single
            and not captured
            and resets is None
            and x.dim() == 3
            and len(self._graphs[self.training].inputs) == 1
        ):
            return calls.run_single(self, x, state)
        got = given(
            self.owner,
            x,
            lengths,
            resets,
            input_size=self.input_size,
            dtype=self._weight().dtype,
            batch_first=self.batch_first,
            further=further,
            # Our kernels never read past a row's end.
            clean=choice.backend != "cpu" or self.learning.window is not None,
        )
        return calls.run_walk(self, got, state, choice, return_states)

    def learning_bytes(self, batch: int) -> int:
        """What the influence of a carry weighs, in bytes; 0 without a carry.

        A call holds it once for each of its windows until the backward pass, and once more for
        what it returns.

        Args:
            batch: rows, ≥ 1.

        Example:
            >>> import elman
            >>> elman.RNN(2, 3, learning=elman.RTRL()).learning_bytes(batch=4)
            864
        """
        from elman.layers.carried import bytes_of
        from elman.layers.links import links_of

        return bytes_of(links_of(self), self.learning, batch)

    def learned_initial_states(self, layer: int) -> tuple[Tensor, ...]:
        """The learned initial states of a layer, in the order of the cell's states, or ()."""
        if self.initial_state != "learned":
            return ()
        return tuple(getattr(self, f"initial_{s.name}_l{layer}") for s in self.cell.graph.states)

    def _weight(self) -> Tensor:
        """A tensor of the layer's number type and device."""
        weight = next(self.parameters(), None)
        return torch.empty(0) if weight is None else weight

    def _choose(self, resets: bool, return_states: bool) -> Choice:
        if torch.compiler.is_compiling():
            from elman.layers.captured import choice

            return choice(self, resets, return_states)
        asked = {
            "cpu": self._cpu_obstacles,
            "torch": partial(self._obstacles, resets, return_states),
        }
        if torch_kernel.in_transform():
            return choose(self.owner, self.backend, asked)
        weight = self._weight()
        key = self.backend, self.training, resets, return_states, weight.dtype, weight.device
        if key not in self._choices:
            self._choices[key] = choose(self.owner, self.backend, asked)
        return self._choices[key]

    def _cpu_obstacles(self) -> list[str]:
        """What keeps our kernel for the CPU from a call in the present mode, each a phrase."""
        weight = self._weight()
        found = cpu.obstacles(self._graphs[self.training], weight.device, weight.dtype)
        if torch_kernel.in_transform():
            found.append(torch_kernel.TRANSFORM)
        return found

    def _torch_kernel(self) -> Kernel:
        """torch's kernel for the equation in the present mode."""
        kernel = self._kernels[self.training]
        if kernel is None:
            raise InputError(f"{self.owner}: torch has no kernel for {self.cell.name!r}")
        return kernel

    def _obstacles(self, resets: bool, return_states: bool) -> list[str]:
        """What keeps torch's kernel from a call in the present mode, each a phrase."""
        kernel = self._kernels[self.training]
        found = []
        if kernel is None:
            found = [
                words
                for words, there in (
                    (f"zoneout={self.zoneout} changes the equation", self.zoneout),
                    ("layer_norm changes the equation", self.layer_norm),
                    (
                        f"recurrent_dropout={self.recurrent_dropout} changes the equation in "
                        "training",
                        self.recurrent_dropout and self.training,
                    ),
                )
                if there
            ]
            if self._size_obstacle:
                found.append(self._size_obstacle)
            if torch_kernel.kernel_of(self.cell.graph) is None:
                found.append(f"the equation of {self.cell.name!r} is none of torch.nn's")
        elif return_states and kernel.name == "lstm":
            found.append("torch's LSTM kernel does not give the memory c of every step")
        if resets:
            found.append("torch's kernels cannot reset the state within a sequence")
        if torch_kernel.in_transform():
            found.append(torch_kernel.TRANSFORM)
        return found

    def _is_whole(self, choice: Choice) -> bool:
        """Whether one call of torch's kernel serves the whole stack."""
        drops = self.training and self.dropout and self.num_layers > 1
        return choice.backend == "torch" and self._bare and not drops

    def _cpu_parameters(self, layer: int, direction: int) -> Parameters:
        """The parameters of one layer and direction as our kernels read them."""
        return own(self.equation_parameters(layer, direction))

    def _dense(self, out: Tensor) -> Tensor:
        activation = equation.ACTIVATIONS[self.dense_activation]
        for linear in self.dense or ():
            out = activation(linear(out))
        return out

    # What else a layer answers.

    def stepper(self, state: Tensor | Sequence[Tensor] | None = None) -> Stepper:
        """One step at a time, for streams: an object that keeps the state from call to call.

        Args:
            state: what to start with, in the form that the layer returns; the initial state if
                not given.

        Returns:
            Stepper: called with one step's input, (batch, input) or (input,), it returns that
            step's output; `state` is the state, `reset()` starts anew.

        Raises:
            InputError: the layer is bidirectional, so no step is known before the last.

        Example:
            >>> import elman, torch
            >>> layer = elman.GRU(2, 3)
            >>> x = torch.randn(5, 1, 2)
            >>> step = layer.stepper()
            >>> outputs = torch.stack([step(x_t) for x_t in x])
            >>> torch.allclose(outputs, layer(x)[0], atol=1e-6)
            True
        """
        return Stepper(self, state)

    def explain(
        self, *, lengths: object = None, resets: object = None, return_states: bool | str = False
    ) -> str:
        """Say which backend runs a call of this layer, and why.

        Args:
            lengths, resets, return_states: those of the call; what is not None counts as given.

        Returns:
            str: a few sentences, for the layer's present mode (training or evaluation).

        Raises:
            InputError: an explicit backend cannot run such a call.

        Example:
            >>> import elman
            >>> print(elman.GRU(2, 3).explain())
            GRU runs on Elman's kernel for the CPU (backend 'cpu').
            Why: it is the fastest that serves this call.
            Gradient: backpropagation through the whole sequence.
        """
        if self.learning.carry is not None:
            from elman.layers.carried import explanation

            return explanation(self, resets is not None, bool(return_states))
        choice = self._choose(resets is not None, bool(return_states))
        whole = lengths is None and not return_states and self._is_whole(choice)
        return explain(
            self.owner,
            choice,
            self.learning.words(),
            whole=whole,
            lengths=lengths is not None,
            elementwise=choice.backend == "cpu"
            and cpu.kernels_of(self._graphs[self.training]).schedule.elementwise,
        )
