"""Proofs that the work was done fail for calls that do not do it."""

from __future__ import annotations

import hashlib

import pytest
import torch
from asynchronous_device import AsynchronousDevice
from torch import nn

from genbench.timing.audit import sample_hash, sampling_proofs, training_proofs

CPU = torch.device("cpu")


def _step(layer: nn.Module, *, noise: bool = True):
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)

    def step() -> None:
        optimiser.zero_grad()
        x = torch.randn(4, 3) if noise else torch.ones(4, 3)
        layer(x).square().sum().backward()
        optimiser.step()

    return step


def _training(step, layer: nn.Module) -> dict[str, bool]:
    return training_proofs(step, parameters=layer.parameters(), device=CPU)


def test_a_step_that_trains_on_noise_passes_both_proofs():
    layer = nn.Linear(3, 2)
    assert _training(_step(layer), layer) == {"parameters_changed": True, "random_stream_advanced": True}


def test_a_step_that_leaves_the_parameters_alone_fails():
    layer = nn.Linear(3, 2)
    proofs = _training(lambda: layer(torch.randn(4, 3)), layer)
    assert proofs == {"parameters_changed": False, "random_stream_advanced": True}


def test_a_step_that_draws_nothing_owes_no_proof_of_drawing():
    layer = nn.Linear(3, 2)
    assert _training(_step(layer, noise=False), layer) == {"parameters_changed": True}


def test_a_step_that_puts_the_stream_back_after_drawing_fails():
    layer = nn.Linear(3, 2)
    step = _step(layer)

    def replayed() -> None:
        state = torch.get_rng_state()
        step()
        torch.set_rng_state(state)

    assert _training(replayed, layer)["random_stream_advanced"] is False


def test_numbers_of_a_generator_of_its_own_are_not_of_the_global_stream():
    layer, own = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    assert "random_stream_advanced" not in _training(lambda: layer(torch.randn(4, 3, generator=own)), layer)


class Sampler:
    """Draws on a false device; the cached kind answers from memory."""

    def __init__(self, *, cached: bool = False, same_for_all: bool = False, drifts: bool = False) -> None:
        self.device = AsynchronousDevice()
        self.cached, self.same_for_all, self.drifts = cached, same_for_all, drifts
        self.known: set[int] = set()
        self.calls = 0

    def __call__(self, seed: int) -> torch.Tensor:
        self.calls += 1
        remembered = self.cached and seed in self.known
        self.device.launch(0.0 if remembered else 0.01, host_seconds=0.001)
        self.known.add(seed)
        drawn = 0 if self.same_for_all else seed + (self.calls if self.drifts else 0)
        return torch.randint(256, (1, 3, 4, 4), generator=torch.Generator().manual_seed(drawn), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("sampler", "broken"),
    [
        (Sampler(), None),
        (Sampler(cached=True), "same_seed_not_faster"),
        (Sampler(same_for_all=True), "seeds_differ"),
        (Sampler(drifts=True), "same_seed_same_sample"),
    ],
    ids=["honest", "cached", "ignores its seed", "never the same"],
)
def test_each_proof_of_sampling_fails_for_what_it_is_there_to_find(sampler, broken):
    proofs, _ = sampling_proofs(sampler, sampler.device, first_seed=7)
    assert set(proofs) == {"same_seed_same_sample", "seeds_differ", "same_seed_not_faster"}
    assert [name for name, holds in proofs.items() if not holds] == ([] if broken is None else [broken])


def test_the_hash_is_that_of_type_shape_and_bytes():
    sample = torch.arange(6, dtype=torch.uint8).view(2, 3)
    expected = hashlib.sha256(b"|u1(2, 3)" + bytes(range(6))).hexdigest()
    assert sample_hash([sample]) == expected
    assert sample_hash([sample.t().contiguous().t()]) == expected  # however it stands in memory
    assert sample_hash([sample.view(3, 2)]) != expected
    assert sample_hash([sample.to(torch.int16)]) != expected


def test_the_hash_of_a_sampler_is_the_same_in_every_audit():
    hashes = {sampling_proofs(s, s.device, first_seed=7)[1] for s in (Sampler(), Sampler(cached=True))}
    assert len(hashes) == 1
    other = Sampler()
    assert sampling_proofs(other, other.device, first_seed=8)[1] not in hashes
