"""Every population method on the linear-Gaussian mixed model, whose maximum-likelihood estimates are
closed-form.

z = (estimate - exact MLE) / SE of the exact MLE. Bars: rms z over the entries of x, from the published study
of the estimator at M = 100 draws (0.3 without correction is what a debiased refit reaches for means; the
correction by the likelihood must be far better).
"""

from __future__ import annotations

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian

from amortnlme.core.status import FitStatus
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.monte_carlo import MonteCarlo

N = 200
STUDY = LinearGaussian(n=N, relative_sd=(2.0, 1.0, 0.5), seed=7)


@pytest.fixture(scope="module")
def exact():
    return STUDY.exact_mle()


@pytest.fixture(scope="module")
def draws():
    return STUDY.draws(100, np.random.default_rng(0))


@pytest.fixture(scope="module")
def biased_draws():
    return STUDY.draws(100, np.random.default_rng(0), shift=0.1)


def _z(result, exact):
    return (result.x - exact[0]) / exact[1]


def test_likelihood_correction_meets_the_exact_estimates(exact, draws):
    result = Amortized().run(STUDY.problem(draws))
    assert result.status is FitStatus.CONVERGED, result.warnings
    assert result.ofv_kind == "importance_sampling"
    assert np.abs(_z(result, exact)).max() < 0.02
    assert STUDY.minus_two_log_likelihood(result.x) - exact[2] < 1e-3
    np.testing.assert_allclose(np.sqrt(np.diagonal(result.covariance)), exact[1], rtol=0.01)


def test_likelihood_correction_cancels_the_bias_of_the_network(exact, draws, biased_draws):
    raw = Amortized(correction="none").run(STUDY.problem(biased_draws))
    # 0.1 posterior SD in every draw costs 0.1 sqrt(n) = 1.4 SE in a pooled parameter ...
    assert np.abs(_z(raw, exact)).max() > 1.0
    # ... and nothing once the likelihood corrects it.
    assert np.abs(_z(Amortized().run(STUDY.problem(biased_draws)), exact)).max() < 0.02


def test_surrogate_alone_is_close_when_the_draws_are_exact(exact, draws):
    raw = Amortized(correction="none").run(STUDY.problem(draws))
    assert raw.ofv_kind == "importance_sampling"
    assert np.sqrt((_z(raw, exact) ** 2).mean()) < 0.5


def test_density_correction_meets_the_estimates_where_there_is_no_likelihood(exact, draws):
    target, prior = STUDY.target(), draws.prior

    def log_density(phi):
        return target.log_likelihood(phi) + prior.log_prob(phi.reshape(-1, STUDY.d)).reshape(phi.shape[:2])

    method = Amortized(correction="density", log_density=log_density, n_points=128)
    result = method.run(STUDY.problem(draws, with_likelihood=False))
    assert result.ofv_kind == "density_importance_sampling"
    assert np.sqrt((_z(result, exact) ** 2).mean()) < 0.1
    automatic = Amortized(log_density=log_density, n_points=128).run(
        STUDY.problem(draws, with_likelihood=False)
    )
    assert automatic.ofv_kind == "density_importance_sampling"
    assert any("W_FIT_DENSITY_CORRECTION" in text for text in automatic.warnings)


def test_surrogate_stands_in_and_says_so_when_nothing_else_is_known(draws):
    result = Amortized().run(STUDY.problem(draws, with_likelihood=False))
    assert result.ofv_kind == "surrogate"
    assert np.isnan(result.ofv_se)
    assert any(text.startswith("[W_FIT_UNCORRECTED]") for text in result.warnings)


