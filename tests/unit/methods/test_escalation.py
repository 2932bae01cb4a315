"""Escalation of bad importance weights, against the exact conditional laws of a linear-Gaussian model."""

from dataclasses import replace

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian, LinearGaussianTarget

from amortnlme.core.rng import generator
from amortnlme.methods.escalation import escalate
from amortnlme.methods.importance import importance_correct

STUDY = LinearGaussian(6, (1.0, 1.0), seed=4)
N_DRAWS = 2000


def bind(ids):
    return LinearGaussianTarget(STUDY.y()[[int(i) for i in ids]], np.linalg.inv(STUDY.noise))


def exact():
    """Mean (n, d) and covariance of the posteriors under N(0, I)."""
    covariance = np.linalg.inv(np.linalg.inv(STUDY.noise) + np.eye(STUDY.d))
    return STUDY.y() @ np.linalg.inv(STUDY.noise) @ covariance, covariance


def narrow_draws(distance):
    """Draws of a normal law with a third of the posterior SDs, `distance` (n,) posterior SDs away."""
    mean, covariance = exact()
    center = mean + distance[:, None] * np.sqrt(np.diagonal(covariance))
    root = np.linalg.cholesky(covariance) / 3.0
    z = generator(1).standard_normal((STUDY.n, N_DRAWS, STUDY.d))
    phi = center[:, None] + z @ root.T
    draws = STUDY.draws(N_DRAWS, generator(2))
    log_root = np.log(np.diagonal(root)).sum()
    log_q = -0.5 * (z**2).sum(axis=-1) - log_root - 0.5 * STUDY.d * np.log(2 * np.pi)
    return replace(draws, phi=phi, log_q=log_q, log_prior=draws.prior.log_prob(phi))


@pytest.fixture(scope="module")
def bad():
    draws = narrow_draws(np.full(STUDY.n, 2.0))
    corrected = importance_correct(draws, STUDY.target(), generator(3))
    return draws, corrected, escalate(draws, corrected, bind, generator(4))


def test_escalated_weights_are_good_where_the_first_were_not(bad):
    _, before, after = bad
    assert (before.pareto_k > 0.7).all() and (before.ess < 0.1 * N_DRAWS).all()
    # Every component of the mixture is the exact law up to the tails of a t-distribution.
    assert (after.pareto_k < 0.5).all() and (after.ess > 0.8 * N_DRAWS).all()


def test_escalated_draws_have_the_moments_of_the_exact_posterior(bad):
    """4.5 Monte-Carlo errors for 18 means and 18 SDs; resampling adds the error of as many plain draws."""
    _, _, after = bad
    mean, covariance = exact()
    sd = np.sqrt(np.diagonal(covariance))
    error = np.sqrt(1.0 / after.ess + 1.0 / N_DRAWS)[:, None]
    assert (np.abs(after.draws.phi.mean(axis=1) - mean) / sd < 4.5 * error).all()
    assert (np.abs(after.draws.phi.std(axis=1) / sd - 1.0) < 4.5 * error / np.sqrt(2.0)).all()


def test_escalated_evidence_is_the_marginal_density_of_the_data(bad):
    _, _, after = bad
    marginal = STUDY.noise + np.eye(STUDY.d)
    y = STUDY.y()
    quadratic = ((y @ np.linalg.inv(marginal)) * y).sum(axis=1)
    expected = -0.5 * (quadratic + np.linalg.slogdet(marginal)[1] + STUDY.d * np.log(2 * np.pi))
    # Delta method: the relative variance of a mean of weights is (M / ESS - 1) / M.
    error = np.sqrt((N_DRAWS / after.ess - 1.0) / N_DRAWS)
    assert (np.abs(after.log_evidence - expected) < 4.5 * error).all()


def test_log_densities_of_escalated_draws_are_those_of_the_posterior(bad):
    _, _, after = bad
    target = STUDY.target().log_likelihood(after.draws.phi) + after.draws.log_prior
    np.testing.assert_allclose(after.draws.log_q, target - after.log_evidence[:, None], atol=1e-8)


def test_subjects_with_good_weights_keep_their_draws():
    distance = np.where(np.arange(STUDY.n) < 2, 2.0, 0.0)
    draws = narrow_draws(distance)
    wide = STUDY.draws(N_DRAWS, generator(5))
    mean, covariance = exact()
    white = np.linalg.solve(np.linalg.cholesky(covariance), np.swapaxes(wide.phi - mean[:, None], 1, 2))
    log_q = -0.5 * (white**2).sum(axis=1) - 0.5 * np.linalg.slogdet(covariance)[1]
    log_q = log_q - 0.5 * STUDY.d * np.log(2 * np.pi)
    use = distance[:, None] > 0
    draws = replace(
        draws,
        phi=np.where(use[..., None], draws.phi, wide.phi),
        log_q=np.where(use, draws.log_q, log_q),
        log_prior=np.where(use, draws.log_prior, wide.log_prior),
    )
    before = importance_correct(draws, STUDY.target(), generator(6))
    after = escalate(draws, before, bind, generator(7))
    assert not np.array_equal(after.draws.phi[:2], before.draws.phi[:2])
    for name in ("phi", "log_q", "log_prior"):
        np.testing.assert_array_equal(getattr(after.draws, name)[2:], getattr(before.draws, name)[2:])
    np.testing.assert_array_equal(after.log_weights[2:], before.log_weights[2:])
