"""Importance weights: Pareto smoothing against ArviZ, effective sample size, corrected draws."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from contract.linear_gaussian import LinearGaussian

from amortnlme.core.errors import DrawsError
from amortnlme.methods.importance import effective_sample_size, importance_correct, pareto_smooth


def _arviz_psislw(log_weights):
    with warnings.catch_warnings():
        # ArviZ announces its next major version on import.
        warnings.simplefilter("ignore", FutureWarning)
        from arviz import psislw
    return psislw(log_weights)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("n_points", [100, 1000])
def test_pareto_smoothing_agrees_with_arviz(scale, n_points):
    log_weights = scale * np.random.default_rng(int(10 * scale)).standard_t(5, size=(4, n_points))
    ours, k = pareto_smooth(log_weights)
    theirs, k_theirs = _arviz_psislw(log_weights)
    np.testing.assert_allclose(k, k_theirs, rtol=1e-8)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
    np.testing.assert_allclose(np.exp(ours).sum(axis=1), 1.0)


def test_effective_sample_size_spans_one_to_all():
    assert effective_sample_size(np.zeros((1, 50)))[0] == pytest.approx(50)
    single = np.full((1, 50), -np.inf)
    single[0, 3] = 7.0
    assert effective_sample_size(single)[0] == pytest.approx(1)
    assert effective_sample_size(np.full((1, 50), -np.inf))[0] == 0


def test_smoothing_copes_with_failed_and_equal_weights():
    log_weights = np.random.default_rng(0).normal(size=(3, 200))
    log_weights[0, :150] = -np.inf
    log_weights[1, 3] = np.nan
    log_weights[2] = 1.0
    smoothed, k = pareto_smooth(log_weights)
    np.testing.assert_allclose(np.exp(smoothed).sum(axis=1), 1.0)
    assert k[2] == np.inf


def test_smoothing_cuts_a_tail_whose_quantiles_overflow():
    # Sixty weights spread evenly over all that the arithmetic holds: a shape of about 300, and quantiles
    # that exceed the largest number.
    log_weights = np.concatenate([np.full(340, -707.0), np.linspace(-700.0, 0.0, 60)])[None]
    smooth, k = pareto_smooth(log_weights)
    assert k[0] * np.log(120.0) > np.log(np.finfo(float).max)
    np.testing.assert_allclose(np.exp(smooth).sum(), 1.0)


def test_correction_recovers_the_exact_posterior_from_shifted_draws():
    """Null: corrected draws have the posterior mean. 15 means, false-alarm rate 1e-4 in all: 4.5 SE."""
    study = LinearGaussian(n=5, relative_sd=(1.0, 1.0), seed=1)
    exact = study.draws(4000, np.random.default_rng(0))
    shifted = study.draws(4000, np.random.default_rng(1), shift=0.3)
    mean, sd = shifted.phi.mean(axis=1, keepdims=True), exact.phi.std(axis=1, keepdims=True)
    centered = shifted.phi - mean
    covariance = np.swapaxes(centered, 1, 2) @ centered / (shifted.n_draws - 1)
    solved = np.linalg.solve(covariance, np.swapaxes(centered, 1, 2))
    log_q = -0.5 * (centered * np.swapaxes(solved, 1, 2)).sum(axis=2)
    log_q -= 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1][:, None]
    corrected = importance_correct(replace(shifted, log_q=log_q), study.target(), np.random.default_rng(2))
    assert corrected.ess.min() > 0.5 * shifted.n_draws
    assert corrected.pareto_k.max() < 0.5
    truth = study.y() @ np.linalg.inv(study.noise) @ np.linalg.inv(np.linalg.inv(study.noise) + np.eye(3))
    error = (corrected.draws.phi.mean(axis=1) - truth) / sd[:, 0]
    # Variance of the weighted mean plus that of the resampling.
    bound = 4.5 * np.sqrt(1 / corrected.ess + 1 / shifted.n_draws)
    assert (np.abs(error) < bound[:, None]).all()
    # The corrected density is normalized: its logarithm at the posterior mode of a normal is known.
    log_evidence = np.array([_log_normal(y, study.noise + np.eye(3)) for y in study.y()])
    np.testing.assert_allclose(corrected.log_evidence, log_evidence, atol=0.1)


def _log_normal(y, covariance):
    quadratic = y @ np.linalg.inv(covariance) @ y
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_correction_refuses_draws_without_support():
    study = LinearGaussian(n=3, relative_sd=(1.0,), seed=1)

    class Nowhere:
        def log_likelihood(self, phi):
            return np.full(phi.shape[:2], -np.inf)

    with pytest.raises(DrawsError) as caught:
        importance_correct(study.draws(60, np.random.default_rng(0)), Nowhere(), np.random.default_rng(0))
    assert caught.value.code == "E_DRAWS_NO_SUPPORT"
