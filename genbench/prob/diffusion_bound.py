"""Terms of the variational bound of a diffusion model (Ho, Jain and Abbeel 2020, Eq. 5).

-log p(x_0) <= E_q[L_T + sum_{t > 1} L_{t-1} + L_0],  L_T = KL(q(x_T | x_0) || N(0, I)),
L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),  L_0 = -log p(x_0 | x_1)

With fixed variances all Gaussians have one variance for all dimensions, so the first two depend on the images only
through sums of squares, linearly: an expectation may be passed in their place. A learned variance (Nichol and Dhariwal
2021, arXiv:2102.09672) has a value for each dimension. Units are nats per example.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from genbench.prob.noise_schedule import ReverseSteps


def prior_term(sum_of_squares: Tensor, num_dims: int, *, alpha: Tensor, sigma: Tensor) -> Tensor:
    """L_T = KL(N(alpha x_0, sigma^2 I) || N(0, I)).

    Args:
        sum_of_squares: |x_0|^2, (B,).
        num_dims: length of x_0.
        alpha: factor of the data at T, scalar.
        sigma: standard deviation of the noise at T, scalar.
    """
    shape = num_dims * (sigma.square() - 1.0 - 2.0 * sigma.log())
    return 0.5 * (alpha.square() * sum_of_squares + shape)


def step_coefficients(steps: ReverseSteps, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients a, b of L_{t-1} = a |x_0 - x_0_hat|^2 + b D, for every step: float64, as the schedule.

    L_{t-1} is the divergence of two Gaussians of variances beta_tilde and `variance` whose means differ by
    data (x_0 - x_0_hat), where x_0_hat is what the network makes of x_t. The step from t = 1 has beta_tilde = 0, an
    infinite divergence: the decoder's term takes its place.

    Args:
        steps: posteriors of the steps from t to t - 1.
        variance: variance of the model's steps, of the same shape.
    """
    ratio = steps.beta_tilde / variance
    return 0.5 * steps.data.square() / variance, 0.5 * (ratio - 1.0 - ratio.log())


def learned_log_variance(share: Tensor, log_beta: Tensor, log_beta_tilde: Tensor) -> Tensor:
    """Eq. 15 of Nichol and Dhariwal: v log beta + (1 - v) log beta_tilde, for a share v of each dimension.

    Args:
        share: (B, ...), 1 for the upper and 0 for the lower bound of the true variance; not confined to these.
        log_beta: of each example's step, broadcasts with `share`.
        log_beta_tilde: the same; that of the step from t = 1, which is minus infinity, must be clipped.
    """
    return log_beta_tilde + share * (log_beta - log_beta_tilde)


def step_divergence(gap: Tensor, log_variance: Tensor, true_log_variance: Tensor) -> Tensor:
    """Elementwise L_{t-1}, the divergence of Gaussians of two variances whose means differ by `gap`: nats."""
    squared = gap.square() * torch.exp(-log_variance)
    return 0.5 * (log_variance - true_log_variance + torch.exp(true_log_variance - log_variance) + squared - 1.0)


def discretised_gaussian_log_prob(x: Tensor, mean: Tensor, sigma: Tensor | float, *, levels: int) -> Tensor:
    """Elementwise log-probability of integers under a Gaussian cut into bins (Eq. 13): a pmf, which sums to 1.

    Level k owns what lies within 1 / (levels - 1) of its place 2 k / (levels - 1) - 1; the first and the last own
    all that is beyond them.

    Args:
        x: integers 0 .. levels-1.
        mean: mean on the scale [-1, 1], of a floating type, which is that of the result.
        sigma: standard deviation on the same scale; broadcasts with `mean`.
        levels: number of levels.
    """
    half = 1.0 / (levels - 1)
    centred = x.to(mean.dtype) * (2.0 * half) - 1.0 - mean
    upper = torch.where(x == levels - 1, torch.inf, (centred + half) / sigma)
    lower = torch.where(x == 0, -torch.inf, (centred - half) / sigma)
    return _log_normal_interval(lower, upper)


def strata(first: int, after: int, number: int) -> list[tuple[int, int]]:
    """Cut first .. after-1 into `number` ranges [start, end) whose widths grow linearly, each of at least 1.

    One term drawn from each range, times its width, estimates the sum over all of them without bias; terms of the
    bound fall steeply with t, so narrow ranges at small t save variance. As many ranges as terms give the sum itself.

    Raises:
        ValueError: there are more ranges than terms, or none.
    """
    size = after - first
    if not 1 <= number <= size:
        raise ValueError(f"{size} terms do not split into {number} strata")
    spare = size - number
    edges = [first + k + round(spare * (k / number) ** 2) for k in range(number + 1)]
    return list(pairwise(edges))


def _log_normal_interval(lower: Tensor, upper: Tensor) -> Tensor:
    """Log of Phi(upper) - Phi(lower), taken in the lower tail, where it keeps its digits."""
    right = lower + upper > 0
    lower, upper = torch.where(right, -upper, lower), torch.where(right, -lower, upper)
    log_upper: Tensor = torch.special.log_ndtr(upper)
    return log_upper + torch.log(-torch.expm1(torch.special.log_ndtr(lower) - log_upper))
