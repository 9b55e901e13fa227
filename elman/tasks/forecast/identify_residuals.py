"""What is left in the errors of a model: their correlation with themselves and with the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from elman.errors import InputError

_NORMAL = 1.96  # what a normal number of deviation 1 stays within, 95 times of 100
_FEWEST = 8  # known errors


@dataclass(frozen=True)
class Correlations:
    """Correlations by delay, and what chance alone stays within.

    Attributes:
        delays: k, steps; int64.
        values: r_k, in [−1, 1]; shaped as `delays`.
        bound: 95 % of the r_k of white errors lie within ±bound.
    """

    delays: np.ndarray
    values: np.ndarray
    bound: float

    @property
    def outside(self) -> float:
        """The share of delays (but 0 of a series with itself) whose value lies outside."""
        judged = self.values[self.delays != 0] if self.values.max() >= 1 else self.values
        return float(np.mean(np.abs(judged) > self.bound)) if len(judged) else 0.0


def autocorrelation(errors: np.ndarray, most: int = 25) -> Correlations:
    r"""Return the correlation of errors with themselves some steps before.

    .. math::

        r_k = \frac{\sum_t (e_t - \bar e)(e_{t-k} - \bar e)}{\sum_t (e_t - \bar e)^2},
        \qquad k = 0 … most

    Errors of a model that has told all that the past tells are white, and then 95 % of the r_k lie
    within ±1.96/√n.

    Args:
        errors: one step ahead, (time,); NaN where missing, and such pairs are left out.
        most: largest delay, >= 1; less where the errors are few.

    Raises:
        InputError: fewer than 8 errors, or all alike.

    Example:
        >>> found = autocorrelation(np.tile([1.0, -1.0], 50), most=2)
        >>> found.values.round(2), round(found.bound, 3), found.outside
        (array([ 1.  , -0.99,  0.98]), 0.196, 1.0)

    Source: the bounds are those of Box & Jenkins 1970, part III, for white noise.
    """
    e, known = _centred(errors, "errors")
    most = min(most, len(e) // 2)
    values = [float((e[k:] * e[: len(e) - k]).sum()) for k in range(most + 1)]
    return Correlations(np.arange(most + 1), np.array(values) / values[0], _NORMAL / known**0.5)


def cross_correlation(errors: np.ndarray, inputs: np.ndarray, most: int = 25) -> Correlations:
    r"""Return the correlation of errors with an input before and after them.

    .. math::

        r_k = \frac{\sum_t (e_t - \bar e)(u_{t-k} - \bar u)}
                   {\sqrt{\sum_t (e_t - \bar e)^2 \sum_t (u_t - \bar u)^2}},
        \qquad k = -most … most

    A value outside at k >= 0 says that the model misses an effect of the input k steps later; one
    at k < 0, that the input answers the output (feedback).

    Args:
        errors: one step ahead, (time,); NaN where missing.
        inputs: of the same steps, (time,); NaN where missing.
        most: largest delay, >= 1; less where the errors are few.

    Raises:
        InputError: of two lengths, fewer than 8 of them, or all alike.
    """
    if errors.shape != inputs.shape:
        raise InputError(
            f"residuals: {len(errors):,} errors and {len(inputs):,} values of the input; expected "
            "one for one."
        )
    both = np.isfinite(errors) & np.isfinite(inputs)
    e, known = _centred(np.where(both, errors, np.nan), "errors")
    u, _ = _centred(np.where(both, inputs, np.nan), "inputs")
    most = min(most, len(e) // 2)
    delays = np.arange(-most, most + 1)
    last = len(e)
    sums = [
        float((e[max(k, 0) : last + min(k, 0)] * u[max(-k, 0) : last - max(k, 0)]).sum())
        for k in delays
    ]
    size = float(np.sqrt(np.square(e).sum() * np.square(u).sum()))
    return Correlations(delays, np.array(sums) / size, _NORMAL / known**0.5)


def _centred(values: np.ndarray, what: str) -> tuple[np.ndarray, int]:
    """Values less their mean, 0 where missing, and how many are known."""
    known = np.isfinite(values)
    count = int(known.sum())
    if count < _FEWEST:
        raise InputError(f"residuals: {count} known {what}; expected {_FEWEST} or more.")
    centred = np.where(known, values - values[known].mean(), 0.0)
    if np.abs(centred).max() <= 1e-12 * max(np.abs(values[known]).max(), 1e-300):
        raise InputError(f"residuals: the {what} are all alike, so nothing correlates with them.")
    return centred, count
