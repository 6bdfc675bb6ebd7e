"""Training steps and samples of the diffusion networks on a CUDA device: beside diffusers, and each way to run them.

Times are of the device, from events round blocks of calls, sides in turns; a ratio is of the medians.
Run with `pytest -s --benchmark-enable -m gpu tests/benchmarks/test_gpu_speed.py`.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import pytest
import torch
from diffusion_networks import (
    ALPHA,
    SCHEDULE,
    SIDE,
    SIGMA,
    import_diffusers,
    our_transformer,
    our_unet,
    their_transformer,
    their_unet,
    training_step,
)
from torch import Generator, Tensor, nn

from genbench.prob import prediction
from genbench.samplers.ddim import ddim

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.alone]

BATCH, CALLS, ROUNDS, NUM_STEPS = 128, 10, 9, 20


@pytest.fixture
def diffusers(benchmark):
    if benchmark.disabled:
        pytest.skip("timed with `--benchmark-enable`")
    return import_diffusers()


def _milliseconds(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median time of one call of each, from blocks in turns after one that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, call in sides.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(CALLS):
                call()
            end.record()
            end.synchronize()
            taken[name].append(start.elapsed_time(end) / CALLS)
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def _told(what: str, found: dict[str, float], benchmark) -> None:
    benchmark.extra_info.update(found, device=torch.cuda.get_device_name())
    benchmark.pedantic(lambda: None, rounds=1)
    each = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    sys.stdout.write(f"\n{what} on {torch.cuda.get_device_name()}, batch {BATCH}, milliseconds: {each}\n")


class _Autocast(nn.Module):
    """A network under autocast to bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x, t):
        with torch.autocast("cuda", torch.bfloat16):
            return self.network(x, t)


class _Compiled(nn.Module):
    """A network compiled by one of PyTorch's backends, for fixed shapes."""

    def __init__(self, network: nn.Module, **how) -> None:
        super().__init__()
        self.network = network
        self._call = torch.compile(network, dynamic=False, **how)

    def forward(self, x, t):
        return self._call(x, t)


def _ways(build: Callable[[], nn.Module]) -> dict[str, nn.Module]:
    """One network run in every way, each with weights of its own."""
    torch._dynamo.reset()
    return {
        "eager": build(),
        "compile": _Compiled(build()),
        "cudagraph": _Compiled(build(), backend="cudagraphs"),
        "compile and cudagraph": _Compiled(build(), mode="reduce-overhead"),
        "bfloat16": _Autocast(build()),
        "bfloat16, channels last": _Autocast(build().to(memory_format=torch.channels_last)),
        "bfloat16, compile": _Compiled(_Autocast(build())),
    }


@pytest.mark.parametrize("kind", ["U-Net", "transformer"])
def test_a_training_step_takes_no_longer_than_that_of_diffusers(kind, diffusers, benchmark):
    if kind == "U-Net":
        ours, theirs = our_unet().cuda(), their_unet(diffusers).cuda()
    else:
        ours, theirs = our_transformer().cuda(), their_transformer(diffusers, BATCH, device="cuda").cuda()
    steps = {"genbench": training_step(ours, BATCH, "cuda"), "diffusers": training_step(theirs, BATCH, "cuda")}
    found = _milliseconds(steps)
    _told(f"training step, {kind}", found, benchmark)
    assert found["genbench"] < found["diffusers"]


@pytest.mark.parametrize(("kind", "build"), [("U-Net", our_unet), ("transformer", our_transformer)])
def test_a_training_step_is_faster_compiled_or_captured(kind, build, diffusers, benchmark):
    ways = _ways(lambda: build().cuda())
    found = _milliseconds({name: training_step(network, BATCH, "cuda") for name, network in ways.items()})
    _told(f"training step, {kind}", found, benchmark)
    assert min(found["compile"], found["cudagraph"]) < found["eager"]


def test_samples_take_less_when_compiled_or_captured(diffusers, benchmark):
    """Implicit samples without noise in `NUM_STEPS` steps; theirs with their scheduler."""
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(NUM_STEPS)
    levels = SCHEDULE.levels_at(scheduler.timesteps + 1)  # their first step of noise is 0
    alpha, sigma = ALPHA.cuda(), SIGMA.cuda()
    x_T = torch.randn(BATCH, 3, SIDE, SIDE, generator=Generator("cuda").manual_seed(0), device="cuda")

    def sampled(network: nn.Module) -> Callable[[], object]:
        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            now = t.to(x_t.device)[:, None, None, None]
            noise = network(x_t, t.to(x_t.device)).float()
            return prediction.to_data(noise, "noise", x_t, alpha=alpha[now], sigma=sigma[now]).clamp(-1.0, 1.0)

        return torch.no_grad()(lambda: ddim(denoise, x_T, levels, eta=0.0, generator=Generator("cuda")))

    theirs = their_unet(diffusers).cuda()

    @torch.no_grad()
    def their_samples() -> Tensor:
        x = x_T
        for t in scheduler.timesteps:
            x = scheduler.step(theirs(x, t.to("cuda").expand(BATCH)), t, x).prev_sample
        return x

    ways = {name: sampled(network) for name, network in _ways(lambda: our_unet().cuda()).items()}
    found = _milliseconds({**ways, "diffusers": their_samples})
    _told(f"{NUM_STEPS} implicit steps, U-Net", found, benchmark)
    assert min(found["compile"], found["cudagraph"]) < found["eager"] < found["diffusers"]
