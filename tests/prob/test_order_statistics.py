import numpy as np
import pytest

from genbench.prob.order_statistics import median_estimate


def test_the_median_lies_between_its_order_statistics():
    found = median_estimate(np.arange(101.0), how="ranks")
    half = 1.959963984540054 * np.sqrt(101) / 2
    assert found.value == 50.0
    assert found.ci95 == (np.floor(50.5 - half) - 1, np.ceil(50.5 + half))
    assert found.how == "ranks"


def test_few_values_and_few_independent_ones_give_all_there_is():
    assert median_estimate(np.array([3.0, 1.0]), how="").ci95 == (1.0, 3.0)
    assert median_estimate(np.arange(50.0), how="", effective=1.0).ci95 == (0.0, 49.0)


def test_the_interval_holds_the_true_median_whatever_the_law():
    generator = np.random.default_rng(0)
    for draw in (generator.standard_cauchy, generator.standard_normal):
        held = [(part := median_estimate(draw(120), how="")).ci95[0] <= 0.0 <= part.ci95[1] for _ in range(1000)]
        assert 0.935 <= np.mean(held) <= 0.985


def test_the_standard_error_is_that_of_the_median_of_a_normal_law():
    generator = np.random.default_rng(1)
    mean = np.mean([median_estimate(generator.standard_normal(400), how="").stderr for _ in range(300)])
    assert mean == pytest.approx(np.sqrt(np.pi / 2 / 400), rel=0.1)
