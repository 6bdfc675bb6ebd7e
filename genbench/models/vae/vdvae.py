"""Very deep variational autoencoder: dozens of layers of codes on grids from one pixel to the whole image.

Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images. Rewon Child, 2020, 2011.10650.

A hierarchy with as many layers as an image has pixels could be an autoregressive model, and one with fewer can be
better: what is independent given the layers above is drawn at once. A network of residual blocks on the way up gives
features on every grid; on the way down each block draws one grid of codes, from the posterior or from the prior, and
both uses share the same path.

Symbols: x image, z_l codes of layer l = 0 .. N-1 from the top, h state on the way down, f features of the image on the
way up, K draws.

- Prior and posterior (Sec. 2): p(z) = prod_l p(z_l|z_<l), q(z|x) = prod_l q(z_l|z_<l, x), all diagonal Gaussians given
  what is above, hence log p(x) >= E_q log p(x|z) - sum_l KL(q(z_l|z_<l, x) || p(z_l|z_<l)), each divergence analytic.
- A block (Sec. 3, in `nn/latent_blocks.py`): p(z_l|z_<l) and an addition to h from h; q(z_l|z_<l, x) from h and f; then
  h + project(z_l), and a residual bottleneck. Priors start as N(0, 1); the last convolutions of branches and the
  projections start 1/sqrt(N) as large; grids grow by repeating pixels and start from learned grids.
- p(x|z) is the mixture of discretised logistics of Salimans et al. (2017, 1701.05517, Eq. 3): means of green and blue
  are linear in the levels of red and green of the same pixel, with coefficients tanh(c) for each component.
- `temperature` below 1 draws samples from priors whose sigma is that much smaller; it touches no likelihood.
- Evaluation: the bound from one draw with analytic divergences, or with K > 1 draws log 1/K sum_k p(x, z_k) / q(z_k|x)
  (Burda et al., 2015, 1509.00519, Eq. 8).

**Departures**: the probabilities of the integers sum to 1 at any scale (`prob/discretized_logistic.py`), and samples
are rounded to them. A skipped step still moves the averaged weights. Grids of odd sides are rounded up, so that any
image has a hierarchy. Images are not flipped. `paper` is the authors' network for CIFAR-10 at 32 px: width 384,
bottlenecks a quarter of it, 16 codes for each pixel of a layer, 43 layers, 10 components, Adam at 2e-4 with betas of
0.9, a weight decay of 0.01, batches of 32, gradients clipped to 200 and steps skipped from a norm of 400, averaged
weights. `smoke` and `small` run on blocks of 2x2 pixels, with few layers, one component, a learning rate that rises and
falls, and tighter clipping; and their pixels share their scales. Scales of each pixel's own let a network that is new
to an image call every object noise, which costs little and stops the gradient that would have taught it to draw it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.errors import SettingError
from genbench.core.model import (
    ContinuousLatents,
    GenerativeModel,
    LikelihoodBound,
    Loss,
    Phase,
    Player,
    register_model,
)
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.nn.latent_blocks import BottomUp, Draw, Step, TopDown
from genbench.nn.resnet import halved_sides, halvings_until
from genbench.prob import discretized_logistic as logistic
from genbench.prob import gaussian, hierarchy, latent_bound
from genbench.prob.hierarchy import Layer
from genbench.prob.likelihood import importance_weighted
from genbench.prob.pixels import to_signed

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SMALLEST_GRID = 4
"""Side of the last grid before the single pixel (the papers' strings: 32, 16, 8, 4, 1)."""
_STEPS = re.compile(r"(\d+)(?:([xdm])(\d+))?")


class Coupled:
    """Mixture of discretised logistics whose channels lean on each other, from the output of a network.

    Args:
        values: (B, `num_outputs`, H, W).
        scale: log-scales divided by `SCALE_GAIN` that all pixels share, (K, C); None reads them from `values`.
        num_mixtures: components.
        num_channels: 3 are coupled, any other number is independent given the component.
        levels: size of the alphabet.
    """

    def __init__(
        self, values: Tensor, scale: Tensor | None = None, *, num_mixtures: int, num_channels: int, levels: int
    ) -> None:
        C = num_channels
        by_component = values.float().unflatten(1, (num_mixtures, -1))
        self.logits: Tensor = by_component[:, :, 0]
        self.mu: Tensor = by_component[:, :, 1 : 1 + C]
        rest: Tensor = by_component[:, :, 1 + C :]
        if scale is None:
            log_scale, rest = rest[:, :, :C], rest[:, :, C:]
        else:
            log_scale = (logistic.SCALE_GAIN * scale.float())[:, :, None, None].expand_as(self.mu)
        self.log_scale = log_scale.clamp_min(logistic.MIN_LOG_SCALE)
        self.coefficients = torch.tanh(rest)
        self.levels = levels

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of images (B, C, H, W): (B,), nats."""
        signed = to_signed(x, self.levels).unsqueeze(1)
        mu = torch.stack([self._mean(c, signed) for c in range(self.mu.shape[2])], dim=2)
        mixture = logistic.Mixture(self.logits, mu, self.log_scale)
        return logistic.mixture_log_prob(x, mixture, levels=self.levels).sum((1, 2))

    def sample(self, *, generator: Generator) -> Tensor:
        """Draw a component for each pixel, then its channels in turn: (B, C, H, W) uint8."""
        u = torch.rand(self.logits.shape, generator=generator, device=self.logits.device)
        limits = torch.finfo(u.dtype)
        gumbel = -torch.log(-torch.log(u.clamp(limits.tiny, 1.0 - limits.eps)))
        chosen = (self.logits + gumbel).argmax(1)[:, None]  # (B, 1, H, W)
        drawn = self.mu.new_zeros(self.mu.shape, dtype=torch.uint8)[:, :1].clone()  # (B, 1, C, H, W)
        for c in range(self.mu.shape[2]):
            mu, log_scale = (
                v.gather(1, chosen) for v in (self._mean(c, to_signed(drawn, self.levels)), self.log_scale[:, :, c])
            )
            drawn[:, :, c] = logistic.sample(mu, log_scale, levels=self.levels, generator=generator)
        return drawn.squeeze(1)

    def mean(self) -> Tensor:
        """Level nearest to the mean location of each pixel, each channel given the locations before: uint8."""
        found: list[Tensor] = []
        for c in range(self.mu.shape[2]):
            before = torch.stack([*found, self.mu[:, :, c]], dim=2)  # the last one is read by no channel up to c
            found.append(self._mean(c, before).clamp(-1.0, 1.0))
        mixture = logistic.Mixture(self.logits, torch.stack(found, dim=2), self.log_scale)
        return logistic.mixture_mean(mixture, levels=self.levels)

    def _mean(self, c: int, signed: Tensor) -> Tensor:
        """Location of channel c given those before it, in [-1, 1], (B, 1 or K, >= c, H, W): (B, K, H, W)."""
        mu = self.mu[:, :, c]
        if self.coefficients.shape[2] == 0:
            return mu
        first = c * (c - 1) // 2  # red leans on none, green on coefficient 0, blue on 1 and 2
        for i in range(c):
            mu = mu + self.coefficients[:, :, first + i] * signed[:, :, i]
        return mu


def num_coefficients(num_channels: int) -> int:
    """Coefficients that couple the channels of one component: only colours are coupled."""
    return 3 if num_channels == 3 else 0


def num_outputs(num_mixtures: int, num_channels: int, *, num_scales: int) -> int:
    """Channels that `Coupled` wants for one pixel; `num_scales` is C, or 0 where all pixels share their scales."""
    return num_mixtures * (1 + num_channels + num_scales + num_coefficients(num_channels))


@register_model("vdvae")
class VDVAE(GenerativeModel, LikelihoodBound, ContinuousLatents):
    """The very deep variational autoencoder."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Settings."""

        width: Count = 64
        """Channels of states and features."""
        bottleneck: Positive = 0.5
        """Of the width, inside the bottlenecks."""
        latent_dim: Count = 8
        """Codes for each pixel of a layer."""
        encoder: str = ""
        """Blocks on the way up in the paper's notation, `8x2 8d2 4x2 4d4 1x2`: two blocks at a side of 8, one that then
        pools by 2, ... Commas do as well as blanks. Empty takes `num_blocks` on every grid."""
        decoder: str = ""
        """Blocks on the way down, `1x1 4m1 4x2`: one at a side of 1, one at 4 that takes in the grid of side 1, two
        at 4. Empty takes `num_blocks` on every grid but one on the single pixel."""
        num_blocks: Count = 3
        """Blocks on each grid where no string says otherwise."""
        patch: Count = 2
        """Side of the blocks of pixels that are one position of the largest grid."""
        num_mixtures: Count = 1
        """Logistic components of each pixel."""
        scales: Literal["shared", "predicted"] = "shared"
        """Of the logistics: the same for all pixels, or outputs for each, as in the paper."""
        temperature: Positive = 1.0
        """Of samples: sigma of the priors is multiplied by it."""
        num_importance: Count = 1
        """Draws behind one log-likelihood; 1 gives the evidence lower bound."""
        batch_size: Count = 32
        learning_rate: Positive = 2e-3
        second_beta: Fraction = 0.999
        """Decay of Adam's mean square."""
        weight_decay: NonNegative = 0.01
        clip_norm: Positive = 1.0
        skip_norm: Positive | None = None
        """Steps whose gradient has this norm or more are skipped; None takes all."""
        warmup_steps: Whole = 100
        """Over which the learning rate rises."""
        final_lr_share: Share = 0.05
        """Of the learning rate, reached along a cosine; 1 keeps it."""
        ema_decay: Fraction = 0.99
        """Of the weights; the average spans about 1 / (1 - decay) steps."""

    presets: ClassVar[Mapping[str, DataclassInstance]] = {
        "smoke": Config(width=32, num_blocks=1, learning_rate=3e-3, warmup_steps=10, ema_decay=0.95),
        "small": Config(),
        "paper": Config(
            width=384,
            bottleneck=0.25,
            latent_dim=16,
            encoder="32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3",
            decoder="1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21",
            patch=1,
            num_mixtures=10,
            scales="predicted",
            batch_size=32,
            learning_rate=2e-4,
            second_beta=0.9,
            clip_norm=200.0,
            skip_norm=400.0,
            final_lr_share=1.0,
            ema_decay=0.9999,
        ),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`vdvae` needs images of integers, found {spec.kind} data of shape {spec.shape}")
        self.config, self.levels = config, spec.levels
        C, side = spec.shape[0], spec.shape[-1]
        steps_up, steps_down = _steps(side, config)
        hidden = max(1, int(config.width * config.bottleneck))
        self.encoder = BottomUp(C * config.patch**2, width=config.width, hidden=hidden, steps=steps_up)
        self.decoder = TopDown(width=config.width, hidden=hidden, latent_dim=config.latent_dim, steps=steps_down)
        shared = config.scales == "shared"
        self.scale = nn.Parameter(logistic.initial_scale(config.num_mixtures, C)) if shared else None
        outputs = num_outputs(config.num_mixtures, C, num_scales=0 if shared else C)
        self.head = nn.Conv2d(config.width, outputs * config.patch**2, 1)

    def phases(self) -> tuple[Phase, ...]:
        """One phase: all networks climb the same bound."""
        player = Player(
            name="autoencoder",
            modules=(self,),
            lr=self.config.learning_rate,
            betas=(0.9, self.config.second_beta),
            weight_decay=self.config.weight_decay,
            clip_norm=self.config.clip_norm,
            skip_norm=self.config.skip_norm,
            warmup_steps=self.config.warmup_steps,
            final_lr_share=self.config.final_lr_share,
            ema_decay=self.config.ema_decay,
        )
        return (Phase(name="fit", share=1.0, players=(player,), batch_size=self.config.batch_size),)

    def loss(self, batch: Batch, player: str) -> Loss:
        """Negative bound with one draw, in nats per dimension; its parts are also given for each side of grid."""
        log_prob_x, layers = self._infer(batch.x, self._features(batch.x), gaussian.reparameterised)
        distortion = -log_prob_x.mean() / self.spec.num_dims
        by_side: dict[str, Tensor] = {}
        for layer in layers:
            name, rate = f"rate_{layer.z.shape[-1]}", hierarchy.divergence(layer).mean() / self.spec.num_dims
            by_side[name] = by_side[name] + rate if name in by_side else rate
        rate = torch.stack(list(by_side.values())).sum()
        parts = {"distortion": distortion, "rate": rate} | by_side
        return Loss(distortion + rate, {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw every layer from its prior, then the image: (N, C, H, W) uint8."""
        log_t = math.log(self.config.temperature)

        def draw(mu: Tensor, log_sigma: Tensor) -> Tensor:
            return gaussian.reparameterised(mu, log_sigma + log_t, generator=generator)

        state, _ = self.decoder(num_samples, None, draw=draw)
        return self._image_given(state).sample(generator=generator)

    @property
    def likelihood_estimator(self) -> str:
        """Which bound, and how many draws it takes."""
        return latent_bound.bound_estimator(self.config.num_importance)

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, *, generator: Generator) -> Tensor:
        """The bound with `num_importance` draws: (B,), nats per example."""
        features, draw = self._features(x), functools.partial(gaussian.reparameterised, generator=generator)
        if self.config.num_importance == 1:
            return hierarchy.evidence_bound(*self._infer(x, features, draw))
        weights = [hierarchy.log_weight(*self._infer(x, features, draw)) for _ in range(self.config.num_importance)]
        return importance_weighted(torch.stack(weights))

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Posterior means of all layers, each given the means above it, the topmost first: (B, D)."""
        _, codes = self.decoder(len(x), self._features(x), draw=lambda mu, log_sigma: mu)
        return torch.cat([z.flatten(1) for z, *_ in codes], dim=1)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Mean images of codes (B, D): (B, C, H, W) uint8."""
        left = self._grids(z)
        state, _ = self.decoder(len(z), None, draw=lambda mu, log_sigma: next(left))
        return self._image_given(state).mean()

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images of the posterior means: (B, C, H, W) uint8."""
        return self.decode(self.encode(x))

    def _features(self, x: Tensor) -> dict[int, Tensor]:
        """Features of images by side of grid."""
        features: dict[int, Tensor] = self.encoder(F.pixel_unshuffle(to_signed(x, self.levels), self.config.patch))
        return features

    def _infer(self, x: Tensor, features: Mapping[int, Tensor], draw: Draw) -> tuple[Tensor, list[Layer]]:
        """Log p(x|z), (B,), and the layers of a draw from the posterior."""
        state, codes = self.decoder(len(x), features, draw=draw)
        return self._image_given(state).log_prob(x), [Layer(*of_layer) for of_layer in codes]

    def _image_given(self, state: Tensor) -> Coupled:
        """p(x|z)."""
        values = F.pixel_shuffle(self.head(state), self.config.patch)
        C = self.spec.shape[0]
        return Coupled(values, self.scale, num_mixtures=self.config.num_mixtures, num_channels=C, levels=self.levels)

    def _grids(self, z: Tensor) -> Iterator[Tensor]:
        """Flat codes (B, D) as the grids of the layers in turn."""
        shapes = [(self.config.latent_dim, step.side, step.side) for step in self.decoder.steps]
        parts = z.split([math.prod(shape) for shape in shapes], dim=1)
        return (part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))


def _steps(side: int, config: VDVAE.Config) -> tuple[list[Step], list[Step]]:
    """Blocks up and blocks down for images of this side.

    Raises:
        SettingError: strings that do not fit each other, or the image.
    """
    if side % config.patch:
        raise SettingError(f"`vdvae` setting `patch` is {config.patch}, which does not divide a side of {side} px")
    sides = _sides(side // config.patch)
    up = _parsed(config.encoder or _default_encoder(sides, config.num_blocks), join="d")
    down = _parsed(config.decoder or _default_decoder(sides, config.num_blocks), join="m")
    reached = {step.side for step in up}
    if up[0].side != sides[0] or down[-1].side != sides[0]:
        where = f"the encoder starts at {up[0].side} and the decoder ends at {down[-1].side}"
        raise SettingError(f"`vdvae` on {side} px with patches of {config.patch}: {where}, expected {sides[0]}")
    if not {step.side for step in down} <= reached:
        raise SettingError(f"`vdvae` setting `decoder` has a side that the encoder does not reach: {sorted(reached)}")
    return up, down


def _parsed(text: str, *, join: str) -> list[Step]:
    """Blocks of a string such as `32x11,32d2` (join `d`) or `1x1,4m1` (join `m`)."""
    steps: list[Step] = []
    for word in re.split(r"[,\s]+", text.strip()):
        match = _STEPS.fullmatch(word)
        if match is None or match[2] not in (None, "x", join):
            raise SettingError(f"`vdvae`: `{word}` in `{text}` is not `SIDE`, `SIDExCOUNT` or `SIDE{join}NUMBER`")
        side, number = int(match[1]), int(match[3] or 1)
        steps += [Step(side, number)] if match[2] == join else [Step(side)] * number
    return steps


def _sides(side: int) -> list[int]:
    """Sides of the grids from the largest down: halved until at most `SMALLEST_GRID`, then 1."""
    if side <= SMALLEST_GRID:
        return [side, 1] if side > 1 else [1]
    return [*halved_sides(side, halvings_until(side, SMALLEST_GRID)), 1]


def _default_encoder(sides: Sequence[int], num_blocks: int) -> str:
    """`num_blocks` on every grid, the last of which pools."""
    words = []
    for side, smaller in zip(sides, [*sides[1:], None], strict=True):
        plain = num_blocks if smaller is None else num_blocks - 1
        words += [f"{side}x{plain}"] if plain else []
        words += [] if smaller is None else [f"{side}d{-(-side // smaller)}"]
    return " ".join(words)


def _default_decoder(sides: Sequence[int], num_blocks: int) -> str:
    """One block on the smallest grid, `num_blocks` on every other."""
    words = [f"{sides[-1]}"]
    for smaller, side in zip(sides[:0:-1], sides[-2::-1], strict=True):
        words += [f"{side}m{smaller}"] + ([f"{side}x{num_blocks - 1}"] if num_blocks > 1 else [])
    return " ".join(words)
