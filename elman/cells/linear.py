"""Recurrences that are linear in the state."""

from __future__ import annotations

import torch

from elman.equation import cell


@cell(
    family="linear",
    output=True,
    init={"nu": "uniform(-5, -1)", "theta": "uniform(-3, 1.8)", "B_*": "xavier_uniform",
          "C_*": "xavier_uniform", "D": "xavier_uniform"},
)  # fmt: skip
def lru(p, x, re, im):
    """Linear recurrent unit: a diagonal complex recurrence, kept stable by its parametrisation.

        λ = exp(−exp(ν) + i exp(θ)),   sₜ = λ ⊙ sₜ₋₁ + √(1 − |λ|²) ⊙ (B xₜ)
        yₜ = Re(C sₜ) + D xₜ

    The complex state s is kept as its real and its imaginary part, B and C likewise; the output y
    is no state. At the start |λ| lies between 0.69 and 0.993.

    Source: Orvieto et al. 2023, "Resurrecting recurrent neural networks for long sequences",
    arXiv:2303.06349, section 3 and appendix A (there |λ| starts uniform on a ring, here ν and θ
    start uniform).
    """
    size = torch.exp(-torch.exp(p.nu))
    turn_re, turn_im = size * torch.cos(torch.exp(p.theta)), size * torch.sin(torch.exp(p.theta))
    # 1 − |λ|², not as a difference, of which near |λ| = 1 nothing but rounding would be left.
    gamma = torch.sqrt(torch.tanh(torch.exp(p.nu)) * (1 + size * size))
    new_re = turn_re * re - turn_im * im + gamma * (p.B_re @ x)
    new_im = turn_re * im + turn_im * re + gamma * (p.B_im @ x)
    return p.C_re @ new_re - p.C_im @ new_im + p.D @ x, new_re, new_im
