"""LSTM, GRU and simple networks as JAX's `lax.scan`, compiled whole: the peer of a JAX user.

The product of x stands before the scan, for all steps at once, or within it; the weights lie as
(features, units), or as torch has them; the scan is unrolled or not. The fastest counts.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import torch

from elman.benchmark.case import Case
from elman.benchmark.peers import Unserved, optional
from elman.benchmark.turns import Call

_UNROLL = 4
# By features first, and unrolled or not. The layout matters little to XLA, which may change it.
_LAYOUTS = ((True, 1), (False, 1), (True, _UNROLL))


def calls(case: Case, backward: bool) -> dict[str, Call]:
    """The calls of a case in every setting, each compiled at its first call.

    Forward, or forward and the gradients of the weights and of x from the same gradient of the
    output. The threads are torch's number, where JAX has not begun before.

    Raises:
        Unserved: another equation than the three.
    """
    kernel = case.kernel
    if kernel is None:
        raise Unserved(f"no scan of ours in JAX for the equation of {case.cell.name!r}")
    jax = _start(case.dtype)
    stacked = [t.detach().numpy() for t in kernel.stack(case.layer.equation_parameters(0, 0))]
    x, slope = jax.numpy.asarray(case.x.numpy()), jax.numpy.asarray(case.slope.numpy())
    found = {}
    for hoisted, (transposed, unroll) in itertools.product((True, False), _LAYOUTS):
        matrices = [w.T.copy() if transposed else w for w in stacked[:2]]
        weights = [jax.numpy.asarray(w) for w in (*matrices, *stacked[2:])]
        run = scan(kernel.name, hoisted=hoisted, transposed=transposed, unroll=unroll)
        words = [
            "products of x hoisted" if hoisted else "products a step",
            "weights by features" if transposed else "weights by units",
            *([f"unrolled by {unroll}"] if unroll > 1 else []),
        ]
        compiled = jax.jit(
            _with_slopes(jax, run) if backward else lambda w, x, _, run=run: run(w, x)
        )
        found[", ".join(words)] = _ready(jax, compiled, weights, x, slope)
    return found


def _start(dtype: torch.dtype) -> Any:
    """JAX on the CPU, with as many threads as torch."""
    os.environ.setdefault("NPROC", str(torch.get_num_threads()))
    jax = optional("jax")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", dtype == torch.float64)
    return jax


def _ready(jax: Any, compiled: Callable, *values: Any) -> Call:
    # JAX returns before the work is done.
    return lambda: jax.block_until_ready(compiled(*values))


def _alone(run: Callable) -> Callable:
    return lambda weights, x, slope: run(weights, x)


def _with_slopes(jax: Any, run: Callable) -> Callable:
    def both(weights: Any, x: Any, slope: Any) -> Any:
        out, back = jax.vjp(run, weights, x)
        return out, back(slope)

    return both


def scan(kind: str, *, hoisted: bool, transposed: bool, unroll: int = 1) -> Callable:
    """A recurrent layer over time from the zero state, as a function of (weights, x).

    Args:
        kind: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        hoisted: one product of x for all steps.
        transposed: the matrices come as (features, units), not as torch's (units, features).
        unroll: steps of the scan that XLA sees at once.

    Returns:
        a function of torch's stacked W_ih, W_hh, b_ih, b_hh and of x, (time, batch, input); it
        returns the outputs, (time, batch, hidden).
    """
    jax = optional("jax")
    step = {"lstm": _lstm, "gru": _gru}.get(kind, _simple)
    act = jax.nn.relu if kind == "rnn_relu" else jax.numpy.tanh

    def times(v: Any, w: Any) -> Any:
        return v @ w if transposed else v @ w.T

    def run(weights: Any, x: Any) -> Any:
        w, u, b_ih, b_hh = weights
        hidden = u.shape[0] if transposed else u.shape[1]
        zeros = jax.numpy.zeros((x.shape[1], hidden), x.dtype)
        # The biases of the state can go with those of x but for the GRU's new gate.
        b, c = (b_ih, b_hh) if kind == "gru" else (b_ih + b_hh, 0.0)
        seen = times(x, w) + b if hoisted else x

        def body(state: Any, x_t: Any) -> Any:
            of_x = x_t if hoisted else times(x_t, w) + b
            return step(jax, act, state, of_x, times(state[0], u) + c)

        start = (zeros, zeros) if kind == "lstm" else (zeros,)
        return jax.lax.scan(body, start, seen, unroll=unroll)[1]

    return run


def _lstm(jax: Any, act: Callable, state: Any, of_x: Any, of_h: Any) -> Any:
    i, f, g, o = jax.numpy.split(of_x + of_h, 4, axis=-1)
    c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * act(g)
    h = jax.nn.sigmoid(o) * act(c)
    return (h, c), h


def _gru(jax: Any, act: Callable, state: Any, of_x: Any, of_h: Any) -> Any:
    r_x, z_x, n_x = jax.numpy.split(of_x, 3, axis=-1)
    r_h, z_h, n_h = jax.numpy.split(of_h, 3, axis=-1)
    r, z = jax.nn.sigmoid(r_x + r_h), jax.nn.sigmoid(z_x + z_h)
    n = act(n_x + r * n_h)
    h = (1 - z) * n + z * state[0]
    return (h,), h


def _simple(jax: Any, act: Callable, state: Any, of_x: Any, of_h: Any) -> Any:
    h = act(of_x + of_h)
    return (h,), h
