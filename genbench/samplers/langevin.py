"""Unadjusted Langevin dynamics over anything with an energy (Roberts and Tweedie 1996).

x <- x - step_size * grad E(x) + noise_scale * eps,  eps ~ N(0, I)

Only `noise_scale = sqrt(2 step_size)` follows exp(-E), up to a bias that vanishes with the step: for E = x^2 / 2 the
stationary variance is 1 / (1 - step_size / 2). Less noise samples exp(-E / T) at a temperature
T = noise_scale^2 / (2 step_size) below one, as energy-based models of images usually do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor


def langevin(
    energy: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    num_steps: int,
    step_size: float,
    noise_scale: float,
    generator: Generator | None,
    limits: tuple[float, float] | None = None,
) -> Tensor:
    """Chains after `num_steps` steps from `x`, all of them side by side: the shape of `x`, detached.

    One gradient of the energy is taken at each step, with respect to `x` alone: parameters gather none.
    Nothing is read back from the device on the way, and it works under `torch.no_grad` and inference mode.

    Args:
        energy: (B, ...) to (B,).
        x: (B, ...) float, the starting points; left as they are.
        num_steps: network evaluations per chain; 0 gives back the starting points.
        step_size: factor of the gradient.
        noise_scale: standard deviation of the noise added at each step.
        generator: source of the noise, on the device of `x`; None is the global stream.
        limits: each step is clamped to this range; None leaves the chains free.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        x = x.clone().detach()
        for _ in range(num_steps):
            x.requires_grad_()
            (slope,) = torch.autograd.grad(energy(x).sum(), x)
            noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = x.detach().sub_(slope, alpha=step_size).add_(noise, alpha=noise_scale)
            if limits is not None:
                x.clamp_(*limits)
    return x
