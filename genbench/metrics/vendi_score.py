"""Vendi score: the effective number of different samples.

Friedman and Dieng 2023, "The Vendi score", arXiv:2210.02410, Def. 3.1; other orders: Pasarkar and
Dieng 2023, arXiv:2310.12952, Eq. 2. With K the cosines between the N samples and lambda the
eigenvalues of K / N, which are those of X'X / N for unit rows X:

    VS_q = exp(log(sum lambda^q) / (1 - q)),  VS_1 = exp(-sum lambda log lambda),
    VS_0 = number of lambda > 0,  VS_inf = 1 / max lambda;   1 <= VS_q <= min(N, F)

The default is q = 1, of the first paper. Needs no reference: it says nothing of quality.
Called `vendi_<extractor>`, for other orders `vendi_q<order>_<extractor>`.
Standard error: the delta method; the influence of x on sum f(lambda) is x' f'(X'X / N) x, so that
of directions u_k with eigenvalues lambda_k it is sum f'(lambda_k) (u_k.x)^2 less its mean. With fewer
samples than features the spectrum is as much noise as law, and this error is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval

HOW = "delta method over samples; small-sample bias not removed"
HOW_NOT = "none: a rank has no derivative"
HOW_FEW = "delta method over samples, understated with fewer samples than features; small-sample bias not removed"
INFLUENCES = 2048
"""Rows, evenly spaced, whose influence is measured: enough to know its spread to a few per cent."""


def vendi_score(samples: np.ndarray | Tensor, *, q: float = 1.0) -> Estimate:
    """Effective number of different rows: 1 .. min(N, F).

    Formula and sources: see the module.

    Args:
        samples: (N, F) finite features, N > 1, no row zero.
        q: order, 0 .. infinity; small orders count rare kinds as much as frequent ones.

    Raises:
        ValueError: fewer than 2 samples, a row of zeros, or q below 0.
    """
    _check_order(q)
    x = torch.as_tensor(samples).detach().cpu().double()
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"a Vendi score needs features of at least 2 samples, found {tuple(x.shape)}")
    lengths = x.norm(dim=1, keepdim=True)
    if not (lengths > 0.0).all():
        raise ValueError("a Vendi score needs features with a direction, found a row of zeros")
    x = x / lengths
    dual = x.shape[0] > x.shape[1]
    matrix = (x.T @ x if dual else x @ x.T) / len(x)
    everything = torch.linalg.eigvalsh(matrix)
    kept = everything > everything[-1] * max(x.shape) * torch.finfo(torch.float64).eps
    spectrum = everything[kept]
    value = _effective_number(spectrum, q)
    if q == 0.0:
        return Estimate(value, how=HOW_NOT)
    vectors = torch.linalg.eigh(matrix.float()).eigenvectors[:, kept]  # single precision: only the error needs them
    influence = _influences(x, spectrum, vectors, _slopes(spectrum, q))
    stderr = value * float(influence.std()) / math.sqrt(len(x))
    interval = normal_interval(value, stderr, low=1.0, high=float(min(x.shape)))
    return Estimate(value, stderr, interval, HOW if dual else HOW_FEW)


@register_metric("vendi_score")
@dataclass(frozen=True)
class VendiScore(Metric):
    """Effective number of different samples by the cosines of their features; `vendi_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("vendi_<extractor>", "higher", "samples"),
        ScoreName("vendi_q<order>_<extractor>", "higher", "samples"),
    )
    source: ClassVar[str] = "Friedman and Dieng 2023, arXiv:2210.02410, Def. 3.1"

    q: float = 1.0
    """Order, 0 .. infinity (`inf`)."""

    def __post_init__(self) -> None:
        _check_order(self.q)

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error where q is above 0.

        Raises:
            ValueError: fewer than 2 samples, or features that are zero or not finite.
        """
        features = evidence.features
        if features is None or features.samples is None:
            raise ValueError("a Vendi score needs features of at least 2 samples, found 0")
        if not features.samples.isfinite().all():
            raise ValueError("a Vendi score needs finite features, found NaN or infinity")
        order = "" if self.q == 1.0 else f"q{self.q:g}_"
        score = scored(
            f"vendi_{order}{features.extractor}",
            vendi_score(features.samples, q=self.q),
            better="higher",
            unit="samples",
            num_samples=len(features.samples),
            protocol={
                **features.protocol,
                "kernel": "cosine",
                "q": f"{self.q:g}",
                "num_samples": len(features.samples),
            },
        )
        return (score,)


def _check_order(q: float) -> None:
    if not q >= 0.0:
        raise ValueError(f"the order q of a Vendi score is {q}, expected 0 or more")


def _influences(x: Tensor, spectrum: Tensor, vectors: Tensor, slopes: Tensor) -> Tensor:
    """What single rows add to log VS_q, up to a constant: (at most N,).

    From eigenvectors of X'X / N (F, R), or from those v of XX' / N (N, R) by (u_k.x_i)^2 = N lambda_k v_ik^2.
    """
    if len(vectors) == x.shape[1] and x.shape[0] > x.shape[1]:
        rows = torch.linspace(0, len(x) - 1, min(len(x), INFLUENCES), dtype=torch.float64).round().long()
        return (x[rows].float() @ vectors).square().double() @ slopes
    return len(x) * (vectors.square().double() @ (spectrum * slopes))


def _effective_number(spectrum: Tensor, q: float) -> float:
    if q == 0.0:
        return float(len(spectrum))
    if math.isinf(q):
        return 1.0 / float(spectrum[-1])
    if q == 1.0:
        return math.exp(-float((spectrum * spectrum.log()).sum()))
    return math.exp(float(torch.logsumexp(q * spectrum.log(), dim=0)) / (1.0 - q))


def _slopes(spectrum: Tensor, q: float) -> Tensor:
    """Derivative of log VS_q by each eigenvalue: (R,)."""
    if math.isinf(q):
        slopes = torch.zeros_like(spectrum)
        slopes[-1] = -1.0 / spectrum[-1]
        return slopes
    if q == 1.0:
        return -(spectrum.log() + 1.0)
    log_sum = torch.logsumexp(q * spectrum.log(), dim=0)
    return q / (1.0 - q) * ((q - 1.0) * spectrum.log() - log_sum).exp()
