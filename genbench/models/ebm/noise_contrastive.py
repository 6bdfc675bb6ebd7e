"""Energy-based model learned by telling data from noise, with its partition function as a parameter.

Noise-Contrastive Estimation of Unnormalized Statistical Models, with Applications to Natural Image Statistics.
Michael U. Gutmann, Aapo Hyvarinen, 2012. Journal of Machine Learning Research 13, 307-361

A classifier between data and noise whose density is known learns the ratio of the two, and so that of the data.
The maximum likelihood of an energy with a free constant has no optimum: the constant would run off. The classifier pins
it, so that log Z is learned with the rest and the density comes out normalised as far as the classifier is good.

Legend: `x` data, `y` noise with density `q`, `E` energy, `c` log Z, `nu` noise for each example:

    log p(u) = -E(u) - c,   G(u) = log p(u) - log q(u) - log nu
    loss     = -E_x log sigmoid(G(x)) - nu E_y log sigmoid(-G(y))

The noise should be near the data, else telling them apart teaches nothing: `noise=gaussian` is fitted to the first
training batch, `noise=flow` to all data, by a small flow that is trained first. A Gaussian of the data's moments can
be exponentially bad as dimensions grow (Pitfalls of Gaussians as a noise distribution in NCE, 2022, arXiv:2210.00189).

**Departures**
- The paper's energies have two layers of filters; here a network tilts a Gaussian. Sizes, nu and rates are ours.
- The covariance of `gaussian` is a mixture of that of the N examples and of its diagonal, the latter with the share
  D / (D + N), as few examples have no covariance of full rank.
- Images are uniformly noised integers with Gaussian noise of `data_noise` added, which is taken off samples.
- `log_likelihood` takes c for log Z by default: it is what the classifier believes, and no bound either way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from genbench.core.dataset import Batch, DataSpec
from genbench.core.model import Loss, Phase, register_model
from genbench.core.ranges import Count, Fraction, NonNegative, OpenShare, Positive, Several, Share, Whole
from genbench.models._energy_model import EnergyModel
from genbench.nn.vector_flow import VectorFlow
from genbench.prob.gaussian import standard_log_prob
from genbench.prob.log_mean import LogMean
from genbench.prob.noise_contrast import noise_contrast


class FittedGaussian(nn.Module):
    """A Gaussian over flat vectors, fitted to examples; standard normal before.

    Args:
        num_dims: D.
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, num_dims: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_dims))
        self.register_buffer("factor", torch.eye(num_dims))  # lower, of the covariance

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Fit to vectors (N, D), N at least 2."""
        N, D = x.shape
        centred = x.double() - x.double().mean(0)
        covariance = centred.T @ centred / (N - 1)
        share = D / (D + N)
        covariance = (1.0 - share) * covariance + share * torch.diag(covariance.diagonal())
        covariance.diagonal().add_(1e-6 * covariance.diagonal().mean() + 1e-12)  # a pixel may never change
        self.mean.copy_(x.mean(0))
        self.factor.copy_(torch.linalg.cholesky(covariance))

    def forward(self, x: Tensor) -> Tensor:
        """Log-density of vectors (B, D): (B,), nats."""
        white = torch.linalg.solve_triangular(self.factor, (x - self.mean).T, upper=False)  # (D, B)
        return standard_log_prob(white).sum(0) - self.factor.diagonal().log().sum()

    def draw(self, num: int, *, generator: Generator | None = None) -> Tensor:
        """Vectors (num, D); None draws from the global stream."""
        eps = torch.randn(num, len(self.mean), generator=generator, device=self.mean.device)
        return self.mean + eps @ self.factor.T


class FlowNoise(nn.Module):
    """A flow over flat vectors; a standard normal of their statistics before it is trained.

    Args:
        num_dims: D.
        width: of the hidden layers of its conditioners.
        num_couplings: at least 2.
    """

    def __init__(self, num_dims: int, *, width: int, num_couplings: int) -> None:
        super().__init__()
        self.num_dims = num_dims
        self.flow = VectorFlow(num_dims, width=width, num_couplings=num_couplings)

    def initialise(self, x: Tensor) -> None:
        """Start from the statistics of vectors (N, D)."""
        self.flow.initialise(x)

    def forward(self, x: Tensor) -> Tensor:
        """Log-density of vectors (B, D): (B,), nats."""
        z, log_det = self.flow(x)
        nats: Tensor = standard_log_prob(z).sum(1) + log_det
        return nats

    def draw(self, num: int, *, generator: Generator | None = None) -> Tensor:
        """Vectors (num, D); None draws from the global stream."""
        device = next(self.flow.parameters()).device
        return self.flow.inverse(torch.randn(num, self.num_dims, generator=generator, device=device))


class LearnedConstant(nn.Module):
    """c less the log-partition function of the base, 0 at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))


