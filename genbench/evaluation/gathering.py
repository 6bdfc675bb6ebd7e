"""Evidence for scoring samples that were made elsewhere: each thing gathered once, when the first metric needs it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from genbench.core.errors import SampleError
from genbench.core.features import extract
from genbench.core.metric import (
    CaptionEvidence,
    Evidence,
    FactorEvidence,
    LabelEvidence,
    Need,
    ReconstructionEvidence,
    ReconstructionFeatureEvidence,
    VectorEvidence,
)
from genbench.core.statistics import NOT_RECORDED
from genbench.evaluation.extraction import merged_predictions, read_factors
from genbench.evaluation.inspect_samples import Inspection
from genbench.evaluation.layers import Layers
from genbench.evaluation.nearest import NearestSamples, nearest_samples
from genbench.evaluation.networks import Networks
from genbench.evaluation.options import Options
from genbench.evaluation.perceptual import reconstruction_evidence
from genbench.evaluation.picture_evidence import (
    asked_factors,
    caption_evidence,
    class_pair_evidence,
    pair_evidence,
)
from genbench.evaluation.prompt_scores import PromptScores, prompt_scores
from genbench.evaluation.reasons import why_not
from genbench.evaluation.sides import Side
from genbench.evaluation.sources import Sources


class Gathering:
    """Everything that the metrics may ask for.

    Args:
        samples: what is scored; of one with pictures and moments the pictures are.
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
        self._doubly_known = samples.dataset is not None and samples.statistics is not None
        if self._doubly_known:  # moments of other pictures than those that everything else is said of
            samples = dataclasses.replace(samples, statistics=None, spatial=None)
        self._sources = Sources(
            samples=samples,
            reference=reference,
            held_out=held_out,
            originals=originals,
            networks=networks,
            options=options,
        )
        self.inspection = Inspection()
        self._layers = Layers(self._sources, frozenset(), self.inspection)
        self._spoken: CaptionEvidence | None = None

    @property
    def samples(self) -> Side:
        """What is scored."""
        return self._sources.samples

    def why_not(self, need: Need) -> str | None:
        """Why this kind of evidence cannot be had, None when it can; errors as `reasons.why_not`."""
        return why_not(need, self._sources)

    def evidence(self, needs: frozenset[Need]) -> Evidence:
        """Evidence of the given kinds, each of which `why_not` has found to be there."""
        pictures, networks = self.samples.pictures, self._sources.networks
        self._layers = Layers(self._sources, needs, self.inspection)
        return Evidence(
            features=self._layers.features() if needs & {Need.MOMENTS, Need.FEATURES, Need.HELD_OUT} else None,
            spatial=self._layers.spatial() if Need.SPATIAL in needs else None,
            logits=self._layers.logits() if Need.LOGITS in needs else None,
            factors=self._factors(prompted=Need.PROMPTS in needs) if Need.FACTORS in needs else None,
            pairs=pair_evidence(pictures(), networks) if Need.PAIRS in needs else None,
            class_pairs=class_pair_evidence(pictures(), networks) if Need.PAIRS in needs else None,
            reconstructions=self._reconstructions() if Need.RECONSTRUCTIONS in needs else None,
            reconstruction_features=(
                self._reconstruction_features() if Need.RECONSTRUCTION_FEATURES in needs else None
            ),
            captions=self.captions() if Need.CAPTIONS in needs else None,
            labels=self._labels() if Need.LABELS in needs else None,
            vectors=self._vectors() if Need.VECTORS in needs else None,
        )

    def nearest(self, num_samples: int) -> NearestSamples:
        """The samples nearest to a reference example; `evidence` must have been asked for features.

        Args:
            num_samples: at most as many are listed.
        """
        return nearest_samples(self._sources, self._layers, num_samples=num_samples)

    def warnings(self) -> tuple[str, ...]:
        """What is odd about samples and reference though it breaks no rule, one phrase each."""
        samples, found = self.samples, []
        if samples.dataset is not None:
            self.inspection.add_names(samples.pictures().names())
            if left_out := samples.dataset.skipped():
                found.append(f"{len(left_out)} unreadable samples were left out: {'; '.join(left_out)}")
        found += [f"{what} is the reference itself" for what in self._repeated()]
        found += self._unnamed()
        if self._doubly_known:
            found.append(f"the moments in {samples.label} are not used: its pictures are the samples")
        if self._sources.why_no_moments is not None:
            found.append(self._sources.why_no_moments)
        return (*found, *self.inspection.warnings())

    def _unnamed(self) -> list[str]:
        """Sides that are moments alone, of a file that does not say what made them."""
        taken = f"does not say what made its moments: taken as those of `{self._sources.extractor_name}`"
        alone = [side for side in (self.samples, self._sources.reference) if side.dataset is None]
        known = [(side.label, side.statistics.protocol) for side in alone if side.statistics is not None]
        return [f"{label} {taken}" for label, protocol in known if protocol.get("identity") == NOT_RECORDED]

    def _repeated(self) -> list[str]:
        """Sides that are the same pictures or features as the reference: such scores say nothing of a model."""
        sides = {"the set of samples": self.samples, "held-out data": self._sources.held_out}
        return [what for what, side in sides.items() if side is not None and side.same_as(self._sources.reference)]

    def _factors(self, *, prompted: bool) -> FactorEvidence:
        dataset, captions, extractor = self._sources.reference.dataset, self._sources.captions, self._sources.extractor
        assert dataset is not None
        combinations = dataset.combinations("train")
        assert combinations is not None  # `why_not` has refused data without factors
        read = [read_factors(extractor, chunk) for chunk in self.samples.pictures().chunks()]
        return FactorEvidence(
            samples=merged_predictions(read),
            training=torch.from_numpy(combinations),
            asked=asked_factors(dataset, captions.words) if prompted else None,
            protocol=extractor.protocol(),
        )

    def _reconstructions(self) -> ReconstructionEvidence:
        return reconstruction_evidence(self._sources.networks, *self._originals_and_made())

    def _reconstruction_features(self) -> ReconstructionFeatureEvidence:
        extractor, (real, made) = self._sources.extractor, self._originals_and_made()
        return ReconstructionFeatureEvidence(
            originals=extract(extractor, real),
            reconstructions=extract(extractor, made),
            extractor=self._sources.extractor_name,
            protocol=extractor.protocol(),
        )

    def _originals_and_made(self) -> tuple[Tensor, Tensor]:
        """Both in file order, row i of one beside row i of the other."""
        assert self._sources.originals is not None
        made = self.samples.pictures().images_in_file_order()
        real = self._sources.originals.pictures().images_in_file_order()
        if made.shape != real.shape:
            raise SampleError(
                f"{len(made)} reconstructions of shape {tuple(made.shape[1:])} stand beside {len(real)} originals of "
                f"shape {tuple(real.shape[1:])}; row i of one belongs to row i of the other"
            )
        return real, made

    def captions(self) -> CaptionEvidence:
        """Embeddings of samples and captions, which `why_not` has found to be there; made once."""
        captions, options = self._sources.captions, self._sources.options
        if self._spoken is None:
            self._spoken = caption_evidence(
                self.samples.pictures(), captions.words, captions.references, self._sources.networks, options=options
            )
        return self._spoken

    def prompt_scores(self) -> PromptScores:
        """How well each sample shows its own words; `why_not` has found captions to be there."""
        return prompt_scores(self.samples.pictures(), self._sources.captions.words, self.captions())

    def _labels(self) -> LabelEvidence:
        sources, pictures = self._sources, self.samples.pictures()
        asked = pictures.labels()
        assert asked is not None
        read = merged_predictions([read_factors(sources.extractor, chunk) for chunk in pictures.chunks()])
        classes = torch.nn.functional.one_hot(read.values[:, 0], len(read.factors[0].values)).float()
        return LabelEvidence(
            asked=asked, logits=classes, extractor=sources.extractor_name, protocol=sources.extractor.protocol()
        )

    def _vectors(self) -> VectorEvidence:
        samples: Tensor | None = self.samples.features
        reference = self._sources.reference.features
        assert samples is not None
        assert reference is not None
        return VectorEvidence(samples=samples, reference=reference)
