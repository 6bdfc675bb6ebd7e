"""Inception score: how sure a classifier is of each sample and how varied its answers are.

Salimans et al. 2016, "Improved techniques for training GANs", arXiv:1606.03498, Sec. 4:

    IS = exp(mean_x KL(p(y|x) || p(y))),  p(y) = mean_x p(y|x),  1 <= IS <= C

over parts of the samples, each with a p(y) of its own; the score is the mean over parts, and the
natural logarithm is meant. Called `is` over Inception-v3 (1008 logits without bias), else `is_<extractor>`.
Presets fix the parts:

    torch-fidelity  10 parts i*N//10 .. (i+1)*N//10 after RandomState(2020).permutation (the default:
                    10 parts are what papers print, and samples sorted by class must not change it)
    openai          the same parts without the shuffle; stylegan3 too
    adm             consecutive parts of 5000, without a shuffle
    single          all samples at once, as FID-infinity takes it

Departure: a short last part of `adm` counts by its size; the original counts it as a whole one.
The spread over parts that codes print beside the mean is the spread of one part's score, not the
error of the mean; the standard error here is of the mean, by the delta method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._scores import named, scored
from genbench.prob.intervals import Estimate, normal_interval

Preset = Literal["torch-fidelity", "openai", "adm", "single"]

NUM_PARTS = 10
"""Salimans et al. 2016: ten parts of 5000."""
ADM_PART = 5000
SHUFFLE_SEED = 2020
"""Of torch-fidelity."""
HOW = "delta method over samples within each part; small-sample bias not removed"
HOW_NOT = "none: a part has a single sample"


@dataclass(frozen=True)
class PartScores:
    """Scores of the parts of a set of samples."""

    values: np.ndarray
    """(P,) float64, 1 .. C."""
    sizes: np.ndarray
    """(P,) int64, samples in each part."""
    stderrs: np.ndarray
    """(P,) float64, NaN for a part of one sample."""


def inception_score(logits: Features, *, preset: Preset = "torch-fidelity") -> Estimate:
    """Mean over parts, weighted by their sizes where they differ by more than one sample: 1 .. C.

    Args:
        logits: (N, C) finite, N at least the number of parts.
        preset: which parts; see the module.

    Raises:
        ValueError: there are too few samples, or logits that are not finite.
    """
    logits = finite_rows(logits, name="logits", what="logits")
    parts = inception_score_parts(logits, preset=preset)
    weights = parts.sizes / parts.sizes.sum() if preset == "adm" else np.full(len(parts.sizes), 1.0 / len(parts.sizes))
    value = float(weights @ parts.values)
    stderr = math.sqrt(float(np.square(weights * parts.stderrs).sum()))
    if math.isnan(stderr):
        return Estimate(value, how=HOW_NOT)
    return Estimate(value, stderr, normal_interval(value, stderr, low=1.0, high=float(logits.shape[1])), HOW)


def inception_score_parts(logits: Features, *, preset: Preset = "torch-fidelity") -> PartScores:
    """The score of each part; the standard deviation of `values` (ddof 0) is what other codes print.

    Args:
        logits: (N, C) finite.
        preset: which parts; see the module.

    Raises:
        ValueError: there are too few samples, or logits that are not finite.
    """
    given = finite_rows(logits, name="logits", what="logits").cpu()
    least = NUM_PARTS if preset in ("torch-fidelity", "openai") else 2
    if len(given) < least:
        raise ValueError(
            f"an Inception score ({preset}) needs logits of at least {least} samples, found {tuple(given.shape)}"
        )
    if preset == "torch-fidelity":
        given = given[torch.from_numpy(np.random.RandomState(SHUFFLE_SEED).permutation(len(given)))]
    found = [_part(given[part]) for part in _parts(len(given), preset)]
    values, sizes, stderrs = zip(*found, strict=True)
    return PartScores(np.array(values), np.array(sizes), np.array(stderrs))


@register_metric("inception_score")
@dataclass(frozen=True)
class InceptionScore(Metric):
    """Exponential of the mean divergence of a sample's classes from all; `is` or `is_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.LOGITS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("inception_score", "higher"),
        ScoreName("inception_score_<extractor>", "higher"),
    )
    source: ClassVar[str] = "Salimans et al. 2016, arXiv:1606.03498, Sec. 4"

    preset: Preset = "torch-fidelity"
    """Which parts the samples are cut into; see the module."""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error.

        Raises:
            ValueError: too few samples, or logits that are not finite.
        """
        logits = evidence.logits
        if logits is None:
            raise ValueError("an Inception score needs class logits of the samples, found none")
        if not logits.samples.isfinite().all():
            raise ValueError("an Inception score needs finite logits, found NaN or infinity")
        num_samples, num_classes = logits.samples.shape
        score = scored(
            named(logits.extractor, inception="inception_score", other="inception_score"),
            inception_score(logits.samples, preset=self.preset),
            better="higher",
            num_samples=num_samples,
            protocol={
                **logits.protocol,
                "parts": self.preset,
                "num_parts": len(_parts(num_samples, self.preset)),
                "num_classes": num_classes,
                "num_samples": num_samples,
            },
        )
        return (score,)


def _parts(count: int, preset: Preset) -> list[slice]:
    if preset == "adm":
        return [slice(start, min(start + ADM_PART, count)) for start in range(0, count, ADM_PART)]
    num_parts = 1 if preset == "single" else NUM_PARTS
    return [slice(i * count // num_parts, (i + 1) * count // num_parts) for i in range(num_parts)]


def _part(logits: Tensor) -> tuple[float, int, float]:
    """Score, size and standard error of one part.

    The influence of a sample on the mean divergence is its own divergence less the mean: what it
    does to p(y) cancels, since p(y) minimises the mean.
    """
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    log_marginal = torch.logsumexp(log_p, dim=0) - math.log(len(logits))
    divergences = (p * (log_p - log_marginal)).sum(dim=1)
    value = math.exp(float(divergences.mean()))
    spread = float(divergences.std()) / math.sqrt(len(logits)) if len(logits) > 1 else math.nan
    return value, len(logits), value * spread
