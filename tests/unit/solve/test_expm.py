"""Matrix exponential, Frechet derivative and divided differences against SciPy and mpmath."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm, expm_frechet

from amortnlme.solve.expm import (
    divided_difference,
    divided_difference_with_zero,
    matrix_exponential,
    solve_in_place,
)


def compartments(rng, n):
    """A random compartment matrix: non-negative flows, losses on the diagonal."""
    K = np.exp(rng.normal(-1.0, 1.5, (n, n))) * (rng.random((n, n)) < 0.7)
    np.fill_diagonal(K, 0.0)
    return K - np.diag(K.sum(axis=0) + np.exp(rng.normal(-2.0, 1.0, n)))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("dt", [1e-6, 0.1, 3.0, 50.0])
def test_matrix_exponential_agrees_with_scipy_on_compartment_matrices(n, dt):
    rng = np.random.default_rng(n)
    for _ in range(20):
        K = compartments(rng, n) * dt
        directions = rng.standard_normal((2, n, n)) * dt
        value, derivatives = matrix_exponential(K, directions)
        # Both algorithms lose up to norm(K) units of rounding in the squarings.
        tolerance = 1e-14 * (1.0 + np.abs(K).sum(axis=0).max()) * 20
        reference = expm(K)
        assert_allclose(value, reference, rtol=0, atol=tolerance * max(1.0, np.abs(reference).max()))
        for direction, derivative in zip(directions, derivatives, strict=True):
            exact = expm_frechet(K, direction, compute_expm=False)
            assert_allclose(derivative, exact, rtol=0, atol=tolerance * max(1.0, np.abs(direction).max()))


def test_matrix_exponential_keeps_relative_accuracy_of_small_entries_when_flows_are_non_negative():
    K = np.array([[-40.0, 0.0, 0.0], [40.0, -30.0, 0.0], [0.0, 1e-9, -0.01]])
    value, _ = matrix_exponential(K)
    with mpmath.workdps(60):
        exact = mpmath.expm(mpmath.matrix(K.tolist()))
        for i in range(3):
            for j in range(i + 1):
                assert abs(value[i, j] / float(exact[i, j]) - 1.0) < 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_matrix_exponential_gives_nan_when_it_cannot_scale(bad):
    value, _ = matrix_exponential(np.array([[-1.0, 0.0], [bad, -1.0]]))
    assert np.isnan(value).all()


def exact_difference(points):
    """Divided difference of exp at distinct points, in 200 digits."""
    with mpmath.workdps(200):
        total = mpmath.mpf(0)
        for i, a in enumerate(points):
            product = mpmath.mpf(1)
            for j, b in enumerate(points):
                if i != j:
                    product *= a - b
            total += mpmath.exp(a) / product
        return float(total)


GAPS = [0.0, 1e-300, 1e-15, 1e-9, 1e-4, 0.0999, 0.1001, 0.5, 3.0, 30.0]


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("a", [-700.0, -40.0, -1.0, -1e-3, 0.0, 1e-8, 2.0])
def test_divided_difference_is_accurate_for_every_gap(a, gap):
    b = a - gap
    with mpmath.workdps(200):
        # A perturbation far below double precision separates confluent points.
        points = [mpmath.mpf(a), mpmath.mpf(b) - mpmath.mpf(10) ** -60]
    exact = exact_difference(points)
    assert divided_difference(a, b, np.exp(a), np.exp(b)) == pytest.approx(exact, rel=2e-14, abs=0)


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("a", [-40.0, -3.0, -0.71, -0.69, -0.3, -1e-3, 0.0, 0.6, 2.0])
def test_divided_difference_with_zero_is_accurate_for_every_gap(a, gap):
    for first, second in ((a, a - gap), (a - gap, a)):
        with mpmath.workdps(200):
            shift = mpmath.mpf(10) ** -60
            points = [mpmath.mpf(first) + shift, mpmath.mpf(second) - shift, mpmath.mpf(0)]
        exact = exact_difference(points)
        assert divided_difference_with_zero(first, second) == pytest.approx(exact, rel=5e-14, abs=0)


def test_solve_in_place_agrees_with_numpy():
    rng = np.random.default_rng(3)
    matrix, right = rng.standard_normal((5, 5)), rng.standard_normal((3, 5))
    exact = np.linalg.solve(matrix, right.T).T
    solve_in_place(matrix, right)
    assert_allclose(right, exact, rtol=1e-11)
