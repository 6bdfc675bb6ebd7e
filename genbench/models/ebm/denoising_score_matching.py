"""Energy-based model whose slope learns to point from noised data back to the data.

A Connection Between Score Matching and Denoising Autoencoders. Pascal Vincent, 2011.
doi 10.1162/NECO_a_00142

The slope of the log-density of noised data is where they came from, in the mean, less where they are. To regress on the
noise that was added is therefore to match scores, which needs neither a partition function nor samples of the model nor
a second derivative of the energy.

Legend: `x` data, `eps` ~ N(0, I), `sigma` noise (`data_noise`), `E` energy, -grad E the score of the model:

    loss = E 1/2 |eps - sigma grad E(x + sigma eps)|^2 / D        sigma^2 / D times the paper's

At its least exp(-E) is the law of x + sigma eps. Nothing ties the depths of modes together that are farther apart
than the noise reaches: they may have any share (Wenliang and Kanagawa 2020, arXiv:2008.10087). For many levels, which
mends this, see `ncsn`.

**Departures**
- The paper trains a denoising autoencoder whose energy is known in closed form; here the energy is a network that tilts
  a Gaussian.
- Images are uniformly noised integers before the Gaussian noise. Samples come from annealed chains and have the noise
  taken off by one step, x - sigma^2 grad E(x), on an average of the weights.
- Sizes, noise and rates are ours, those of `paper` as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, Positive, Share, Whole
from genbench.models._energy_model import EnergyModel
from genbench.prob.score_matching import denoising


@register_model("denoising_score_matching")
class DenoisingScoreMatching(EnergyModel):
    """A tilted Gaussian whose slope is regressed on noise."""

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
        base_scale: Positive = 1.5
        """Standard deviation of the base over that of data."""
        data_noise: Positive = 0.3
        """sigma."""
        lr: Positive = 2.0e-3
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
        step_size: Positive = 0.01
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
        "smoke": Config(channels=24, max_channels=96),
        "small": Config(),
        "vector": Config(data_noise=0.1, batch_size=256),
        "paper": Config(
            channels=128,
            max_channels=256,
            fold=1,
            data_noise=0.1,
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

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()

    def prepare(self, batch: Batch) -> None:
        """Fit the base to the first training batch."""
        self.fit_base(batch)

    def loss(self, batch: Batch, player: str) -> Loss:
        """1/2 |eps - sigma grad E(x + sigma eps)|^2, a mean over dimensions."""
        x = self.as_points(batch.x, None)
        eps = torch.randn_like(x)
        error = denoising(self.energy, x, eps, sigma=self.config.data_noise).mean() / self.spec.num_dims
        return Loss(error, {"denoising": error.detach()})
