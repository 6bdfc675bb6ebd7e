"""Draw samples on the clock, and look at them before any metric does."""

from __future__ import annotations

import dataclasses
import hashlib

import torch
from torch import Tensor, nn

from genbench.core.dataset import DataSpec
from genbench.core.errors import SampleError
from genbench.core.model import GenerativeModel, IterativeSampler
from genbench.core.record import Rate
from genbench.core.spec import TimingEffort
from genbench.core.units import rate_unit
from genbench.harness import clock

_SEED_STRIDE = 1_000_003  # prime, so that the streams of neighbouring seeds do not line up


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Samples and what they cost."""

    samples: Tensor
    """(N, *shape) on the CPU."""
    images_per_second: Rate | None
    latency_seconds: Rate | None
    real_time_factor: Rate | None
    network_evaluations: int | None


@torch.no_grad()
def draw(model: GenerativeModel, num_samples: int, *, seed: int, effort: TimingEffort) -> Drawing:
    """Draw `num_samples` in equal batches; batch b of seed s is the same in every run.

    The first batch warms up kernels and caches and is not timed, unless it is the only one.

    Raises:
        SampleError: what was drawn is not what the contract says.
    """
    model.eval()
    device = device_of(model)
    samples, speeds = _drawn(model, num_samples, seed=seed)
    timed = speeds[1:] if len(speeds) > 1 else speeds
    latencies, lasts = _latencies(model, device, seed, effort.latency_requests), model.spec.seconds
    return Drawing(
        samples=samples,
        images_per_second=clock.rate(timed, rate_unit(model.spec.kind)),
        latency_seconds=clock.rate(latencies, "s"),
        real_time_factor=None if lasts is None else clock.rate([taken / lasts for taken in latencies], "x"),
        network_evaluations=_network_evaluations(model, device, seed),
    )


@torch.no_grad()
def draw_untimed(model: GenerativeModel, num_samples: int, *, seed: int) -> Tensor:
    """Samples (N, *shape) on the CPU, in the batches of `draw` and with its seeds.

    Raises:
        SampleError: what was drawn is not what the contract says.
    """
    model.eval()
    return _drawn(model, num_samples, seed=seed)[0]


def _drawn(model: GenerativeModel, num_samples: int, *, seed: int) -> tuple[Tensor, list[float]]:
    """Samples on the CPU, and the speed of each batch."""
    device = device_of(model)
    chunks, speeds = [], []
    for index, size in enumerate(_batches(num_samples)):
        generator = torch.Generator(device).manual_seed(seed * _SEED_STRIDE + index)
        before = clock.read(device)
        chunk = model.sample(size, generator=generator)
        seconds = clock.read(device) - before
        check_samples(chunk, size, model.spec)
        chunks.append(chunk.cpu())
        speeds.append(size / seconds)
    return torch.cat(chunks), speeds


def check_samples(samples: Tensor, num_samples: int, spec: DataSpec) -> None:
    """Refuse samples that break the contract, before any metric sees them.

    Raises:
        SampleError: wrong count, shape, type or range, or values that are not finite.
    """
    expected = (num_samples, *spec.shape)
    if tuple(samples.shape) != expected:
        raise SampleError(
            f"`sample` drew shape {tuple(samples.shape)}, expected {expected}",
            hint=f"the data of this suite and tier have shape {spec.shape}; `genbench plan` shows them",
        )
    if samples.is_floating_point() and not bool(torch.isfinite(samples).all()):
        raise SampleError("`sample` drew values that are not finite (NaN or infinity)")
    if spec.levels is None:
        return
    if samples.dtype != torch.uint8:
        raise SampleError(f"`sample` drew {samples.dtype}, expected torch.uint8 with values 0 .. {spec.levels - 1}")
    highest = int(samples.max())
    if highest >= spec.levels:
        raise SampleError(f"`sample` drew the value {highest}, expected 0 .. {spec.levels - 1}")


def oddities(samples: Tensor) -> tuple[str, ...]:
    """What is odd about samples that keep the contract: one phrase each, for the record.

    Args:
        samples: (N, *shape) on the CPU.
    """
    found = []
    distinct = len({hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in samples.numpy()})
    if distinct < len(samples):
        found.append(f"only {distinct} of {len(samples)} samples are distinct")
    flat = samples.flatten(1)
    blank = int((flat == flat[:, :1]).all(dim=1).sum())
    if blank:
        found.append(f"{blank} of {len(samples)} samples are of one value throughout")
    return tuple(found)


def drawing_batch(num_samples: int) -> int:
    """Size of the equal batches in which samples are drawn: four or more, of at most 256."""
    return max(1, min(256, -(-num_samples // 4)))


def _batches(num_samples: int) -> list[int]:
    """Four or more equal batches of at most 256, the last one smaller if need be."""
    size = drawing_batch(num_samples)
    full, rest = divmod(num_samples, size)
    return [size] * full + ([rest] if rest else [])


def _latencies(model: GenerativeModel, device: torch.device, seed: int, requests: int) -> list[float]:
    """Seconds for one sample, a new seed each; a first request warms up the batch size."""
    taken = []
    for index in range(requests + 1 if requests else 0):
        generator = torch.Generator(device).manual_seed(-seed * _SEED_STRIDE - index - 1 + 2**40)
        before = clock.read(device)
        model.sample(1, generator=generator)
        taken.append(clock.read(device) - before)
    return taken[1:]


def _network_evaluations(model: GenerativeModel, device: torch.device, seed: int) -> int | None:
    """Evaluations of the network for one sample, counted outside the timed passes; guidance takes two in one call."""
    if not isinstance(model, IterativeSampler):
        return None
    calls = 0

    def count(module: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal calls
        calls += len(inputs[0]) if isinstance(inputs[0], Tensor) else 1

    handle = model.network.register_forward_pre_hook(count)
    try:
        model.sample(1, generator=torch.Generator(device).manual_seed(seed))
    finally:
        handle.remove()
    return calls


def device_of(model: nn.Module) -> torch.device:
    """Where a model lives, by its first parameter or buffer; the CPU when it has neither."""
    for tensor in [*model.parameters(), *model.buffers()]:
        return tensor.device
    return torch.device("cpu")
