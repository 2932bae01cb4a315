"""Profiles, bootstrap and posterior chains on the linear-Gaussian model, against its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian
from scipy.optimize import brentq, minimize
from scipy.stats import chi2, multivariate_t

from amortnlme.core.errors import UsageError
from amortnlme.methods.near_optimum import optimum_near
from amortnlme.methods.profiles import profile_names, profiles
from amortnlme.methods.resampling import bootstrap, sample_population

STUDY = LinearGaussian(n=40, relative_sd=(1.0, 0.5), seed=3)
NAMES = ("p0", "p1", "p2", "omega_p0", "omega_p1")


def _maximum(loss, start):
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    return minimize(loss, start, method="Nelder-Mead", options=options)


@pytest.fixture(scope="module")
def exact():
    return _maximum(STUDY.minus_two_log_likelihood, np.array([*STUDY.truth, 0.3, 0.15]))


@pytest.fixture(scope="module")
def near(exact):
    problem = STUDY.problem(STUDY.draws(60, np.random.default_rng(0)))
    return optimum_near(problem, exact.x + 0.02)


def test_the_optimum_and_its_information_are_those_of_the_closed_form(near, exact):
    np.testing.assert_allclose(near.x, exact.x, atol=0.02 * near.se.min())
    # 256 nodes with half of them effective: SE 0.06 per subject, 0.4 in the sum of 40, less as quasi-random.
    assert 2.0 * near.value == pytest.approx(exact.fun, abs=0.3)
    assert profile_names(near.population) == NAMES


@pytest.mark.parametrize("name", ["p0", "p2", "omega_p0", "omega_p1"])
def test_profile_intervals_are_those_of_the_closed_form(near, exact, name):
    """The accuracy asked of an end is 0.02 in the root of twice the loss, so about 0.02 standard errors."""
    position, se = NAMES.index(name), near.se[NAMES.index(name)]
    others = np.setdiff1d(np.arange(5), position)

    def excess(entry, target=0.0):
        def loss(rest):
            x = np.empty(5)
            x[position], x[others] = entry, rest
            return STUDY.minus_two_log_likelihood(x)

        return np.sqrt(max(_maximum(loss, exact.x[others]).fun - exact.fun, 0.0)) - target

    (profile,) = profiles(near, [name], levels=(0.8, 0.95))
    assert profile.name == name and profile.estimate == pytest.approx(exact.x[position], abs=0.02 * se)
    for level in (0.8, 0.95):
        target = np.sqrt(chi2.ppf(level, 1))
        lowest = exact.x[position] - 4 * se
        lowest = max(lowest, 0.0) if name.startswith("omega") else lowest
        low = 0.0
        if excess(lowest, target) > 0:
            low = brentq(excess, lowest, exact.x[position], args=(target,), xtol=1e-5)
        highest = exact.x[position] + 4 * se
        high = brentq(excess, exact.x[position], highest, args=(target,), xtol=1e-5)
        np.testing.assert_allclose(profile.intervals[level], (low, high), atol=0.05 * se)
    assert (np.diff(profile.value) > 0).all() and profile.loss.min() == 0.0


def test_an_sd_that_may_be_zero_has_an_interval_from_zero():
    """The smaller SD is a tenth of a measurement SD: zero costs less than 3.84."""
    study = LinearGaussian(n=30, relative_sd=(1.0, 0.1), seed=5)
    problem = study.problem(study.draws(60, np.random.default_rng(0)))
    found = _maximum(study.minus_two_log_likelihood, np.array([*study.truth, 0.3, 0.1]))
    zero = np.array([*found.x[:4], 0.0])
    assert found.x[4] > 0.01 and _maximum(
        lambda rest: study.minus_two_log_likelihood(np.array([*rest, 0.0])), zero[:4]
    ).fun - found.fun < chi2.ppf(0.95, 1)
    (profile,) = profiles(optimum_near(problem, found.x), ["omega_p1"])
    assert profile.intervals[0.95][0] == 0.0 < profile.intervals[0.95][1]


def test_bootstrap_replicates_are_the_maxima_of_the_resampled_data(near, exact):
    found = bootstrap(near, 3, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    y = STUDY.y()
    for replicate in range(3):
        weight = rng.multinomial(STUDY.n, np.full(STUDY.n, 1.0 / STUDY.n))
        chosen = np.repeat(y, weight, axis=0)

        def loss(x, chosen=chosen):
            covariance = np.diag([x[3] ** 2, x[4] ** 2, 0.0]) + STUDY.noise
            gap = chosen - x[:3]
            return (gap @ np.linalg.inv(covariance) * gap).sum() + len(gap) * np.linalg.slogdet(covariance)[1]

        maximum = np.abs(_maximum(loss, exact.x).x)
        sign = np.array([1, 1, 1, np.nan, np.nan])
        maximum[:3] = _maximum(loss, exact.x).x[:3] * sign[:3]
        np.testing.assert_allclose(found[replicate], maximum, atol=0.05 * near.se.min())


def test_chains_sample_the_posterior(near, exact):
    """Arbiter: importance sampling of the closed form with 40 000 draws of a t-distribution.

    4 x 600 draws are worth about a quarter of them: SE of a mean 0.04 SD, of an SD 3 %; bounds of 5 SE.
    """
    chains = sample_population(near, 600, np.random.default_rng(1))
    proposal = multivariate_t(exact.x, 1.3 * near.covariance, df=6, seed=2)
    x = proposal.rvs(40_000)
    x = x[(x[:, 3:] > 0).all(axis=1)]
    log_weight = np.array([-0.5 * STUDY.minus_two_log_likelihood(row) for row in x]) - proposal.logpdf(x)
    weight = np.exp(log_weight - log_weight.max())
    mean = np.average(x, axis=0, weights=weight)
    sd = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    pooled = chains.x.reshape(-1, 5)
    np.testing.assert_allclose((pooled.mean(axis=0) - mean) / sd, 0.0, atol=0.2)
    np.testing.assert_allclose(pooled.std(axis=0) / sd, 1.0, atol=0.15)
    assert (chains.acceptance > 0.2).all()


def test_a_sharp_prior_holds_a_typical_value(near):
    prior = {"theta_p0": (float(near.x[0]) + 0.5, 0.01)}
    chains = sample_population(near, 400, np.random.default_rng(1), n_chains=1, prior=prior)
    # Posterior of a normal mean: precision-weighted. The Wald proposal lies 0.5 away, so the chain must walk.
    wald = 1.0 / near.se[0] ** 2
    expected = near.x[0] + 0.5 * 1e4 / (1e4 + wald)
    assert chains.x[0, 200:, 0].mean() == pytest.approx(expected, abs=0.02)


def test_impossible_requests_are_refused(near):
    rng = np.random.default_rng(0)
    for code, call in {
        "E_PROFILE_NAME": lambda: profiles(near, ["ka"]),
        "E_PROFILE_LEVEL": lambda: profiles(near, levels=(95.0,)),
        "E_BOOTSTRAP_SIZE": lambda: bootstrap(near, 1, rng),
        "E_CHAINS_SIZE": lambda: sample_population(near, 0, rng),
        "E_CHAINS_PRIOR": lambda: sample_population(near, 10, rng, prior={"theta_p0": (0.0, -1.0)}),
    }.items():
        with pytest.raises(UsageError, match=code):
            call()
