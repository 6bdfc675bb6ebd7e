"""Perceptual distances of pictures, and reconstructions beside their originals."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.features import PerceptualDistance
from genbench.core.metric import ReconstructionEvidence
from genbench.evaluation.networks import Networks

NUM_PAIRS = 2_000
"""Pairs of samples whose perceptual distance is taken, at most."""


@torch.no_grad()
def perceptual_distances(network: PerceptualDistance, first: Tensor, second: Tensor, *, batch_size: int = 32) -> Tensor:
    """Distances of pairs of (N, 3, H, W) uint8 images in batches, on the CPU: (N,)."""
    pairs = zip(first.split(batch_size), second.split(batch_size), strict=True)
    return torch.cat([network.distances(a, b).cpu() for a, b in pairs])


def reconstruction_evidence(networks: Networks, originals: Tensor, reconstructions: Tensor) -> ReconstructionEvidence:
    """Two rows of (N, 3, H, W) uint8 pictures side by side, with perceptual distances where a network gives them."""
    if networks.why_no_distance(min(originals.shape[-2:])) is not None:
        return ReconstructionEvidence(originals=originals, reconstructions=reconstructions)
    return ReconstructionEvidence(
        originals=originals,
        reconstructions=reconstructions,
        distances=perceptual_distances(networks.perceptual(), originals, reconstructions),
        protocol=networks.get("perceptual").protocol(),
    )
