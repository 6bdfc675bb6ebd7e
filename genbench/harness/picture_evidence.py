"""Evidence from the pictures themselves: pairs of them, and pictures beside captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Dataset
from genbench.core.errors import SettingError
from genbench.core.features import TextEncoder
from genbench.core.metric import CaptionEvidence, PairEvidence
from genbench.harness.evidence import NUM_PAIRS, perceptual_distances
from genbench.harness.extraction import Tell, extract_layers
from genbench.harness.networks import Networks
from genbench.harness.pictures import Pictures

_PAIR_SEED = 0
_NUM_SENTENCES = 20_000
"""Examples of each split whose sentences are learnt, so that captions can be read."""


def pair_evidence(pictures: Pictures, networks: Networks) -> PairEvidence:
    """Distances of disjoint random pairs of pictures, the same in every run."""
    rows = np.random.default_rng(_PAIR_SEED).permutation(len(pictures))[: 2 * NUM_PAIRS]
    half = len(rows) // 2
    return _paired(pictures, networks, rows[:half], rows[half : 2 * half], classes=None)


def class_pair_evidence(pictures: Pictures, networks: Networks) -> PairEvidence | None:
    """Distances of disjoint pairs within each class, None without classes or where no class has two pairs."""
    labels = pictures.labels()
    if labels is None:
        return None
    order = np.random.default_rng(_PAIR_SEED).permutation(len(pictures))
    shuffled = labels.numpy()[order]
    groups = [order[shuffled == label] for label in np.unique(shuffled)]
    cuts = [(group[: len(group) // 2], group[len(group) // 2 : 2 * (len(group) // 2)]) for group in groups]
    if max(len(part) for part, _ in cuts) < 2:
        return None
    kept = np.random.default_rng(_PAIR_SEED).permutation(sum(len(part) for part, _ in cuts))[:NUM_PAIRS]
    first, second = (np.concatenate(parts)[kept] for parts in zip(*cuts, strict=True))
    return _paired(pictures, networks, first, second, classes=labels[torch.from_numpy(first)])


def _paired(
    pictures: Pictures, networks: Networks, first: np.ndarray, second: np.ndarray, *, classes: Tensor | None
) -> PairEvidence:
    """Distances of the pictures at `first` from those at `second`."""
    used = np.unique(np.concatenate([first, second]))
    images = pictures.take(used).images()
    a, b = (images[torch.from_numpy(np.searchsorted(used, rows))] for rows in (first, second))
    return PairEvidence(
        distances=perceptual_distances(networks.perceptual(), a, b),
        classes=classes,
        extractor=networks.ref("perceptual").name,
        protocol={**networks.get("perceptual").protocol(), "resolution": images.shape[-1]},
    )


def caption_evidence(
    pictures: Pictures, captions: Sequence[str], networks: Networks, *, prefix: str, tell: Tell
) -> CaptionEvidence:
    """Embeddings of pictures and of their captions.

    Raises:
        SettingError: the extractor in that role embeds no captions.
    """
    extractor: object = networks.get("captions")
    if not isinstance(extractor, TextEncoder):
        raise SettingError(f"`{networks.roles.captions.label}` embeds no captions", hint="take `clip` or `shapes_clip`")
    network = networks.get("captions")
    images = extract_layers(pictures, network, ("features",), what="captioned samples", tell=tell)["features"]
    words = [f"{prefix}{caption}" for caption in captions]
    with torch.no_grad():
        texts = torch.cat([extractor.encode_text(words[i : i + 256]).cpu() for i in range(0, len(words), 256)])
    return CaptionEvidence(
        images=images,
        texts=texts,
        extractor=networks.ref("captions").name,
        protocol={**network.protocol(), "prefix": prefix},
    )


def asked_factors(dataset: Dataset, captions: Sequence[str]) -> Tensor | None:
    """Factors that captions ask for, by the data set's own sentences; None where it has none or not these."""
    spec = dataset.spec
    if not spec.vocabulary or not spec.factors:
        return None
    known: dict[str, Tensor] = {}
    for split in dataset.splits:
        batch = dataset.load(split, np.arange(_NUM_SENTENCES))
        if batch.text is not None and batch.factors is not None:
            for tokens, factors in zip(batch.text, batch.factors, strict=True):
                known.setdefault(spec.caption(tokens), factors)
    found = [known.get(" ".join(caption.lower().split())) for caption in captions]
    return None if any(row is None for row in found) else torch.stack([row for row in found if row is not None])
