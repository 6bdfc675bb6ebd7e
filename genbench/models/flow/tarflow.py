"""Autoregressive flow whose networks are causal transformers over patches, with an exact density.

"Normalizing Flows are Capable Generative Models", Shuangfei Zhai, Ruixiang Zhang, Preetum Nakkiran, David Berthelot,
Jiatao Gu, Huangjie Zheng, Tianrong Chen, Miguel Angel Bautista, Navdeep Jaitly, Josh Susskind, 2024 (ICML 2025),
arXiv:2412.06329.

Idea: a masked autoregressive flow whose single dimensions are patches and whose masked networks are causal
transformers, stacked with the order of the patches turned round every time. Trained on pictures with Gaussian noise
rather than the little noise of dequantisation it draws noisy pictures well, and a step along its own score takes the
noise off.

Legend: `x` patches of one block's input, (N, d) of each example, `u` its output, `t, s` shift and log-scale, `z` latent
with base N(0, I), `sigma` the standard deviation of the noise on pictures in [-1, 1]:

    u_i = (x_i - t_i) exp(-s_i),    t_i, s_i functions of x_1 .. x_{i-1},    u_1 = x_1,    log |det du/dx| = -sum s

    x_denoised = x + sigma^2 d log p(x) / dx                                                  (Tweedie's formula)

Samples are drawn patch after patch, with the keys and values of earlier patches kept. Of a model trained with Gaussian
noise the likelihood is still that of its own density at uniformly noised integers, a bound as any flow's, and poor.

**Departures**
- No conditions, and hence no guidance; the paper draws its best pictures with both.
- Blocks are those of `nn.transformer`, and a norm stands before the last layer, whose bias starts at zero too.
- Vectors are sequences of their dimensions, with Gaussian noise only where `noise=gaussian` asks for it.
- `smoke`, `small` and `vector` use few narrow blocks, higher learning rates and averaged weights. `paper` is for
  likelihoods of ImageNet at 64 px, with a warm-up of one of its epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._exact_flow import ExactFlow
from genbench.nn.bijection import Bijection, Chain, Flatten, Reverse
from genbench.nn.transformer import INITIAL_STD, Cache, blocks_of, empty_caches
from genbench.prob.dequantization import bin_centres

BETAS, WEIGHT_DECAY = (0.9, 0.95), 1e-4
"""Of AdamW."""


class Patches(Bijection):
    """(B, C, H, W) as (B, N, d) with d = C patch^2, row after row; vectors (B, D) as (B, D, 1).

    Args:
        shape: of one example.
        patch: divides both sides.
    """

    def __init__(self, shape: Sequence[int], patch: int) -> None:
        super().__init__()
        self.shape, self.patch = tuple(shape), patch

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, d), and 0."""
        if len(self.shape) == 1:
            return x[:, :, None], x.new_zeros(())
        return F.pixel_unshuffle(x, self.patch).flatten(2).transpose(1, 2), x.new_zeros(())

    def inverse(self, y: Tensor) -> Tensor:
        """Carries gradients."""
        if len(self.shape) == 1:
            return y[:, :, 0]
        rows = self.shape[1] // self.patch
        return F.pixel_shuffle(y.transpose(1, 2).unflatten(2, (rows, -1)), self.patch)

    def size(self) -> tuple[int, int]:
        """N and d."""
        if len(self.shape) == 1:
            return self.shape[0], 1
        C, H, W = self.shape
        return H * W // self.patch**2, C * self.patch**2


