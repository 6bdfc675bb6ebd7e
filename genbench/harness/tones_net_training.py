"""Training of the shipped extractor of sounds, from nothing to the files that ship.

One batch holds notes of four lengths, about half of them untouched. The losses are those of `shapes_net`: cross entropy
of every factor where the note is legible; cross entropy to the uniform law where the sound is meaningless (Hendrycks et
al. 2019, arXiv:1812.04606, Eq. 1); and the squared error of the damage's grade along one direction of feature space.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset, build_dataset
from genbench.core.spec import Ref
from genbench.evaluation.sound_damage import DamagedSounds, damaged_sounds
from genbench.features.tones_net import NUM_FEATURES, TonesNetwork
from genbench.harness._feature_pools import FIRST_INDEX, NOVEL_SHARE, schedule
from genbench.harness._reader_training import (
    LEARNING_RATE,
    WEIGHT_DECAY,
    Grade,
    accuracy_on,
    normalise,
    reader_loss,
    write_reader,
)

LENGTHS = (512, 1024, 2048, 4096)
POOL = {512: 8_000, 1024: 8_000, 2048: 8_000, 4096: 4_000}
"""Notes rendered before training, at each length; longer ones cost more to render and need fewer."""
NOTES = {512: 64, 1024: 48, 2048: 48, 4096: 40}
"""Of a batch; short notes are the hard ones. Two at least must be blended."""
DEFAULT_STEPS = 500
"""Optimiser steps behind the shipped weights."""
NUM_NORMALISING = 2_000
"""Notes of each length that set the scale of the features."""
NUM_HELD_OUT = 5_000

logger = logging.getLogger(__name__)


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
    normalise(network, pools.values(), NUM_NORMALISING)
    accuracy = {str(length): held_out_accuracy(network, length) for length in LENGTHS}
    training = {"steps": steps, "seed": seed, "notes_per_step": sum(NOTES.values())}
    write_reader(out, network, factors, accuracy, training, name="tones_net", dataset="tones")
    return accuracy


def tones_of(length: int) -> Dataset:
    """`tones` of one length."""
    return build_dataset(Ref(name="tones", config={"length": length}))


def held_out_accuracy(network: TonesNetwork, length: int) -> dict[str, float]:
    """Share of unseen notes of one length whose factor is read rightly, by factor and for all at once."""
    return accuracy_on(network, tones_of(length), NUM_HELD_OUT)


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
    grade = Grade(NUM_FEATURES)
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


def _loss(network: TonesNetwork, grade: Grade, damage: DamagedSounds, factors: Tensor) -> Tensor:
    return reader_loss(
        network,
        grade,
        network(damage.codes),
        factors=factors,
        grades=damage.grade,
        legible=damage.legible,
        meaningless=damage.meaningless,
    )
