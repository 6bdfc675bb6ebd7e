"""Factors and couplings beside textbook forms."""

import numpy as np
import pytest

from genbench.prob.gaussian_coupling import couple, couple_rows, factored


def _covariance(size, *, rank=None, seed=0):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(10 * size, rank or size))
    if rank is not None:
        rows = rows @ random.normal(size=(rank, size))
    return np.cov(rows * np.linspace(1.0, 2.0, rows.shape[1]), rowvar=False)


@pytest.mark.parametrize("rank", [40, 59, None])
def test_a_factor_gives_its_matrix_back_and_shows_the_rank(rank):
    """The cheap factorisation is tried first; where it meets pivots that are rounding, pivoting finds the rank."""
    cov = _covariance(60, rank=rank)
    upper, order = factored(cov)
    assert len(upper) == (rank or 60)
    np.testing.assert_allclose(np.triu(upper).T @ np.triu(upper), cov[np.ix_(order, order)], atol=1e-12 * cov.max())
    assert len(couple(cov, np.eye(60)).roots) == (rank or 60)


def test_no_variance_has_no_rank():
    assert len(factored(np.zeros((3, 3)))[0]) == 0
    assert couple(np.zeros((3, 3)), np.eye(3)).roots.shape == (0,)


def test_white_rows_have_unit_covariance_and_the_map_is_their_form():
    random = np.random.default_rng(1)
    rows, cov2 = random.normal(size=(400, 30)) @ random.normal(size=(30, 30)), _covariance(30, seed=2)
    centred = rows - rows.mean(axis=0)
    found = couple(np.cov(rows, rowvar=False), cov2)
    white = found.white(centred)
    np.testing.assert_allclose(white @ white.T / 399, np.eye(30), atol=1e-9)
    squares = np.square(found.form.coordinates(white))
    np.testing.assert_allclose(found.form.forms(white, found.roots), found.roots @ squares, rtol=1e-10)
    # E x'Tx is the trace of (S1 S2)^(1/2)
    assert found.form.forms(white, found.roots).sum() / 399 == pytest.approx(found.roots.sum(), rel=1e-10)


def test_few_rows_are_white_among_themselves():
    random = np.random.default_rng(3)
    rows, cov2 = random.normal(size=(20, 50)), _covariance(50, seed=4)
    found = couple_rows(rows - rows.mean(axis=0), cov2)
    white = found.white(np.arange(20))  # (19, 20)
    np.testing.assert_allclose(white @ white.T / 19, np.eye(19), atol=1e-12)
    np.testing.assert_allclose(found.white(np.array([7, 2])), white[:, [7, 2]], atol=1e-15)
    by_moments = couple(np.cov(rows, rowvar=False), cov2)
    np.testing.assert_allclose(found.roots, by_moments.roots, rtol=1e-8)