class TransformerFlow(Bijection):
    """u_i = (x_i - t_i) exp(-s_i) of sequences (B, N, d); the identity at its start.

    Args:
        length: N.
        dim: d.
        width: of the transformer.
        num_layers: its blocks.
        num_heads: must divide the width.
    """

    def __init__(self, length: int, dim: int, *, width: int, num_layers: int, num_heads: int) -> None:
        super().__init__()
        self.length, self.num_heads = length, num_heads
        self.stem = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(length, width) * INITIAL_STD)
        self.blocks = blocks_of(width, num_layers=num_layers, num_heads=num_heads, dropout=0.0)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2 * dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, d), and log-determinants (B,)."""
        h = self.stem(x[:, :-1]) + self.positions[:-1]
        for block in self.blocks:
            h = block(h)
        raw = self.head(self.norm(h)).to(x)  # the transformer may run in half precision
        s, t = F.pad(raw, (0, 0, 1, 0)).chunk(2, dim=2)  # the first patch sees nothing
        return (x - t) * (-s).exp(), -s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """N - 1 steps, each for one patch of all examples; carries no gradient."""
        with torch.no_grad():
            x = y.clone()
            caches = self._caches(x)
            for i in range(self.length - 1):
                h = self.stem(x[:, i : i + 1]) + self.positions[i]
                for block, cache in zip(self.blocks, caches, strict=True):
                    h = block(h, cache)
                s, t = self.head(self.norm(h))[:, 0].chunk(2, dim=1)
                x[:, i + 1] = y[:, i + 1] * s.exp() + t
        return x

    def _caches(self, x: Tensor) -> list[Cache]:
        return empty_caches(
            len(self.blocks),
            num_samples=len(x),
            num_heads=self.num_heads,
            length=self.length - 1,
            like=self.positions[0].to(x),
        )


@register_model("tarflow")
class TarFlow(ExactFlow):
    """Transformer autoregressive flow; see the module."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        patch: Count = 2
        """Side of the patches; 1 where it does not divide both sides of the picture."""
        num_flows: Count = 4
        """Autoregressive maps, each in the order opposite to the one before."""
        num_layers: Count = 2
        """Transformer blocks of each map."""
        width: Count = 128
        num_heads: Count = 4
        noise: Literal["uniform", "gaussian"] = "uniform"
        """In training: `uniform` dequantises, for likelihoods; `gaussian` has `sigma`, for samples."""
        sigma: Positive = 0.05
        """Of Gaussian noise, on pictures in [-1, 1]."""
        denoise: bool = True
        """Take the Gaussian noise off samples; of no effect on a model trained with uniform noise."""
        lr: Positive = 2.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.05
        clip_norm: Positive | None = 1.0
        ema_decay: Fraction | None = 0.99
        batch_size: Count = 64

        def __post_init__(self) -> None:
            if self.width % self.num_heads:
                raise ValueError(f"a width of {self.width} does not split into {self.num_heads} heads")

        @property
        def alpha(self) -> None:
            """Pixels are on [-1, 1]."""
            return None

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(num_flows=2, width=64, num_layers=1, num_heads=2, warmup_steps=20, ema_decay=0.98),
        "small": Config(num_layers=1, width=96),
        "vector": Config(num_flows=6, num_layers=1, width=64, num_heads=2, batch_size=256),
        "paper": Config(
            num_flows=8,
            num_layers=8,
            width=768,
            num_heads=12,
            lr=1.0e-4,
            warmup_steps=5000,
            final_lr_share=0.01,
            clip_norm=None,
            ema_decay=None,
            batch_size=256,
        ),
    }
    config: Config

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        fits = spec.kind == "image" and all(side % config.patch == 0 for side in spec.shape[1:])
        patches, parts = Patches(spec.shape, config.patch if fits else 1), list[Bijection]()
        N, d = patches.size()
        if N < 2:
            raise SettingError("`tarflow` needs at least 2 patches or dimensions, and found 1")
        for number in range(config.num_flows):
            parts += [Reverse()] if number else []
            parts.append(
                TransformerFlow(N, d, width=config.width, num_layers=config.num_layers, num_heads=config.num_heads)
            )
        self.flow = Chain(patches, *parts, Flatten((N, d)))

    def phases(self) -> tuple[Phase, ...]:
        """One player, with the paper's AdamW."""
        c = self.config
        player = Player(
            name="flow",
            modules=(self,),
            lr=c.lr,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            clip_norm=c.clip_norm,
            warmup_steps=c.warmup_steps,
            final_lr_share=c.final_lr_share,
            ema_decay=c.ema_decay,
        )
        return (Phase(name="flow", share=1.0, players=(player,), batch_size=c.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative log-likelihood of noisy data: bits per dimension of images, nats of vectors."""
        if self.config.noise == "uniform":
            return self.as_loss(self.density_of(self.as_points(batch.x, None)))
        y = batch.x.float() if self.levels is None else bin_centres(batch.x, self.levels)
        return self.as_loss(self.density_of(y + self._sigma_of_points * torch.randn_like(y)))

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Inverse of the flow at draws from the base, without its noise: (N, *shape), uint8 for images."""
        y = self.invert(self.draw_base(num_samples, generator))
        if self.config.noise == "gaussian" and self.config.denoise:
            y = self.denoised(y)
        return self.as_data(y)

    def denoised(self, y: Tensor) -> Tensor:
        """Points (B, *shape) y + sigma^2 d log p(y) / dy, with sigma on their own scale; carries no gradient."""
        with torch.inference_mode(mode=False), torch.enable_grad():
            start = y.detach().clone().requires_grad_()
            (score,) = torch.autograd.grad(self.density_of(start).sum(), start)
        return y + self._sigma_of_points**2 * score

    @property
    def _sigma_of_points(self) -> float:
        """Sigma for points of [0, 1]^D; vectors keep it."""
        return self.config.sigma if self.levels is None else 0.5 * self.config.sigma
