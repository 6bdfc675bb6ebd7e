"""Score samples that were made elsewhere: no model, no training, the same metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Dataset, Split, build_dataset
from genbench.core.errors import SampleError
from genbench.core.features import FactorReader, FeatureExtractor, build_features, extract
from genbench.core.metric import Evidence, FactorEvidence, FeatureEvidence, Metric, Need, build_metric
from genbench.core.record import Score
from genbench.core.spec import Ref
from genbench.harness.evidence import read_factors, subset
from genbench.harness.reference import reference_statistics
from genbench.prob.pixels import to_display, to_rgb

SCHEMA = "genbench.evaluate/1"
MAX_REFERENCE = 10_000
"""Reference examples behind the metrics that compare features one by one."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores, and the metrics that do not apply with their reasons."""

    scores: tuple[Score, ...]
    skipped: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON that `genbench evaluate --json` writes."""
        kept = {
            "value",
            "ci95",
            "kind",
            "better",
            "num_samples",
            "num_reference",
            "protocol",
            "unit",
            "stderr",
            "interval",
        }
        scores = {score.name: score.model_dump(mode="json", include=kept) for score in self.scores}
        return {"schema": SCHEMA, "scores": scores, "skipped": self.skipped}


def evaluate(
    samples: Ref, reference: Ref, *, metrics: Sequence[Ref], features: Ref, split: Split = "train"
) -> Evaluation:
    """Score samples against a reference with every metric that applies.

    Args:
        samples: images as a dataset: `folder:PATH`, `npz:PATH`, or any registered name.
        reference: the real data, in the same way.
        metrics: which metrics.
        features: the extractor.
        split: of the reference.

    Raises:
        SampleError: samples and reference do not fit each other.
        DataError: one of them cannot be read.
    """
    chosen = {ref.label: build_metric(ref) for ref in metrics}
    drawn, real = _images(build_dataset(samples)), build_dataset(reference)
    if tuple(drawn.shape[1:]) != real.spec.shape:
        raise SampleError(
            f"samples have shape {tuple(drawn.shape[1:])}, the reference {real.spec.shape}",
            hint=f"give both one size, for example `{samples.name}:...[resolution={real.spec.shape[-1]}]`",
        )
    extractor = build_features(features)
    skipped = {name: why for name, metric in chosen.items() if (why := _why_not(metric, real, extractor)) is not None}
    applied = {name: metric for name, metric in chosen.items() if name not in skipped}
    needs: frozenset[Need] = frozenset().union(*(metric.needs for metric in applied.values()))
    evidence = Evidence(
        features=_features(drawn, reference, real, extractor, features, split) if Need.FEATURES in needs else None,
        factors=_factors(drawn, real, extractor) if Need.FACTORS in needs else None,
    )
    scores: list[Score] = []
    for name, metric in applied.items():
        try:
            scores += metric.compute(evidence)
        except ValueError as error:
            skipped[name] = str(error)
    if not scores and skipped:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise SampleError(f"no metric applies: {reasons}")
    return Evaluation(tuple(scores), skipped)


def _images(dataset: Dataset) -> Tensor:
    """All images of a set of samples, whatever splits it has."""
    parts = []
    for split in dataset.splits:
        size = dataset.size(split)
        if size is None:
            raise SampleError("samples must have an end; a generated dataset can only be a reference")
        parts.append(dataset.load(split, np.arange(size)).x)
    return to_display(torch.cat(parts), dataset.spec.levels or 256)


def _features(
    drawn: Tensor, reference: Ref, real: Dataset, extractor: FeatureExtractor, extractor_ref: Ref, split: Split
) -> FeatureEvidence:
    examples = subset(real, split, MAX_REFERENCE).x
    return FeatureEvidence(
        samples=extract(extractor, to_rgb(drawn, 256)),
        reference=extract(extractor, to_rgb(examples, real.spec.levels or 256)),
        statistics=reference_statistics(reference, real, extractor, extractor_ref=extractor_ref, split=split),
        extractor=extractor_ref.name,
        protocol=extractor.protocol(),
    )


def _factors(drawn: Tensor, real: Dataset, extractor: FeatureExtractor) -> FactorEvidence:
    combinations = real.combinations("train")
    assert combinations is not None  # `_why_not` has refused data without factors
    return FactorEvidence(samples=read_factors(extractor, to_rgb(drawn, 256)), training=torch.from_numpy(combinations))


def _why_not(metric: Metric, real: Dataset, extractor: FeatureExtractor) -> str | None:
    if Need.LIKELIHOOD in metric.needs:
        return "samples alone have no likelihood"
    if Need.FACTORS not in metric.needs:
        return None
    if not isinstance(extractor, FactorReader):
        return "the extractor reads no factors"
    return None if extractor.factors == real.spec.factors else "the reference has none of the factors that it reads"
