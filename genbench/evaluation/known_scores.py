"""Scores that are known from a formula, of made-up evidence that needs no features: the selftest's longest list."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from genbench.core.dataset import Factor
from genbench.core.features import FactorPredictions
from genbench.core.metric import (
    CaptionEvidence,
    CodeEvidence,
    Evidence,
    FactorEvidence,
    LabelEvidence,
    LatentEvidence,
    LikelihoodEvidence,
    LogitEvidence,
    PairEvidence,
    ReconstructionEvidence,
    ReconstructionFeatureEvidence,
    TextEvidence,
    VectorEvidence,
)

EXACT = 1e-9
_NET = "made_up"


class KnownScore(NamedTuple):
    """What a metric must say of some evidence."""

    metric: str
    """A reference, with settings."""
    what: str
    """The evidence in words."""
    evidence: Evidence
    value: float
    score: str = ""
    """Name of the score; empty is the first."""
    tolerance: float = EXACT


def known_scores() -> Iterator[KnownScore]:
    """Of samples, likelihoods and captions, then of codes and points, then of texts."""
    yield from _of_samples()
    yield from _of_codes()
    yield from _of_texts()


def _of_samples() -> Iterator[KnownScore]:
    hot = 1000.0 * torch.eye(5, dtype=torch.float64).repeat(20, 1)
    sure, vague = (Evidence(logits=LogitEvidence(samples=s, extractor=_NET, protocol={})) for s in (hot, 0.0 * hot))
    yield KnownScore("inception_score[preset=single]", "sure of 5 classes", sure, 5.0)
    yield KnownScore("inception_score", "sure of nothing", vague, 1.0)
    asked, seen = torch.arange(5).repeat(20), torch.cat([hot[:75], hot[75:].roll(1, 1)])
    labels = Evidence(labels=LabelEvidence(asked=asked, logits=seen, extractor=_NET, protocol={}))
    yield KnownScore("class_accuracy", "three of four right", labels, 0.75)
    nats = torch.full((20,), -12 * math.log(256), dtype=torch.float64)
    flat = LikelihoodEvidence(nats=nats, kind="exact", num_dims=12, levels=256)
    yield KnownScore("bits_per_dim", "the uniform law of bytes", Evidence(likelihood=flat), 8.0)
    apart = LikelihoodEvidence(nats=nats, kind="exact", num_dims=12, levels=None, true_nats=nats + 0.5)
    yield KnownScore("exact_kl", "densities half a nat apart", Evidence(likelihood=apart), 0.5)
    image, text = torch.tensor([[1.0, 0.0]]).repeat(8, 1), torch.tensor([[0.5, math.sqrt(0.75)]]).repeat(8, 1)
    captions = Evidence(captions=CaptionEvidence(images=image, texts=text, extractor=_NET, protocol={}))
    yield KnownScore("clip_score", "sixty degrees", captions, 0.5, tolerance=1e-6)  # single precision
    pairs = PairEvidence(distances=torch.arange(1.0, 5.0), extractor=_NET, protocol={})
    yield KnownScore("lpips_diversity", "distances 1 .. 4", Evidence(pairs=pairs), 2.5)
    grey = torch.full((4, 3, 16, 16), 100, dtype=torch.uint8)
    brighter, equal = (ReconstructionEvidence(originals=grey, reconstructions=grey + more) for more in (5, 0))
    yield KnownScore(
        "reconstruction", "errors of 5", Evidence(reconstructions=brighter), 20 * math.log10(51), score="psnr"
    )
    yield KnownScore("reconstruction", "equal pictures", Evidence(reconstructions=equal), 1.0, score="ssim")
    far = ReconstructionFeatureEvidence(originals=hot / 1e3, reconstructions=hot / 1e3 + 2, extractor=_NET, protocol={})
    yield KnownScore("reconstruction_frechet", "5 features moved by 2", Evidence(reconstruction_features=far), 20.0)


def _of_codes() -> Iterator[KnownScore]:
    pairs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    names = tuple(Factor(name, ("0", "1")) for name in ("shape", "colour"))
    read = FactorPredictions(pairs[:2].repeat(10, 1), torch.ones(20), names)
    factors = Evidence(factors=FactorEvidence(samples=read, training=pairs, asked=pairs.repeat(5, 1)))
    yield KnownScore("mode_coverage", "two of four", factors, 0.5, score="mode_coverage")
    yield KnownScore("caption_accuracy", "half right", factors, 0.5, score="caption_accuracy")
    codes = Evidence(codes=CodeEvidence(codes=torch.arange(4).repeat(10, 2), num_codes=8, num_dims=16))
    yield KnownScore("codebook_usage", "four codes of eight", codes, 0.5, score="codebook_usage")
    yield KnownScore("codebook_usage", "four codes of eight", codes, 4.0, score="codebook_perplexity")
    yield KnownScore("code_rate", "four codes of eight", codes, 1.0, score="code_entropy_rate")
    grid = torch.cartesian_prod(*[torch.arange(2)] * 3).repeat(30, 1)
    latents = Evidence(latents=LatentEvidence(codes=grid.double(), factors=grid))
    forms = {"mig": ("mig",), "factor_vae_score": ("factor_vae_score",), "modularity": ("modularity", "explicitness")}
    forms["dci"] = ("disentanglement", "completeness", "informativeness")
    for metric, score in ((metric, score) for metric, scores in forms.items() for score in scores):
        yield KnownScore(metric, "the factors themselves", latents, 1.0, score=score, tolerance=1e-6)
    twice = Evidence(latents=LatentEvidence(codes=grid.double().repeat(1, 2), factors=grid))
    for metric in ("mig", "sap"):
        yield KnownScore(metric, "every factor told twice", twice, 0.0)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 2)))
    moved = Evidence(vectors=VectorEvidence(samples=x + torch.tensor([3.0, 0.0]), reference=x))
    line = Evidence(vectors=VectorEvidence(samples=x[:, :1] + 3.0, reference=x[:, :1]))
    far = Evidence(vectors=VectorEvidence(samples=x + 1000.0, reference=x))
    yield KnownScore("vector_wasserstein", "a shift by 3 on a line", line, 3.0)
    yield KnownScore("sinkhorn_divergence", "a shift by 3", moved, 9.0, tolerance=1e-3)  # stops short of the optimum
    yield KnownScore("classifier_two_sample", "points far apart", far, 1.0, score="c2st")


def _of_texts() -> Iterator[KnownScore]:
    question = torch.tensor([False, False, True, True])
    named = torch.tensor([[0], [1], [0], [1]])
    said = TextEvidence(
        shots=(1,),
        right=torch.tensor([[True, False, True, True]]),
        question=question,
        named=named,
        read=torch.tensor([[[0], [1], [0], [-1]]]),
        factors=("shape",),
        nats=torch.full((1, 4), -6 * math.log(2), dtype=torch.float64),
        num_tokens=torch.full((4,), 3),
    )
    evidence = Evidence(texts=said)
    yield KnownScore("text_match", "one caption of two", evidence, 0.5, score="caption_match_1shot")
    yield KnownScore("text_match", "both answers", evidence, 1.0, score="answer_match_1shot")
    yield KnownScore("text_accuracy", "three shapes of four", evidence, 0.75, score="text_accuracy_shape_1shot")
    yield KnownScore("text_nll", "two coins a word", evidence, 2 * math.log(2), score="text_nll_1shot")
