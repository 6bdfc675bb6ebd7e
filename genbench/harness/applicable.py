"""Which metrics apply to a cell, and why the others do not: known before anything is trained."""

from __future__ import annotations

from genbench.core.dataset import DataSpec
from genbench.core.features import FactorReader, FeatureExtractor
from genbench.core.metric import Metric, Need
from genbench.core.model import EnergyBased, GenerativeModel, Likelihood


def why_not(metric: Metric, model: GenerativeModel | None, spec: DataSpec, extractor: FeatureExtractor) -> str | None:
    """Why a metric does not apply, None when it does.

    Args:
        metric: the metric.
        model: the model of the cell, None for a control.
        spec: of the data.
        extractor: of the suite.
    """
    reasons = (_REASONS[need](model, spec, extractor) for need in sorted(metric.needs))
    return next((reason for reason in reasons if reason is not None), None)


def _features(model: GenerativeModel | None, spec: DataSpec, extractor: FeatureExtractor) -> str | None:
    return None if spec.kind == "image" else f"features are of images, the data are of kind `{spec.kind}`"


def _likelihood(model: GenerativeModel | None, spec: DataSpec, extractor: FeatureExtractor) -> str | None:
    if model is None:
        return "a control has no likelihood"
    if isinstance(model, Likelihood):
        return None
    if isinstance(model, EnergyBased):
        return "the density is known only up to a constant"
    return "the model defines no likelihood"


def _factors(model: GenerativeModel | None, spec: DataSpec, extractor: FeatureExtractor) -> str | None:
    if not isinstance(extractor, FactorReader):
        return "the extractor reads no factors"
    return None if extractor.factors == spec.factors else "the data have none of the factors that the extractor reads"


_REASONS = {Need.FEATURES: _features, Need.LIKELIHOOD: _likelihood, Need.FACTORS: _factors}
