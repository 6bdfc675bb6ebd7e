"""Estimates to scores, and how scores over features are called."""

from __future__ import annotations

from collections.abc import Mapping

from genbench.core.record import Better, Kind, Score
from genbench.core.spec import Scalar
from genbench.prob.intervals import Estimate

INCEPTION = "inception_v3"
"""The one extractor whose scores bear the names of the literature: FID, KID."""


def scored(
    name: str,
    estimate: Estimate,
    *,
    better: Better,
    unit: str = "",
    kind: Kind = "exact",
    num_samples: int,
    num_reference: int = 0,
    protocol: Mapping[str, Scalar],
) -> Score:
    """The score of an estimate."""
    return Score(
        name=name,
        value=estimate.value,
        unit=unit,
        better=better,
        kind=kind,
        stderr=estimate.stderr,
        ci95=estimate.ci95,
        interval=estimate.how,
        num_samples=num_samples,
        num_reference=num_reference,
        protocol=dict(protocol),
    )


def named(extractor: str, *, inception: str, other: str) -> str:
    """`fid` over Inception-v3, `fd_<extractor>` over anything else; likewise for its kin."""
    return inception if extractor == INCEPTION else f"{other}_{extractor}"
