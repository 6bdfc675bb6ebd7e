"""VAR: an image as grids of codes from coarse to fine, each drawn at once given those before it.

Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction. Keyu Tian, Yi Jiang, Zehuan Yuan,
Bingyue Peng and Liwei Wang, 2024, 2404.02905.

An autoencoder quantises features on several grids, each of what the coarser ones have left over. A transformer draws
one whole grid after another: as many steps as there are scales, whatever the number of codes.

Symbols: f features, r_k codes on scale k of sides s_k, f^_k what scales 1 .. k make of f, s strength of guidance.

- First stage: the judged autoencoder of `vqgan` with the quantiser of `genbench.nn.multi_scale_quantizer` (Algorithms 1
  and 2); the loss adds, in the mean over the scales,  beta |f - sg(f^_k)|^2 + |sg(f) - f^_k|^2,  whose second term
  trains the filters, and the codebook where it does not follow running means.
- Phase `prior`:  -sum_k log p(r_k | r_1 .. r_(k-1)) with the first stage frozen (Eq. 6). Elements of scale k enter as
  f^_(k-1) pooled to s_k; `genbench.nn.scale_transformer` lets each see all of its own and of earlier scales (Sec. 3.2).
- Sampling: one evaluation of the transformer for each scale, with keys and values kept. Guidance grows with the scales
  as in the authors' code:  logits = (1 + s t) with - s t without the condition, t from 0 on the first to 1 on the last.
- Images are decoded from drawn codes. There is no p(x|r), hence no likelihood of pixels.

**Departures**
- Shifts, scales and gates of the transformer's layers start at zero, as in `dit`; attention is not normalised.
- k-means on the first batch starts the codebook, which has running means in `smoke` and `small`, and codes without
  followers restart, as in `vqvae`; pictures are judged there without published weights, see `vqgan`.
- `smoke` and `small` are unconditional; draws are from all codes unless `top_k` says otherwise, and there is no top-p.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import IterativeSampler, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._picture_autoencoder import Perceptual
from genbench.models._two_stage import JudgedCodes
from genbench.nn._categorical_head import draw
from genbench.nn.causal_transformer import most_probable
from genbench.nn.multi_scale_quantizer import MultiScaleQuantizer
from genbench.nn.scale_transformer import ScaleTransformer
from genbench.nn.transformer import CacheKind
from genbench.nn.vector_quantizer import Codebook

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("var")
class VAR(ConditionalSampling, JudgedCodes, IterativeSampler):
    """A judged autoencoder with codes on many scales, and a transformer over the scales."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_codes: Count = 128
        """Size of the codebook of all scales, K."""
        code_dim: Count = 16
        """Length of a code vector."""
        num_halvings: Count = 2
        """The finest grid of codes has 2**num_halvings fewer rows than the image."""
        sides: str = ""
        """Sides of the grids joined by `x`, as far as they are below the finest, which is always there; empty: 1, 2,
        4, 8 and so on."""
        width: Count = 32
        """Channels of every grid of encoder and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of either network."""
        codebook: Codebook = "ema"
        """`ema`: codes follow running means of their features; `gradient`: the optimiser pulls them there."""
        commitment: NonNegative = 0.25
        """Weight beta of the encoder's distance to its codes."""
        decay: Fraction = 0.99
        """Of the codebook's running means, or of the counts that tell which codes are dead."""
        revival_share: Share = 0.05
        """A code chosen less often than this share of the mean is restarted; 0 lets codes die."""
        perceptual: Perceptual = "discriminator"
        """Perceptual distance: of the discriminator's activations, or `lpips`, whose weights must be at hand."""
        perceptual_weight: NonNegative = 1.0
        adversarial_weight: NonNegative = 0.8
        """Of the adversarial gradient in units of the other's; 0 trains without a discriminator's verdict."""
        discriminator_width: Count = 32
        """Channels of its first layer."""
        adversarial_share: OpenShare = 0.2
        """Share of the samples seen that trains autoencoder and discriminator together."""
        prior_width: Count = 64
        prior_layers: Count = 4
        prior_heads: Count = 4
        prior_share: OpenShare = 0.5
        """Share of the samples seen that trains the transformer."""
        condition: Literal["none", "class", "text"] = "none"
        """What the transformer is told of an image."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        learning_rate: Positive = 2e-3
        adversarial_learning_rate: Positive = 5e-4
        """Of autoencoder and discriminator in the second phase."""
        prior_learning_rate: Positive = 2e-3
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if self.sides and not all(part.isdecimal() for part in self.sides.split("x")):
                raise ValueError(f"`sides` is {self.sides!r}, expected numbers joined by `x`, such as 1x2x3x4")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How codes are drawn."""

        guidance: NonNegative = 0.0
        """s; 0 follows the condition as trained, more exaggerates it at twice the evaluations."""
        top_k: Whole = 0
        """Codes are drawn among the most probable ones; 0 draws among all."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(
            num_codes=64,
            num_halvings=1,
            decay=0.95,
            discriminator_width=16,
            prior_width=32,
            prior_layers=2,
            adversarial_learning_rate=2e-3,
        ),
        "small": Config(),
        "paper": Config(
            num_codes=4096,
            code_dim=32,
            num_halvings=4,
            sides="1x2x3x4x5x6x8x10x13x16",
            width=160,
            num_blocks=2,
            codebook="gradient",
            perceptual="lpips",
            discriminator_width=64,
            prior_width=1024,
            prior_layers=16,
            prior_heads=16,
            condition="class",
            learning_rate=1e-4,
            adversarial_learning_rate=1e-4,
            prior_learning_rate=1e-4,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Sampling(),
        "small": Sampling(),
        "paper": Sampling(guidance=1.5, top_k=900),
    }
    config: Config
    sampling: Sampling
    quantizer: MultiScaleQuantizer

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.prior = ScaleTransformer(
            num_levels=config.num_codes,
            input_dim=config.code_dim,
            sides=self.quantizer.sides,
            width=config.prior_width,
            num_layers=config.prior_layers,
            num_heads=config.prior_heads,
        )
        self.conditioner = conditioner_for(spec, config, config.prior_width, owner="var")

    def make_quantizer(self) -> MultiScaleQuantizer:
        """One codebook for all scales."""
        c = self.config
        sides = rising_sides(self.code_side, c.sides)
        return MultiScaleQuantizer(
            c.num_codes, c.code_dim, sides, decay=c.decay, revival_share=c.revival_share, codebook=c.codebook
        )

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    @property
    def network(self) -> ScaleTransformer:
        """The transformer."""
        return self.prior

    @property
    def second_stage(self) -> tuple[nn.Module, ...]:
        """The transformer, and what it is told by."""
        return self.learners(self.prior)

    def prior_loss(self, batch: Batch) -> Loss:
        """Nats per code of all scales; the first stage is frozen."""
        codes = self.encode(batch.x)
        logits = self.prior(self._inputs(codes), self.told_in_training(batch))
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten())
        return Loss(nats, {"nats_per_code": nats.detach()})

    @torch.no_grad()
    def log_prob_of_codes(self, codes: Tensor, told: Tensor | None = None) -> Tensor:
        """Log-probability of codes (B, L) of all scales: (B,) nats."""
        logits = self.prior(self._inputs(codes), told)
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none")
        return -nats.view(codes.shape).sum(1)

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw one scale after another and decode them: (N, C, H, W) uint8."""
        return self.decode(self.drawn(num_samples, self.told(condition), generator=generator))

    @torch.no_grad()
    def drawn(
        self, num_samples: int, told: Tensor | None, *, generator: Generator, cache: CacheKind | None = None
    ) -> Tensor:
        """Draw codes of all scales, (N, L) int64; keys and values are computed once for every element.

        Args:
            num_samples: N.
            told: (N, w), vectors of conditions, or None.
            generator: one uniform number is drawn for each code.
            cache: how keys and values are kept; None goes by the device.
        """
        how, sides = self.sampling, self.quantizer.sides
        device = self.prior.start.device
        uniforms = torch.rand(num_samples, self.prior.length, generator=generator, device=device)
        told, copies = self._with_and_without(num_samples, told)
        caches = self.prior.empty_caches(copies * num_samples, cache)
        inputs = torch.zeros(num_samples, 0, self.config.code_dim, device=device)
        total = torch.zeros(num_samples, self.config.code_dim, sides[-1], sides[-1], device=device)
        codes, begin = [], 0
        for k, (side, u) in enumerate(zip(sides, uniforms.split(self.quantizer.counts, dim=1), strict=True)):
            logits = self.prior(inputs.repeat(copies, 1, 1), told, begin=begin, caches=caches)
            logits = most_probable(_guided(logits, copies, how.guidance * k / max(1, len(sides) - 1)), how.top_k)
            codes.append(draw(logits, u.flatten()).view(num_samples, side**2))
            begin += side**2
            if k + 1 < len(sides):
                total = total + self.quantizer.risen(codes[-1].unflatten(1, (side, side)), k)
                inputs = self.quantizer.seen_by_next(total, k + 1)
        return torch.cat(codes, dim=1)

    def _with_and_without(self, num_samples: int, told: Tensor | None) -> tuple[Tensor | None, int]:
        """What each row of the network is told, and how many rows there are for each sample."""
        if self.conditioner is None:
            return None, 1
        nothing = self.conditioner.no_condition(num_samples)
        if told is None or self.sampling.guidance == 0.0:
            return (nothing if told is None else told), 1
        return torch.cat([told, nothing]), 2

    def _inputs(self, codes: Tensor) -> Tensor:
        """What the transformer is told of codes (B, L): (B, L - 1, D), without gradient."""
        with torch.no_grad():
            return self.quantizer.seen_by_all(codes)


def rising_sides(finest: int, asked: str) -> list[int]:
    """Sides of the grids: those asked for below the finest, or powers of 2, and the finest."""
    sides = [int(part) for part in asked.split("x")] if asked else [2**i for i in range(finest.bit_length())]
    return [*sorted({side for side in sides if side < finest}), finest]


def _guided(logits: Tensor, copies: int, strength: float) -> Tensor:
    """Logits (copies N, n, K) as (N n, K), of the rows with a condition less those without where there are both."""
    if copies == 1:
        return logits.flatten(0, 1)
    with_condition, without = logits.chunk(2)
    return torch.lerp(without, with_condition, 1.0 + strength).flatten(0, 1)
