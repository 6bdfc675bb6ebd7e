"""Shares of samples that are right, with Wilson's interval."""

from __future__ import annotations

import math

from torch import Tensor

from genbench.prob.intervals import Estimate, share_interval


def share_estimate(right: Tensor) -> Estimate:
    """Share of True in independent trials (N,), N at least 1."""
    count = len(right)
    share = float(right.double().mean())
    error = math.sqrt(share * (1.0 - share) / count)
    return Estimate(share, error, share_interval(share, count), "Wilson over samples")
