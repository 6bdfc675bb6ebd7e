"""Gather what the metrics of a cell need, each thing once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, Split
from genbench.core.density import KnownDensity
from genbench.core.features import FeatureExtractor, extract
from genbench.core.metric import (
    CodeEvidence,
    Evidence,
    FactorEvidence,
    FeatureEvidence,
    LatentEvidence,
    LikelihoodEvidence,
    LogitEvidence,
    Need,
    PairEvidence,
    ReconstructionFeatureEvidence,
    VectorEvidence,
)
from genbench.core.model import ContinuousLatents, DiscreteLatents, GenerativeModel, Likelihood
from genbench.core.record import Kind
from genbench.core.spec import Cell
from genbench.evaluation.extraction import read_factors
from genbench.evaluation.networks import Networks
from genbench.evaluation.perceptual import NUM_PAIRS, perceptual_distances, reconstruction_evidence
from genbench.evaluation.pictures import shown
from genbench.evaluation.reference import reference_statistics
from genbench.harness.sample import device_of

NUM_LATENTS = 10_000
"""Held-out examples behind metrics of latents, as in Locatello et al. 2019 (arXiv:1811.12359, Sec. 4); as many as the
tier has reference examples where these are fewer."""
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
    return dataset.load(split, subset_rows(dataset, split, count, skip=skip))


def subset_rows(dataset: Dataset, split: Split, count: int, *, skip: int = 0) -> np.ndarray:
    """Indices in the split of the examples of `subset`, in its order: (count,) int64."""
    size = dataset.size(split)
    if size is None:
        return np.arange(skip, skip + count)
    return np.random.default_rng(_SUBSET_SEED).permutation(size)[skip : skip + count]


def num_compared(cell: Cell, dataset: Dataset) -> int:
    """How many held-out vectors samples are compared with; half of a split at most, as controls are made of others."""
    count, size = cell.protocol.num_reference, dataset.size("test")
    return count if size is None else min(count, size // 2)


def gather(
    needs: frozenset[Need],
    cell: Cell,
    dataset: Dataset,
    networks: Networks,
    samples: Tensor,
    model: GenerativeModel | None,
) -> Evidence:
    """Evidence for the given needs, from samples (N, *shape) and, where asked for, the model.

    What is about samples drawn for a condition comes from `asked_evidence`.
    """
    compared = needs & {Need.MOMENTS, Need.FEATURES, Need.HELD_OUT}
    rebuilt = needs & {Need.RECONSTRUCTIONS, Need.RECONSTRUCTION_FEATURES}
    pair = _reconstructed(cell, dataset, model) if rebuilt else None
    return Evidence(
        features=_features(needs, cell, dataset, networks, samples) if compared else None,
        spatial=_spatial(cell, dataset, networks, samples) if Need.SPATIAL in needs else None,
        logits=_logits(dataset, networks, samples) if Need.LOGITS in needs else None,
        likelihood=_likelihood(needs, cell, dataset, model) if Need.LIKELIHOOD in needs else None,
        factors=_factors(dataset, networks.get("features"), samples) if Need.FACTORS in needs else None,
        pairs=_pairs(dataset, networks, samples) if Need.PAIRS in needs else None,
        reconstructions=reconstruction_evidence(networks, *pair) if pair and Need.RECONSTRUCTIONS in needs else None,
        reconstruction_features=(
            _reconstruction_features(networks, *pair) if pair and Need.RECONSTRUCTION_FEATURES in needs else None
        ),
        latents=_latents(cell, dataset, model) if Need.LATENTS in needs else None,
        codes=_codes(cell, dataset, model) if Need.CODES in needs else None,
        vectors=_vectors(cell, dataset, samples) if Need.VECTORS in needs else None,
    )


def _features(
    needs: frozenset[Need], cell: Cell, dataset: Dataset, networks: Networks, samples: Tensor
) -> FeatureEvidence:
    extractor, count = networks.get("features"), cell.protocol.num_reference
    held_out = subset(dataset, "test", count).x if Need.HELD_OUT in needs else None
    return FeatureEvidence(
        samples=extract(extractor, _shown(samples, dataset)),
        reference=extract(extractor, _shown(subset(dataset, "train", count).x, dataset)),
        statistics=reference_statistics(cell.dataset, dataset, extractor, extractor_ref=cell.features),
        held_out=None if held_out is None else extract(extractor, _shown(held_out, dataset)),
        extractor=cell.features.name,
        protocol=extractor.protocol(),
    )


def _spatial(cell: Cell, dataset: Dataset, networks: Networks, samples: Tensor) -> FeatureEvidence:
    extractor = networks.get("features")
    reference = subset(dataset, "train", cell.protocol.num_reference).x
    return FeatureEvidence(
        samples=_layer(extractor, _shown(samples, dataset), "spatial"),
        reference=_layer(extractor, _shown(reference, dataset), "spatial"),
        statistics=None,
        extractor=cell.features.name,
        protocol={**extractor.protocol(), "layer": "spatial"},
    )


def _logits(dataset: Dataset, networks: Networks, samples: Tensor) -> LogitEvidence:
    extractor = networks.get("features")
    return LogitEvidence(
        samples=_layer(extractor, _shown(samples, dataset), "logits"),
        extractor=networks.ref("features").name,
        protocol={**extractor.protocol(), "layer": "logits"},
    )


@torch.no_grad()
def _layer(extractor: FeatureExtractor, images: Tensor, layer: str, *, batch_size: int = 64) -> Tensor:
    device = next(extractor.parameters()).device
    parts = [extractor.outputs(part.to(device), (layer,))[layer].cpu() for part in images.split(batch_size)]
    return torch.cat(parts)


@torch.no_grad()
def _likelihood(
    needs: frozenset[Need], cell: Cell, dataset: Dataset, model: GenerativeModel | None
) -> LikelihoodEvidence:
    scorer: object = model
    if model is None or not isinstance(scorer, Likelihood):
        raise TypeError("a likelihood was asked of a model without one")
    test = subset(dataset, "test", cell.protocol.num_likelihood).x
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(cell.seed)
    chunks = [scorer.log_likelihood(part.to(device), generator=generator) for part in test.split(_LIKELIHOOD_BATCH)]
    return LikelihoodEvidence(
        nats=torch.cat(chunks).double().cpu(),
        kind=_kind(scorer, dataset),
        num_dims=dataset.spec.num_dims,
        levels=dataset.spec.levels,
        true_nats=_true_nats(dataset, test) if Need.TRUE_DENSITY in needs else None,
        estimator=scorer.likelihood_estimator,
    )


def _kind(scorer: Likelihood, dataset: Dataset) -> Kind:
    """What a likelihood is of these data: a density needs no dequantisation where nothing was quantised."""
    kind = scorer.likelihood_kind
    return "exact" if kind == "dequantised" and dataset.spec.levels is None else kind


def _true_nats(dataset: Dataset, x: Tensor) -> Tensor:
    law: object = dataset
    if not isinstance(law, KnownDensity):
        raise TypeError("a density was asked of data whose law is not known")
    return law.log_density(x.double())


def _factors(dataset: Dataset, extractor: FeatureExtractor, samples: Tensor) -> FactorEvidence:
    combinations = dataset.combinations("train")
    assert combinations is not None  # `applicable` has refused data without factors
    read = read_factors(extractor, _shown(samples, dataset))
    return FactorEvidence(samples=read, training=torch.from_numpy(combinations), protocol=extractor.protocol())


def _shown(examples: Tensor, dataset: Dataset) -> Tensor:
    return shown(examples, dataset.spec)


def _pairs(dataset: Dataset, networks: Networks, samples: Tensor) -> PairEvidence:
    network, pictures = networks.perceptual(), _shown(samples, dataset)
    half = min(len(pictures) // 2, NUM_PAIRS)  # samples are drawn independently, so any disjoint pairs are random ones
    return PairEvidence(
        distances=perceptual_distances(network, pictures[:half], pictures[half : 2 * half]),
        extractor=networks.ref("perceptual").name,
        protocol={**networks.get("perceptual").protocol(), "resolution": pictures.shape[-1]},
    )


@torch.no_grad()
def _reconstructed(cell: Cell, dataset: Dataset, model: GenerativeModel | None) -> tuple[Tensor, Tensor]:
    """Held-out images and what the model makes of them, each (N, 3, H, W) uint8 in 0 .. 255."""
    coder: object = model
    if model is None or not isinstance(coder, ContinuousLatents | DiscreteLatents):
        raise TypeError("reconstructions were asked of a model without codes")
    x, device = subset(dataset, "test", cell.protocol.num_likelihood).x, device_of(model)
    made = torch.cat([coder.reconstruct(part.to(device)).cpu() for part in x.split(_LIKELIHOOD_BATCH)])
    return _shown(x, dataset), _shown(made, dataset)


def _reconstruction_features(
    networks: Networks, originals: Tensor, reconstructions: Tensor
) -> ReconstructionFeatureEvidence:
    extractor = networks.get("features")
    return ReconstructionFeatureEvidence(
        originals=extract(extractor, originals),
        reconstructions=extract(extractor, reconstructions),
        extractor=networks.ref("features").name,
        protocol=extractor.protocol(),
    )


@torch.no_grad()
def _latents(cell: Cell, dataset: Dataset, model: GenerativeModel | None) -> LatentEvidence:
    coder: object = model
    if model is None or not isinstance(coder, ContinuousLatents):
        raise TypeError("latents were asked of a model without continuous codes")
    count = min(NUM_LATENTS, cell.protocol.num_reference)
    batch, device = subset(dataset, "test", count), device_of(model)
    assert batch.factors is not None  # `applicable` has refused data without factors
    codes = torch.cat([coder.encode(part.to(device)).cpu() for part in batch.x.split(_LIKELIHOOD_BATCH)])
    names = tuple(factor.name for factor in dataset.spec.factors)
    return LatentEvidence(codes=codes, factors=batch.factors, names=names)


@torch.no_grad()
def _codes(cell: Cell, dataset: Dataset, model: GenerativeModel | None) -> CodeEvidence:
    coder: object = model
    if model is None or not isinstance(coder, DiscreteLatents):
        raise TypeError("codes were asked of a model without a codebook")
    x, device = subset(dataset, "test", cell.protocol.num_likelihood).x, device_of(model)
    codes = torch.cat([coder.encode(part.to(device)).cpu() for part in x.split(_LIKELIHOOD_BATCH)])
    return CodeEvidence(codes=codes, num_codes=coder.num_codes, num_dims=dataset.spec.num_dims, books=coder.books)


def _vectors(cell: Cell, dataset: Dataset, samples: Tensor) -> VectorEvidence:
    return VectorEvidence(samples=samples, reference=subset(dataset, "test", num_compared(cell, dataset)).x)
