"""What is timed: one cell at one shape, with its weights and data, and the calls of our layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from elman.backends import torch_kernel
from elman.diagnose.trial import full_sizes
from elman.equation import Cell
from elman.equation.sizes import shape_of
from elman.errors import InputError
from elman.layers import GRU, LSTM, RNN, Recurrent
from elman.layers.base import RecurrentLayer

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Shape(NamedTuple):
    """Steps, rows of the batch, features of x, units of the state; each ≥ 1."""

    steps: int
    batch: int
    input: int
    hidden: int

    @classmethod
    def read(cls, text: str) -> Shape:
        """A shape written as on the command line.

        Raises:
            InputError: not four whole numbers ≥ 1.

        Example:
            >>> Shape.read("100,32,64,128")
            Shape(steps=100, batch=32, input=64, hidden=128)
        """
        parts = [part.strip() for part in re.split("[,x]", text)]
        good = len(parts) == 4 and all(p.isascii() and p.isdigit() and int(p) for p in parts)
        if not good:
            raise InputError(
                f"benchmark: --shape {text}: expected four whole numbers >= 1, steps,batch,input,"
                "hidden, such as 100,32,64,128."
            )
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return ", ".join(map(str, self))


# From one row of a small network to the large products of hidden 512, and a long sequence.
SHAPES = (
    Shape(100, 1, 64, 64),
    Shape(100, 8, 64, 64),
    Shape(100, 32, 64, 128),
    Shape(100, 32, 128, 256),
    Shape(50, 64, 512, 512),
    Shape(200, 128, 32, 64),
    Shape(1000, 16, 32, 128),
)


@dataclass(frozen=True, eq=False)
class Case:
    """A cell at a shape, and from a seed its weights, inputs and gradients of the output.

    Attributes:
        cell: the cell.
        shape: the sizes.
        dtype: torch.float32 or torch.float64.
        backend: what our layer runs on, as in `elman.Recurrent`.
        ragged: whether the rows have lengths, drawn evenly from 1 to the number of steps.
        seed: of all random values.
    """

    cell: Cell
    shape: Shape
    dtype: torch.dtype = torch.float32
    backend: str = "auto"
    ragged: bool = False
    seed: int = 0

    @cached_property
    def kernel(self) -> torch_kernel.Kernel | None:
        """torch.nn's kernel of the same equation, without projection; None where there is none."""
        found = torch_kernel.kernel_of(self.cell.graph)
        return found if found is not None and found.projection is None else None

    @cached_property
    def layer(self) -> RecurrentLayer:
        """Our layer: the drop-in where the cell is torch.nn's, else `elman.Recurrent`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.new_layer(self.backend)

    def another(self, backend: str) -> RecurrentLayer:
        """Our layer with the same weights on another backend."""
        layer = self.new_layer(backend)
        layer.load_state_dict(self.layer.state_dict())
        return layer

    def new_layer(self, backend: str) -> RecurrentLayer:
        """Our layer with new weights on a backend."""
        inputs, hidden = self.shape.input, self.shape.hidden
        kernel = self.kernel
        if kernel is not None and self.cell.name == kernel.cell[0]:
            if kernel.name in ("lstm", "gru"):
                cls = LSTM if kernel.name == "lstm" else GRU
                return cls(inputs, hidden, dtype=self.dtype, backend=backend)
            how = kernel.name.removeprefix("rnn_")
            return RNN(inputs, hidden, nonlinearity=how, dtype=self.dtype, backend=backend)
        sizes = full_sizes(self.cell.graph, inputs, hidden)
        further = {k: v for k, v in sizes.items() if k not in ("input", "hidden")}
        return Recurrent(
            self.cell,
            sizes["input"],
            sizes.get("hidden", hidden),
            sizes=further,
            dtype=self.dtype,
            backend=backend,
        )

    def in_double(self) -> Case:
        """The case on the reference in double precision, with these very weights and data."""
        wide = replace(self, dtype=torch.float64, backend="reference")
        further = {name: value.double() for name, value in (self.inputs or {}).items()}
        made = {"layer": self.another("reference").double(), "inputs": further or None}
        # These stand where the cached properties would be.
        vars(wide).update(made, x=self.x.double(), slope=self.slope.double())
        return wide

    @cached_property
    def x(self) -> Tensor:
        """The inputs, (steps, batch, input)."""
        return self._normal(1, self.shape.steps, self.shape.batch, self.layer.input_size)

    @cached_property
    def slope(self) -> Tensor:
        """The gradient of a loss by the outputs, (steps, batch, output)."""
        return self._normal(2, self.shape.steps, self.shape.batch, self.layer.output_size)

    @cached_property
    def lengths(self) -> Tensor | None:
        """Real steps of each row, (batch,), or None for all."""
        if not self.ragged:
            return None
        numbers = torch.Generator().manual_seed(self.seed + 3)
        return torch.randint(1, self.shape.steps + 1, (self.shape.batch,), generator=numbers)

    @property
    def real_steps(self) -> int:
        """Steps of all rows together, without those past a row's end."""
        if self.lengths is None:
            return self.shape.steps * self.shape.batch
        return int(self.lengths.sum())

    @cached_property
    def inputs(self) -> dict[str, Tensor] | None:
        """Values around 1 for the further inputs of a cell, such as elapsed times."""
        further = [one for one in self.cell.graph.inputs[1:] if one.varies == "step"]
        sizes = full_sizes(self.cell.graph, self.shape.input, self.shape.hidden)
        numbers = torch.Generator().manual_seed(self.seed + 4)
        found = {}
        for one in further:
            shape = (*self.shape[:2], *shape_of(one.dims, sizes))
            drawn = torch.rand(shape, generator=numbers, dtype=torch.float64)
            found[one.name] = (drawn + 0.5).to(self.dtype)
        return found or None

    def _normal(self, stream: int, *shape: int) -> Tensor:
        numbers = torch.Generator().manual_seed(self.seed + stream)
        return torch.randn(shape, generator=numbers, dtype=torch.float64).to(self.dtype)

    def call(
        self, layer: RecurrentLayer, *, backward: bool, whole: bool = False
    ) -> Callable[[], tuple[Tensor, ...]]:
        """One pass of one of our layers over the data.

        Args:
            layer: `self.layer` or `self.another(…)`.
            backward: forward and backward, with the gradient of x; else forward alone, under
                `torch.inference_mode`.
            whole: leave the lengths out.

        Returns:
            a function of nothing. It returns the output, then with `backward` the gradients of x
            and of every parameter, in order, zeros for those that nothing depends on.
        """
        options: dict = {} if self.lengths is None or whole else {"lengths": self.lengths}
        if self.inputs is not None:
            options["inputs"] = self.inputs
        if not backward:
            given = self.x  # made here: under inference_mode it could be used for nothing else

            def forward() -> tuple[Tensor, ...]:
                layer.train(False)
                with torch.inference_mode():
                    return (layer(given, **options)[0],)

            return forward
        x, slope = self.x.clone().requires_grad_(), self.slope
        wanted = [x, *layer.parameters()]

        def both() -> tuple[Tensor, ...]:
            layer.train(True)
            out = layer(x, **options)[0]
            slopes = torch.autograd.grad(
                out, wanted, slope, allow_unused=True, materialize_grads=True
            )
            return (out, *slopes)

        return both
