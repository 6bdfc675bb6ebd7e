"""Vendi score: the effective number of different samples.

Friedman and Dieng 2023, "The Vendi score", arXiv:2210.02410, Def. 3.1; other orders: Pasarkar and
Dieng 2023, arXiv:2310.12952, Eq. 2. With K the cosines between the N samples and lambda the
eigenvalues of K / N, which are those of X'X / N for unit rows X:

    VS_q = exp(log(sum lambda^q) / (1 - q)),  VS_1 = exp(-sum lambda log lambda),
    VS_0 = number of lambda > 0,  VS_inf = 1 / max lambda;   1 <= VS_q <= min(N, F)

The default is q = 1, of the first paper. Needs no reference: it says nothing of quality.
Called `vendi_<extractor>`, for other orders `vendi_q<order>_<extractor>`.
Standard error: the delta method; the influence of x on sum f(lambda) is x' f'(X'X / N) x less its mean,
from the tridiagonal form that gave the eigenvalues. Of 1024 rows, spread evenly, its standard deviation has
a relative error of 2 % for a normal influence and of sqrt((kurtosis - 1)/4096) for others. With fewer
samples than features the spectrum is as much noise as law, and this error is a lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg import blas
from scipy.special import logsumexp
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.tridiagonal import tridiagonal

HOW = "delta method over samples; small-sample bias not removed"
HOW_NOT = "none: a rank has no derivative"
HOW_FEW = "delta method over samples, understated with fewer samples than features; small-sample bias not removed"
INFLUENCES = 1024
"""Rows, evenly spaced, whose influence is measured: enough to know its spread to a few per cent."""
_BLOCK = 4096
"""Rows promoted to float64 at once."""


def vendi_score(samples: Features, *, q: float = 1.0) -> Estimate:
    """Effective number of different rows: 1 .. min(N, F).

    Formula and sources: see the module.

    Args:
        samples: (N, F) finite features, N > 1, no row zero.
        q: order, 0 .. infinity; small orders count rare kinds as much as frequent ones.

    Raises:
        ValueError: fewer than 2 samples, a row of zeros, features that are not finite, or q below 0.
    """
    _check_order(q)
    x = finite_rows(samples, name="samples").cpu()
    if len(x) < 2:
        raise ValueError(f"a Vendi score needs features of at least 2 samples, found {tuple(x.shape)}")
    num, size = x.shape
    form = tridiagonal(_covariance(x) if num > size else _cosines(x))
    kept = form.values > form.values[-1] * max(x.shape) * np.finfo(np.float64).eps
    spectrum = form.values[kept]
    value = _effective_number(spectrum, q)
    if q == 0.0:
        return Estimate(value, how=HOW_NOT)
    slopes = np.zeros(len(form.values))
    slopes[kept] = _slopes(spectrum, q)
    rows = np.linspace(0, num - 1, min(num, INFLUENCES)).round().astype(np.int64)
    if num > size:
        influence = form.forms(_unit(x[rows]).T, slopes, weights=form.values)
    else:  # in the axes v of XX' / N, (u_k.x_i)^2 is N lambda_k v_ik^2
        influence = num * form.forms(np.eye(num)[:, rows], slopes * form.values)
    stderr = value * float(influence.std(ddof=1)) / math.sqrt(num)
    interval = normal_interval(value, stderr, low=1.0, high=float(min(x.shape)))
    return Estimate(value, stderr, interval, HOW if num > size else HOW_FEW)


@register_metric("vendi_score")
@dataclass(frozen=True)
class VendiScore(Metric):
    """Effective number of different samples by the cosines of their features; `vendi_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.MOMENTS})
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


def _unit(rows: Tensor) -> np.ndarray:
    """Rows (n, F) at unit length, float64."""
    found = rows.double()
    lengths = found.norm(dim=1, keepdim=True)
    if not (lengths > 0.0).all():
        raise ValueError("a Vendi score needs features with a direction, found a row of zeros")
    return (found / lengths).numpy()  # type: ignore[no-any-return]


def _covariance(x: Tensor) -> np.ndarray:
    """`X'X / N` of unit rows: (F, F), its lower triangle."""
    found = np.zeros((x.shape[1], x.shape[1]), order="F")
    for part in x.split(_BLOCK):
        found = blas.dsyrk(1.0 / len(x), _unit(part).T, beta=1.0, c=found, lower=1, overwrite_c=1)
    return found


def _cosines(x: Tensor) -> np.ndarray:
    """`XX' / N` of unit rows: (N, N), its lower triangle."""
    return np.asarray(blas.dsyrk(1.0 / len(x), _unit(x).T, trans=1, lower=1))


def _effective_number(spectrum: np.ndarray, q: float) -> float:
    if q == 0.0:
        return float(len(spectrum))
    if math.isinf(q):
        return 1.0 / float(spectrum[-1])
    if q == 1.0:
        return math.exp(-float((spectrum * np.log(spectrum)).sum()))
    return math.exp(float(logsumexp(q * np.log(spectrum))) / (1.0 - q))


def _slopes(spectrum: np.ndarray, q: float) -> np.ndarray:
    """Derivative of log VS_q by each eigenvalue: (R,)."""
    logs = np.log(spectrum)
    if math.isinf(q):
        return np.asarray(np.where(np.arange(len(spectrum)) == len(spectrum) - 1, -1.0 / spectrum, 0.0))
    if q == 1.0:
        return np.asarray(-(logs + 1.0))
    return np.asarray(q / (1.0 - q) * np.exp((q - 1.0) * logs - logsumexp(q * logs)))
