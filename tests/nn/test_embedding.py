import math

import pytest
import torch

from genbench.nn.embedding import TimeEmbedding, sinusoidal


def test_waves_run_from_one_radian_per_unit_to_the_longest_period() -> None:
    waves = sinusoidal(torch.tensor([0.0, 3.0], dtype=torch.float64), 8, max_period=1000.0)
    speeds = [1.0, 0.1, 0.01, 0.001]
    expected = [math.sin(3 * speed) for speed in speeds] + [math.cos(3 * speed) for speed in speeds]
    torch.testing.assert_close(waves[1], torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(waves[0], torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64))


def test_no_two_of_a_thousand_times_look_alike() -> None:
    waves = sinusoidal(torch.arange(1, 1001), 32)
    assert waves.dtype == torch.float32
    distances = torch.cdist(waves, waves) + 9.0 * torch.eye(1000)
    assert distances.min() > 0.1


@pytest.mark.parametrize("dim", [2, 7])
def test_lengths_that_cannot_be_halved_into_waves_are_refused(dim: int) -> None:
    with pytest.raises(ValueError, match="even length"):
        sinusoidal(torch.zeros(1), dim)


def test_the_embedding_of_a_time_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    embed = TimeEmbedding(16, 64)
    together = embed(torch.tensor([5, 900]))
    assert together.shape == (2, 64)
    torch.testing.assert_close(embed(torch.tensor([900])), together[1:])
    assert (together[0] - together[1]).abs().max() > 1e-3
