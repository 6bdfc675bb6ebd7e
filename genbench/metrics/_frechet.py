"""Frechet distances from features or moments of either side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from genbench.core.features import Statistics
from genbench.core.metric import FeatureEvidence
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._scores import scored
from genbench.prob.frechet import BiasForm, FrechetResult, frechet, frechet_between
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.moments import Moments, moments_of

Side = Features | Moments | Statistics
"""Features (N, F), or moments of them."""

#: Features per sample above which the second-order correction leaves a bias that shows.
CROWDED = 0.3
_UNKNOWN = "not recorded"
"""How statistics say that they do not know what made them."""


@dataclass(frozen=True)
class Fitted:
    """One side as a Gaussian."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    """0 where it is unknown."""


def fitted(side: Side, *, ddof: int) -> Fitted:
    """Mean and covariance of a side, the latter with `count - ddof` in the denominator.

    A covariance over an unknown number of examples stays as it is.

    Raises:
        ValueError: there are fewer than 2 rows, or something is not finite.
    """
    if isinstance(side, Statistics):
        count = side.num_samples
        shrunk = (count - 1) / (count - ddof) if count > 1 else 1.0
        return Fitted(side.mean, side.covariance if shrunk == 1.0 else side.covariance * shrunk, count)
    moments = side if isinstance(side, Moments) else moments_of(finite_rows(side, name="reference"))
    if moments.count < 2:
        raise ValueError(f"a Frechet distance needs at least 2 examples on each side, found {moments.count}")
    return Fitted(moments.mean, moments.covariance(ddof), moments.count)


def frechet_estimate(samples: Side, reference: Side, *, ddof: int, bias: BiasForm) -> Estimate:
    """Distance with its interval; arguments and errors as of `frechet_distance`."""
    if ddof not in (0, 1):
        raise ValueError(f"ddof is {ddof}, expected 0 or 1")
    second = fitted(reference, ddof=ddof)
    if isinstance(samples, (Moments, Statistics)):
        found, num = _from_moments(samples, second, ddof=ddof, bias=bias), fitted(samples, ddof=ddof).count
    else:
        rows, others = finite_rows(samples, name="samples").cpu().numpy(), None
        if bias == "fourth_moment" and not isinstance(reference, (Moments, Statistics)):
            others = finite_rows(reference, name="reference")
        num = len(rows)
        found = frechet(rows, second.mean, second.covariance, ddof=ddof, num2=second.count, bias=bias, reference=others)
    return _estimate(found, num, second, bias)


def frechet_score(
    evidence: FeatureEvidence | None, name: str, *, ddof: int, bias: BiasForm, owner: str = "a Frechet distance"
) -> Score:
    """The score of a cell.

    Raises:
        ValueError: a side is missing or has fewer than 2 examples, or something is not finite.
    """
    samples, reference = sides(evidence, owner=owner)
    assert evidence is not None
    estimate = frechet_estimate(samples, _with_fourth_moments(evidence, reference, bias), ddof=ddof, bias=bias)
    corrected = {} if bias == "kept" else {"bias": bias}
    return scored(
        name if bias == "kept" else f"{name}_corrected",
        estimate,
        better="lower",
        num_samples=_count(samples),
        num_reference=reference.num_samples,
        protocol={**evidence.protocol, "ddof": ddof, **corrected, **counted(samples, reference)},
    )


def sides(evidence: FeatureEvidence | None, *, owner: str) -> tuple[Tensor | Statistics, Statistics]:
    """Samples, as features where they are known, and the reference's moments.

    Raises:
        ValueError: a side is missing or has fewer than 2 examples.
    """
    samples = (
        None if evidence is None else evidence.samples if evidence.samples is not None else evidence.sample_statistics
    )
    count = 0 if samples is None else _count(samples)
    if evidence is None or samples is None or (count < 2 and not isinstance(samples, Statistics)):
        raise ValueError(f"{owner} needs features of at least 2 samples, found {count}")
    if evidence.statistics is not None:
        return samples, evidence.statistics
    real = evidence.reference
    if real is None or len(real) < 2:
        raise ValueError(
            f"{owner} needs features of at least 2 reference examples, or statistics of them, "
            f"found {0 if real is None else len(real)}"
        )
    moments = moments_of(real)
    return samples, Statistics(moments.mean, moments.covariance(), moments.count, evidence.protocol, "", "", "")


def counted(samples: Tensor | Statistics, reference: Statistics) -> Mapping[str, Scalar]:
    """What two scores must share besides their settings: counts and the very reference."""
    known = reference.protocol.get("identity") != _UNKNOWN
    return {
        "num_samples": _count(samples),
        "num_reference": reference.num_samples,
        "reference_sha256": reference.sha256,
        **({} if known else {"reference_identity": _UNKNOWN}),
    }


def _count(samples: Tensor | Statistics) -> int:
    return samples.num_samples if isinstance(samples, Statistics) else len(samples)


def _with_fourth_moments(evidence: FeatureEvidence, reference: Statistics, bias: BiasForm) -> Side:
    """The reference's features where they are all that its moments were made of and fourth moments are asked for."""
    real = evidence.reference
    whole = real is not None and len(real) == reference.num_samples
    return real if bias == "fourth_moment" and real is not None and whole else reference


def _from_moments(samples: Moments | Statistics, second: Fitted, *, ddof: int, bias: BiasForm) -> FrechetResult:
    first = fitted(samples, ddof=ddof)
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"moments of {len(first.mean)} and of {len(second.mean)} features cannot be compared")
    if bias == "fourth_moment":
        raise ValueError("a correction by fourth moments needs features of the samples, found their moments only")
    counts = (first.count or None, second.count or None)
    return frechet_between(
        first.mean, first.covariance, second.mean, second.covariance, num1=counts[0], num2=counts[1], ddof=ddof
    )


def _estimate(found: FrechetResult, num: int, second: Fitted, bias: BiasForm) -> Estimate:
    notes = _notes(num, second, bias)
    value, low = found.value, 0.0
    if bias != "kept":
        if found.bias is None:
            raise ValueError("a bias correction needs the number of examples on both sides, found none recorded")
        value, low = found.value - found.bias, -np.inf  # an estimate without bias may be negative near 0
    if found.stderr is None:
        return Estimate(value, how="; ".join(["none: the samples are known by their moments only", *notes]))
    head = "delta method over samples, reference held fixed"
    if found.error_rows < num:
        head += f", influence of {found.error_rows} of them"
    interval = normal_interval(value, found.stderr, low=float(low))
    return Estimate(value, found.stderr, interval, "; ".join([head, *notes]))


def _notes(num: int, second: Fitted, bias: BiasForm) -> list[str]:
    """What a reader must know of the value, most general first."""
    size = len(second.mean)
    words = {
        "kept": "small-sample bias not removed",
        "gaussian": "small-sample bias removed in its Gaussian form",
        "fourth_moment": "small-sample bias removed by fourth moments",
    }
    notes = [words[bias]]
    if 0 < num <= size:
        notes.append(f"no more samples ({num}) than features ({size}): mostly bias")
    counts = [count for count in (num, second.count) if count > 0]
    crowding = size / min(counts) if counts else 0.0
    if bias != "kept" and crowding > CROWDED:
        notes.append(f"{crowding:.2g} features per sample, above {CROWDED}: bias of higher order is left")
    return notes
