"""Training of the dual encoder `shapes_clip`, from nothing to the files that ship.

The loss is the symmetric cross entropy over the cosines of a batch, divided by a learned temperature (Radford et al.
2021, arXiv:2103.00020, Fig. 3), over the untouched pictures of a batch.

Departures: there are only 960 captions, so a batch holds some of them more than once; the target of a row is
then the uniform law over all pictures with its caption, not its own place alone (as Yang et al. 2022,
arXiv:2204.03610). Pictures that show nothing (noise, plain colours, collages) join the pictures among which a caption
must find its own, so that they are far from every caption; no caption is theirs. Lightly damaged pictures take no part:
to call them matches would teach the network to overlook the damage.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec, Factor, Split
from genbench.data.shapes import captions as captions_of
from genbench.features.shapes_clip import SIDE, ShapesClipNetwork
from genbench.harness._feature_pools import (
    FIRST_INDEX,
    RESOLUTIONS,
    SCHEMA,
    Drawn,
    draw,
    pool,
    schedule,
    shapes_at,
)

POOL = {8: 24_000, 16: 24_000, 32: 16_000, 64: 8_000}
"""Pictures rendered before training, at each resolution; larger ones cost more to render and need fewer."""
PICTURES = {8: 176, 16: 144, 32: 112, 64: 80}
"""Of a batch, about half of them untouched; small pictures are the hard ones."""
DEFAULT_STEPS = 1_200
"""Optimiser steps behind the shipped weights."""
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.01
INITIAL_TEMPERATURE = 0.07
"""Radford et al., Sec. 2.5."""
LEAST_TEMPERATURE = 0.01
"""Radford et al., Sec. 2.5: logits are scaled by 100 at most."""
NUM_HELD_OUT = 9_984
"""Pictures of each split and resolution, a whole number of batches."""
HELD_OUT_BATCH = 256
FIRST_HELD_OUT = FIRST_INDEX + max(POOL.values())
"""Beyond the pictures trained on, also in the split `novel`, of which some were."""

logger = logging.getLogger(__name__)


class _Temperature(nn.Module):
    """Cosines over a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(INITIAL_TEMPERATURE)))

    def forward(self, cosines: Tensor) -> Tensor:
        return cosines * self.log_scale.clamp(max=-math.log(LEAST_TEMPERATURE)).exp()


