"""Training of the shipped extractor of sounds, from nothing to the files that ship.

One batch holds notes of four lengths, about half of them untouched. The losses are those of `shapes_net`: cross entropy
of every factor where the note is legible; cross entropy to the uniform law where the sound is meaningless (Hendrycks et
al. 2019, arXiv:1812.04606, Eq. 1); and the squared error of the damage's grade along one direction of feature space.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, Dataset, Factor, build_dataset
from genbench.core.spec import Ref
from genbench.evaluation.sound_damage import DamagedSounds, damaged_sounds
from genbench.features.tones_net import NUM_FEATURES, TonesNetwork
from genbench.harness._feature_pools import FIRST_INDEX, NOVEL_SHARE, SCHEMA, schedule

LENGTHS = (512, 1024, 2048, 4096)
POOL = {512: 8_000, 1024: 8_000, 2048: 8_000, 4096: 4_000}
"""Notes rendered before training, at each length; longer ones cost more to render and need fewer."""
NOTES = {512: 64, 1024: 48, 2048: 48, 4096: 40}
"""Of a batch; short notes are the hard ones. Two at least must be blended."""
DEFAULT_STEPS = 500
"""Optimiser steps behind the shipped weights."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
GRADE_SCALE = 8.0
"""Distance in feature space, before it is normalised, for one grade of damage, as of `shapes_net`."""
GRADE_WEIGHT = 0.5
OUTLIER_WEIGHT = 0.5
"""Lambda of outlier exposure."""
NUM_NORMALISING = 2_000
"""Notes of each length that set the scale of the features."""
NUM_HELD_OUT = 5_000

logger = logging.getLogger(__name__)


class _Grade(nn.Module):
    """How far features lie along one unit vector, learned: (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.full((NUM_FEATURES,), NUM_FEATURES**-0.5))
        self.origin = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        return features @ F.normalize(self.direction, dim=0) - self.origin


def train_tones_net(out: Path, *, steps: int = DEFAULT_STEPS, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train `tones_net`, write `tones_net.safetensors` and `.json` into `out`.

    The same arguments give the same weights on one machine with one number of threads.

    Args:
        out: folder, made if it is not there.
        steps: batches of 200 notes.
        seed: of the weights, the order of the notes and the damage.

    Returns:
        Held-out accuracy by length and factor, as written to the JSON.
    """
    torch.manual_seed(seed)
    factors = tones_of(LENGTHS[0]).spec.factors
    network = TonesNetwork(tuple(len(factor.values) for factor in factors))
    pools = {length: _pool(tones_of(length), POOL[length]) for length in LENGTHS}
    _optimise(network, pools, steps=steps, generator=torch.Generator().manual_seed(seed))
    network.eval().requires_grad_(False)
    _normalise(network, pools)
    accuracy = {str(length): held_out_accuracy(network, length) for length in LENGTHS}
    _write(out, network, factors, accuracy, {"steps": steps, "seed": seed, "notes_per_step": sum(NOTES.values())})
    return accuracy


def tones_of(length: int) -> Dataset:
    """`tones` of one length."""
    return build_dataset(Ref(name="tones", config={"length": length}))


@torch.no_grad()
def held_out_accuracy(network: TonesNetwork, length: int) -> dict[str, float]:
    """Share of unseen notes of one length whose factor is read rightly, by factor and for all at once."""
    dataset = tones_of(length)
    test = dataset.load("test", range(FIRST_INDEX, FIRST_INDEX + NUM_HELD_OUT))
    assert test.factors is not None
    read = torch.cat(
        [torch.stack([part.argmax(dim=1) for part in network.logits(network(x))], dim=1) for x in test.x.split(256)]
    )
    right = read == test.factors
    shares = {factor.name: float(right[:, i].double().mean()) for i, factor in enumerate(dataset.spec.factors)}
    return {**shares, "all": float(right.all(dim=1).double().mean())}


def _pool(dataset: Dataset, count: int) -> Batch:
    """Notes of all pairs of timbre and pitch, those that `train` never shows included."""
    novel = round(count * NOVEL_SHARE)
    parts = [
        dataset.load("train", np.arange(FIRST_INDEX, FIRST_INDEX + count - novel)),
        dataset.load("novel", np.arange(FIRST_INDEX, FIRST_INDEX + novel)),
    ]
    return Batch(
        x=torch.cat([part.x for part in parts]),
        factors=torch.cat([part.factors for part in parts if part.factors is not None]),
    )


def _optimise(network: TonesNetwork, pools: dict[int, Batch], *, steps: int, generator: torch.Generator) -> None:
    grade = _Grade()
    optimiser = torch.optim.AdamW([*network.parameters(), *grade.parameters()], weight_decay=WEIGHT_DECAY)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        total = torch.zeros(())
        for length, notes in pools.items():
            batch = notes[torch.randint(len(notes), (NOTES[length],), generator=generator)]
            assert batch.factors is not None
            damage = damaged_sounds(batch.x, generator=generator)
            total = total + NOTES[length] / sum(NOTES.values()) * _loss(network, grade, damage, batch.factors)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, steps, total.item())


def _loss(network: TonesNetwork, grade: _Grade, damage: DamagedSounds, factors: Tensor) -> Tensor:
    features = network(damage.codes)
    total = GRADE_WEIGHT * F.mse_loss(grade(features) / GRADE_SCALE, damage.grade)
    for i, logits in enumerate(network.logits(features)):
        total = total + F.cross_entropy(logits[damage.legible], factors[damage.legible, i])
        total = total - OUTLIER_WEIGHT * logits[damage.meaningless].log_softmax(dim=1).mean()
    return total


def _normalise(network: TonesNetwork, pools: dict[int, Batch]) -> None:
    """Scale the features of untouched notes to variance 1 in the mean over features; readings stay as they are."""
    untouched = [part for notes in pools.values() for part in notes.x[:NUM_NORMALISING].split(250)]
    scale = torch.cat([network(part) for part in untouched]).double().var(dim=0).mean().sqrt().float()
    network.features.weight.div_(scale)  # the activation is positively homogeneous, so its output scales alike
    network.features.bias.div_(scale)
    network.reader.weight.mul_(scale)


def _write(
    out: Path,
    network: TonesNetwork,
    factors: tuple[Factor, ...],
    accuracy: dict[str, dict[str, float]],
    training: dict[str, int],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    (out / "tones_net.safetensors").write_bytes(payload)
    described = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "factors": {factor.name: list(factor.values) for factor in factors},
        "training": {"command": "genbench features train tones_net", "dataset": "tones", **training},
        "held_out_accuracy": accuracy,
    }
    (out / "tones_net.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
