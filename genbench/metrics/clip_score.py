"""How well samples show their captions: cosine of image and text in the space of a dual encoder.

With c_i = cos(image_i, text_i), one number in three scalings that print uses side by side:

    cosine    mean_i c_i                    as text-to-image papers mostly plot it (the default)
    times100  mean_i 100 max(c_i, 0)        as libraries print it
    hessel    mean_i 2.5 max(c_i, 0)        CLIP-S of Hessel et al. 2021, arXiv:2104.08718, Sec. 3

The maximum is taken sample by sample: captions that do not fit count 0 and not against the others.
`hessel` is meant for captions with `HESSEL_PREFIX` in front, which whoever encodes them must put
there and name in the protocol as `prefix`; without it the score says `prefix: ""`.

A judge that has itself steered the samples to their captions, or picked them, is no independent one: steering raises
the score by means that no eye sees. Such a score is a `steered_clip_score`, and is never ranked with the others.

With reference captions r of image i (ibid., Sec. 3), the harmonic mean

    ref_clip_score  mean_i 2 a_i b_i / (a_i + b_i),  a_i = 2.5 max(c_i, 0),  b_i = max(max_r cos(text_i, r), 0)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from genbench.core.metric import CaptionEvidence, Evidence, Metric, Need, ScoreName, register_metric
from genbench.core.record import Score
from genbench.core.spec import Scalar
from genbench.metrics._features import Features, finite_rows
from genbench.metrics._scores import scored
from genbench.prob.intervals import Estimate, mean_estimate

Preset = Literal["cosine", "times100", "hessel"]

HESSEL_PREFIX = "A photo depicts "
"""Put before every caption by Hessel et al. 2021, Sec. 3."""
HESSEL_WEIGHT = 2.5
"""w of Hessel et al. 2021, Sec. 3: stretches what CLIP gives to about 0 .. 1."""
_HOW = "spread over samples"


def clip_score(images: Features, texts: Features, *, preset: Preset = "cosine") -> Estimate:
    """Mean similarity of samples to their captions, with the standard error of a mean over samples.

    -1 .. 1 for `cosine`, 0 .. 100 for `times100`, 0 .. 2.5 for `hessel`; the formulas stand at the head of this
    module. The lengths of the embeddings do not matter.

    Args:
        images: (N, E) float, N at least 2.
        texts: (N, E) float; row i is the caption of sample i.
        preset: the scaling.

    Raises:
        ValueError: fewer than 2 samples, unequal shapes, or embeddings that are not finite or of length 0.
    """
    cosines = caption_cosines(images, texts)
    if preset == "cosine":
        return mean_estimate(cosines, how=_HOW, low=-1.0, high=1.0)
    weight = {"times100": 100.0, "hessel": HESSEL_WEIGHT}[preset]
    return mean_estimate(weight * np.maximum(cosines, 0.0), how=_HOW, low=0.0, high=weight)


def caption_cosines(images: Features, texts: Features) -> np.ndarray:
    """Cosine of each sample and its caption: (N,) float64, -1 .. 1; arguments and errors as of `clip_score`."""
    shown, asked = _embeddings(images, texts)
    cosines = (_directions(shown, "samples") * _directions(asked, "captions", like=shown)).sum(axis=1)
    return np.asarray(cosines)


def ref_clip_score(images: Features, texts: Features, references: np.ndarray | Tensor) -> Estimate:
    """RefCLIPScore: harmonic mean of CLIP-S and the caption's similarity to the nearest reference, 0 .. 10/7.

    Args:
        images: (N, E) float, N at least 2.
        texts: (N, E) float.
        references: (N, R, E) float, R at least 1; a missing one may repeat another of the same image.

    Raises:
        ValueError: as `clip_score`, or references of another shape.
    """
    images, texts = _embeddings(images, texts)
    references = torch.as_tensor(references)
    if references.ndim != 3 or references.shape[1] == 0 or references.shape[::2] != images.shape:
        raise ValueError(
            f"reference captions of {len(images)} samples must have shape (N, R, E), found {tuple(references.shape)}"
        )
    rows = finite_rows(references.flatten(0, 1), name="references", what="embeddings")
    flat = _directions(rows, "reference captions").reshape(tuple(references.shape))
    asked = _directions(texts, "captions", like=images)
    shown = HESSEL_WEIGHT * np.maximum((_directions(images, "samples") * asked).sum(axis=1), 0.0)
    near = np.maximum(np.einsum("nre,ne->nr", flat, asked).max(axis=1), 0.0)
    total = shown + near
    harmonic = np.divide(2.0 * shown * near, total, out=np.zeros_like(total), where=total > 0.0)
    return mean_estimate(harmonic, how=_HOW, low=0.0, high=2.0 * HESSEL_WEIGHT / (HESSEL_WEIGHT + 1.0))


@register_metric("clip_score")
@dataclass(frozen=True)
class CLIPScore(Metric):
    """`clip_score`, and `ref_clip_score` where there are reference captions."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.CAPTIONS})
    gives: ClassVar[tuple[ScoreName, ...]] = (
        ScoreName("clip_score", "higher"),
        ScoreName("ref_clip_score", "higher"),
        ScoreName("seen_clip_score", "higher"),
        ScoreName("steered_clip_score", "higher"),
        ScoreName("steered_seen_clip_score", "higher"),
    )
    source: ClassVar[str] = "Hessel et al. 2021, arXiv:2104.08718, Sec. 3"

    preset: Preset = "cosine"
    """Scaling: the mean cosine, which text-to-image papers mostly plot; 100 or 2.5 times its positive part."""

    captions: Literal["held_out", "seen"] = "held_out"
    """What a model is asked for: combinations that its training data hold back, where they do, or those they show."""

    @property
    def asks_seen(self) -> bool:
        """As set; the score is then `seen_clip_score`."""
        return self.captions == "seen"

    @property
    def caption_prefix(self) -> str:
        """That of the original for its scaling, none for the others."""
        return HESSEL_PREFIX if self.preset == "hessel" else ""

    def compute(self, evidence: Evidence) -> tuple[Score, ...]:
        """One score, or two.

        Raises:
            ValueError: no captions, or embeddings that the functions above refuse.
        """
        found = evidence.captions
        if found is None:
            raise ValueError("a CLIP score needs embeddings of at least 2 samples and their captions, found none")
        name = "seen_clip_score" if self.asks_seen else "clip_score"
        name = name if found.steered_by is None else f"steered_{name}"
        scores = [self._score(name, clip_score(found.images, found.texts, preset=self.preset), found)]
        if found.references is not None:
            estimate = ref_clip_score(found.images, found.texts, found.references)
            scores.append(self._score("ref_clip_score", estimate, found))
        return tuple(scores)

    def _score(self, name: str, estimate: Estimate, found: CaptionEvidence) -> Score:
        preset = "hessel" if name == "ref_clip_score" else self.preset
        protocol: dict[str, Scalar] = {"prefix": "", **found.protocol, "extractor": found.extractor, "preset": preset}
        if found.steered_by is not None:
            protocol["steered_by"] = found.steered_by
        return scored(name, estimate, better="higher", num_samples=len(found.images), protocol=protocol)


def _embeddings(images: Features, texts: Features) -> tuple[Tensor, Tensor]:
    named = (("images", images), ("texts", texts))
    shown, asked = (finite_rows(values, name=name, what="embeddings") for name, values in named)
    return shown, asked


def _directions(embeddings: Tensor, what: str, *, like: Tensor | None = None) -> np.ndarray:
    """Embeddings (N, E) of unit length, float64 before anything is summed."""
    expected = embeddings.shape if like is None else like.shape
    if len(embeddings) < 2 or embeddings.shape != expected:
        raise ValueError(
            "a CLIP score needs embeddings (N, E) of at least 2 samples and as many of their captions, "
            f"found {what} of shape {tuple(embeddings.shape)}, expected {tuple(expected)}"
        )
    values = embeddings.double().cpu().numpy()
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    if lengths.min() == 0.0:
        raise ValueError(f"a CLIP score needs embeddings of positive length, found one of length 0 among {what}")
    return np.asarray(values / lengths)
