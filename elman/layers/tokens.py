"""Vectors for tokens: learned, one-hot, or begun from vectors that were learned elsewhere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from elman.errors import InputError

Kind = Literal["learned", "one-hot"]


class TokenVectors(nn.Module):
    r"""A vector for each token of a vocabulary.

    .. math::

        x_t = E_{w_t} \quad \text{(learned)}, \qquad x_t = e_{w_t} \quad \text{(one-hot)}

    The product of a one-hot vector with a matrix is a column of it, so a layer that reads one-hot
    vectors learns a vector a token in its own input matrices. It multiplies by zeros all the same:
    `cost` says how much.

    Args:
        count: tokens, >= 1; number 0 is padding, and its vector is zero.
        size: features of a vector, >= 1; of one-hot vectors it is `count`, and may be left out.
        kind: "learned" or "one-hot".
        pretrained: (count, size); where the learned vectors begin. None is normal with deviation
            size to the power of −1/2.

    Attributes:
        size: features of a vector.

    Shapes:
        tokens: any shape, int64 in [0, count). Returns the same shape with `size` more.

    Raises:
        InputError: sizes that do not fit.

    Example:
        >>> TokenVectors(4, kind="one-hot")(torch.tensor([[2, 0]]))
        tensor([[[0., 0., 1., 0.],
                 [0., 0., 0., 0.]]])
        >>> TokenVectors(4, 3)(torch.tensor([[2, 0]])).shape
        torch.Size([1, 2, 3])
    """

    def __init__(
        self,
        count: int,
        size: int | None = None,
        kind: Kind = "learned",
        pretrained: Tensor | None = None,
    ):
        super().__init__()
        if count < 1 or kind not in ("learned", "one-hot"):
            raise InputError(f"TokenVectors: got {count} tokens of kind {kind!r}.")
        if kind == "one-hot" and (size not in (None, count) or pretrained is not None):
            raise InputError(f"TokenVectors: one-hot vectors of {count} tokens have size {count}.")
        if kind == "learned" and (size is None or size < 1):
            raise InputError(f"TokenVectors: learned vectors need a size >= 1, got {size}.")
        self.count, self.kind = count, kind
        self.size = count if size is None else size
        if kind == "learned":
            self.weight = nn.Parameter(torch.empty(count, self.size))
            self.begin(pretrained)

    @torch.no_grad()
    def begin(self, pretrained: Tensor | None) -> None:
        """Start the learned vectors anew: at random, or from a table (count, size)."""
        if pretrained is None:
            self.weight.normal_(std=self.size**-0.5)
        elif pretrained.shape != self.weight.shape:
            found, needed = tuple(pretrained.shape), tuple(self.weight.shape)
            raise InputError(f"TokenVectors: pretrained has shape {found}, expected {needed}.")
        else:
            self.weight.copy_(pretrained)
        self.weight[0] = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the vectors of tokens."""
        if self.kind == "learned":
            return functional.embedding(tokens, self.weight, padding_idx=0)
        hot = functional.one_hot(tokens, self.count).to(torch.get_default_dtype())
        return hot * (tokens != 0).unsqueeze(-1)

    def cost(self) -> str:
        """Say what the vectors weigh, and what a token of a batch costs."""
        if self.kind == "learned":
            weights = self.count * self.size
            return f"learned vectors of {self.size} ({weights:,} weights)"
        return (
            f"one-hot vectors of {self.size:,}: {4 * self.size / 1000:,.1f} kB a token, and each "
            f"matrix that reads them has {self.size:,} columns"
        )
