"""Evidence of what a model says of pictures: after no shots, after a few, and after as many as an episode has."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.core.dataset import Batch, Dataset
from genbench.core.metric import Need, TextEvidence
from genbench.core.model import CaptionModel, GenerativeModel
from genbench.core.spec import Cell
from genbench.core.texts import NamesFactors, asks, counted, questions_of
from genbench.harness.evidence import subset
from genbench.harness.sample import device_of

SHOTS = (8, 4, 2, 1, 0)
"""Shots that a model is asked after, the most first; those that an episode does not have are left out."""
_BATCH = 64


def shots_of(dataset: Dataset) -> tuple[int, ...]:
    """Numbers of shots that episodes of the data have room for, the most first."""
    return tuple(shots for shots in SHOTS if shots < dataset.spec.shape[0])


def gather_texts(
    needs: frozenset[Need], cell: Cell, dataset: Dataset, samples: Tensor, model: GenerativeModel | None
) -> TextEvidence:
    """What is said of the last picture of held-out episodes, after each number of shots.

    Args:
        needs: kinds of evidence that `applicable` has found to be there.
        cell: gives the number of episodes.
        dataset: of texts.
        samples: (N, S, T), texts of a control; those of a model are written here.
        model: on its device; None for a control, whose texts do not depend on shots.
    """
    names: object = dataset
    if not isinstance(names, NamesFactors):
        raise TypeError("texts were asked of data that cannot say what a text names")
    shots = shots_of(dataset)
    count = len(samples) if model is None else cell.protocol.num_likelihood
    episodes = subset(dataset, "test", count)
    true = episodes.x[:, -1]
    said = [samples[:, -1] if model is None else described(model, episodes, shots=number) for number in shots]
    nats = None
    if model is not None and Need.TEXT_LIKELIHOOD in needs:
        nats = torch.stack([_log_likelihoods(model, episodes, shots=number) for number in shots])
    return TextEvidence(
        shots=shots,
        right=torch.stack([(texts == true).all(1) for texts in said]),
        question=asks(true, dataset.spec.vocabulary),
        named=names.named_factors(true),
        read=torch.stack([names.named_factors(texts) for texts in said]),
        factors=tuple(factor.name for factor in dataset.spec.factors),
        nats=nats,
        num_tokens=counted(true, dataset.spec.vocabulary).sum(1),
        protocol={"split": "test", "words": "the most probable, one after another"},
    )


@torch.no_grad()
def described(model: GenerativeModel, episodes: Batch, *, shots: int) -> Tensor:
    """Texts that a model writes of the last picture of each episode, on the CPU: (N, T) uint8.

    Args:
        model: a `CaptionModel`, on its device.
        episodes: whose last `shots` pictures before the last one come first, with their texts; of the last text the
            model is given the question.
        shots: how many.
    """
    writer: object = model
    if not isinstance(writer, CaptionModel):
        raise TypeError("a text was asked of a model that writes none")
    found = []
    for pictures, texts in _prompts(episodes, shots, device_of(model)):
        texts[:, -1] = questions_of(texts[:, -1], model.spec.vocabulary)
        found.append(writer.describe(pictures, texts, generator=None).cpu())
    return torch.cat(found)


@torch.no_grad()
def _log_likelihoods(model: GenerativeModel, episodes: Batch, *, shots: int) -> Tensor:
    """Of the true last texts: (N,) float64 nats, on the CPU."""
    scorer: object = model
    if not isinstance(scorer, CaptionModel):
        raise TypeError("the likelihood of a text was asked of a model that writes none")
    prompts = _prompts(episodes, shots, device_of(model))
    return torch.cat([scorer.text_log_likelihood(*prompt).double().cpu() for prompt in prompts])


def _prompts(episodes: Batch, shots: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Pictures (B, shots + 1, C, H, W) and texts (B, shots + 1, T) of all episodes, in batches."""
    assert episodes.pictures is not None  # `applicable` has refused data without texts of pictures
    pictures, texts = episodes.pictures[:, -shots - 1 :], episodes.x[:, -shots - 1 :].clone()
    return [
        (some.to(device), said.to(device))
        for some, said in zip(pictures.split(_BATCH), texts.split(_BATCH), strict=True)
    ]