def train_shapes_clip(out: Path, *, steps: int = DEFAULT_STEPS, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train `shapes_clip`, write `shapes_clip.safetensors` and `.json` into `out`.

    The same arguments give the same weights on one machine with one number of threads.

    Args:
        out: folder, made if it is not there.
        steps: batches of 512 pictures.
        seed: of the weights, the order of the pictures and the damage.

    Returns:
        Held-out accuracy of retrieval by resolution, as written to the JSON.
    """
    torch.manual_seed(seed)
    spec = shapes_at(RESOLUTIONS[0]).spec
    pools = {resolution: pool(shapes_at(resolution), POOL[resolution]) for resolution in RESOLUTIONS}
    captions = every_caption(spec.factors)
    network = ShapesClipNetwork(len(spec.vocabulary), captions.shape[1])
    temperature = _optimise(network, pools, steps=steps, generator=torch.Generator().manual_seed(seed))
    network.eval().requires_grad_(False).half().float()  # what is measured is what the file holds
    accuracy = {str(resolution): held_out_retrieval(network, resolution, captions) for resolution in RESOLUTIONS}
    pictures = sum(PICTURES.values())
    training = {"steps": steps, "seed": seed, "pictures_per_step": pictures, "temperature": round(temperature, 4)}
    _write(out, network, spec, accuracy, training)
    return accuracy


@torch.no_grad()
def held_out_retrieval(network: ShapesClipNetwork, resolution: int, captions: Tensor) -> dict[str, float]:
    """How often the right one comes first, among unseen pictures of one resolution.

    Args:
        network: in evaluation mode.
        resolution: of `shapes`.
        captions: (C, T) int64, all distinct captions.

    Returns:
        `all_captions`, a picture's caption among all of them, and `all_captions_novel`, the same for pictures with the
        pairs of shape and colour in `novel`; `image_to_text` and `text_to_image`, within batches of 256 pictures of
        `test` and their captions, where an equal caption counts as the same one.
    """
    texts = F.normalize(network.embed_text(captions), dim=1)
    images, right = _embedded(network, resolution, "test")
    novel_images, novel_right = _embedded(network, resolution, "novel")
    within = [
        _within(part @ texts[asked].T, asked)
        for part, asked in zip(images.split(HELD_OUT_BATCH), right.split(HELD_OUT_BATCH), strict=True)
    ]
    image_to_text, text_to_image = (torch.cat(hits).double().mean() for hits in zip(*within, strict=True))
    return {
        "all_captions": _share(images @ texts.T, right),
        "all_captions_novel": _share(novel_images @ texts.T, novel_right),
        "image_to_text": float(image_to_text),
        "text_to_image": float(text_to_image),
    }


def _share(cosines: Tensor, right: Tensor) -> float:
    return float((cosines.argmax(dim=1) == right).double().mean())


def _within(cosines: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each picture finds its caption and each caption its picture: (B,) bool each."""
    return right[cosines.argmax(dim=1)] == right, right[cosines.argmax(dim=0)] == right


def _embedded(network: ShapesClipNetwork, resolution: int, split: Split) -> tuple[Tensor, Tensor]:
    """Unit embeddings of unseen pictures (N, 64), and the rows of their captions in `every_caption` (N,)."""
    dataset = shapes_at(resolution)
    examples = dataset.load(split, range(FIRST_HELD_OUT, FIRST_HELD_OUT + NUM_HELD_OUT))
    assert examples.factors is not None
    sizes = [len(factor.values) for factor in dataset.spec.factors]
    rows = np.ravel_multi_index(tuple(examples.factors.numpy().T), sizes)
    embedded = torch.cat([network(part) for part in examples.x.split(HELD_OUT_BATCH)])
    return F.normalize(embedded, dim=1), torch.from_numpy(rows)


def every_caption(factors: tuple[Factor, ...]) -> Tensor:
    """Captions of every combination of factor values, the last factor fastest: (960, 12) int64."""
    combinations = itertools.product(*(range(len(factor.values)) for factor in factors))
    return torch.from_numpy(captions_of(np.array(list(combinations))))


def _optimise(network: ShapesClipNetwork, pools: dict[int, Batch], *, steps: int, generator: torch.Generator) -> float:
    """Train, and return the temperature at the end."""
    temperature = _Temperature()
    parameters = [*network.parameters(), *temperature.parameters()]
    groups: list[dict[str, object]] = [
        {"params": [weights for weights in parameters if weights.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [gains for gains in parameters if gains.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * schedule(step, steps)
        loss = _loss(network, temperature, draw(pools, PICTURES, side=SIDE, generator=generator))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())
    return math.exp(-temperature.log_scale.item())


def _loss(network: ShapesClipNetwork, temperature: _Temperature, drawn: Drawn) -> Tensor:
    untouched = torch.cat([damage.grade for damage in drawn.damages]) == 0.0
    meaningless = torch.cat([damage.meaningless for damage in drawn.damages])
    pictures = torch.cat([drawn.images[untouched], drawn.images[meaningless]])
    images = F.normalize(network(pictures.contiguous(memory_format=torch.channels_last)), dim=1)
    distinct, which = drawn.text[untouched].unique(dim=0, return_inverse=True)
    texts = F.normalize(network.embed_text(distinct), dim=1)[which]
    logits = temperature(images @ texts.T)  # (U + M, U)
    same = (which[:, None] == which).float()
    target = same / same.sum(dim=1, keepdim=True)
    find_text = F.cross_entropy(logits[: len(which)], target)
    find_image = F.cross_entropy(logits.T, F.pad(target, (0, len(pictures) - len(which))))
    return (find_text + find_image) / 2


def _write(
    out: Path,
    network: ShapesClipNetwork,
    spec: DataSpec,
    accuracy: dict[str, dict[str, float]],
    training: dict[str, float],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    halves = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    payload = save({name: tensor.contiguous() for name, tensor in halves.items()})
    (out / "shapes_clip.safetensors").write_bytes(payload)
    described = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(payload).hexdigest(),
        "vocabulary": list(spec.vocabulary),
        "caption_length": len(network.places),
        "training": {"command": "genbench features train shapes_clip", "dataset": "shapes", **training},
        "held_out_retrieval": accuracy,
    }
    (out / "shapes_clip.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
