"""Energy-based model of images, trained by contrastive divergence with persistent Langevin chains.

Title: Implicit Generation and Modeling with Energy-Based Models. Authors: Du, Mordatch. Year: 2019. arXiv: 1903.08689.
Persistent chains are those of Tieleman 2008 (persistent contrastive divergence); what short chains from noise can and
cannot do is studied by Nijkamp, Hill, Zhu, Wu 2019 (1904.09770).

Idea: a network gives every image an energy E(x), and p(x) is proportional to exp(-E(x)). The gradient of the negative
log-likelihood lowers the energy of data and raises that of the model's own samples, which Langevin chains supply;
chains are kept in a replay buffer between steps, so that short stretches add up to long chains.

Legend: x_data data, x_model negatives, E energy, alpha weight of the squared energies, eps ~ N(0, I).

    x_model  <- x_model - step_size * grad E(x_model) + noise_scale * eps, a few times    Algorithm 1
    loss     =  E(x_data) - E(x_model) + alpha (E(x_data)^2 + E(x_model)^2)               Algorithm 1

Langevin dynamics proper has noise_scale = sqrt(2 step_size). As in the paper and most that follow it, the noise here is
far smaller: chains sample exp(-E / T) at the low temperature T = noise_scale^2 / (2 step_size), and E learns to make
*those* chains resemble the data. So E orders images, but exp(-E) is not calibrated and no likelihood is reported.

Departures: pixels and chains live in [-1, 1], not [0, 1], so the paper's step size of 10 and noise of 0.005 are 40 and
0.01 here. The network is residual like the paper's, but SiLU throughout (a smooth slope), the first convolution of each
block halves the grid, down to 2 or 3, and widths double up to a limit. Data carry Gaussian noise. Samples come from
chains that start from noise and run longer than one training step's, on an exponential average of the weights.
`smoke` and `small` fold blocks of 2 x 2 pixels into channels, leave out the spectral normalisation, keep far fewer and
shorter chains, of which more start afresh, and sample with twice the step of training: without that, chains from noise
stop short after a brief training. Samples depend on the length of the chain: they are no draws from exp(-E), longer
chains drift towards saturated colours, and backgrounds of middling brightness are rare.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import EnergyBased, GenerativeModel, IterativeSampler, Loss, Phase, Player, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share
from genbench.models._replay_buffer import drawn_from
from genbench.nn.energy_net import EnergyNet
from genbench.prob.contrast import contrast
from genbench.prob.pixels import to_signed, to_uint8
from genbench.samplers.langevin import langevin

LIMITS = (-1.0, 1.0)
"""Chains stay where pixels live."""
BETAS = (0.0, 0.999)
"""Adam without momentum, as in the paper."""


def contrastive_divergence(e_data: Tensor, e_model: Tensor, *, energy_weight: float) -> Tensor:
    """Loss of Algorithm 1, a scalar; without the weight its gradient is that of -log p where negatives are exact.

    Args:
        e_data: (B,) energies of data.
        e_model: (M,) energies of negatives.
        energy_weight: alpha, of the squared energies, which holds both near zero.
    """
    squares = e_data.square().mean() + e_model.square().mean()
    return contrast(e_data, e_model) + energy_weight * squares


@register_model("ebm")
class EBM(GenerativeModel, EnergyBased, IterativeSampler):
    """Deep energy-based model; see the module docstring."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Size of the network, the chains of training, and training itself."""

        channels: Count = 128
        """Width at the largest grid; it doubles with each halving."""
        max_channels: Count = 256
        fold: Count = 1
        """Side of the pixel blocks folded into channels; 1 folds nothing."""
        spectrally_normalised: bool = True
        """Every weight is divided by its largest singular value, which bounds the slope of the energy."""
        buffer_size: Count = 10_000
        """Chains in the replay buffer."""
        fresh_share: Share = 0.05
        """Share of the chains that start again from uniform noise at each training step."""
        chain_steps: Count = 60
        chain_step_size: Positive = 40.0
        chain_noise: NonNegative = 0.01
        data_noise: NonNegative = 0.01
        """Standard deviation of the noise on data."""
        energy_weight: NonNegative = 1.0
        """alpha."""
        lr: Positive = 3e-4
        final_lr_share: Share = 1.0
        ema_decay: Fraction = 0.999
        batch_size: Count = 128

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """Chains from uniform noise to samples."""

        num_steps: Count
        step_size: Positive
        noise_scale: NonNegative

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(
            channels=24,
            max_channels=96,
            fold=2,
            spectrally_normalised=False,
            buffer_size=512,
            fresh_share=0.1,
            chain_steps=10,
            chain_step_size=8.0,
            energy_weight=0.1,
            lr=1e-3,
            ema_decay=0.98,
            batch_size=64,
        ),
        "small": Config(
            channels=24,
            max_channels=96,
            fold=2,
            spectrally_normalised=False,
            buffer_size=512,
            fresh_share=0.1,
            chain_steps=12,
            chain_step_size=30.0,
            data_noise=0.03,
            energy_weight=0.1,
            lr=1e-3,
            ema_decay=0.99,
            batch_size=64,
        ),
        "paper": Config(),
    }
    sampling_presets: ClassVar[Mapping[str, Sampling]] = {
        "smoke": Sampling(num_steps=200, step_size=16.0, noise_scale=0.01),
        "small": Sampling(num_steps=200, step_size=60.0, noise_scale=0.01),
        "paper": Sampling(num_steps=600, step_size=40.0, noise_scale=0.01),
    }

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec)
        if spec.kind != "image" or spec.levels is None:
            raise ValueError(f"`ebm` generates integer images, found {spec.kind} data of shape {spec.shape}")
        self.config = config
        self.levels = spec.levels
        self.sampling: EBM.Sampling = self.sampling_presets["small"]
        self.net = EnergyNet(spec.shape, channels=config.channels, max_channels=config.max_channels, fold=config.fold)
        if config.spectrally_normalised:
            for layer in self.net.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    spectral_norm(layer)
        chains = torch.empty(config.buffer_size, *spec.shape).uniform_(*LIMITS)
        # Training alone needs the chains, so they are not part of the weights.
        self.register_buffer("chains", chains, persistent=False)
        self.chains: Tensor

    @property
    def network(self) -> nn.Module:
        """The energy network."""
        return self.net

    def phases(self) -> tuple[Phase, ...]:
        """One phase, one player: the energy network."""
        config = self.config
        player = Player(
            name="energy",
            modules=(self.net,),
            lr=config.lr,
            betas=BETAS,
            final_lr_share=config.final_lr_share,
            ema_decay=config.ema_decay,
        )
        return (Phase(name="contrastive", share=1.0, players=(player,), batch_size=config.batch_size),)

    def energy(self, x: Tensor) -> Tensor:
        """Energy of float images in [-1, 1]: (B,)."""
        energies: Tensor = self.net(x).squeeze(1)
        return energies

    def loss(self, batch: Batch, player: str) -> Loss:
        """Contrastive divergence between a batch and negatives from the persistent chains."""
        x = to_signed(batch.x, self.levels)
        x_data = x + self.config.data_noise * torch.randn_like(x)
        # One power iteration of the spectral norm serves the whole chain and the loss.
        with parametrize.cached():
            x_model = self._negatives(len(x))
            e_data, e_model = self.energy(torch.cat([x_data, x_model])).split([len(x_data), len(x_model)])
        total = contrastive_divergence(e_data, e_model, energy_weight=self.config.energy_weight)
        return Loss(total, {"energy_of_data": e_data.mean().detach(), "energy_of_model": e_model.mean().detach()})

    def sample(self, num_samples: int, *, generator: Generator) -> Tensor:
        """Draw by Langevin chains from uniform noise, not from the buffer: (N, C, H, W), uint8."""
        noise = torch.rand(num_samples, *self.spec.shape, generator=generator, device=self.chains.device)
        x = langevin(
            self.energy,
            LIMITS[0] + (LIMITS[1] - LIMITS[0]) * noise,
            num_steps=self.sampling.num_steps,
            step_size=self.sampling.step_size,
            noise_scale=self.sampling.noise_scale,
            generator=generator,
            limits=LIMITS,
        )
        return to_uint8(x, self.levels)

    def _negatives(self, num_chains: int) -> Tensor:
        """Continue some chains of the buffer, each at most once, and store where they came to."""
        config = self.config
        rows, start = drawn_from(self.chains, num_chains, fresh_share=config.fresh_share, fresh=self._uniform)
        x_model = langevin(
            self.energy,
            start,
            num_steps=config.chain_steps,
            step_size=config.chain_step_size,
            noise_scale=config.chain_noise,
            generator=None,
            limits=LIMITS,
        )
        self.chains[rows] = x_model
        return x_model

    @staticmethod
    def _uniform(like: Tensor) -> Tensor:
        return torch.empty_like(like).uniform_(*LIMITS)
