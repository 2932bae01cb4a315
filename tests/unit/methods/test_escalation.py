"""Escalation of bad importance weights, against the exact conditional laws of a linear-Gaussian model."""

from dataclasses import replace

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian, LinearGaussianTarget
from unit.methods.test_referee import FACTOR, MU, SD, Bent
from unit.methods.test_tempered import exact_bent

from amortnlme.core.rng import generator
from amortnlme.methods import escalation
from amortnlme.methods.escalation import escalate
from amortnlme.methods.importance import importance_correct
from amortnlme.methods.some_subjects import SomeSubjects
from amortnlme.model.parameters import Parameter, ParameterSpace
from amortnlme.model.prior import NormalPrior
from amortnlme.population.posterior_draws import PosteriorDraws

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


def test_tempered_draws_are_those_of_bent_posteriors_when_no_mixture_is_trusted(monkeypatch):
    monkeypatch.setattr(escalation, "EFFECTIVE_LIMIT", 2.0)
    monkeypatch.setattr(escalation, "FEWEST_PER_PARAMETER", 10**6)
    n, M = len(SD), 1000
    prior = NormalPrior(MU[0], np.diagonal(FACTOR))
    phi = MU[0] + generator(1).standard_normal((n, M, 2)) @ FACTOR
    draws = PosteriorDraws(
        phi=phi,
        log_q=prior.log_prob(phi),
        log_prior=prior.log_prob(phi),
        subject_ids=tuple(str(k) for k in range(n)),
        parameters=ParameterSpace(
            tuple(Parameter(name, "1", "identity", 0.0, name, "structural") for name in ("a", "b"))
        ),
        prior=prior,
    )
    before = importance_correct(draws, Bent(), generator(2))
    found = escalate(
        draws, before, lambda ids: SomeSubjects(Bent(), np.array([int(i) for i in ids]), n), generator(3)
    )
    evidence, mean = exact_bent()
    # Four populations: each estimate is worth a hundred independent draws at least, as in test_tempered.
    assert (found.ess > 100).all()
    assert (np.abs(found.log_evidence - evidence) < 4.5 / np.sqrt(found.ess)).all()
    a = (found.draws.phi[..., 0] - MU[0, 0]) / FACTOR[0, 0]
    assert (np.abs(a.mean(axis=1) - mean) < 0.4 * a.std(axis=1)).all()
    log_joint = Bent().log_likelihood(found.draws.phi) + found.draws.log_prior
    np.testing.assert_allclose(found.draws.log_q, log_joint - found.log_evidence[:, None], atol=1e-8)
    for subject in found.draws.phi:
        assert len(np.unique(subject, axis=0)) > 200
