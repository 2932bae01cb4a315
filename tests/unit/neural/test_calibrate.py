"""Calibration: right verdicts for estimators whose quality is known."""

import json

import numpy as np
import pytest
from unit.neural import tiny

from amortnlme.core.errors import UsageError
from amortnlme.neural.calibrate import calibrate
from amortnlme.population.posterior_draws import PosteriorDraws


class PriorSampler:
    """An exact posterior for data that say nothing: the prior; or a biased one, when shifted."""

    def __init__(self, shift=0.0):
        self.model, self.shift = tiny.MODEL, shift

    def sample(self, dataset, n_draws, rng):
        n = dataset.n_subjects * n_draws
        phi = self.model.prior.sample(n, rng).reshape(dataset.n_subjects, n_draws, -1) + self.shift
        zeros = np.zeros(phi.shape[:2])
        return PosteriorDraws(phi, zeros, zeros, dataset.ids, self.model.parameters, self.model.prior)

    def summaries(self, dataset):
        return np.ones((dataset.n_subjects, 1))


def test_the_prior_is_calibrated_without_contraction():
    """Draws from the prior have uniform ranks for true values from the prior; false alarm 1e-4 per check."""
    result = calibrate(PriorSampler(), 600, 1, n_draws=100)
    assert result.checks["ranks_uniform"] and result.checks["coverage"]
    assert not result.checks["median_importance_efficiency"]
    np.testing.assert_allclose(result.contraction, 0.0, atol=0.05)
    assert (np.abs(result.recovery) < 0.2).all()
    assert result.ranks.min() >= 0 and result.ranks.max() <= 100


def test_a_biased_posterior_fails():
    result = calibrate(PriorSampler(shift=0.5), 600, 1, n_draws=100)
    assert not result.checks["ranks_uniform"] and not result.checks["coverage"]


def test_a_calibration_is_a_function_of_its_seed(tiny_estimator):
    a, b, c = (calibrate(tiny_estimator, 50, seed, n_draws=60) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.ranks, b.ranks)
    assert not np.array_equal(a.ranks, c.ranks)
    record = json.loads(json.dumps(a.to_dict()))
    assert list(record["parameters"]) == list(tiny.MODEL.parameters.names)
    assert set(record["parameters"]["ka"]["coverage"]) == {"50", "80", "95"}
    assert len(record["ranks"]) == a.n == 50 and record["n_draws"] == 60
    # Fifty subjects do not tell the covariance of a dozen numbers.
    assert "summaries" not in record


def test_a_large_calibration_keeps_where_summaries_lie(tiny_estimator):
    record = calibrate(tiny_estimator, 400, 3, n_draws=20).to_dict()
    assert record["summaries"]["n"] == record["n"] == 400
    assert tiny_estimator.with_calibration(record).summary_domain is not None


@pytest.mark.parametrize("size", [{"n": 5}, {"n_draws": 5}])
def test_too_small_calibrations_are_refused(tiny_estimator, size):
    with pytest.raises(UsageError) as caught:
        calibrate(tiny_estimator, **({"n": 50, "n_draws": 50} | size))
    assert caught.value.code == "E_CALIBRATE_SIZE"
