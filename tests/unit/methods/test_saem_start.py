"""The short search that picks SAEM's starting point, on a model whose likelihood has a closed form."""

import numpy as np
import pytest
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.fit import fit
from amortnlme.methods.saem import Saem
from amortnlme.methods.saem_start import most_promising
from amortnlme.population.effects import RandomEffects
from amortnlme.population.population_model import PopulationModel

STUDY, MODEL = linear_study(), line()
POPULATION = PopulationModel(random_effects=RandomEffects(("m", "s"), "full"))
BOUND = MODEL.bind(STUDY.dataset)
JOINED = POPULATION.bind(STUDY.dataset.covariate_table(), MODEL.parameters)
STARTS = np.array([[4.0, -2.0, 0.5, 2.0, 0.0, 2.0], [1.1, 0.4, np.log(0.45), 0.9, 0.2, 0.6]])


def _exact(x):
    root = np.array([[x[3], 0.0], [x[4], x[5]]])
    return -2.0 * exact_log_likelihood(STUDY, x[:2], 0.0, root @ root.T, float(np.exp(x[2]))).sum()


def test_most_promising_is_the_best_trial_by_the_exact_likelihood():
    found = most_promising(BOUND, JOINED, STARTS, stream(1))
    # Laplace's approximation is exact here, and the search for the modes ends within 0.01 SD of them.
    assert min(found.values) == pytest.approx(_exact(found.x), abs=30 * 0.01**2 * 2)
    # Thirty rounds only rank the trials: the far start has come near the maximum.
    assert _exact(STARTS[0]) > _exact(STARTS[1]) + 100.0
    assert max(found.values) < _exact(STARTS[1]) + 20.0
    assert np.isfinite(found.place).all()


def test_saem_with_candidates_comes_to_the_same_estimates():
    short = {"n_exploration": 100, "max_exploration": 100, "n_averaging": 100, "referee_points": 64}
    plain, picked = (fit(STUDY.dataset, POPULATION, Saem(**short, candidates=k), model=MODEL) for k in (1, 3))
    assert picked.status is FitStatus.CONVERGED
    assert plain.covariance is not None
    distance = np.abs(picked.x - plain.x) / np.sqrt(np.diagonal(plain.covariance))
    # Each within 0.2 SE of the maximum, or it would say so.
    assert distance.max() < 0.4
    with pytest.raises(UsageError, match="candidates"):
        Saem(candidates=0)
