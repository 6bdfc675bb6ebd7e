"""Companding: codes survive the round trip, amplitudes nearly do, and quiet sounds get the finer steps."""

import numpy as np
import pytest

from genbench.prob import mu_law


@pytest.mark.parametrize("levels", [2, 17, 255, 256])
def test_every_code_survives_the_way_to_an_amplitude_and_back(levels):
    codes = np.arange(levels, dtype=np.uint8)
    assert np.array_equal(mu_law.encode(mu_law.decode(codes, levels=levels), levels=levels), codes)


def test_amplitudes_come_back_within_half_a_step_of_the_companded_axis():
    """|dx/dF| = (1 + mu |x|) ln(1 + mu) / mu, greatest at the outer end of a step of 2 / 255."""
    x = np.linspace(-1.0, 1.0, 200_001)
    error = np.abs(mu_law.decode(mu_law.encode(x)) - x)
    half_step = (1.0 / 255 + 255 * np.abs(x) / 255) * (np.exp(np.log(256) / 255) - 1.0)
    assert (error <= half_step + 1e-12).all()
    assert error[np.abs(x) < 0.01].max() < 0.1 * error.max()


def test_the_formula_of_the_paper_holds_at_a_point():
    companded = np.log(1 + 255 * 0.1) / np.log(256)
    assert mu_law.encode(np.array([0.1, -0.1])).tolist() == [
        round((companded + 1) * 127.5),
        round((1 - companded) * 127.5),
    ]


def test_the_ends_and_what_lies_beyond_are_the_outer_codes():
    assert mu_law.encode(np.array([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]
    assert mu_law.decode(np.array([0, 255])).tolist() == [-1.0, 1.0]
    assert abs(mu_law.decode(mu_law.encode(np.zeros(1)))[0]) < 1e-4


def test_louder_is_never_a_lower_code():
    codes = mu_law.encode(np.linspace(-1.0, 1.0, 100_001)).astype(int)
    assert (np.diff(codes) >= 0).all()
    assert set(codes) == set(range(256))


def test_what_is_no_amplitude_and_what_is_no_alphabet_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        mu_law.encode(np.array([0.0, np.nan]))
    for levels in (1, 257):
        with pytest.raises(ValueError, match=f"levels is {levels}"):
            mu_law.decode(np.zeros(1), levels=levels)
