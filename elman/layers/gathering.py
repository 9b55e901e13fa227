"""What layers over trees and over graphs share: their names, the choice of backend, its words."""

from __future__ import annotations

from torch import Tensor, nn

from elman.backends import cpu, torch_kernel
from elman.backends.choose import Choice, choose
from elman.equation import Cell, Graph, hyper_as_data

BACKENDS = ("auto", "cpu", "reference")


class GatheringLayer(nn.Module):
    """The base of `Tree` and `Network`: a cell whose nodes read others.

    A subclass says in `piece` what one call of a kernel computes, in `_steps` which equations that
    takes, and in `_own_words` the option that its printed form names.
    """

    piece = ""
    cell: Cell
    backend: str
    input_size: int
    hidden_size: int

    @property
    def owner(self) -> str:
        """The layer's name in errors."""
        return f"{type(self).__name__}({self.cell.name!r})"

    def _steps(self) -> tuple[Graph | None, ...]:
        return ()

    def _own_words(self) -> str:
        return ""

    def _weight(self) -> Tensor:
        return next(self.parameters())

    def _choose(self) -> Choice:
        return choose(self.owner, self.backend, {"cpu": self._obstacles})

    def _obstacles(self) -> list[str]:
        """What keeps our kernel for the CPU from a call, each a phrase."""
        weight = self._weight()
        found = []
        for graph in self._steps():
            if graph is not None:
                found += cpu.obstacles(graph, weight.device, weight.dtype)
        if torch_kernel.in_transform():
            found.append(torch_kernel.TRANSFORM)
        return found

    def explain(self) -> str:
        """Say which backend runs a call, and why."""
        choice = self._choose()
        kernel = f"the reference, {self.piece} at a time in operations of torch"
        if choice.backend == "cpu":
            kernel = f"Elman's kernel for the CPU, {self.piece} at a time"
        return f"{self.owner} runs on {kernel}.\nWhy: {'; '.join(choice.reasons)}."

    def extra_repr(self) -> str:
        hyper = "".join(f", {k}={v}" for k, v in hyper_as_data(self.cell.hyper).items())
        own = self._own_words()
        return f"{self.cell.name!r}{hyper}, {self.input_size}, {self.hidden_size}, {own}"
