"""Features of every side of an evaluation: each layer extracted once, and only what some metric needs."""

from __future__ import annotations

import functools

from torch import Tensor

from genbench.core.dataset import Dataset
from genbench.core.errors import SampleError
from genbench.core.features import Statistics
from genbench.core.metric import FeatureEvidence, LogitEvidence, Need
from genbench.core.statistics import check_comparable
from genbench.evaluation.extraction import extract_layers, thinned
from genbench.evaluation.inspect_samples import Inspection
from genbench.evaluation.pictures import Pictures, some_pictures
from genbench.evaluation.reference import NUM_EXAMPLES, reference_statistics
from genbench.evaluation.sides import Side
from genbench.evaluation.sources import Sources
from genbench.prob.moments import moments_of

_OF_FEATURES = frozenset({Need.MOMENTS, Need.FEATURES, Need.HELD_OUT})


class Layers:
    """Layers of samples, reference and held-out data.

    Args:
        sources: what was given.
        needs: of all metrics together.
        inspection: told of every picture among the samples.
    """

    def __init__(self, sources: Sources, needs: frozenset[Need], inspection: Inspection) -> None:
        self._sources, self._needs, self._inspection = sources, needs, inspection

    def features(self) -> FeatureEvidence:
        """Features of all sides, the reference thinned, with moments of more of it where they are at hand."""
        sources = self._sources
        for side in (sources.samples, sources.reference):
            if side.statistics is not None and (side.dataset is None or sources.moments is not None):
                check_comparable(side.statistics, sources.protocol)
        real = self.reference
        reference = None if real is None else thinned(real, sources.options.num_reference)
        return FeatureEvidence(
            samples=self.samples,
            reference=reference,
            statistics=self._statistics if Need.MOMENTS in self._needs else None,
            sample_statistics=sources.samples.statistics,
            held_out=self.held_out if Need.HELD_OUT in self._needs else None,
            extractor=sources.extractor_name,
            protocol=sources.protocol,
        )

    def spatial(self) -> FeatureEvidence:
        """The spatial layer of samples and reference."""
        protocol = {**self._sources.protocol, "layer": "spatial"}
        moments = self._sources.spatial_moments
        if moments is not None:
            check_comparable(moments, protocol)
        return FeatureEvidence(
            samples=self._drawn["spatial"],
            reference=self._real.get("spatial"),
            statistics=moments,
            extractor=self._sources.extractor_name,
            protocol=protocol,
        )

    def logits(self) -> LogitEvidence:
        """Class logits of the samples."""
        return LogitEvidence(
            samples=self._drawn["logits"],
            extractor=self._sources.extractor_name,
            protocol={**self._sources.protocol, "layer": "logits"},
        )

    @property
    def samples(self) -> Tensor | None:
        """Features (N, F) of the samples, None where only their moments are known."""
        return self._drawn.get("features")

    @property
    def reference(self) -> Tensor | None:
        """Features (M, F) of all reference examples that are looked at; None as for samples."""
        return self._real.get("features")

    @functools.cached_property
    def reference_pictures(self) -> Pictures | None:
        """The pictures behind `reference`, in the order of its rows; None where there are none."""
        side, options = self._sources.reference, self._sources.options
        if side.dataset is None:
            return None
        if _endless(side):
            return some_pictures(side.dataset, side.splits, options.num_reference)
        chosen = some_pictures(side.dataset, side.splits, max(NUM_EXAMPLES, options.num_reference))
        if len(chosen) == 0:
            raise SampleError(f"the reference `{side.label}` holds no pictures")
        return chosen

    @functools.cached_property
    def held_out(self) -> Tensor:
        """Features of held-out data, which there must be."""
        side, count = self._sources.unseen, self._sources.options.num_reference
        assert side is not None
        if side.features is not None:
            return thinned(side.features, count)
        assert side.dataset is not None
        pictures = some_pictures(side.dataset, side.splits, count)
        return self._extracted(pictures, ("features",), "held-out data")["features"]

    @functools.cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """Every wanted layer of the samples, from one pass."""
        side = self._sources.samples
        if side.features is not None:
            return {"features": side.features}
        if side.dataset is None:
            return {}
        wanted = {"features": _OF_FEATURES, "spatial": {Need.SPATIAL}, "logits": {Need.LOGITS}}
        layers = tuple(layer for layer, needs in wanted.items() if self._needs & needs)
        return self._extracted(side.pictures(), layers, "samples", inspection=self._inspection)

    @functools.cached_property
    def _real(self) -> dict[str, Tensor]:
        """Layers of reference examples, those left out of which moments are known and enough."""
        side = self._sources.reference
        if side.features is not None:
            return {"features": side.features}
        if self.reference_pictures is None:
            return {}
        more = _endless(side) and self._sources.options.num_reference < NUM_EXAMPLES
        enough = {Need.MOMENTS} if more or self._sources.moments is not None else set()
        layers = {
            "features": bool((self._needs & _OF_FEATURES) - enough),
            "spatial": Need.SPATIAL in self._needs and self._sources.spatial_moments is None,
        }
        wanted = tuple(layer for layer, kept in layers.items() if kept)
        return self._extracted(self.reference_pictures, wanted, "reference") if wanted else {}

    @functools.cached_property
    def _statistics(self) -> Statistics | None:
        """Moments of the reference: from its file, else of more examples than are compared, where there are more."""
        side, ref, real = self._sources.reference, self._sources.networks.ref("features"), self.reference
        if side.dataset is not None and _endless(side):
            assert side.ref is not None
            return reference_statistics(
                side.ref, side.dataset, self._sources.extractor, extractor_ref=ref, split=side.splits[0]
            )
        if self._sources.moments is None and real is not None and len(real) > self._sources.options.num_reference:
            return self._moments(real)
        return self._sources.moments

    def _moments(self, features: Tensor) -> Statistics:
        """Moments of the whole of the reference that is looked at."""
        moments, side = moments_of(features), self._sources.reference
        return Statistics(
            mean=moments.mean,
            covariance=moments.covariance(),
            num_samples=moments.count,
            protocol=self._sources.protocol,
            dataset=side.label,
            split=",".join(side.splits),
            dataset_fingerprint="",
        )

    def _extracted(
        self, pictures: Pictures, layers: tuple[str, ...], what: str, *, inspection: Inspection | None = None
    ) -> dict[str, Tensor]:
        options = self._sources.options
        return extract_layers(
            pictures,
            self._sources.extractor,
            layers,
            caching=options.caching,
            inspection=inspection,
            what=what,
            tell=options.tell,
        )


def _endless(side: Side) -> bool:
    dataset: Dataset | None = side.dataset
    return dataset is not None and any(dataset.size(split) is None for split in side.splits)
