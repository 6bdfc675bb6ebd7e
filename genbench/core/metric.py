"""The contract of a metric: a pure function of evidence that the harness gathers once."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor

from genbench.core.features import FactorPredictions, Statistics
from genbench.core.record import Better, Kind, Score
from genbench.core.registry import Registry
from genbench.core.settings import with_settings
from genbench.core.spec import Ref, Scalar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Need(StrEnum):
    """A kind of evidence."""

    FEATURES = "features"
    LIKELIHOOD = "likelihood"
    FACTORS = "factors"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureEvidence:
    """Features of samples and of the reference, from one extractor."""

    samples: Tensor
    """(N, F) float32."""
    reference: Tensor
    """(M, F) float32, of real training examples."""
    statistics: Statistics
    """Moments of the reference over many more examples than M."""
    extractor: str
    """Registered name; names the score: `fid` for Inception-v3, else `fd_<extractor>`."""
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LikelihoodEvidence:
    """Log-likelihoods of held-out examples."""

    nats: Tensor
    """(N,) float64, nats per example of the stored integers."""
    kind: Kind
    num_dims: int
    levels: int | None
    """None for float data: the log-likelihood is then a density's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorEvidence:
    """Factors read off the samples, and the combinations that the training split can show."""

    samples: FactorPredictions
    training: Tensor
    """(M, K) int64: every combination of factor values that `train` can hold, without repeats."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything gathered for one cell; None where no metric needed it."""

    features: FeatureEvidence | None = None
    likelihood: LikelihoodEvidence | None = None
    factors: FactorEvidence | None = None


@dataclasses.dataclass(frozen=True)
class ScoreName:
    """One number that a metric gives, for listings: its name pattern, direction and unit."""

    name: str
    better: Better
    unit: str = ""


class Metric(ABC):
    """A metric. Subclasses are frozen dataclasses; their fields are the settings."""

    needs: ClassVar[frozenset[Need]]
    gives: ClassVar[tuple[ScoreName, ...]]
    source: ClassVar[str]
    """Paper and equation."""

    @abstractmethod
    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """Scores of one cell.

        Raises:
            ValueError: the evidence cannot support the metric; the message says what it needs.
        """


METRICS: Registry[Metric] = Registry("metric", "metrics")
register_metric = METRICS.register


def build_metric(ref: Ref) -> Metric:
    """Build the metric that `ref` names.

    Raises:
        UnknownName, SettingError: as the registry and the settings say.
    """
    base = cast("Callable[[], DataclassInstance]", METRICS.get(ref.name))()
    return cast("Metric", with_settings(base, ref.config, owner=ref.name))
