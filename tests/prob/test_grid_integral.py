import math

import pytest
import torch

from genbench.prob.grid_integral import log_integral


@pytest.mark.parametrize("num_dims", [1, 2])
def test_a_gaussian_integrates_to_its_constant(num_dims):
    std, middle = 0.1, torch.full((num_dims,), 0.3, dtype=torch.float64)
    found = log_integral(
        lambda x: -0.5 * ((x - 0.7) / std).square().sum(1),
        middle=middle,
        half_width=torch.tensor(2.0, dtype=torch.float64),
        num=60,
    )
    assert found.item() == pytest.approx(num_dims * math.log(std * math.sqrt(2 * math.pi)), abs=1e-6)


def test_the_grid_may_be_taken_in_pieces(monkeypatch):
    settings = {"middle": torch.zeros(2), "half_width": torch.tensor(3.0), "num": 31}

    def log_function(x):
        return -(x[:, 0] ** 2) + x[:, 1].sin()

    whole = log_integral(log_function, **settings)
    monkeypatch.setattr("genbench.prob.grid_integral.CHUNK", 100)
    torch.testing.assert_close(log_integral(log_function, **settings), whole)


def test_a_box_of_one_has_its_volume():
    found = log_integral(lambda x: torch.zeros(len(x)), middle=torch.ones(2), half_width=torch.tensor(1.5), num=7)
    assert found.item() == pytest.approx(math.log(9.0))


def test_many_dimensions_are_refused():
    with pytest.raises(ValueError, match="1 or 2 dimensions"):
        log_integral(lambda x: x.sum(1), middle=torch.zeros(3), half_width=torch.ones(()), num=4)
