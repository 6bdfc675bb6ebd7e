"""Kullback-Leibler divergence of a model from a law whose density is known.

    KL(p || q) = E_p[log p(x) - log q(x)],

the mean over held-out examples of the difference of log-densities, in nats per example. Examples are draws from the
law, so that the mean is unbiased and its standard error is that of a mean. The model's likelihood decides what it is:
of a lower bound on log q(x), the score is an upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate

_OWNER = "an exact Kullback-Leibler divergence"

IMPOSSIBLE_ERRORS = 5.0
"""Standard errors below 0 at which chance is no explanation: one in three million for a normal mean."""

ROUNDING_NATS = 1e-4
"""What single-precision sums may take from a divergence of 0."""


def exact_kl(true_nats: Tensor, nats: Tensor) -> Estimate:
    """Mean excess of the true log-density over the model's: nats per example, 0 or above but for chance.

    Args:
        true_nats: (N,), log-density of held-out draws under the law that they come from.
        nats: (N,), of the same draws under the model.

    Returns:
        The estimate, with the standard error of a mean. Draws of a law with the same density everywhere have no
        spread, and the error is then 0.

    Raises:
        ValueError: fewer than 2 examples, unequal counts, values that are not finite, or a mean so far below 0 that
            the model's density cannot integrate to 1.
    """
    if len(true_nats) < 2 or true_nats.shape != nats.shape:
        raise ValueError(
            f"{_OWNER} needs two log-densities for each of at least 2 held-out examples, found {len(true_nats)} of the "
            f"law and {len(nats)} of the model"
        )
    excess = true_nats.double() - nats.double()
    broken = int((~torch.isfinite(excess)).sum())
    if broken:
        raise ValueError(f"{broken} of {len(excess)} log-densities are NaN or infinite, all must be finite")
    found = mean_estimate(excess.cpu().numpy(), how="spread over held-out examples")
    if found.value < -ROUNDING_NATS - IMPOSSIBLE_ERRORS * (found.stderr or 0.0):
        raise ValueError(
            f"the model's log-density exceeds the true one by {-found.value:.4g} nats in the mean, which no normalised "
            "density can; a log-Jacobian or a normaliser may be missing"
        )
    return found


@register_metric("exact_kl")
@dataclass(frozen=True)
class ExactKL(Metric):
    """Divergence of the model from the known law of the data, from their log-densities at held-out draws."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LIKELIHOOD, Need.TRUE_DENSITY})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("kl", "lower", "nats"),)
    source: ClassVar[str] = "Kullback and Leibler 1951, Eq. 2.4"

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, of the kind that the model's likelihood has.

        Raises:
            ValueError: no likelihood, a law of unknown density, or as the function says.
        """
        found = evidence.likelihood
        if found is None or found.true_nats is None:
            what = "no likelihood" if found is None else "a likelihood and no true density"
            raise ValueError(f"{_OWNER} needs a model's likelihood and the data's true density, found {what}")
        protocol: dict[str, Scalar] = {"num_dims": found.num_dims, "num_examples": len(found.nats)}
        if found.estimator:
            protocol["estimator"] = found.estimator
        estimate, num = exact_kl(found.true_nats, found.nats), len(found.nats)
        return (
            scored("kl", estimate, better="lower", unit="nats", kind=found.kind, num_samples=num, protocol=protocol),
        )
