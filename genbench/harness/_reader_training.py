"""What trainings of networks that read factors share: losses, accuracy, the scale of features, the files that ship.

Three losses: cross entropy of every factor where an example is legible; cross entropy to the uniform law where it is
meaningless (Hendrycks et al. 2019, arXiv:1812.04606, Eq. 1); and the squared error of the damage's grade along one
direction of feature space, which puts damage as far from real data as it is grave.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, Dataset, Factor
from genbench.features.shapes_net import ShapesNetwork
from genbench.features.tones_net import TonesNetwork
from genbench.harness._feature_pools import FIRST_INDEX, SCHEMA

LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
GRADE_SCALE = 8.0
"""Distance in feature space, before it is normalised, for one grade of damage.

The nearest neighbours among a few hundred real pictures are up to 27 apart; pictures without an object (grade 4) must
lie beyond that, to be in nobody's neighbourhood."""
GRADE_WEIGHT = 0.5
OUTLIER_WEIGHT = 0.5
"""Lambda of outlier exposure."""
Reader = ShapesNetwork | TonesNetwork


class Grade(nn.Module):
    """How far features (N, num_features) lie along one unit vector, learned: (N,)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.full((num_features,), num_features**-0.5))
        self.origin = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Signed distance from the origin."""
        return features @ F.normalize(self.direction, dim=0) - self.origin


def reader_loss(
    network: Reader,
    grade: Grade,
    features: Tensor,
    *,
    factors: Tensor,
    grades: Tensor,
    legible: Tensor,
    meaningless: Tensor,
) -> Tensor:
    """The three losses of features (N, F) of damaged examples, with factors (N, K); the other three are (N,)."""
    total = GRADE_WEIGHT * F.mse_loss(grade(features) / GRADE_SCALE, grades)
    for i, logits in enumerate(network.logits(features)):
        total = total + F.cross_entropy(logits[legible], factors[legible, i])
        total = total - OUTLIER_WEIGHT * logits[meaningless].log_softmax(dim=1).mean()
    return total


@torch.no_grad()
def accuracy_on(network: Reader, dataset: Dataset, count: int) -> dict[str, float]:
    """Share of unseen examples whose factor is read rightly, by factor and for all at once."""
    test = dataset.load("test", range(FIRST_INDEX, FIRST_INDEX + count))
    assert test.factors is not None
    read = torch.cat(
        [torch.stack([part.argmax(dim=1) for part in network.logits(network(x))], dim=1) for x in test.x.split(256)]
    )
    right = read == test.factors
    shares = {factor.name: float(right[:, i].double().mean()) for i, factor in enumerate(dataset.spec.factors)}
    return {**shares, "all": float(right.all(dim=1).double().mean())}


def normalise(network: Reader, pools: Iterable[Batch], count: int) -> None:
    """Scale the features of untouched examples to variance 1 in the mean over features; readings stay as they are."""
    untouched = [part for examples in pools for part in examples.x[:count].split(250)]
    scale = torch.cat([network(part) for part in untouched]).double().var(dim=0).mean().sqrt().float()
    network.features.weight.div_(scale)  # the activation is positively homogeneous, so its output scales alike
    network.features.bias.div_(scale)
    network.reader.weight.mul_(scale)


def write_reader(
    out: Path,
    network: Reader,
    factors: tuple[Factor, ...],
    accuracy: dict[str, dict[str, float]],
    training: dict[str, int],
    *,
    name: str,
    dataset: str,
) -> None:
    """Write `<name>.safetensors` and `<name>.json`, which says what is in it, into a folder that may not be there."""
    out.mkdir(parents=True, exist_ok=True)
    payload = save({key: tensor.contiguous() for key, tensor in network.state_dict().items()})
    (out / f"{name}.safetensors").write_bytes(payload)
    described = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "factors": {factor.name: list(factor.values) for factor in factors},
        "training": {"command": f"genbench features train {name}", "dataset": dataset, **training},
        "held_out_accuracy": accuracy,
    }
    (out / f"{name}.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
