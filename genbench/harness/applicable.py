"""Which metrics apply to a cell, and why the others do not: known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable

from genbench.core.dataset import Dataset
from genbench.core.density import KnownDensity
from genbench.core.features import FactorReader, TextEncoder
from genbench.core.metric import Metric, Need
from genbench.core.model import (
    CaptionModel,
    ContinuousLatents,
    DiscreteLatents,
    EnergyBased,
    GenerativeModel,
    Likelihood,
    condition_kind,
)
from genbench.core.texts import NamesFactors
from genbench.evaluation.networks import Networks
from genbench.harness.caption_controls import WITH_CAPTIONS

_Reason = Callable[[GenerativeModel | None, Dataset, Networks], str | None]


def why_not(
    metric: Metric, model: GenerativeModel | None, dataset: Dataset, networks: Networks, *, control: str = ""
) -> str | None:
    """Why a metric does not apply, None when it does.

    Args:
        metric: the metric.
        model: the model of the cell, None for a control.
        dataset: the data.
        networks: of the suite.
        control: name of the control; some have captions (`caption_controls`).
    """
    of_needs = {**_REASONS, **_OF_CAPTIONED} if control in WITH_CAPTIONS else _REASONS
    reasons = (of_needs[need](model, dataset, networks) for need in sorted(metric.needs))
    return next((reason for reason in reasons if reason is not None), None)


def _features(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    kind, wanted = dataset.spec.kind, networks.get("features").kind
    return None if kind == wanted else f"features are of {wanted}s, the data are of kind `{kind}`"


def _pictures(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    kind = dataset.spec.kind
    return None if kind == "image" else f"perceptual distances are of images, the data are of kind `{kind}`"


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


def _true_density(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    law: object = dataset
    return law.why_no_density() if isinstance(law, KnownDensity) else "the density of the data is not known"


def _factors(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    extractor: object = networks.get("features")
    if not isinstance(extractor, FactorReader):
        return "the extractor reads no factors"
    same = extractor.factors == dataset.spec.factors
    return None if same else "the data have none of the factors that the extractor reads"


def _pairs(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return _pictures(model, dataset, networks) or networks.why_no_distance(min(dataset.spec.shape[-2:]))


def _reconstructions(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    found = isinstance(model, ContinuousLatents | DiscreteLatents)
    return _features(model, dataset, networks) if found else "nothing is encoded and decoded"


def _rebuilt_pictures(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return _reconstructions(model, dataset, networks) or _pictures(model, dataset, networks)


def _latents(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    coder: object = model
    if not isinstance(coder, ContinuousLatents):
        return "there are no continuous codes"
    return None if dataset.spec.factors else "the data have no known factors"


def _codes(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    coder: object = model
    if isinstance(coder, DiscreteLatents):
        return None
    if isinstance(coder, ContinuousLatents):
        return "the codes are real numbers: there is no codebook, and only the likelihood says how many bits they cost"
    return "there is no codebook"


def _vectors(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return None if dataset.spec.kind == "vector" else f"the data are of kind `{dataset.spec.kind}`, not vectors"


def _labels(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    if condition_kind(model) != "class":
        return _nobody_asked(model, "which class to draw")
    spec = dataset.spec
    if not spec.num_classes:
        return "the data have no classes"
    missing = _factors(model, dataset, networks)
    if missing is not None:
        return f"no classifier of the data is at hand: {missing}"
    same = len(spec.factors[0].values) == spec.num_classes
    return None if same else "the classes are not the values of the first factor, which the extractor reads"


def _prompts(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    if condition_kind(model) != "text":
        return _nobody_asked(model, "in words what to draw")
    return _spoken(model, dataset, networks)


def _spoken(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    captioned = dataset.spec.kind == "image" and bool(dataset.spec.vocabulary)
    return None if captioned else "the data have no captions"


def _captions(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return _prompts(model, dataset, networks) or _embedded(model, dataset, networks)


def _embedded(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    missing = _spoken(model, dataset, networks) or networks.why_not("captions")
    if missing is not None:
        return missing
    encoder: object = networks.get("captions")
    return None if isinstance(encoder, TextEncoder) else f"`{networks.ref('captions').label}` embeds no captions"


def _texts(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    if dataset.spec.kind != "text":
        return f"the data are of kind `{dataset.spec.kind}`, not texts"
    if not isinstance(dataset, NamesFactors):
        return "the data cannot say what a text names"
    return None if model is None or isinstance(model, CaptionModel) else "the model says nothing of pictures"


def _text_likelihood(model: GenerativeModel | None, dataset: Dataset, networks: Networks) -> str | None:
    return "a control has no likelihood" if model is None else _texts(model, dataset, networks)


def _nobody_asked(model: GenerativeModel | None, what: str) -> str:
    return "nothing was asked of the samples" if model is None else f"the model cannot be told {what}"


_REASONS: dict[Need, _Reason] = {
    Need.MOMENTS: _features,
    Need.FEATURES: _features,
    Need.HELD_OUT: _held_out,
    Need.SPATIAL: _layer("spatial"),
    Need.LOGITS: _layer("logits"),
    Need.LIKELIHOOD: _likelihood,
    Need.TRUE_DENSITY: _true_density,
    Need.FACTORS: _factors,
    Need.PAIRS: _pairs,
    Need.RECONSTRUCTIONS: _rebuilt_pictures,
    Need.RECONSTRUCTION_FEATURES: _reconstructions,
    Need.PROMPTS: _prompts,
    Need.CAPTIONS: _captions,
    Need.LABELS: _labels,
    Need.LATENTS: _latents,
    Need.CODES: _codes,
    Need.VECTORS: _vectors,
    Need.TEXTS: _texts,
    Need.TEXT_LIKELIHOOD: _text_likelihood,
}

_OF_CAPTIONED: dict[Need, _Reason] = {Need.PROMPTS: _spoken, Need.CAPTIONS: _embedded}
"""In place of the above, of controls that have captions."""
