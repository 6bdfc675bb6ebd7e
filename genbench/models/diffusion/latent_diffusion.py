"""Diffusion in the latents of an autoencoder, told classes or captions by cross-attention.

High-Resolution Image Synthesis with Latent Diffusion Models. Robin Rombach, Andreas Blattmann, Dominik Lorenz,
Patrick Esser, Bjorn Ommer, 2022. arXiv:2112.10752

Most bits of an image are detail that no eye needs. An autoencoder that is trained to look right takes them away first,
and diffusion spends its effort in the small space that is left.

Legend: `x` image, `z` latents E(x), (B, D, s, s), mean `mu` and deviation `sigma` of q(z|x), `G` decoder, `tau` tokens
of a condition, `z_t` noised latents, eps noise, s guidance scale.

- Phases `reconstruction` and `adversarial`: pixels, perceptual distance and adversary as of Esser et al. 2021
  (2012.09841), on G(z) with z ~ q(z|x), and either `kl`, 1e-6 KL(q(z|x) || N(0, I)), or `vq`, a codebook as the first
  layer of G (Sec. 3.1).
- Latents are divided by their root mean square, so that the noise schedule fits them (Appendix G).
- Phase `diffusion`:  |eps - eps_theta(z_t, t, tau(y))|^2  (Eq. 2 and 3); the autoencoder stands still. Every level that
  attends also attends to the tokens (Sec. 3.3); they are left out in a tenth of the examples, and s guides.
- Images are G of drawn latents. There is no p(x|z), hence no likelihood of pixels.

**Departures**
- Both networks of the autoencoder are the residual towers of `vqgan`; the encoder of captions is trained along with the
  U-Net, as in the paper, and has two layers; a class is one token. Cross-attention has no dense layers behind it.
- The mean square of latents is a running one over the first phases, of all their channels together; the paper takes
  the deviation in one batch.
- `smoke` and `small` need no published weights for their perceptual distance, see `vqgan`; they take a cosine schedule,
  and the U-Net returns v, as `ddpm` does there.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import ContinuousLatents, GenerativeModel, IterativeSampler, Loss, Phase, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Several, Share, Whole
from genbench.models._conditional_sampling import ConditionalSampling
from genbench.models._picture_autoencoder import Critic, Decoder, Encoder, player
from genbench.nn.conditioning import Conditioner
from genbench.nn.resnet import halved_sides
from genbench.nn.unet import UNet
from genbench.nn.vector_quantizer import VectorQuantizer
from genbench.prob import gaussian, prediction
from genbench.prob.noise_schedule import noise_schedule
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.ddim import ddim
from genbench.samplers.ddpm import ddpm

RUNNING_SHARE = 0.02
"""Weight of a batch in the running mean square of latents."""
LARGEST_LOG_SIGMA = 10.0
"""Bound of the posterior's log sigma either way, as in the authors' code."""


@register_model("latent_diffusion")
class LatentDiffusion(ConditionalSampling, GenerativeModel, ContinuousLatents, IterativeSampler):
    """An autoencoder and a diffusion model of its latents."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        regulariser: Literal["kl", "vq"] = "kl"
        """What keeps latents in bounds: a divergence, or a codebook that the decoder begins with."""
        latent_dim: Count = 4
        """D, channels of the latents."""
        num_halvings: Count = 1
        """The grid of latents has 2**num_halvings fewer rows than the image."""
        coder_width: Count = 32
        """Channels of every grid of encoder and decoder."""
        coder_blocks: Count = 1
        """Residual blocks on each grid of either."""
        kl_weight: NonNegative = 1e-6
        num_codes: Count = 256
        """Size of the codebook."""
        commitment: NonNegative = 0.25
        """Weight of the distance of latents to their codes."""
        perceptual: Literal["discriminator", "lpips", "none"] = "discriminator"
        """Perceptual distance: of the discriminator's activations, or `lpips`, whose weights must be at hand."""
        perceptual_weight: NonNegative = 1.0
        adversarial_weight: NonNegative = 0.5
        """Of the adversarial gradient in units of the other's."""
        discriminator_width: Count = 32
        reconstruction_share: OpenShare = 0.25
        """Share of the samples seen that trains the autoencoder alone."""
        adversarial_share: OpenShare = 0.15
        """Share that trains it beside the discriminator; diffusion gets the rest."""
        coder_learning_rate: Positive = 2e-3
        adversarial_learning_rate: Positive = 1e-3
        width: Count = 32
        """Channels of the first level of the U-Net."""
        multipliers: tuple[int, ...] = (1, 2)
        """Channels of each level as multiples of `width`."""
        num_blocks: Count = 1
        """Residual blocks per level."""
        attention_resolution: Whole = 4
        """The first level of latents at most this large attends, as does the bottom."""
        num_heads: Count = 1
        condition: Literal["none", "class", "text"] = "none"
        """What the U-Net is told of an image."""
        token_dim: Count = 64
        """Length of the tokens of a condition."""
        drop_condition: Share = 0.1
        """Share of training examples whose condition is left out."""
        text_encoder: str = ""
        """Name or folder of a frozen text encoder of Hugging Face's, in place of one that is trained along."""
        schedule: Literal["linear", "cosine"] = "cosine"
        output: Literal["noise", "data", "velocity"] = "velocity"
        """What the U-Net returns."""
        num_timesteps: Several = 1000
        """T."""
        lr: Positive = 4.0e-3
        ema_decay: Fraction = 0.995
        batch_size: Count = 32

        def __post_init__(self) -> None:
            if self.reconstruction_share + self.adversarial_share >= 1.0:
                raise ValueError("`reconstruction_share` and `adversarial_share` leave nothing to diffusion")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How latents are drawn."""

        sampler: Literal["ddpm", "ddim"] = "ddim"
        num_steps: Count | None = 50
        """Network evaluations per sample; None is T."""
        eta: Share = 0.0
        """Share of the ancestral noise in a step of `ddim`."""
        guidance: NonNegative = 1.0
        """s: 1 follows the condition as trained, 0 ignores it, more exaggerates it at twice the evaluations."""
        variance: Literal["beta", "beta_tilde"] = "beta_tilde"
        """Variance of a step of `ddpm`."""

    presets: ClassVar[dict[str, Config]] = {
        "smoke": Config(width=16, discriminator_width=16),
        "small": Config(),
        "paper": Config(
            latent_dim=3,
            num_halvings=2,
            coder_width=256,
            coder_blocks=2,
            perceptual="lpips",
            discriminator_width=64,
            reconstruction_share=0.3,
            adversarial_share=0.2,
            coder_learning_rate=5.4e-5,
            adversarial_learning_rate=5.4e-5,
            width=192,
            multipliers=(1, 2, 3, 5),
            num_blocks=2,
            attention_resolution=32,
            num_heads=1,
            condition="class",
            token_dim=512,
            schedule="linear",
            output="noise",
            lr=1.0e-4,
            ema_decay=0.9999,
        ),
    }
    sampling_presets: ClassVar[dict[str, Sampling]] = {
        "smoke": Sampling(num_steps=25),
        "small": Sampling(),
        "paper": Sampling(num_steps=250, eta=1.0, guidance=1.5),
    }
    config: Config
    sampling: Sampling
    alpha: Tensor
    sigma: Tensor
    latent_mean_square: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`latent_diffusion` models images of integers, found data of kind `{spec.kind}`")
        self.config, self.levels, self.sampling = config, spec.levels, self.Sampling()
        C, side, _ = spec.shape
        D = config.latent_dim
        self.latent_side = halved_sides(side, config.num_halvings)[-1]
        sizes = {"width": config.coder_width, "num_blocks": config.coder_blocks, "num_halvings": config.num_halvings}
        self.encoder = Encoder(C, num_outputs=2 * D if config.regulariser == "kl" else D, **sizes)
        self.decoder = Decoder(D, C, side, **sizes)
        self.quantizer: VectorQuantizer | None = None
        if config.regulariser == "vq":
            self.quantizer = VectorQuantizer(config.num_codes, D, decay=0.99, revival_share=0.05)
        self.critic = Critic(
            C,
            side,
            width=config.discriminator_width,
            perceptual=config.perceptual,
            perceptual_weight=config.perceptual_weight,
            adversarial_weight=config.adversarial_weight,
        )
        self.register_buffer("latent_mean_square", torch.ones(()))
        self.schedule = noise_schedule(config.schedule, config.num_timesteps)
        self.register_buffer("alpha", self.schedule.alpha.float(), persistent=False)  # (T + 1,)
        self.register_buffer("sigma", self.schedule.sigma.float(), persistent=False)
        told = config.condition != "none"
        if config.text_encoder and config.condition != "text":
            raise SettingError(
                "`latent_diffusion` has a `text_encoder` and is told no text", hint="condition=text, or leave it out"
            )
        self.unet = UNet(
            D,
            D,
            resolution=self.latent_side,
            width=config.width,
            multipliers=config.multipliers,
            num_blocks=config.num_blocks,
            attention_resolution=config.attention_resolution,
            num_heads=config.num_heads,
            token_dim=config.token_dim if told else 0,
        )
        self.conditioner = None
        if told:
            self.conditioner = Conditioner(
                spec,
                config.condition,
                config.token_dim,
                drop_share=config.drop_condition,
                owner="latent_diffusion",
                tokens=True,
                text_encoder=config.text_encoder,
            )

    @property
    def network(self) -> UNet:
        """The U-Net."""
        return self.unet

    def phases(self) -> tuple[Phase, ...]:
        """The autoencoder, then with a discriminator, then diffusion of latents that no longer move."""
        c = self.config
        coder = [self.encoder, self.decoder]  # a codebook follows running means and has no optimiser
        first = player("autoencoder", *coder, lr=c.coder_learning_rate)
        second = player("generator", *coder, lr=c.adversarial_learning_rate, betas=(0.5, 0.9))
        judge = player("discriminator", self.critic, lr=c.adversarial_learning_rate, betas=(0.5, 0.9))
        unet = player("unet", *self.learners(self.unet), lr=c.lr, ema_decay=c.ema_decay)
        rest = 1.0 - c.reconstruction_share - c.adversarial_share
        return (
            Phase(name="reconstruction", share=c.reconstruction_share, players=(first,), batch_size=c.batch_size),
            Phase(name="adversarial", share=c.adversarial_share, players=(second, judge), batch_size=c.batch_size),
            Phase(name="diffusion", share=rest, players=(unet,), batch_size=c.batch_size),
        )

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Find what judges pictures, keep conditions, start a codebook from k-means on the untrained encoder's latents.

        Raises:
            DataError: the weights of LPIPS are not there.
        """
        self.critic.prepare(batch.x.device)
        if self.conditioner is not None:
            self.conditioner.prepare(batch)
        if self.quantizer is not None:
            self.quantizer.fit(self._posterior(batch.x)[0])

    def loss(self, batch: Batch, player: str) -> Loss:
        """Loss of `autoencoder` or `generator`, of `discriminator`, or of `unet`, a mean over dimensions of latents."""
        if player == "unet":
            return self._diffusion_loss(batch)
        if player == "discriminator":
            with torch.no_grad():
                fake = self._decoded(gaussian.reparameterised(*self._posterior(batch.x)))
            return self.critic.discriminator_loss(to_signed(batch.x, self.levels), fake)
        return self._autoencoder_loss(batch.x, adversarial=player == "generator")

    def sampled(self, num_samples: int, condition: Tensor | None, *, generator: Generator) -> Tensor:
        """Walk from noise to latents, and decode these: (N, C, H, W), uint8."""
        settings, told = self.sampling, self.told(condition)
        levels = self.schedule.levels(self.schedule.num_steps if settings.num_steps is None else settings.num_steps)
        shape = (num_samples, self.config.latent_dim, self.latent_side, self.latent_side)
        z_T = torch.randn(shape, generator=generator, device=self.alpha.device)

        def denoise(z_t: Tensor, t: Tensor) -> Tensor:
            out = self.output(self.unet, z_t, t, told, guidance=settings.guidance)
            return prediction.to_data(out, self.config.output, z_t, **self._level(t))

        if settings.sampler == "ddim":
            z = ddim(denoise, z_T, levels, eta=settings.eta, generator=generator)
        else:
            z = ddpm(denoise, z_T, levels, variance=settings.variance, generator=generator)
        return to_uint8(self._decoded(z * self.latent_mean_square.sqrt()), self.levels)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Means of the latents of images: (B, D s^2)."""
        return self._posterior(x)[0].flatten(1)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Images of latents (B, D s^2): (B, C, H, W) uint8."""
        grid = z.unflatten(1, (self.config.latent_dim, self.latent_side, self.latent_side))
        return to_uint8(self._decoded(grid), self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Images of the mean latents of images: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _autoencoder_loss(self, x: Tensor, *, adversarial: bool) -> Loss:
        real, (mu, log_sigma) = to_signed(x, self.levels), self._posterior(x)
        z = gaussian.reparameterised(mu, log_sigma)
        self._follow(z.detach())
        if self.quantizer is None:
            rate = gaussian.kl_to_standard(mu, log_sigma).flatten(1).sum(1).mean()
            extra, parts = self.config.kl_weight * rate, {"rate": rate}
        else:
            quantised = self.quantizer(z)
            self.quantizer.update(z, quantised.codes)
            z = quantised.values
            extra, parts = self.config.commitment * quantised.commitment, {"commitment": quantised.commitment}
        fake = self.decoder(z)
        total, of_critic = self.critic(real, fake, last_weight=self.decoder.last_weight, adversarial=adversarial)
        return Loss(total + extra, {name: part.detach() for name, part in (of_critic | parts).items()})

    def _diffusion_loss(self, batch: Batch) -> Loss:
        with torch.no_grad():
            z_0 = gaussian.reparameterised(*self._posterior(batch.x)) / self.latent_mean_square.sqrt()
        t = torch.randint(1, self.schedule.num_steps + 1, (len(z_0),), device=z_0.device)
        eps = torch.randn_like(z_0)
        at = self._level(t)
        z_t = at["alpha"] * z_0 + at["sigma"] * eps
        out = self.output(self.unet, z_t, t, self.told_in_training(batch))
        mse = F.mse_loss(prediction.to_noise(out, self.config.output, z_t, **at), eps)
        return Loss(mse, {"l_simple": mse.detach()})

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log sigma of the latents of images, (B, D, s, s) each; sigma is 0 before a codebook."""
        features = self.encoder(to_signed(x, self.levels))
        if self.quantizer is not None:
            return features, torch.full_like(features, -torch.inf)
        mu, log_sigma = features.chunk(2, dim=1)
        return mu, log_sigma.clamp(-LARGEST_LOG_SIGMA, LARGEST_LOG_SIGMA)

    def _decoded(self, z: Tensor) -> Tensor:
        """Images of latents (B, D, s, s), before any rounding."""
        vectors = z if self.quantizer is None else self.quantizer(z).values
        images: Tensor = self.decoder(vectors)
        return images

    @torch.no_grad()
    def _follow(self, z: Tensor) -> None:
        """Let the running mean square of latents follow a training batch."""
        if self.training and not torch.is_inference_mode_enabled():
            self.latent_mean_square.lerp_(z.square().mean(), RUNNING_SHARE)

    def _level(self, t: Tensor) -> dict[str, Tensor]:
        """Factors of latents and noise at the steps `t` (B,), shaped for grids."""
        alpha, sigma = (values[t][:, None, None, None] for values in (self.alpha, self.sigma))
        return {"alpha": alpha, "sigma": sigma}
