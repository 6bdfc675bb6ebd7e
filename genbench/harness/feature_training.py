"""Training of the shipped feature extractors, from nothing to the files that ship.

One batch holds pictures of all four resolutions, about half of them untouched. Three losses: cross
entropy of every factor where the picture is legible; cross entropy to the uniform law where it is
meaningless (Hendrycks et al. 2019, arXiv:1812.04606, Eq. 1); and the squared error of the damage's
grade along one direction of feature space, which puts damage as far from real data as it is grave.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, Factor
from genbench.evaluation.damage import Damaged
from genbench.features.shapes_net import NUM_FEATURES, SIDE, ShapesNetwork
from genbench.harness._feature_pools import FIRST_INDEX, RESOLUTIONS, SCHEMA, draw, pool, schedule, shapes_at

POOL = {8: 24_000, 16: 24_000, 32: 16_000, 64: 8_000}
"""Pictures rendered before training, at each resolution; larger ones cost more to render and need fewer."""
PICTURES = {8: 88, 16: 72, 32: 56, 64: 40}
"""Of a batch; small pictures are the hard ones."""
DEFAULT_STEPS = 900
"""Optimiser steps behind the shipped weights."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
GRADE_SCALE = 8.0
"""Distance in feature space, before it is normalised, for one grade of damage.

The nearest neighbours among a few hundred real pictures are up to 27 apart; pictures without an object (grade 4) must
lie beyond that, to be in nobody's neighbourhood."""
GRADE_WEIGHT = 0.5
OUTLIER_WEIGHT = 0.5
"""Lambda of outlier exposure."""
NUM_NORMALISING = 2_000
"""Pictures of each resolution that set the scale of the features."""
NUM_HELD_OUT = 10_000

logger = logging.getLogger(__name__)


class _Grade(nn.Module):
    """How far features lie along one unit vector, learned: (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.full((NUM_FEATURES,), NUM_FEATURES**-0.5))
        self.origin = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return features @ F.normalize(self.direction, dim=0) - self.origin


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
    _normalise(network, pools)
    accuracy = {str(resolution): held_out_accuracy(network, resolution) for resolution in RESOLUTIONS}
    _write(out, network, factors, accuracy, {"steps": steps, "seed": seed, "pictures_per_step": sum(PICTURES.values())})
    return accuracy


@torch.no_grad()
def held_out_accuracy(network: ShapesNetwork, resolution: int) -> dict[str, float]:
    """Share of unseen pictures of one resolution whose factor is read rightly, by factor and for all at once."""
    dataset = shapes_at(resolution)
    test = dataset.load("test", range(FIRST_INDEX, FIRST_INDEX + NUM_HELD_OUT))
    assert test.factors is not None
    read = torch.cat(
        [torch.stack([part.argmax(dim=1) for part in network.logits(network(x))], dim=1) for x in test.x.split(256)]
    )
    right = read == test.factors
    shares = {factor.name: float(right[:, i].double().mean()) for i, factor in enumerate(dataset.spec.factors)}
    return {**shares, "all": float(right.all(dim=1).double().mean())}


def _optimise(network: ShapesNetwork, pools: dict[int, Batch], *, steps: int, generator: torch.Generator) -> None:
    grade = _Grade()
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


def _normalise(network: ShapesNetwork, pools: dict[int, Batch]) -> None:
    """Scale the features of untouched pictures to variance 1 in the mean over features; readings stay as they are."""
    untouched = [part for examples in pools.values() for part in examples.x[:NUM_NORMALISING].split(250)]
    scale = torch.cat([network(part) for part in untouched]).double().var(dim=0).mean().sqrt().float()
    network.features.weight.div_(scale)  # the activation is positively homogeneous, so its output scales alike
    network.features.bias.div_(scale)
    network.reader.weight.mul_(scale)


def _loss(network: ShapesNetwork, grade: _Grade, images: Tensor, factors: Tensor, damages: list[Damaged]) -> Tensor:
    legible = torch.cat([damage.legible for damage in damages])
    meaningless = torch.cat([damage.meaningless for damage in damages])
    wanted = torch.cat([damage.grade for damage in damages])
    features = network(images.contiguous(memory_format=torch.channels_last))
    total = GRADE_WEIGHT * F.mse_loss(grade(features) / GRADE_SCALE, wanted)
    for i, logits in enumerate(network.logits(features)):
        total = total + F.cross_entropy(logits[legible], factors[legible, i])
        total = total - OUTLIER_WEIGHT * logits[meaningless].log_softmax(dim=1).mean()
    return total


def _write(
    out: Path,
    network: ShapesNetwork,
    factors: tuple[Factor, ...],
    accuracy: dict[str, dict[str, float]],
    training: dict[str, int],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (out / "shapes_net.safetensors").write_bytes(payload)
    described = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "factors": {factor.name: list(factor.values) for factor in factors},
        "training": {"command": "genbench features train shapes_net", "dataset": "shapes", **training},
        "held_out_accuracy": accuracy,
    }
    (out / "shapes_net.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
