"""Logarithm of a mean of weights, with its interval: what annealed importance sampling says of a partition function.

    log (1/N sum_i w_i),  standard error = std(w / mean(w)) / sqrt(N)  by the delta method,

from independent log-weights. The mean of the weights is without bias, so its logarithm is too small in the mean
(Jensen), by about half the squared standard error. The interval is that of many draws: where a few weights carry the
sum, which `effective` tells, a larger one may not have been met yet, and the truth lies above the interval.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genbench.prob.intervals import Z95


class LogMean(NamedTuple):
    """A log-mean and what is known of its error; nothing is read back from the device."""

    value: Tensor
    """() float64."""
    low: Tensor
    """() float64, lower end of the 95 % interval."""
    high: Tensor
    """() float64, upper end."""
    effective: Tensor
    """() float64, (sum w)^2 / sum w^2, in 1 .. N: how many equal weights would do as well."""

    def shifted(self, constant: Tensor) -> LogMean:
        """The same of weights times exp(constant)."""
        constant = constant.double()
        return LogMean(self.value + constant, self.low + constant, self.high + constant, self.effective)


def log_mean_exp(log_weights: Tensor) -> LogMean:
    """Log-mean of exp of independent log-weights (N,).

    Raises:
        ValueError: fewer than 2 weights, which have no spread.
    """
    if log_weights.ndim != 1 or len(log_weights) < 2:
        raise ValueError(f"a mean with its error needs at least 2 weights in a row, found {tuple(log_weights.shape)}")
    logs, num = log_weights.double(), len(log_weights)
    value = torch.logsumexp(logs, 0) - math.log(num)
    relative = (logs - value).exp()  # of mean 1
    half = Z95 * relative.std() / math.sqrt(num)
    return LogMean(value, value - half, value + half, num**2 / relative.square().sum())
