"""Mutual information of binned codes, against loops over pairs and against taking examples out one by one."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from genbench.prob.mutual_information import histogram_bins, mutual_information


def _sample(num=400, *, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    factors = np.stack([rng.integers(0, size, num) for size in (2, 5, 9)], axis=1)
    codes = rng.normal(size=(num, 4))
    codes[:, :3] += factors
    return codes.astype(dtype), factors


def _bins_by_loop(codes, num_bins):
    """Locatello et al. 2019: `digitize` by the lower edges of a histogram, in an array of the codes' own type."""
    found = np.zeros_like(codes)
    for d in range(codes.shape[1]):
        found[:, d] = np.digitize(codes[:, d], np.histogram(codes[:, d], num_bins)[1][:-1])
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_bins", [2, 20, 57])
def test_bins_are_those_of_digitize_and_histogram_in_the_precision_of_the_codes(dtype, num_bins):
    codes, _ = _sample(dtype=dtype)
    assert (histogram_bins(codes, num_bins) + 1 == _bins_by_loop(codes, num_bins)).all()


def test_codes_on_an_edge_fall_where_their_precision_puts_the_edge():
    """A multiple of 0.1 in single precision sits below the edge that double precision draws, or on its own."""
    codes = np.linspace(0.0, 1.0, 11, dtype=np.float32)[:, None]
    single, double = histogram_bins(codes, 10), histogram_bins(codes.astype(np.float64), 10)
    assert (single + 1 == _bins_by_loop(codes, 10)).all()
    assert (single != double).any()


def test_the_highest_code_is_in_the_last_bin_and_a_constant_latent_in_one_bin():
    codes = np.stack([np.arange(7.0), np.full(7, 3.0)], axis=1)
    bins = histogram_bins(codes, 20)
    assert (bins[0, 0], bins[-1, 0]) == (0, 19)
    assert len(set(bins[:, 1])) == 1


def test_mutual_information_and_entropy_equal_a_loop_over_pairs():
    codes, factors = _sample()
    bins = histogram_bins(codes, 20)
    found = mutual_information(bins, factors)
    looped = [[mutual_info_score(factors[:, k], bins[:, d]) for k in range(3)] for d in range(4)]
    assert found.values == pytest.approx(np.array(looped), abs=1e-12)
    own = [mutual_info_score(factors[:, k], factors[:, k]) for k in range(3)]
    assert found.entropies == pytest.approx(np.array(own), abs=1e-12)


def test_any_whole_numbers_name_the_factor_values():
    codes, factors = _sample()
    bins = histogram_bins(codes, 20)
    renamed = np.array([-(10**9), 3, 77, 10**12, 0, -1, 5, 6, 8])[factors]
    assert mutual_information(bins, renamed).values == pytest.approx(
        mutual_information(bins, factors).values, abs=1e-14
    )


def test_information_of_a_table_small_enough_to_write_down():
    """Two bins, two values, joint shares 3/8, 1/8, 1/8, 3/8: I = log 2 - H(1/4)."""
    bins = np.array([0, 0, 0, 0, 1, 1, 1, 1])[:, None]
    values = np.array([0, 0, 0, 1, 0, 1, 1, 1])[:, None]
    expected = np.log(2.0) + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)
    assert mutual_information(bins, values).values.item() == pytest.approx(expected, rel=1e-14)


def test_pulls_are_what_is_lost_when_an_example_is_taken_out():
    codes, factors = _sample(60)
    bins, num = histogram_bins(codes, 6), 60
    found = mutual_information(bins, factors)
    weights, entropy_weights = np.zeros((4, 3)), np.array([0.0, 0.5, -1.5])
    weights[1, 2], weights[3, 0] = 1.0, -2.0
    pulls = found.pull(weights, entropy_weights)

    def total(keep):
        part = mutual_information(bins[keep], factors[keep])
        return float((weights * part.values).sum() + entropy_weights @ part.entropies)

    whole = total(np.arange(num))
    left_out = [(num - 1) * (whole - total(np.delete(np.arange(num), n))) for n in range(num)]
    assert pulls == pytest.approx(np.array(left_out), abs=1e-11)
