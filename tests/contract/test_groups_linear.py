"""Group-wise typical values and variances on the linear-Gaussian mixed model, with exact estimates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from contract.linear_gaussian import LinearGaussian
from scipy.optimize import minimize

from amortnlme.core.errors import CapabilityError
from amortnlme.core.status import FitStatus
from amortnlme.methods.amortized import Amortized
from amortnlme.methods.fit import fit
from amortnlme.methods.monte_carlo import MonteCarlo
from amortnlme.population.effects import RandomEffects
from amortnlme.population.groups import GroupEffect
from amortnlme.population.population_model import PopulationModel

N = 160
STUDY = LinearGaussian(n=N, relative_sd=(2.0, 1.0), seed=11)
ARM = np.arange(N) % 2


@pytest.fixture(scope="module")
def draws():
    return STUDY.draws(100, np.random.default_rng(0))


def _population(structure):
    effects = RandomEffects(on=("p0", "p1"), structure=structure)
    return PopulationModel(random_effects=effects, groups=(GroupEffect("p1", "arm"),), name="arms")


def _problem(draws, structure, with_likelihood=True):
    population = _population(structure)
    table = pd.DataFrame({"arm": ARM.astype(float)}, index=pd.Index(draws.subject_ids))
    problem = STUDY.problem(draws, with_likelihood=with_likelihood)
    return replace(problem, population=population, bound_population=population.bind(table, draws.parameters))


def _minus_log_likelihood(x, population):
    """-log L at packed x, group by group: each has its rows of the typical values and of omega."""
    theta, omega, total = population.typical_phi(x), population.omega(x), 0.0
    for arm in (0, 1):
        columns = population.grouped.columns[arm]
        covariance = STUDY.noise + omega[np.ix_(columns, columns)]
        gap = STUDY.y()[arm == ARM] - theta[columns]
        total += 0.5 * ((gap @ np.linalg.inv(covariance)) * gap).sum()
        total += 0.5 * len(gap) * (np.linalg.slogdet(covariance)[1] + STUDY.d * np.log(2 * np.pi))
    return total


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_corrected_fit_meets_the_exact_estimates_of_every_group(draws, structure):
    problem = _problem(draws, structure)
    population = problem.bound_population
    result = Amortized(referee_points=32).run(problem)
    assert result.status is FitStatus.CONVERGED, result.warnings
    exact = minimize(_minus_log_likelihood, result.x, (population,), "BFGS", options={"gtol": 1e-6})
    z = (result.x - population.fold_signs(exact.x)) / np.sqrt(np.diagonal(result.covariance))
    assert np.abs(z).max() < 0.03
    # Four times the Monte-Carlo SE of the refereed value, and the cost of z.
    assert abs(result.ofv - 2 * exact.fun) < 4 * result.ofv_se + 0.01
    assert {"p1_0", "p1_1", "omega_p1_0", "omega_p1_1"} <= {e.name for e in result.estimates}


def test_surrogate_of_grouped_parameters_is_close_without_a_likelihood(draws):
    problem = _problem(draws, "diagonal", with_likelihood=False)
    result = Amortized(correction="none", referee_points=32).run(problem)
    exact = minimize(_minus_log_likelihood, result.x, args=(problem.bound_population,), method="BFGS")
    z = (result.x - problem.bound_population.fold_signs(exact.x)) / np.sqrt(np.diagonal(result.covariance))
    # As without groups: a debiased refit of 100 draws.
    assert np.sqrt((z**2).mean()) < 0.5


def test_subjects_keep_their_own_group_in_what_is_reported(draws):
    result = Amortized(referee_points=32).run(_problem(draws, "diagonal"))
    names = result.random_effects
    eta = result.individuals.ebe_eta
    assert np.abs(eta[ARM == 0, names.index("p1_1")]).max() < 1e-8
    assert np.abs(eta[ARM == 1, names.index("p1_1")]).max() > 0.01
    assert (result.eta_shrinkage < 0.9).all()


def test_methods_that_know_no_groups_refuse_them(draws):
    with pytest.raises(CapabilityError) as caught:
        fit(draws, _population("diagonal"), MonteCarlo(pooled_variance=0.01))
    assert caught.value.code == "E_FIT_GROUPS"
