"""Energy-based model whose slope is matched to that of the data along random directions.

Sliced Score Matching: A Scalable Approach to Density and Score Estimation. Yang Song, Sahaj Garg, Jiaxin Shi,
Stefano Ermon, 2019. arXiv:1905.07088

Score matching (Hyvarinen 2005) needs the trace of the energy's second derivative, a pass for each dimension. Along one
random direction it is a number that costs one more backward pass, and its mean over directions is the trace.

Legend: `x` data, `E` energy, `v` directions with E v v' = I, here of random signs, M of them for each example:

    loss = E_x [1/2 |grad E|^2 - 1/M sum_v v' grad^2 E v] / D        the paper's SSM-VR, of less variance

`norm=sliced` has (v' grad E)^2 / 2 in place of the norm, the paper's SSM. At its least exp(-E) is the law of data, if
that has a smooth density that vanishes at infinity: a law with edges, as a checkerboard, has a score that jumps there,
and no loss on the data alone sees it. Nor does it see how deep modes are that are far apart.

**Departures**
- The paper's energies are deep kernel exponential families and flows (NICE); here a network tilts a Gaussian.
- Integers have no density: images are uniformly noised and have Gaussian noise of `data_noise` added, taken off
  samples. Vectors have a little as well, without which flat pieces of the law let the curvature grow without end.
- Samples come from annealed chains, on an exponential average of the weights. Sizes, noise and rates are ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, Positive, Share, Whole
from genbench.models._energy_model import EnergyModel
from genbench.prob.score_matching import sliced


@register_model("sliced_score_matching")
class SlicedScoreMatching(EnergyModel):
    """A tilted Gaussian whose slope and curvature are matched along random directions."""

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
        num_directions: Count = 1
        """M."""
        norm: Literal["full", "sliced"] = "full"
        """Of the slope, or of its part along the direction."""
        base_scale: Positive = 1.5
        """Standard deviation of the base over that of data."""
        data_noise: NonNegative = 0.3
        """Standard deviation of the noise added to data."""
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
        "vector": Config(num_directions=2, data_noise=0.1, batch_size=256),
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
        """1/2 |grad E|^2 less the curvature along random directions, a mean over dimensions; any sign."""
        config = self.config
        x = self.for_training(batch).repeat_interleave(config.num_directions, dim=0)
        v = torch.randint(0, 2, x.shape, device=x.device, dtype=x.dtype) * 2.0 - 1.0
        error = sliced(self.energy, x, v, norm=config.norm).mean() / self.spec.num_dims
        return Loss(error, {"sliced": error.detach()})
