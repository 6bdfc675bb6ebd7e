"""Why evidence of each kind cannot be had from what an evaluation was given."""

from __future__ import annotations

from collections.abc import Callable

from genbench.core.features import FactorReader
from genbench.core.metric import Need
from genbench.evaluation.sides import Side
from genbench.evaluation.sources import Sources


def why_not(need: Need, sources: Sources) -> str | None:
    """Why this kind of evidence cannot be had, None when it can.

    Raises:
        GenbenchError: it cannot because of a mistake in what somebody asked for.
    """
    return _REASONS[need](sources)


def _network(sources: Sources) -> str | None:
    """Why features of pictures cannot be had; None also where no picture has to be looked at."""
    return sources.networks.why_not("features") if sources.needs_network else None


def _features(sources: Sources) -> str | None:
    """Features need more than a statistics file on either side."""
    for role, side in (("samples", sources.samples), ("reference", sources.reference)):
        if side.features is None and side.dataset is None:
            return f"only moments of the {role} are known; give pictures or features"
    return _network(sources)


def _held_out(sources: Sources) -> str | None:
    """Held-out data are given, or the reference has a split of them."""
    side = sources.unseen
    if side is None:
        return "no held-out data: give `--held-out`, or a reference with a split `test`"
    if side.features is None and side.dataset is None:
        return "only moments of the held-out data are known; give pictures or features"
    return _features(sources)


def _spatial(sources: Sources) -> str | None:
    """Spatial features come from pictures; those of the reference may also be known by their moments."""
    if sources.samples.dataset is None:
        return "the samples are no pictures"
    if sources.reference.dataset is None and sources.reference.spatial is None:
        return "the reference are no pictures"
    return _layer("spatial", sources)


def _logits(sources: Sources) -> str | None:
    return "the samples are no pictures" if sources.samples.dataset is None else _layer("logits", sources)


def _layer(layer: str, sources: Sources) -> str | None:
    """Some extractors have several layers."""
    missing = _network(sources)
    if missing is None and layer not in sources.extractor.layers:
        return f"extractor `{sources.extractor_name}` has no layer `{layer}`"
    return missing


def _factors(sources: Sources) -> str | None:
    """A reader of factors must know those of the reference."""
    if sources.samples.dataset is None or sources.reference.dataset is None:
        return "factors are read off pictures"
    missing = _network(sources)
    if missing is not None:
        return missing
    extractor: object = sources.extractor
    if not isinstance(extractor, FactorReader):
        return "the extractor reads no factors"
    known = sources.reference.dataset.spec.factors
    return None if extractor.factors == known else "the reference has none of the factors that it reads"


def _pairs(sources: Sources) -> str | None:
    """Perceptual distances need pictures and a network."""
    if sources.samples.dataset is None:
        return "the samples are no pictures"
    return sources.networks.why_no_distance(min(sources.samples.dataset.spec.shape[-2:]))


def _reconstructions(sources: Sources) -> str | None:
    """Reconstructions need their originals."""
    if sources.originals is None:
        return "the samples reconstruct nothing: give `--originals`"
    return "the samples are no pictures" if sources.samples.dataset is None else None


def _reconstruction_features(sources: Sources) -> str | None:
    """As `_reconstructions`, and a network looks at both."""
    missing = _reconstructions(sources)
    return sources.networks.why_not("features") if missing is None else missing


def _prompts(sources: Sources) -> str | None:
    """Captions are there; whether they name factors of the reference is for the metric to say."""
    return _factors(sources) or sources.captions.why_not


def _captions(sources: Sources) -> str | None:
    """Captions are there, and a dual encoder is at hand."""
    missing = sources.captions.why_not
    return sources.networks.why_no_text_encoder() if missing is None else missing


def _labels(sources: Sources) -> str | None:
    """Samples carry the class that they were asked to show."""
    missing = _factors(sources)
    if missing is not None:
        return missing
    return None if sources.samples.pictures().labels() is not None else "the samples have no class labels"


def _vectors(sources: Sources) -> str | None:
    """Vectors are features that were given as they are."""
    for role, side in (("samples", sources.samples), ("reference", sources.reference)):
        if side.features is None:
            return f"the {role} are {_form(side)}; vectors come with `--features given`"
    return None


def _latents(sources: Sources) -> str:
    """Codes come with the factors behind their data, and nobody gives both."""
    return f"the samples are {_form(sources.samples)}, not codes of data with known factors"


def _codes(sources: Sources) -> str:
    """Indices into a codebook are what only a model has."""
    return f"the samples are {_form(sources.samples)}, not codes"


def _form(side: Side) -> str:
    """What a side is, in a word."""
    if side.features is not None:
        return "features"
    return "moments" if side.dataset is None else "pictures"


_REASONS: dict[Need, Callable[[Sources], str | None]] = {
    Need.MOMENTS: _network,
    Need.FEATURES: _features,
    Need.HELD_OUT: _held_out,
    Need.SPATIAL: _spatial,
    Need.LOGITS: _logits,
    Need.LIKELIHOOD: lambda sources: "samples alone have no likelihood",
    Need.TRUE_DENSITY: lambda sources: "samples alone have no likelihood",
    Need.FACTORS: _factors,
    Need.PAIRS: _pairs,
    Need.RECONSTRUCTIONS: _reconstructions,
    Need.RECONSTRUCTION_FEATURES: _reconstruction_features,
    Need.PROMPTS: _prompts,
    Need.CAPTIONS: _captions,
    Need.LABELS: _labels,
    Need.LATENTS: _latents,
    Need.CODES: _codes,
    Need.VECTORS: _vectors,
    Need.TEXTS: lambda sources: "texts come from a model in a suite, not from files",
    Need.TEXT_LIKELIHOOD: lambda sources: "samples alone have no likelihood",
}
