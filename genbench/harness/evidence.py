"""Gather what the metrics of a cell need, each thing once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, Split
from genbench.core.features import FactorPredictions, FactorReader, FeatureExtractor, extract
from genbench.core.metric import Evidence, FactorEvidence, FeatureEvidence, LikelihoodEvidence, Need
from genbench.core.model import GenerativeModel, Likelihood
from genbench.core.spec import Cell
from genbench.harness.reference import reference_statistics
from genbench.harness.sample import device_of
from genbench.prob.pixels import to_rgb

_LIKELIHOOD_BATCH = 128
_SUBSET_SEED = 0


def subset(dataset: Dataset, split: Split, count: int, *, skip: int = 0) -> Batch:
    """A fixed random subset of a split, the same in every run; all of it when it is smaller.

    Args:
        dataset: the data.
        split: which part.
        count: how many examples.
        skip: leave out this many first, so that two subsets do not overlap.
    """
    size = dataset.size(split)
    if size is None:
        return dataset.load(split, np.arange(skip, skip + count))
    rows = np.random.default_rng(_SUBSET_SEED).permutation(size)[skip : skip + count]
    return dataset.load(split, rows)


def gather(
    needs: frozenset[Need],
    cell: Cell,
    dataset: Dataset,
    extractor: FeatureExtractor,
    samples: Tensor,
    model: GenerativeModel | None,
) -> Evidence:
    """Evidence for the given needs, from samples (N, *shape) and, where asked for, the model."""
    return Evidence(
        features=_features(cell, dataset, extractor, samples) if Need.FEATURES in needs else None,
        likelihood=_likelihood(cell, dataset, model) if Need.LIKELIHOOD in needs else None,
        factors=_factors(dataset, extractor, samples) if Need.FACTORS in needs else None,
    )


def _features(cell: Cell, dataset: Dataset, extractor: FeatureExtractor, samples: Tensor) -> FeatureEvidence:
    reference = subset(dataset, "train", cell.protocol.num_reference).x
    return FeatureEvidence(
        samples=extract(extractor, _shown(samples, dataset)),
        reference=extract(extractor, _shown(reference, dataset)),
        statistics=reference_statistics(cell.dataset, dataset, extractor, extractor_ref=cell.features),
        extractor=cell.features.name,
        protocol=extractor.protocol(),
    )


@torch.no_grad()
def _likelihood(cell: Cell, dataset: Dataset, model: GenerativeModel | None) -> LikelihoodEvidence:
    scorer: object = model
    if model is None or not isinstance(scorer, Likelihood):
        raise TypeError("a likelihood was asked of a model without one")
    test = subset(dataset, "test", cell.protocol.num_likelihood).x
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(cell.seed)
    chunks = [scorer.log_likelihood(part.to(device), generator=generator) for part in test.split(_LIKELIHOOD_BATCH)]
    return LikelihoodEvidence(
        nats=torch.cat(chunks).double().cpu(),
        kind=scorer.likelihood_kind,
        num_dims=dataset.spec.num_dims,
        levels=dataset.spec.levels,
    )


def _factors(dataset: Dataset, extractor: FeatureExtractor, samples: Tensor) -> FactorEvidence:
    combinations = dataset.combinations("train")
    assert combinations is not None  # `applicable` has refused data without factors
    read = read_factors(extractor, _shown(samples, dataset))
    return FactorEvidence(samples=read, training=torch.from_numpy(combinations))


@torch.no_grad()
def read_factors(extractor: FeatureExtractor, images: Tensor, *, batch_size: int = 256) -> FactorPredictions:
    """Factors of (N, 3, H, W) uint8 images in batches, on the CPU.

    Raises:
        TypeError: the extractor reads no factors.
    """
    if not isinstance(extractor, FactorReader):
        raise TypeError("factors were asked of an extractor that reads none")
    device = next(extractor.parameters()).device
    read = [extractor.read_factors(part.to(device)) for part in images.split(batch_size)]
    return FactorPredictions(
        values=torch.cat([part.values for part in read]).cpu(),
        confidence=torch.cat([part.confidence for part in read]).cpu(),
        factors=extractor.factors,
    )


def _shown(images: Tensor, dataset: Dataset) -> Tensor:
    return to_rgb(images, dataset.spec.levels or 256)
