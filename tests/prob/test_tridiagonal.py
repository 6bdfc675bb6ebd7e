"""Quadratic forms of functions of a matrix, beside its eigenvectors."""

import numpy as np
import pytest

from genbench.prob import tridiagonal as module
from genbench.prob.tridiagonal import tridiagonal


def _matrix(values, *, seed=0):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    found = rotation * values @ rotation.T
    return (found + found.T) / 2.0


def _exact(matrix, columns, function):
    """By eigenvectors: `function` at the ascending eigenvalues."""
    return function @ np.square(np.linalg.eigh(matrix)[1].T @ columns)


@pytest.fixture
def rational(monkeypatch):
    """Rational functions from the second row on."""
    monkeypatch.setattr(module, "_RATIONAL_FROM", 2)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 60])
def test_forms_and_eigenvalues_are_those_of_the_eigenvectors(size):
    matrix = _matrix(np.linspace(0.5, 4.0, size))
    columns = np.random.default_rng(1).normal(size=(size, 5))
    found = tridiagonal(np.tril(matrix))
    np.testing.assert_allclose(found.values, np.linspace(0.5, 4.0, size), rtol=1e-12)
    function = np.cos(found.values)
    np.testing.assert_allclose(found.forms(columns, function), _exact(matrix, columns, function), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        np.abs(found.coordinates(columns)), np.abs(np.linalg.eigh(matrix)[1].T @ columns), atol=1e-10
    )


def test_a_matrix_without_rows_has_forms_of_nothing():
    found = tridiagonal(np.zeros((0, 0)))
    assert found.values.shape == (0,)
    np.testing.assert_array_equal(found.forms(np.zeros((0, 3)), np.zeros(0)), np.zeros(3))


@pytest.mark.parametrize("name", ["root", "logarithm", "power", "line"])
@pytest.mark.parametrize("decades", [0.5, 4.0, 12.0])
def test_a_rational_function_serves_as_well_as_eigenvectors(rational, monkeypatch, name, decades):
    values = np.geomspace(10.0**-decades, 1.0, 90) * 7.0
    matrix = _matrix(values)
    found = tridiagonal(matrix)
    columns = matrix @ np.random.default_rng(2).normal(size=(90, 1500))
    spectrum = np.maximum(found.values, 1e-15)
    function = {"root": np.sqrt, "logarithm": np.log, "power": lambda t: t**-0.3, "line": lambda t: 2.0 - t}[name](
        spectrum
    )
    monkeypatch.setattr(module.Tridiagonal, "_vectors", None)  # they are not asked for
    forms = found.forms(columns, function, weights=spectrum**2)
    np.testing.assert_allclose(forms, _exact(matrix, columns, function), rtol=2e-4, atol=2e-4 * np.abs(forms).max())


def test_fits_of_a_root_are_close_at_equal_weights(rational):
    matrix = _matrix(np.geomspace(1e-9, 1.0, 90))
    found, columns = tridiagonal(matrix), np.random.default_rng(3).normal(size=(90, 50))
    roots = np.sqrt(np.maximum(found.values, 0.0))
    np.testing.assert_allclose(found.forms(columns, roots), _exact(matrix, columns, roots), rtol=1e-4)


def test_where_no_such_function_is_close_eigenvectors_serve(rational):
    """All weight on the largest of close eigenvalues, and eigenvalues of either sign."""
    columns = np.random.default_rng(4).normal(size=(60, 8))
    for values in (np.linspace(1.0, 2.0, 60), np.linspace(-1.0, 1.0, 60)):
        matrix = _matrix(values)
        function = (np.arange(60) == 59).astype(float)
        found = tridiagonal(matrix).forms(columns, function)
        np.testing.assert_allclose(found, _exact(matrix, columns, function), rtol=1e-8)


def test_single_precision_leaves_forms_nearly_as_they_are(rational, monkeypatch):
    matrix, columns = _matrix(np.geomspace(1e-6, 1.0, 80)), np.random.default_rng(5).normal(size=(80, 40))
    exact = tridiagonal(matrix)
    monkeypatch.setattr(module, "_SINGLE_FROM", 2)
    single = tridiagonal(matrix)
    roots = np.sqrt(exact.values)
    np.testing.assert_allclose(single.values, exact.values, rtol=1e-12)
    np.testing.assert_allclose(single.forms(columns, roots), exact.forms(columns, roots), rtol=1e-5)
    assert single.coordinates(columns).dtype == np.float32


def test_small_eigenvalues_of_a_graded_matrix_keep_their_digits():
    grades = np.geomspace(1.0, 1e-6, 12)
    core = _matrix(np.linspace(1.0, 2.0, 12))
    found = tridiagonal(core * np.outer(grades, grades))
    # of the scaled inverse, whose largest eigenvalue is the smallest here
    inverse = np.linalg.inv(core) / np.outer(grades, grades)
    assert found.values[0] == pytest.approx(1.0 / np.linalg.eigvalsh(inverse)[-1], rel=1e-10)


def test_only_the_lower_triangle_is_read_and_nothing_is_written():
    matrix = _matrix(np.linspace(1.0, 3.0, 20))
    broken = np.where(np.tri(20, dtype=bool), matrix, np.nan)
    kept = broken.copy()
    np.testing.assert_array_equal(tridiagonal(broken).values, tridiagonal(matrix).values)
    np.testing.assert_array_equal(broken, kept)
