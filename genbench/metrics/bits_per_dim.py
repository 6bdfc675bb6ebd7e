"""Negative log-likelihood of held-out data, in bits per dimension.

    bits/dim = -log p(x) / (D ln 2)

for the integers as they are stored, with the meaning (exact, bound, estimate) that the model gives
it, and the name of the estimator where the evidence tells it: uniform and variational
dequantisation, an importance-weighted bound and a probability flow are four different numbers.
Binarised data have nats per example beside the bits. Float data have a density and no bits: the
score is then `nll`, in nats per example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.metric import Evidence, LikelihoodEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.prob import likelihood
from genbench.prob.intervals import Z95, Estimate, mean_estimate

ROUNDING_NATS_PER_DIM = 1e-4
"""Excess over probability 1 that float32 sums over many dimensions may show."""

_HOW = "spread over held-out examples"


def bits_per_dim(nats: Tensor, num_dims: int) -> Estimate:
    """Mean code length of examples in bits per dimension, with the standard error of that mean.

    Args:
        nats: (N,), log-probabilities of the stored integers, nats per example.
        num_dims: D of one example.

    Raises:
        ValueError: no example or no dimension, or a likelihood that is not finite.
    """
    return mean_estimate(likelihood.bits_per_dim(_finite(nats), num_dims).cpu().numpy(), how=_HOW)


def negative_log_likelihood(nats: Tensor) -> Estimate:
    """Mean code length of examples in nats per example, with the standard error of that mean.

    Args:
        nats: (N,), log-likelihoods.

    Raises:
        ValueError: no example, or a likelihood that is not finite.
    """
    return mean_estimate(-_finite(nats).double().cpu().numpy(), how=_HOW)


@register_metric("bits_per_dim")
@dataclass(frozen=True)
class BitsPerDim(Metric):
    """Mean code length of a held-out example; `bits_per_dim` for integers, `nll` for floats and for binary data too."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LIKELIHOOD})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("bits_per_dim", "lower", "bits/dim"),
        ScoreName("nll", "lower", "nats"),
    )
    source: ClassVar[str] = "Theis et al. 2016, arXiv:1511.01844, Sec. 3.1"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with its standard error over examples; two for binarised data.

        Raises:
            ValueError: no example, a likelihood that is not finite, or a probability above 1.
        """
        found = evidence.likelihood
        if found is None:
            raise ValueError("bits per dimension need log-likelihoods of at least 1 held-out example, found none")
        _finite(found.nats)
        if found.levels is not None:
            _refuse_impossible(found)
        scores = []
        if found.levels is not None:
            scores.append(_score("bits_per_dim", "bits/dim", bits_per_dim(found.nats, found.num_dims), found))
        if found.levels is None or found.levels == 2:
            scores.append(_score("nll", "nats", negative_log_likelihood(found.nats), found))
        return tuple(scores)


def _score(name: str, unit: str, estimate: Estimate, found: LikelihoodEvidence) -> Score:
    protocol: dict[str, Scalar] = {
        "num_dims": found.num_dims,
        "levels": found.levels or "density",
        "num_examples": len(found.nats),
    }
    if found.estimator:
        protocol["estimator"] = found.estimator
    num = len(found.nats)
    return scored(name, estimate, better="lower", unit=unit, kind=found.kind, num_samples=num, protocol=protocol)


def _finite(nats: Tensor) -> Tensor:
    if not len(nats):
        raise ValueError("bits per dimension need log-likelihoods of at least 1 held-out example, found none")
    broken = int((~torch.isfinite(nats)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(nats)} log-likelihoods are NaN or infinite, all must be finite")
    return nats


def _refuse_impossible(evidence: LikelihoodEvidence) -> None:
    """Integers have probabilities, and none exceeds 1; bounds and estimates must keep to that in the mean."""
    nats = evidence.nats.double()
    allowed = ROUNDING_NATS_PER_DIM * evidence.num_dims
    spread = float(nats.std(correction=1)) / math.sqrt(len(nats)) if len(nats) > 1 else 0.0
    highest = float(nats.max()) if evidence.kind == "exact" else float(nats.mean()) - 2.0 * Z95 * spread
    if highest > allowed:
        raise ValueError(
            f"a log-likelihood of {highest:.4g} nats is a probability above 1, impossible for integers 0 .. "
            f"{(evidence.levels or 0) - 1}; the log-Jacobian of the scaling or dequantisation may be missing"
        )
