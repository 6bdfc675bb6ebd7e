"""Denoising diffusion with a U-Net that predicts the noise.

Denoising Diffusion Probabilistic Models. Jonathan Ho, Ajay Jain, Pieter Abbeel, 2020. arXiv:2006.11239

A fixed Markov chain turns an image into Gaussian noise in T small steps; a network learns to tell the noise from the
noised image, and with it every step of the chain can be walked back. The loss weighs all steps equally (L_simple),
which gives up some likelihood for better pictures.

Legend: `x` integers, `x_0` the same in [-1, 1], `t` step 1 .. T (0 is the data), `eps` noise, `alpha` and `sigma`
factors of data and noise at t, `alpha_bar` = alpha^2, `beta` variance added by a step.
Samples may be drawn on a sub-sequence of the steps, by ancestral sampling (Nichol and Dhariwal 2021, arXiv:2102.09672)
implicitly (Song, Meng and Ermon 2020, arXiv:2010.02502), or by solvers of second order for the probability flow
(DPM-Solver++: Lu et al. 2022, arXiv:2211.01095; Heun's method: Karras et al. 2022, arXiv:2206.00364), or with
corrections by Langevin dynamics (Song et al. 2021, arXiv:2011.13456).

With `learned_variance` the network also returns, for every dimension, where between the two fixed variances its own
lies, and learns it from L_simple + 0.001 L_vlb, the bound in bits per dimension with the mean held constant (Nichol and
Dhariwal, Eq. 15 and 16). `output` is what the network returns and `target` what its squared error is of: noise, data or
velocity; the three errors differ by factors of the noise level alone. With `condition` the network is told a class or
a caption, and `guidance` exaggerates it (Ho and Salimans 2022, arXiv:2207.12598); samples that nobody asks for take
conditions of training examples, and the bound is that of the network without a condition.

**Departures**
- `smoke` and `small` take the cosine schedule of Nichol and Dhariwal, who found that the linear one spends many of its
  steps on almost pure noise at low resolution, and draw on a sub-sequence of the steps; their learning rates and
  averages suit a thousand training steps rather than a million. `paper` does none of this.
- `small` stacks 2x2 pixels into channels before the U-Net and unstacks its output, which makes a step cheaper.
- In `smoke` and `small` the U-Net returns v = alpha eps - sigma x_0 (Salimans and Ho 2022, arXiv:2202.00512), which is
  turned into eps = alpha v + sigma x_t for the same L_simple: after few steps of training, colours drift less.
- No image is flipped at random: that is right for photographs and wrong for digits.
- Convolutions that halve maps pad both sides by one, not one side.
- Images are clipped to [-1, 1] inside the bound as well as in sampling, as the authors' code does.
- `paper` holds the sizes for CIFAR-10; attention moves to the first level of at most 16 px at other resolutions.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from genbench.core.dataset import DataSpec
from genbench.core.model import register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Several, Share, Whole
from genbench.models._gaussian_diffusion import GaussianDiffusion
from genbench.nn.unet import UNet


@register_model("ddpm")
class DDPM(GaussianDiffusion):
    """Noise-predicting diffusion in discrete time.

    `log_likelihood` is minus the variational bound (Eq. 5) with all T steps, whatever the sampler's steps. With
    `Sampling.likelihood_steps` None every term is evaluated, T network calls per image. With K, the terms between the
    first and the last are cut into K strata and one is drawn from each: an unbiased estimate of the same bound in
    K + 1 calls, independent for each image.
    """

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of maps at most this large attends, as does the bottom."""
        num_heads: Count = 1
        dropout: Fraction = 0.0
        patch: Count = 2
        """Side of the squares of pixels that are stacked into channels."""
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "noise"
        """What the U-Net returns: eps, x_0, or v = alpha eps - sigma x_0, of which eps = alpha v + sigma x_t."""
        target: Literal["noise", "data", "velocity"] = "noise"
        """What the squared error of training is of."""
        learned_variance: bool = False
        """Whether the network also returns the variances of the reverse steps."""
        condition: Literal["none", "class", "text"] = "none"
        """What the network is told of an image."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        text_encoder: str = ""
        """Name or folder of a frozen text encoder of Hugging Face's, in place of one that is trained along."""
        num_timesteps: Several = 1000
        """T."""
        lr: Positive = 4.0e-3
        warmup_steps: Whole = 50
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn and the bound is evaluated."""

        sampler: Literal["ddpm", "ddim", "dpm_solver_pp", "heun", "predictor_corrector"] = "ddim"
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
        "smoke": Config(width=16, patch=1, output="velocity"),
        "small": Config(output="velocity"),
        "paper": Config(
            width=128,
            multipliers=(1, 2, 2, 2),
            num_blocks=2,
            attention_resolution=16,
            dropout=0.1,
            patch=1,
            schedule="linear",
            lr=2.0e-4,
            warmup_steps=5000,
            final_lr_share=1.0,
            ema_decay=0.9999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(sampler="ddpm", num_steps=25),
        "small": Sampling(sampler="ddpm", num_steps=50),
        "paper": Sampling(sampler="ddpm", num_steps=None, variance="beta", likelihood_steps=None),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config, clip_norm=1.0)
        self.sampling = self.Sampling()
        self.unet = UNet(
            spec.shape[0],
            self.num_outputs,
            resolution=spec.shape[1],
            width=config.width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.num_heads,
            dropout=config.dropout,
            patch=config.patch,
        )
        self.make_conditioner(self.unet.embedding_dim, text_encoder=config.text_encoder)

    @property
    def network(self) -> UNet:
        """The U-Net."""
        return self.unet
