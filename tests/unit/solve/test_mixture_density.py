"""The compiled mixture density against SciPy's multivariate t-distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_t

from amortnlme.solve.mixture_density import log_t_mixture


@pytest.mark.parametrize(("r", "nu"), [(2, 5), (3, 5), (4, 8), (1, 8)])
def test_log_t_mixture_equals_scipy_component_by_component(r: int, nu: int) -> None:
    rng = np.random.default_rng(0)
    n, C, K = 3, 4, 5
    points, mode = rng.normal(size=(n, C, r)), rng.normal(size=(n, K, r))
    root = np.tril(rng.normal(size=(n, K, r, r)))
    root[..., range(r), range(r)] = rng.uniform(0.2, 2.0, size=(n, K, r))
    expected = np.empty((n, C))
    for i in range(n):
        laws = [multivariate_t(mode[i, k], root[i, k] @ root[i, k].T, df=nu) for k in range(K)]
        parts = [law.logpdf(points[i]) for law in laws]
        expected[i] = logsumexp(parts, axis=0) - np.log(K)
    np.testing.assert_allclose(log_t_mixture(points, mode, root, nu), expected, rtol=1e-12)


def test_log_t_mixture_stays_finite_where_powers_underflow() -> None:
    root = np.eye(4)[None, None] * 1e-20
    value = log_t_mixture(np.full((1, 1, 4), 1e20), np.zeros((1, 1, 4)), root, 8)
    expected = multivariate_t(np.zeros(4), np.eye(4), df=8).logpdf(np.full(4, 1e40)) + 80 * np.log(10.0)
    np.testing.assert_allclose(value[0, 0], expected, rtol=1e-12)


def test_log_t_mixture_stays_finite_when_every_component_is_far_away() -> None:
    root = np.eye(2)[None, None] * 1e-3
    value = log_t_mixture(np.full((1, 1, 2), 1e6), np.zeros((1, 1, 2)), root, 5)
    # -(nu + r)/2 log(2e18 / nu) dominates: the tail is a power, not an exponential.
    expected = multivariate_t(np.zeros(2), 1e-6 * np.eye(2), df=5).logpdf([1e6, 1e6])
    np.testing.assert_allclose(value[0, 0], expected, rtol=1e-12)
