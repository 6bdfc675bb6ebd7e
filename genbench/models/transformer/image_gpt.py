"""Image GPT: pixels, or patches of them, predicted one after another by a causal transformer; exact probabilities.

Generative Pretraining from Pixels. Mark Chen, Alec Radford, Rewon Child, Jeffrey Wu, Heewoo Jun, David Luan and Ilya
Sutskever, 2020. ICML, PMLR 119, pages 1691-1703.

An image is a sentence whose words are its pixels in raster order: the transformer of a language model learns
p(x) = prod_i p(x_i | x_1 .. x_(i-1)) with no built-in knowledge of rows and columns.

Symbols: `x` integers 0 .. levels-1, T tokens of an image, squares of p x p pixels in raster order, M = p^2 C sub-pixels
of a token, row after row and channels last; s_t context of token t.

- Outer transformer: s_t from tokens before t; each token enters as one vector.
- Inner transformer: p(token t) = prod_m p(x_tm | s_t, x_t1 .. x_t(m-1)), a softmax over all levels, in the manner of
  Yu et al. (2023, 2305.07185, MEGABYTE). With `patch=1` a token is a pixel, as in the paper, and its channels follow
  each other; larger patches are the preset `patch`; `patch=0` is one transformer over all sub-pixels of the image.

**Departures**
- The paper draws pixels from a palette of 512 colours and so has no likelihood of data; here all channels are drawn,
  each from all levels.
- A level enters by fixed waves of it and a learned map, so that near levels begin alike, as in `gated_pixelcnn`; the
  logits of near levels begin alike too. The paper's colours have learned vectors.
- A condition is a vector that is added to every token; it is left out in a tenth of the examples, and likelihoods are
  those without it. The paper is unconditional.
- Initialisation is that of GPT-2, and there is no weight decay. Warm-up in steps, a cosine, clipping and averaged
  weights are ours. `paper` has the size of iGPT-S.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Generator, Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import ExactLikelihood, GenerativeModel, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling, conditioner_for
from genbench.nn.causal_transformer import CausalTransformer
from genbench.nn.patch_transformer import PatchTransformer

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@register_model("image_gpt")
class ImageGPT(ConditionalSampling, GenerativeModel, ExactLikelihood):
    """A causal transformer over pixels or patches."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        patch: Whole = 1
        """Side of the squares of pixels that are tokens; 0 makes every sub-pixel one."""
        width: Count = 64
        num_layers: Count = 4
        num_heads: Count = 4
        inner_width: Count = 48
        """Of the transformer within a token; without effect where `patch` is 0, as the next two."""
        inner_layers: Count = 1
        inner_heads: Count = 4
        dropout: Fraction = 0.0
        condition: Literal["none", "class", "text"] = "none"
        """What the transformer is told of an image."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        lr: Positive = 3.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.02
        ema_decay: Fraction = 0.99
        clip_norm: Positive = 1.0
        batch_size: Count = 32

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(width=32, num_layers=2, inner_width=32, warmup_steps=20, ema_decay=0.95),
        "small": Config(batch_size=8),  # of a short training, steps are worth more than examples
        "patch": Config(patch=4, width=96, inner_width=64, inner_layers=2),
        "paper": Config(
            width=512,
            num_layers=24,
            num_heads=8,
            inner_width=256,
            inner_layers=2,
            inner_heads=8,
            warmup_steps=400,
            final_lr_share=0.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }

    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise SettingError(f"`image_gpt` models images of integers, found {spec.kind} data")
        _, H, W = spec.shape
        if config.patch and (H % config.patch or W % config.patch):
            raise SettingError(f"`image_gpt`: patches of {config.patch} px do not tile {H} x {W} px")
        self.config = config
        self.pixels = _network(spec, config)
        self.conditioner = conditioner_for(spec, config, config.width, owner="image_gpt")

    def phases(self) -> tuple[Phase, ...]:
        """One phase: cross-entropy from the first step to the last."""
        c = self.config
        player = Player(
            name="model",
            modules=self.learners(self.pixels),
            lr=c.lr,
            betas=(0.9, 0.95),
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="train", share=1.0, players=(player,), batch_size=c.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Cross-entropy in nats per sub-pixel, so that its scale does not grow with the image."""
        nll = self.pixels.mean_nll(self.tokens(batch.x), self.told_in_training(batch))
        return Loss(nll, {"nats_per_dim": nll.detach()})

    @torch.no_grad()
    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Draw in order, each feature computed once: (N, C, H, W) uint8."""
        return self.images(self.pixels.sample(num_samples, generator=generator, told=self.told(condition)))

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Logarithm of the probability of the integers without a condition, exact: (B,) nats; nothing is drawn."""
        told = None if self.conditioner is None else self.conditioner.no_condition(len(x))
        return self.pixels.log_prob(self.tokens(x), told)

    def tokens(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) as integers in order: (B, T, M) int64, or (B, C H W) where `patch` is 0."""
        last = x.long().permute(0, 2, 3, 1)  # (B, H, W, C)
        p = self.config.patch
        if not p:
            return last.flatten(1)
        squares = last.unflatten(2, (-1, p)).unflatten(1, (-1, p)).transpose(2, 3)  # (B, H/p, W/p, p, p, C)
        tokens: Tensor = squares.flatten(3).flatten(1, 2)
        return tokens

    def images(self, tokens: Tensor) -> Tensor:
        """The way back from `tokens`: (B, C, H, W) uint8."""
        (C, H, W), p = self.spec.shape, self.config.patch
        if not p:
            return tokens.view(-1, H, W, C).permute(0, 3, 1, 2).contiguous().to(torch.uint8)
        squares = tokens.view(-1, H // p, W // p, p, p, C).permute(0, 5, 1, 3, 2, 4)  # (B, C, H/p, p, W/p, p)
        return squares.reshape(-1, C, H, W).to(torch.uint8)


def _network(spec: DataSpec, config: ImageGPT.Config) -> CausalTransformer | PatchTransformer:
    assert spec.levels is not None
    C, H, W = spec.shape
    if not config.patch:
        return CausalTransformer(
            num_levels=spec.levels,
            length=spec.num_dims,
            width=config.width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            dropout=config.dropout,
            inputs="ordered",
        )
    return PatchTransformer(
        num_levels=spec.levels,
        num_patches=H * W // config.patch**2,
        patch_size=config.patch**2 * C,
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        inner_width=config.inner_width,
        inner_layers=config.inner_layers,
        inner_heads=config.inner_heads,
        dropout=config.dropout,
    )
