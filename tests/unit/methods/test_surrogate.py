"""The closed-form surrogate against quadrature and differences; the mixture refit."""

from __future__ import annotations

import numpy as np
import pytest

from amortnlme.methods.mixture import SubjectMixtures, fit_mixtures, fit_single_gaussian
from amortnlme.methods.surrogate import divide_by_prior


def _random_mixtures(n, k, d, rng):
    root = 0.3 * rng.normal(size=(n, k, d, d))
    covariance = root @ np.swapaxes(root, -1, -2) + 0.05 * np.eye(d)
    weight = rng.dirichlet(np.ones(k), size=n)
    return SubjectMixtures(weight, 0.4 * rng.normal(size=(n, k, d)), covariance)


def _setting(rng, d=3, r=2):
    mixtures = _random_mixtures(4, 2, d, rng)
    surrogate = divide_by_prior(mixtures, np.array([0.2, -0.1, 0.3]), np.diag([1.5, 1.2, 2.0]) ** 2)
    mu = 0.3 * rng.normal(size=(4, d))
    factor = np.zeros((d, r))
    factor[0, 0], factor[1, 0], factor[1, 1] = 0.5, 0.2, 0.4
    return mixtures, surrogate, mu, factor


def _log_density(phi, mean, covariance):
    gap = phi - mean
    return -0.5 * (gap @ np.linalg.inv(covariance) * gap).sum(-1) - 0.5 * np.linalg.slogdet(covariance)[1]


@pytest.mark.parametrize("zero_column", [False, True])
def test_surrogate_equals_quadrature_for_full_and_singular_omega(zero_column):
    mixtures, surrogate, mu, factor = _setting(np.random.default_rng(0))
    if zero_column:
        factor[:, 1] = 0.0
    x, w = np.polynomial.hermite_e.hermegauss(60)
    u = np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
    weight = np.outer(w, w).ravel() / (2 * np.pi)
    expected = []
    for i in range(4):
        phi = mu[i] + u @ factor.T
        g = sum(
            mixtures.weight[i, c] * np.exp(_log_density(phi, mixtures.mean[i, c], mixtures.covariance[i, c]))
            for c in range(2)
        )
        prior = np.exp(_log_density(phi, np.array([0.2, -0.1, 0.3]), np.diag([1.5, 1.2, 2.0]) ** 2))
        expected.append(np.log((weight * g / prior).sum()))
    value = surrogate.value_and_scores(mu, factor)[0]
    # Constants per subject are dropped: compare up to one common constant.
    np.testing.assert_allclose(value - value[0], np.array(expected) - expected[0], atol=1e-9)


def test_surrogate_derivatives_match_differences():
    _, surrogate, mu, factor = _setting(np.random.default_rng(1))
    _, dmu, dfactor = surrogate.value_and_scores(mu, factor)
    h = 1e-6
    for p in range(3):
        step = np.zeros(3)
        step[p] = h
        numeric = (
            surrogate.value_and_scores(mu + step, factor)[0]
            - surrogate.value_and_scores(mu - step, factor)[0]
        )
        np.testing.assert_allclose(dmu[:, p], numeric / (2 * h), atol=1e-7)
        for j in range(2):
            shift = np.zeros((3, 2))
            shift[p, j] = h
            up, down = (surrogate.value_and_scores(mu, factor + s * shift)[0] for s in (1, -1))
            np.testing.assert_allclose(dfactor[:, p, j], (up - down) / (2 * h), atol=1e-7)


def test_components_broader_than_the_prior_are_clipped_and_counted():
    broad = SubjectMixtures(np.ones((2, 1)), np.zeros((2, 1, 2)), np.tile(np.diag([4.0, 0.1]), (2, 1, 1, 1)))
    surrogate = divide_by_prior(broad, np.zeros(2), np.eye(2))
    assert surrogate.n_clipped == 2
    assert np.linalg.eigvalsh(surrogate.lam).min() > 0


def test_debiased_refit_has_an_unbiased_precision():
    """Null: E[inv(S)] is the true precision. 2000 subjects, false-alarm rate 1e-4: 3.9 SE."""
    phi = np.random.default_rng(0).normal(size=(2000, 30, 3))
    precision = np.linalg.inv(fit_single_gaussian(phi).covariance[:, 0])
    diagonal = precision[:, 0, 0]
    assert abs(diagonal.mean() - 1.0) < 3.9 * diagonal.std() / np.sqrt(2000)


def test_mixture_refit_finds_two_separated_groups():
    rng = np.random.default_rng(0)
    group = rng.random((3, 2000)) < 0.3
    phi = rng.normal(size=(3, 2000, 2)) * 0.3 + np.where(group[..., None], 3.0, 0.0)
    fitted = fit_mixtures(phi, 2, rng)
    order = np.argsort(fitted.mean[..., 0], axis=1)
    np.testing.assert_allclose(np.take_along_axis(fitted.weight, order, 1), [[0.7, 0.3]] * 3, atol=0.05)
    means = np.take_along_axis(fitted.mean[..., 0], order, 1)
    np.testing.assert_allclose(means, [[0.0, 3.0]] * 3, atol=0.05)


def test_mixture_refit_keeps_the_overall_moments():
    rng = np.random.default_rng(3)
    phi = np.exp(0.5 * rng.normal(size=(4, 1000, 3))) @ rng.normal(size=(3, 3))
    fitted = fit_mixtures(phi, 3, rng)
    mean = (fitted.weight[..., None] * fitted.mean).sum(axis=1)
    np.testing.assert_allclose(mean, phi.mean(axis=1), atol=0.05 * phi.std())
