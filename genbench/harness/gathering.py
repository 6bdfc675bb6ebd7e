"""Evidence for scoring samples that were made elsewhere: each thing gathered once, when the first metric needs it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import PurePath

import torch
from torch import Tensor

from genbench.core.dataset import Dataset, Split
from genbench.core.errors import SampleError
from genbench.core.features import FactorReader, FeatureExtractor, Statistics
from genbench.core.metric import (
    CaptionEvidence,
    Evidence,
    FactorEvidence,
    FeatureEvidence,
    LabelEvidence,
    LogitEvidence,
    Need,
    ReconstructionEvidence,
    VectorEvidence,
)
from genbench.core.spec import Scalar
from genbench.core.statistics import check_comparable
from genbench.harness.evidence import reconstruction_evidence
from genbench.harness.extraction import extract_layers, merged_predictions, read_factors, thinned
from genbench.harness.inspect_samples import Inspection
from genbench.harness.networks import Networks
from genbench.harness.options import Options
from genbench.harness.picture_evidence import (
    asked_factors,
    caption_evidence,
    class_pair_evidence,
    pair_evidence,
)
from genbench.harness.pictures import Pictures, some_pictures
from genbench.harness.reference import NUM_EXAMPLES, reference_statistics
from genbench.harness.sides import FEATURES_GIVEN, Side
from genbench.prob.moments import moments_of


class Gathering:
    """Everything that the metrics may ask for.

    Args:
        samples: what is scored.
        reference: real training data.
        held_out: real data that no model has been trained on, or None.
        originals: the pictures that the samples reconstruct, in the same order, or None.
        networks: extractors by role.
        options: see there.
    """

    def __init__(
        self,
        samples: Side,
        reference: Side,
        *,
        held_out: Side | None,
        originals: Side | None,
        networks: Networks,
        options: Options,
    ) -> None:
        self.samples, self.reference = samples, reference
        self._held_out, self._originals = held_out, originals
        self._networks, self._options = networks, options
        self._layers: tuple[str, ...] = ("features",)
        self.inspection = Inspection()

    def why_not(self, need: Need) -> str | None:
        """Why this kind of evidence cannot be had, None when it can."""
        return _REASONS[need](self)

    def evidence(self, needs: frozenset[Need]) -> Evidence:
        """Evidence of the given kinds, each of which `why_not` has found to be there."""
        self._layers = tuple(
            layer
            for layer, wanting in (
                ("features", {Need.MOMENTS, Need.FEATURES, Need.HELD_OUT}),
                ("spatial", {Need.SPATIAL}),
                ("logits", {Need.LOGITS}),
            )
            if needs & wanting
        )
        return Evidence(
            features=self._features(needs) if "features" in self._layers else None,
            spatial=self._spatial() if Need.SPATIAL in needs else None,
            logits=self._logits() if Need.LOGITS in needs else None,
            factors=self._factors() if Need.FACTORS in needs else None,
            pairs=pair_evidence(self.samples.pictures(), self._networks) if Need.PAIRS in needs else None,
            class_pairs=class_pair_evidence(self.samples.pictures(), self._networks) if Need.PAIRS in needs else None,
            reconstructions=self._reconstructions() if Need.RECONSTRUCTIONS in needs else None,
            captions=self._captions() if Need.CAPTIONS in needs else None,
            labels=self._labels() if Need.LABELS in needs else None,
            vectors=self._vectors() if Need.VECTORS in needs else None,
        )

    @property
    def extractor_name(self) -> str:
        """Who made the features: the network's name, or what a statistics file says."""
        for side in (self.samples, self.reference):
            if side.statistics is not None and "extractor" in side.statistics.protocol and not self._needs_network:
                return str(side.statistics.protocol["extractor"])
        return FEATURES_GIVEN if not self._needs_network else self._networks.ref("features").name

    @property
    def protocol(self) -> dict[str, Scalar]:
        """What the features of both sides share."""
        if self._needs_network:
            return self._extractor().protocol()
        known = [side.statistics.protocol for side in (self.samples, self.reference) if side.statistics is not None]
        return dict(known[0]) if known else {"extractor": FEATURES_GIVEN}

    @property
    def _needs_network(self) -> bool:
        return any(side.dataset is not None for side in (self.samples, self.reference))

    def _extractor(self) -> FeatureExtractor:
        return self._networks.get("features")

    @functools.cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """Every wanted layer of the samples, from one pass."""
        if self.samples.features is not None:
            return {"features": self.samples.features}
        if self.samples.dataset is None:
            return {}
        return self._extracted(self.samples.pictures(), self._layers, "samples", inspection=self.inspection)

    @functools.cached_property
    def _real(self) -> tuple[dict[str, Tensor], Statistics | None]:
        """Layers of the reference examples, and moments over more examples where they are at hand."""
        side, layers = self.reference, tuple(layer for layer in self._layers if layer != "logits")
        if side.features is not None:
            return {"features": side.features}, None
        if side.dataset is None:
            return {}, side.statistics
        if any(side.dataset.size(split) is None for split in side.splits):
            return self._endless(side.dataset, side.splits, layers)
        everything = side.pictures()
        counted = some_pictures(side.dataset, side.splits, max(NUM_EXAMPLES, self._options.num_reference))
        if len(everything) == 0:
            raise SampleError(f"the reference `{side.label}` holds no pictures")
        return self._extracted(counted, layers, "reference"), side.statistics

    def _endless(
        self, dataset: Dataset, splits: tuple[Split, ...], layers: tuple[str, ...]
    ) -> tuple[dict[str, Tensor], Statistics | None]:
        assert self.reference.ref is not None
        chosen = some_pictures(dataset, splits, self._options.num_reference)
        statistics = reference_statistics(
            self.reference.ref,
            dataset,
            self._extractor(),
            extractor_ref=self._networks.ref("features"),
            split=splits[0],
        )
        return self._extracted(chosen, layers, "reference"), statistics

    def _extracted(
        self, pictures: Pictures, layers: tuple[str, ...], what: str, *, inspection: Inspection | None = None
    ) -> dict[str, Tensor]:
        return extract_layers(
            pictures,
            self._extractor(),
            layers,
            caching=self._options.caching,
            inspection=inspection,
            what=what,
            tell=self._options.tell,
        )

    def _features(self, needs: frozenset[Need]) -> FeatureEvidence:
        layers, statistics = self._real
        real = layers.get("features")
        for side in (self.samples, self.reference):
            if side.statistics is not None:
                check_comparable(side.statistics, self.protocol)
        reference = None if real is None else thinned(real, self._options.num_reference)
        if statistics is None and reference is not None and real is not None and len(reference) < len(real):
            statistics = self._moments(real)
        return FeatureEvidence(
            samples=self._drawn.get("features"),
            reference=reference,
            statistics=statistics,
            sample_statistics=self.samples.statistics,
            held_out=self._held_out_features() if Need.HELD_OUT in needs else None,
            extractor=self.extractor_name,
            protocol=self.protocol,
        )

    def _moments(self, features: Tensor) -> Statistics:
        """Moments of the whole reference, where its examples are thinned."""
        moments = moments_of(features)
        return Statistics(
            mean=moments.mean,
            covariance=moments.covariance(),
            num_samples=moments.count,
            protocol=self.protocol,
            dataset=self.reference.label,
            split=",".join(self.reference.splits),
            dataset_fingerprint="",
        )

    def _held_out_features(self) -> Tensor:
        side = self._held_out_side()
        assert side is not None
        if side.features is not None:
            return thinned(side.features, self._options.num_reference)
        assert side.dataset is not None
        pictures = some_pictures(side.dataset, side.splits, self._options.num_reference)
        return self._extracted(pictures, ("features",), "held-out data")["features"]

    def _held_out_side(self) -> Side | None:
        """Held-out data as given, else the split `test` of a reference of which only `train` is used."""
        if self._held_out is not None:
            return self._held_out
        side = self.reference
        if side.dataset is None or side.splits != ("train",) or "test" not in side.dataset.splits:
            return None
        return dataclasses.replace(side, splits=("test",))

    def _spatial(self) -> FeatureEvidence:
        return FeatureEvidence(
            samples=self._drawn["spatial"],
            reference=self._real[0]["spatial"],
            statistics=None,
            extractor=self.extractor_name,
            protocol={**self.protocol, "layer": "spatial"},
        )

    def _logits(self) -> LogitEvidence:
        return LogitEvidence(
            samples=self._drawn["logits"],
            extractor=self.extractor_name,
            protocol={**self.protocol, "layer": "logits"},
        )

    def _factors(self) -> FactorEvidence:
        assert self.reference.dataset is not None
        combinations = self.reference.dataset.combinations("train")
        assert combinations is not None  # `why_not` has refused data without factors
        read = [read_factors(self._extractor(), chunk) for chunk in self.samples.pictures().chunks()]
        asked = None if self._options.captions is None else asked_factors(self.reference.dataset, self._caption_list)
        return FactorEvidence(
            samples=merged_predictions(read),
            training=torch.from_numpy(combinations),
            asked=asked,
            protocol=self._extractor().protocol(),
        )

    def _reconstructions(self) -> ReconstructionEvidence:
        assert self._originals is not None
        made, real = self.samples.pictures().images(), self._originals.pictures().images()
        if made.shape != real.shape:
            raise SampleError(
                f"{len(made)} reconstructions of shape {tuple(made.shape[1:])} stand beside {len(real)} originals of "
                f"shape {tuple(real.shape[1:])}; row i of one belongs to row i of the other"
            )
        return reconstruction_evidence(self._networks, real, made)

    def _captions(self) -> CaptionEvidence:
        return caption_evidence(
            self.samples.pictures(),
            self._caption_list,
            self._networks,
            prefix=self._options.caption_prefix,
            tell=self._options.tell,
        )

    @functools.cached_property
    def _caption_list(self) -> list[str]:
        """One caption for each sample, in order.

        Raises:
            SampleError: some sample has none.
        """
        given, pictures = self._options.captions, self.samples.pictures()
        assert given is not None
        if isinstance(given, Mapping):
            names = pictures.names()
            found = [given.get(name, given.get(PurePath(name).name, given.get(PurePath(name).stem))) for name in names]
            missing = [name for name, caption in zip(names, found, strict=True) if caption is None]
            if missing:
                raise SampleError(
                    f"{len(missing)} of {len(names)} samples have no caption, the first is `{missing[0]}`"
                )
            return [caption for caption in found if caption is not None]
        if len(given) != len(pictures):
            raise SampleError(f"{len(given)} captions stand beside {len(pictures)} samples; each needs its own")
        return [given[place] for place in pictures.file_order()]

    def _labels(self) -> LabelEvidence:
        network, pictures = self._extractor(), self.samples.pictures()
        asked = pictures.labels()
        assert asked is not None
        read = merged_predictions([read_factors(network, chunk) for chunk in pictures.chunks()])
        classes = torch.nn.functional.one_hot(read.values[:, 0], len(read.factors[0].values)).float()
        return LabelEvidence(asked=asked, logits=classes, extractor=self.extractor_name, protocol=network.protocol())

    def _vectors(self) -> VectorEvidence:
        assert self.samples.features is not None
        assert self.reference.features is not None
        return VectorEvidence(samples=self.samples.features, reference=self.reference.features)

    def why_no_network(self) -> str | None:
        """Why features of pictures cannot be had; None also where no picture has to be looked at."""
        return self._networks.why_not("features") if self._needs_network else None

    def why_no_moments(self) -> str | None:
        """Moments need a network for pictures, and nothing else."""
        return self.why_no_network()

    def why_no_features(self) -> str | None:
        """Features need more than a statistics file on either side."""
        for role, side in (("samples", self.samples), ("reference", self.reference)):
            if side.features is None and side.dataset is None:
                return f"only moments of the {role} are known; give pictures or features"
        return self.why_no_network()

    def why_no_held_out(self) -> str | None:
        """Held-out data are given, or the reference has a split of them."""
        if self._held_out_side() is None:
            return "no held-out data: give `--held-out`, or a reference with a split `test`"
        return self.why_no_features()

    def why_no_layer(self, layer: str) -> str | None:
        """Some extractors have several layers."""
        for role, side in (("samples", self.samples), ("reference", self.reference)):
            if side.dataset is None and (role == "samples" or layer == "spatial"):
                return f"the {role} are no pictures"
        missing = self.why_no_network()
        if missing is None and layer not in self._extractor().layers:
            return f"extractor `{self.extractor_name}` has no layer `{layer}`"
        return missing

    def why_no_factors(self) -> str | None:
        """A reader of factors must know those of the reference."""
        if self.samples.dataset is None or self.reference.dataset is None:
            return "factors are read off pictures"
        missing = self.why_no_network()
        if missing is not None:
            return missing
        extractor: object = self._extractor()
        if not isinstance(extractor, FactorReader):
            return "the extractor reads no factors"
        known = self.reference.dataset.spec.factors
        return None if extractor.factors == known else "the reference has none of the factors that it reads"

    def why_no_pairs(self) -> str | None:
        """Perceptual distances need pictures and a network."""
        if self.samples.dataset is None:
            return "the samples are no pictures"
        return self._networks.why_no_distance(min(self.samples.dataset.spec.shape[-2:]))

    def why_no_reconstructions(self) -> str | None:
        """Reconstructions need their originals."""
        if self._originals is None:
            return "the samples reconstruct nothing: give `--originals`"
        return "the samples are no pictures" if self.samples.dataset is None else None

    def why_no_captions(self) -> str | None:
        """Captions are given, and a dual encoder is at hand."""
        if self._options.captions is None:
            return "the samples have no captions: give `--captions`"
        return "the samples are no pictures" if self.samples.dataset is None else self._networks.why_not("captions")

    def why_no_labels(self) -> str | None:
        """Samples carry the class that they were asked to show."""
        missing = self.why_no_factors()
        if missing is not None:
            return missing
        return None if self.samples.pictures().labels() is not None else "the samples have no class labels"

    def why_no_vectors(self) -> str | None:
        """Vectors are features that were given as they are."""
        given = self.samples.features is not None and self.reference.features is not None
        return None if given else "the data are pictures; vectors come with `--features given`"


_REASONS: dict[Need, Callable[[Gathering], str | None]] = {
    Need.MOMENTS: Gathering.why_no_moments,
    Need.FEATURES: Gathering.why_no_features,
    Need.HELD_OUT: Gathering.why_no_held_out,
    Need.SPATIAL: lambda self: self.why_no_layer("spatial"),
    Need.LOGITS: lambda self: self.why_no_layer("logits"),
    Need.LIKELIHOOD: lambda self: "samples alone have no likelihood",
    Need.FACTORS: Gathering.why_no_factors,
    Need.PAIRS: Gathering.why_no_pairs,
    Need.RECONSTRUCTIONS: Gathering.why_no_reconstructions,
    Need.CAPTIONS: Gathering.why_no_captions,
    Need.LABELS: Gathering.why_no_labels,
    Need.LATENTS: lambda self: "the samples are pictures, not codes of data with known factors",
    Need.CODES: lambda self: "the samples are pictures, not codes",
    Need.VECTORS: Gathering.why_no_vectors,
}
