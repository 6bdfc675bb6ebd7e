"""Energy-based model trained by persistent contrastive divergence: chains that go on from one update to the next.

Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient. Tijmen Tieleman, 2008.
doi 10.1145/1390156.1390290

Chains that start at data never leave their neighbourhood. Persistent chains are not started anew: they stand where the
last update left them, and as the model changes little between updates they stay close to its law, which a few steps
after each update are enough for. They wander through all of space, and push up the energy wherever they go that no data
is.

Legend: `x_data` data, `x_model` chains, `E` energy. At each update

    x_model <- k steps of a chain that keeps exp(-E), from chains drawn from the buffer
    loss     = mean E(x_data) - mean E(x_model),    x_model constant

A buffer of more chains than a batch needs, as Du and Mordatch 2019 (arXiv:1903.08689) keep, holds more of the law at
once; `fresh_share` of the chains drawn from it start again from the base, as theirs do from noise, without which chains
that no step takes from mode to mode leave the masses of modes to chance. Unlike `ebm`, which
follows that paper, chains run at temperature one here, and the energy is that of a density.

**Departures**
- The paper's models are restricted Boltzmann machines with Gibbs sampling; here a network tilts a Gaussian, and the
  chain is Metropolis-adjusted Langevin with a step that follows the share of proposals accepted. Chains start as draws
  of the base, which is the model before training all but exactly.
- The rate of learning falls along a cosine, so that chains catch up in the end.
- Images are noised integers with Gaussian noise added; samples have it taken off.
- Samples come from chains that are annealed from the base and not from the buffer, on an average of the weights.
- `paper` is k = 1 with a chain for each example of a batch, in a larger network; its sizes and rates are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._energy_model import EnergyModel
from genbench.models._replay_buffer import drawn_from
from genbench.prob.contrast import contrast
from genbench.samplers.mala import adaptive_mala
from genbench.samplers.metropolis import Chains


@register_model("persistent_cd")
class PersistentCD(EnergyModel):
    """A tilted Gaussian learned against chains that persist."""

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """Sizes and training settings."""

        channels: Count = 32
        """Width of the convolutional network at its largest grid; it doubles with each halving."""
        max_channels: Count = 128
        fold: Count = 2
        """Side of the pixel blocks folded into channels; 1 folds nothing."""
        vector_width: Count = 128
        """Of the layers of the MLP that vectors have in place of the convolutional network."""
        vector_layers: Count = 3
        """Hidden layers of that MLP."""
        chain_steps: Count = 10
        """k."""
        buffer_size: Count = 1000
        """Chains that are kept; at least a batch."""
        fresh_share: Share = 0.0
        """Share of the chains drawn from the buffer that start again from the base."""
        base_scale: Positive = 1.5
        """Standard deviation of the base over that of data."""
        data_noise: NonNegative = 0.1
        """Standard deviation of the noise added to data."""
        lr: Positive = 1.0e-3
        warmup_steps: Whole = 20
        final_lr_share: Share = 0.02
        ema_decay: Fraction = 0.99
        batch_size: Count = 64

        def __post_init__(self) -> None:
            if self.buffer_size < self.batch_size:
                raise ValueError(f"the buffer holds a batch, found {self.buffer_size} chains for {self.batch_size}")

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Sampling:
        """How samples are drawn, and where log Z comes from."""

        sampler: Literal["annealed", "mala", "hmc", "langevin"] = "annealed"
        """Chains from the base to the model, or at the model from their start."""
        num_steps: Count = 200
        """Steps of the path of `annealed`; proposals of `mala` and `hmc`; steps of `langevin`."""
        hold: Whole = 50
        """Further steps of `annealed` at its end."""
        step_size: Positive = 0.002
        """h of `mala` and `langevin`, whose noise is sqrt(2 h), as are the leapfrogs of `hmc`."""
        leapfrog_steps: Count = 5
        """Of each trajectory of `hmc`."""
        denoised: bool = True
        """Take the noise of training off samples, by one step along the gradient."""
        normaliser: Literal["ais", "quadrature"] = "ais"
        """Where log Z comes from."""
        ais_steps: Count = 500
        """Steps of the path of annealed importance sampling."""
        ais_chains: Count = 64

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(channels=24, max_channels=96, buffer_size=256, lr=3.0e-3),
        "small": Config(),
        "vector": Config(buffer_size=2000, fresh_share=0.1, data_noise=0.0, lr=2.0e-3, batch_size=256),
        "paper": Config(
            channels=128,
            max_channels=256,
            fold=1,
            chain_steps=1,
            buffer_size=128,
            data_noise=0.03,
            lr=1.0e-4,
            warmup_steps=1000,
            final_lr_share=0.0,
            ema_decay=0.999,
            batch_size=128,
        ),
    }
    sampling_presets: ClassVar[Mapping[str, Sampling]] = {
        "smoke": Sampling(num_steps=100, hold=20, ais_steps=100, ais_chains=32),
        "small": Sampling(),
        "vector": Sampling(num_steps=500, hold=100, normaliser="quadrature"),
        "paper": Sampling(num_steps=1000, hold=200, ais_steps=5000),
    }
    config: Config
    sampling: Sampling
    step_size: Tensor
    chains: Tensor

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.register_buffer("step_size", torch.ones(()))  # of the chains of training
        # Training alone needs the chains, so they are not part of the weights.
        self.register_buffer("chains", self.base_draws(config.buffer_size, None), persistent=False)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Fit the base to the first training batch, and start chains and step from it."""
        self.fit_base(batch)
        self.step_size.copy_(self._first_step)
        self.chains.copy_(self.base_draws(len(self.chains), None))

    def loss(self, batch: Batch, player: str) -> Loss:
        """E of data less E of the persistent chains, in the mean."""
        x_data = self.for_training(batch)
        chains = self._continued(len(x_data))
        e_data, e_model = self.energy(torch.cat([x_data, chains.x])).split([len(x_data), len(chains.x)])
        parts = {
            "energy_of_data": e_data.mean().detach(),
            "energy_of_model": e_model.mean().detach(),
            "acceptance": chains.acceptance.mean(),
        }
        return Loss(contrast(e_data, e_model), parts)

    def _continued(self, num_chains: int) -> Chains:
        """Some chains of the buffer, each at most once, k steps further; they are stored where they came to."""
        config = self.config
        rows, start = drawn_from(self.chains, num_chains, fresh_share=config.fresh_share, fresh=self._afresh)
        chains = adaptive_mala(
            self.energy, start, num_steps=config.chain_steps, step_size=self.step_size, generator=None
        )
        self.chains[rows] = chains.x
        return chains

    def _afresh(self, like: Tensor) -> Tensor:
        return self.base_draws(len(like), None)
