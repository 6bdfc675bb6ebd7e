"""Which metrics apply to a cell, and why the others do not: known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from genbench.core.dataset import Dataset
from genbench.core.features import FactorReader
from genbench.core.metric import Metric, Need
from genbench.core.model import (
    ContinuousLatents,
    DiscreteLatents,
    EnergyBased,
    GenerativeModel,
    Likelihood,
)
from genbench.harness.networks import Networks

_Reason = Callable[[GenerativeModel | None, Dataset, Networks], str | None]


def why_not(metric: Metric, model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    """Why a metric does not apply, None when it does.

    Args:
        metric: the metric.
        model: the model of the cell, None for a control.
        dataset: the data.
        networks: of the suite.
    """
    reasons = (_REASONS[need](model, dataset, networks) for need in sorted(metric.needs))
    return next((reason for reason in reasons if reason is not None), None)


def _features(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    kind = dataset.spec.kind
    return None if kind == "image" else f"features are of images, the data are of kind `{kind}`"


def _held_out(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return None if "test" in dataset.splits else "the data have no held-out split"


def _layer(layer: str) -> _Reason:
    def reason(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
        kept = layer in networks.get("features").layers
        return _features(model, dataset, networks) if kept else f"the extractor has no layer `{layer}`"

    return reason


def _likelihood(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    if model is None:
        return "a control has no likelihood"
    if isinstance(model, Likelihood):
        return None
    if isinstance(model, EnergyBased):
        return "the density is known only up to a constant"
    return "the model defines no likelihood"


def _factors(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    extractor: object = networks.get("features")
    if not isinstance(extractor, FactorReader):
        return "the extractor reads no factors"
    same = extractor.factors == dataset.spec.factors
    return None if same else "the data have none of the factors that the extractor reads"


def _pairs(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return _features(model, dataset, networks) or networks.why_no_distance(min(dataset.spec.shape[-2:]))


def _reconstructions(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    found = isinstance(model, ContinuousLatents | DiscreteLatents)
    return _features(model, dataset, networks) if found else "nothing is encoded and decoded"


def _latents(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    coder: object = model
    if not isinstance(coder, ContinuousLatents):
        return "there are no continuous codes"
    return None if dataset.spec.factors else "the data have no known factors"


def _codes(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return None if isinstance(model, DiscreteLatents) else "there is no codebook"


def _vectors(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return None if dataset.spec.kind == "vector" else f"the data are of kind `{dataset.spec.kind}`, not vectors"


def _conditional(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return "nothing was asked of the samples"


_REASONS: dict[Need, _Reason] = {
    Need.MOMENTS: _features,
    Need.FEATURES: _features,
    Need.HELD_OUT: _held_out,
    Need.SPATIAL: _layer("spatial"),
    Need.LOGITS: _layer("logits"),
    Need.LIKELIHOOD: _likelihood,
    Need.FACTORS: _factors,
    Need.PAIRS: _pairs,
    Need.RECONSTRUCTIONS: _reconstructions,
    Need.CAPTIONS: _conditional,
    Need.LABELS: _conditional,
    Need.LATENTS: _latents,
    Need.CODES: _codes,
    Need.VECTORS: _vectors,
}
