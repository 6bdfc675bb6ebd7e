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

    MOMENTS = "moments"
    """Moments of features on both sides: features or a statistics file of the samples, and of the reference."""
    FEATURES = "features"
    """Features of every sample and of reference examples."""
    HELD_OUT = "held_out"
    """Beside `FEATURES`, those of real examples that no model has been trained on."""
    SPATIAL = "spatial"
    """As `MOMENTS`, of the extractor's spatial layer."""
    LOGITS = "logits"
    """Class logits of the samples."""
    LIKELIHOOD = "likelihood"
    TRUE_DENSITY = "true_density"
    """Beside `LIKELIHOOD`, the density of the same examples under the law that they come from."""
    FACTORS = "factors"
    PAIRS = "pairs"
    """Perceptual distances between samples."""
    RECONSTRUCTIONS = "reconstructions"
    RECONSTRUCTION_FEATURES = "reconstruction_features"
    """Features of reconstructions and of their originals."""
    PROMPTS = "prompts"
    """Beside `FACTORS`, those that each sample was asked to show."""
    CAPTIONS = "captions"
    """Embeddings of samples and of the captions that they were asked to show."""
    LABELS = "labels"
    """Classes that the samples were asked to show, and the classes seen in them."""
    LATENTS = "latents"
    """Codes of real examples with known factors."""
    CODES = "codes"
    """Discrete codes of real examples."""
    VECTORS = "vectors"
    """Low-dimensional samples and reference points themselves."""
    TEXTS = "texts"
    """Texts said of held-out pictures, beside the true ones."""
    TEXT_LIKELIHOOD = "text_likelihood"
    """Beside `TEXTS`, log-likelihoods of the true ones."""


