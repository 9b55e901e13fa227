"""Recurrences over several past steps: delay lines of inputs and of outputs."""

from __future__ import annotations

import torch

from elman.equation import cell, delay, linear


def at_least(least: int, **values: int) -> None:
    """Raise ValueError where a hyper-parameter is no whole number, or below `least`."""
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; expected a whole number >= {least}.")


@cell(family="delay")
def tdnn(p, x, h, *, K=2, dilation=1, f=torch.tanh):
    """Time-delay network: a dense layer over the last inputs, the same at every step.

        hₜ = f(W_0 xₜ + W_1 xₜ₋ₛ + … + W_K xₜ₋ₖₛ + b),   s = dilation

    There is no recurrence: h only names the output. It is a causal one-dimensional convolution
    with K + 1 taps; stacked layers see K steps further each.

    Source: Waibel, Hanazawa, Hinton, Shikano & Lang 1989, "Phoneme recognition using time-delay
    neural networks", section II: a unit with delays D_1 … D_N (their f is logistic); as
    hₜˡ = f(hₜˡ⁻¹, …, hₜ₋ₖˡ⁻¹) in Qiu 2020, section 6.1. `dilation` is ours, for parity with conv1d.
    """
    at_least(0, K=K)
    at_least(1, dilation=dilation)
    a = p.b
    for k in range(K + 1):
        a = a + p["W", k] @ delay(x, k * dilation)
    return f(a)


@cell(family="delay", sizes={"y": "output"})
def narx(p, x, y, *, Kx=2, Ky=2, f=torch.tanh, g=linear):
    """Nonlinear autoregressive network with outside input (NARX).

        aₜ = f(Σₖ W_k xₜ₋ₖ + Σₖ U_k yₜ₋ₖ + b),   k = 0 … Kx for x, 1 … Ky for y
        yₜ = g(V aₜ + d)

    The state is the output y, of size "output"; a is a hidden layer of size "hidden". The delays
    are shortcuts for the gradient, Ky steps long.

    Source: Lin, Horne, Tiňo & Giles 1996, "Learning long-term dependencies in NARX recurrent
    neural networks", and Siegelmann, Horne & Giles 1997: y(t) = f(u(t−n_u) … u(t), y(t−n_y) …
    y(t−1)) with a multilayer perceptron of one hidden layer and a linear output as f.
    """
    at_least(0, Kx=Kx, Ky=Ky)
    a = p.b
    for k in range(Kx + 1):
        a = a + p["W", k] @ delay(x, k)
    for k in range(1, Ky + 1):
        a = a + p["U", k] @ delay(y, k)
    return g(p.V @ f(a) + p.d)