def test_published_objective_is_flagged_and_the_corrected_fit_passes(exact, draws):
    """100 draws, and a variance of 0.001 for what does not vary, as in the reference implementation."""
    published = MonteCarlo(pooled_variance=0.001).run(STUDY.problem(draws))
    assert np.abs(_z(published, exact)).max() > 1.0
    flag = next(text for text in published.warnings if text.startswith("[W_FIT_MC_ERROR]"))
    for word in ("standard error of theta_p3", "Monte-Carlo bias", "effective draws", "k-hat"):
        assert word in flag, flag
    corrected = Amortized().run(STUDY.problem(draws))
    assert not corrected.warnings


def test_surrogate_alone_says_when_its_estimates_depend_on_the_draws(exact):
    """100 draws: the estimates are off by more than 0.1 SE; of 6000 draws the error is a tenth of that."""
    few, many = (
        Amortized(correction="none", n_components=1, referee_points=32).run(
            STUDY.problem(STUDY.draws(n_draws, np.random.default_rng(4)))
        )
        for n_draws in (100, 6000)
    )
    assert np.abs(_z(few, exact)).max() > 0.1
    assert any(text.startswith("[W_FIT_MC_ERROR]") for text in few.warnings)
    assert np.abs(_z(many, exact)).max() < 0.1
    assert not any(text.startswith("[W_FIT_MC_ERROR]") for text in many.warnings)


def test_published_objective_meets_the_estimates_where_nothing_is_narrow():
    """Few draws are wasted on what varies more than it is measured: within the studies' bar, 0.35 SE."""
    study = LinearGaussian(n=100, relative_sd=(3.0, 2.0), seed=2)
    result = MonteCarlo(pooled_variance=0.01).run(study.problem(study.draws(5000, np.random.default_rng(0))))
    mle, se, _ = study.exact_mle()
    np.testing.assert_array_less(np.abs(result.x - mle) / se, 0.35)


def test_same_seed_gives_the_same_bytes_and_another_seed_the_same_estimates(draws):
    first, again, other = (Amortized().run(STUDY.problem(draws, seed=s)) for s in (3, 3, 4))
    assert first.x.tobytes() == again.x.tobytes() and first.ofv == again.ofv
    assert first.ofv != other.ofv
    np.testing.assert_allclose(first.x, other.x, atol=1e-3)


def test_zero_variance_is_reported_as_a_boundary(draws):
    """A random effect on a coordinate that does not vary, where the exact MLE of its SD is zero."""
    study = next(
        s for s in (LinearGaussian(n=100, relative_sd=(1.0, 0.0), seed=k) for k in range(50)) if _vanishes(s)
    )
    result = Amortized().run(study.problem(study.draws(100, np.random.default_rng(1))))
    assert result.status is FitStatus.BOUNDARY
    assert result.x[-1] == 0.0
    assert result.covariance is None
    assert any(text.startswith("[W_FIT_BOUNDARY]") for text in result.warnings)
    assert np.isnan(result.eta_shrinkage[1])


def _vanishes(study):
    x, _, _ = study.exact_mle()
    return x[-1] < 1e-3


def test_conditional_modes_and_moments_are_the_closed_form(draws):
    result = Amortized().run(STUDY.problem(draws))
    mu, factor = result.x[: STUDY.d], np.vstack([np.diag(result.x[STUDY.d :]), np.zeros((1, STUDY.d - 1))])
    precision = np.linalg.inv(STUDY.noise)
    covariance = np.linalg.inv(np.eye(STUDY.d - 1) + factor.T @ precision @ factor)
    mean = mu + (STUDY.y() - mu) @ precision @ factor @ covariance @ factor.T
    sd = np.sqrt(np.diagonal(factor @ covariance @ factor.T))
    np.testing.assert_allclose(result.individuals.ebe_phi, mean, atol=1e-6)
    np.testing.assert_allclose(result.individuals.conditional_mean_phi, mean, atol=0.1 * sd.max())
    np.testing.assert_allclose(
        result.individuals.conditional_sd_phi, np.tile(sd, (N, 1)), atol=0.1 * sd.max()
    )
    assert (result.individuals.conditional_sd_phi[:, -1] == 0).all()
