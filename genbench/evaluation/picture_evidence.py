"""Evidence from the pictures themselves: pairs of them, and pictures beside captions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset
from genbench.core.errors import SampleError
from genbench.core.features import TextEncoder
from genbench.core.metric import CaptionEvidence, PairEvidence
from genbench.evaluation.extraction import extract_layers
from genbench.evaluation.networks import Networks
from genbench.evaluation.options import Options
from genbench.evaluation.perceptual import NUM_PAIRS, perceptual_distances
from genbench.evaluation.pictures import Pictures

_PAIR_SEED = 0
_NUM_SENTENCES = 20_000
"""Examples of each split whose sentences are learnt, at most, so that captions can be read."""
_SENTENCES = 1_000
"""Of these in one go: fewer than all are needed where captions repeat."""
_TEXTS = 256
"""Captions embedded at once."""


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
    a, b = pictures.at(np.concatenate([first, second])).split(len(first))
    return PairEvidence(
        distances=perceptual_distances(networks.perceptual(), a, b),
        classes=classes,
        extractor=networks.ref("perceptual").name,
        protocol={**networks.get("perceptual").protocol(), "resolution": a.shape[-1]},
    )


def caption_evidence(
    pictures: Pictures,
    captions: Sequence[str],
    references: Sequence[Sequence[str]] | None,
    networks: Networks,
    *,
    options: Options,
) -> CaptionEvidence:
    """Embeddings of pictures, of their captions, and of reference captions where there are some.

    Raises:
        SettingError: the extractor in that role embeds no captions.
        SampleError: it cannot embed these.
    """
    encoder, network = networks.text_encoder(), networks.get("captions")
    images = extract_layers(
        pictures, network, ("features",), caching=options.caching, what="captioned samples", tell=options.tell
    )["features"]
    texts = _embedded(captions, encoder, options.caption_prefix)
    compared = None
    if references is not None:
        most = max(len(several) for several in references)
        filled = [one for several in references for one in (*several, *[several[0]] * (most - len(several)))]
        compared = _embedded(filled, encoder, options.caption_prefix).view(len(references), most, -1)
    return CaptionEvidence(
        images=images,
        texts=texts,
        references=compared,
        extractor=networks.ref("captions").name,
        protocol={**network.protocol(), "prefix": options.caption_prefix},
    )


@torch.no_grad()
def _embedded(captions: Sequence[str], encoder: TextEncoder, prefix: str) -> Tensor:
    """Embeddings (N, E) of captions on the CPU; equal ones are embedded once."""
    distinct = list(dict.fromkeys(captions))
    words = [f"{prefix}{caption}" for caption in distinct]
    try:
        parts = [encoder.encode_text(words[i : i + _TEXTS]).cpu() for i in range(0, len(words), _TEXTS)]
    except ValueError as error:
        raise SampleError(
            f"a caption cannot be embedded: {error}", hint="name another network with `--text-encoder`"
        ) from error
    place = {caption: row for row, caption in enumerate(distinct)}
    return torch.cat(parts)[[place[caption] for caption in captions]]


def asked_factors(dataset: Dataset, captions: Sequence[str]) -> Tensor | None:
    """Factors that captions ask for, by the data set's own sentences; None where it has none or not these."""
    spec = dataset.spec
    wanted = [" ".join(caption.lower().split()) for caption in captions]
    words = set(spec.vocabulary)
    if not spec.factors or not all(words.issuperset(sentence.split()) for sentence in set(wanted)):
        return None
    known: dict[str, Tensor] = {}
    for batch in _spoken_of(dataset):
        assert batch.text is not None
        assert batch.factors is not None
        for tokens, factors in zip(batch.text, batch.factors, strict=True):
            known.setdefault(spec.caption(tokens), factors)
        if known.keys() >= set(wanted):
            return torch.stack([known[sentence] for sentence in wanted])
    return None


def _spoken_of(dataset: Dataset) -> Iterator[Batch]:
    """Examples with captions from every split in turn, until each combination of factors was spoken of."""
    tables = [dataset.combinations(split) for split in dataset.splits]
    unseen = {tuple(row) for table in tables if table is not None for row in table.tolist()}
    for start, split in itertools.product(range(0, _NUM_SENTENCES, _SENTENCES), dataset.splits):
        size = dataset.size(split)
        stop = start + _SENTENCES if size is None else min(start + _SENTENCES, size)
        batch = dataset.load(split, np.arange(start, stop))
        if batch.text is None or batch.factors is None:
            return
        yield batch
        unseen -= {tuple(row) for row in batch.factors.tolist()}
        if not unseen:
            return
