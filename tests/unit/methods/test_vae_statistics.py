"""The closed-form M-step of the autoencoder, against numerical maximization of the same expectation."""

from __future__ import annotations

import numpy as np
import pytest
from contract.bolus import bolus_model, bolus_study
from scipy.optimize import minimize, minimize_scalar

from amortnlme.methods.saem_statistics import Layout, maximize_random
from amortnlme.methods.vae_statistics import (
    PooledPart,
    average_variance,
    law_statistics,
    other_pooled_step,
    without_covariates,
)
from amortnlme.model.error_model import Additive, Combined, LogNormal, Proportional
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

TIMES, RNG = np.array([0.5, 1.0, 2.0, 4.0, 8.0]), np.random.default_rng(3)
N, S = 12, 6
POPULATION = PopulationModel(random_effects=RandomEffects(("CL", "V")))


def _setting(error, **typical):
    model = bolus_model(error, **typical)
    dataset = bolus_study(model, N, TIMES, (0.3, 0.2), seed=5)
    bound = model.bind(dataset)
    population = POPULATION.bind(dataset.covariate_table(), model.parameters)
    phi = np.tile(model.parameters.typical_phi, (N, S, 1))
    phi[:, :, :2] += 0.2 * RNG.standard_normal((N, S, 2))
    return bound, population, phi


def _expected(bound, phi, column, value):
    """Average log-likelihood over the draws with another residual parameter."""
    moved = phi.copy()
    moved[:, :, column] = value
    return bound.log_likelihood(moved).mean(axis=1).sum()


@pytest.mark.parametrize(
    ("error", "typical"),
    [(Additive("a"), {"a": 0.3}), (Proportional("b"), {"b": 0.2}), (LogNormal("s"), {"s": 0.2})],
)
def test_residual_variance_is_the_maximizer_of_the_average_over_draws(error, typical):
    bound, population, phi = _setting(error, **typical)
    part = PooledPart.of(bound, Layout.of(population))
    assert part.column.tolist() == [2] and not len(part.other)
    _, gradient = bound.log_likelihood_and_gradient(phi)
    score = gradient.mean(axis=1).sum(axis=0)
    found = 0.5 * np.log(average_variance(part, phi[0, 0], score)[0])
    best = minimize_scalar(
        lambda v: -_expected(bound, phi, 2, v), bounds=(-6.0, 3.0), method="bounded",
        options={"xatol": 1e-9},
    ).x  # fmt: skip
    # A bounded search of a smooth function resolves its argument to the root of the machine precision.
    assert found == pytest.approx(best, abs=1e-6)


def test_squared_residuals_are_averaged_over_draws_not_the_predictions():
    bound, population, phi = _setting(Additive("a"), a=0.3)
    part = PooledPart.of(bound, Layout.of(population))
    _, gradient = bound.log_likelihood_and_gradient(phi)
    found = average_variance(part, phi[0, 0], gradient.mean(axis=1).sum(axis=0))[0]
    f = bound.predict(phi)[0]
    squares = np.where(bound.observed[:, None], (bound.y[:, None] - f) ** 2, 0.0).mean(axis=1).sum()
    of_average = np.where(bound.observed, (bound.y - f.mean(axis=1)) ** 2, 0.0).sum()
    assert found == pytest.approx(squares / bound.observed.sum(), rel=1e-10)
    assert found > 1.02 * of_average / bound.observed.sum()


def test_scoring_of_a_combined_error_ends_where_the_expectation_is_largest():
    bound, population, phi = _setting(Combined("a", "b"), a=0.2, b=0.15)
    layout = Layout.of(population)
    part = PooledPart.of(bound, layout)
    assert not len(part.scale) and part.other.tolist() == [0, 1]
    statistics = law_statistics(phi[:, 0, :2], np.tile(np.eye(2), (N, 1, 1)), 2)
    for _ in range(60):
        statistics, step = other_pooled_step(bound, part, phi, statistics, 1.0)
        phi[:, :, 2:] += step

    def negative(v):
        moved = phi.copy()
        moved[:, :, 2:] = v
        return -bound.log_likelihood(moved).mean(axis=1).sum()

    options = {"xatol": 1e-7, "fatol": 1e-11}
    best = minimize(negative, phi[0, 0, 2:] + 0.1, method="Nelder-Mead", options=options)
    # Both ends lie in the same flat top: compare values, to the accuracy of the simplex.
    assert negative(phi[0, 0, 2:]) <= best.fun + 1e-7


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_typical_values_coefficients_and_omega_maximize_the_expected_density_of_the_effects(structure):
    """Arbiter: L-BFGS on E_q[log N(phi; mu, omega)], omega by its factor."""
    model = bolus_model(Additive("a"), a=0.3)
    dataset = bolus_study(model, N, TIMES, (0.3, 0.2), seed=5)
    table = dataset.covariate_table().assign(w=np.exp(0.3 * RNG.standard_normal(N)))
    described = PopulationModel(
        random_effects=RandomEffects(("CL", "V"), structure), covariates=(CovariateEffect("V", "w"),)
    )
    population = described.bind(table, model.parameters)
    layout = Layout.of(population)
    mean = RNG.standard_normal((N, 2)) @ np.array([[0.4, 0.1], [0.0, 0.3]]) + np.log([5.0, 20.0])
    root = np.tril(0.1 * RNG.standard_normal((N, 2, 2))) + 0.2 * np.eye(2)
    statistics = law_statistics(mean, root, 1)
    omega = np.diag([0.1, 0.1])
    for _ in range(200):
        coefficients, omega = maximize_random(statistics, layout, omega)

    def negative(v):
        mu = layout.random_mean(v[:3])
        factor = np.array([[np.exp(v[3]), 0.0], [v[5] if structure == "full" else 0.0, np.exp(v[4])]])
        precision = np.linalg.inv(factor @ factor.T)
        gap = mean - mu
        spread = (gap[:, :, None] * gap[:, None, :] + root @ np.swapaxes(root, 1, 2)).sum(axis=0)
        return 0.5 * (np.trace(precision @ spread) + 2 * N * (v[3] + v[4]))

    start = np.concatenate([mean.mean(axis=0), [0.0, -1.0, -1.0, 0.0]])
    best = minimize(negative, start, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10})
    factor = np.linalg.cholesky(omega)
    ours = np.array([*coefficients, np.log(factor[0, 0]), np.log(factor[1, 1]), factor[1, 0]])
    assert negative(ours) <= best.fun + 1e-9
    assert population.names[layout.random_columns[2]] == "beta_V_w"
    assert without_covariates(layout).random_design.shape == (N, 2, 2)
