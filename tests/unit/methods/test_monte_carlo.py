"""The published objective: its value, gradient, error estimates and the method around it."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from contract.linear_gaussian import LinearGaussian

from amortnlme.core.errors import CapabilityError, UsageError
from amortnlme.methods._pypesto import GradientObjective, minimize_multistart
from amortnlme.methods.monte_carlo import MonteCarlo
from amortnlme.methods.monte_carlo_likelihood import MonteCarloLikelihood, tabulate_draws
from amortnlme.population.effects import CovariateEffect, RandomEffects
from amortnlme.population.population_model import PopulationModel

STUDY = LinearGaussian(n=40, relative_sd=(2.0, 1.0, 0.5), seed=3)
POOLED_SD = 0.2
STRUCTURES = ("diagonal", "full", (("p2", "p0"),))


def _bound(structure):
    """With a covariate on a random and on the pooled parameter."""
    model = PopulationModel(
        random_effects=RandomEffects(on=("p2", "p0", "p1"), structure=structure),
        covariates=(
            CovariateEffect("p0", "dose", "linear", 0.0),
            CovariateEffect("p3", "dose", "linear", 0.0),
        ),
    )
    ids = [str(i) for i in range(STUDY.n)]
    table = pd.DataFrame({"dose": np.random.default_rng(1).standard_normal(STUDY.n)}, index=pd.Index(ids))
    return model.bind(table, STUDY.space())


def _point(population, seed=0):
    x = 0.1 * np.random.default_rng(seed).standard_normal(population.n_x)
    x[population.theta_slice] += STUDY.truth
    x[population.chol_diagonal] += 0.4
    return x


def _published(x, draws, population):
    """-sum_i log mean_j p(phi_ij | theta) / p(phi_ij), written down as it stands; x may be complex."""
    d, r = population.d, population.r
    mu = np.zeros((STUDY.n, d), dtype=x.dtype)
    for k, p in enumerate(population.theta_index):
        mu[:, p] += x[k]
    for c, p in enumerate(population.covariate_index):
        mu[:, p] += population.regressors[:, c] * x[population.beta_slice][c]
    factor = np.zeros((d, r), dtype=x.dtype)
    layout = population.layout
    factor[layout.chol_row, layout.chol_column] = x[population.chol_slice]
    covariance = factor @ factor.T
    covariance[population.pooled_index, population.pooled_index] += POOLED_SD**2
    gap = draws.phi - mu[:, None]
    quadratic = ((gap @ np.linalg.inv(covariance)) * gap).sum(axis=-1)
    log_density = -0.5 * quadratic - 0.5 * np.log(np.linalg.det(covariance)) - 0.5 * d * np.log(2 * np.pi)
    weight = np.exp(log_density - draws.log_prior)
    return -np.log(weight.mean(axis=1)).sum()


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_value_and_gradient_are_the_published_objective(structure):
    """The arbiter of the gradient is a complex step, exact to rounding, through the formula as published."""
    draws, population = STUDY.draws(30, np.random.default_rng(0)), _bound(structure)
    objective = MonteCarloLikelihood(tabulate_draws(draws, "double"), population, POOLED_SD)
    x = _point(population)
    value, gradient = objective.value_and_gradient(x)
    assert value == pytest.approx(float(_published(x, draws, population)), rel=1e-12)
    exact = np.array([_published(x + 1e-30j * e, draws, population).imag for e in np.eye(len(x))]) / 1e-30
    np.testing.assert_allclose(gradient, exact, rtol=1e-8, atol=1e-8)
    per_subject, scores = objective.value_and_scores(x)
    assert per_subject.sum() == pytest.approx(-value, rel=1e-12)
    np.testing.assert_allclose(-scores.sum(axis=0), gradient, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(objective.value_gradient_information(x)[2], scores.T @ scores)


def test_single_precision_is_close_and_keeps_level_and_spread_apart():
    """Draws around 1000 with a spread of 0.3: single precision would resolve 6e-5 of them uncentered."""
    draws = STUDY.draws(30, np.random.default_rng(0))
    population = _bound("full")
    x = _point(population)
    tables = [tabulate_draws(draws, precision) for precision in ("double", "single")]
    assert tables[1].phi.dtype == np.float32
    values = [MonteCarloLikelihood(t, population, POOLED_SD).value_and_gradient(x) for t in tables]
    assert values[1][0] == pytest.approx(values[0][0], rel=1e-5)
    np.testing.assert_allclose(values[1][1], values[0][1], atol=1e-3 * np.abs(values[0][1]).max())


def test_singular_covariance_is_a_wall_rather_than_an_error():
    population = _bound("diagonal")
    draws = STUDY.draws(30, np.random.default_rng(0))
    objective = MonteCarloLikelihood(tabulate_draws(draws), population, POOLED_SD)
    x = _point(population)
    x[population.chol_diagonal] = 0.0
    assert objective.value_and_gradient(x)[0] == np.inf
    assert (objective.value_and_scores(x)[0] == -np.inf).all()


def test_error_of_the_score_is_that_between_repeated_draws():
    """Null: the delta method is right where weights are good (ESS about half of 400 draws). The SD over 400
    repetitions has a relative SE of 3.5 %, so 4.5 of them; 5 % more for terms of higher order."""
    study = LinearGaussian(n=20, relative_sd=(2.0, 1.5), seed=5)
    population = study.problem(study.draws(50, np.random.default_rng(0))).bound_population
    x = np.array([*study.truth, 0.8, 0.8])
    scores, covariances = [], []
    for seed in range(400):
        table = tabulate_draws(study.draws(400, np.random.default_rng(seed)), "double")
        objective = MonteCarloLikelihood(table, population, 0.5)
        scores.append(objective.value_and_scores(x)[1].sum(axis=0))
        if seed < 20:
            covariances.append(objective.noise_moments(x)[0])
    said = np.sqrt(np.diagonal(np.mean(covariances, axis=0)))
    np.testing.assert_allclose(np.std(scores, axis=0), said, rtol=4.5 * 0.035 + 0.05)


def test_objective_shares_its_draws_when_pypesto_copies_it():
    table = np.zeros(3)
    objective = GradientObjective(lambda x: (float(x @ x), 2 * x + table), ["a", "b", "c"])
    assert objective.grad is True
    assert copy.deepcopy(objective).function is objective.function


def test_information_replaces_the_hessian_in_a_trust_region():
    """A bowl in which the information is the exact Hessian: one Newton step, a handful of evaluations."""
    bowl = np.array([[4.0, 1.0], [1.0, 3.0]])
    found = minimize_multistart(
        lambda x: (0.5 * float(x @ bowl @ x), bowl @ x),
        np.array([[2.0, -3.0]]),
        np.full(2, -10.0),
        np.full(2, 10.0),
        ["a", "b"],
        curved=lambda x: (0.5 * float(x @ bowl @ x), bowl @ x, bowl),
    )
    np.testing.assert_allclose(found.x, 0.0, atol=1e-5)
    assert found.n_evaluations < 15


def test_pooled_parameters_are_refused_until_their_variance_is_stated():
    problem = STUDY.problem(STUDY.draws(60, np.random.default_rng(0)))
    with pytest.raises(CapabilityError, match=r"p3.*pooled_variance=0.001") as caught:
        MonteCarlo().run(problem)
    assert caught.value.code == "E_FIT_POOLED"
    result = MonteCarlo(pooled_variance=0.001, referee_points=32).run(problem)
    assert any(text.startswith("[W_FIT_POOLED_VARIANCE]") for text in result.warnings)
    assert result.omega[-1, -1] == 0.0


@pytest.mark.parametrize("options", [{"pooled_variance": 0.0}, {"starts": 0}, {"referee_points": True}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(UsageError) as caught:
        MonteCarlo(**options)
    assert caught.value.code == "E_FIT_OPTION"


def test_objective_value_carries_its_error_where_there_is_no_likelihood():
    problem = STUDY.problem(STUDY.draws(200, np.random.default_rng(0)), with_likelihood=False)
    result = MonteCarlo(pooled_variance=0.01, referee_points=32).run(problem)
    assert result.ofv_kind == "monte_carlo"
    assert result.ofv == pytest.approx(result.ofv_individual.sum())
    assert 0.1 < result.ofv_se < 20.0
    assert result.quality.n_points == 200 and (result.quality.ess <= 200.001).all()
