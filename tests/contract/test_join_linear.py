"""Joining two linear-Gaussian endpoints reproduces the exact joint maximum-likelihood fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contract.linear_endpoints import LinearEndpoints

from amortnlme.core.errors import FitError
from amortnlme.core.rng import stream
from amortnlme.methods.gaussian_join import GaussianRule, fit_gaussian, one_pass_gaussian
from amortnlme.methods.join import JoinOptions, join
from amortnlme.methods.joint_model import JointModel
from amortnlme.methods.likelihood_bank import make_bank, reference_law, score
from amortnlme.model.prior import NormalPrior
from amortnlme.population.laws import GaussianLaw
from amortnlme.population.posterior_draws import PosteriorDraws

STUDY = LinearEndpoints(n=150, seed=3)


@pytest.fixture(scope="module")
def joint():
    return STUDY.joint()


@pytest.fixture(scope="module")
def mu(joint):
    return np.concatenate([e.fit.theta[:2] for e in joint.endpoints])


@pytest.fixture(scope="module")
def first(joint):
    return make_bank(joint.bind(), joint.independent, joint.learned, stream(1))


@pytest.fixture(scope="module")
def joined(joint, first):
    """EM, with the nodes placed anew around what it found."""
    rule = GaussianRule(free=True)
    law, _ = fit_gaussian(first, joint.independent, rule)
    again = make_bank(joint.bind(), reference_law(None, law), joint.learned, stream(2))
    return again, fit_gaussian(again, joint.independent, rule, law)[0]


def test_bank_gives_the_exact_likelihood_of_independent_endpoints(joint, first, mu):
    found = score(first, joint.independent)
    exact = STUDY.log_likelihood(mu, joint.independent.covariance).sum()
    # 4.4 SE: a false alarm in 1e-5.
    assert abs(found.total - exact) < 4.4 * found.se + 1e-6
    assert found.se < 0.5
    assert found.ess.min() > 0.5 * first.n_nodes


def test_joining_reproduces_the_likelihood_of_the_exact_joint_fit(joined, mu):
    bank, law = joined
    found = score(bank, law)
    best = STUDY.log_likelihood(mu, STUDY.best_omega(mu)).sum()
    assert abs(found.total - best) < 4.4 * found.se + 1e-3
    # and by the exact likelihood, which no law exceeds: quadratic in the error of the estimate
    own = STUDY.log_likelihood(mu, law.covariance).sum()
    assert best - 0.01 < own <= best + 1e-9


def test_joining_reproduces_the_exact_covariance(joined, mu):
    exact = STUDY.best_omega(mu)
    scale = np.sqrt(np.diagonal(exact))
    # Sampling error of a correlation is 1 / sqrt(150) = 0.08; Monte-Carlo error must not matter beside it.
    gap = (joined[1].covariance - exact) / np.outer(scale, scale)
    assert np.abs(gap).max() < 0.01


def test_one_pass_attenuates_as_the_closed_form_says(joint, first, mu):
    law = one_pass_gaussian(first, joint.independent)
    design = STUDY.design()
    R = 0.4**2 * np.kron(np.eye(2), np.linalg.inv(design.T @ design))
    base = joint.independent.covariance
    gain = base @ np.linalg.inv(base + R)
    moments = gain @ (STUDY.best_omega(mu) + R) @ gain.T + base - gain @ base
    sd = np.sqrt(np.diagonal(moments))
    np.testing.assert_allclose(
        law.covariance / np.sqrt(np.outer(np.diagonal(base), np.diagonal(base))),
        moments / np.outer(sd, sd),
        atol=0.01,
    )


def test_leaving_an_endpoint_out_gives_its_conditional_means(joint, joined, mu):
    law = joined[1]
    target = joint.bind().without("one")
    bank = make_bank(target, reference_law(None, law), joint.learned, stream(4), n_nodes=1024)
    design = STUDY.design()
    R = 0.4**2 * np.linalg.inv(design.T @ design)
    coefficients = STUDY.y()[1] @ np.linalg.pinv(design).T - mu[2:]
    omega = law.covariance
    exact = coefficients @ np.linalg.solve(omega[2:, 2:] + R, omega[2:, :])
    found = score(bank, law)
    sd = np.sqrt(np.diagonal(omega))
    # Posterior SDs are below the prior's; ESS of some hundreds of 1152 nodes: 5 sd / sqrt(300).
    assert np.abs((found.mean - exact) / sd).max() < 5.0 / np.sqrt(300)


def test_joining_from_posterior_draws_reaches_the_exact_joint_fit(joint, mu):
    prior = NormalPrior([0.0, 0.0, 0.0], [3.0, 2.0, 1.0])
    design, rng = STUDY.design(), np.random.default_rng(8)
    covariance = np.linalg.inv(design.T @ design / 0.4**2 + np.diag([1 / 9, 1 / 4]))
    endpoints = []
    for endpoint, y in zip(joint.endpoints, STUDY.y(), strict=True):
        mean = (y @ design / 0.4**2) @ covariance
        line = mean[:, None] + rng.standard_normal((len(y), 400, 2)) @ np.linalg.cholesky(covariance).T
        # The residual SD is known, so that its draws say nothing beyond the prior.
        phi = np.concatenate([line, rng.standard_normal((len(y), 400, 1))], axis=2)
        flat = prior.log_prob(phi.reshape(-1, 3)).reshape(phi.shape[:2])
        draws = PosteriorDraws(
            phi=phi, log_q=np.zeros(flat.shape), log_prior=flat, subject_ids=endpoint.dataset.ids,
            parameters=endpoint.model.parameters, prior=prior,
        )  # fmt: skip
        endpoints.append(replace(endpoint, draws=draws))
    found = join(JointModel(tuple(endpoints)), JoinOptions(family="gaussian", free=True, held_out=0.0))
    exact, own = STUDY.best_omega(mu), found.law.moments()[1]
    scale = np.sqrt(np.diagonal(exact))
    # 400 draws place a subject's mean with an error of 1 / 20 of its SD: far below the SD between subjects.
    assert np.abs((own - exact) / np.outer(scale, scale)).max() < 0.03
    assert STUDY.log_likelihood(mu, exact).sum() - STUDY.log_likelihood(mu, own).sum() < 0.5


def test_law_of_shared_effects_is_refused_where_only_one_endpoint_has_them(joint):
    with pytest.raises(FitError, match="E_JOIN_SHARED"):
        JointModel(endpoints=joint.endpoints, shared=("ka",))


def test_gaussian_law_has_the_conditional_moments_of_the_closed_form(joined):
    law: GaussianLaw = joined[1]
    given = law.conditional(("two.m",), np.array([0.5]))
    slope = law.covariance[0, 2] / law.covariance[2, 2]
    assert given.mean[0] == pytest.approx(0.5 * slope)
    assert given.covariance[0, 0] == pytest.approx(law.covariance[0, 0] - slope * law.covariance[0, 2])
