"""Energy-based model trained by contrastive divergence: a few steps of a chain from the data show what is wrong.

Training Products of Experts by Minimizing Contrastive Divergence. Geoffrey E. Hinton, 2002.
doi 10.1162/089976602760128018

The gradient of the log-likelihood needs samples of the model, which take long chains. Contrastive divergence starts the
chains at data and stops after k steps: where they drift away, the energy is lowered at data and raised where they went.
A model that the chains do not leave has found the law of the data, at least near the data: far away, where no chain
comes in k steps, the energy may be low without anyone noticing.

Legend: `x_data` data, `x_model` the ends of the chains, `E` energy, `p0` law of data, `pk` law of the ends:

    CD_k            = KL(p0 || p) - KL(pk || p)
    its gradient   ~=  E_p0 dE - E_pk dE
    loss            =  mean E(x_data) - mean E(x_model),    x_model constant

What is left out is how the parameters move pk: Hinton found that safe, Du et al. 2021 (arXiv:2012.01316) did not in
deep networks, and put it back. As k grows the gradient becomes that of the log-likelihood; at k = 1 with steps that
become small it becomes that of score matching (Hyvarinen 2007).

**Departures**
- The paper's models are restricted Boltzmann machines and products of experts, with Gibbs sampling; here a network
  tilts a Gaussian, and the chain is Metropolis-adjusted Langevin, which keeps the law of the model as Gibbs sampling
  does. Its step follows the share of proposals that are accepted.
- Images are noised integers with Gaussian noise added, without which no chain of k steps moves; samples have it taken
  off.
- Samples come from chains that are annealed from the base, on an exponential average of the weights.
- `paper` is k = 1 in a larger network; its sizes and rates are ours.
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
from genbench.prob.contrast import contrast
from genbench.samplers.mala import adaptive_mala


@register_model("contrastive_divergence")
class ContrastiveDivergence(EnergyModel):
    """A tilted Gaussian learned by CD-k."""

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
        base_scale: Positive = 1.5
        """Standard deviation of the base over that of data."""
        data_noise: NonNegative = 0.1
        """Standard deviation of the noise added to data."""
        lr: Positive = 1.0e-3
        warmup_steps: Whole = 20
        final_lr_share: Share = 0.1
        ema_decay: Fraction = 0.99
        batch_size: Count = 64

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
        "smoke": Config(channels=24, max_channels=96, chain_steps=5, lr=3.0e-3),
        "small": Config(),
        "vector": Config(chain_steps=20, data_noise=0.0, lr=2.0e-3, batch_size=256),
        "paper": Config(
            channels=128,
            max_channels=256,
            fold=1,
            chain_steps=1,
            data_noise=0.03,
            lr=1.0e-4,
            warmup_steps=1000,
            final_lr_share=1.0,
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

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.register_buffer("step_size", torch.ones(()))  # of the chains of training

    def prepare(self, batch: Batch) -> None:
        """Fit the base to the first training batch, and start from the step that suits it."""
        self.fit_base(batch)
        self.step_size.copy_(self._first_step)

    def loss(self, batch: Batch, player: str) -> Loss:
        """E of data less E of the ends of chains that start there, in the mean."""
        x_data = self.for_training(batch)
        chains = adaptive_mala(
            self.energy, x_data, num_steps=self.config.chain_steps, step_size=self.step_size, generator=None
        )
        e_data, e_model = self.energy(torch.cat([x_data, chains.x])).chunk(2)
        parts = {
            "energy_of_data": e_data.mean().detach(),
            "energy_of_model": e_model.mean().detach(),
            "acceptance": chains.acceptance.mean(),
        }
        return Loss(contrast(e_data, e_model), parts)
