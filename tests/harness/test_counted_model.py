"""Counts of a model by its label."""

from __future__ import annotations

import pytest
import torch

from genbench.core.errors import UnknownName
from genbench.harness.counted_model import counted_model


@pytest.mark.slow
def test_counts_are_the_same_again_and_the_random_stream_is_left_alone():
    before = torch.get_rng_state()
    first, again = (counted_model("vae", suite="images_smoke", tier="smoke") for _ in range(2))
    assert first == again
    assert sorted(first) == ["vae sample", "vae train"]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_settings_of_a_sampler_show_in_the_counts_of_sampling_alone():
    short, long = (
        counted_model(f"ddpm[sampler=ddim,num_steps={steps}]", suite="images_smoke", tier="smoke") for steps in (2, 4)
    )
    (train, sample), (train_long, sample_long) = (
        [next(counts for name, counts in found.items() if name.endswith(call)) for call in ("train", "sample")]
        for found in (short, long)
    )
    assert train == train_long
    assert (sample.network_evaluations, sample_long.network_evaluations) == (2, 4)
    assert sample_long.flops == 2 * sample.flops


def test_a_model_that_is_not_there_is_an_error_with_the_nearest_name():
    with pytest.raises(UnknownName, match="vea"):
        counted_model("vea", suite="images_smoke", tier="smoke")
