"""The short search that picks SAEM's starting point, on a model whose likelihood has a closed form."""

import numpy as np
import pytest
from contract.linear_mixed_model import exact_log_likelihood, line, linear_study

from amortnlme.core.errors import UsageError
from amortnlme.core.rng import stream
from amortnlme.core.status import FitStatus
from amortnlme.methods.classical import Focei
from amortnlme.methods.climb import climb
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


def test_most_promising_climbs_to_the_exact_maximum_from_the_better_start():
    found = most_promising(BOUND, JOINED, STARTS, stream(1))
    # Laplace's approximation is exact here, and the search for the modes ends within 1e-4 SD of them.
    assert found.value == pytest.approx(_exact(found.x), abs=1e-6)
    # Which ends within 1e-3 standard errors of its six entries.
    best = fit(STUDY.dataset, POPULATION, Focei(referee_points=0), model=MODEL)
    assert best.ofv - 1e-5 < found.value < best.ofv + 1e-3
    assert np.isfinite(found.place).all()


def test_climb_never_ends_below_its_start():
    start = np.array([4.0, -2.0, 0.5, 2.0, 0.0, 2.0])
    phi = np.repeat(start[None, :3], JOINED.n_subjects, axis=0)
    values = [
        climb(BOUND, JOINED, start, phi, n_steps, stream(1)).log_likelihood for n_steps in (0, 1, 3, 10, 40)
    ]
    assert (np.diff(values) >= 0.0).all()
    assert values[0] == pytest.approx(-0.5 * _exact(start), abs=1e-6)
    assert values[-1] > values[0] + 100.0


def test_saem_with_candidates_comes_to_the_same_estimates():
    short = {"n_exploration": 100, "max_exploration": 100, "n_averaging": 100, "referee_points": 64}
    plain, picked = (
        fit(STUDY.dataset, POPULATION, Saem(**short, candidates=k), model=MODEL) for k in (1, 3)
    )
    assert picked.status is FitStatus.CONVERGED
    assert plain.covariance is not None
    distance = np.abs(picked.x - plain.x) / np.sqrt(np.diagonal(plain.covariance))
    # Each within 0.2 SE of the maximum, or it would say so.
    assert distance.max() < 0.4
    with pytest.raises(UsageError, match="candidates"):
        Saem(candidates=0)
