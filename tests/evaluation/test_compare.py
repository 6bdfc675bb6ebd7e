import numpy as np
import pytest

from genbench.core.errors import SampleError
from genbench.evaluation.compare import compare_samples

METRICS = ("frechet_distance", "kernel_distance")


def _features(seed: int, count: int = 400, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)) + shift


def test_a_set_that_is_shifted_away_loses_in_every_distance():
    done = compare_samples(_features(1), _features(2, shift=1.0), _features(3, 600), metrics=METRICS, features="given")
    assert {row.name for row in done.differences} == {"fd_given", "kd_given"}
    for row in done.differences:
        assert row.winner == "first"
        assert row.ci95[1] < 0.0
        assert row.p_value <= row.p_adjusted < 0.001


def test_a_set_ties_with_itself():
    same = _features(1)
    done = compare_samples(same, same, _features(3, 600), metrics=METRICS, features="given")
    assert all((row.difference, row.winner) == (0.0, "tie") for row in done.differences)


def test_the_larger_set_is_cut_so_that_small_sample_bias_cancels():
    done = compare_samples(_features(1, 200), _features(2, 900), _features(3), metrics=METRICS, features="given")
    assert done.num_samples == 200
    assert all(row.winner == "tie" for row in done.differences)


def test_too_few_samples_for_the_groups_are_refused():
    with pytest.raises(SampleError, match="30 samples are too few for 20 groups"):
        compare_samples(_features(1, 30), _features(2), _features(3), metrics=METRICS, features="given")


@pytest.mark.slow
def test_equal_laws_are_told_apart_about_as_often_as_the_level_says():
    """The interval of the difference holds 0 in 95 % of draws; 100 draws, so 88 to 100 %."""
    held = 0
    for draw in range(100):
        first, second, real = (_features(1000 * draw + part, 200) for part in range(3))
        (row,) = compare_samples(first, second, real, metrics=METRICS[:1], features="given").differences
        held += row.ci95[0] <= 0.0 <= row.ci95[1]
    assert 88 <= held <= 100
