"""Proofs that the timed calls did the work: fast is only worth something if nothing was skipped.

Each proof is True or False. A proof that means nothing for a model (it draws no random numbers in training) is left
out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.timing.clock import Clock, read

FASTER_SHARE = 0.9
"""A request that repeats a seed is fast when it takes less than this share of what the seed's first request took."""
PAIRS = 30
"""Seeds whose two requests are timed, at most."""
FAST_PAIRS = 26
"""Fast ones among them that prove a memory.

Without a memory both requests of a pair do the same work, and whatever disturbs the machine hits either alike. So a
pair is fast with a chance of at most 1/2, however loud the noise and whatever its law, and the chance of a false alarm
is at most

    P(Bin(30, 1/2) >= 26) = sum_{i <= 4} C(30, i) / 2^30 = 3.0e-5.
"""
_SEEDS = 2**32  # a generator of a CPU takes 32 bits of its seed and drops the rest


def training_proofs(
    step: Callable[[], object], *, parameters: Iterable[Tensor], device: torch.device
) -> dict[str, bool]:
    """Proofs that a training step trains; runs it twice.

    `parameters_changed`: one step changed them. `random_stream_advanced`: it drew from the global stream of the CPU or
    of the device; left out for a step that asks for no random numbers.
    """
    kept = list(parameters)
    before = [parameter.detach().clone() for parameter in kept]
    streams = _streams(device)
    step()
    changed = any(not torch.equal(old, new) for old, new in zip(before, kept, strict=True))
    proofs = {"parameters_changed": changed}
    advanced = any(not torch.equal(old, new) for old, new in zip(streams, _streams(device), strict=True))
    if advanced or _draws(step):
        proofs["random_stream_advanced"] = advanced
    return proofs


def sampling_proofs(
    request: Callable[[int], Tensor], clock: Clock, *, first_seed: int, chance: random.Random | None = None
) -> tuple[dict[str, bool], str]:
    """Proofs that sampling samples, and the SHA-256 of the samples of the first two seeds.

    `same_seed_same_sample`; `seeds_differ`: two seeds give two samples; `same_seed_not_faster`: a seed that was asked
    for before takes as long as when it was new. This last proof fails an honest sampler in 3 of 100,000 audits at most.

    Args:
        request: draws with a seed; must be warm.
        clock: of the device that draws.
        first_seed: of the samples that are hashed.
        chance: picks the seeds that are timed; None takes the system's, so that nobody can have asked for them before
            and kept the answers. No number depends on them.
    """
    first, again, other = request(first_seed), request(first_seed), request(first_seed + 1)
    proofs = {
        "same_seed_same_sample": torch.equal(first, again),
        "seeds_differ": not torch.equal(first, other),
        "same_seed_not_faster": not remembers(request, clock, chance or random.SystemRandom()),
    }
    return proofs, sample_hash([first, other])


def remembers(request: Callable[[int], object], clock: Clock, chance: random.Random) -> bool:
    """Whether at least 26 of 30 seeds are answered faster when they are asked for again at once.

    Stops as soon as that is certain or impossible: a sampler without a memory is let go at its fifth pair that is not
    fast. A seed is compared with itself, since another one may take another number of steps. By the toss of a coin
    there is a request between two pairs, so that what hits every second call hits both sides alike.
    """
    fast = 0
    for number in range(1, PAIRS + 1):
        seed = chance.randrange(_SEEDS)
        new, repeated = _seconds(request, clock, seed), _seconds(request, clock, seed)
        fast += repeated < FASTER_SHARE * new
        if fast == FAST_PAIRS or number - fast > PAIRS - FAST_PAIRS:
            break
        if chance.random() < 0.5:
            request(chance.randrange(_SEEDS))
    return fast == FAST_PAIRS


def sample_hash(samples: Sequence[Tensor]) -> str:
    """SHA-256 of samples with their types and shapes, the same on every device."""
    digest = hashlib.sha256()
    for sample in samples:
        array = sample.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _seconds(request: Callable[[int], object], clock: Clock, seed: int) -> float:
    before = read(clock)
    request(seed)
    return read(clock) - before


def _streams(device: torch.device) -> list[Tensor]:
    """States of the global random streams of the CPU and the device."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _draws(step: Callable[[], object]) -> bool:
    """Whether a step asks for random numbers of a global stream."""
    watch = _RandomOperators()
    with watch:
        step()
    return watch.seen


class _RandomOperators(TorchDispatchMode):
    """Notes operators that draw without a generator of their own.

    Attention is left out: it is marked as random even when it drops nothing.
    """

    seen = False

    def __torch_dispatch__(self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        named = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags and "attention" not in func.name():
            self.seen = self.seen or named.get("generator") is None
        return func(*args, **named)
