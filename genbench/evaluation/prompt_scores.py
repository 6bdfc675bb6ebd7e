"""How well each picture shows its own words, picture by picture, and the worst and the best of them."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from genbench.core.errors import SampleError
from genbench.core.metric import CaptionEvidence
from genbench.core.spec import Scalar
from genbench.evaluation.pictures import Pictures
from genbench.metrics.clip_score import caption_cosines

NUM_SHOWN = 10
"""Pictures of the worst, and of the best, that are kept to be looked at."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptScores:
    """A score for each sample, in the order of their files; their mean is the CLIP score in its scaling `cosine`."""

    names: tuple[str, ...]
    """What the samples are called."""
    prompts: tuple[str, ...]
    cosines: np.ndarray
    """(N,) float64, -1 .. 1."""
    protocol: dict[str, Scalar]
    """Of the dual encoder."""
    worst: tuple[int, ...]
    """Places of the samples that show their words least, worst first; at most half of all."""
    best: tuple[int, ...]
    """Of those that show them most, best first."""
    worst_images: Tensor
    """(n, 3, H, W) uint8."""
    best_images: Tensor


def prompt_scores(pictures: Pictures, prompts: list[str], evidence: CaptionEvidence) -> PromptScores:
    """Scores of all pictures, with the pictures of the worst and of the best ten.

    Args:
        pictures: N, at least 2.
        prompts: of each.
        evidence: embeddings of both.

    Raises:
        SampleError: fewer than 2 pictures.
        ValueError: embeddings that a CLIP score refuses.
    """
    if len(prompts) < 2:
        raise SampleError(
            f"scores of prompts set pictures against each other and need at least 2, found {len(prompts)}",
            hint="add prompts, or draw more for each: `genbench sample ... --per-prompt 2`",
        )
    files = np.argsort(pictures.file_order())  # splits may have taken them apart
    cosines, names = caption_cosines(evidence.images, evidence.texts)[files], pictures.names()
    order = np.argsort(cosines, kind="stable")
    shown = min(NUM_SHOWN, len(order) // 2)
    worst, best = order[:shown], order[::-1][:shown]
    return PromptScores(
        names=tuple(names[place] for place in files),
        prompts=tuple(prompts[place] for place in files),
        cosines=cosines,
        protocol={**evidence.protocol, "extractor": evidence.extractor},
        worst=tuple(worst.tolist()),
        best=tuple(best.tolist()),
        worst_images=pictures.at(files[worst]),
        best_images=pictures.at(files[best]),
    )
