"""What the metrics of latent codes share: checks, splits, blocks and the protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from genbench.core.metric import LatentEvidence
from genbench.core.spec import Scalar
from genbench.prob.intervals import Estimate

TRAIN_SHARE = 2.0 / 3.0
"""Of the examples, for metrics that fit a predictor: the 10 000 to 5 000 of Locatello et al. 2019."""

Array = np.ndarray | Tensor
"""What the plain functions take."""


def checked_latents(
    codes: Array, factors: Array, *, owner: str, examples: int = 2, latents: int = 1, num_factors: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, D) in float32 or float64, as they came, and factors (N, K) int64, fit for a metric.

    Args:
        codes: (N, D) float; half precision is promoted.
        factors: (N, K) int.
        owner: what needs them, for the message: "the mutual information gap".
        examples: least N.
        latents: least D.
        num_factors: least K.

    Raises:
        ValueError: shapes that do not fit, too few of something, codes that are not finite, a constant factor.
    """
    z, values = _array(codes), np.asarray(factors).astype(np.int64, copy=False)
    if z.ndim != 2 or values.ndim != 2 or len(z) != len(values):
        raise ValueError(f"{owner} needs codes (N, D) and factors (N, K), found {z.shape} and {values.shape}")
    least = (
        ("examples", examples, len(z)),
        ("latents", latents, z.shape[1]),
        ("factors", num_factors, values.shape[1]),
    )
    for what, needed, found in least:
        if found < needed:
            raise ValueError(f"{owner} needs at least {needed} {what}, found {found}")
    if not np.isfinite(z).all():
        raise ValueError(f"{owner} needs finite codes, found NaN or infinity")
    constant = [str(k) for k in range(values.shape[1]) if (values[:, k] == values[0, k]).all()]
    if constant:
        raise ValueError(f"{owner} needs factors that vary, found a single value of factor {', '.join(constant)}")
    return z, values


def found_latents(evidence: LatentEvidence | None, *, owner: str) -> LatentEvidence:
    """The evidence itself.

    Raises:
        ValueError: there is none.
    """
    if evidence is None:
        raise ValueError(f"{owner} needs codes of examples with known factors, found none")
    return evidence


def latent_protocol(evidence: LatentEvidence) -> dict[str, Scalar]:
    """What every score of latents shares with those that it may be compared with."""
    num, count = len(evidence.codes), evidence.factors.shape[1]
    return {"factors": ", ".join(evidence.names) or f"{count} unnamed", "num_examples": num}


def train_and_test(num: int, *, seed: int, share: float = TRAIN_SHARE) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two disjoint random parts of `num` examples."""
    order = np.random.default_rng(seed).permutation(num)
    cut = round(num * share)
    return order[:cut], order[cut:]


def block_estimate(value: float, blocks: Sequence[float], *, how: str, low: float, high: float) -> Estimate:
    """A value with the Student interval that its like on disjoint blocks of examples give.

    Args:
        value: of all examples.
        blocks: the same quantity on each block.
        how: how the blocks were made.
        low: least possible value.
        high: greatest possible value.
    """
    stderr = float(np.std(blocks, ddof=1)) / math.sqrt(len(blocks))
    half = float(student.ppf(0.975, len(blocks) - 1)) * stderr
    return Estimate(value, stderr, (max(low, value - half), min(high, value + half)), how)


def top_two(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the largest and of the second largest entry in each column of (D, K): two times (K,) int."""
    order = np.argsort(values, axis=0, kind="stable")
    return order[-1], order[-2]


def _array(codes: Array) -> np.ndarray:
    """Floats in single or double precision."""
    if isinstance(codes, Tensor):
        kept = codes.detach().cpu()
        return (kept if kept.dtype in (torch.float32, torch.float64) else kept.float()).numpy()
    found = np.asarray(codes)
    if found.dtype in (np.float32, np.float64):
        return found
    return found.astype(np.float32 if found.dtype == np.float16 else np.float64)
