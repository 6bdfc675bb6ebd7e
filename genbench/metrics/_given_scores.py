"""Estimates under the names that a metric declares, to its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genbench.core.metric import ScoreName
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate


def given_scores(
    gives: Sequence[ScoreName],
    found: Mapping[str, Estimate],
    *,
    num_samples: int,
    num_reference: int = 0,
    protocol: Mapping[str, Scalar],
) -> tuple[Score, ...]:
    """One score for each number that a metric gives: its order, directions and units, with one protocol for all.

    Args:
        gives: the metric's own declaration, each name as it is and not a pattern.
        found: an estimate under each of these names.
        num_samples: behind every score.
        num_reference: likewise.
        protocol: likewise.
    """
    return tuple(
        scored(
            score.name,
            found[score.name],
            better=score.better,
            unit=score.unit,
            num_samples=num_samples,
            num_reference=num_reference,
            protocol=protocol,
        )
        for score in gives
    )
