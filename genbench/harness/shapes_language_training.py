"""Training of the language model `shapes_language`, from nothing to the files that ship.

The loss is the mean negative log-probability of the words of whole episodes of `captioned_shapes`, ends of texts among
them. Only texts are made: no picture is rendered.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from genbench.core.texts import ended
from genbench.data.captioned_shapes import EPISODE, CaptionedShapes, episodes
from genbench.features.shapes_language import LanguageNetwork
from genbench.harness._feature_pools import FIRST_INDEX, SCHEMA, schedule

EPISODES = 32
"""Of a batch."""
DEFAULT_STEPS = 1_800
"""Optimiser steps behind the shipped weights."""
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
NUM_HELD_OUT = 2_000

logger = logging.getLogger(__name__)


def train_shapes_language(out: Path, *, steps: int = DEFAULT_STEPS, seed: int = 0) -> dict[str, float]:
    """Train `shapes_language`, write `shapes_language.safetensors` and `.json` into `out`.

    The same arguments give the same weights on one machine with one number of threads.

    Args:
        out: folder, made if it is not there.
        steps: batches of 32 episodes, each seen once.
        seed: of the weights.

    Returns:
        Nats per word of held-out episodes by the number of texts before, as written to the JSON.
    """
    torch.manual_seed(seed)
    spec = CaptionedShapes().spec
    network = LanguageNetwork(len(spec.vocabulary), *spec.shape)
    _optimise(network, steps=steps)
    network.eval().requires_grad_(False).half().float()  # what is measured is what the file holds
    nats = held_out_nats(network)
    _write(out, network, spec.vocabulary, nats, {"steps": steps, "seed": seed, "episodes_per_step": EPISODES})
    return nats


@torch.no_grad()
def held_out_nats(network: LanguageNetwork) -> dict[str, float]:
    """Nats per word of unseen episodes of `test`, keyed by the number of texts before."""
    texts = episodes("test", np.arange(FIRST_INDEX, FIRST_INDEX + NUM_HELD_OUT))[0]
    nats = torch.cat([_nats(network, part) for part in texts.split(100)])
    each = nats.double().sum((0, 2)) / ended(texts).sum((0, 2))
    return {str(shots): round(float(value), 4) for shots, value in enumerate(each)}


def _optimise(network: LanguageNetwork, *, steps: int) -> None:
    groups: list[dict[str, object]] = [
        {"params": [weights for weights in network.parameters() if weights.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [gains for gains in network.parameters() if gains.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        first = FIRST_INDEX + step * EPISODES
        texts = episodes("train", np.arange(first, first + EPISODES))[0]
        loss = _nats(network, texts).sum() / ended(texts).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())


def _nats(network: LanguageNetwork, texts: Tensor) -> Tensor:
    """Minus the log-probability of every word and end of episodes (B, S, T), 0 for padding: (B, S, T)."""
    B, S, T = texts.shape
    marks = torch.full((B, S, 1), network.head.out_features)
    rows = torch.cat([marks, texts.long()], dim=2).flatten(1)
    logits = network(rows).unflatten(1, (S, T + 1))[:, :, :T]
    nats = F.cross_entropy(logits.flatten(0, 2), texts.long().flatten(), reduction="none")
    return nats.view(B, S, T) * ended(texts)


def _write(
    out: Path,
    network: LanguageNetwork,
    vocabulary: tuple[str, ...],
    nats: dict[str, float],
    training: dict[str, int],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()})
    (out / "shapes_language.safetensors").write_bytes(payload)
    described = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "vocabulary": list(vocabulary),
        "num_items": EPISODE,
        "text_length": len(network.places) - 1,
        "training": {
            "command": "genbench features train shapes_language",
            "dataset": "captioned_shapes, texts alone",
            **training,
        },
        "held_out_nats_per_word": nats,
    }
    (out / "shapes_language.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
