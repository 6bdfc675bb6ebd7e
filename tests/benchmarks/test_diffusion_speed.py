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
from diffusion_networks import (
    ALPHA,
    SCHEDULE,
    SIDE,
    SIGMA,
    import_diffusers,
    our_transformer,
    our_unet,
    their_transformer,
    training_step,
)
from diffusion_networks import their_unet as unet_of_diffusers
from torch import Generator, Tensor, nn

from genbench.prob import prediction
from genbench.samplers.ddim import ddim

pytestmark = pytest.mark.slow

BATCH, NUM_STEPS = 16, 20


@pytest.fixture(scope="module")
def diffusers():
    return import_diffusers()


@pytest.fixture
def unet():
    return our_unet()


@pytest.fixture
def their_unet(diffusers):
    return unet_of_diffusers(diffusers)


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
    return our_transformer(), their_transformer(diffusers, BATCH)


def _told(what: str, ratio: float, ours: nn.Module, theirs: nn.Module, benchmark) -> None:
    sizes = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    benchmark.extra_info.update(ratio=ratio, parameters=sizes)
    sys.stdout.write(f"\n{what}: {ratio:.2f} x, parameters {sizes[0]:,} and {sizes[1]:,}\n")


def _check_training(what: str, ours: nn.Module, theirs: nn.Module, benchmark) -> None:
    """Our step takes less than theirs."""
    if benchmark.disabled:
        pytest.skip("timed by `make benchmarks`")
    ratio, taken = best_ratio(training_step(ours, BATCH), training_step(theirs, BATCH), rounds=7, repeats=4)
    benchmark.pedantic(training_step(ours, BATCH), rounds=1)
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
