"""Weighted moments of individual draws against the same sums in NumPy, double precision."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from amortnlme.solve.draw_weights import _single_exp, diagonal_moments, full_moments
from amortnlme.solve.threads import using_threads

N, D, M = 700, 4, 60


@njit
def _all_exp(x):
    y = np.empty_like(x)
    for i in range(len(x)):
        y[i] = _single_exp(x[i])
    return y


def _case(kind):
    rng = np.random.default_rng(0)
    phi, constant = rng.standard_normal((N, D, M)), 2.0 * rng.standard_normal((N, M))
    mean = 0.3 * rng.standard_normal((N, D))
    factor = np.eye(D) + 0.4 * np.tril(rng.standard_normal((D, D)), -1)
    # NumPy gets what the kernel gets: rounding of the inputs is not the kernel's error.
    return phi.astype(kind), constant.astype(kind), mean.astype(kind), np.linalg.inv(factor).astype(kind)


def _expected(phi, constant, mean, inverse):
    phi, constant, mean, inverse = (a.astype(np.float64) for a in (phi, constant, mean, inverse))
    z = inverse @ (phi - mean[:, :, None])
    log_weight = constant - 0.5 * (z**2).sum(axis=1)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    log_mean = np.log(weight.mean(axis=1)) + log_weight.max(axis=1)
    weight /= weight.sum(axis=1, keepdims=True)
    first = np.einsum("ij,iaj->ia", weight, z)
    return log_mean, 1.0 / (weight**2).sum(axis=1), first, np.einsum("ij,iaj,ibj->iab", weight, z, z)


@pytest.mark.parametrize(("kind", "share"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_full_moments_are_those_of_numpy(kind, share):
    """Single precision: 60 summands of order 10 with relative rounding 6e-8 each, and exp of log weights of
    order 30, whose absolute rounding is 2e-6."""
    case = _case(kind)
    log_mean, ess, first, second = _expected(*case)
    result, e_z, e_zz = full_moments(*case)
    np.testing.assert_allclose(result[:, 0], log_mean, atol=10 * share)
    np.testing.assert_allclose(result[:, 1], ess, rtol=10 * share)
    np.testing.assert_allclose(e_z, first, atol=10 * share)
    np.testing.assert_allclose(e_zz, second, atol=100 * share)
    total = full_moments(*case, summed=True)[2]
    np.testing.assert_allclose(total, second.sum(axis=0), atol=100 * share * np.sqrt(N))


@pytest.mark.parametrize(("kind", "share"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_diagonal_moments_are_those_of_a_diagonal_factor(kind, share):
    phi, constant, mean, _ = _case(kind)
    scale = np.array([1.0, 0.5, -2.0, 1.5], kind)
    log_mean, ess, first, second = _expected(phi, constant, mean, np.diag(scale))
    result, e_z, e_square = diagonal_moments(phi, constant, mean, scale)
    np.testing.assert_allclose(result[:, 0], log_mean, atol=10 * share)
    np.testing.assert_allclose(result[:, 1], ess, rtol=10 * share)
    np.testing.assert_allclose(e_z, first, atol=10 * share)
    np.testing.assert_allclose(e_square, np.diagonal(second, axis1=1, axis2=2), atol=100 * share)


def test_moments_do_not_depend_on_the_number_of_threads():
    case = _case(np.float32)
    found = []
    for threads in (1, 2):
        with using_threads(threads):
            found.append(b"".join(part.tobytes() for part in full_moments(*case, summed=True)))
    assert found[0] == found[1]


def test_single_exponential_is_accurate_over_its_whole_range():
    x = np.linspace(-87.0, 0.0, 200_001).astype(np.float32)
    assert np.abs(_all_exp(x) / np.exp(x.astype(np.float64)) - 1.0).max() < 3e-7
    assert _all_exp(np.array([-1e30], np.float32))[0] < 1e-37