@register_model("noise_contrastive")
class NoiseContrastive(EnergyModel):
    """A tilted Gaussian and its constant, learned as a classifier."""

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
        noise: Literal["gaussian", "flow"] = "flow"
        """Law of the noise."""
        noise_ratio: Count = 1
        """nu."""
        flow_width: Count = 128
        """Of the hidden layers of the flow's conditioners."""
        flow_couplings: Several = 6
        flow_share: OpenShare = 0.4
        """Share of training that the flow gets, before the energy."""
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
        normaliser: Literal["learned", "ais", "quadrature"] = "learned"
        """Where log Z comes from; `learned` is c."""
        ais_steps: Count = 500
        """Steps of the path of annealed importance sampling."""
        ais_chains: Count = 64

    presets: ClassVar[Mapping[str, Config]] = {
        "smoke": Config(channels=24, max_channels=96, flow_couplings=4),
        "small": Config(),
        "vector": Config(noise="gaussian", noise_ratio=4, data_noise=0.0, lr=2.0e-3, batch_size=256),
        "paper": Config(
            channels=128,
            max_channels=256,
            fold=1,
            noise="gaussian",
            noise_ratio=10,
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
        "vector": Sampling(num_steps=500, hold=100),
        "paper": Sampling(num_steps=1000, hold=200, ais_steps=5000),
    }
    config: Config
    sampling: Sampling

    def __init__(self, spec: DataSpec, config: Config) -> None:
        super().__init__(spec, config)
        self.sampling = self.Sampling()
        self.constant = LearnedConstant()
        self.noise: FittedGaussian | FlowNoise = FittedGaussian(spec.num_dims)
        if config.noise == "flow":
            self.noise = FlowNoise(spec.num_dims, width=config.flow_width, num_couplings=config.flow_couplings)

    def prepare(self, batch: Batch) -> None:
        """Fit base and noise to the first training batch."""
        self.fit_base(batch)
        self.noise.initialise(self.for_training(batch).flatten(1))

    def phases(self) -> tuple[Phase, ...]:
        """The flow first, if the noise is one; then the energy with its constant."""
        config, share = self.config, 1.0
        found = []
        if config.noise == "flow":
            share = 1.0 - config.flow_share
            players = (self.player("noise", self.noise),)
            found.append(Phase(name="noise", share=config.flow_share, players=players, batch_size=config.batch_size))
        players = (self.player("energy", self.net, self.constant),)
        return (*found, Phase(name="train", share=share, players=players, batch_size=config.batch_size))

    def loss(self, batch: Batch, player: str) -> Loss:
        """The classifier's loss, or for the player `noise` nats per dimension of the flow."""
        x = self.for_training(batch)
        if player == "noise":
            nats = -self.noise(x.flatten(1)).mean() / self.spec.num_dims
            return Loss(nats, {"noise_nats": nats.detach()})
        with torch.no_grad():
            y = self.noise.draw(self.config.noise_ratio * len(x)).view(-1, *self.spec.shape)
            both = torch.cat([x, y])
            log_q = self.noise(both.flatten(1))
        log_ratio = self.log_density(both) - log_q
        on_data, on_noise = log_ratio.split([len(x), len(y)])
        total = noise_contrast(on_data, on_noise)
        right = 0.5 * ((on_data > 0).float().mean() + (on_noise < 0).float().mean())
        return Loss(total, {"noise_contrast": total.detach(), "told_apart": right, "log_z": self.log_z.detach()})

    @property
    def log_z(self) -> Tensor:
        """c: ()."""
        return self.base_log_partition + self.constant.value

    def log_density(self, x: Tensor) -> Tensor:
        """-E - c of points on the scale of the model: (B,), nats, normalised as far as it was learned."""
        return -self.energy(x) - self.log_z

    @torch.no_grad()
    def log_partition(self, *, generator: Generator) -> LogMean:
        """c, with no interval; or as the other models find log Z."""
        if self.sampling.normaliser != "learned":
            return self.estimated_log_partition(generator)
        value = self.log_z.double()
        nothing = torch.full_like(value, math.nan)
        return LogMean(value, nothing, nothing, nothing)
