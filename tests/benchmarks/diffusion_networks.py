"""Networks of genbench and of diffusers with the same layers, and a training step of either."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.nn.diffusion_transformer import DiffusionTransformer
from genbench.nn.unet import UNet
from genbench.prob.noise_schedule import linear_schedule

SIDE, WIDTH = 32, 32
SCHEDULE = linear_schedule(1000)
ALPHA, SIGMA = SCHEDULE.alpha.float(), SCHEDULE.sigma.float()


class Sample(nn.Module):
    """A network of diffusers that returns its tensor alone."""

    def __init__(self, model: nn.Module, **given: Tensor) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, return_dict=False, **self.given)[0]


def import_diffusers():
    """The peer, or a skip that says how to get it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers", reason="needs `pip install diffusers`")


def our_unet(width: int = WIDTH) -> UNet:
    """With attention on maps of half the side."""
    torch.manual_seed(0)
    return UNet(
        3, 3, resolution=SIDE, width=width, multipliers=(1, 2, 2), num_blocks=1, attention_resolution=16, num_heads=1
    )


def their_unet(diffusers, width: int = WIDTH) -> nn.Module:
    """The same layers by diffusers."""
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(width, 2 * width, 2 * width),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2 * width,
        norm_num_groups=8,
    )
    return Sample(model)


def our_transformer(width: int = 128) -> DiffusionTransformer:
    """Four blocks with heads of 32 units on 64 patches."""
    torch.manual_seed(0)
    return DiffusionTransformer(3, 3, resolution=SIDE, patch=4, width=width, num_layers=4, num_heads=width // 32)


def their_transformer(diffusers, batch: int, width: int = 128, device: str = "cpu") -> nn.Module:
    """The same sizes by diffusers, which embeds times in every block."""
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=3,
        num_layers=4,
        sample_size=SIDE,
        patch_size=4,
        num_embeds_ada_norm=1,
    )
    return Sample(model, class_labels=torch.zeros(batch, dtype=torch.long, device=device))


def training_step(network: nn.Module, batch: int, device: str = "cpu") -> Callable[[], None]:
    """A step of Adam on the noise in noised pictures."""
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-6)
    generator = Generator(device).manual_seed(0)
    x_0 = torch.rand(batch, 3, SIDE, SIDE, generator=generator, device=device) * 2.0 - 1.0
    alpha, sigma = ALPHA.to(device), SIGMA.to(device)

    def step() -> None:
        optimiser.zero_grad()
        t = torch.randint(1, 1001, (batch,), generator=generator, device=device)
        eps = torch.randn(x_0.shape, generator=generator, device=device)
        x_t = alpha[t, None, None, None] * x_0 + sigma[t, None, None, None] * eps
        F.mse_loss(network(x_t, t).float(), eps).backward()
        optimiser.step()

    return step
