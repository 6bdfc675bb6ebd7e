"""Training steps and samples of the diffusion networks beside those of other programs; paired, in CPU seconds.

The U-Nets of genbench and diffusers have the same layers and as many parameters. The other peers differ in kind; their
widths are chosen for about as many parameters, and what is told shows how near.
Run with `OMP_NUM_THREADS=1 pytest -s --benchmark-enable tests/benchmarks/test_diffusion_speed.py`.
"""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from cpu_seconds import best_ratio
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from genbench.nn.diffusion_transformer import DiffusionTransformer
from genbench.nn.unet import UNet
from genbench.prob import prediction
from genbench.prob.noise_schedule import linear_schedule
from genbench.samplers.ddim import ddim

pytestmark = pytest.mark.slow

BATCH, SIDE, WIDTH, NUM_STEPS = 16, 32, 32, 20
SCHEDULE = linear_schedule(1000)
ALPHA, SIGMA = SCHEDULE.alpha.float(), SCHEDULE.sigma.float()


@pytest.fixture(scope="module")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers", reason="needs `pip install diffusers`")


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet(
        3, 3, resolution=SIDE, width=WIDTH, multipliers=(1, 2, 2), num_blocks=1, attention_resolution=16, num_heads=1
    )


@pytest.fixture
def their_unet(diffusers):
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(WIDTH, 2 * WIDTH, 2 * WIDTH),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2 * WIDTH,
        norm_num_groups=8,
    )
    return _Sample(model)


@pytest.fixture
def their_other_unet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip(
            "denoising_diffusion_pytorch", reason="needs `pip install denoising-diffusion-pytorch`"
        )
        return peer.Unet(dim=24, dim_mults=(1, 2, 2), channels=3)


@pytest.fixture
def transformers(diffusers):
    torch.manual_seed(0)
    ours = DiffusionTransformer(3, 3, resolution=SIDE, patch=4, width=128, num_layers=4, num_heads=4)
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=3,
        num_layers=4,
        sample_size=SIDE,
        patch_size=4,
        num_embeds_ada_norm=1,
    )
    return ours, _Sample(theirs, class_labels=torch.zeros(BATCH, dtype=torch.long))


class _Sample(nn.Module):
    """A network of diffusers that returns its tensor alone."""

    def __init__(self, model: nn.Module, **given: Tensor) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.model(x, t, return_dict=False, **self.given)[0]


def _step(network: nn.Module):
    """A step of Adam on the noise in noised pictures."""
    optimiser, generator = torch.optim.Adam(network.parameters(), lr=1e-6), Generator().manual_seed(0)
    x_0 = torch.rand(BATCH, 3, SIDE, SIDE, generator=generator) * 2.0 - 1.0

    def step() -> None:
        optimiser.zero_grad()
        t = torch.randint(1, 1001, (BATCH,), generator=generator)
        eps = torch.randn(x_0.shape, generator=generator)
        x_t = ALPHA[t, None, None, None] * x_0 + SIGMA[t, None, None, None] * eps
        F.mse_loss(network(x_t, t), eps).backward()
        optimiser.step()

    return step


def _told(what: str, ratio: float, ours: nn.Module, theirs: nn.Module, benchmark) -> None:
    sizes = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    benchmark.extra_info.update(ratio=ratio, parameters=sizes)
    sys.stdout.write(f"\n{what}: {ratio:.2f} x, parameters {sizes[0]:,} and {sizes[1]:,}\n")


def _check_training(what: str, ours: nn.Module, theirs: nn.Module, benchmark) -> None:
    """Our step takes less than theirs."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    ratio, taken = best_ratio(_step(ours), _step(theirs), rounds=7, repeats=4)
    benchmark.pedantic(_step(ours), rounds=1)
    _told(f"training step, {what}", ratio, ours, theirs, benchmark)
    assert ratio > 1.0, taken


def test_the_unets_have_as_many_parameters(unet, their_unet):
    assert sum(p.numel() for p in unet.parameters()) == sum(p.numel() for p in their_unet.parameters())


def test_a_training_step_of_the_unet_takes_no_longer_than_that_of_diffusers(benchmark, unet, their_unet):
    _check_training("diffusers", unet, their_unet, benchmark)


def test_a_training_step_of_the_unet_takes_less_than_that_of_denoising_diffusion_pytorch(
    benchmark, unet, their_other_unet
):
    _check_training("denoising-diffusion-pytorch", unet, their_other_unet, benchmark)


def test_a_training_step_of_the_transformer_takes_no_longer_than_that_of_diffusers(benchmark, transformers):
    """Theirs embeds times in every block."""
    _check_training("transformer, diffusers", *transformers, benchmark)


def test_implicit_samples_take_no_longer_than_those_of_diffusers(benchmark, diffusers, unet, their_unet):
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(NUM_STEPS)
    levels = SCHEDULE.levels_at(scheduler.timesteps + 1)  # their first step of noise is 0
    x_T = torch.randn(BATCH, 3, SIDE, SIDE, generator=Generator().manual_seed(0))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = ALPHA[t, None, None, None], SIGMA[t, None, None, None]
        return prediction.to_data(unet(x_t, t), "noise", x_t, alpha=alpha, sigma=sigma).clamp(-1.0, 1.0)

    @torch.no_grad()
    def our_samples() -> Tensor:
        return ddim(denoise, x_T, levels, eta=0.0, generator=Generator())

    @torch.no_grad()
    def their_samples() -> Tensor:
        x = x_T
        for t in scheduler.timesteps:
            x = scheduler.step(their_unet(x, t.expand(BATCH)), t, x).prev_sample
        return x

    ratio, taken = best_ratio(our_samples, their_samples, rounds=5, repeats=1)
    benchmark.pedantic(our_samples, rounds=1)
    _told(f"{BATCH} samples in {NUM_STEPS} steps, diffusers", ratio, unet, their_unet, benchmark)
    assert ratio > 1.0, taken
