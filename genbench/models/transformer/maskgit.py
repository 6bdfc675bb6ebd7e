"""MaskGIT: codes of an image filled in many at a time, the surest first, by a transformer that sees both ways.

MaskGIT: Masked Generative Image Transformer. Huiwen Chang, Han Zhang, Lu Jiang, Ce Liu and William T. Freeman, 2022,
2202.04200.

Codes of an image have no natural order. A transformer learns to guess hidden codes from those shown, whichever they
are; an image then starts with all codes hidden, and in each of a few steps the guesses that the transformer is surest
of stay.

Symbols: codes Y of N places, gamma(r) = cos(pi r / 2) share that is hidden at progress r, T steps, tau temperature of
the choice, K codes.

- First stage: the judged autoencoder of `vqgan`, with its phases `reconstruction` and `adversarial`.
- Phase `prior` (Sec. 3.1, Eq. 1): r ~ U(0, 1); ceil(gamma(r) N) places, drawn at random, are hidden; the loss is the
  cross-entropy of the hidden places, with smoothed labels.
- Sampling (Sec. 3.2): step t draws every hidden place from its softmax; then floor(gamma(t / T) N) of the places that
  were hidden are hidden again, those of the least log p(draw) + tau (1 - t / T) g, g a Gumbel draw. Each step keeps at
  least one more, and the last hides none. With `tau` above 0 it is not always the surest that stay.
- Images are decoded from drawn codes. There is no p(x|Y), hence no likelihood of pixels.

**Departures**
- The transformer normalises before its layers, where the paper's does so after them; no weight decay.
- A condition is one more element in front, as in the paper; it is left out in a tenth of the examples.
- `smoke` and `small` are unconditional and judge pictures without published weights, see `vqgan`.
- The temperature is that of the authors' code.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import IterativeSampler, Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Share
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.models._picture_autoencoder import Perceptual
from genbench.models._two_stage import JudgedCodes
from genbench.nn._categorical_head import draw
from genbench.nn.masked_transformer import MaskedTransformer
from genbench.nn.vector_quantizer import Codebook, Gradient, VectorQuantizer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("maskgit")
class MaskGIT(ConditionalSampling, JudgedCodes, IterativeSampler):
    """A judged autoencoder with discrete codes, and a transformer that fills in hidden ones."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        num_codes: Count = 128
        """Size of the codebook, K."""
        code_dim: Count = 16
        """Length of a code vector."""
        num_halvings: Count = 2
        """The grid of codes has 2**num_halvings fewer rows than the image."""
        width: Count = 32
        """Channels of every grid of encoder and decoder."""
        num_blocks: Count = 1
        """Residual blocks on each grid of either network."""
        codebook: Codebook = "ema"
        """`ema`: codes follow running means of their features; `gradient`: the optimiser pulls them there."""
        gradient: Gradient = "straight_through"
        """How the decoder's gradient passes the quantiser: as it is, or by the `rotation` from feature to code."""
        commitment: NonNegative = 0.25
        """Weight of the encoder's distance to its codes."""
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
        prior_dropout: Fraction = 0.0
        label_smoothing: Fraction = 0.1
        """Share of each target that is spread over all codes."""
        prior_share: OpenShare = 0.6
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

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How codes are filled in."""

        num_steps: Count = 8
        """T; no more than there are places are taken."""
        choice_temperature: NonNegative = 4.5
        """tau; 0 always keeps the surest."""

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
            num_codes=1024,
            code_dim=256,
            num_halvings=4,
            width=256,
            num_blocks=2,
            codebook="gradient",
            perceptual="lpips",
            discriminator_width=64,
            prior_width=768,
            prior_layers=24,
            prior_heads=8,
            prior_dropout=0.1,
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
        "paper": Sampling(),
    }
    config: Config
    sampling: Sampling
    quantizer: VectorQuantizer

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.prior = MaskedTransformer(
            num_levels=config.num_codes,
            length=self.code_side**2,
            width=config.prior_width,
            num_layers=config.prior_layers,
            num_heads=config.prior_heads,
            dropout=config.prior_dropout,
        )
        self.conditioner = conditioner_for(spec, config, config.prior_width, owner="maskgit")

    def make_quantizer(self) -> VectorQuantizer:
        """One codebook."""
        c = self.config
        return VectorQuantizer(
            c.num_codes,
            c.code_dim,
            decay=c.decay,
            revival_share=c.revival_share,
            codebook=c.codebook,
            gradient=c.gradient,
        )

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    @property
    def network(self) -> MaskedTransformer:
        """The transformer."""
        return self.prior

    @property
    def second_stage(self) -> tuple[nn.Module, ...]:
        """The transformer, and what it is told by."""
        return self.learners(self.prior)

    def prior_loss(self, batch: Batch) -> Loss:
        """Nats per hidden code, of smoothed labels; encoder, codebook and decoder are frozen."""
        codes = self.encode(batch.x).flatten(1)
        hidden = hidden_at_random(codes)
        logits = self.prior(codes.masked_fill(hidden, self.prior.mask), self.told_in_training(batch))
        smoothing = self.config.label_smoothing
        nats = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none", label_smoothing=smoothing)
        shown = hidden.flatten().float()
        mean = (nats * shown).sum() / shown.sum()
        return Loss(mean, {"nats_per_hidden_code": mean.detach()})

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Fill in codes and decode them: (N, C, H, W) uint8."""
        told = self.told(condition)
        if told is None and self.conditioner is not None:
            told = self.conditioner.no_condition(num_samples)
        codes = self.filled_in(num_samples, told, generator=generator)[-1]
        return self.decode(codes.view(num_samples, self.code_side, self.code_side))

    @torch.no_grad()
    def filled_in(self, num_samples: int, told: Tensor | None, *, generator: Generator) -> list[Tensor]:
        """Codes after every step, (N, places) int64 each, with K where they are hidden; the last hide nothing."""
        places, K, how = self.prior.length, self.prior.mask, self.sampling
        codes = torch.full((num_samples, places), K, dtype=torch.int64, device=self.prior.bias.device)
        found = []
        schedule = hidden_counts(places, how.num_steps)
        for step, count in enumerate(schedule, start=1):
            log_p = self.prior(codes, told).log_softmax(2)
            u, v = torch.rand((2, *codes.shape), generator=generator, device=codes.device)
            drawn = draw(log_p.flatten(0, 1), u.flatten()).view_as(codes)
            drawn = torch.where(codes == K, drawn, codes)
            temperature = how.choice_temperature * (1.0 - step / len(schedule))
            sure = log_p.gather(2, drawn[..., None])[..., 0] + temperature * gumbel(v)
            again = sure.masked_fill(codes != K, torch.inf).topk(count, dim=1, largest=False).indices
            codes = drawn.scatter(1, again, K)
            found.append(codes)
        return found


