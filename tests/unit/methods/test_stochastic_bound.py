"""Stochastic gradients of the bound: exact statements about single draws."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from contract.linear_mixed_model import line, linear_study

from amortnlme.core.errors import UsageError
from amortnlme.methods.quadrature_nodes import gauss_hermite
from amortnlme.methods.sampled_vi import SampledVi
from amortnlme.methods.stochastic_bound import StochasticEnd, StochasticOptions, _gradient, weighted_bound
from amortnlme.methods.variational_likelihood import VariationalLikelihood
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

X = np.array([1.1, 0.4, np.log(0.45), 0.6, 0.2, 0.6])


@cache
def _problem():
    study, model = linear_study(), line()
    population = PopulationModel(random_effects=RandomEffects(("m", "s"), "full"))
    return model.bind(study.dataset), population.bind(study.dataset.covariate_table(), model.parameters)


def _posterior():
    target, joined = _problem()
    return VariationalLikelihood(target, joined, gauss_hermite(2, 3)).posteriors(X)


def _draws(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(_posterior().mean), n_samples, 2))


def test_path_derivative_has_no_noise_at_the_posterior():
    """Sticking the landing: the gradient by q vanishes draw by draw, the standard one does not."""
    (target, joined), found = _problem(), _posterior()
    by_path = _gradient(target, joined, X, found.mean, found.root, _draws(1), StochasticOptions())
    np.testing.assert_allclose(by_path[2], 0.0, atol=1e-5)
    np.testing.assert_allclose(by_path[3], 0.0, atol=1e-5)
    standard = StochasticOptions(estimator="standard")
    assert np.abs(_gradient(target, joined, X, found.mean, found.root, _draws(1), standard)[2]).max() > 1.0


@pytest.mark.parametrize("is_weighted", [False, True])
def test_standard_gradient_is_the_derivative_at_given_draws(is_weighted):
    (target, joined), found, eps = _problem(), _posterior(), _draws(3)
    options = StochasticOptions(estimator="standard", is_weighted=is_weighted)
    x, mean, root = X + 0.1, found.mean + 0.2, 1.3 * found.root
    _, by_x, by_mean, by_root = _gradient(target, joined, x, mean, root, eps, options)

    def value(x, mean, root):
        return _gradient(target, joined, x, mean, root, eps, options)[0]

    h = 1e-5
    slope = [(value(x + h * e, mean, root) - value(x - h * e, mean, root)) / (2 * h) for e in np.eye(len(X))]
    # Rounding 1e-14 of a sum of a few hundred, over h.
    np.testing.assert_allclose(by_x, slope, rtol=1e-5, atol=1e-5)
    for k in range(2):
        step = np.zeros_like(mean)
        step[4, k] = h
        numeric = (value(x, mean + step, root) - value(x, mean - step, root)) / (2 * h)
        assert by_mean[4, k] == pytest.approx(numeric, rel=1e-5, abs=1e-5)
    for i, j in ((0, 0), (1, 0), (1, 1)):
        step = np.zeros_like(root)
        step[4, i, j] = h
        numeric = (value(x, mean, root + step) - value(x, mean, root - step)) / (2 * h)
        assert by_root[4, i, j] == pytest.approx(numeric, rel=1e-5, abs=1e-5)


def test_weighted_bound_is_the_log_likelihood_where_q_is_the_posterior():
    (target, joined), found = _problem(), _posterior()
    end = StochasticEnd(X, found.mean, found.root, np.zeros(0))
    value = weighted_bound(target, joined, end, 4, 2, np.random.default_rng(1))
    np.testing.assert_allclose(value, found.bound, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"estimator": "score"}, {"bound": "renyi"}, {"n_samples": 0}, {"rate": 0.0}, {"family": "flow"}],
)
def test_sampled_vi_refuses_options_outside_their_range(options):
    with pytest.raises(UsageError, match="E_FIT_OPTION"):
        SampledVi(**options)
