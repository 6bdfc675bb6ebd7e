import itertools

import pytest
import torch

from genbench.prob.prediction import convert, to_data, to_noise, to_velocity, truth

KINDS = ("noise", "data", "velocity")
ANGLE = torch.tensor([0.2, 0.7, 1.3], dtype=torch.float64)[:, None]
ALPHA, SIGMA = ANGLE.cos(), ANGLE.sin()


def _drawn():
    x_0, eps = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x_0, eps, ALPHA * x_0 + SIGMA * eps


@pytest.mark.parametrize(("kind", "wanted"), list(itertools.product(KINDS, KINDS)))
def test_a_perfect_output_stands_for_the_truth_of_every_kind(kind, wanted):
    x_0, eps, x_t = _drawn()
    out = truth(kind, x_0, eps, alpha=ALPHA, sigma=SIGMA)
    found = convert(out, kind, wanted, x_t, alpha=ALPHA, sigma=SIGMA)
    torch.testing.assert_close(found, truth(wanted, x_0, eps, alpha=ALPHA, sigma=SIGMA))


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_the_three_kinds_differ_by_their_factors(kind):
    x_0, eps, x_t = _drawn()
    out = truth(kind, x_0, eps, alpha=ALPHA, sigma=SIGMA) + 0.1
    of_data = to_data(out, kind, x_t, alpha=ALPHA, sigma=SIGMA) - x_0
    of_noise = to_noise(out, kind, x_t, alpha=ALPHA, sigma=SIGMA) - eps
    of_velocity = to_velocity(out, kind, x_t, alpha=ALPHA, sigma=SIGMA) - truth(
        "velocity", x_0, eps, alpha=ALPHA, sigma=SIGMA
    )
    torch.testing.assert_close(of_noise, -ALPHA / SIGMA * of_data)
    torch.testing.assert_close(of_velocity, -of_data / SIGMA)
