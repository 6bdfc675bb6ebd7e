"""Diffusion with a transformer over patches in place of the U-Net.

Scalable Diffusion Models with Transformers. William Peebles, Saining Xie, 2023. arXiv:2212.09748

A plain transformer on patches of the noised image, told time and class by the scales, shifts and gates of its
normalisations, is as good a denoiser as a convolutional U-Net, and better the more it computes.

Legend: `x_t` noised image, `t` step 1 .. T, `y` class, eps noise, s guidance scale.

- Network: `genbench.nn.diffusion_transformer` (adaLN-Zero, Sec. 3.2) returns eps and the shares of the variances.
- Training: L_simple + 0.001 L_vlb of Nichol and Dhariwal (2021, arXiv:2102.09672), as in Sec. 3.1; classes are left
  out in a tenth of the examples.
- Sampling: ancestral, guided by s (Ho and Salimans 2022, arXiv:2207.12598).

**Departures**
- The paper diffuses latents of a fixed autoencoder, 32 x 32 x 4; here it is pixels, and `paper` (the size of DiT-XL/2)
  takes patches of 2 px of them. Guidance acts on all channels of the noise, not on three of four.
- `smoke` and `small` are unconditional, so that any data will do, take the cosine schedule, return v instead of eps
  and keep variances fixed, as `ddpm` does there; their learning rates and averages suit a thousand steps.
  `condition=class` is the paper's.
- No image is flipped at random.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Several, Share, Whole
from genbench.models._gaussian_diffusion import GaussianDiffusion
from genbench.nn.diffusion_transformer import DiffusionTransformer


@register_model("dit")
class DiT(GaussianDiffusion):
    """Diffusion in discrete time with a transformer; the bound is as for `ddpm`."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        patch: Count = 2
        """Side of the squares of pixels that are tokens."""
        width: Count = 96
        num_layers: Count = 4
        num_heads: Count = 4
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "velocity"
        """What the network returns."""
        target: Literal["noise", "data", "velocity"] = "noise"
        """What the squared error of training is of."""
        learned_variance: bool = False
        """Whether the network also returns the variances of the reverse steps."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an image."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        num_timesteps: Several = 1000
        """T."""
        lr: Positive = 2.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        clip_norm: Positive | None = 1.0
        """Of gradients; None leaves them."""
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        sampler: Literal["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"] = "ddpm"
        num_steps: Count | None = 50
        """Steps, of one network evaluation each, of two with `heun`, one more a corrector's step; None is T."""
        spacing: Literal["even", "karras"] = "even"
        """Steps even in time, or in a root of sigma / alpha from 80 down; `heun` always takes the latter."""
        eta: Share = 0.0
        """Share of the ancestral noise in a step of `ddim`."""
        predictor: Literal["reverse_diffusion", "none"] = "reverse_diffusion"
        """How `predictor_corrector` reaches the next level; `none` leaves all to the corrector."""
        corrector_steps: Whole = 1
        """Steps of Langevin dynamics at each level."""
        snr: Positive = 0.16
        """Ratio of the norms of signal and noise in such a step."""
        guidance: NonNegative = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
        variance: Literal["beta", "beta_tilde"] = "beta_tilde"
        """Variance of a step of `ddpm`; of no effect where it is learned."""
        likelihood_steps: Count | None = 20
        """Terms of the bound evaluated between the first and the last, one from each stratum; None is all."""
        likelihood_variance: Literal["beta", "beta_tilde"] = "beta"
        """Variance of the steps in the bound; of no effect where it is learned."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=48, num_layers=2),
        "small": Config(),
        "paper": Config(
            width=1152,
            num_layers=28,
            num_heads=16,
            schedule="linear",
            output="noise",
            learned_variance=True,
            condition="class",
            lr=1.0e-4,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=0.9999,
            clip_norm=None,
            batch_size=256,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=25),
        "small": Sampling(),
        "paper": Sampling(num_steps=250, guidance=1.5, likelihood_steps=None),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, clip_norm=config.clip_norm)
        self.sampling = self.Sampling()
        self.transformer = DiffusionTransformer(
            spec.shape[0],
            self.num_outputs,
            resolution=spec.shape[1],
            patch=config.patch,
            width=config.width,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
        )
        self.make_conditioner(config.width)

    @property
    def network(self) -> DiffusionTransformer:
        """The transformer."""
        return self.transformer
