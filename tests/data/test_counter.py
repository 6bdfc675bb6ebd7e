"""The counter-based generator: known words, uniformity, independence of neighbours."""

from __future__ import annotations

import numpy as np
from scipy import stats

from genbench.data._counter import _mix, key_of, uniforms, words

MASK = 2**64 - 1


def _splitmix64(state: int) -> int:
    """The published algorithm in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_first_word_of_splitmix64_from_seed_zero_is_the_published_one():
    assert _splitmix64(0) == 0xE220A8397B1DCDAF  # reference output of Vigna's splitmix64.c
    assert int(_mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_rows_are_splitmix64_from_a_hashed_state():
    key = key_of("a", "b")
    found = words(key, np.array([0, 5, 2**62]), 3)
    for row, index in zip(found, (0, 5, 2**62), strict=True):
        state = _splitmix64((int(key[0]) + (index - 1) * 0x9E3779B97F4A7C15) & MASK)
        for word in row:
            assert int(word) == _splitmix64(state)
            state = (state + 0x9E3779B97F4A7C15) & MASK


def test_uniforms_are_uniform_and_neighbours_are_uncorrelated():
    u = uniforms(key_of("test"), np.arange(50_000), 4)
    assert u.min() >= 0
    assert u.max() < 1
    for column in u.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 4 / np.sqrt(50_000)
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 4 / np.sqrt(50_000)


def test_streams_with_other_names_are_other_streams():
    rows = np.arange(1000)
    one, other = (uniforms(key_of("shapes", split), rows, 1)[:, 0] for split in ("train", "test"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.13
    assert not set(one) & set(other)
