"""Training of the shipped feature extractors, from nothing to the files that ship.

One batch holds pictures of all four resolutions, about half of them untouched. Three losses: cross
entropy of every factor where the picture is legible; cross entropy to the uniform law where it is
meaningless (Hendrycks et al. 2019, arXiv:1812.04606, Eq. 1); and the squared error of the damage's
grade along one direction of feature space, which puts damage as far from real data as it is grave.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from genbench.core.dataset import Batch
from genbench.evaluation.damage import Damaged
from genbench.features.shapes_net import NUM_FEATURES, SIDE, ShapesNetwork
from genbench.harness._feature_pools import RESOLUTIONS, draw, pool, schedule, shapes_at
from genbench.harness._reader_training import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Grade,
    accuracy_on,
    normalise,
    reader_loss,
    write_reader,
)

POOL = {8: 24_000, 16: 24_000, 32: 16_000, 64: 8_000}
"""Pictures rendered before training, at each resolution; larger ones cost more to render and need fewer."""
PICTURES = {8: 88, 16: 72, 32: 56, 64: 40}
"""Of a batch; small pictures are the hard ones."""
DEFAULT_STEPS = 900
"""Optimiser steps behind the shipped weights."""
NUM_NORMALISING = 2_000
"""Pictures of each resolution that set the scale of the features."""
NUM_HELD_OUT = 10_000

logger = logging.getLogger(__name__)


def train_shapes_net(out: Path, *, steps: int = DEFAULT_STEPS, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train `shapes_net`, write `shapes_net.safetensors` and `.json` into `out`.

    The same arguments give the same weights on one machine with one number of threads.

    Args:
        out: folder, made if it is not there.
        steps: batches of 256 pictures.
        seed: of the weights, the order of the pictures and the damage.

    Returns:
        Held-out accuracy by resolution and factor, as written to the JSON.
    """
    torch.manual_seed(seed)
    factors = shapes_at(RESOLUTIONS[0]).spec.factors
    network = ShapesNetwork(tuple(len(factor.values) for factor in factors))
    pools = {resolution: pool(shapes_at(resolution), POOL[resolution]) for resolution in RESOLUTIONS}
    _optimise(network, pools, steps=steps, generator=torch.Generator().manual_seed(seed))
    network.eval().requires_grad_(False)
    normalise(network, pools.values(), NUM_NORMALISING)
    accuracy = {str(resolution): held_out_accuracy(network, resolution) for resolution in RESOLUTIONS}
    training = {"steps": steps, "seed": seed, "pictures_per_step": sum(PICTURES.values())}
    write_reader(out, network, factors, accuracy, training, name="shapes_net", dataset="shapes")
    return accuracy


def held_out_accuracy(network: ShapesNetwork, resolution: int) -> dict[str, float]:
    """Share of unseen pictures of one resolution whose factor is read rightly, by factor and for all at once."""
    return accuracy_on(network, shapes_at(resolution), NUM_HELD_OUT)


def _optimise(network: ShapesNetwork, pools: dict[int, Batch], *, steps: int, generator: torch.Generator) -> None:
    grade = Grade(NUM_FEATURES)
    optimiser = torch.optim.AdamW([*network.parameters(), *grade.parameters()], weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        drawn = draw(pools, PICTURES, side=SIDE, generator=generator)
        loss = _loss(network, grade, drawn.images, drawn.factors, drawn.damages)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())


def _loss(network: ShapesNetwork, grade: Grade, images: Tensor, factors: Tensor, damages: list[Damaged]) -> Tensor:
    return reader_loss(
        network,
        grade,
        network(images.contiguous(memory_format=torch.channels_last)),
        factors=factors,
        grades=torch.cat([damage.grade for damage in damages]),
        legible=torch.cat([damage.legible for damage in damages]),
        meaningless=torch.cat([damage.meaningless for damage in damages]),
    )
