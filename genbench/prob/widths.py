"""Mixtures of Gaussians around given centres, whose widths are fitted to points.

Legend: `c_j` centres, m of them, `v_j` variances, `d` dimensions,

    p(x) = (1/m) sum_j N(x; c_j, v_j I).

The likelihood of the points is climbed by expectation-maximisation over the v_j alone, with one more
component that lets no point weigh without bound: a Gaussian around the mean of the points, their
distances to it shortened by a tenth, its variance fitted too (Jiralerspong et al. 2023,
arXiv:2302.04440, and its code). That component serves the fit only; `log_density` is without it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAIRS = 1 << 21
"""Pairs of points and centres compared at once: 16 MiB of distances."""
_NUDGE = 1e-3  # added to the squared distance of the nearest point, which starts each variance
_SHORTENED = 0.9**2
_LOG_LIMIT = 40.0  # of the logarithm of a variance, either way: equal points and centres would make it infinite
_NOTHING = -700.0  # logarithm of a share taken for nothing: those that are no normal numbers take ten times as long
_GAIN = 1e-4  # of the mean log-likelihood per dimension: less ends the climb


def fit_variances(centres: Tensor, points: Tensor, nearest: Tensor, *, max_steps: int = 50) -> Tensor:
    """Variances that fit a mixture around `centres` to `points`: (m,) float64.

    Args:
        centres: (m, d) float64.
        points: (N, d) float64.
        nearest: (m,) float64, squared distance of each centre to the nearest point.
        max_steps: of expectation-maximisation.
    """
    size = centres.shape[1]
    variances = ((nearest + _NUDGE) / size).clamp(math.exp(-_LOG_LIMIT), math.exp(_LOG_LIMIT))
    mean, background = points.mean(dim=0), 1.0
    before = -math.inf
    for _ in range(max_steps):
        total, weight, moment = 0.0, torch.zeros_like(variances), torch.zeros_like(variances)
        far_weight = far_moment = 0.0
        for part in points.split(max(1, PAIRS // len(centres))):
            squared = _squared_distances(part, centres)
            far = _SHORTENED * (part - mean).square().sum(dim=1)
            logs = _logs(squared, variances, size) - math.log(len(centres))
            logs_far = _logs(far, torch.tensor(background, dtype=far.dtype, device=far.device), size)
            share, log_sum = _softmax(torch.cat([logs, logs_far[:, None]], dim=1))
            total += float(log_sum.sum())
            weight += share[:, :-1].sum(dim=0)
            moment += (share[:, :-1] * squared).sum(dim=0)
            far_weight += float(share[:, -1].sum())
            far_moment += float(share[:, -1] @ far)
        gain, before = total / (len(points) * size) - before, total / (len(points) * size)
        if gain < _GAIN:
            break
        held = weight > math.exp(_NOTHING + 50.0)
        variances = torch.where(held, moment / (size * weight.clamp(min=math.exp(_NOTHING))), variances)
        variances = variances.clamp(math.exp(-_LOG_LIMIT), math.exp(_LOG_LIMIT))
        background = far_moment / (size * far_weight) if far_weight > 0 else background
    return variances


def log_density(points: Tensor, centres: Tensor, variances: Tensor) -> Tensor:
    """Logarithm of the mixture's density at each of `points` (N, d): (N,) float64."""
    size = centres.shape[1]
    parts = [
        _softmax(_logs(_squared_distances(part, centres), variances, size))[1] - math.log(len(centres))
        for part in points.split(max(1, PAIRS // len(centres)))
    ]
    return torch.cat(parts)


def _logs(squared: Tensor, variances: Tensor, size: int) -> Tensor:
    """Logarithm of isotropic Gaussian densities at given squared distances."""
    return -0.5 * squared / variances - 0.5 * size * (variances.log() + math.log(2.0 * math.pi))


def _softmax(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (N, m) of each row of logarithms, which it overwrites, and the logarithms of their sums (N,)."""
    top = logs.amax(dim=1, keepdim=True)
    share = logs.sub_(top).clamp_(min=_NOTHING).exp_()
    total = share.sum(dim=1, keepdim=True)
    return share.div_(total), (top + total.log())[:, 0]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    squared = torch.addmm(x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1), x, y.T, alpha=-2.0)
    return squared.clamp_(min=0.0)