def hidden_counts(places: int, num_steps: int) -> list[int]:
    """How many places are hidden after each step: floor(cos(pi t / 2 T) N), always fewer, at last 0.

    There are no more steps than places, and each shows at least one.
    """
    T = min(num_steps, places)
    counts: list[int] = []
    for t in range(1, T + 1):
        before = counts[-1] if counts else places
        left = T - t  # so many steps follow, and each shows a place
        counts.append(max(left, min(before - 1, math.floor(math.cos(math.pi * t / (2 * T)) * places))))
    return counts


def hidden_at_random(codes: Tensor) -> Tensor:
    """Which places of codes (B, N) are hidden in training, ceil(gamma(r) N) of each row: (B, N) bool; global stream."""
    B, N = codes.shape
    r = torch.rand(B, 1, device=codes.device)
    count = torch.ceil(torch.cos(0.5 * math.pi * r) * N).clamp_min(1)
    rank = torch.rand(B, N, device=codes.device).argsort(1).argsort(1)
    return rank < count


def gumbel(uniforms: Tensor) -> Tensor:
    """Standard Gumbel draws from uniform ones."""
    limits = torch.finfo(uniforms.dtype)
    return -torch.log(-torch.log(uniforms.clamp(limits.tiny, 1.0 - limits.eps)))
