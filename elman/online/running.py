"""Figures of a stream that are kept up to date in constant memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

_Kind = TypeVar("_Kind", bound="_Kept")


class _Kept:
    """Figures that go into a file and come back as they were."""

    def state_dict(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_state_dict(cls: type[_Kind], state: Mapping[str, Any]) -> _Kind:
        """Figures that go on from those of `state_dict`."""
        return cls(**{entry.name: state[entry.name] for entry in fields(cls)})  # type: ignore[arg-type]


@dataclass
class Moments(_Kept):
    r"""Mean and spread of the numbers so far.

    .. math::

        m_n = m_{n-1} + \frac{x_n - m_{n-1}}{n}, \qquad
        S_n = S_{n-1} + (x_n - m_{n-1})(x_n - m_n), \qquad \sigma_n^2 = S_n / n

    Attributes:
        count: n.
        mean: m.
        squares: S.

    Example:
        >>> moments = Moments()
        >>> for x in (1.0, 2.0, 3.0, 4.0):
        ...     moments.take(x)
        >>> moments.mean, moments.variance
        (2.5, 1.25)

    Source: Welford 1962.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def take(self, x: float) -> None:
        """Take in one more number."""
        self.count += 1
        off = x - self.mean
        self.mean += off / self.count
        self.squares += off * (x - self.mean)

    @property
    def variance(self) -> float:
        """σ², 0 before the first number."""
        return self.squares / self.count if self.count else 0.0

    def standard(self, x: float, most: float) -> float:
        """(x − m)/σ within ±most; 0 where nothing is spread yet."""
        deviation = math.sqrt(self.variance)
        if not deviation:
            return 0.0
        return max(-most, min(most, (x - self.mean) / deviation))


@dataclass
class Mean(_Kept):
    r"""The mean of all numbers so far, and one in which old numbers fade.

    The recent mean after the n-th number is $r_n = r_{n-1} + (x_n - r_{n-1})\max(1/n, 1/span)$: the
    plain mean at first, and later an exponential one over about `span` numbers.

    Attributes:
        span: numbers that the recent mean is over, ≥ 1.
        count: numbers so far.
        overall: mean of all.
        recent: r.

    Example:
        >>> mean = Mean(span=2)
        >>> for x in (1.0, 3.0, 8.0):
        ...     mean.take(x)
        >>> mean.overall, mean.recent
        (4.0, 5.0)
    """

    span: int = 1000
    count: int = 0
    overall: float = 0.0
    recent: float = 0.0

    def take(self, x: float) -> None:
        """Take in one more number."""
        self.count += 1
        self.overall += (x - self.overall) / self.count
        self.recent += (x - self.recent) / min(self.count, self.span)
