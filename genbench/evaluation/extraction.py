"""One pass over pictures for every layer that some metric wants, or none where they are cached."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genbench.core.features import FactorPredictions, FactorReader, FeatureExtractor
from genbench.evaluation import feature_cache
from genbench.evaluation.inspect_samples import Inspection
from genbench.evaluation.pictures import Pictures

Tell = Callable[[str, int, int], None]
"""Told what is looked at, how many pictures are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@torch.no_grad()
def extract_layers(
    pictures: Pictures,
    extractor: FeatureExtractor,
    layers: tuple[str, ...],
    *,
    caching: bool = False,
    inspection: Inspection | None = None,
    what: str = "pictures",
    batch_size: int = 64,
    tell: Tell = silent,
) -> dict[str, Tensor]:
    """Layers of all pictures, (N, F of that layer) float each, on the CPU.

    Args:
        pictures: what to look at.
        extractor: the network; pictures go to its device.
        layers: names that the extractor knows.
        caching: look the features up by content first, and keep what was computed.
        inspection: told of every picture; where it was told of the same ones before, of what it found then.
        what: the pictures, for progress.
        batch_size: pictures in one forward pass.
        tell: told of progress.

    Raises:
        DataError: a picture cannot be read.
        SampleError: the inspection refuses them.
    """
    protocol, key = extractor.protocol(), pictures.fingerprint() if caching else ""
    identities = {layer: feature_cache.entry(key, protocol, layer) for layer in layers}
    found = {layer: feature_cache.cached(identity) for layer, identity in identities.items()} if caching else {}
    missing = tuple(layer for layer in layers if found.get(layer) is None)
    unseen = None if inspection is None or _recalled(inspection, key) else inspection
    if missing or unseen is not None:
        looked = functools.partial(tell, what)
        found |= _looked_at(pictures, extractor, missing, unseen, batch_size=batch_size, tell=looked)
    if unseen is not None and caching:
        feature_cache.keep(feature_cache.inspection_entry(key), unseen.counts())
    for layer in missing if caching else ():
        feature_cache.keep(identities[layer], found[layer])  # type: ignore[arg-type]
    return {layer: torch.from_numpy(found[layer]) for layer in layers}


def _looked_at(
    pictures: Pictures,
    extractor: FeatureExtractor,
    layers: tuple[str, ...],
    inspection: Inspection | None,
    *,
    batch_size: int,
    tell: Callable[[int, int], None],
) -> dict[str, np.ndarray]:
    """Layers from one pass, which the inspection sees too; without layers the network is left alone."""
    device = next(extractor.parameters()).device
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}
    done = 0
    for chunk in pictures.chunks():
        if inspection is not None:
            inspection.add(chunk)
        for part in chunk.split(batch_size):
            for layer, values in (extractor.outputs(part.to(device), layers) if layers else {}).items():
                parts[layer].append(values.cpu().numpy())
            done += len(part)
            tell(done, len(pictures))
    if inspection is not None:
        inspection.finish()
    return {layer: np.concatenate(values) for layer, values in parts.items()}


def _recalled(inspection: Inspection, key: str) -> bool:
    """Whether the inspection knows the pictures already; an empty key knows nothing."""
    counts = feature_cache.cached(feature_cache.inspection_entry(key)) if key else None
    if counts is not None:
        inspection.recall(counts)
    return counts is not None


@torch.no_grad()
def read_factors(extractor: FeatureExtractor, images: Tensor, *, batch_size: int = 256) -> FactorPredictions:
    """Factors of (N, 3, H, W) uint8 images in batches, on the CPU.

    Raises:
        TypeError: the extractor reads no factors.
    """
    if not isinstance(extractor, FactorReader):
        raise TypeError("factors were asked of an extractor that reads none")
    device = next(extractor.parameters()).device
    return merged_predictions([extractor.read_factors(part.to(device)) for part in images.split(batch_size)])


def merged_predictions(parts: list[FactorPredictions]) -> FactorPredictions:
    """Predictions of consecutive pictures as one, on the CPU."""
    return FactorPredictions(
        values=torch.cat([part.values for part in parts]).cpu(),
        confidence=torch.cat([part.confidence for part in parts]).cpu(),
        factors=parts[0].factors,
    )


def thinned(features: Tensor, count: int) -> Tensor:
    """A fixed random choice of rows, the same in every run; all of them when there are fewer."""
    if len(features) <= count:
        return features
    return features[torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(features))[:count]))]
