"""The exact carry: M for every weight, moved on by the reverse basis of the last state."""

from __future__ import annotations

from torch import Tensor

from elman.errors import InputError
from elman.learning.chain import Chain, Window


class Exact:
    """Carries M = ∂s/∂θ itself.

    The influence has one tensor for each place with trained weights, (batch, rows, columns): the
    rows are the entries of the states of that place and of those above it (no weight reaches a
    state below its own), the columns are the place's weights, in the order of `Place.weights`.
    """

    def bytes(self, chain: Chain, batch: int) -> int:
        entries = sum((chain.rows - p.first) * p.columns for p in chain.places)
        return batch * entries * chain.like.element_size()

    def start(self, chain: Chain, batch: int) -> tuple[Tensor, ...]:
        raise InputError("carry='exact' is not built yet")

    def gradient(
        self, chain: Chain, influence: tuple[Tensor, ...], cotangents: Tensor
    ) -> list[Tensor | None]:
        raise InputError("carry='exact' is not built yet")

    def advance(
        self, chain: Chain, influence: tuple[Tensor, ...], window: Window
    ) -> tuple[Tensor, ...]:
        raise InputError("carry='exact' is not built yet")

    def words(self, chain: Chain) -> str:
        return "The influence moves on by a basis of cotangents of the last state."
