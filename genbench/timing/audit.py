"""Proofs that the timed calls did the work: fast is only worth something if nothing was skipped.

Each proof is True or False. A proof that means nothing for a model (it draws no random numbers in training) is left
out.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genbench.timing.clock import Clock, read

FASTER_SHARE = 0.9
"""A request that repeats a seed may take so much of what a new seed takes; below it, something remembers."""
_REPEATS = 5


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
    request: Callable[[int], Tensor], clock: Clock, *, first_seed: int, repeats: int = _REPEATS
) -> tuple[dict[str, bool], str]:
    """Proofs that sampling samples, and the SHA-256 of the samples of the first two seeds.

    `same_seed_same_sample`; `seeds_differ`: two seeds give two samples; `same_seed_not_faster`: a seed that was asked
    for before takes no less than 90 % of the time of a new one (median of pairs; when it does, three times as many
    pairs must say so too).
    """
    first, again, other = request(first_seed), request(first_seed), request(first_seed + 1)
    seeds = iter(range(first_seed + 2, first_seed + 2 + 4 * repeats))
    faster = all(_share(request, clock, first_seed, seeds, pairs) < FASTER_SHARE for pairs in (repeats, 3 * repeats))
    proofs = {
        "same_seed_same_sample": torch.equal(first, again),
        "seeds_differ": not torch.equal(first, other),
        "same_seed_not_faster": not faster,
    }
    return proofs, sample_hash([first, other])


def sample_hash(samples: Sequence[Tensor]) -> str:
    """SHA-256 of samples with their types and shapes, the same on every device."""
    digest = hashlib.sha256()
    for sample in samples:
        array = sample.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _share(request: Callable[[int], object], clock: Clock, seed: int, seeds: Iterable[int], pairs: int) -> float:
    """Time of a repeated seed as a share of a new one's: median of pairs, which take turns in who goes first."""
    shares = list[float]()
    for index, new in zip(range(pairs), seeds, strict=False):
        order = (seed, new) if index % 2 else (new, seed)
        taken = {asked: _seconds(request, clock, asked) for asked in order}
        shares.append(taken[seed] / taken[new])
    return statistics.median(shares)


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
