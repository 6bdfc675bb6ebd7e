"""Three likelihoods of one law whose density is known, by the best networks there are: exact, exact, and a bound.

The probability flow of `score_sde`, the flow of `flow_matching` and the variational bound of `vdm` are computed from
the same posterior mean of eight Gaussian modes, each in the parametrisation of its model.
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.data.toy2d import GAUSSIAN_STD, Toy2D, means_of
from genbench.models.diffusion.score_sde import NOISE_SCALE, ScoreSDE
from genbench.models.diffusion.vdm import VDM
from genbench.models.flow_matching.flow_matching import FlowMatching

PLANE = DataSpec(kind="vector", shape=(2,), levels=None)
MEANS, STD = torch.from_numpy(means_of("gaussians8")), GAUSSIAN_STD["gaussians8"]
GAMMA_0, GAMMA_1 = -9.0, 9.0
NUM = 2000


def posterior_mean(u: Tensor, r: Tensor) -> Tensor:
    """E[x_0 | u = x_0 + r noise] of the modes, for u (B, 2) and r (B, 1)."""
    gap, variance = u[:, None] - MEANS, STD**2 + r.square()
    share = torch.softmax(-0.5 * gap.square().sum(2) / variance, dim=1)
    kept = STD**2 / variance
    return (share[:, :, None] * MEANS).sum(1) * (1.0 - kept) + kept * u


class Flow(nn.Module):
    """F of eps_hat = sin(phi) v - cos(phi) F."""

    def __init__(self, data_std: float) -> None:
        super().__init__()
        self.S = data_std

    def forward(self, v: Tensor, time: Tensor) -> Tensor:
        r = (time.double() / NOISE_SCALE).exp()[:, None]
        norm = (r.square() + self.S**2).sqrt()
        u = v.double() * norm
        eps = (u - posterior_mean(u, r)) / r
        return ((r / norm * v.double() - eps) * norm / self.S).to(v.dtype)


class Velocity(nn.Module):
    """(E[x_1 | x_t] - x_t) / (1 - t) on straight paths."""

    def __init__(self, time_scale: float) -> None:
        super().__init__()
        self.scale = time_scale

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        t = (time.double() / self.scale)[:, None].clamp(1e-9, 1.0 - 1e-9)
        found = posterior_mean(x.double() / t, (1.0 - t) / t)
        return ((found - x.double()) / (1.0 - t)).to(x.dtype)


class Residual(nn.Module):
    """eps_hat - z."""

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        gamma = (GAMMA_0 + (GAMMA_1 - GAMMA_0) * time.double() / 1000.0)[:, None]
        alpha, sigma = torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
        u = z.double() / alpha
        return ((u - posterior_mean(u, sigma / alpha)) / (sigma / alpha) - z.double()).to(z.dtype)


def score_sde() -> ScoreSDE:
    config = dataclasses.replace(ScoreSDE.presets["smoke"], sigma_min=1e-5, sigma_max=20_000.0)
    model = ScoreSDE(PLANE, config).eval()
    model.net = Flow(config.data_std)  # type: ignore[assignment]
    model.sampling = dataclasses.replace(model.sampling, solver="dopri5", solver_tolerance=1e-7, likelihood_t_min=1e-8)
    return model


def flow_matching() -> FlowMatching:
    model = FlowMatching(
        PLANE, dataclasses.replace(FlowMatching.presets["smoke"], path="straight", sigma_min=0.0)
    ).eval()
    model.net = Velocity(model.config.time_scale)  # type: ignore[assignment]
    model.sampling = dataclasses.replace(model.sampling, likelihood_solver="dopri5", likelihood_tolerance=1e-8)
    return model


def vdm() -> VDM:
    settings = {"schedule": "fixed", "gamma_0": GAMMA_0, "gamma_1": GAMMA_1, "output": "noise"}
    model = VDM(PLANE, dataclasses.replace(VDM.presets["smoke"], **settings)).eval()
    model.net = Residual()  # type: ignore[assignment]
    model.sampling = dataclasses.replace(model.sampling, likelihood_evaluations=60)
    return model


@pytest.mark.slow
def test_three_likelihoods_of_one_law_agree_with_its_density_and_so_with_each_other():
    law = Toy2D(law="gaussians8")
    x = law.load("test", range(NUM)).x.double()
    true = law.log_density(x)
    by_scores = score_sde().log_likelihood(x[:64], generator=torch.Generator().manual_seed(0))
    by_flow = flow_matching().log_density(x[:64])
    torch.testing.assert_close(by_scores, true[:64], rtol=0.0, atol=1e-4)
    torch.testing.assert_close(by_flow, true[:64], rtol=0.0, atol=1e-4)
    gap = true - vdm().log_likelihood(x, generator=torch.Generator().manual_seed(0)).double()
    error = gap.std().item() / math.sqrt(NUM)
    assert error < 0.05  # of an entropy of 0.3 nats: the estimate can tell
    assert -4.0 * error < gap.mean().item() < 4.0 * error + 0.01  # a bound, and nearly met
