"""MIND: Monge Inception distance, a sliced squared Wasserstein distance between features.

Berthet et al. 2026, "MIND: Monge Inception distance", arXiv:2605.06797:

    MIND = 3 F mean_theta W^2(theta.X, theta.Y),  theta uniform on the sphere

The mean over directions is |mu_x - mu_y|^2 / F for two laws that differ by a shift, hence the F;
1000 directions from torch's generator with seed 2020, as in torch-fidelity. Sets of unequal size:
`torch-fidelity` (the default) drops examples of the larger at random, `quantiles` keeps all and
couples their quantile functions. Called `mind` over Inception-v3, else `mind_<extractor>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.metric import Evidence, Metric, Need, ScoreName, feature_pair, register_metric
from genbench.core.ranges import Several, Whole
from genbench.core.record import Score
from genbench.metrics._features import Features, finite_features
from genbench.metrics._scores import named, scored
from genbench.prob.intervals import Estimate, normal_interval
from genbench.prob.sliced import random_directions, sliced_distance_along

SEED = 2020
"""Of torch-fidelity."""
FACTOR = 3.0
"""Of the definition: brings values near those of the Frechet distance."""
HOW = "delta method over both sets, plus spread over directions; small-sample bias not removed"

Preset = Literal["torch-fidelity", "quantiles"]


def mind(
    samples: Features,
    reference: Features,
    *,
    num_directions: int = 1000,
    seed: int = SEED,
    preset: Preset = "torch-fidelity",
) -> Estimate:
    """`3 F` times the sliced squared 2-Wasserstein distance; >= 0, biased upwards by few samples.

    Formula and source: see the module.

    Args:
        samples: (N, F) finite features, N > 1.
        reference: (M, F), M > 1.
        num_directions: at least 2.
        seed: of the directions, and of the examples that are dropped.
        preset: what happens to sets of unequal size.

    Raises:
        ValueError: a set or the number of directions is too small, the widths differ, or features are not finite.
    """
    x, y = (part.cpu() for part in finite_features(samples=samples, reference=reference))
    if min(len(x), len(y), num_directions) < 2:
        raise ValueError(
            "MIND needs features of at least 2 samples and 2 reference examples, and 2 directions, "
            f"found {tuple(x.shape)}, {tuple(y.shape)} and {num_directions}"
        )
    generator = torch.Generator().manual_seed(seed)
    if preset == "torch-fidelity":
        least = min(len(x), len(y))
        x, y = (part if len(part) == least else part[_subset(len(part), least, generator)] for part in (x, y))
    directions = random_directions(num_directions, x.shape[1], generator=generator)
    found = sliced_distance_along(x, y, directions)
    scale = FACTOR * x.shape[1]
    value, stderr = scale * found.value, scale * found.variance**0.5
    return Estimate(value, stderr, normal_interval(value, stderr, low=0.0), HOW)


@register_metric("mind")
@dataclass(frozen=True)
class MIND(Metric):
    """Sliced squared Wasserstein distance of features, times 3 F; `mind` or `mind_<extractor>`."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.FEATURES})
    gives: ClassVar[tuple[ScoreName, ...]] = (ScoreName("mind", "lower"), ScoreName("mind_<extractor>", "lower"))
    source: ClassVar[str] = "Berthet et al. 2026, arXiv:2605.06797"

    preset: Preset = "torch-fidelity"
    """Sets of unequal size: drop examples of the larger, or couple quantiles."""
    num_directions: Several = 1000
    seed: Whole = SEED

    def __post_init__(self) -> None:
        if self.num_directions < 2:
            raise ValueError(f"num_directions is {self.num_directions}, expected at least 2")

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, with a delta-method standard error.

        Raises:
            ValueError: fewer than 2 samples or reference examples, or features that are not finite.
        """
        features = evidence.features
        samples, reference = feature_pair(features, owner="MIND")
        assert features is not None
        counts = (len(samples), len(reference))
        if self.preset == "torch-fidelity":
            counts = (min(counts), min(counts))
        score = scored(
            named(features.extractor, inception="mind", other="mind"),
            mind(samples, reference, num_directions=self.num_directions, seed=self.seed, preset=self.preset),
            better="lower",
            num_samples=counts[0],
            num_reference=counts[1],
            protocol={
                **features.protocol,
                "unequal_sizes": self.preset,
                "num_directions": self.num_directions,
                "seed": self.seed,
                "num_samples": counts[0],
                "num_reference": counts[1],
            },
        )
        return (score,)


def _subset(count: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[:size]