OF_ASKED_SAMPLES = frozenset({Need.PROMPTS, Need.CAPTIONS, Need.LABELS})
"""Kinds of evidence that are about samples drawn for a condition; a metric that needs one is about these alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureEvidence:
    """Features of samples and of the reference, from one layer of one extractor."""

    samples: Tensor | None
    """(N, F) float, None where only their moments are known."""
    reference: Tensor | None
    """(M, F) float, of real training examples; None where only their moments are known."""
    statistics: Statistics | None
    """Moments of the reference, often over many more examples than M; None: those of `reference`."""
    sample_statistics: Statistics | None = None
    """Moments of the samples, where they were read from a file; None: those of `samples`."""
    held_out: Tensor | None = None
    """(H, F) float, of real examples outside the training set; None where there are none."""
    extractor: str
    """Registered name; names the score: `fid` for Inception-v3, else `fd_<extractor>`."""
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitEvidence:
    """Class logits of the samples, from one classifier."""

    samples: Tensor
    """(N, C) float."""
    extractor: str
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
    true_nats: Tensor | None = None
    """(N,) float64, the exact log-density of the same examples under the law of the data, where it is known."""
    estimator: str = ""
    """How the likelihood was made, as `Likelihood.likelihood_estimator` of the model; empty where nobody said."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorEvidence:
    """Factors read off the samples, and the combinations that the training split can show."""

    samples: FactorPredictions
    training: Tensor
    """(M, K) int64: every combination of factor values that `train` can hold, without repeats."""
    asked: Tensor | None = None
    """(N, K) int64: the factors that each sample was asked to show, None where nothing was asked."""
    protocol: dict[str, Scalar] = dataclasses.field(default_factory=dict)
    """Of the reader."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairEvidence:
    """Perceptual distances of disjoint random pairs of samples."""

    distances: Tensor
    """(P,) float."""
    classes: Tensor | None = None
    """(P,) int64: the class of both members where all pairs are of one class each, else None."""
    extractor: str
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionEvidence:
    """Held-out images beside what a model makes of them after encoding."""

    originals: Tensor
    """(N, C, H, W) uint8, 0 .. 255."""
    reconstructions: Tensor
    """(N, C, H, W) uint8, 0 .. 255."""
    distances: Tensor | None = None
    """(N,) float, LPIPS of each pair; None where no perceptual network is at hand."""
    protocol: dict[str, Scalar] = dataclasses.field(default_factory=dict)
    """Of the perceptual network."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionFeatureEvidence:
    """Features of held-out images and of what a model makes of them after encoding; row i of both is image i."""

    originals: Tensor
    """(N, F) float."""
    reconstructions: Tensor
    """(N, F) float."""
    extractor: str
    """Registered name; names the score: `rfid` for Inception-v3, else `rfd_<extractor>`."""
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionEvidence:
    """Embeddings of samples and of their captions from one dual encoder; row i belongs to sample i."""

    images: Tensor
    """(N, E) float."""
    texts: Tensor
    """(N, E) float."""
    references: Tensor | None = None
    """(N, R, E) float, embeddings of R reference captions of each image; None where there are none."""
    steered_by: str | None = None
    """The extractor, where it has itself steered or picked the samples; None where it judges what others have made."""
    extractor: str
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelEvidence:
    """Classes asked for and classes seen."""

    asked: Tensor
    """(N,) int64."""
    logits: Tensor
    """(N, C) float, of a classifier whose classes are those of `asked`."""
    extractor: str
    protocol: dict[str, Scalar]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentEvidence:
    """Codes of real examples whose factors are known."""

    codes: Tensor
    """(N, D) float."""
    factors: Tensor
    """(N, K) int64."""
    names: tuple[str, ...] = ()
    """Of the K factors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodeEvidence:
    """Discrete codes of real examples."""

    codes: Tensor
    """(N, ...) int64, values 0 .. num_codes-1."""
    num_codes: int
    num_dims: int | None = None
    """Dimensions of one example, for rates per dimension; None where nobody said."""
    books: tuple[tuple[int, int], ...] = ()
    """Of several codebooks, in the order of the flattened positions: how many positions each serves, and its entries.
    Empty: one book of `num_codes` serves all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorEvidence:
    """Low-dimensional samples and reference points."""

    samples: Tensor
    """(N, D) float."""
    reference: Tensor
    """(M, D) float, held-out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEvidence:
    """Texts said of held-out pictures after several numbers of shots; row i of everything is picture i."""

    shots: tuple[int, ...]
    """How many pictures with their texts stood before, the most first; K numbers."""
    right: Tensor
    """(K, N) bool: the text is the true one, word for word."""
    question: Tensor
    """(N,) bool: the text answers a question; the others are captions."""
    named: Tensor
    """(N, F) int64: values of the factors that the true text names, -1 where it names none."""
    read: Tensor
    """(K, N, F) int64: the same of the texts said."""
    factors: tuple[str, ...]
    """Names of the F factors."""
    nats: Tensor | None = None
    """(K, N) float64, log-likelihoods of the true texts; None for texts that no model said."""
    num_tokens: Tensor | None = None
    """(N,) int64, what counts of each true text: words after the question, and its end."""
    protocol: dict[str, Scalar] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything gathered for one cell; None where no metric needed it."""

    features: FeatureEvidence | None = None
    spatial: FeatureEvidence | None = None
    logits: LogitEvidence | None = None
    likelihood: LikelihoodEvidence | None = None
    factors: FactorEvidence | None = None
    pairs: PairEvidence | None = None
    class_pairs: PairEvidence | None = None
    """As `pairs`, of members of one class each; None where classes are not known."""
    reconstructions: ReconstructionEvidence | None = None
    reconstruction_features: ReconstructionFeatureEvidence | None = None
    captions: CaptionEvidence | None = None
    labels: LabelEvidence | None = None
    latents: LatentEvidence | None = None
    codes: CodeEvidence | None = None
    vectors: VectorEvidence | None = None
    texts: TextEvidence | None = None


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

    @property
    def caption_prefix(self) -> str:
        """Words that stand before every caption when it is embedded for this metric."""
        return ""

    @property
    def asks_seen(self) -> bool:
        """Whether captions are those of combinations that training shows, where the data hold back others."""
        return False

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
    preset = {} if ref.preset is None else {"preset": ref.preset}
    return cast("Metric", with_settings(base, {**preset, **ref.config}, owner=ref.name))


def scores_or_reason(metric: Metric, evidence: Evidence) -> tuple[Score, ...] | str:
    """Scores of a metric, or why the evidence cannot support it.

    Only the error that `Metric.compute` documents is a reason. A kind of `ValueError` of its own, such as that of a
    score which is NaN or of a matrix without a decomposition, is a fault in the metric and passes.
    """
    try:
        return metric.compute(evidence)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        return str(error)


def feature_pair(
    evidence: FeatureEvidence | None, *, owner: str, samples: int = 2, reference: int = 2
) -> tuple[Tensor, Tensor]:
    """Features of samples (N, F) and of the reference (M, F), finite and as many as a metric needs.

    Args:
        evidence: of a cell.
        owner: what needs them, for the message: "a kernel distance".
        samples: least N.
        reference: least M.

    Raises:
        ValueError: there are fewer, or some are not finite.
    """
    drawn = None if evidence is None else evidence.samples
    real = None if evidence is None else evidence.reference
    counts = (0 if drawn is None else len(drawn), 0 if real is None else len(real))
    if drawn is None or real is None or counts[0] < samples or counts[1] < reference:
        raise ValueError(
            f"{owner} needs features of at least {samples} samples and {reference} reference examples, "
            f"found {counts[0]} and {counts[1]}"
        )
    if not (drawn.isfinite().all() and real.isfinite().all()):
        raise ValueError(f"{owner} needs finite features, found NaN or infinity")
    return drawn, real
