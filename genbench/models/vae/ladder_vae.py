"""Hierarchical variational autoencoder that infers from the top down, with the prior's help.

Ladder Variational Autoencoders. Casper Kaae Sonderby, Tapani Raiko, Lars Maaloe, Soren Kaae Sonderby, Ole Winther,
2016, 1602.02282.

Codes in L layers, each a Gaussian given the one above; the image depends on the lowest. A deterministic pass upwards
says of every layer what the image alone has to tell about it, as a Gaussian likelihood. A pass downwards then draws
layer after layer, each from the product of that likelihood and the prior that the draw above has just given, which is
how a Gaussian posterior combines the two.

Symbols: x image, z_i code of layer i = 1 .. L, d_i deterministic features on the way up, mu_hat and sigma_hat moments
of the likelihood, mu_p and sigma_p of the prior, mu_q and sigma_q of the posterior, K draws.

The paper's Sec. 2 has all of it:

- Generation: p(x, z) = p(x|z_1) p(z_L) prod_i p(z_i|z_i+1), with p(z_L) = N(0, I), the others networks of z_i+1.
- Inference from the bottom up: q(z|x) = q(z_1|x) prod_i q(z_i+1|z_i), the ordinary hierarchical autoencoder:
  `inference="bottom_up"`.
- The way up: d_i = MLP(d_i-1) with d_0 = x, mu_hat_i = Linear(d_i), sigma_hat_i^2 = Softplus(Linear(d_i)).
- Inference from the top down: q(z|x) = q(z_L|x) prod_i q(z_i|z_i+1, x), with q(z_i|...) = N(mu_q, sigma_q^2),
  sigma_q^2 = 1 / (sigma_hat^-2 + sigma_p^-2) and mu_q = sigma_q^2 (mu_hat sigma_hat^-2 + mu_p sigma_p^-2); the topmost
  layer is N(mu_hat_L, sigma_hat_L^2) alone.
- Warm-up: E_q log p(x|z) - beta sum_i KL(q(z_i|z_i+1, x) || p(z_i|z_i+1)), with beta rising from 0 to 1 in a line over
  the first `divergence_warmup` steps.
- Evaluation: log 1/K sum_k p(x, z_k) / q(z_k|x), the importance-weighted bound of Burda et al. (2015, 1509.00519,
  Eq. 8) over all layers, and beta = 1.

**Departures**: a discretised-logistic decoder over the stored integers, so that bits per dimension are those of the
integers; on data of two levels it is the paper's Bernoulli. The divergences are analytic from the top down (from the
bottom up no such form exists and the log-ratio of the draw stands in), the objective is divided by the dimensions of
the image, training takes one draw where the paper also tries ten, and gradients are clipped to norm 1. `paper` is the
permutation-invariant network for MNIST: layers of 64, 32, 16, 8 and 4 codes joined by two dense layers of 512, 256,
128, 64 and 32 units, batch normalisation, leaky rectifiers of slope 0.1, batches of 256, beta warmed up over 200
epochs. Its learning rate is constant. `smoke` and `small` put the ladder between the residual convolutions of the other
autoencoders, which keeps it dense and makes images of 16 to 32 pixels learnable in minutes, with a learning rate that
rises and falls, and averaged weights.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import (
    ContinuousLatents,
    GenerativeModel,
    LikelihoodBound,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.nn import conv_coder
from genbench.nn.latent_blocks import DenseLayers, Draw, Moments
from genbench.nn.resnet import DownTower, halved_sides, halvings_until
from genbench.prob import discretized_logistic as logistic
from genbench.prob import gaussian, hierarchy, latent_bound
from genbench.prob.hierarchy import Layer
from genbench.prob.likelihood import importance_weighted
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Rung(nn.Module):
    """Layer i: the way up to it, its likelihood, and its prior.

    Args:
        num_inputs: features that come from below.
        width: units of the dense layers below this layer of codes.
        num_codes: of this layer.
        num_above: codes of the layer above; None for the topmost, whose prior is N(0, I).
        width_above: units of the dense layers between this layer and the one above.
        normalised: whether the dense layers are, over the batch.
    """

    def __init__(
        self, num_inputs: int, *, width: int, num_codes: int, num_above: int | None, width_above: int, normalised: bool
    ) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.up = DenseLayers(num_inputs, width, normalised=normalised)
        self.likelihood = Moments(width, num_codes)
        self.down: nn.Module | None = None
        if num_above is not None:
            dense = DenseLayers(num_above, width_above, normalised=normalised)
            self.down = nn.Sequential(dense, Moments(width_above, num_codes))

    def prior(self, above: Tensor | None, num_images: int) -> tuple[Tensor, Tensor]:
        """Moments of p(z_i|z_i+1), or those of N(0, I): (B, num_codes) each."""
        if self.down is None or above is None:
            zeros = self.likelihood.linear.weight.new_zeros(num_images, self.num_codes, dtype=torch.float32)
            return zeros, zeros
        moments: tuple[Tensor, Tensor] = self.down(above)
        return moments


class Ladder(nn.Module):
    """Layers of dense codes above flat features.

    Args:
        num_inputs: flat features of an image.
        widths: units of the dense layers below each layer of codes, the lowest first.
        sizes: codes of each layer, the lowest first.
        normalised: whether the dense layers are, over the batch.
        inference: `ladder`, or `bottom_up`, where a layer is inferred from the draw of the one below it.
    """

    def __init__(
        self,
        num_inputs: int,
        *,
        widths: Sequence[int],
        sizes: Sequence[int],
        normalised: bool,
        inference: Literal["ladder", "bottom_up"],
    ) -> None:
        super().__init__()
        self.inference, L = inference, len(sizes)
        passed_up = widths if inference == "ladder" else sizes
        rungs = [
            Rung(
                num_inputs if i == 0 else passed_up[i - 1],
                width=widths[i],
                num_codes=sizes[i],
                num_above=sizes[i + 1] if i + 1 < L else None,
                width_above=widths[min(i + 1, L - 1)],
                normalised=normalised,
            )
            for i in range(L)
        ]
        self.rungs = cast("Sequence[Rung]", nn.ModuleList(rungs))

    def infer(self, features: Tensor, draw: Draw) -> list[Layer]:
        """Codes of images from q(z|x), the lowest layer first."""
        if self.inference == "bottom_up":
            return self._from_the_bottom_up(features, draw)
        return self.descend(len(features), self._likelihoods(features), draw)

    def generate(self, num_images: int, draw: Draw) -> list[Layer]:
        """Codes from the prior, the lowest layer first."""
        return self.descend(num_images, None, draw)

    def descend(self, num_images: int, likelihoods: Sequence[tuple[Tensor, Tensor]] | None, draw: Draw) -> list[Layer]:
        """Draw from the top down; without likelihoods the posterior is the prior."""
        layers: list[Layer] = []
        above: Tensor | None = None
        for i in reversed(range(len(self.rungs))):
            prior = self.rungs[i].prior(above, num_images)
            posterior = prior
            if likelihoods is not None:
                topmost = above is None
                posterior = likelihoods[i] if topmost else hierarchy.precision_weighted(*likelihoods[i], *prior)
            above = draw(*posterior)
            layers.append(Layer(above, *posterior, *prior))
        return layers[::-1]

    def _likelihoods(self, features: Tensor) -> list[tuple[Tensor, Tensor]]:
        """mu_hat and log sigma_hat of every layer, the lowest first."""
        found, d = [], features
        for rung in self.rungs:
            d = rung.up(d)
            found.append(rung.likelihood(d))
        return found

    def _from_the_bottom_up(self, features: Tensor, draw: Draw) -> list[Layer]:
        """Draw z_1, then every layer given the one below."""
        posteriors: list[tuple[Tensor, Tensor]] = []
        drawn = [features]
        for rung in self.rungs:
            posteriors.append(rung.likelihood(rung.up(drawn[-1])))
            drawn.append(draw(*posteriors[-1]))
        layers: list[Layer] = []
        for i, rung in enumerate(self.rungs, start=1):
            above = drawn[i + 1] if i < len(self.rungs) else None
            layers.append(Layer(drawn[i], *posteriors[i - 1], *rung.prior(above, len(features))))
        return layers


@register_model("ladder_vae")
class LadderVAE(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """The ladder variational autoencoder, and the ordinary hierarchical one."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        inference: Literal["ladder", "bottom_up"] = "ladder"
        """Precision-weighted from the top down, or each layer from the draw of the one below."""
        num_layers: Count = 3
        """L."""
        latent_dim: Count = 24
        """Codes of the lowest layer; every layer above has half as many, at least 1."""
        hidden: Count = 256
        """Units of the dense layers next to the image; half as many between two layers further up, and so on."""
        batch_norm: bool = False
        """Normalise the dense layers over the batch, by running moments once trained."""
        networks: Literal["residual", "dense"] = "residual"
        """What stands between the image and the ladder: residual convolutions, or nothing but dense layers."""
        width: Count = 32
        """Channels of every grid of the residual networks."""
        num_blocks: Count = 2
        """Residual blocks on each of these grids."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        divergence_warmup: Whole = 300
        """Steps over which the weight of the divergence rises to 1; 0 trains on the bound from the start."""
        num_importance: Count = 16
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        batch_size: Count = 32
        learning_rate: Positive = 3e-3
        warmup_steps: Whole = 50
        """Over which the learning rate rises."""
        final_lr_share: Share = 0.05
        """Of the learning rate, reached along a cosine; 1 keeps it."""
        ema_decay: Fraction | None = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps. None keeps the last weights."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(
            latent_dim=12, num_blocks=1, divergence_warmup=20, learning_rate=2e-3, warmup_steps=10, ema_decay=0.95
        ),
        "small": Config(),
        "paper": Config(
            num_layers=5,
            latent_dim=64,
            hidden=512,
            batch_norm=True,
            networks="dense",
            divergence_warmup=46_875,  # 200 epochs of 60,000 images
            batch_size=256,
            learning_rate=1e-3,
            warmup_steps=0,
            final_lr_share=1.0,
            ema_decay=None,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`ladder_vae` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        self.encoder, self.decoder = _networks(spec, config)
        self.ladder = Ladder(
            _num_features(spec, config),
            widths=_halved(config.hidden, config.num_layers),
            sizes=_halved(config.latent_dim, config.num_layers),
            normalised=config.batch_norm,
            inference=config.inference,
        )
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.steps_taken: Tensor

    def phases(self) -> tuple[Phase, ...]:
        """One phase: all networks climb the same objective."""
        player = Player(
            name="autoencoder",
            modules=(self.encoder, self.ladder, self.decoder),
            lr=self.config.learning_rate,
            clip_norm=1.0,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative objective with one draw, in nats per dimension so that it does not grow with the image."""
        layers = self.ladder.infer(self._features(batch.x), gaussian.reparameterised)
        distortion = -self._log_prob_given(batch.x, layers[0].z).mean()
        rates = [self._rate(layer).mean() for layer in layers]
        rate = torch.stack(rates).sum()
        total = (distortion + self._divergence_weight() * rate) / self.spec.num_dims
        parts = {"distortion": distortion, "rate": rate} | {f"rate_{i}": part for i, part in enumerate(rates, start=1)}
        return Loss(total, {name: part.detach() / self.spec.num_dims for name, part in parts.items()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw z_L ~ N(0, I), every layer given the one above, then x ~ p(x|z_1): (N, C, H, W) uint8."""
        layers = self.ladder.generate(num_samples, functools.partial(gaussian.reparameterised, generator=generator))
        return logistic.mixture_sample(self._image_given(layers[0].z), levels=self.levels, generator=generator)

    @property
    def likelihood_estimator(self) -> str:
        """Which bound, and how many draws it takes."""
        return latent_bound.bound_estimator(self.config.num_importance)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """Importance-weighted bound over all layers with `num_importance` draws: (B,), nats per example."""
        features = self._features(x)
        draw = functools.partial(gaussian.reparameterised, generator=generator)
        log_weights = []
        for _ in range(self.config.num_importance):
            layers = self.ladder.infer(features, draw)
            log_weights.append(hierarchy.log_weight(self._log_prob_given(x, layers[0].z), layers))
        return importance_weighted(torch.stack(log_weights))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means of all layers, each given the means above it, the lowest first: (B, D)."""
        layers = self.ladder.infer(self._features(x), lambda mu, log_sigma: mu)
        return torch.cat([layer.z for layer in layers], dim=1)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, D), of which the image depends on the lowest layer alone: (B, C, H, W) uint8."""
        return logistic.mixture_mean(self._image_given(z[:, : self.config.latent_dim]), levels=self.levels)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the posterior means: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _features(self, x: Tensor) -> Tensor:
        """d_0: (B, features)."""
        features: Tensor = self.encoder(to_signed(x, self.levels)).flatten(1)
        return features

    def _image_given(self, z: Tensor) -> logistic.Mixture:
        """p(x|z_1)."""
        return logistic.split_mixture(*self.decoder(z))

    def _log_prob_given(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x|z_1): (B,), nats."""
        return logistic.mixture_log_prob(x, self._image_given(z), levels=self.levels).sum((1, 2))

    def _rate(self, layer: Layer) -> Tensor:
        """Divergence of a layer, or an unbiased estimate where the draw above it is inferred from its own: (B,)."""
        return hierarchy.divergence(layer) if self.config.inference == "ladder" else -hierarchy.log_ratio(layer)

    def _divergence_weight(self) -> float | Tensor:
        """Beta of this step."""
        if self.config.divergence_warmup == 0:
            return 1.0
        weight = (self.steps_taken / self.config.divergence_warmup).clamp_max(1.0)
        if self.training and torch.is_grad_enabled():  # an evaluation of the loss is no step
            self.steps_taken += 1
        return weight


def _networks(spec: DataSpec, config: LadderVAE.Config) -> tuple[nn.Module, conv_coder.Decoder]:
    """What leads from the image to flat features, and p(x|z_1)."""
    num_outputs = logistic.num_parameters(config.num_mixtures, spec.shape[0])
    initial_scale = logistic.initial_scale(config.num_mixtures, spec.shape[0])
    if config.networks == "dense":
        grid = (num_outputs, *spec.shape[1:])
        hidden = DenseLayers(config.latent_dim, config.hidden, normalised=config.batch_norm)
        stem = nn.Sequential(hidden, nn.Linear(config.hidden, num_outputs * spec.shape[1] * spec.shape[2]))
        return nn.Identity(), conv_coder.Decoder(stem, tower=nn.Identity(), grid=grid, initial_scale=initial_scale)
    num_halvings = halvings_until(spec.shape[-1], conv_coder.SMALLEST_SIDE)
    tower = DownTower(spec.shape[0], config.width, num_halvings=num_halvings, num_blocks=config.num_blocks)
    decoder = conv_coder.residual_decoder(
        spec.shape,
        width=config.width,
        num_blocks=config.num_blocks,
        hidden=config.hidden,
        latent_dim=config.latent_dim,
        num_outputs=num_outputs,
        initial_scale=initial_scale,
    )
    return tower, decoder


def _num_features(spec: DataSpec, config: LadderVAE.Config) -> int:
    """Flat features that the ladder stands on."""
    if config.networks == "dense":
        return spec.num_dims
    num_halvings = halvings_until(spec.shape[-1], conv_coder.SMALLEST_SIDE)
    return int(config.width * halved_sides(spec.shape[-1], num_halvings)[-1] ** 2)


def _halved(size: int, num_layers: int) -> list[int]:
    """Size, half of it, and so on, rounded down, at least 1."""
    return [max(1, size >> i) for i in range(num_layers)]
