"""Negative log-likelihood of held-out data, in bits per dimension.

    bits/dim = -log p(x) / (D ln 2)

for the integers as they are stored, with the meaning (exact, bound, estimate) that the model gives
it. Float data have a density and no bits: the score is then `nll`, in nats per example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from genbench.core.metric import Evidence, LikelihoodEvidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.prob.intervals import Z95, normal_interval

ROUNDING_NATS_PER_DIM = 1e-4
"""Excess over probability 1 that float32 sums over many dimensions may show."""


@register_metric("bits_per_dim")
@dataclass(frozen=True)
class BitsPerDim(Metric):
    """Mean code length of a held-out example; `bits_per_dim` for integers, `nll` for floats."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LIKELIHOOD})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("bits_per_dim", "lower", "bits/dim"),
        ScoreName("nll", "lower", "nats"),
    )
    source: ClassVar[str] = "Theis et al. 2016, arXiv:1511.01844, Sec. 3.1"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with its standard error over examples.

        Raises:
            ValueError: no example, a likelihood that is not finite, or a probability above 1.
        """
        found = _checked(evidence.likelihood)
        discrete = found.levels is not None
        values = -found.nats.double() / (found.num_dims * math.log(2.0) if discrete else 1.0)
        value = float(values.mean())
        stderr = float(values.std(correction=1)) / math.sqrt(len(values)) if len(values) > 1 else None
        score = Score(
            name="bits_per_dim" if discrete else "nll",
            value=value,
            unit="bits/dim" if discrete else "nats",
            better="lower",
            kind=found.kind,
            stderr=stderr,
            ci95=None if stderr is None else normal_interval(value, stderr),
            interval="none" if stderr is None else "spread over held-out examples",
            num_samples=len(values),
            protocol={"num_dims": found.num_dims, "levels": found.levels or "density", "num_examples": len(values)},
        )
        return (score,)


def _checked(evidence: LikelihoodEvidence | None) -> LikelihoodEvidence:
    if evidence is None or len(evidence.nats) == 0:
        raise ValueError("bits per dimension need log-likelihoods of at least 1 held-out example, found none")
    broken = int((~torch.isfinite(evidence.nats)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(evidence.nats)} log-likelihoods are NaN or infinite, all must be finite")
    if evidence.levels is not None:
        _refuse_impossible(evidence)
    return evidence


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
